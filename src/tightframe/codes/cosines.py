"""All cosines of K vectors, in tiles of the upper triangle: O(K D) memory, never K x K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.checks import require_directions
from tightframe.errors import ShapeError
from tightframe.numerics import float64_device

TILE = (2048, 4096)  # rows and columns, 64 MiB: large, so that threads seldom synchronise
_ANTIPODAL = 1e-14  # x' = -x if |x + x'| is at most this: a few roundings of unit vectors
_NEAR = 0.99  # |cosine| above which the angle loses digits to cancellation
_CANDIDATES = 2048  # maximum number of rows whose distances give the smallest angle

Meter = Callable[[float], None]
"""A function called with the completed fraction of a long computation, in [0, 1]."""


@dataclass(frozen=True)
class Directions:
    """The directions of K vectors in float64; an antipodal set is reduced to one vector per pair ±x."""

    unit: Tensor
    """(K, D) unit vectors."""
    norms: Tensor
    """(K,) lengths of the input vectors."""
    pairs: tuple[Tensor, Tensor] | None
    """For an antipodal set: the rows of one half, (K/2,), and the rows of their opposites; else None."""
    half: Tensor
    """The directions that determine all cosines: (K/2, D), one of each antipodal pair, or all K."""

    @classmethod
    def of(cls, vectors: Tensor) -> Directions:
        """The vectors' directions. Raises: ShapeError, DtypeError, NonFiniteError, ZeroVectorError (naming the row)."""
        if vectors.ndim != 2 or len(vectors) < 2 or vectors.shape[1] < 1:
            raise ShapeError(f"vectors must be (K, D) with K >= 2 rows and D >= 1; got {tuple(vectors.shape)}.")
        require_directions(vectors)
        rows = vectors.detach().to(float64_device(vectors.device), torch.float64)
        size = torch.maximum(rows.amax(1), -rows.amin(1))  # divide first: squares of tiny entries would underflow
        unit = rows / size.unsqueeze(1)
        norms = torch.linalg.vector_norm(unit, dim=1)
        unit /= norms.unsqueeze(1)
        pairs = _antipodal_pairs(unit)
        return cls(unit, norms * size, pairs, unit if pairs is None else unit[pairs[0]])


def near_coincidence(directions: Directions, row_maxima: Tensor, cosine: float) -> tuple[int, int, int] | None:
    """The first row with another at a cosine of at least `cosine`, that other row, and the number of such rows."""
    rows = (row_maxima >= cosine).nonzero()[:, 0]
    if not len(rows):
        return None
    first = int(rows[0])
    cosines = directions.unit @ directions.unit[first]
    cosines[first] = -torch.inf
    return first, int(cosines.argmax()), len(rows)


@dataclass(frozen=True)
class Extremes:
    """Extremes over all pairs of distinct rows, from one pass."""

    row_maxima: Tensor
    """(K,) largest cosine of each row with another row."""
    smallest: float
    """Smallest cosine of a pair."""

    @property
    def largest(self) -> float:
        return self.row_maxima.max().item()

    @property
    def coherence(self) -> float:
        return max(self.largest, -self.smallest)


def largest_cosine(vectors: Tensor) -> float:
    """The largest cosine between two of K vectors (K, D), in float64 and in tiles.

    Raises: ShapeError unless K >= 2, DtypeError, NonFiniteError, ZeroVectorError.

    >>> import torch
    >>> from tightframe.codes import largest_cosine
    >>> round(largest_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])), 6)  # the last two: 0.8
    0.8
    """
    return extremes(Directions.of(vectors)).largest


def extremes(directions: Directions, progress: Meter | None = None) -> Extremes:
    """Row maxima and the smallest cosine; `progress` receives fractions up to 1."""
    rows, antipodal = directions.half, directions.pairs is not None
    maxima = rows.new_full((len(rows),), -torch.inf)
    smallest = torch.inf
    for a, b, tile in _tiles(rows, progress):
        if antipodal:
            tile.abs_()  # covers cosines with x and -x
        if a.start == b.start:
            tile.fill_diagonal_(-torch.inf)
        _raise_to(maxima[a], tile.amax(1))
        _raise_to(maxima[b], tile.amax(0))
        if not antipodal:
            if a.start == b.start:
                tile.fill_diagonal_(torch.inf)
            smallest = min(smallest, tile.amin().item())
    if directions.pairs is None:
        return Extremes(maxima, smallest)
    here, opposite = directions.pairs
    antipodes = (rows * directions.unit[opposite]).sum(1)
    _raise_to(maxima, antipodes)
    everywhere = maxima.new_empty(2 * len(maxima))
    everywhere[here] = everywhere[opposite] = maxima
    return Extremes(everywhere, antipodes.min().item())


def gram_residual(directions: Directions, products: Sequence[float], progress: Meter | None = None) -> float:
    """The largest distance between a cosine of two distinct rows and the nearest of some inner products."""
    # antipodal pairs have product -1; the other products come in pairs ±, if the given set is symmetric
    inner = {product for product in products if abs(product) < 1}
    folded = directions.pairs is not None and all(min(abs(x + y) for y in inner) < 1e-15 for x in inner)
    rows = directions.half if folded else directions.unit
    values = sorted({abs(product) for product in inner} if folded else set(products))
    worst = 0.0
    room = [rows.new_empty(min(TILE[0], len(rows)) * min(TILE[1], len(rows))) for _ in range(2)]
    for a, b, tile in _tiles(rows, progress):
        nearest, other = (buffer[: tile.numel()].view_as(tile) for buffer in room)
        if folded:
            tile.abs_()
        if a.start == b.start:
            tile.fill_diagonal_(values[0])
        torch.sub(tile, values[0], out=nearest).abs_()
        for value in values[1:]:
            torch.minimum(nearest, torch.sub(tile, value, out=other).abs_(), out=nearest)
        worst = max(worst, nearest.amax().item())
    return worst


def smallest_angle(directions: Directions, row_maxima: Tensor) -> float:
    """The angle of the nearest pair in radians, computed from distances if the cosine would lose digits.

    If more than 2048 rows share the largest cosine up to rounding, the cosine gives the angle.
    """
    largest = row_maxima.max().clamp(-1, 1)
    if largest.abs() > _NEAR:
        rows = directions.unit[row_maxima >= largest - 1e-14]  # both ends of the nearest pair are among them
        if len(rows) <= _CANDIDATES:
            distances = torch.nn.functional.pdist(rows)
            i, j = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)[:, distances.argmin()]
            gap, total = rows[i] - rows[j], rows[i] + rows[j]
            return 2 * torch.atan2(torch.linalg.vector_norm(gap), torch.linalg.vector_norm(total)).item()
    return torch.arccos(largest).item()


def _tiles(rows: Tensor, progress: Meter | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles of rows @ rows.T that cover the upper triangle, with their slices of rows and columns.

    All tiles share one buffer. Only the first tile of a strip contains diagonal entries.
    """
    K = len(rows)
    height, width = min(TILE[0], K), min(TILE[1], K)
    buffer = rows.new_empty(height * width)
    for start in range(0, K, height):
        a = slice(start, min(start + height, K))
        for column in range(start, K, width):
            b = slice(column, min(column + width, K))
            tile = buffer[: (a.stop - a.start) * (b.stop - b.start)].view(a.stop - a.start, b.stop - b.start)
            yield a, b, torch.mm(rows[a], rows[b].T, out=tile)
        if progress is not None:
            progress(1 - ((K - a.stop) / K) ** 2)


def _raise_to(maxima: Tensor, others: Tensor) -> None:
    torch.maximum(maxima, others, out=maxima)


def _antipodal_pairs(unit: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows of one half and their opposites, if the set is its own negative; None otherwise.

    A random projection sorts x opposite to -x. Each pair is then checked, so randomness can only miss pairs.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(unit.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(unit.device)
    order = torch.argsort(unit @ direction)
    if len(order) % 2:
        return None
    half, partner = order.flip(0)[: len(order) // 2], order[: len(order) // 2]
    if (unit[half] + unit[partner]).abs().amax() > _ANTIPODAL:
        return None
    return half, partner
