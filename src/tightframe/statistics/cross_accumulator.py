"""`CrossAccumulator`: the moments of several layers on the same samples, in one pass over batches of features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe import checks
from tightframe.errors import NonFiniteError, ShapeError
from tightframe.numerics import EPS, float64_device, full_precision
from tightframe.processes import rank, withdraw, world_size
from tightframe.statistics.cross_moments import (
    CrossMoments,
    CrossSums,
    add_rows,
    mean_of,
    places_of,
    product_bytes,
    require_aligned,
    require_room,
    rows_of,
)
from tightframe.statistics.folds import Dealer, require_folds, require_samples

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_STEP_ROWS = 1024  # minimum rows of a product: each step reads and writes all sums
_CHUNK_ROWS = 4096  # maximum rows of a product: longer float32 sums lose digits
_FAR = 4.0  # largest ratio of energy between centre and mean to spread: costs one of float32's seven digits


@dataclass(frozen=True, eq=False)
class FoldedCrossMoments:
    """`CrossMoments` of all samples and of F folds of them, for `metrics.jackknife`.

    Attributes:
        total: moments of all samples.
        parts: moments of each fold; they add up to the total.
    """

    total: CrossMoments
    parts: tuple[CrossMoments, ...]

    @classmethod
    def from_parts(cls, parts: Sequence[CrossMoments]) -> FoldedCrossMoments:
        """Folds from their moments. Raises: RangeError for fewer than two; MergeError if they do not fit."""
        require_folds(len(parts))
        return cls(CrossMoments.merge_all(parts), tuple(parts))

    @property
    def folds(self) -> int:
        """F, the number of folds."""
        return len(self.parts)

    @property
    def fixed(self) -> bool:
        """Whether a single fold has all samples, so that there is no error."""
        return sum(bool(part.count > 0) for part in self.parts) < 2

    def without(self, fold: int) -> CrossMoments:
        """The moments without the samples of one fold."""
        return self.total.without(self.parts[fold])

    def all_reduce(self, group: ProcessGroup | None = None) -> FoldedCrossMoments:
        """The samples of all processes, fold by fold; a collective call, as `CrossMoments.all_reduce`."""
        if world_size(group) == 1:
            return self
        return FoldedCrossMoments.from_parts([part.all_reduce(group) for part in self.parts])


class CrossAccumulator:
    """Accumulate batches of several layers' features into `CrossMoments`, in one pass.

    Products run in the features' dtype (float32 at least) about a centre near each layer's mean, and are summed in
    float64; all other sums are in float64. Means 10^4 from the origin cost no digits. Small batches wait until there
    are 1,024 rows, because each step reads and writes all sums.

    Args:
        widths: D of each layer by name.
        pairs: names of the pairs of layers to compare. Default: all pairs.
        folds: number of folds of the samples for standard errors; memory is multiplied by it. Default: no folds.
        max_bytes: memory in bytes for the products. Default: the free memory.

    Raises: RangeError for fewer than two layers or folds, or if the products need more memory; ChoiceError for unknown
    names.

    >>> import torch
    >>> from tightframe.statistics import CrossAccumulator
    >>> accumulator = CrossAccumulator({"first": 3, "second": 4}, folds=2)
    >>> accumulator.update({"first": torch.randn(8, 3), "second": torch.randn(8, 4)})
    >>> int(accumulator.compute().count), [int(part.count) for part in accumulator.compute_folds().parts]
    (8, [4, 4])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        pairs: Iterable[tuple[str, str]] | None = None,
        folds: int | None = None,
        max_bytes: float | None = None,
        device: torch.device | str | None = None,
    ):
        if folds is not None:
            require_folds(folds)
        self.names, self.widths, self.folds = tuple(widths), tuple(widths.values()), folds
        self._places = places_of(self.names, pairs)
        self._device = float64_device(device)
        require_room(self.widths, self._places, self._device, copies=folds or 1, budget=max_bytes)
        self.reset()

    @staticmethod
    def memory(
        widths: Sequence[int], *, pairs: Iterable[tuple[int, int]] | None = None, folds: int | None = None
    ) -> int:
        """Memory in bytes of the products, 8 D_a D_b for each pair of places a <= b.

        With folds: per fold, for their total, and twice to leave a fold out.
        """
        names = [str(place) for place in range(len(widths))]
        named = None if pairs is None else [(str(a), str(b)) for a, b in pairs]
        return product_bytes(widths, places_of(names, named)) * (folds + 3 if folds else 1)

    def reset(self) -> None:
        """Remove all samples."""
        self._parts = [_Part(self.widths, self._places, self._device) for _ in range(self.folds or 1)]
        self._dealer = None if self.folds is None else Dealer(self.folds, rank() * self.folds // world_size())
        self._epsilons = [EPS] * len(self.widths)

    def update(
        self, features: Mapping[str, checks.Array], *, samples: checks.Array | None = None, validate: bool | None = None
    ) -> None:
        """Add a batch; the features are detached.

        Args:
            features: (..., D_l) of each layer by name, the same samples in the same order; other names are ignored.
            samples: integers in the shape (...) or of its first dimension; rows with equal numbers belong to one sample
                and stay in one fold. Default: the index along the first dimension.
            validate: check values before the state changes. Default: on the CPU. Otherwise `compute` raises the error.

        Raises: DtypeError, ShapeError, EmptyBatchError, NonFiniteError. The state does not change then.
        """
        if missing := [name for name in self.names if name not in features]:
            raise ShapeError(f"a batch must have features of every layer; {checks.listed(missing)} is missing.")
        arrays = {name: checks.as_tensor(features[name], f"features of {name!r}") for name in self.names}
        rows = {name: rows_of(name, each) for name, each in arrays.items()}
        for (name, each), width in zip(rows.items(), self.widths, strict=True):
            if each.shape[1] != width:
                raise ShapeError(f"features of {name!r} must have {width} dimensions; got {each.shape[1]}.")
        require_aligned(rows)
        shape = next(iter(arrays.values())).shape[:-1]
        numbers = None if samples is None else checks.as_tensor(samples, "samples")
        if self._dealer is not None:
            require_samples(numbers, torch.empty(shape, device="meta"))
        if (self._device.type == "cpu") if validate is None else validate:
            for name, each in rows.items():
                checks.require_finite(each, f"features of {name!r}")
        self._epsilons = [
            max(epsilon, torch.finfo(each.dtype).eps)
            for epsilon, each in zip(self._epsilons, rows.values(), strict=True)
        ]
        values = [each.to(self._device, torch.promote_types(each.dtype, torch.float32)) for each in rows.values()]
        with torch.inference_mode(False), full_precision(self._device.type):
            if self._dealer is None:
                self._parts[0].put(values)
                return
            folds = self._dealer.folds_of(torch.empty(shape, device="meta"), numbers, in_turn=True)
            for fold, part in enumerate(self._parts):
                where = (folds == fold).nonzero().flatten().to(self._device, non_blocking=True)
                if len(where):
                    part.put([each.index_select(0, where) for each in values])

    # ------------------------------------------------------------------ results

    def compute(self) -> CrossMoments:
        """The moments of all samples so far; further updates are possible. Raises: NonFiniteError if a batch that was
        not validated had invalid values."""
        return CrossMoments.merge_all(self._values())

    def compute_folds(self) -> FoldedCrossMoments:
        """The moments per fold. Raises: as `compute`; RangeError without folds."""
        require_folds(len(self._parts))
        return FoldedCrossMoments.from_parts(self._values())

    def compute_all(self, group: ProcessGroup | None = None) -> CrossMoments:
        """The moments of the samples of all processes of the group. Raises: as `CrossMoments.all_reduce`."""
        try:
            value = self.compute()
        except Exception as error:
            withdraw("cross moments", error, group)
        return value.all_reduce(group)

    def compute_folds_all(self, group: ProcessGroup | None = None) -> FoldedCrossMoments:
        """The moments per fold over all processes. Raises: as `compute_all`."""
        try:
            value = self.compute_folds()
        except Exception as error:
            withdraw("cross moments", error, group)
        return value.all_reduce(group)

    def _values(self) -> list[CrossMoments]:
        with torch.inference_mode(False), full_precision(self._device.type):
            values = [part.value(self.names, self._epsilons) for part in self._parts]
        for value in values:
            largest = value.squares.diagonal().tolist()
            if wrong := [name for name, size in zip(self.names, largest, strict=True) if not size < math.inf]:
                raise NonFiniteError(
                    f"features must be finite, and fourth powers of their sizes too; those of {checks.listed(wrong)} "
                    "are not. Call reset(), then update(validate=True), which names the row of an infinity or NaN."
                )
        return values


class _Part:
    """The sums of one fold, about moving centres, and rows that wait for the next step."""

    def __init__(self, widths: Sequence[int], places: Sequence[tuple[int, int]], device: torch.device):
        self._sums = CrossSums.zeros(widths, places, device)
        self._centres: list[Tensor] | None = None
        self._scales: list[float] = []  # powers of two; narrow rows times their scale have entries near 1
        self._waiting: list[list[Tensor]] = []
        self._rows = self._steps = 0
        self._lent = False  # whether a value shares the memory of the sums
        self._epsilon = 0.0  # machine epsilon of the coarsest products

    def put(self, rows: Sequence[Tensor]) -> None:
        """Add rows, L tensors (N, D_l); fewer than a step wait."""
        start, size = 0, len(rows[0])
        if not self._waiting:
            start = size // _STEP_ROWS * _STEP_ROWS
            self._add_in_chunks([each[:start] for each in rows])
        if start < size:
            self._waiting.append([each[start:].clone() for each in rows])
            self._rows += size - start
        if self._rows >= _STEP_ROWS:
            self._rest()

    def _rest(self) -> None:
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            self._add_in_chunks([torch.cat(each) for each in zip(*waiting, strict=True)])

    def _add_in_chunks(self, rows: Sequence[Tensor]) -> None:
        for start in range(0, len(rows[0]), _CHUNK_ROWS):
            self._add([each[start : start + _CHUNK_ROWS] for each in rows])

    def _add(self, rows: Sequence[Tensor]) -> None:
        dtype = torch.float64 if any(each.dtype is torch.float64 for each in rows) else torch.float32
        wide = [each.to(torch.float64) for each in rows]
        if self._centres is None:
            self._centres = [mean_of(each) for each in wide]
        if self._lent:
            self._sums, self._lent = self._sums.clone(), False
        wide = [each - centre for each, centre in zip(wide, self._centres, strict=True)]
        if dtype is torch.float64:
            add_rows(self._sums, wide)
        else:
            if not self._scales:
                self._scales = torch.stack([_scale(each) for each in wide]).tolist()
            add_rows(self._sums, wide, self._scales)
        self._epsilon = max(self._epsilon, torch.finfo(dtype).eps)
        self._steps += 1
        if self._sums.count.device.type == "cpu" or self._steps & (self._steps - 1) == 0:
            self._settle()

    def _settle(self) -> None:
        """Move the centres to the means if one of them is far away compared with the spread."""
        energy = torch.stack([first @ first for first in self._sums.first]) / self._sums.count
        if bool((energy > _FAR * (self._sums.spread - energy)).any()):
            self._to_means()

    def _to_means(self) -> None:
        assert self._centres is not None
        gaps = [first / self._sums.count for first in self._sums.first]
        self._sums.move([-gap for gap in gaps])
        self._sums.first = [torch.zeros_like(gap) for gap in gaps]
        self._centres = [centre + gap for centre, gap in zip(self._centres, gaps, strict=True)]

    def value(self, names: tuple[str, ...], epsilons: Sequence[float]) -> CrossMoments:
        """The moments of all rows; they share the memory of the sums until the next step."""
        self._rest()
        if self._centres is None:
            means = [torch.full_like(first, torch.nan) for first in self._sums.first]
        else:
            if not self._lent:  # else a value has them already
                self._to_means()
            means = list(self._centres)
        self._lent = True
        return CrossMoments.about_means(names, means, self._sums, epsilons, self._epsilon)


def _scale(rows: Tensor) -> Tensor:
    """0-d power of two near the inverse of the largest entry; 1 for zero rows."""
    largest = rows.abs().max()
    return torch.where(largest > 0, torch.exp2(-torch.log2(largest).round()), 1.0)
