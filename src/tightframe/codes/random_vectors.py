"""Cosines of random vectors."""

from __future__ import annotations

import math

from tightframe.codes.levenshtein import root_of
from tightframe.codes.sizes import require_sizes


def random_cosine(num_vectors: int, dim: int) -> float:
    """The median of the largest cosine of K uniform random vectors in R^D, assuming independent pairs.

    Pairs are only pairwise independent; the error is far below the spread. Exact for K = 2.
    """
    require_sizes(num_vectors, dim)
    if dim == 1:
        return 1.0 if num_vectors > 2 else 0.0
    pairs = num_vectors * (num_vectors - 1) / 2
    target = math.log(-math.expm1(-math.log(2) / pairs))  # logarithm of P[cosine >= c]
    return math.cos(root_of(lambda angle: _log_cap(angle, dim) - target, 1e-300, math.pi / 2))


def _log_cap(angle: float, dim: int) -> float:
    """log P[angle between two uniform vectors <= angle] for angles up to pi/2, log(I_x((D-1)/2, 1/2) / 2)."""
    x = math.sin(angle) ** 2
    a, b = (dim - 1) / 2, 0.5
    if x == 0:
        return -math.inf
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + math.log(math.cos(angle))
    if x < (a + 1) / (a + b + 2):
        return math.log(0.5) + log_front - math.log(a) + math.log(_beta_fraction(x, a, b))
    rest = math.exp(log_front - math.log(b)) * _beta_fraction(1 - x, b, a)
    return math.log(0.5) + math.log1p(-rest)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function (Lentz); converges fast for x < (a+1)/(a+b+2)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    result = d
    for j in range(1, 10_000):
        for factor in (
            j * (b - j) * x / ((a + 2 * j - 1) * (a + 2 * j)),
            -(a + j) * (a + b + j) * x / ((a + 2 * j) * (a + 2 * j + 1)),
        ):
            d = 1 / (1 + factor * d)
            c = 1 + factor / c
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result
