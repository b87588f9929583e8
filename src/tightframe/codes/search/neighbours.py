"""The smoothed largest cosine from near pairs only: at high exponents the sum of all others is below rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tightframe.codes.search.energy import NEGLIGIBLE, SeparationEnergy

_TILE = 1 << 22  # number of cosines held at once while pairs are collected
_CHUNK = 1 << 18  # numbers gathered at once
_MOST = 1 << 25  # maximum pairs in a list, 1/4 GiB
_SHARE = 32  # a list with more than 1/32 of all pairs saves no time
_SAMPLE = 64  # points whose neighbours are counted before all pairs are collected


class NearEnergy:
    """`SeparationEnergy` of one set of free points, equal up to rounding, from a list of near pairs if that is short.

    Cosines below the largest by more than log(K^2 / eps) / p are negligible. A list holds all pairs within a wider
    angle. It is valid until points have moved so far that another pair might count: the angle of a pair decreases by at
    most the movement of its two points. Validity is checked at every call, so the size of the list affects only speed.
    Source: the neighbour lists of molecular dynamics, Verlet 1967.
    """

    def __init__(self, exponents: Tensor, stop: Callable[[], bool] = lambda: False):
        self._full = SeparationEnergy(exponents, stop=stop)
        self._p = float(exponents)
        self._stop = stop
        self._highest = math.nan  # about the largest cosine, after the first pass over all pairs
        self._pairs: _Pairs | None = None

    def __call__(self, representatives: Tensor) -> tuple[Tensor, Tensor]:
        points = representatives[0]
        near = self._near(points)
        if near is None:
            value, gradient = self._full(representatives)
            if math.isfinite(float(value)):
                self._highest = float(value) - 2 * math.log(len(points)) / self._p
            return value, gradient
        pairs, cosines = near
        highest = cosines.max()
        self._highest = float(highest)
        weights = cosines.sub_(highest).mul_(self._p).exp_()
        total = weights.sum()
        gradient = pairs.gather(points, weights).mul_(2 / total)
        return (highest + total.log() / self._p)[None], gradient[None]

    def _near(self, points: Tensor) -> tuple[_Pairs, Tensor] | None:
        """The relevant pairs and their cosines, from the current list or a new one; None without a list."""
        if self._pairs is not None and (cosines := self._served(self._pairs, points)) is not None:
            return self._pairs, cosines
        if math.isnan(self._highest):
            return None
        slack = 1 + 1 / points.shape[1]  # widens a list by a factor below e
        self._pairs = None  # frees memory first
        self._pairs = collect(points, min(math.pi, self._reach(self._highest, points) * slack), self._stop)
        if self._pairs is None or (cosines := self._served(self._pairs, points)) is None:
            return None
        return self._pairs, cosines

    def _served(self, pairs: _Pairs, points: Tensor) -> Tensor | None:
        """The cosines of a list's pairs if no other pair counts; else None."""
        moved = pairs.moved(points)
        if moved >= pairs.angle or not len(pairs.right):
            return None
        cosines = pairs.cosines(points)
        return cosines if self._reach(float(cosines.max()), points) + moved <= pairs.angle else None

    def _reach(self, highest: float, points: Tensor) -> float:
        """The angle beyond which pairs do not count."""
        margin = math.log(len(points) ** 2 / torch.finfo(points.dtype).eps)
        return math.acos(max(-1.0, min(1.0, highest - margin / self._p)))


class NearestEnergy:
    """`SeparationEnergy` of free points, from the same number of nearest neighbours for every point.

    Neighbours are those of the first points: equal up to rounding for high exponents, as long as the points stay near
    them. Much faster in few dimensions, where a point has few neighbours.
    """

    def __init__(self, exponents: Tensor, points: Tensor, number: int):
        R, K, _ = points.shape
        self._exponents = exponents
        cosines = points @ points.mT
        cosines.diagonal(dim1=1, dim2=2).fill_(-math.inf)
        first = K * torch.arange(R, device=points.device)[:, None, None]
        self._neighbours = (cosines.topk(number, dim=2).indices + first).view(R * K, number).T.contiguous()

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        R, K, D = points.shape
        flat = points.reshape(R * K, D).T.contiguous()  # coordinates first: sums over few numbers are slow
        near = flat.index_select(1, self._neighbours.flatten()).view(D, *self._neighbours.shape)
        cosines = (near * flat[:, None]).sum(0).view(-1, R, K)
        highest = cosines.amax((0, 2))[:, None]
        weights = cosines.sub_(highest).mul_(self._exponents[:, None]).clamp_(min=NEGLIGIBLE).exp_()
        total = weights.sum((0, 2))
        gradient = (near * weights.view(1, -1, R * K)).sum(1).T.contiguous().view(R, K, D)
        return highest[:, 0] + total.log() / self._exponents, gradient * (2 / total)[:, None, None]


@dataclass(frozen=True)
class _Pairs:
    """All pairs of points within an angle, in both orders, sorted by the first point."""

    origin: Tensor  # (K, D), the points when they were collected
    angle: float
    left: Tensor  # (P,)
    right: Tensor  # (P,)
    first: Tensor  # (K,), where each point's pairs begin

    def moved(self, points: Tensor) -> float:
        """Upper bound on the decrease of a pair's angle."""
        chords = torch.linalg.vector_norm(points - self.origin, dim=1).topk(2).values.double()
        return float(2 * (chords / 2).clamp(max=1).asin().sum())

    def cosines(self, points: Tensor) -> Tensor:
        size = max(1, _CHUNK // points.shape[1])
        chunks = zip(self.left.split(size), self.right.split(size), strict=True)
        return torch.cat([torch.linalg.vecdot(points[left], points[right]) for left, right in chunks])

    def gather(self, points: Tensor, weights: Tensor) -> Tensor:
        """For each point the weighted sum of its neighbours, (P,) -> (K, D)."""
        return embedding_bag(self.right, points, self.first, mode="sum", per_sample_weights=weights)


def collect(points: Tensor, angle: float, stop: Callable[[], bool] = lambda: False) -> _Pairs | None:
    """The pairs of points (K, D) within an angle, at most K^2 / 32; None if there are more, or if `stop()` is true."""
    K = len(points)
    cut, most = math.cos(angle), min(_MOST, K * K // _SHARE)
    sample = points[:: max(1, K // _SAMPLE)]
    if int((sample @ points.T > cut).sum()) * K > most * len(sample) + K * len(sample):  # each point counts itself
        return None
    rows = max(1, _TILE // K)
    tiles, count = [], 0
    for start in range(0, K, rows):
        near = points[start : start + rows] @ points.T > cut
        near.diagonal(start).fill_(False)
        tiles.append(near.nonzero().int())
        tiles[-1][:, 0] += start
        count += len(tiles[-1])
        if count > most or stop():
            return None
    left, right = torch.cat(tiles).T.contiguous()
    first = torch.searchsorted(left, torch.arange(K, dtype=left.dtype, device=left.device), out_int32=True)
    return _Pairs(points.clone(), angle, left, right, first)
