"""Codes from the E8 and Leech lattices: minimal vectors, and their layers about a few poles.

The vectors of an optimal code at a given cosine from one of its vectors often form an optimal code in one dimension
less; most known sharp codes are such layers. Nothing is stored: roots, the Golay code and a table of inner products
suffice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tightframe.numerics import unit_rows

_GOLAY = 0b110001110101  # x^11 + x^10 + x^6 + x^5 + x^4 + x^2 + 1 generates the binary Golay code of length 23


def signs(length: int) -> Tensor:
    """All rows (±1, ..., ±1): (2^length, length)."""
    return 1.0 - 2.0 * _bits(length).to(torch.float64)


def roots(dim: int) -> Tensor:
    """The root system D_n: every ±e_i ± e_j, (2 n (n - 1), n), of squared length 2."""
    axes = torch.eye(dim, dtype=torch.float64)
    i, j = torch.triu_indices(dim, dim, 1)
    return torch.cat([axes[i] + axes[j], axes[i] - axes[j], axes[j] - axes[i], -axes[i] - axes[j]])


def e8() -> Tensor:
    """The 240 roots of E8, of squared length 2: those of D_8, and half-integral ones with evenly many minus signs."""
    half = signs(8) / 2
    return torch.cat([roots(8), half[half.prod(dim=1) > 0]])


def leech() -> Tensor:
    """The 196,560 minimal vectors of the Leech lattice, of squared length 4.

    In units of 1/sqrt(8): 1,104 of shape (±4, ±4, 0...), the roots of D_24; 97,152 of shape (±2 on an octad), evenly
    many of them negative; 98,304 of shape (∓3, ±1...), the upper signs on a word of the Golay code.
    Source: Conway & Sloane, Sphere packings, lattices and groups, chapter 4.
    """
    words = golay_words()
    octads = words[words.sum(dim=1) == 8].nonzero()[:, 1].reshape(-1, 1, 8)
    even = signs(8)
    even = even[even.prod(dim=1) > 0]
    twos = torch.zeros(len(octads), len(even), 24, dtype=torch.float64)
    twos.scatter_(2, octads.expand(-1, len(even), -1), 2 * even.expand(len(octads), -1, -1))
    threes = (1.0 - 2.0 * words)[:, None, :] * (1 - 4 * torch.eye(24, dtype=torch.float64))
    return torch.cat([4 * roots(24), twos.reshape(-1, 24), threes.reshape(-1, 24)]) / 8**0.5


def layer(points: Tensor, first: Tensor, poles: Sequence[Sequence[float]], products: Sequence[float]) -> Tensor:
    """The points with given inner products with some poles, as unit vectors in the orthogonal complement of the poles.

    The first pole is `first`, (D,). Each row of `poles` defines the next pole: the first of `points`, (K, D), with
    these inner products with all earlier poles. `products` select the layer. Returns (fewer, D - number of poles).
    """
    axes = first[None]
    for row in poles:
        axes = torch.cat([axes, _meeting(points, axes, row)[:1]])
    complement = torch.linalg.qr(axes.T, mode="complete").Q[:, len(axes) :]
    return unit_rows(_meeting(points, axes, products) @ complement)


def e8_layer(poles: Sequence[Sequence[float]], products: Sequence[float]) -> Tensor:
    """A layer of E8 about poles; the first pole is a root."""
    points = e8()
    return layer(points, points[0], poles, products)


def leech_layer(poles: Sequence[Sequence[float]], products: Sequence[float], *, long: bool = False) -> Tensor:
    """A layer of the Leech lattice about poles; the first is a minimal vector or, if `long`, has squared length 6."""
    points = leech()
    first = points[0]
    if long:  # 6 = 4 + 4 - 2: the difference of two minimal vectors with inner product 1
        first = first - _meeting(points, first[None], (1,))[0]
    return layer(points, first, poles, products)


def _meeting(points: Tensor, axes: Tensor, products: Sequence[float]) -> Tensor:
    target = torch.tensor(products, dtype=torch.float64)
    return points[((points @ axes.T - target).abs() < 1e-6).all(dim=1)]


def golay_words() -> Tensor:
    """The 4,096 words of the extended binary Golay code: (4096, 24) of 0 and 1."""
    generators = torch.zeros(12, 24, dtype=torch.int64)
    taps = torch.tensor([_GOLAY >> bit & 1 for bit in range(12)])
    for shift, row in enumerate(generators):
        row[shift : shift + 12] = taps
    generators[:, 23] = taps.sum() % 2
    return _bits(12) @ generators % 2


def _bits(length: int) -> Tensor:
    return torch.arange(2**length)[:, None] >> torch.arange(length) & 1
