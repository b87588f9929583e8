"""Data as mergeable values: the moments of every class, and the decisions that need the samples themselves."""

from tightframe.statistics.accumulator import StatisticsAccumulator
from tightframe.statistics.class_statistics import ClassStatistics, Weighting
from tightframe.statistics.confusion import ConfusionCounts
from tightframe.statistics.decisions import DecisionCounts
from tightframe.statistics.folds import FoldedStatistics

__all__ = [
    "ClassStatistics",
    "ConfusionCounts",
    "DecisionCounts",
    "FoldedStatistics",
    "StatisticsAccumulator",
    "Weighting",
]
