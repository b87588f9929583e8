"""What is decided for each sample, by the classifier and by the nearest class centre, counted as mergeable values."""

from tightframe.decisions.confusion import ConfusionCounts
from tightframe.decisions.decisions import DecisionCounts, DecisionTotals

__all__ = ["ConfusionCounts", "DecisionCounts", "DecisionTotals"]
