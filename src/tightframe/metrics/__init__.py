"""Measures of neural collapse as pure, differentiable functions of collected evidence; `METRICS` lists them."""

# ruff: noqa: F403
from tightframe.evidence import Evidence
from tightframe.metrics import measures
from tightframe.metrics.closeness import Closeness, closeness
from tightframe.metrics.conventions import CONVENTIONS, Convention
from tightframe.metrics.drilldown import ClassTable, PairTable, class_table, pair_table
from tightframe.metrics.jackknife import Estimate, jackknife, standard_errors
from tightframe.metrics.levels import Level, levels
from tightframe.metrics.measures import *
from tightframe.metrics.metric import Metric, Setting, metric, plain, share
from tightframe.metrics.shuffling import shuffled
from tightframe.metrics.table import METRICS, available, evaluate

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "ClassTable",
    "Closeness",
    "Convention",
    "Estimate",
    "Evidence",
    "Level",
    "Metric",
    "PairTable",
    "Setting",
    "available",
    "class_table",
    "closeness",
    "evaluate",
    "jackknife",
    "levels",
    "metric",
    "pair_table",
    "plain",
    "share",
    "shuffled",
    "standard_errors",
]
__all__ += [name for name in vars(measures) if not name.startswith("_")]
