"""Training losses for prototypes, hierarchies and costs; `LOSSES` lists them."""

from tightframe.losses.alignment import (
    BalancedDotRegression,
    CosineMatching,
    DotRegression,
    Hyperspherical,
    PrototypeCrossEntropy,
)
from tightframe.losses.class_loss import ClassLoss, EmbeddingLoss
from tightframe.losses.costs import (
    CostLoss,
    ExpectedCost,
    HierarchicalCrossEntropy,
    LogitLoss,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
)
from tightframe.losses.pixels import CentreCollapse
from tightframe.losses.prototypes import (
    Distortion,
    EquiangularHinge,
    PrototypeLoss,
    PrototypeRank,
    ScaleFreeDistortion,
    SemanticRanking,
    Separation,
    SquaredScaleFreeDistortion,
)
from tightframe.losses.regression import JointHyperspherical, PoleRegression
from tightframe.losses.table import LOSSES, Loss

__all__ = [
    "LOSSES",
    "BalancedDotRegression",
    "CentreCollapse",
    "ClassLoss",
    "CosineMatching",
    "CostLoss",
    "Distortion",
    "DotRegression",
    "EmbeddingLoss",
    "EquiangularHinge",
    "ExpectedCost",
    "HierarchicalCrossEntropy",
    "Hyperspherical",
    "JointHyperspherical",
    "LogitLoss",
    "Loss",
    "PoleRegression",
    "PrototypeCrossEntropy",
    "PrototypeLoss",
    "PrototypeRank",
    "ScaleFreeDistortion",
    "SemanticRanking",
    "Separation",
    "SoftLabelCrossEntropy",
    "SquaredEarthMover",
    "SquaredScaleFreeDistortion",
]
