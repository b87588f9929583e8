"""`Training`: the weight decays and loss of a training, which determine the optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from inspect import signature
from typing import Any

from tightframe.checks import Array, require_positive
from tightframe.choices import require_choice
from tightframe.errors import OptionError, RangeError, ShapeError
from tightframe.plain import restored, restored_fields
from tightframe.statistics import ClassStatistics
from tightframe.theory.class_groups import (
    Counts,
    PerClass,
    require_class_weights,
    require_label_smoothing,
    require_logit_adjustment,
)
from tightframe.theory.minority_collapse import estimated_feature_decay
from tightframe.theory.unconstrained_features import UnconstrainedOptimum, cross_entropy_optimum, squared_error_optimum

OPTIMA: dict[str, Callable[..., UnconstrainedOptimum]] = {
    "cross-entropy": cross_entropy_optimum,
    "squared error": squared_error_optimum,
}
"""Optima of unconstrained features by name of the loss."""


@dataclass(frozen=True)
class Training:
    """The training options that determine the optimum of the unconstrained-features model, together with the counts.

    The objective is mean loss + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 + lambda_b/2 |b|^2; lambda_W is `weight_decay` of
    torch's SGD. AdamW decouples weight decay from the gradient and does not minimise this objective.

    Attributes:
        weight_decay: lambda_W, decay of the classifier's weight, > 0.
        feature_decay: lambda_H, > 0. None: use `estimated_feature_decay`.
        bias_decay: lambda_b >= 0, if the classifier has a bias. None: equal to `weight_decay`, torch's default.
        loss: a name in `OPTIMA`.
        label_smoothing, class_weights, logit_adjustment: options of the loss, as in `cross_entropy_optimum`; values per
            class are stored as a tuple.

    Raises: RangeError for decays that are not positive (bias_decay may be 0), ChoiceError for an unknown loss,
    OptionError for an option that the loss does not have; for options out of range as the function in `OPTIMA`.

    >>> from tightframe.theory import Training
    >>> Training(5e-4).loss
    'cross-entropy'
    >>> Training(5e-4, label_smoothing=0.1, class_weights=[1, 2]).class_weights
    (1.0, 2.0)
    """

    weight_decay: float
    feature_decay: float | None = None
    bias_decay: float | None = None
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    class_weights: PerClass | None = None
    logit_adjustment: float | PerClass | None = None

    def __post_init__(self) -> None:
        require_positive(self.weight_decay, "weight_decay")
        if self.feature_decay is not None:
            require_positive(self.feature_decay, "feature_decay")
        if self.bias_decay is not None and not 0 <= self.bias_decay < float("inf"):
            raise RangeError(f"bias_decay must be finite and >= 0; got {self.bias_decay}.")
        require_choice(self.loss, OPTIMA, "loss")
        require_label_smoothing(self.label_smoothing)
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(require_class_weights(self.class_weights).tolist()))
        if self.logit_adjustment is not None:
            values = require_logit_adjustment(self.logit_adjustment).tolist()
            object.__setattr__(self, "logit_adjustment", tuple(values) if isinstance(values, list) else values)
        foreign = [name for name in self._options() if name not in signature(OPTIMA[self.loss]).parameters]
        if foreign:
            raise OptionError(f"the loss {self.loss!r} has no option {foreign[0]}; leave it out.")

    def with_feature_decay(self, statistics: ClassStatistics, weight: Array) -> Training:
        """A copy with lambda_H, if it is None, estimated from the lengths of weight (K, D) and features.

        Class weights and offsets of classes without samples are dropped; the optimum is for the other classes.
        Raises: ShapeError if the number of class weights or offsets does not fit the statistics.
        """
        present, changes = statistics.present.tolist(), dict[str, Any]()
        for name, values in self._options().items():
            if isinstance(values, tuple) and len(values) != len(present):
                raise ShapeError(f"{name} must have shape ({len(present)},), one per class; got ({len(values)},).")
            if isinstance(values, tuple) and not all(present):
                changes[name] = tuple(value for value, sampled in zip(values, present, strict=True) if sampled)
        if self.feature_decay is None:
            changes["feature_decay"] = float(estimated_feature_decay(statistics, weight, self.weight_decay))
        return replace(self, **changes) if changes else self

    def optimum(self, counts: Counts, *, with_bias: bool) -> UnconstrainedOptimum:
        """The optimum for class counts, all positive; `with_bias`: whether the classifier has a bias.

        Raises: RangeError if `feature_decay` is None; otherwise as the function in `OPTIMA`.
        """
        if self.feature_decay is None:
            raise RangeError("an optimum needs feature_decay; pass it, or call with_feature_decay().")
        decay = self.weight_decay if self.bias_decay is None else self.bias_decay
        decays = self.weight_decay, self.feature_decay, decay if with_bias else None
        return OPTIMA[self.loss](counts, *decays, **self._options())

    def _options(self) -> dict[str, Any]:
        """Options of the loss that differ from their defaults."""
        values = {"class_weights": self.class_weights, "logit_adjustment": self.logit_adjustment}
        options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        return options | ({"label_smoothing": self.label_smoothing} if self.label_smoothing else {})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Training:
        """Inverse of `to_dict`, also after JSON. Raises: StateError for other data; as the class."""
        options = {
            "class_weights": restored(tuple[float, ...] | None, data.get("class_weights"), "class_weights"),
            "logit_adjustment": restored(
                tuple[float, ...] | float | None, data.get("logit_adjustment"), "logit_adjustment"
            ),
        }
        return restored_fields(cls, {**data, **options}, "training", leave=options)
