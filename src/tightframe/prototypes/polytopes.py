"""Orthonormal frames and the regular polytopes other than the simplex: orthoplex, hypercube, polygon."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.errors import DimensionError
from tightframe.prototypes.embedding import embedded, require_room
from tightframe.prototypes.value import Prototypes

PERNICI = "Pernici et al. 2021, Regular polytope networks"


def orthonormal(
    num_classes: int,
    dim: int | None = None,
    *,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """The first K coordinate axes times `scale`; all cosines are 0. `dim` is K by default.

    Raises: DimensionError unless 2 <= num_classes <= dim.
    """
    dim = max(num_classes, 1) if dim is None else dim
    require_room("an orthonormal frame", num_classes, dim, dim, "dim")
    return _prototypes("orthonormal", torch.eye(num_classes, dtype=torch.float64), dim, scale, device, dtype)


def orthoplex(
    num_classes: int,
    dim: int | None = None,
    *,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """The first K of e_1, ..., e_D, -e_1, ..., -e_D times `scale`: cosines 0 and -1, the best possible for K >= D + 2.

    `dim` is ceil(K / 2) by default. Raises: DimensionError unless 2 <= num_classes <= 2 dim. Source: Rankin 1955.
    """
    dim = max((num_classes + 1) // 2, 1) if dim is None else dim
    require_room("an orthoplex", num_classes, dim, 2 * dim, "2 dim")
    axes = torch.eye(min(num_classes, dim), dim, dtype=torch.float64)
    vectors = torch.cat([axes, -axes[: num_classes - len(axes)]])
    return _prototypes("orthoplex", vectors, dim, scale, device, dtype)


def hypercube(
    num_classes: int,
    dim: int | None = None,
    *,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """K separated vertices (±1, ..., ±1)/sqrt(D) of the cube, times `scale`: cosines 1 - 2 Hamming distance / D.

    `dim` is ceil(log2 K) by default (Pernici's choice). For a larger `dim` the vertices are the first K words of a
    binary linear code. Each coordinate is the parity that separates most pairs of words, with the largest weight on
    the nearest pairs; nothing is padded, and more coordinates give larger angles.
    Raises: DimensionError unless 2 <= num_classes <= 2^dim.
    """
    bits = max(num_classes - 1, 1).bit_length()
    dim = bits if dim is None else dim
    require_room("a hypercube", num_classes, dim, 2 ** max(dim, 0), "2^dim")
    words = torch.arange(num_classes)
    vectors = torch.stack([_parity_signs(words & mask) for mask in _parities(bits, dim)], dim=1) / math.sqrt(dim)
    return _prototypes("hypercube", vectors, dim, scale, device, dtype)


def polygon(
    num_classes: int,
    dim: int = 2,
    *,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """The corners of the regular K-gon, anticlockwise from e_1, times `scale`: largest cosine cos(2 pi / K), optimal.

    Coordinates are accurate to an ulp. For `dim` above 2 zeros are appended. Raises: DimensionError unless num_classes,
    dim >= 2.
    """
    if num_classes < 2 or dim < 2:
        raise DimensionError(f"a polygon needs num_classes >= 2 and dim >= 2; got {num_classes} and {dim}.")
    quarter = 4 * torch.arange(num_classes)
    turns = (2 * quarter + num_classes) // (2 * num_classes)  # whole quarter turns; the rest is at most an eighth
    rest = (quarter - turns * num_classes).to(torch.float64) * (math.pi / 2 / num_classes)
    cosine, sine = rest.cos(), rest.sin()
    around = torch.stack([cosine, sine, -cosine, -sine])  # a quarter turn takes (x, y) to (-y, x)
    corners = torch.stack([around.gather(0, (first - turns)[None] % 4)[0] for first in (0, 1)], dim=1)
    return _prototypes("polygon", corners, dim, scale, device, dtype)


def _prototypes(
    constructor: str,
    vectors: Tensor,
    dim: int,
    scale: float,
    device: torch.device | str | None,
    dtype: torch.dtype,
) -> Prototypes:
    provenance = {
        "constructor": constructor,
        "num_classes": len(vectors),
        "dim": dim,
        "scale": scale,
        "source": PERNICI,
    }
    return Prototypes(embedded(vectors, dim, scale=scale, device=device, dtype=dtype), provenance)


def _parity_signs(words: Tensor) -> Tensor:
    """(-1)^(number of ones) of non-negative integers, as float64."""
    for shift in (32, 16, 8, 4, 2, 1):
        words = words ^ (words >> shift)
    return 1 - 2 * (words & 1).to(torch.float64)


def _parities(bits: int, dim: int) -> list[int]:
    """Masks of `dim` parity checks on words of `bits` bits, chosen greedily for large distances between words.

    The distance of two words is the weight of their sum, so the weights of non-zero words are the distances.
    """
    words = torch.arange(2**bits)
    weight = torch.zeros(2**bits, dtype=torch.float64)
    weight[0] = math.inf
    masks = []
    for _ in range(dim):
        nearest = weight.min()
        rate = 1 if nearest > 0 else bits  # coinciding words outweigh all others
        urgency = torch.exp2(-rate * (weight - nearest))
        masks.append(int((urgency.sum() - _walsh(urgency)).argmax()))
        weight += (1 - _parity_signs(words & masks[-1])) / 2
    return masks


def _walsh(values: Tensor) -> Tensor:
    """Sum over x of values[x] (-1)^(number of ones of x & y), for every y; (2^n,) -> (2^n,)."""
    for half in (2**bit for bit in range(len(values).bit_length() - 1)):
        low, high = values.reshape(-1, 2, half).unbind(1)
        values = torch.stack([low + high, low - high], dim=1)
    return values.reshape(-1)
