"""GNC2, margins: the distance of each classifier row to the convex hull of the others."""

from __future__ import annotations

import math

from torch import Tensor

from tightframe import numerics
from tightframe.codes import smallest_one_vs_rest
from tightframe.evidence import require_classifier
from tightframe.metrics.metric import Setting, metric, of_all_classes

__all__ = ["one_vs_rest_distance"]


def _one_vs_rest_target(setting: Setting) -> float | None:
    if setting.crowded:
        return None
    return math.sqrt(setting.classes / (setting.classes - 1) * setting.K / (setting.K - 1))


@of_all_classes
def _one_vs_rest_floor(setting: Setting) -> float | None:
    """0 for D = 1, where two rows coincide; 1 - cos(2 pi/K) for D = 2; 1 for D + 2 <= K <= 2D; else unknown."""
    if setting.D <= 2:
        return 0.0 if setting.D == 1 else 1 - math.cos(2 * math.pi / setting.K)
    return 1.0 if setting.K <= 2 * setting.D else None


@metric(
    "one-vs-rest distance",
    "GNC2",
    source="Jiang et al. 2023",
    convention="unit classifier rows",
    target=_one_vs_rest_target,
    floor=_one_vs_rest_floor,
    most_classes=100,
)
def one_vs_rest_distance(classifier: Tensor) -> Tensor:
    """Smallest distance of a unit classifier row to the convex hull of the other rows; maximal for a softmax code.

    Exact, from one quadratic program per class; the cost grows as K^2 D. NaN if a row has length zero, which has no
    direction.

    Shape: classifier (K, D); scalar, float64. Range: [0, K/(K-1)], unitless; K/(K-1) for a simplex ETF, at most 1 for K
    > D + 1.
    Misleads: one row decides, and the lengths of rows, which decisions depend on, do not count.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Jiang et al. 2023, GNC2.

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # the other rows contain the origin
    >>> round(metrics.one_vs_rest_distance(weight).item(), 6)
    1.0
    """
    units = numerics.unit_rows(require_classifier(classifier))
    return units.new_full((), math.nan) if units.isnan().any() else smallest_one_vs_rest(units)
