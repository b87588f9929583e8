"""The largest cosine between points, smoothed: (1/p) log of the sum of exp(p cosine) over pairs, p the exponent."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

import torch
from torch import Tensor

from tightframe.codes.search.orbits import FREE, Orbits

_TILE = 1 << 19  # number of cosines held at once, so that they stay in a CPU's cache
_LARGE_TILE = 1 << 24  # number of cosines on another device, and in a timed tile
NEGLIGIBLE = -80.0  # logarithm of a negligible weight; smaller ones would be denormal, hence slow
_WHOLE, _SAMPLED = 0.1, 0.02  # shares of a search's time: limit for scoring all pairs, and time of a sample


class SeparationEnergy:
    """The smoothed largest cosine of the points of orbits, as an objective for `descend`.

    A low exponent spreads points like charges; a high one weighs only the nearest pairs. The value exceeds the largest
    cosine by at most log(number of pairs) / p. Work: R x M x K cosines for M representatives, in tiles of rows. If
    `stop()` is true after a tile, the values are infinite, which no descent accepts.
    """

    def __init__(self, exponents: Tensor, orbits: Orbits = FREE, stop: Callable[[], bool] = lambda: False):
        self.exponents = exponents  # (R,)
        self.orbits, self.stop = orbits, stop

    def __call__(self, representatives: Tensor) -> tuple[Tensor, Tensor]:
        orbits = self.orbits
        points = orbits.expand(representatives)
        R, M, _ = representatives.shape
        rows = max(1, min(M, _tile(points) // (R * points.shape[1])))
        scaled = self.exponents[:, None, None] * representatives
        gradient = torch.empty_like(representatives)
        peaks, sums = [], []
        for start in range(0, M, rows):
            products = products_with_others(scaled, points, slice(start, start + rows), orbits)
            peak = products.amax((1, 2), keepdim=True)
            weights = products.sub_(peak).clamp_(min=NEGLIGIBLE).exp_()
            if orbits.sizes is not None:
                weights *= orbits.sizes[start : start + rows, None]
            torch.matmul(weights, points, out=gradient[:, start : start + rows])
            peaks.append(peak.flatten())
            sums.append(weights.sum((1, 2)))
            if start + rows < M and self.stop():
                return torch.full_like(self.exponents, math.inf), gradient.zero_()
        peaks_, sums_ = torch.stack(peaks), torch.stack(sums)
        highest = peaks_.amax(0)
        shares = (peaks_ - highest).exp()
        total = (sums_ * shares).sum(0)
        for tile, start in enumerate(range(0, M, rows)):
            gradient[:, start : start + rows] *= (2 * shares[tile] / total)[:, None, None]
        return (highest + total.log()) / self.exponents, orbits.project(gradient)


def largest_cosines(representatives: Tensor, orbits: Orbits = FREE, *, every: int = 1) -> Tensor:
    """The largest cosine between different points of each problem, (R, M, D) -> (R,).

    `every` = n uses only pairs with every n-th representative: a lower bound in 1/n of the time.
    """
    points = orbits.expand(representatives)
    R, M, _ = representatives.shape
    step = every * max(1, _tile(points) // (R * points.shape[1]))
    tiles = [
        products_with_others(representatives, points, slice(start, min(start + step, M), every), orbits).amax((1, 2))
        for start in range(0, M, step)
    ]
    return torch.stack(tiles).amax(0)


def seconds_of_a_pass(representatives: Tensor, orbits: Orbits = FREE) -> float:
    """Approximate seconds of `largest_cosines`, from one tile; the energy takes three times as long."""
    R, M, _ = representatives.shape
    K = orbits.expand(representatives).shape[1]
    every = min(M, max(1, R * M * K // _LARGE_TILE))
    begin = monotonic()
    largest_cosines(representatives, orbits, every=every).tolist()
    return (monotonic() - begin) * every


class LargestCosine:
    """Scores points (K, D) by their largest cosine, or by a sample of pairs if a search has no time for all.

    A sampled score is a lower bound on the largest cosine: of two sets, the better score may belong to the worse set.

    Attributes:
        every: n to use pairs with every n-th point, set with the first score; 1 for all pairs.
        share: the part of the search's time that all pairs of one set take, set with the first score.
    """

    def __init__(self, time: float | None):
        self._time = time
        self.every, self.share = (1 if time is None else 0), 0.0

    def __call__(self, points: Tensor) -> float:
        if not self.every:
            assert self._time is not None
            self.share = seconds_of_a_pass(points[None]) / self._time
            self.every = 1 if self.share < _WHOLE else min(len(points), math.ceil(self.share / _SAMPLED))
        return float(largest_cosines(points[None], every=self.every))

    def remark(self, num_points: int) -> str:
        """A remark on sampled scores; empty for exact scores."""
        return "" if self.every <= 1 else f", judged by 1 in {self.every} of {num_points} points"


def _tile(points: Tensor) -> int:
    return _TILE if points.device.type == "cpu" else _LARGE_TILE


def products_with_others(representatives: Tensor, points: Tensor, rows: slice, orbits: Orbits = FREE) -> Tensor:
    """Products of some representatives with all points, (R, rows, K); -inf for a point with itself."""
    products = representatives[:, rows] @ points.mT
    if orbits.own is None and rows.step is None:
        products.diagonal(rows.start, 1, 2).fill_(-math.inf)
        return products
    index = torch.arange(representatives.shape[1], device=points.device)[rows]
    own = index if orbits.own is None else orbits.own.to(index.device)[rows]
    products[:, torch.arange(len(index), device=points.device), own] = -math.inf
    return products
