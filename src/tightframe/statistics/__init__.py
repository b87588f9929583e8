"""Data as mergeable values: counts, means and scatter of each class."""

from tightframe.statistics.accumulator import StatisticsAccumulator
from tightframe.statistics.class_statistics import ClassStatistics, Weighting
from tightframe.statistics.folds import FoldedStatistics

__all__ = [
    "ClassStatistics",
    "FoldedStatistics",
    "StatisticsAccumulator",
    "Weighting",
]
