"""Levenshtein's universal bound and the quadrature behind it, from Gegenbauer and Jacobi polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tightframe.codes.sizes import require_sizes

Array = npt.NDArray[np.float64]


@lru_cache(maxsize=256)
def levenshtein_quadrature(num_vectors: int, dim: int) -> tuple[Array, Array]:
    """Inner products t and shares w of pairs of the (hypothetical) code that attains Levenshtein's bound.

    The w are >= 0 and sum to 1; 1/K at 1 and (1 - 1/K) w at t integrate every polynomial of Levenshtein's degree
    over the sphere exactly. The largest t is `levenshtein`'s bound. A code that attains this bound has these inner
    products, each in a share w of its pairs: for K <= D + 1 the simplex, for D = 2 the polygon. For D = 1, where
    vectors coincide if K > 2, they belong to the most even split between the two unit vectors.
    Returns: two read-only vectors, t ascending.
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: Levenshtein 1998; Boyvalenkov, Dragnev, Hardin, Saff & Stoyanova 2016 (Universal lower bounds for potential
    energy of spherical codes), section 2.

    >>> from tightframe.codes.levenshtein import levenshtein_quadrature
    >>> nodes, weights = levenshtein_quadrature(12, 3)  # the icosahedron
    >>> nodes.round(6), (11 * weights).round(6)
    (array([-1.      , -0.447214,  0.447214]), array([1., 5., 5.]))
    """
    require_sizes(num_vectors, dim)
    nodes, weights = _quadrature(num_vectors, dim)
    for values in (nodes, weights):
        values.setflags(write=False)
    return nodes, weights


def levenshtein_degree(num_vectors: int, dim: int) -> tuple[int, bool]:
    """k, and whether Levenshtein's quadrature for K vectors is exact to degree 2k - 1 (odd) or 2k."""
    degree = 1
    while num_vectors > 2 * math.comb(dim + degree - 1, degree):
        degree += 1
    return degree, num_vectors <= math.comb(dim + degree - 1, degree) + math.comb(dim + degree - 2, degree - 1)


def levenshtein_size(dim: int, degree: int, odd: bool, s: float) -> float:
    """Levenshtein's L(D, s) on the interval of an odd (2k-1) or even (2k) degree."""
    k = degree
    below, here, above = 0.0, 1.0, s  # Gegenbauer polynomials P_{k-1}, P_k, P_{k+1}, each 1 at 1
    for j in range(1, k + 1):
        below, here = here, above
        above = ((2 * j + dim - 2) * s * here - j * below) / (j + dim - 2)
    if odd:
        rest = (below - here) / ((1 - s) * here)
        return math.comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - rest)
    rest = (1 + s) * (here - above) / ((1 - s) * (here + above))
    return math.comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - rest)


def jacobi_zero(degree: int, a: int, b: int, dim: int) -> float:
    """The largest zero of the Jacobi polynomial P_degree^(a + (D-3)/2, b + (D-3)/2); -1 for degree 0.

    All ratios of successive monic polynomials are positive exactly above it (Sturm), without overflow.
    """
    if degree == 0:
        return -1.0
    diagonal, squares = _jacobi_recurrence(degree, a, b, dim)

    def above(t: float) -> float:
        ratio = 1.0
        for centre, square in zip(diagonal, squares, strict=True):
            ratio = t - centre - square / ratio
            if ratio <= 0:
                return -1.0
        return 1.0

    return root_of(above, -1.0, 1.0)


def _jacobi_recurrence(degree: int, a: int, b: int, dim: int) -> tuple[list[float], list[float]]:
    """Diagonal and squared off-diagonal entries (the first is 0) of the Jacobi matrix of these polynomials."""
    alpha, beta = a + (dim - 3) / 2, b + (dim - 3) / 2
    total = alpha + beta
    diagonal = [(beta - alpha) / (total + 2)]
    squares = [0.0]
    for j in range(1, degree):
        step = 2 * j + total
        diagonal.append((beta - alpha) * total / (step * (step + 2)))
        # at j = 1 the factors j + total and step - 1 are the same, and zero for D = 3, a = b = 0
        ratio = 1.0 if j == 1 else (j + total) / (step - 1)
        squares.append(4 * j * (j + alpha) * (j + beta) * ratio / (step**2 * (step + 1)))
    return diagonal, squares


def _quadrature(num_vectors: int, dim: int) -> tuple[Array, Array]:
    """`levenshtein_quadrature` for valid sizes."""
    K, D = num_vectors, dim
    if K <= D + 1:
        return np.array([-1 / (K - 1)]), np.ones(1)
    if D == 1:
        opposite = 2 * (K // 2) * (K - K // 2) / (K * (K - 1))
        return np.array([-1.0, 1.0]), np.array([opposite, 1 - opposite])
    if D == 2:
        steps = np.arange(K // 2, 0, -1)
        return np.cos(steps * (2 * math.pi / K)), np.where(2 * steps == K, 1.0, 2.0) / (K - 1)
    degree, odd = levenshtein_degree(K, D)
    # with (1 - t) or (1 - t^2) in the measure, the nodes besides 1, or 1 and -1, are eigenvalues of its Jacobi matrix J
    # with a changed last diagonal entry, which gives 1 the weight 1/K: the first entry of mass / (I - J) is `first`
    diagonal, squares = _jacobi_recurrence(degree, 1, 0 if odd else 1, D)
    mass, first = (1.0, 1 - 1 / K) if odd else (1 - 1 / D, 1 - 2 / K)
    rest = mass / first
    for centre, square in zip(diagonal[:-1], squares[1:], strict=True):
        rest = square / (1 - centre - rest)
    off = np.sqrt(squares[1:])
    nodes, vectors = np.linalg.eigh(np.diag([*diagonal[:-1], 1 - rest]) + np.diag(off, 1) + np.diag(off, -1))
    weights = mass * vectors[0] ** 2 / (1 - nodes)
    if not odd:
        weights /= 1 + nodes
        rest = max(1 - 1 / K - weights.sum(), 0.0)  # negative only by rounding
        nodes, weights = np.array([-1, *nodes]), np.array([rest, *weights])
    return nodes, weights / weights.sum()


def root_of(function: Callable[[float], float], low: float, high: float) -> float:
    """The sign change of an increasing function between low and high, to the last digit."""
    while low < (middle := (low + high) / 2) < high:
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return middle
