"""`StatisticsAccumulator`: one pass over batches of features, exact also for means far from the origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from tightframe.checks import Array, as_tensor
from tightframe.device_state import DeviceState
from tightframe.errors import MergeError
from tightframe.memory import require_memory
from tightframe.numerics import full_precision, large_zeros
from tightframe.processes import all_reduce, rank, withdraw, world_size
from tightframe.statistics.class_statistics import ClassStatistics
from tightframe.statistics.folds import Dealer, FoldedStatistics, require_folds, require_samples
from tightframe.statistics.intake import Intake, Step
from tightframe.statistics.moments import CHUNK_ROWS, Moments

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Value = TypeVar("Value")

_STEP_ROWS = 512  # minimum rows per fold in one step
_STEP_ENTRIES = 1 << 18  # maximum entries in one step, which stay in cache


class StatisticsAccumulator(nn.Module):
    """Accumulate (features, labels) batches into `ClassStatistics` and `FoldedStatistics`, in one pass.

    Each class has an *anchor*, a point near its mean. With z = x - anchor[y], the accumulator keeps counts, sums of z
    and |z|^2, and the product z^T z; `compute` removes the anchors analytically. Products run in the features' dtype
    (float32 at least) and are summed in float64, so means 10^4 from the origin cost no digits. See `Moments`.

    It is a module, with device and state_dict of its owner; casting does not change its dtypes. `state_dict` and
    `load_state_dict` restore the state bit for bit.

    Args:
        num_classes: K.
        num_features: D.
        covariance: keep the pooled (D, D) scatter; without it, memory is O(K D).
        per_class: keep a (D, D) scatter per class, for subsets and class-balanced or directional measures.
        folds: number of folds for standard errors; memory is multiplied by it. Default: no folds.
        fold_scatter: keep the scatter per fold; without it only measures of means and variances have standard errors.
        class_dim: dimension of the features that contains the D entries, for example 1 for (N, D, H, W).
        ignore_index: label whose rows are dropped.

    Raises: RangeError for fewer than two folds.

    >>> import torch
    >>> from tightframe import StatisticsAccumulator
    >>> accumulator = StatisticsAccumulator(3, 5, folds=4)
    >>> accumulator.update(torch.randn(60, 5), torch.arange(60) % 3)
    >>> accumulator.compute().counts.tolist(), [int(part.num_samples) for part in accumulator.compute_folds().parts]
    ([20, 20, 20], [15, 15, 15, 15])
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        folds: int | None = None,
        fold_scatter: bool = True,
        class_dim: int = -1,
        ignore_index: int | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        if folds is not None:
            require_folds(folds)
        self.num_classes, self.num_features, self.folds = num_classes, num_features, folds
        parts, squares = folds or 1, covariance * (num_classes if per_class else 1)
        sums = 12 * num_features * (parts * num_classes + (parts if fold_scatter else 1) * squares * num_features)
        where = None if device is None else torch.device(device)
        require_memory(sums, f"accumulating {num_classes:,} classes of {num_features:,} features", where)
        self._kind = {"covariance": covariance, "per_class": per_class, "folds": folds, "fold_scatter": fold_scatter}

        scratch: dict[torch.dtype, Tensor] = {}

        def moments(with_scatter: bool) -> Moments:
            options = {"covariance": covariance and with_scatter, "per_class": per_class and with_scatter}
            return Moments(num_classes, num_features, **options, device=device, scratch=scratch)

        by_fold = folds is not None and fold_scatter
        self.whole = None if by_fold else moments(True)  # all samples; None if the folds add up to it
        self.parts = nn.ModuleList(moments(by_fold) for _ in range(folds or 0))
        self._put_products_together()
        self.intake = Intake(
            num_classes,
            num_features,
            rows=_step_rows(num_features, per_class) * (folds or 1),
            class_dim=class_dim,
            ignore_index=ignore_index,
            device=device,
        )
        self._dealer = None if folds is None else Dealer(folds, _first_fold(folds))

    @staticmethod
    def memory(
        num_classes: int,
        num_features: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        folds: int | None = None,
        fold_scatter: bool = True,
    ) -> int:
        """Approximate memory in bytes, including results: O(K D), and O(D^2) for the scatter, per fold."""
        parts = folds or 1
        results = 1 if folds is None else folds + 1
        moments = num_classes * (parts * (8 + 4) + 8 * results)  # sums, anchors, the results' means
        waiting = _step_rows(num_features, per_class) * parts * (4 * num_features + 16)  # rows, labels and folds
        products = (num_classes if per_class else 1) * covariance
        copies = parts if fold_scatter else 1
        # products, pending products, results, and work space for one
        scatter = products * (copies * (8 + 4) + (results if fold_scatter else 1) * 8 + 2 * 8)
        return num_features * (moments + num_features * scatter) + waiting

    def reset(self) -> None:
        """Remove all samples."""
        for moments in self._moments:
            moments.reset()
        self._put_products_together()
        self.intake.reset()
        self._dealer = None if self.folds is None else Dealer(self.folds, _first_fold(self.folds))

    def update(
        self, features: Array, labels: Array, *, samples: Array | None = None, validate: bool | None = None
    ) -> None:
        """Add a batch; the features are detached.

        Args:
            features: (..., D), or D at `class_dim`, any float dtype; a tensor or a numpy array, like all arguments.
            labels: shape of the features without that dimension, any integer dtype, in [0, K).
            samples: integers in the shape of the labels or of their first dimension; rows with equal numbers belong to
                one sample and stay in one fold. Default: the index along the first dimension, so that pixels of an
                image and tokens of a sequence stay together.
            validate: check values before the state changes. Default: on the CPU. Without validation nothing is read
                back from the device, except `samples` and, with per_class, the classes of the batch; a batch with an
                invalid value is left out completely and reported by the next validated `update`, `compute` or
                `state_dict`.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError. The state does not change then.
        """
        if validate is None:
            validate = self.intake.device.type == "cpu"
        features, labels = as_tensor(features, "features"), as_tensor(labels, "labels")
        samples = None if samples is None else as_tensor(samples, "samples")
        if self._dealer is not None:
            require_samples(samples, labels)
        rows, flat = self.intake.admit(features, labels, validate)
        folds = None
        if self._dealer is not None:
            folds = self._dealer.folds_of(labels, samples, in_turn=not validate)
            counted = self.intake.counted(labels, validate)
            folds = folds if counted is None else folds[counted]
        with full_precision(self.intake.device.type):
            if rows.dtype is torch.float64:
                self._widen()
            for step in self.intake.put(rows, flat, folds, seen=validate):
                self._add(step)

    forward = update

    @property
    def _folds(self) -> list[Moments]:
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def _moments(self) -> list[Moments]:
        """Moments of all samples, if kept, and of each fold."""
        return self._folds if self.whole is None else [self.whole, *self._folds]

    def _put_products_together(self) -> None:
        """Allocate the folds' products in one block: its first use takes a quarter of the time of many blocks."""
        for name in ("product", "pending") if self._folds else ():
            first = getattr(self._folds[0], name)
            if first is not None:
                whole = large_zeros(len(self._folds), *first.shape, dtype=first.dtype, device=first.device)
                for moments, product in zip(self._folds, whole, strict=True):
                    setattr(moments, name, product)

    def _add(self, step: Step) -> None:
        rows, labels, folds, counted = step
        if self.whole is not None:
            for start in range(0, len(labels), CHUNK_ROWS):
                some = slice(start, start + CHUNK_ROWS)
                self.whole.add(rows[some], labels[some], None if counted is None else counted[some])
        if self._dealer is None or folds is None:
            return
        dealt = torch.stack([moments.counts for moments in self._folds]).sum(0)
        for fold, where in self._dealer.split(labels, folds, dealt):
            for some in where.split(CHUNK_ROWS):  # one fold may get most rows
                part = None if counted is None else counted.index_select(0, some)
                self._folds[fold].add(rows.index_select(0, some), labels.index_select(0, some), part)

    def _add_rest(self) -> None:
        self.intake.require_none_rejected()
        with full_precision(self.intake.device.type):
            for step in self.intake.rest():
                self._add(step)

    # ------------------------------------------------------------------ results

    def compute(self) -> ClassStatistics:
        """The statistics of all samples so far; further updates are possible.

        Raises: LabelError, NonFiniteError or RangeError if an unvalidated batch was invalid.
        """
        self._add_rest()
        with torch.inference_mode(False):  # inference tensors can't be used in a graph
            return self._rounded(self._total(self._values()) if self.whole is None else self.whole.value())

    def compute_folds(self) -> FoldedStatistics:
        """The statistics per fold. Raises: as `compute`; RangeError without folds."""
        require_folds(len(self.parts))
        self._add_rest()
        with torch.inference_mode(False):
            values = self._values()
            total = self._total(values) if self.whole is None else self.whole.value()
            return FoldedStatistics(self._rounded(total), tuple(map(self._rounded, values)))

    def _values(self) -> list[ClassStatistics]:
        """The statistics of each fold, with their scatter in one block of memory."""
        products = [moments.product for moments in self._folds]
        rooms: Iterable[Tensor | None] = products
        if products[0] is not None:
            shape = (len(products), *products[0].shape)
            rooms = large_zeros(*shape, dtype=torch.float64, device=products[0].device)
        return [moments.value(room) for moments, room in zip(self._folds, rooms, strict=True)]

    def _total(self, values: Sequence[ClassStatistics]) -> ClassStatistics:
        """The statistics of all samples, from the statistics of the folds."""
        origin = torch.zeros_like(values[0].means)
        for moments in reversed(self._folds):  # anchor of the first fold with the class
            origin = torch.where(moments.counts[:, None] > 0, moments.anchors.to(torch.float64), origin)
        return ClassStatistics.merge_all(values, (origin, [moments.offsets(origin) for moments in self._folds]))

    def _rounded(self, value: ClassStatistics) -> ClassStatistics:
        return value.rounded(self.intake.epsilon)

    def compute_all(self, group: ProcessGroup | None = None) -> ClassStatistics:
        """The statistics of the samples of all processes of the group (default: all); the state does not change.

        Raises: as `all_reduce`.
        """
        return _of_all(self.compute, "class statistics", group).all_reduce(group)

    def compute_folds_all(self, group: ProcessGroup | None = None) -> FoldedStatistics:
        """The statistics per fold over all processes. Raises: as `compute_all`; MergeError if folds differ."""
        return _of_all(self.compute_folds, "folded statistics", group).all_reduce(group)

    # ------------------------------------------------------------------ merging

    def merge(self, other: StatisticsAccumulator) -> None:
        """Add the samples of another accumulator. Raises: MergeError if its arguments differ."""
        for name in ("num_classes", "num_features", *self._kind):
            a, b = (each._kind.get(name, getattr(each, name, None)) for each in (self, other))
            if a != b:
                raise MergeError(f"accumulators must have the same {name} to be merged; got {a} and {b}.")
        for each in (self, other):
            each._add_rest()
        both = zip(self._moments, other._moments, strict=True)
        self._restore([a.value().merge(b.value().to(a.device)) for a, b in both], other._precision)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add the samples of all other processes of the group (default: all). Call it once, after the last batch.

        A collective call, as `ClassStatistics.all_reduce`. A second call would count the samples of the first one once
        per process.

        Raises: LabelError, NonFiniteError or RangeError if an unvalidated batch was invalid, and MergeError in the
        other processes; MergeError in all processes if classes, features or scatter differ; DistributedError.
        """
        _of_all(self.intake.require_none_rejected, "class statistics", group)
        if world_size(group) == 1:
            return
        self._add_rest()
        values = [moments.value().all_reduce(group) for moments in self._moments]
        precision = torch.tensor(self._precision, dtype=torch.float64)
        self._restore(values, all_reduce(precision, "the features' precision", group, "MAX").tolist())

    @property
    def _precision(self) -> tuple[float, float]:
        """Machine epsilon of the coarsest features so far, and 1 if some were in float64."""
        return self.intake.epsilon, float(self.intake.waiting.dtype is torch.float64)

    def _restore(self, values: Sequence[ClassStatistics], precision: Sequence[float]) -> None:
        epsilon, wide = precision
        if wide:
            self._widen()
        for moments, value in zip(self._moments, values, strict=True):
            moments.restore(value)
        self.intake.epsilon = max(self.intake.epsilon, epsilon)

    def _widen(self) -> None:
        """Switch to float64 after the first float64 features; float32 is faster before."""
        for moments in self._moments:
            moments.widen()
        self.intake.widen()

    # ------------------------------------------------------------------ module behaviour

    def get_extra_state(self) -> Tensor:
        """Number of samples assigned to the folds in turn, for `state_dict`."""
        return torch.tensor([0 if self._dealer is None else self._dealer.samples])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        if self._dealer is not None:
            self._dealer.samples = int(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, part in self.named_modules():  # check all parts before changing one
            if isinstance(part, DeviceState):
                part.require_fits(state_dict, f"{prefix}{name}.")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, num_features={self.num_features}, folds={self.folds}"


def _step_rows(num_features: int, per_class: bool) -> int:
    if per_class:  # one product per class
        return CHUNK_ROWS
    return max(_STEP_ROWS, min(CHUNK_ROWS, _STEP_ENTRIES // num_features))


def _first_fold(folds: int) -> int:
    return rank() * folds // world_size()


def _of_all(call: Callable[[], Value], what: str, group: ProcessGroup | None) -> Value:
    """The result of `call`, to be merged over processes; if it raises, the other processes raise MergeError."""
    try:
        return call()
    except Exception as error:
        withdraw(what, error, group)
