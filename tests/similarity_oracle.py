"""Slow, obvious similarities: of Gram matrices of all samples, in float64, with loops over pairs of layers."""

from collections.abc import Mapping

import torch
from torch import Tensor

F64 = torch.float64


def hsic(k: Tensor, other: Tensor, debiased: bool) -> Tensor:
    """HSIC of two Gram matrices (N, N): Gretton et al. 2005, or as Song et al. 2012 write it in equation 5."""
    n = len(k)
    if not debiased:
        centre = torch.eye(n, dtype=F64) - torch.full((n, n), 1 / n, dtype=F64)
        return torch.trace(centre @ k @ centre @ other) / (n - 1) ** 2
    k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    one = torch.ones(n, dtype=F64)
    pairs = torch.trace(k @ other)
    fours = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    threes = 2 / (n - 2) * (one @ k @ other @ one)
    return (pairs + fours - threes) / (n * (n - 3))


def cka_by_grams(features: Mapping[str, Tensor], debiased: bool = True) -> Tensor:
    """(L, L) linear CKA of all pairs of layers."""
    grams = []
    for rows in features.values():
        rows = rows.to(F64).reshape(-1, rows.shape[-1])
        rows = rows - rows.mean(0)  # else the Gram matrix of means far from the origin loses the digits
        grams.append(rows @ rows.mT)
    grid = torch.empty(len(grams), len(grams), dtype=F64)
    for a, first in enumerate(grams):
        for b, second in enumerate(grams):
            own = hsic(first, first, debiased) * hsic(second, second, debiased)
            grid[a, b] = hsic(first, second, debiased) / own.sqrt()
    return grid


def procrustes_by_rotations(x: Tensor, y: Tensor) -> Tensor:
    """min over orthogonal Q of |x Q - y| for centred class means scaled to length 1, padded to equal widths."""
    width = max(x.shape[1], y.shape[1])
    x, y = (torch.nn.functional.pad(each - each.mean(0), (0, width - each.shape[1])) for each in (x, y))
    x, y = x / x.norm(), y / y.norm()
    left, _, right = torch.linalg.svd(x.mT @ y)
    return (x @ left @ right - y).norm()
