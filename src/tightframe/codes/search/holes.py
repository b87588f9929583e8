"""Add points to the holes of a set on a sphere, far from all points, or drop its crowded points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.codes.search.sphere import tangent
from tightframe.numerics import unit_rows

_PER_HOLE, _FEWEST = 3, 256  # random directions per hole, and minimum in total
_STAGES = (10.0, 30.0, 100.0)  # exponents of the smoothed largest cosine that directions minimise
_STEPS = 25
_CROWDING = 30.0  # exponent, in units, that weighs the neighbours of a point


def filled(
    points: Tensor, num_points: int, generator: torch.Generator, stop: Callable[[], bool] = lambda: False
) -> Tensor:
    """Points (n, D) and K - n of their holes, (K, D).

    Random directions move away from the points, in single precision. Then the direction farthest from all points and
    earlier holes is selected, one at a time. If `stop()` is true, directions move no further.
    """
    missing = num_points - len(points)
    if missing <= 0:
        return points[:num_points]
    rough = points.float()
    holes = unit_rows(torch.randn(max(_FEWEST, _PER_HOLE * missing), points.shape[1], generator=generator).to(rough))
    for exponent in (exponent for exponent in _STAGES for _ in range(_STEPS)):
        if stop():
            break
        weights = (exponent * holes @ rough.mT).softmax(1)
        holes = unit_rows(holes - (2 / exponent) * tangent(weights @ rough, holes))
    nearest = (holes @ rough.mT).amax(1)
    selected = []
    for _ in range(missing):
        selected.append(nearest.argmin())
        nearest = torch.maximum(nearest, holes @ holes[selected[-1]])
    return torch.cat([points, unit_rows(holes[torch.stack(selected)].to(points))])


def thinned(points: Tensor, num_points: int) -> Tensor:
    """K of N points (N, D), N >= K: the most crowded one is dropped, one at a time."""
    cosines = (points @ points.T).fill_diagonal_(-torch.inf)
    sharpness = _CROWDING / (1 - cosines.max())
    energies = ((cosines - cosines.max()) * sharpness).exp()
    crowding, remaining = energies.sum(1), torch.ones(len(points), dtype=torch.bool)
    for _ in range(len(points) - num_points):
        crowded = int(crowding.argmax())
        remaining[crowded] = False
        crowding = (crowding - energies[crowded]).index_fill(0, torch.tensor(crowded), -torch.inf)
    return points[remaining]
