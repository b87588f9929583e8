"""Small image datasets that need no download: load them in, and images from outside them."""

from tightframe.datasets.dataset import Dataset
from tightframe.datasets.outside import OUTSIDE, load_outside
from tightframe.datasets.sources import DATASETS, load

__all__ = ["DATASETS", "OUTSIDE", "Dataset", "load", "load_outside"]
