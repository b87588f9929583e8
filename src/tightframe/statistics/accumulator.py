"""`StatisticsAccumulator`: one pass over batches of features, exact wherever the class means lie."""

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

_STEP_ROWS = 512  # of each fold that are added together, at least,
_STEP_ENTRIES = 1 << 18  # and at most so many numbers, which stay in cache


class StatisticsAccumulator(nn.Module):
    """Streams (features, labels) batches into `ClassStatistics`, and `FoldedStatistics`, in one pass.

    Every class has an *anchor*, a point near its mean. Per batch z = x - anchor[y]; counts, sums of z, of |z|^2 and
    one product z^T z are kept, and `compute` removes the anchors analytically. Products run in the features' dtype
    (float32 at least) and are summed in float64, so means 10^4 from the origin cost no digits. See `Moments`.

    A module so that it follows its owner's device and state_dict; casting never touches its dtypes. The state
    survives `state_dict` / `load_state_dict` bit for bit.

    Args:
        num_classes: K.
        num_features: D.
        covariance: keep the pooled (D, D) scatter; without it, memory is O(K D).
        per_class: keep a (D, D) scatter for each class, for subsets and class-balanced or directional measures.
        folds: deal the samples of every class to so many folds, for standard errors; memory is then F times as much.
        fold_scatter: keep the scatter by fold too; without it standard errors are of means and spreads alone.
        class_dim: the features' dimension that holds the D entries, e.g. 1 for (N, D, H, W).
        ignore_index: a label whose rows are dropped.

    Raises: RangeError for fewer than two folds.

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
        needed = self.memory(
            num_classes,
            num_features,
            covariance=covariance,
            per_class=per_class,
            folds=folds,
            fold_scatter=fold_scatter,
        )
        where = None if device is None else torch.device(device)
        require_memory(needed, f"accumulating {num_classes:,} classes of {num_features:,} features", where)
        self._kind = {"covariance": covariance, "per_class": per_class, "folds": folds, "fold_scatter": fold_scatter}

        scratch: dict[torch.dtype, Tensor] = {}

        def moments(kept: bool) -> Moments:
            options = {"covariance": covariance and kept, "per_class": per_class and kept}
            return Moments(num_classes, num_features, **options, device=device, scratch=scratch)

        by_fold = folds is not None and fold_scatter
        self.whole = None if by_fold else moments(True)  # of all samples; the sum of the folds, if they have all of it
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
        """About the bytes that accumulating takes, results included: O(K D), and O(D^2) for the scatter, by fold."""
        parts = folds or 1
        results = 1 if folds is None else folds + 1
        moments = num_classes * (parts * (8 + 4) + 8 * results)  # sums, anchors, the results' means
        waiting = _step_rows(num_features, per_class) * parts * (4 * num_features + 16)  # rows, labels and folds
        products = (num_classes if per_class else 1) * covariance
        kept = parts if fold_scatter else 1
        # the products, pending ones, results made of them, and room to work on one
        scatter = products * (kept * (8 + 4) + (results if fold_scatter else 1) * 8 + 2 * 8)
        return num_features * (moments + num_features * scatter) + waiting

    def reset(self) -> None:
        """Forget every sample."""
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
            features: (..., D) of any float dtype, or D at `class_dim`; a tensor or a numpy array, as all three.
            labels: the features' shape without that dimension, any integer dtype, in [0, K).
            samples: integers of the labels' shape, or of their first dimension: rows with the same number are one
                sample, and stay in one fold wherever they come. Default: the index along the first dimension, so that
                pixels of an image and tokens of a sequence stay together.
            validate: check the values before anything changes (the default on the CPU). Without it nothing is
                read back from the device (but `samples` that lie there and, with per_class, which classes a batch has):
                a batch with a bad value is left out as a whole and reported by the next validated `update`, `compute`
                or `state_dict`.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError. The accumulator is then what
        it was before, byte for byte.
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
            kept = self.intake.kept(labels, validate)
            folds = folds if kept is None else folds[kept]
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
        """Those of all samples, if they are kept, and of each fold."""
        return self._folds if self.whole is None else [self.whole, *self._folds]

    def _put_products_together(self) -> None:
        """Hold the folds' products in one piece: touched first, it takes a quarter of the time that many pieces do."""
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
            for some in where.split(CHUNK_ROWS):  # one fold may have most of the rows
                part = None if counted is None else counted.index_select(0, some)
                self._folds[fold].add(rows.index_select(0, some), labels.index_select(0, some), part)

    def _add_rest(self) -> None:
        self.intake.require_none_rejected()
        with full_precision(self.intake.device.type):
            for step in self.intake.rest():
                self._add(step)

    # ------------------------------------------------------------------ results

    def compute(self) -> ClassStatistics:
        """The statistics of everything added so far; the accumulator can go on.

        Raises: LabelError, NonFiniteError or RangeError if an unvalidated batch was bad.
        """
        self._add_rest()
        with torch.inference_mode(False):  # a value made in that mode can't become part of a graph
            return self._rounded(self._total(self._values()) if self.whole is None else self.whole.value())

    def compute_folds(self) -> FoldedStatistics:
        """As `compute`, by fold. Raises: RangeError without folds, too."""
        require_folds(len(self.parts))
        self._add_rest()
        with torch.inference_mode(False):
            values = self._values()
            total = self._total(values) if self.whole is None else self.whole.value()
            return FoldedStatistics(self._rounded(total), tuple(map(self._rounded, values)))

    def _values(self) -> list[ClassStatistics]:
        """The statistics of each fold, with their scatter in one piece of memory, as the products are."""
        products = [moments.product for moments in self._folds]
        rooms: Iterable[Tensor | None] = products
        if products[0] is not None:
            shape = (len(products), *products[0].shape)
            rooms = large_zeros(*shape, dtype=torch.float64, device=products[0].device)
        return [moments.value(room) for moments, room in zip(self._folds, rooms, strict=True)]

    def _total(self, values: Sequence[ClassStatistics]) -> ClassStatistics:
        """The statistics of all samples, from those of each fold."""
        origin = torch.zeros_like(values[0].means)
        for moments in reversed(self._folds):  # an anchor of the first fold that has the class
            origin = torch.where(moments.counts[:, None] > 0, moments.anchors.to(torch.float64), origin)
        return ClassStatistics.merge_all(values, (origin, [moments.offsets(origin) for moments in self._folds]))

    def _rounded(self, value: ClassStatistics) -> ClassStatistics:
        return value.rounded(self.intake.epsilon)

    def compute_all(self, group: ProcessGroup | None = None) -> ClassStatistics:
        """The statistics of what all processes of the group (default: all) have seen; this one's stay its own.

        Raises: as `all_reduce`.
        """
        return _of_all(self.compute, "class statistics", group).all_reduce(group)

    def compute_folds_all(self, group: ProcessGroup | None = None) -> FoldedStatistics:
        """As `compute_all`, by fold. Raises: MergeError for different numbers of folds, too."""
        return _of_all(self.compute_folds, "folded statistics", group).all_reduce(group)

    # ------------------------------------------------------------------ others' samples

    def merge(self, other: StatisticsAccumulator) -> None:
        """Add everything another accumulator has seen. Raises: MergeError if it was made with other arguments."""
        for name in ("num_classes", "num_features", *self._kind):
            mine, theirs = (each._kind.get(name, getattr(each, name, None)) for each in (self, other))
            if mine != theirs:
                raise MergeError(f"can't merge an accumulator with {name}={theirs} into one with {name}={mine}.")
        for each in (self, other):
            each._add_rest()
        both = zip(self._moments, other._moments, strict=True)
        self._restore([mine.value().merge(theirs.value().to(mine.device)) for mine, theirs in both], other._precision)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add everything the other processes of the group (default: all) have seen, once, after the last batch.

        A collective call, as `ClassStatistics.all_reduce`; batches added afterwards are this process's own again, and
        a second call would count the first one's samples once per process.

        Raises: LabelError, NonFiniteError or RangeError if an unvalidated batch was bad, and then MergeError in the
        other processes; MergeError in all of them for other classes, features or kinds of scatter; DistributedError.
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
        """Epsilon of the coarsest features seen, and 1 if some were in float64."""
        return self.intake.epsilon, float(self.intake.waiting.dtype is torch.float64)

    def _restore(self, values: Sequence[ClassStatistics], precision: Sequence[float]) -> None:
        epsilon, wide = precision
        if wide:
            self._widen()
        for moments, value in zip(self._moments, values, strict=True):
            moments.restore(value)
        self.intake.epsilon = max(self.intake.epsilon, epsilon)

    def _widen(self) -> None:
        """Go on in float64, once there are float64 features; until then float32 is faster."""
        for moments in self._moments:
            moments.widen()
        self.intake.widen()

    # ------------------------------------------------------------------ module behaviour

    def get_extra_state(self) -> Tensor:
        """How many samples were dealt to the folds in turn."""
        return torch.tensor([0 if self._dealer is None else self._dealer.samples])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        if self._dealer is not None:
            self._dealer.samples = int(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, part in self.named_modules():  # all before any is changed
            if isinstance(part, DeviceState):
                part.require_fits(state_dict, f"{prefix}{name}.")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, num_features={self.num_features}, folds={self.folds}"


def _step_rows(num_features: int, per_class: bool) -> int:
    if per_class:  # each class's rows are a product of their own
        return CHUNK_ROWS
    return max(_STEP_ROWS, min(CHUNK_ROWS, _STEP_ENTRIES // num_features))


def _first_fold(folds: int) -> int:
    return rank() * folds // world_size()


def _of_all(call: Callable[[], Value], what: str, group: ProcessGroup | None) -> Value:
    """What a call gives, before the processes merge it; if this one has nothing to give, the others are told."""
    try:
        return call()
    except Exception as error:
        withdraw(what, error, group)
