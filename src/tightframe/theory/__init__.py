"""Predictions of theory: optima of training objectives, geometry for class counts, and bounds from the dimension."""

from tightframe.theory.codes import CodeOptimum, softmax_code_optimum, tammes_optimum
from tightframe.theory.few_shot import FewShot, few_shot, few_shot_pairs
from tightframe.theory.floors import cross_entropy_floor
from tightframe.theory.minority_collapse import (
    estimated_feature_decay,
    merging_classes,
    minority_collapse_threshold,
)
from tightframe.theory.regression import RegressionOptimum, regression_optimum
from tightframe.theory.seli import Seli, seli
from tightframe.theory.training import OPTIMA, Training
from tightframe.theory.unconstrained_features import (
    UnconstrainedOptimum,
    cross_entropy_optimum,
    frame_cosine,
    squared_error_optimum,
)

__all__ = [
    "OPTIMA",
    "CodeOptimum",
    "FewShot",
    "RegressionOptimum",
    "Seli",
    "Training",
    "UnconstrainedOptimum",
    "cross_entropy_floor",
    "cross_entropy_optimum",
    "estimated_feature_decay",
    "few_shot",
    "few_shot_pairs",
    "frame_cosine",
    "merging_classes",
    "minority_collapse_threshold",
    "regression_optimum",
    "seli",
    "softmax_code_optimum",
    "squared_error_optimum",
    "tammes_optimum",
]
