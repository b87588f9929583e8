"""NECO against its number of components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from tightframe.checks import Array, as_tensor
from tightframe.errors import RangeError, ShapeError
from tightframe.ood.evaluation import Detection, evaluate
from tightframe.plain import plain

_MOST = 40  # values of p: neighbours differ by less than their standard errors
NUMBERS = ("auroc", "auroc_error", "fpr95", "fpr95_error")


def component_values(num_features: int, num_classes: int, most: int = _MOST) -> list[int]:
    """At most so many numbers of components from 1 to D, all or evenly spaced in their logarithms, with K - 1 and K.

    >>> component_values(512, 10, most=8)
    [1, 3, 9, 10, 12, 42, 147, 512]

    Raises: RangeError for fewer than four values.
    """
    if most < 4:
        raise RangeError(f"at least 4 values are needed, for 1, K - 1, K and D; got {most}.")
    if num_features <= most:
        return list(range(1, num_features + 1))
    named = {p for p in (1, num_classes - 1, num_classes, num_features) if 1 <= p <= num_features}
    chosen = named
    for count in range(most, 1, -1):
        chosen = named | {round(num_features ** (step / (count - 1))) for step in range(count)}
        if len(chosen) <= most:
            break
    return sorted(chosen)


@dataclass(frozen=True)
class ComponentCurve:
    """AUROC and FPR95 of NECO for several numbers of components, on one pair of data sets.

    Attributes:
        components: (P,) in increasing order.
        auroc, auroc_error, fpr95, fpr95_error: (P,) each, as in `Detection`; NaN where a sample has no score.
        default: the number that was settled before any of these samples was seen.
    """

    components: tuple[int, ...]
    auroc: tuple[float, ...]
    auroc_error: tuple[float, ...]
    fpr95: tuple[float, ...]
    fpr95_error: tuple[float, ...]
    default: int

    @property
    def best(self) -> int:
        """The number of components with the highest AUROC on these samples, the smallest of equals.

        The maximum over a curve is optimistic: it fits the samples it was taken on. To use this number, state its
        result on others. Raises: RangeError where the AUROC is nowhere defined.
        """
        known = [i for i, value in enumerate(self.auroc) if not math.isnan(value)]
        if not known:
            raise RangeError("the AUROC is undefined at every number of components; there is no best.")
        return self.components[max(known, key=lambda i: (self.auroc[i], -i))]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with NaN as "nan"."""
        return {name: plain(value) for name, value in asdict(self).items()}


def component_curve(inside: Array, outside: Array, components: Sequence[int], default: int) -> ComponentCurve:
    """The curve from the scores of `Neco.curve` (N, P) on in-distribution and (M, P) on out-of-distribution samples.

    The number of components is a hyper-parameter. This shows what it does; it chooses nothing.
    Raises: ShapeError where columns and components don't match; the errors of `evaluate`.
    """
    inside, outside = as_tensor(inside, "scores"), as_tensor(outside, "scores")
    for scores in (inside, outside):
        if scores.ndim != 2 or scores.shape[1] != len(components):
            raise ShapeError(f"scores must have shape (N, {len(components)}); got {tuple(scores.shape)}.")
    points = [judge(inside[:, i], outside[:, i]) for i in range(len(components))]
    a, b, c, d = (tuple(getattr(point, name) for point in points) for name in NUMBERS)
    return ComponentCurve(tuple(components), a, b, c, d, default)


def judge(inside: Tensor, outside: Tensor) -> Detection:
    """`evaluate`, or NaN where a sample has no score: to leave it out would flatter the detector."""
    if bool(inside.isfinite().all()) and bool(outside.isfinite().all()):
        return evaluate(inside, outside)
    return Detection(math.nan, math.nan, math.nan, math.nan, len(inside), len(outside))
