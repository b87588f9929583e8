"""The largest cosine between points, smoothed: (1/p) log of the sum of exp(p cosine) over pairs, p the exponent."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.prototypes.solver.orbits import Free, Orbits

_TILE = 1 << 24  # cosines held at once


class SeparationEnergy:
    """The smoothed largest cosine of orbits' points, as an objective for `descend`.

    A low exponent spreads points like charges, a high one sees only the nearest pairs; the value exceeds the largest
    cosine by at most log(number of pairs) / p. Work: R x M x K cosines for M representatives, in tiles of rows.
    """

    def __init__(self, exponents: Tensor, orbits: Orbits | None = None):
        self.exponents = exponents  # (R,)
        self.orbits = orbits if orbits is not None else Free()

    def __call__(self, representatives: Tensor) -> tuple[Tensor, Tensor]:
        orbits = self.orbits
        points = orbits.expand(representatives)
        R, M, _ = representatives.shape
        rows = max(1, min(M, _TILE // (R * points.shape[1])))
        p = self.exponents[:, None, None]
        gradient = torch.empty_like(representatives)
        peaks, sums = [], []
        for start in range(0, M, rows):
            cosines = _others(representatives, points, orbits, slice(start, start + rows))
            peak = cosines.amax((1, 2), keepdim=True)
            weights = cosines.sub_(peak).mul_(p).exp_()
            if orbits.sizes is not None:
                weights *= orbits.sizes[start : start + rows, None]
            torch.matmul(weights, points, out=gradient[:, start : start + rows])
            peaks.append(peak.flatten())
            sums.append(weights.sum((1, 2)))
        peaks_, sums_ = torch.stack(peaks), torch.stack(sums)
        highest = peaks_.amax(0)
        shares = ((peaks_ - highest) * self.exponents).exp()
        total = (sums_ * shares).sum(0)
        for tile, start in enumerate(range(0, M, rows)):
            gradient[:, start : start + rows] *= (2 * shares[tile] / total)[:, None, None]
        return highest + total.log() / self.exponents, orbits.project(gradient)


def largest_cosines(representatives: Tensor, orbits: Orbits | None = None) -> Tensor:
    """The largest cosine between different points of each problem, (R, O, D) -> (R,)."""
    orbits = orbits if orbits is not None else Free()
    points = orbits.expand(representatives)
    R, M, _ = representatives.shape
    rows = max(1, min(M, _TILE // (R * points.shape[1])))
    tiles = [
        _others(representatives, points, orbits, slice(start, start + rows)).amax((1, 2)) for start in range(0, M, rows)
    ]
    return torch.stack(tiles).amax(0)


def _others(representatives: Tensor, points: Tensor, orbits: Orbits, rows: slice) -> Tensor:
    """Cosines of some representatives with all points, (R, rows, K); -inf with themselves."""
    cosines = representatives[:, rows] @ points.mT
    index = torch.arange(representatives.shape[1], device=points.device)[rows]
    own = index if orbits.own is None else orbits.own.to(index.device)[rows]
    cosines[:, torch.arange(len(index), device=points.device), own] = -math.inf
    return cosines
