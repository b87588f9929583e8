"""`Training`: how a classifier was trained, as far as it is known and decides what its optimum is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from tightframe.checks import require_positive
from tightframe.errors import ChoiceError, RangeError
from tightframe.statistics import ClassStatistics
from tightframe.theory.minority_collapse import estimated_feature_decay
from tightframe.theory.unconstrained_features import UnconstrainedOptimum, cross_entropy_optimum, squared_error_optimum

OPTIMA: dict[str, Callable[..., UnconstrainedOptimum]] = {
    "cross-entropy": cross_entropy_optimum,
    "squared error": squared_error_optimum,
}
"""The optimum of unconstrained features by the name of the loss."""


@dataclass(frozen=True)
class Training:
    """What the optimum of the unconstrained-features model depends on beside the counts.

    The objective is mean loss + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 + lambda_b/2 |b|^2: lambda_W is `weight_decay`
    of torch's SGD. AdamW decays weights apart from the gradient, and has no such objective.

    Attributes:
        weight_decay: lambda_W, of the classifier's weight; > 0.
        feature_decay: lambda_H. None where features aren't penalised themselves: then `estimated_feature_decay`.
        bias_decay: lambda_b, if the classifier has a bias; None: as `weight_decay`, which is torch's default.
        loss: a name in `OPTIMA`.

    Raises: RangeError for decays that aren't positive (a bias's may be 0), ChoiceError for an unknown loss.

    >>> Training(5e-4).loss
    'cross-entropy'
    """

    weight_decay: float
    feature_decay: float | None = None
    bias_decay: float | None = None
    loss: str = "cross-entropy"

    def __post_init__(self) -> None:
        require_positive(self.weight_decay, "weight_decay")
        if self.feature_decay is not None:
            require_positive(self.feature_decay, "feature_decay")
        if self.bias_decay is not None and not 0 <= self.bias_decay < float("inf"):
            raise RangeError(f"bias_decay must be finite and at least 0; got {self.bias_decay}.")
        if self.loss not in OPTIMA:
            raise ChoiceError(f"the loss must be one of {', '.join(OPTIMA)}; got {self.loss!r}.")

    def with_feature_decay(self, statistics: ClassStatistics, weight: Tensor) -> Training:
        """The same with lambda_H estimated from the lengths of weight (K, D) and features, where it wasn't given."""
        if self.feature_decay is not None:
            return self
        return replace(self, feature_decay=float(estimated_feature_decay(statistics, weight, self.weight_decay)))

    def optimum(self, counts: Sequence[int] | Tensor, *, with_bias: bool) -> UnconstrainedOptimum:
        """The optimum for classes of these sizes, all positive; `with_bias` tells whether the classifier has a bias.

        Raises: RangeError while lambda_H isn't known; otherwise as the loss's function in `OPTIMA`.
        """
        if self.feature_decay is None:
            raise RangeError("the features' decay must be known for an optimum; see with_feature_decay().")
        decay = self.weight_decay if self.bias_decay is None else self.bias_decay
        return OPTIMA[self.loss](counts, self.weight_decay, self.feature_decay, decay if with_bias else None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Training:
        """Inverse of `to_dict`."""
        return cls(**data)
