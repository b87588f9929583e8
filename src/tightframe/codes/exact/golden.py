"""Quaternion groups as codes in four dimensions: the 24-cell, the 600-cell and, about one point, the icosahedron."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.codes.exact.lattices import layer, signs

COS_36 = (1 + math.sqrt(5)) / 4


def cell_24() -> Tensor:
    """The 24 Hurwitz units: ±1, ±i, ±j, ±k and (±1 ± i ± j ± k)/2."""
    axes = torch.eye(4, dtype=torch.float64)
    return torch.cat([axes, -axes, signs(4) / 2])


def cell_600() -> Tensor:
    """The 120 icosians: the 24-cell's five images under the powers of a unit of order five."""
    golden = 2 * COS_36
    turn = _left(torch.tensor([1 / golden, golden, 1, 0], dtype=torch.float64) / 2)
    cells = [cell_24()]
    for _ in range(4):
        cells.append(cells[-1] @ turn.T)
    return torch.cat(cells)


def icosahedron() -> Tensor:
    """The 12 points of the 600-cell nearest to one of them, seen from it."""
    points = cell_600()
    return layer(points, points[0], (), (COS_36,))


def _left(quaternion: Tensor) -> Tensor:
    """The matrix of multiplication by a quaternion from the left."""
    w, x, y, z = quaternion.tolist()
    return torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64)
