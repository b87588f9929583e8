"""Measures of neural collapse as pure, differentiable functions of collected evidence; `METRICS` lists them."""

# ruff: noqa: F403  (each family declares its public names in __all__)
from tightframe.evidence import Evidence
from tightframe.metrics import (
    agreement,
    duality,
    geometry,
    layers,
    orthogonality,
    predicted,
    spectra,
    transfer,
    variability,
)
from tightframe.metrics.agreement import *
from tightframe.metrics.conventions import CONVENTIONS, Convention
from tightframe.metrics.drilldown import ClassTable, PairTable, class_table, pair_table
from tightframe.metrics.duality import *
from tightframe.metrics.geometry import *
from tightframe.metrics.jackknife import Estimate, jackknife, standard_errors
from tightframe.metrics.layers import *
from tightframe.metrics.levels import Closeness, Level, closeness, levels, shuffled
from tightframe.metrics.metric import Metric, Setting, metric, plain, share
from tightframe.metrics.multilabel import TagSets, single_label_statistics, tag_sets, tagwise_average_error
from tightframe.metrics.orthogonality import *
from tightframe.metrics.predicted import *
from tightframe.metrics.regression import nrc1, nrc2, nrc3, nrc_null
from tightframe.metrics.spectra import *
from tightframe.metrics.table import METRICS, available, evaluate
from tightframe.metrics.transfer import *
from tightframe.metrics.variability import *

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
    "TagSets",
    "available",
    "class_table",
    "closeness",
    "evaluate",
    "jackknife",
    "levels",
    "metric",
    "nrc1",
    "nrc2",
    "nrc3",
    "nrc_null",
    "pair_table",
    "plain",
    "share",
    "shuffled",
    "single_label_statistics",
    "standard_errors",
    "tag_sets",
    "tagwise_average_error",
]
__all__ += agreement.__all__
__all__ += duality.__all__
__all__ += geometry.__all__
__all__ += layers.__all__
__all__ += orthogonality.__all__
__all__ += predicted.__all__
__all__ += spectra.__all__
__all__ += transfer.__all__
__all__ += variability.__all__
