"""Data as mergeable values: counts, means and scatter of each class, and moments of several layers."""

from tightframe.statistics.accumulator import StatisticsAccumulator
from tightframe.statistics.class_statistics import ClassStatistics, Weighting
from tightframe.statistics.cross_accumulator import CrossAccumulator, FoldedCrossMoments
from tightframe.statistics.cross_moments import CrossMoments
from tightframe.statistics.folds import FoldedStatistics

__all__ = [
    "ClassStatistics",
    "CrossAccumulator",
    "CrossMoments",
    "FoldedCrossMoments",
    "FoldedStatistics",
    "StatisticsAccumulator",
    "Weighting",
]
