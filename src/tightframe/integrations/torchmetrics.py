"""`NeuralCollapse`: metrics of class statistics as a torchmetrics `Metric`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.errors import ChoiceError, EmptyClassError, MissingExtraError, StateError
from tightframe.evidence import Evidence
from tightframe.metrics import METRICS, available, evaluate
from tightframe.metrics.table import chosen
from tightframe.statistics import ClassStatistics, StatisticsAccumulator

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.exceptions import TorchMetricsUserError
except ImportError:
    raise MissingExtraError("torchmetrics", "torchmetrics") from None


class NeuralCollapse(Metric):
    """Measures of features and labels, as a dict of 0-d tensors by name.

        metric = NeuralCollapse(num_classes=10, num_features=512, metrics=["nc1", "etf_error"])
        metric.update(features, labels)
        metric.compute()  # {"nc1": tensor(...), "etf_error": tensor(...)}

    The metric stores statistics, not features, always in float64. Synchronisation adds the statistics of all processes
    exactly; afterwards each process has its own again. All values are NaN if fewer than two classes have samples, which
    is possible for the single batch of `forward`. As for other metrics, `state_dict` contains the state after
    `persistent(True)`. Use one NeuralCollapse with all metrics: in a `MetricCollection` each keeps its own statistics.

    Args:
        num_classes, num_features: K and D.
        metrics: as in `measure`, names in `METRICS` or metrics. Default: all headline metrics of these statistics.
        options: covariance, per_class, class_dim and ignore_index as in `StatisticsAccumulator`; options of `Metric`.

    Raises: ChoiceError for metrics that need other evidence; `update` raises the errors of
    `StatisticsAccumulator.update`.
    """

    full_state_update = False
    is_differentiable = False
    accumulator: StatisticsAccumulator
    _everything: ClassStatistics | None = None  # statistics of all processes, while synced
    _persists = False

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        metrics: Sequence[Any] | None = None,
        *,
        covariance: bool = True,
        per_class: bool = False,
        class_dim: int = -1,
        ignore_index: int | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        kind: dict[str, Any] = {"covariance": covariance, "per_class": per_class, "class_dim": class_dim}
        self._new = partial(StatisticsAccumulator, num_classes, num_features, ignore_index=ignore_index, **kind)
        # not a submodule: torchmetrics' states are in state_dict only if they are persistent
        object.__setattr__(self, "accumulator", self._new())
        evidence = Evidence(self.accumulator.compute())
        supported = available(evidence)
        wanted = [each for each in supported if each.headline] if metrics is None else chosen(metrics)
        if refused := [each.name for each in wanted if not each.available(evidence)]:
            names = ", ".join(each.name for each in supported)
            raise ChoiceError(f"metrics must be among {names}, or custom metrics; got {refused[0]!r}.")
        # names if possible, since they can be pickled
        self.metrics = [each.name if METRICS.get(each.name) is each else each for each in wanted]

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch: features (..., D), or D at `class_dim`, and labels (...)."""
        self.accumulator.update(features, labels)

    def compute(self) -> dict[str, Tensor]:
        """The values for all samples since the last reset; while synced, over all processes."""
        return self._values(self._everything if self._is_synced else self.accumulator.compute())

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Add a batch, and return the values for this batch."""
        if self._is_synced:
            raise TorchMetricsUserError("the metric is synced; call unsync() before forward().")
        self.update(features, labels)
        batch = self._new(device=features.device)
        batch.update(features, labels)
        statistics = batch.compute()
        if self.dist_sync_on_step and self.distributed_available_fn():
            statistics = statistics.all_reduce(self.process_group)
        return self._values(statistics)

    def _values(self, statistics: ClassStatistics | None) -> dict[str, Tensor]:
        try:
            return evaluate(Evidence(statistics), self.metrics)
        except EmptyClassError:
            nothing = torch.full((len(self.metrics),), math.nan, dtype=torch.float64, device=self.device)
            return {each.name: value for each, value in zip(chosen(self.metrics), nothing, strict=True)}

    def sync(self, dist_sync_fn: Any = None, process_group: Any = None, *conditions: Any, **named: Any) -> None:
        """Make `compute` cover the samples of all processes, which must all call this; `unsync` reverts it."""
        before, group = self._is_synced, process_group or self.process_group
        super().sync(dist_sync_fn, process_group, *conditions, **named)  # gathers nothing: there is no such state
        if self._is_synced and not before:
            self._is_synced = False  # in case the next line fails
            self._everything, self._is_synced = self.accumulator.compute_all(group), True

    def unsync(self, should_unsync: bool = True) -> None:
        super().unsync(should_unsync)
        self._everything = self._everything if self._is_synced else None

    def reset(self) -> None:
        super().reset()
        self.accumulator.reset()

    def merge_state(self, incoming_state: Any) -> None:
        """Add the samples of another NeuralCollapse. Raises: StateError for other objects, MergeError."""
        if not isinstance(incoming_state, NeuralCollapse):
            raise StateError(f"incoming_state must be a NeuralCollapse; got {type(incoming_state)}.")
        self.accumulator.merge(incoming_state.accumulator)
        self._computed = None

    def persistent(self, mode: bool = False) -> None:
        self._persists = mode

    def state_dict(self, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        state = super().state_dict(destination, prefix, keep_vars)
        if self._persists:
            self.accumulator.state_dict(destination=state, prefix=f"{prefix}accumulator.", keep_vars=keep_vars)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        start = f"{prefix}accumulator."
        own = {name.removeprefix(start): state_dict.pop(name) for name in list(state_dict) if name.startswith(start)}
        if own:
            self.accumulator.load_state_dict(own)
            self._computed = None
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        self.accumulator._apply(fn)
        return super()._apply(fn, exclude_state)
