"""`LOSSES`: all training losses by name."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tightframe.losses.alignment import (
    BalancedDotRegression,
    CosineMatching,
    DotRegression,
    Hyperspherical,
    PrototypeCrossEntropy,
)
from tightframe.losses.costs import (
    ExpectedCost,
    HierarchicalCrossEntropy,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
)
from tightframe.losses.pixels import CentreCollapse
from tightframe.losses.prototypes import (
    Distortion,
    EquiangularHinge,
    PrototypeRank,
    ScaleFreeDistortion,
    SemanticRanking,
    Separation,
    SquaredScaleFreeDistortion,
)
from tightframe.losses.regression import JointHyperspherical, PoleRegression

EMBEDDINGS, LOGITS, POSITIONS, VALUES, VECTORS = "embeddings", "logits", "positions", "values", "prototypes"
BOTH = "labels and values"


@dataclass(frozen=True)
class Loss:
    """One training loss.

    Attributes:
        module: the class.
        takes: its inputs: "embeddings" or "logits" with labels; "positions", embeddings of pixels or tokens with
            labels; "values", embeddings and values; "labels and values", embeddings and both; or only "prototypes".
        summary: the loss in a line.
        source: the paper.
    """

    module: type[nn.Module]
    takes: str
    summary: str
    source: str


_MGP, _HPN, _BETTER = "Sainte Fare Garnot & Landrieu 2021", "Mettes et al. 2019", "Bertinetto et al. 2020"

LOSSES: dict[str, Loss] = {
    "dot-regression": Loss(DotRegression, EMBEDDINGS, "(1 - cos)^2 / 2 to the own prototype", "Yang et al. 2022"),
    "balanced-dot-regression": Loss(
        BalancedDotRegression, EMBEDDINGS, "dot regression, equal class weights", "Yang et al. 2022, code"
    ),
    "hyperspherical": Loss(Hyperspherical, EMBEDDINGS, "(1 - cos)^2 to the own prototype", _HPN),
    "cosine-matching": Loss(CosineMatching, EMBEDDINGS, "match the cosines of the own prototype", "Liang & Davis 2023"),
    "prototype-cross-entropy": Loss(
        PrototypeCrossEntropy, EMBEDDINGS, "cross-entropy of scaled cosines", "Yang et al. 2022"
    ),
    "soft-label-cross-entropy": Loss(SoftLabelCrossEntropy, LOGITS, "labels softened by cost", _BETTER),
    "hierarchical-cross-entropy": Loss(HierarchicalCrossEntropy, LOGITS, "cross-entropy along a tree", _BETTER),
    "expected-cost": Loss(ExpectedCost, LOGITS, "expected cost of a random decision", _MGP),
    "squared-earth-mover": Loss(SquaredEarthMover, LOGITS, "squared probabilities times cost", "Hou et al. 2017"),
    "centre-collapse": Loss(CentreCollapse, POSITIONS, "cross-entropy of class centres in images", "Zhong et al. 2023"),
    "pole-regression": Loss(PoleRegression, VALUES, "a value is a cosine to a pole", _HPN),
    "joint-hyperspherical": Loss(JointHyperspherical, BOTH, "classes and values in one embedding", _HPN),
    "separation": Loss(Separation, VECTORS, "mean largest cosine to another prototype", _HPN),
    "semantic-ranking": Loss(SemanticRanking, VECTORS, "cosines ordered like similarities", _HPN),
    "equiangular-hinge": Loss(EquiangularHinge, VECTORS, "|cosines| above alpha", "Shen et al. 2023"),
    "distortion": Loss(Distortion, VECTORS, "relative error of distances against costs", _MGP),
    "scale-free-distortion": Loss(ScaleFreeDistortion, VECTORS, "the same at the best scale", _MGP),
    "squared-scale-free-distortion": Loss(SquaredScaleFreeDistortion, VECTORS, "the same, squared", _MGP),
    "prototype-rank": Loss(PrototypeRank, VECTORS, "distances ordered like costs", _MGP),
}
