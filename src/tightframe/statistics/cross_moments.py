"""`CrossMoments`: the moments of several layers or models on the same samples as one frozen, mergeable value."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe import checks
from tightframe.choices import require_choice
from tightframe.errors import DtypeError, EmptyBatchError, MergeError, RangeError, ShapeError, StateError
from tightframe.memory import require_memory
from tightframe.numerics import EPS, float64_device, rounding_of
from tightframe.processes import all_reduce, require_same, world_size
from tightframe.reading import failures_of, read_safetensors
from tightframe.statistics.scatter import common_means, gaps_between
from tightframe.writing import write_tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Pair = tuple[int, int]

_FORMAT = "tightframe.CrossMoments/1"


@dataclass
class CrossSums:
    """Sums over N samples x about one centre c per layer, modified in place; z = x - c.

    Attributes:
        count: 0-d, N.
        first: L tensors (D_l,), sums of z.
        spread: (L,), sums of |z|^2.
        products: {(a, b): (D_a, D_b)}, sums of z_a z_b^T by places a <= b.
        squares: (L, L), sums of |z_a|^2 |z_b|^2.
        weighted: L tensors (L, D_l), with sum of |z_a|^2 z_l in row a.
    """

    count: Tensor
    first: list[Tensor]
    spread: Tensor
    products: dict[Pair, Tensor]
    squares: Tensor
    weighted: list[Tensor]

    @classmethod
    def zeros(cls, widths: Sequence[int], pairs: Iterable[Pair], device: torch.device) -> CrossSums:
        """The sums of no samples."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        layers = len(widths)
        products = {(a, b): zeros(widths[a], widths[b]) for a, b in pairs}
        weighted = [zeros(layers, width) for width in widths]
        return cls(
            zeros(), [zeros(width) for width in widths], zeros(layers), products, zeros(layers, layers), weighted
        )

    def clone(self) -> CrossSums:
        """A copy in memory of its own."""
        return CrossSums(
            self.count.clone(),
            [each.clone() for each in self.first],
            self.spread.clone(),
            {pair: each.clone() for pair, each in self.products.items()},
            self.squares.clone(),
            [each.clone() for each in self.weighted],
        )

    def tensors(self) -> list[Tensor]:
        """All sums."""
        return [self.count, *self.first, self.spread, *self.products.values(), self.squares, *self.weighted]

    def add(self, other: CrossSums, sign: int = 1) -> None:
        """Add (with sign -1, subtract) sums about the same centres."""
        for a, b in zip(self.tensors(), other.tensors(), strict=True):
            a.add_(b, alpha=sign)

    def move(self, gaps: Sequence[Tensor]) -> None:
        """Express the sums about centres c - gap: z becomes z + gap."""
        count, first = self.count, self.first
        lengths = torch.stack([gap @ gap for gap in gaps])  # |gap_a|^2
        along = torch.stack([s @ gap for s, gap in zip(first, gaps, strict=True)])  # sum of z_a . gap_a
        ahead, change = [each.clone() for each in self.weighted], torch.zeros_like(self.squares)
        for (a, b), product in self.products.items():
            of_a = product.mT @ gaps[a]  # sum of (z_a . gap_a) z_b
            ahead[b][a] += 2 * of_a
            change[a, b] += 4 * (of_a @ gaps[b])
            if a != b:
                ahead[a][b] += 2 * (product @ gaps[b])
                change[b, a] = change[a, b]
            product.addr_(first[a] + count * gaps[a], gaps[b]).addr_(gaps[a], first[b])
        reach = torch.stack([each @ gap for each, gap in zip(self.weighted, gaps, strict=True)], 1)
        # row a, column b: sum of |z_a|^2 (z_b . gap_b)
        outer = torch.outer(lengths, self.spread + 2 * along + count * lengths)
        self.squares += change + 2 * (reach + reach.mT) + outer + torch.outer(self.spread + 2 * along, lengths)
        growth = self.spread + 2 * along + count * lengths
        for each, s, gap in zip(ahead, first, gaps, strict=True):
            each += torch.outer(growth, gap) + torch.outer(lengths, s)
        self.weighted = ahead
        self.spread = growth
        self.first = [s + count * gap for s, gap in zip(first, gaps, strict=True)]


@dataclass(frozen=True, eq=False, repr=False)
class CrossMoments:
    """Moments about the means of L layers (or models) on the same N samples: all that linear CKA needs. Float64.

    `merge` is exact and associative up to rounding, and `empty` is its identity. The layers may have different widths
    D_l. A pair of layers takes D_a D_b numbers, so all pairs of L layers of width D take L (L + 1) D^2 / 2 numbers: 368
    MB for 12 layers of 768 features, 75 GB for 33 layers of 4096. No smaller exact sum exists: CKA needs |P|^2 of the
    sum P over all samples. Where that is too much, choose `pairs`: L layers compared with one take (2 L - 1) D^2.

    Attributes:
        names: L names of the layers.
        count: 0-d int64, N.
        means: L tensors (D_l,); NaN without samples.
        spread: (L,), sums of |x - mean|^2.
        products: {(a, b): (D_a, D_b)}, sums of (x_a - mean_a)(x_b - mean_b)^T by places a <= b of the measured pairs.
        squares: (L, L), sums of |x_a - mean_a|^2 |x_b - mean_b|^2; exact for the measured pairs, NaN for others.
        weighted: L tensors (L, D_l): row a is the sum of |x_a - mean_a|^2 (x_l - mean_l), which merging needs; exact
            for the measured pairs.
        epsilons: L numbers, machine epsilon of the features as they were stored.
        product_epsilon: machine epsilon of the coarsest products; 0 without samples.

    >>> import torch
    >>> from tightframe.statistics import CrossMoments
    >>> x = torch.randn(50, 3, dtype=torch.float64)
    >>> moments = CrossMoments.from_features({"x": x, "y": x @ torch.randn(3, 4, dtype=torch.float64)})
    >>> int(moments.count), moments.widths, sorted(moments.products)
    (50, (3, 4), [(0, 0), (0, 1), (1, 1)])
    """

    names: tuple[str, ...]
    count: Tensor
    means: tuple[Tensor, ...]
    spread: Tensor
    products: Mapping[Pair, Tensor]
    squares: Tensor
    weighted: tuple[Tensor, ...]
    epsilons: tuple[float, ...]
    product_epsilon: float = 0.0

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {width:,}" for name, width in zip(self.names, self.widths, strict=True))
        return f"CrossMoments({int(self.count):,} samples; {widths})"

    # ------------------------------------------------------------------ construction

    @classmethod
    def empty(
        cls,
        widths: Mapping[str, int],
        *,
        pairs: Iterable[tuple[str, str]] | None = None,
        device: torch.device | str | None = None,
    ) -> CrossMoments:
        """The moments of no samples: the identity of `merge`.

        Args:
            widths: D of each layer by name.
            pairs: names of the pairs of layers to compare. Default: all pairs.

        Raises: RangeError for fewer than two layers, or if the value does not fit into the free memory; ChoiceError for
        unknown names.
        """
        home, places = float64_device(device), places_of(tuple(widths), pairs)
        sizes = list(widths.values())
        require_room(sizes, places, home)
        sums = CrossSums.zeros(sizes, places, home)
        means = [torch.full((width,), torch.nan, dtype=torch.float64, device=home) for width in sizes]
        return cls.about_means(tuple(widths), means, sums, [EPS] * len(sizes), 0.0)

    @classmethod
    def from_features(
        cls, features: Mapping[str, checks.Array], *, pairs: Iterable[tuple[str, str]] | None = None
    ) -> CrossMoments:
        """Moments of features in memory, in two float64 passes; without a graph.

        Args:
            features: (..., D_l) of each layer by name, the same samples in the same order; tensors or numpy arrays.
            pairs: as in `empty`.

        Raises: as `empty`; DtypeError, ShapeError, EmptyBatchError, NonFiniteError.
        """
        rows = {name: rows_of(name, each) for name, each in features.items()}
        require_aligned(rows)
        for name, each in rows.items():
            checks.require_finite(each, f"features of {name!r}")
        widths, places = [each.shape[1] for each in rows.values()], places_of(tuple(rows), pairs)
        home = float64_device(next(iter(rows.values())).device)
        require_room(widths, places, home)
        epsilons = [torch.finfo(each.dtype).eps for each in rows.values()]
        sums = CrossSums.zeros(widths, places, home)
        wide = [each.to(home, torch.float64) for each in rows.values()]
        means = [mean_of(each) for each in wide]
        add_rows(sums, [each - mean for each, mean in zip(wide, means, strict=True)])
        means = [mean + s / sums.count for mean, s in zip(means, sums.first, strict=True)]
        sums.move([-s / sums.count for s in sums.first])
        return cls.about_means(tuple(rows), means, sums, epsilons, EPS)

    @classmethod
    def about_means(
        cls,
        names: tuple[str, ...],
        means: Sequence[Tensor],
        sums: CrossSums,
        epsilons: Sequence[float],
        product_epsilon: float,
    ) -> CrossMoments:
        """The value of sums about the means, (D,) per layer; it shares their memory."""
        measured = torch.zeros_like(sums.squares, dtype=torch.bool)
        for a, b in sums.products:
            measured[a, b] = measured[b, a] = True
        return cls(
            names,
            sums.count.to(torch.int64),
            tuple(means),
            sums.spread,
            sums.products,
            torch.where(measured, sums.squares, torch.nan),
            tuple(sums.weighted),
            tuple(epsilons),
            product_epsilon,
        )

    # ------------------------------------------------------------------ properties

    @property
    def widths(self) -> tuple[int, ...]:
        """D_l of each layer."""
        return tuple(len(mean) for mean in self.means)

    @property
    def rounding(self) -> Tensor:
        """(L,), largest displacement of a sample by the rounding of stored features; NaN without samples."""
        squares = torch.stack([mean @ mean for mean in self.means]) + self.spread / self.count
        shares = [
            rounding_of(max(epsilon, 4 * EPS), width) / width**0.5
            for epsilon, width in zip(self.epsilons, self.widths, strict=True)
        ]
        return squares.sqrt() * torch.tensor(shares, dtype=torch.float64, device=squares.device)

    # ------------------------------------------------------------------ merging

    def merge(self, other: CrossMoments) -> CrossMoments:
        """The moments of both sets of samples together; exact, in any order and grouping.

        Raises: MergeError if layers, widths or pairs differ.
        """
        return self.merge_all([self, other])

    @classmethod
    def merge_all(cls, values: Sequence[CrossMoments]) -> CrossMoments:
        """The moments of several sets of samples together, at least one. Raises: as `merge`."""
        first, *others = values
        for other in others:
            first._require_same_kind(other)
        if not others:
            return first
        counts = torch.stack([value.count for value in values])[:, None]
        layers = range(len(first.names))
        means = [common_means(counts, [value.means[place][None] for value in values])[0] for place in layers]
        total = first._moved(means)
        for other in others:
            total.add(other._moved(means))
        return first._of(means, total, values)

    def without(self, part: CrossMoments) -> CrossMoments:
        """The moments without the samples of `part`, all of which must be in `self`; for a jackknife.

        Raises: as `merge`; MergeError if `part` has more samples.
        """
        self._require_same_kind(part)
        if bool(part.count > self.count):
            raise MergeError(f"can't remove {int(part.count)} samples from {int(self.count)} samples.")
        rest = self._moved(self.means)
        rest.add(part._moved(self.means), sign=-1)
        gaps = [s / rest.count for s in rest.first]  # mean of the rest minus the mean of all
        rest.move([torch.where(rest.count > 0, -gap, 0.0) for gap in gaps])
        return self._of([mean + gap for mean, gap in zip(self.means, gaps, strict=True)], rest, [self])

    def all_reduce(self, group: ProcessGroup | None = None) -> CrossMoments:
        """The moments of the samples of all processes, bit for bit equal in all processes.

        A collective call of `torch.distributed`, as `ClassStatistics.all_reduce`. Returns `self` for a single process.

        Raises: MergeError, in every process, if layers, widths or pairs differ; DistributedError if a process is lost.
        """
        if world_size(group) == 1:
            return self
        what, layers = "cross moments", len(self.names)
        names = zlib.crc32("\0".join(self.names).encode())
        kind = zlib.crc32(repr((self.widths, sorted(self.products))).encode())
        require_same(what, {"layers": layers, "names (by checksum)": names, "widths, pairs (by checksum)": kind}, group)
        count = all_reduce(self.count.clone(), "the number of samples", group)
        share = self.count.to(torch.float64) / count
        means = [torch.where(self.count > 0, mean * share, 0.0) for mean in self.means]
        means = [all_reduce(mean, "the means", group) for mean in means]
        sums = self._moved(means)
        for each in sums.tensors():
            all_reduce(each, what, group)
        means = [torch.where(count > 0, mean, torch.nan) for mean in means]
        epsilons = torch.tensor([self.product_epsilon, *self.epsilons], dtype=torch.float64)
        product_epsilon, *own = all_reduce(epsilons, "the features' precision", group, "MAX").tolist()
        return self.about_means(self.names, means, sums, own, product_epsilon)

    def to(self, device: torch.device | str) -> CrossMoments:
        """The same value on another device (on the CPU if that device has no float64)."""
        home = float64_device(device)
        return replace(
            self,
            count=self.count.to(home),
            means=tuple(each.to(home) for each in self.means),
            spread=self.spread.to(home),
            products={pair: each.to(home) for pair, each in self.products.items()},
            squares=self.squares.to(home),
            weighted=tuple(each.to(home) for each in self.weighted),
        )

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the value to a safetensors file. `metadata` is stored beside it in the file's header."""
        tensors = {"count": self.count, "spread": self.spread, "squares": self.squares}
        for place, (mean, weighted) in enumerate(zip(self.means, self.weighted, strict=True)):
            tensors |= {f"means.{place}": mean, f"weighted.{place}": weighted}
        tensors |= {f"products.{a}.{b}": product for (a, b), product in self.products.items()}
        layers = [list(each) for each in zip(self.names, self.epsilons, strict=True)]
        own = {"format": _FORMAT, "layers": json.dumps(layers), "product_epsilon": repr(self.product_epsilon)}
        write_tensors(path, tensors, {**(metadata or {}), **own})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> CrossMoments:
        """Read a file of `save`. Raises: StateError for other files."""
        path = Path(path)
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") != _FORMAT:
            raise StateError(f"{path} must be a file of CrossMoments.save(); got format {metadata.get('format')!r}.")
        with failures_of(path, "as cross moments"):
            return cls._of_file(dict(tensors), metadata).to(device)

    @classmethod
    def _of_file(cls, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> CrossMoments:
        """The value from a file's arrays and metadata. Raises: any error for invalid content."""
        names, epsilons = zip(*json.loads(metadata["layers"]), strict=True)
        places = range(len(names))
        means = [tensors[f"means.{place}"] for place in places]
        shapes: dict[str, tuple[int, ...]] = {"count": (), "spread": (len(names),), "squares": (len(names), len(names))}
        shapes |= {f"means.{place}": (means[place].numel(),) for place in places}
        shapes |= {f"weighted.{place}": (len(names), means[place].numel()) for place in places}
        pairs = sorted(tuple(map(int, name.split(".")[1:])) for name in tensors if name.startswith("products."))
        if not {(place, place) for place in places} <= set(pairs) or not all(a <= b for a, b in pairs):
            raise ValueError("the products of layers are incomplete")
        shapes |= {f"products.{a}.{b}": (means[a].numel(), means[b].numel()) for a, b in pairs}
        for name, shape in shapes.items():
            kind = torch.int64 if name == "count" else torch.float64
            if tensors[name].dtype is not kind or tuple(tensors[name].shape) != shape:
                raise ValueError(f"the array {name!r} must be {kind} of shape {shape}")
        return cls(
            tuple(map(str, names)),
            tensors["count"],
            tuple(means),
            tensors["spread"],
            {(a, b): tensors[f"products.{a}.{b}"] for a, b in pairs},
            tensors["squares"],
            tuple(tensors[f"weighted.{place}"] for place in places),
            tuple(map(float, epsilons)),
            float(metadata["product_epsilon"]),
        )

    # ------------------------------------------------------------------ private

    def _moved(self, centres: Sequence[Tensor]) -> CrossSums:
        """The sums about other centres, in memory of their own."""
        sums = CrossSums(
            self.count.to(torch.float64),
            [torch.zeros_like(mean) for mean in self.means],
            self.spread,
            dict(self.products),
            self.squares,
            list(self.weighted),
        ).clone()
        gaps = [gaps_between(mean, centre) for mean, centre in zip(self.means, centres, strict=True)]
        if any(bool(gap.any()) for gap in gaps):
            sums.move([torch.where(self.count > 0, gap, 0.0) for gap in gaps])
        return sums

    def _of(self, means: Sequence[Tensor], sums: CrossSums, parts: Sequence[CrossMoments]) -> CrossMoments:
        epsilons = tuple(map(max, zip(*(part.epsilons for part in parts), strict=True)))
        return self.about_means(self.names, means, sums, epsilons, max(part.product_epsilon for part in parts))

    def _require_same_kind(self, other: CrossMoments) -> None:
        for what in ("names", "widths"):
            if getattr(self, what) != getattr(other, what):
                raise MergeError(
                    f"cross moments must have the same {what} of layers to be merged; got "
                    f"{checks.listed(getattr(self, what))} and {checks.listed(getattr(other, what))}."
                )
        if self.products.keys() != other.products.keys():
            raise MergeError("cross moments must have the same pairs of layers to be merged.")


# ---------------------------------------------------------------------- layers and rows


def places_of(names: Sequence[str], pairs: Iterable[tuple[str, str]] | None) -> list[Pair]:
    """The measured pairs as places a <= b, each layer with itself among them.

    Raises: RangeError for fewer than two layers; ChoiceError for unknown names.
    """
    if len(names) < 2:
        raise RangeError(f"similarity needs at least two layers; got {len(names)}.")
    if pairs is None:
        wanted = set(combinations(range(len(names)), 2))
    else:
        place = {name: number for number, name in enumerate(names)}
        wanted = set()
        for pair in pairs:
            for name in pair:
                require_choice(name, place, "layer")
            a, b = sorted(place[name] for name in pair)
            wanted.add((a, b))
    return sorted(wanted | {(number, number) for number in range(len(names))})


def product_bytes(widths: Sequence[int], places: Iterable[Pair]) -> int:
    """Memory in bytes of the products of these pairs, in float64."""
    return 8 * sum(widths[a] * widths[b] for a, b in places)


def require_room(
    widths: Sequence[int], places: Sequence[Pair], device: torch.device, *, copies: int = 1, budget: float | None = None
) -> None:
    """Raise RangeError if the products of these pairs exceed the budget in bytes, or the free memory."""
    needed = copies * product_bytes(widths, places)
    what = f"comparing {len(places) - len(widths):,} pairs of layers of up to {max(widths):,} features"
    advice = "Compare fewer layers, or choose pairs."
    if budget is not None and needed > budget:
        raise RangeError(f"{what} needs {needed / 1e9:,.2f} GB, but the budget is {budget / 1e9:,.2f} GB. {advice}")
    require_memory(needed, what, device)


def rows_of(name: str, features: checks.Array) -> Tensor:
    """(N, D) rows of one layer's features (..., D). Raises: DtypeError, ShapeError, EmptyBatchError."""
    what = f"features of {name!r}"
    tensor = checks.as_tensor(features, what)
    checks.require_dense(tensor, what)
    if not tensor.dtype.is_floating_point:
        raise DtypeError(f"{what} must be floating point; got {tensor.dtype}. Convert them with .float().")
    if tensor.ndim < 2:
        raise ShapeError(f"{what} must have at least two dimensions; got shape {tuple(tensor.shape)}.")
    if tensor.shape[:-1].numel() == 0:
        raise EmptyBatchError(f"the batch has no rows: {what} have shape {tuple(tensor.shape)}.")
    return tensor.detach().reshape(-1, tensor.shape[-1])


def require_aligned(rows: Mapping[str, Tensor]) -> None:
    """Raise ShapeError unless all layers have the same number of rows."""
    sizes = {name: len(each) for name, each in rows.items()}
    if len(set(sizes.values())) > 1:
        (first, N), *others = sizes.items()
        name, other = next((name, size) for name, size in others if size != N)
        raise ShapeError(
            f"all layers must have the same samples; {first!r} has {N} rows, {name!r} has {other}. Measure layers with "
            'equal positions, or use positions="mean".'
        )


def mean_of(rows: Tensor) -> Tensor:
    """(D,) mean of float64 rows (N, D), relative to the first row: exact for equal rows."""
    return rows[0] + (rows - rows[0]).mean(0)


def add_rows(sums: CrossSums, rows: Sequence[Tensor], scales: Sequence[float] | None = None) -> None:
    """Add rows about the centres, L tensors (N, D_l) in float64, in one step.

    Args:
        scales: powers of two that bring the entries of each layer near 1, for products in float32. These are of rows
            about their own means, so that a step far from the centres costs no digits. Default: products in float64.
    """
    squares = torch.stack([torch.linalg.vector_norm(each, dim=1).square() for each in rows])  # (L, N)
    count, firsts = len(rows[0]), [each.sum(0) for each in rows]
    sums.count += count
    sums.spread += squares.sum(1)
    sums.squares.addmm_(squares, squares.mT)
    for first, step, weighted, each in zip(sums.first, firsts, sums.weighted, rows, strict=True):
        first += step
        weighted.addmm_(squares, each)
    if scales is None:
        for (a, b), product in sums.products.items():
            product.addmm_(rows[a].mT, rows[b])
        return
    energy = torch.stack([first @ first for first in firsts]) / count
    near = energy.device.type == "cpu" and bool((energy <= squares.sum(1) / 2).all())
    if not near:
        rows = [each - first / count for each, first in zip(rows, firsts, strict=True)]
    narrow = [(each * scale).to(torch.float32) for each, scale in zip(rows, scales, strict=True)]
    for (a, b), product in sums.products.items():
        product.add_(narrow[a].mT @ narrow[b], alpha=1 / (scales[a] * scales[b]))
        if not near:
            product.addr_(firsts[a], firsts[b], alpha=1 / count)
