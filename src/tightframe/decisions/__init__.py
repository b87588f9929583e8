"""Mergeable counts of decisions of the classifier and of the nearest class centre."""

from tightframe.decisions.confusion import ConfusionCounts
from tightframe.decisions.decisions import DecisionCounts, DecisionTotals

__all__ = ["ConfusionCounts", "DecisionCounts", "DecisionTotals"]
