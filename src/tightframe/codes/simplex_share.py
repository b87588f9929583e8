"""The share of a sphere inside a regular simplex, for Coxeter's and Böröczky's bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from tightframe.codes.levenshtein import Array

LARGEST_DIM = 48
"""The bound is computed up to this dimension; beyond, Levenshtein's is better for every size met in practice."""
_ORDER = 96  # order of interpolation and quadrature: errors below 1e-13 in all allowed dimensions
_NODES = np.cos((np.arange(_ORDER) + 0.5) * math.pi / _ORDER)  # Chebyshev points on [-1, 1]
_EDGES = (_NODES + 1) * (math.pi / 4)  # edges of simplices, in (0, pi/2)


@cache
def simplex_share(m: int) -> Callable[[float], float]:
    """The logarithm of the share of S^m inside a regular simplex, as a function of its edge in (0, pi/2].

    By Schläfli's formula dv_m = C(m+1, 2)/(2 pi) v_{m-2} dd, where the faces of codimension two have the same edge and
    the dihedral angle d satisfies sec d = sec(edge) + m - 1. The interpolated function is log(v_m / edge^m), which is
    smooth and keeps relative accuracy over dozens of orders of magnitude of v_m.
    """
    if m == 0:
        return lambda edge: math.log(0.5)
    if m == 1:
        return lambda edge: math.log(edge / (2 * math.pi))
    coefficients = _smooth_share(m)

    def share(edge: float) -> float:
        return m * math.log(edge) + float(np.polynomial.chebyshev.chebval(4 * edge / math.pi - 1, coefficients))

    return share


@cache
def _smooth_share(m: int) -> Array:
    """Chebyshev coefficients of log(v_m / edge^m) on [0, pi/2]."""
    if m < 2:
        return np.array([math.log(0.5) if m == 0 else -math.log(2 * math.pi)])
    points, weights = np.polynomial.legendre.leggauss(_ORDER)
    parts = (points + 1) / 2  # fractions of the edge, integrated from 0 to 1
    edges = np.outer(_EDGES, parts)
    c = np.cos(edges)
    log_integrand = (
        np.polynomial.chebyshev.chebval(4 * edges / math.pi - 1, _smooth_share(m - 2))
        + (m - 1) * np.log(parts)
        + np.log(np.sinc(edges / math.pi))
        - np.log1p((m - 1) * c)
        - 0.5 * (np.log1p((m - 2) * c) + np.log1p(m * c))
    )
    top = log_integrand.max(1, keepdims=True)
    integral = (np.exp(log_integrand - top) @ (weights / 2)) * (m * (m + 1) / (4 * math.pi))
    values = np.log(integral) + top[:, 0]
    order = np.arange(_ORDER)
    transform = np.cos(np.outer(order, np.arccos(_NODES))) * (2 / _ORDER)
    transform[0] /= 2
    return np.asarray(transform @ values)
