"""Small image datasets that need no download: load them in, and images from outside them."""

from tightframe.datasets.dataset import Dataset
from tightframe.datasets.hierarchies import hierarchy_of
from tightframe.datasets.imbalance import exponential_counts, step_counts, subsample
from tightframe.datasets.outside import OUTSIDE, load_outside
from tightframe.datasets.sources import DATASETS, load

__all__ = [
    "DATASETS",
    "OUTSIDE",
    "Dataset",
    "exponential_counts",
    "hierarchy_of",
    "load",
    "load_outside",
    "step_counts",
    "subsample",
]
