"""`StatisticsAccumulator`: one pass over batches of features, exact wherever the class means lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tightframe import checks
from tightframe.errors import LabelError, MergeError, NonFiniteError, StateError
from tightframe.numerics import EPS, float64_device, full_precision, large_zeros
from tightframe.statistics.class_statistics import ClassStatistics
from tightframe.statistics.distributed import all_reduce, withdraw, world_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_GROUP_ROWS = 512  # smaller batches wait until so many rows are together: each step costs more than its arithmetic
_CHUNK_ROWS = 4096  # rows per product: longer float32 sums lose digits, and memory stays O(rows * D)
_FLUSH_ROWS = 4096  # rows whose float32 products are summed before they join the float64 total
_BAND = 128  # rows of the product computed at a time: narrower ones save more work but run slower
_BLOCK_ROWS = 256  # rows widened to float64 at a time, so that they stay in cache
_CANCELLATION = 16.0  # energy about the anchor may exceed the spread by this factor: one of float32's seven digits
_SETTLED_ROWS = 3  # rows besides the anchor after which a class is known well enough to judge its anchor
_NARROW = 8  # features up to which float32 products may add thousands of rows one by one; float64 is as fast there
_OUTLIER = 64.0  # rows with this many times the median energy would cost the other rows' float32 products digits
_SQUARES = (1e-24, 1e30)  # sums of squares that float32 holds with all digits; batches outside go in float64
_EARLY_BATCHES = 32  # unvalidated batches multiplied in float64, as their anchors may not have been judged yet
_UNKNOWN_CLASS, _NON_FINITE = 1, 2  # reasons why an unvalidated batch was masked out


class StatisticsAccumulator(nn.Module):
    """Streams (features, labels) batches into `ClassStatistics`, in one pass.

    Every class has an *anchor*, a point near its mean. Per batch z = x - anchor[y]; counts, sums of z, of |z|^2 and
    one product z^T z are kept, and `compute` removes the anchors analytically. Products run in the features' dtype
    (float32 at least) and are summed in float64, so means 10^4 from the origin cost no digits. The first sample of a
    class is its first anchor; it is replaced by the mean of the others if they turn out to lie far from it, so an
    outlier as anchor costs none either. A class's first rows, and later outliers, are multiplied in float64.

    A module so that it follows its owner's device and state_dict; casting never touches its dtypes. The state
    survives `state_dict` / `load_state_dict` bit for bit.

    Args:
        num_classes: K.
        num_features: D.
        covariance: keep the pooled (D, D) scatter; without it, memory is O(K D).
        per_class: keep a (D, D) scatter for each class, for subsets and class-balanced or directional measures.
        class_dim: the features' dimension that holds the D entries, e.g. 1 for (N, D, H, W).
        ignore_index: a label whose rows are dropped.
    """

    counts: Tensor  # (K,)
    anchors: Tensor  # (K, D), in the dtype of the widest features seen
    sums: Tensor  # (K, D), sum of x - anchor
    energy: Tensor  # (K,), sum of |x - anchor|^2
    floor: Tensor  # (K,), the spread when the anchor was last judged, a lower bound from then on; 0 before
    on_sample: Tensor  # (K,) whether the anchor is one of the samples
    product: Tensor | None  # (D, D), sum of (x - anchor)(x - anchor)^T; only its upper triangle is kept up to date
    pending: Tensor | None  # (D, D) float32, products not yet added to `product`
    class_product: Tensor | None  # (K, D, D)
    waiting: Tensor  # (_GROUP_ROWS, D), rows of small batches not yet added, in the anchors' dtype
    waiting_labels: Tensor  # (_GROUP_ROWS,)
    rejected: Tensor  # (2,), reason and number of unvalidated batches masked out

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        class_dim: int = -1,
        ignore_index: int | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.num_classes, self.num_features = num_classes, num_features
        self.covariance, self.per_class = covariance, per_class
        self.class_dim, self.ignore_index = class_dim, ignore_index
        self._device = float64_device(device)
        self.reset()

    @staticmethod
    def memory(num_classes: int, num_features: int, *, covariance: bool = True) -> int:
        """About the bytes that accumulating takes, results included: O(K D), and O(D^2) for the scatter."""
        moments = num_classes * (8 + 4 + 8) + _GROUP_ROWS * 4  # sums, anchors, the result's means; waiting rows
        scatter = 8 + 4 + 3 * 8 if covariance else 0  # product, pending product, and results made of them
        return num_features * (moments + num_features * scatter)

    def reset(self) -> None:
        """Forget every sample."""
        K, D = self.num_classes, self.num_features
        with torch.inference_mode(False):  # inference tensors could not be updated outside that mode
            f64: dict[str, Any] = {"dtype": torch.float64, "device": self._device}
            f32: dict[str, Any] = {"dtype": torch.float32, "device": self._device}
            state: dict[str, Tensor | None] = {
                "counts": torch.zeros(K, dtype=torch.int64, device=self._device),
                "anchors": torch.zeros(K, D, **f32),
                "sums": torch.zeros(K, D, **f64),
                "energy": torch.zeros(K, **f64),
                "floor": torch.zeros(K, **f64),
                "on_sample": torch.ones(K, dtype=torch.bool, device=self._device),
                "product": torch.zeros(D, D, **f64) if self.covariance else None,
                "pending": torch.zeros(D, D, **f32) if self.covariance else None,
                "class_product": torch.zeros(K, D, D, **f64) if self.per_class else None,
                "rejected": torch.zeros(2, dtype=torch.int64, device=self._device),
            }
            for name, tensor in state.items():
                self.register_buffer(name, tensor)
        self._make_room(_GROUP_ROWS)
        self._scratch: dict[tuple[torch.dtype, int], Tensor] = {}
        self._all_seen = False
        self._rows_pending = 0
        self._batches = 0
        self._epsilon = EPS  # of the coarsest features seen

    def _make_room(self, rows: int) -> None:
        """Room for so many rows to wait; those that wait now are forgotten."""
        with torch.inference_mode(False):
            waiting = large_zeros(rows, self.num_features, dtype=self.anchors.dtype, device=self._device)
            self.register_buffer("waiting", waiting)
            self.register_buffer("waiting_labels", torch.zeros(rows, dtype=torch.int64, device=self._device))
        self._rows_waiting = 0

    # ------------------------------------------------------------------ the hot path

    def update(self, features: Tensor, labels: Tensor, *, validate: bool | None = None) -> None:
        """Add a batch; the features are detached.

        Args:
            features: (..., D) of any float dtype, or D at `class_dim`.
            labels: the features' shape without that dimension, any integer dtype, in [0, K).
            validate: check the values before anything changes (the default on the CPU). Without it nothing is
                read back from the device (but, with per_class, which classes a batch has): a batch with a bad value
                is masked out as a whole and reported by the next validated `update`, `compute` or `state_dict`.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError. The accumulator is then what
        it was before, byte for byte.
        """
        if validate is None:
            validate = self._device.type == "cpu"
        rows, labels = self._admit(features, labels, validate)
        with full_precision(self._device.type):
            if not validate:
                self._add_unchecked(rows, labels)
                return
            if len(labels) + self._rows_waiting > _GROUP_ROWS:
                self._add_waiting()
            if len(labels) < _GROUP_ROWS:
                self._wait(rows, labels)
                return
            for start in range(0, len(labels), _CHUNK_ROWS):
                self._add(rows[start : start + _CHUNK_ROWS], labels[start : start + _CHUNK_ROWS])

    forward = update

    def _admit(self, features: Tensor, labels: Tensor, validate: bool) -> tuple[Tensor, Tensor]:
        """A batch as (N, D) rows in the anchors' dtype and (N,) labels, checked before anything changes."""
        rows, labels = checks.as_rows(
            features.detach(),
            labels,
            num_features=self.num_features,
            class_dim=self.class_dim,
            ignore_index=self.ignore_index if validate else None,  # dropping rows reads how many are left
        )
        if rows.device != self._device:
            rows, labels = rows.to(self._device), labels.to(self._device)
        if validate:
            self._require_none_rejected()
            checks.require_labels(labels, self.num_classes)
            checks.require_finite(rows)
        if rows.dtype is torch.float64:
            self._widen()
        elif self.anchors.dtype is torch.float64:
            rows = rows.to(torch.float64)
        self._epsilon = max(self._epsilon, torch.finfo(features.dtype).eps)
        return rows, labels

    def _wait(self, rows: Tensor, labels: Tensor) -> None:
        place = slice(self._rows_waiting, self._rows_waiting + len(labels))
        self.waiting[place] = rows
        self.waiting_labels[place] = labels
        self._rows_waiting += len(labels)

    def _add_waiting(self) -> None:
        rows, self._rows_waiting = self._rows_waiting, 0
        if rows:
            self._add(self.waiting[:rows], self.waiting_labels[:rows])

    def _add(self, rows: Tensor, labels: Tensor) -> None:
        """Add (N, D) rows, in the anchors' dtype, known to be finite and with labels in range."""
        if not self._all_seen:
            self._drop_anchors(rows, labels)
        deviations, squares = self._deviate(rows, labels)
        total = squares.sum().item()
        if total != 0 and not _SQUARES[0] < total < _SQUARES[1]:  # squares that float32 can't hold
            rows = rows.to(torch.float64)
            deviations, squares = self._deviate(rows, labels)
        young = None
        energy = self.energy.index_add(0, labels, squares)
        strained = energy > self.floor * _CANCELLATION
        if strained.any():
            young = (strained & (self.floor == 0)).index_select(0, labels)
            if self._settle(labels, deviations, strained):
                deviations, squares = self._deviate(rows, labels)
                energy = self.energy.index_add(0, labels, squares)
        self.energy.copy_(energy)
        self.counts.index_add_(0, labels, torch.ones_like(labels))
        self._all_seen = self._all_seen or bool(self.counts.all())
        self._add_sums(deviations, labels)
        if self.product is not None:
            if deviations.dtype is not torch.float64:
                deviations = self._multiply_wide(deviations, squares, total, young)
            self._multiply(deviations)

    def _deviate(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows relative to their anchors, in scratch memory that the next call reuses, and their squared lengths."""
        if self.anchors.dtype is rows.dtype:
            deviations = self._workspace(rows.dtype, _CHUNK_ROWS)[: len(rows)]
            torch.index_select(self.anchors, 0, labels, out=deviations)
            torch.sub(rows, deviations, out=deviations)
        else:
            deviations = rows - self.anchors.index_select(0, labels)
        return deviations, torch.linalg.vector_norm(deviations, dim=1).to(torch.float64).square_()

    def _workspace(self, dtype: torch.dtype, rows: int) -> Tensor:
        """Scratch memory (rows, D), kept from call to call: fresh pages cost more than the arithmetic on them."""
        space = self._scratch.get((dtype, rows))
        if space is None:
            with torch.inference_mode(False):
                space = torch.empty(rows, self.num_features, dtype=dtype, device=self._device)
            self._scratch[dtype, rows] = space
        return space

    def _add_unchecked(self, rows: Tensor, labels: Tensor) -> None:
        """`_add` without reading anything back: bad batches are masked out, anchors checked at batches 1, 2, 4, ..."""
        good = self._judge_batch(rows, labels)
        # Masked rows sit on the anchor of class 0 and count for nothing.
        labels = torch.where(good, labels, 0)
        order = torch.where(good, torch.arange(len(labels), device=labels.device), len(labels))
        first = torch.full_like(self.counts, len(labels)).scatter_reduce_(0, labels, order, "amin")
        opens = (first[labels] == order) & self._unanchored[labels] & good
        self.anchors.index_add_(0, labels, torch.where(opens[:, None], rows, 0.0).to(self.anchors.dtype))
        deviations = torch.where(good[:, None], rows - self.anchors.index_select(0, labels), 0.0)
        squares = torch.linalg.vector_norm(deviations, dim=1).to(torch.float64).square_()
        if self._batches & (self._batches - 1) == 0:
            strained = self.energy.index_add(0, labels, squares) > _CANCELLATION * self.floor
            if self._settle(labels[good], deviations[good], strained):
                deviations = torch.where(good[:, None], rows - self.anchors.index_select(0, labels), 0.0)
                squares = deviations.to(torch.float64).square().sum(1)
        self.energy.index_add_(0, labels, squares)
        self.counts.index_add_(0, labels, good.to(torch.int64))
        if self._batches <= _EARLY_BATCHES:
            deviations = deviations.to(torch.float64)
        self._add_sums(deviations, labels)
        if self.product is not None:
            self._multiply(deviations)

    def _judge_batch(self, rows: Tensor, labels: Tensor) -> Tensor:
        """(N,) which rows of an unvalidated batch count: none of a bad one, which is noted, on the device."""
        ignored = torch.zeros_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            ignored = labels == self.ignore_index
        known = (((labels >= 0) & (labels < self.num_classes)) | ignored).all()
        finite = ((rows.abs() <= checks.largest(rows.dtype)) | ignored[:, None]).all()
        reason = torch.where(known, torch.where(finite, 0, _NON_FINITE), _UNKNOWN_CLASS)
        self.rejected[0] = torch.where(self.rejected[0] == 0, reason, self.rejected[0])
        self.rejected[1] += reason != 0
        self._batches += 1
        return (reason == 0) & ~ignored

    def _add_sums(self, deviations: Tensor, labels: Tensor) -> None:
        """Add rows relative to their anchors to the sums of their classes, and their per-class products."""
        wide = self._workspace(torch.float64, _BLOCK_ROWS)
        for start in range(0, len(labels), _BLOCK_ROWS):
            block = deviations[start : start + _BLOCK_ROWS]
            if block.dtype is not torch.float64:
                block = wide[: len(block)].copy_(block)
            self.sums.index_add_(0, labels[start : start + _BLOCK_ROWS], block)
        if self.class_product is not None:
            for label in labels.unique().tolist():
                members = deviations[labels == label]
                self.class_product[label] += members.mT @ members

    def _multiply(self, deviations: Tensor) -> None:
        """Add the rows' product to the pooled one: float64 at once, float32 by way of `pending`."""
        assert self.product is not None and self.pending is not None
        if self.num_features <= _NARROW:
            deviations = deviations.to(torch.float64)
        if deviations.dtype is torch.float64:
            self.product.addmm_(deviations.mT, deviations)
            return
        if self._rows_pending + len(deviations) > _FLUSH_ROWS:
            self._flush()
        for start in range(0, self.num_features, _BAND):  # the product is symmetric: its upper bands are enough
            band = deviations[:, start : start + _BAND]
            self.pending[start : start + _BAND, start:].addmm_(band.mT, deviations[:, start:])
        self._rows_pending += len(deviations)

    def _multiply_wide(self, deviations: Tensor, squares: Tensor, total: float, young: Tensor | None) -> Tensor:
        """Multiply in float64 the float32 rows that may be far longer than the rest; returns them replaced by zero.

        Those are the rows of classes whose anchor wasn't judged before this batch, and a few outliers.
        """
        assert self.product is not None
        wide = young
        if squares.max().item() * len(squares) > _OUTLIER / 4 * total:  # far above the mean: ask the median
            long = squares > _OUTLIER * squares.median()
            if int(long.sum()) <= len(squares) // 4:
                wide = long if wide is None else wide | long
        if wide is None:
            return deviations
        where = wide.nonzero().flatten()
        if len(where) == 0:
            return deviations
        rows = deviations[where].to(torch.float64)
        self.product.addmm_(rows.mT, rows)
        return deviations.index_fill_(0, where, 0.0)

    def _flush(self) -> None:
        assert self.product is not None and self.pending is not None
        for start in range(0, self.num_features, _BAND):
            self.product[start : start + _BAND, start:].add_(self.pending[start : start + _BAND, start:])
        self.pending.zero_()
        self._rows_pending = 0

    # ------------------------------------------------------------------ anchors

    @property
    def _unanchored(self) -> Tensor:
        """(K,) classes without samples and without an anchor adopted from others."""
        return (self.counts == 0) & (self.floor == 0)

    def _adopt_anchors(self, other: StatisticsAccumulator) -> None:
        """Take over the judged anchors of another accumulator of like samples, for classes not yet seen here."""
        if not self._all_seen:
            classes = (self._unanchored & (other.floor > 0)).nonzero().flatten()
            if len(classes):
                self.anchors[classes] = other.anchors[classes]
                self.floor[classes] = other.floor[classes]
                self.on_sample[classes] = False

    def _drop_anchors(self, rows: Tensor, labels: Tensor) -> None:
        """Anchor each class without samples at its first row, if it has one."""
        where = self._unanchored[labels].nonzero().flatten()
        if len(where):
            opened, position = labels[where].unique(return_inverse=True)
            first = torch.full_like(opened, len(labels)).scatter_reduce_(0, position, where, "amin")
            self.anchors[opened] = rows[first]

    def _settle(self, labels: Tensor, deviations: Tensor, strained: Tensor) -> bool:
        """Judge the anchors of strained classes and move those far from the mean; True if any moved.

        Called before the batch is added, so that few products are ever dominated by the anchor's own offset. An anchor
        that is a sample is judged by the others, so an outlier can't hide behind the spread it causes. The spread only
        grows: a class is looked at again only when its energy has outgrown the floor, O(log N) times.
        """
        classes = strained.nonzero().flatten()
        position = torch.full_like(self.counts, -1)
        position[classes] = torch.arange(len(classes), device=classes.device)
        mine = (position[labels] >= 0).nonzero().flatten()
        place = position[labels[mine]]
        wide = deviations[mine].to(torch.float64)
        old_counts, old_sums = self.counts[classes], self.sums[classes]
        own = self.on_sample[classes].to(torch.float64)
        others = old_counts + torch.bincount(place, minlength=len(classes)) - own
        offset = (old_sums + torch.zeros_like(old_sums).index_add_(0, place, wide)) / others[:, None]
        square = offset.square().sum(1)
        batch_squares = wide.sub_(offset[place]).square_().sum(1)  # exact even if the anchor is very far
        spread = (
            torch.zeros_like(square).index_add_(0, place, batch_squares)
            + (self.energy[classes] - 2 * (old_sums * offset).sum(1) + old_counts * square)
            - own * square  # the anchor itself, at deviation zero
        ).clamp_(min=0)
        known = others >= _SETTLED_ROWS
        self.floor[classes] = torch.where(known, spread + own * square * others / (others + 1), 0.0)
        far = known & (others * square > _CANCELLATION / 2 * spread)
        if not far.any():
            return False
        classes, offset = classes[far], offset[far]
        self._move_anchors(classes, (self.anchors[classes].to(torch.float64) + offset).to(self.anchors.dtype))
        return True

    def _widen(self) -> None:
        """Hold rows and anchors in float64 from the first float64 features on; until then float32 is faster."""
        if self.anchors.dtype is not torch.float64:
            with torch.inference_mode(False):
                self.anchors, self.waiting = self.anchors.to(torch.float64), self.waiting.to(torch.float64)

    def _move_anchors(self, classes: Tensor, target: Tensor) -> None:
        """Re-express all sums of the given classes about new anchors, exactly."""
        step = target.to(torch.float64) - self.anchors[classes].to(torch.float64)
        counts, sums = self.counts[classes], self.sums[classes]
        moved = sums - counts[:, None] * step
        self.energy[classes] -= ((sums + moved) * step).sum(1)
        if self.product is not None:
            if self._rows_pending:
                self._flush()
            # sum (z-s)(z-s)^T = sum zz^T - s m^T - m' s^T  with m, m' the sums before and after
            self.product.sub_(step.mT @ sums + moved.mT @ step)
        if self.class_product is not None:
            self.class_product[classes] -= step[:, :, None] * sums[:, None, :] + moved[:, :, None] * step[:, None, :]
        self.sums[classes] = moved
        self.anchors[classes] = target
        self.on_sample[classes] = False

    # ------------------------------------------------------------------ results

    def compute(self) -> ClassStatistics:
        """The statistics of everything added so far; the accumulator can go on.

        Raises: LabelError or NonFiniteError if an unvalidated batch was bad.
        """
        self._require_none_rejected()
        with torch.inference_mode(False):  # a value made in that mode can't become part of a graph
            value = self._added()
            if self._rows_waiting:
                waiting = self.waiting[: self._rows_waiting], self.waiting_labels[: self._rows_waiting]
                more = ClassStatistics.from_features(
                    *waiting, self.num_classes, covariance=self.covariance, per_class=self.per_class
                )
                value = value.merge(more)
            return value.rounded(self._epsilon)

    def _added(self, space: Tensor | None = None) -> ClassStatistics:
        """The statistics of all rows but those that still wait; the pooled scatter in (D, D) memory, if given."""
        with torch.no_grad(), torch.inference_mode(False):
            offsets = torch.where(self.counts[:, None] > 0, self.sums / self.counts[:, None], float("nan"))
            known = torch.where(self.counts[:, None] > 0, offsets, 0.0)
            spread = torch.where(self.counts > 1, self.energy - (self.sums * known).sum(1), 0.0)
            within = class_within = None
            if self.product is not None and self.pending is not None:
                within = torch.empty_like(self.product) if space is None else space
                for start in range(0, self.num_features, _BAND):  # in cache, and without any more fresh memory
                    end = start + _BAND
                    band = torch.add(self.product[start:end, start:], self.pending[start:end, start:])
                    band.addmm_(self.sums[:, start:end].mT, known[:, start:], alpha=-1)
                    corner = band[:, :_BAND].triu_()
                    corner.add_(corner.triu(1).mT)
                    within[start:end, start:] = band
                    within[end:, start:end] = band[:, _BAND:].mT
            if self.class_product is not None:
                class_within = self.class_product - self.sums[:, :, None] * known[:, None, :]
                class_within = torch.where(self.counts[:, None, None] > 1, class_within, 0.0)
            return ClassStatistics(
                self.counts.clone(), self.anchors.to(torch.float64) + offsets, spread, within, class_within
            )

    def merge(self, other: StatisticsAccumulator) -> None:
        """Add everything another accumulator has seen; classes and features must agree (MergeError)."""
        theirs, mine = other.compute(), self.compute()
        if (self.num_classes, self.num_features) != (other.num_classes, other.num_features):
            raise MergeError(
                f"can't merge {other.num_classes} classes of {other.num_features} features into "
                f"{self.num_classes} classes of {self.num_features}."
            )
        self._restore(mine.merge(theirs.to(self._device)))
        self._epsilon = max(self._epsilon, other._epsilon)

    def compute_all(self, group: ProcessGroup | None = None) -> ClassStatistics:
        """The statistics of what all processes of the group (default: all) have seen; this one's stay its own.

        Raises: as `all_reduce`.
        """
        try:
            mine = self.compute()
        except Exception as error:
            withdraw("class statistics", error, group)
        return mine.all_reduce(group)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add everything the other processes of the group (default: all) have seen, once, after the last batch.

        A collective call, as `ClassStatistics.all_reduce`; batches added afterwards are this process's own again, and
        a second call would count the first one's samples once per process.

        Raises: LabelError or NonFiniteError if an unvalidated batch was bad, and then MergeError in the other
        processes; MergeError in all of them for other classes, features or kinds of scatter; DistributedError.
        """
        everything = self.compute_all(group)
        if world_size(group) > 1:
            self._restore(everything)
            epsilon = torch.tensor([self._epsilon], dtype=torch.float64)
            all_reduce(epsilon, "the features' precision", group, "MAX")
            self._epsilon = epsilon.item()

    def _restore(self, value: ClassStatistics) -> None:
        """Become an accumulator that has seen exactly `value`."""
        present = value.present[:, None]
        means = torch.where(present, value.means, 0.0)
        self.counts.copy_(value.counts)
        self.anchors.copy_(means)
        rest = means - self.anchors.to(torch.float64)  # what float32 anchors can't hold
        self.sums.copy_(rest * value.counts[:, None])
        self.energy.copy_(value.spread + (self.sums * rest).sum(1))
        self.floor.copy_(value.spread)
        self.on_sample.fill_(False)
        self._rows_waiting = 0
        if self.product is not None and self.pending is not None and value.within is not None:
            self.product.copy_(value.within + self.sums.mT @ rest)
            self.pending.zero_()
            self._rows_pending = 0
        if self.class_product is not None and value.class_within is not None:
            self.class_product.copy_(value.class_within + self.sums[:, :, None] * rest[:, None, :])

    def _require_none_rejected(self) -> None:
        if self._batches == 0:  # every batch so far was validated
            return
        reason, batches = self.rejected.tolist()
        if reason == _UNKNOWN_CLASS:
            raise LabelError(
                f"{batches} unvalidated batch(es) were left out; the first held a label outside "
                f"[0, {self.num_classes}). Call reset(), then update(validate=True) to see which."
            )
        if reason == _NON_FINITE:
            raise NonFiniteError(
                f"{batches} unvalidated batch(es) were left out; the first held a NaN, an infinity or a value "
                f"above {checks.LARGEST:g}. Call reset(), then update(validate=True) to see which."
            )

    # ------------------------------------------------------------------ module behaviour

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StatisticsAccumulator:
        """Follow moves between devices, never casts: float64 sums stay float64 under .half() or .to(dtype)."""
        device = float64_device(fn(torch.empty(0, device=self._device)).device)
        if device != self._device:
            self._device = device
            self._scratch.clear()
            for name, tensor in self._buffers.items():
                if tensor is not None:
                    self._buffers[name] = tensor.to(device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self._require_none_rejected()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def get_extra_state(self) -> Tensor:
        """Rows in `waiting` and `pending` and number of unvalidated batches, which time what happens next, and the bits
        of the coarsest features seen."""
        return torch.tensor([self._rows_waiting, self._rows_pending, self._batches, round(-math.log2(self._epsilon))])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self._rows_waiting, self._rows_pending, self._batches, bits = state.tolist()
        self._epsilon = 2.0**-bits
        self._all_seen = False

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name, mine in self._buffers.items():
            theirs = state_dict.get(prefix + name)
            if (mine is None) != (theirs is None) or (
                mine is not None and theirs is not None and mine.shape != theirs.shape
            ):
                raise StateError(
                    f"the saved accumulator's {name} is {'absent' if theirs is None else tuple(theirs.shape)}, "
                    f"this one's {'absent' if mine is None else tuple(mine.shape)}: build it with the same "
                    "num_classes, num_features, covariance and per_class."
                )
        with torch.inference_mode(False):
            for name in ("anchors", "waiting"):  # these have the dtype of the widest features seen
                setattr(self, name, getattr(self, name).to(state_dict[prefix + name].dtype))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, num_features={self.num_features}"
