"""`Moments`: sums, energy and products of labelled rows about an anchor per class. Plain arithmetic on any device.

Rows are not checked here: `Intake` validates them, and `StatisticsAccumulator` combines the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.device_state import DeviceState
from tightframe.numerics import EPS, large_zeros
from tightframe.statistics.class_statistics import ClassStatistics
from tightframe.statistics.scatter import Scatter, add_products, gaps_between

CHUNK_ROWS = 4096  # maximum rows per step: longer float32 sums lose digits, and memory stays O(rows * D)
_FLUSH_ROWS = 4096  # rows of float32 products summed before they are added to the float64 total
_BLOCK_ROWS = 256  # rows converted to float64 at a time, which stay in cache
_CANCELLATION = 8.0  # largest ratio of energy about the anchor to spread: costs one of float32's seven digits
_SETTLED_ROWS = 3  # minimum rows of a class to choose its anchor, or to check an anchor that is not among them
_NARROW = 32  # features up to which products run in float64, which is as fast as float32 there
_OUTLIER = 64.0  # rows with 64 times the median energy would cost float32 products of other rows digits
SQUARES = (1e-24, 1e30)  # range of squared lengths with exact squares, products and sums in float32
_LONGEST = 16  # longest rows of an unvalidated step, treated as outliers
_EARLY_STEPS = 32  # unvalidated steps with float64 products, because anchors may not be checked yet


class Moments(DeviceState):
    """Counts, sums, energy and products of rows z = x - anchor[label], per class.

    The first anchor of a class is one of its first rows. If later rows lie far from it, their mean replaces it, so an
    outlier as anchor costs no digits. Products run in the rows' dtype, float32 at least, and are summed in float64;
    products of a class's first rows, of outliers and of rows with squares outside float32's range run in float64.

    Args:
        num_classes: K.
        num_features: D.
        covariance: keep pooled (D, D) products.
        per_class: keep (D, D) products per class.
        scratch: working memory by dtype, shared between instances.
    """

    counts: Tensor  # (K,)
    anchors: Tensor  # (K, D), in the dtype of the widest features seen
    sums: Tensor  # (K, D), sum of x - anchor
    energy: Tensor  # (K,), sum of |x - anchor|^2
    floor: Tensor  # (K,), spread at the last check of the anchor, a lower bound from then on; 0 before
    on_sample: Tensor  # (K,), whether the anchor is a sample that may be an outlier
    product: Tensor | None  # (1 or K, D, D), sums of (x - anchor)(x - anchor)^T; upper triangles
    pending: Tensor | None  # the same in float32, of rows not yet added to `product`

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        device: torch.device | str | None = None,
        scratch: dict[torch.dtype, Tensor] | None = None,
    ):
        super().__init__(device)
        self._scratch = {} if scratch is None else scratch
        self.num_classes, self.num_features = num_classes, num_features
        self.covariance, self.per_class = covariance, per_class
        self.reset()

    def reset(self) -> None:
        """Remove all rows."""
        K, D = self.num_classes, self.num_features
        products = (K, D, D) if self.per_class else (1, D, D) if self.covariance else None
        with torch.inference_mode(False):  # inference tensors could not be updated outside that mode
            state: dict[str, Tensor | None] = {
                "counts": torch.zeros(K, dtype=torch.int64, device=self.device),
                "anchors": torch.zeros(K, D, dtype=torch.float32, device=self.device),
                "sums": self._zeros(K, D),
                "energy": self._zeros(K),
                "floor": self._zeros(K),
                "on_sample": torch.ones(K, dtype=torch.bool, device=self.device),
                "product": self._zeros(*products) if products else None,
                "pending": self._zeros(*products, dtype=torch.float32) if products else None,
            }
            for name, tensor in state.items():
                self.register_buffer(name, tensor)
        self._rows_pending = [0] * (products[0] if products else 0)
        self._all_seen = False
        self._floor_changed()
        self._steps = 0  # unvalidated steps
        self.product_epsilon = 0.0  # machine epsilon of the coarsest products

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return large_zeros(*shape, dtype=dtype, device=self.device)

    # ------------------------------------------------------------------ adding rows

    def add(self, rows: Tensor, labels: Tensor, counted: Tensor | None = None) -> None:
        """Add rows, in one step.

        Args:
            rows: (N, D) in the anchors' dtype (`widen`), N <= CHUNK_ROWS; counted rows are finite.
            labels: (N,) int64 in [0, K).
            counted: (N,) bool, rows that count. If passed, nothing is read back from the device, except at steps 1, 2,
                4, 8, ..., which check the anchors; squares of rows must then be in the range of float32.
        """
        seen = counted is None  # validated: the host may read these rows
        if self.num_features <= _NARROW:
            rows = rows.to(torch.float64)
        if not seen:
            self._steps += 1
        if not self._all_seen:
            self._open(rows, labels, counted)
        if self.per_class:
            order = labels.argsort(stable=True)
            rows, labels = rows.index_select(0, order), labels.index_select(0, order)
            counted = None if counted is None else counted.index_select(0, order)
        deviations, squares = self._deviate(rows, labels, counted)
        sizes = _Sizes.of(squares) if seen else None
        if sizes is not None and rows.dtype is not torch.float64 and not sizes.held(deviations):
            rows = rows.to(torch.float64)
            deviations, squares = self._deviate(rows, labels, counted)
        judged = seen or self._steps & (self._steps - 1) == 0
        young = self._young(labels, squares, counted) if judged and not self._all_judged else None
        if young is not None and self._settle(labels, deviations, young):
            deviations, squares = self._deviate(rows, labels, counted)
            sizes = _Sizes.of(squares) if seen else None
        self.energy += torch.bincount(labels, squares, self.num_classes)
        self.counts += torch.bincount(labels, None if counted is None else counted.double(), self.num_classes).long()
        if seen and not self._all_seen:
            self._all_seen = bool(self.counts.all())
        self._add_sums(rows, deviations, labels)
        if judged:
            self._judge()
            young = None if young is None else young & (self.floor == 0).index_select(0, labels)
        if self.product is None:
            return
        long = None
        if not seen and self._steps > _EARLY_STEPS and not self.per_class:
            long = squares.topk(min(_LONGEST, len(squares))).indices  # without reading whether they are outliers
            deviations = deviations.to(rows.dtype)
        elif sizes is not None and deviations.dtype is not torch.float64:
            long = sizes.far_longer(young)
        if self.per_class:
            self._multiply_by_class(deviations if long is None else deviations.to(torch.float64), labels)
            return
        if long is not None:
            of = labels.index_select(0, long)
            exact = rows.index_select(0, long).to(torch.float64) - self.anchors.index_select(0, of)
            self._add_product(exact)
            if len(long) == len(deviations):
                return
            deviations.index_fill_(0, long, 0.0)
        self._add_product(deviations)

    def widen(self) -> None:
        """Store anchors in float64 after the first float64 features; float32 is faster before."""
        if self.anchors.dtype is not torch.float64:
            with torch.inference_mode(False):
                self.anchors = self.anchors.to(torch.float64)

    def _deviate(self, rows: Tensor, labels: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows minus their anchors, in scratch memory that the next call reuses, and their squared lengths."""
        if counted is not None:  # in float64, exact without reading the rows
            deviations = rows.to(torch.float64) - self.anchors.index_select(0, labels)
            deviations.masked_fill_(~counted[:, None], 0.0)
        elif self.anchors.dtype is rows.dtype:
            deviations = self._workspace(len(rows), rows.dtype)
            torch.index_select(self.anchors, 0, labels, out=deviations)
            torch.sub(rows, deviations, out=deviations)
        else:
            deviations = rows - self.anchors.index_select(0, labels)
        return deviations, torch.linalg.vector_norm(deviations, dim=1).to(torch.float64).square_()

    def _workspace(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Scratch memory (rows, D), reused between calls: new pages cost more than the arithmetic on them."""
        space = self._scratch.get(dtype)
        if space is None or len(space) < rows or space.device != self.device:
            with torch.inference_mode(False):
                space = torch.empty(rows, self.num_features, dtype=dtype, device=self.device)
            self._scratch[dtype] = space
        return space[:rows]

    def _add_sums(self, rows: Tensor, deviations: Tensor, labels: Tensor) -> None:
        wide = self._workspace(_BLOCK_ROWS, torch.float64)
        for start in range(0, len(labels), _BLOCK_ROWS):
            some = slice(start, start + _BLOCK_ROWS)
            block = deviations[some]
            if block.dtype is not torch.float64:  # rounded float32 deviations would round the means
                block = wide[: len(block)].copy_(rows[some]).sub_(self.anchors.index_select(0, labels[some]))
            self.sums.index_add_(0, labels[some], block)

    # ------------------------------------------------------------------ products

    def _multiply_by_class(self, deviations: Tensor, labels: Tensor) -> None:
        """Add the products of rows sorted by label."""
        end = 0
        for label, size in enumerate(torch.bincount(labels, minlength=self.num_classes).tolist()):
            start, end = end, end + size
            if size:
                self._add_product(deviations[start:end], label)

    def _add_product(self, deviations: Tensor, place: int = 0) -> None:
        assert self.product is not None and self.pending is not None
        if deviations.dtype is torch.float64:
            self.product_epsilon = max(self.product_epsilon, EPS)
            add_products(self.product[place], deviations)
            return
        if self._rows_pending[place] + len(deviations) > _FLUSH_ROWS:
            self.product[place].add_(self.pending[place])
            self.pending[place].zero_()
            self._rows_pending[place] = 0
        self.product_epsilon = torch.finfo(torch.float32).eps
        add_products(self.pending[place], deviations)
        self._rows_pending[place] += len(deviations)

    # ------------------------------------------------------------------ anchors

    @property
    def _unanchored(self) -> Tensor:
        """(K,) bool, classes without samples and without an anchor from `restore`."""
        return (self.counts == 0) & (self.floor == 0)

    def _open(self, rows: Tensor, labels: Tensor, counted: Tensor | None) -> None:
        """Set the anchor of each new class to the row nearest to the mean of its rows.

        With three or more rows this row is not an outlier.
        """
        new = self._unanchored.index_select(0, labels)
        if counted is None:
            where = new.nonzero().flatten()
            if len(where) == 0:
                return
            rows, labels, new = rows.index_select(0, where), labels.index_select(0, where), new[where]
            classes, groups = labels.unique(return_inverse=True)  # few of very many classes
        else:
            new &= counted
            classes, groups = torch.arange(self.num_classes, device=labels.device), labels
        wide = torch.where(new[:, None], rows.to(torch.float64), 0.0)
        number = torch.bincount(groups, new.double(), len(classes))
        self.on_sample[classes] &= number < _SETTLED_ROWS
        means = wide.new_zeros(len(classes), wide.shape[1]).index_add_(0, groups, wide)
        means /= number.clamp(min=1)[:, None]
        gaps = torch.linalg.vector_norm(wide - means.index_select(0, groups), math.inf, dim=1)
        least = wide.new_full((len(classes),), math.inf)
        least.scatter_reduce_(0, groups, torch.where(new, gaps, math.inf), "amin")
        new &= gaps == least.index_select(0, groups)
        place = torch.arange(len(labels), device=labels.device)
        first = place.new_full((len(classes),), len(labels))
        first.scatter_reduce_(0, groups, torch.where(new, place, len(labels)), "amin")
        opens = new & (first.index_select(0, groups) == place)
        self.anchors.index_add_(0, labels, torch.where(opens[:, None], rows, 0.0).to(self.anchors.dtype))

    def _young(self, labels: Tensor, squares: Tensor, counted: Tensor | None) -> Tensor | None:
        """(N,) bool, rows of classes whose anchor must still be checked; None if there are none."""
        young = (self.floor == 0).index_select(0, labels)
        if counted is not None:
            young &= counted
        if not young.any():
            return None
        young &= self.energy.index_add(0, labels, squares).index_select(0, labels) > 0
        return young if young.any() else None

    def _settle(self, labels: Tensor, deviations: Tensor, young: Tensor) -> bool:
        """Move anchors of young classes to the mean, before their rows are added; returns whether any moved.

        Applies to anchors that may be outliers, which are left out of that mean.
        """
        where = young.nonzero().flatten()
        classes, place = labels[where].unique(return_inverse=True)
        wide = deviations.index_select(0, where).to(torch.float64)
        others = self.counts[classes] + torch.bincount(place, minlength=len(classes)) - self.on_sample[classes].long()
        offset = self.sums[classes].index_add_(0, place, wide) / others[:, None]
        far = self.on_sample[classes] & (others >= _SETTLED_ROWS) & (offset != 0).any(1)
        return self._move(classes, offset, far)

    def _judge(self) -> None:
        """Check the anchors of classes whose energy exceeds the limit, O(log N) times per class."""
        if not (self.energy > self._limit).any():
            return
        grown = (self.energy > self._limit / 2).nonzero().flatten()  # also those near the limit
        counts = self.counts[grown]
        settled = counts - self.on_sample[grown].long() >= _SETTLED_ROWS
        grown, counts = grown[settled], counts[settled]
        gaps = self.sums[grown] / counts[:, None]
        offset = counts * gaps.square().sum(1)
        spread = (self.energy[grown] - offset).clamp_(min=0)
        self.floor[grown] = torch.maximum(self.floor[grown], spread)
        self._move(grown, gaps, offset > _CANCELLATION / 2 * spread)
        self._floor_changed()

    def _floor_changed(self) -> None:
        self._limit = _CANCELLATION * self.floor
        self._all_judged = bool((self.floor > 0).all())

    def _move(self, classes: Tensor, offset: Tensor, far: Tensor) -> bool:
        """Move the anchors of those `classes` that are `far` by `offset`; returns whether any moved."""
        if not far.any():
            return False
        classes, offset = classes[far], offset[far]
        target = (self.anchors[classes].to(torch.float64) + offset).to(self.anchors.dtype)
        step = target.to(torch.float64) - self.anchors[classes].to(torch.float64)
        counts = self.counts[classes]
        gaps = self.sums[classes] / counts.clamp(min=1)[:, None]
        scatter = Scatter(self.energy[classes])
        if self.product is not None and self.product_epsilon > 0:  # there are products
            if self.per_class:
                scatter.class_within = self.product[classes]
            else:
                scatter.within = self.product[0]
        scatter.recentre(counts[None], [gaps], sign=-1)
        gaps -= step
        scatter.recentre(counts[None], [gaps])
        self.energy[classes], self.sums[classes] = scatter.spread, gaps * counts[:, None]
        if self.product is not None and scatter.class_within is not None:
            self.product[classes] = scatter.class_within
        self.anchors[classes] = target
        self.on_sample[classes] = False
        return True

    # ------------------------------------------------------------------ results

    def value(self, room: Tensor | None = None) -> ClassStatistics:
        """The statistics of all rows; `room` is memory for their scatter, in the shape of `product`."""
        with torch.no_grad(), torch.inference_mode(False):
            gaps = self.sums / self.counts[:, None]
            scatter = Scatter(self.energy.clone())
            if self.product is not None and self.pending is not None:
                products = torch.add(self.product, self.pending, out=room)
                if self.per_class:
                    scatter.class_within = products
                    for each in products:  # one by one, in cache
                        each.triu_().add_(each.triu(1).mT)
                else:
                    scatter.within = products[0]
            scatter.recentre(self.counts[None], [gaps], sign=-1)
            if self.covariance and scatter.class_within is not None:
                scatter.within = scatter.class_within.sum(0)
            # products about anchors far from the means lose digits
            stretch = float(self.energy.sum() / scatter.spread.sum().clamp(min=torch.finfo(torch.float64).tiny))
            epsilon = min(1.0, 2.0 ** math.floor(math.log2(max(1.0, stretch))) * self.product_epsilon)
            return ClassStatistics.about_means(
                self.counts.clone(), gaps.add_(self.anchors), scatter, product_epsilon=epsilon
            )

    def offsets(self, origin: Tensor) -> Tensor:
        """(K, D), class means minus an origin (K, D) near them."""
        return (self.anchors - origin) + self.sums / self.counts[:, None]

    def restore(self, value: ClassStatistics) -> None:
        """Set the state to the moments of `value`."""
        means = torch.where(value.present[:, None], value.means, 0.0)
        self.anchors.copy_(means)
        anchors = self.anchors.to(torch.float64)  # in float32 they can't hold the means exactly
        gaps = gaps_between(means, anchors)
        scatter = Scatter(value.spread.clone())
        if self.product is not None and self.per_class and value.class_within is not None:
            scatter.class_within = self.product.copy_(value.class_within)
        elif self.product is not None and value.within is not None:
            scatter.within = self.product[0].copy_(value.within)
        scatter.recentre(value.counts[None], [means], anchors)
        if self.pending is not None:
            self.pending.zero_()
        self.counts.copy_(value.counts)
        self.energy.copy_(scatter.spread)
        self.sums.copy_(gaps * value.counts[:, None])
        self.floor.copy_(value.spread)
        self.on_sample.fill_(False)
        self._rows_pending = [0] * len(self._rows_pending)
        self._all_seen = False
        self._floor_changed()
        self.product_epsilon = value.product_epsilon

    # ------------------------------------------------------------------ module behaviour

    def get_extra_state(self) -> Tensor:
        """Number of unvalidated steps, bits of the coarsest products, and numbers of rows in `pending`."""
        bits = -round(math.log2(self.product_epsilon)) if self.product_epsilon else 0
        return torch.tensor([self._steps, bits, *self._rows_pending])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self._steps, bits, *self._rows_pending = state.tolist()
        self.product_epsilon = 2.0**-bits if bits else 0.0
        self._all_seen = False
        self._floor_changed()


class _Sizes(NamedTuple):
    """Squared lengths (N,) of rows, with host values of their extremes."""

    squares: Tensor
    least: float
    largest: float
    total: float

    @classmethod
    def of(cls, squares: Tensor) -> _Sizes:
        return cls(squares, *torch.stack([*torch.aminmax(squares), squares.sum()]).tolist())

    def held(self, deviations: Tensor) -> bool:
        """Whether the squares and their sums are in the range of float32, with all digits."""
        if self.largest * len(self.squares) > SQUARES[1]:
            return False
        return self.least >= SQUARES[0] or not bool(deviations[self.squares < SQUARES[0]].any())

    def far_longer(self, young: Tensor | None) -> Tensor | None:
        """Indices of rows that may be far longer than the others: rows of young classes, and outliers."""
        wide = young
        if self.largest * len(self.squares) > _OUTLIER / 4 * self.total:  # far above the mean: ask the median
            long = self.squares > _OUTLIER * self.squares.median()
            if int(long.sum()) <= len(self.squares) // 4:
                wide = long if wide is None else wide | long
        where = None if wide is None else wide.nonzero().flatten()
        return where if where is not None and len(where) else None
