"""Holes of a set of points on a sphere: directions far from all of them, where more points have room."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.prototypes.solver.sphere import tangent, unit

_PER_HOLE, _FEWEST = 3, 256  # random directions that begin the search, for each hole wanted and in all
_STAGES = (10.0, 30.0, 100.0)  # exponents of the smoothed largest cosine that directions flee from
_STEPS = 25


def filled(points: Tensor, num_points: int, generator: torch.Generator) -> Tensor:
    """Points (n, D) and as many of their holes as make K, (K, D).

    Random directions flee from the points, in single precision; then, one by one, that which is farthest from all
    points and from the holes taken before is taken.
    """
    missing = num_points - len(points)
    if missing <= 0:
        return points[:num_points]
    rough = points.float()
    holes = unit(torch.randn(max(_FEWEST, _PER_HOLE * missing), points.shape[1], generator=generator).to(rough))
    for exponent in _STAGES:
        for _ in range(_STEPS):
            weights = (exponent * holes @ rough.mT).softmax(1)
            holes = unit(holes - (2 / exponent) * tangent(weights @ rough, holes))
    nearest = (holes @ rough.mT).amax(1)
    chosen = []
    for _ in range(missing):
        chosen.append(nearest.argmin())
        nearest = torch.maximum(nearest, holes @ holes[chosen[-1]])
    return torch.cat([points, unit(holes[torch.stack(chosen)].to(points))])
