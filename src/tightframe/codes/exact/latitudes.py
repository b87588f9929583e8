"""Points on circles of latitude: codes for any number of vectors, far from optimal but built at once."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ROUNDING = 1e-9  # tolerance: an angle that divides a circle divides it after rounding, too
_WORK = 1e5  # maximum number of circles visited to count the points of a code


def latitudes(dim: int, angle: float) -> Tensor:
    """Unit vectors (K, D), D >= 2, at angles of at least `angle`, in (0, pi], on latitudes that far apart."""
    return torch.from_numpy(_points(dim, angle))


@lru_cache(maxsize=4096)
def number_on_latitudes(dim: int, angle: float) -> int | None:
    """The number of vectors of `latitudes`; None if counting them takes long."""
    return _number(dim, angle) if (math.pi / angle) ** max(dim - 3, 0) < _WORK else None


def _number(dim: int, angle: float) -> int:
    if angle > math.pi:
        return 1
    if dim == 2:
        return math.floor(2 * math.pi / angle + _ROUNDING)
    inner = _inner_angles(np.sin(_polar_angles(angle)), angle)
    if dim == 3:
        return int(np.where(inner > math.pi, 1, np.floor(2 * math.pi / inner + _ROUNDING)).sum())
    return sum(_number(dim - 1, each) for each in inner)


def _points(dim: int, angle: float) -> npt.NDArray[np.float64]:
    if angle > math.pi:
        return np.eye(1, dim)
    if dim == 2:
        turns = np.arange(_number(2, angle)) * (2 * math.pi / _number(2, angle))
        return np.stack([np.cos(turns), np.sin(turns)], axis=1)
    polar = _polar_angles(angle)
    circles = []
    for theta, inner in zip(polar, _inner_angles(np.sin(polar), angle), strict=True):
        rim = _points(dim - 1, inner)
        circles.append(np.concatenate([np.full((len(rim), 1), math.cos(theta)), math.sin(theta) * rim], axis=1))
    return np.concatenate(circles)


def _polar_angles(angle: float) -> npt.NDArray[np.float64]:
    """Distances of the latitudes from the pole, symmetric about the equator."""
    number = math.floor(math.pi / angle + _ROUNDING) + 1
    return np.asarray(math.pi / 2 + angle * (np.arange(number) - (number - 1) / 2), dtype=np.float64)


def _inner_angles(radii: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    """The angle within each latitude; above 2 pi where there is room for one point only."""
    chords = math.sin(angle / 2) / np.maximum(radii, 1e-300)
    return np.where(chords < 1, 2 * np.arcsin(np.minimum(chords, 1)), 7.0).astype(np.float64)
