"""Small image data sets that need no download, and images from outside them; torch is imported on use."""

from tightframe.datasets.dataset import Dataset
from tightframe.datasets.imbalance import exponential_counts, step_counts, subsample
from tightframe.datasets.source import DatasetSource, OutsideSource
from tightframe.datasets.table import DATASETS, OUTSIDE, hierarchy_of, load, load_outside

__all__ = [
    "DATASETS",
    "OUTSIDE",
    "Dataset",
    "DatasetSource",
    "OutsideSource",
    "exponential_counts",
    "hierarchy_of",
    "load",
    "load_outside",
    "step_counts",
    "subsample",
]
