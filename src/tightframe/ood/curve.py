"""NECO as a function of its number of components."""

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

_MOST = 40  # numbers of components; neighbours differ by less than their standard errors
NUMBERS = ("auroc", "auroc_error", "fpr95", "fpr95_error")


def component_values(num_features: int, num_classes: int, most: int = _MOST) -> list[int]:
    """At most `most` numbers of components from 1 to D, logarithmically spaced if D > `most`, including K - 1 and K.

    >>> from tightframe.ood import component_values
    >>> component_values(512, 10, most=8)
    [1, 3, 9, 10, 12, 42, 147, 512]

    Raises: RangeError if most < 4.
    """
    if most < 4:
        raise RangeError(f"most must be at least 4, for 1, K - 1, K and D; got {most}.")
    if num_features <= most:
        return list(range(1, num_features + 1))
    required = {p for p in (1, num_classes - 1, num_classes, num_features) if 1 <= p <= num_features}
    values = required
    for count in range(most, 1, -1):
        values = required | {round(num_features ** (step / (count - 1))) for step in range(count)}
        if len(values) <= most:
            break
    return sorted(values)


@dataclass(frozen=True)
class ComponentCurve:
    """AUROC and FPR95 of NECO for several numbers of components, on one pair of data sets.

    Attributes:
        components: (P,) in increasing order.
        auroc, auroc_error, fpr95, fpr95_error: (P,) each, as in `Detection`; NaN if a sample has no score.
        default: the detector's number of components, fixed before these samples were seen.
    """

    components: tuple[int, ...]
    auroc: tuple[float, ...]
    auroc_error: tuple[float, ...]
    fpr95: tuple[float, ...]
    fpr95_error: tuple[float, ...]
    default: int

    @property
    def best(self) -> int:
        """The number of components with the highest AUROC on these samples; the smallest one of ties.

        The maximum of a curve is optimistic, because it is selected on these samples. Evaluate the selected number on
        other samples. Raises: RangeError if all AUROCs are NaN.
        """
        defined = [i for i, value in enumerate(self.auroc) if not math.isnan(value)]
        if not defined:
            raise RangeError("there is no best number of components: the AUROC is undefined for all of them.")
        return self.components[max(defined, key=lambda i: (self.auroc[i], -i))]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with NaN as "nan"."""
        return {name: plain(value) for name, value in asdict(self).items()}


def component_curve(inside: Array, outside: Array, components: Sequence[int], default: int) -> ComponentCurve:
    """The curve from scores of `Neco.curve`, (N, P) for in-distribution and (M, P) for out-of-distribution samples.

    It shows the effect of the number of components, a hyper-parameter, and does not select a value.
    Raises: ShapeError unless there is one column per number of components; the errors of `evaluate`.

    >>> import torch
    >>> from tightframe.ood import component_curve
    >>> inside, outside = torch.tensor([[3.0, 3.0], [2.0, 2.0]]), torch.tensor([[2.5, 1.0], [0.0, 0.0]])
    >>> curve = component_curve(inside, outside, components=(1, 2), default=1)
    >>> curve.auroc, curve.best  # three of four pairs in order; all
    ((0.75, 1.0), 2)
    """
    inside, outside = as_tensor(inside, "scores"), as_tensor(outside, "scores")
    for scores in (inside, outside):
        if scores.ndim != 2 or scores.shape[1] != len(components):
            raise ShapeError(f"scores must have shape (N, {len(components)}); got {tuple(scores.shape)}.")
    points = [judge(inside[:, i], outside[:, i]) for i in range(len(components))]
    a, b, c, d = (tuple(getattr(point, name) for point in points) for name in NUMBERS)
    return ComponentCurve(tuple(components), a, b, c, d, default)


def judge(inside: Tensor, outside: Tensor) -> Detection:
    """`evaluate`, or NaN if a sample has no score; leaving it out would bias the result."""
    if bool(inside.isfinite().all()) and bool(outside.isfinite().all()):
        return evaluate(inside, outside)
    return Detection(math.nan, math.nan, math.nan, math.nan, len(inside), len(outside))
