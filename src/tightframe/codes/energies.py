"""Bounds for K vectors in R^D on mean energies, on the spread of angles and on the rank of Gram matrices.

Every bound is proven; its docstring gives the source or the proof, and the cases in which it is attained.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tightframe.codes.levenshtein import Array, levenshtein_quadrature
from tightframe.codes.sizes import require_dim, require_sizes
from tightframe.errors import RangeError


def energy_bound(num_vectors: int, dim: int, potential: Callable[[Array], Array]) -> float:
    """Lower bound on the mean over ordered pairs i != j of potential(<u_i, u_j>), for any K unit vectors in R^D.

    The potential, a function of arrays of inner products in [-1, 1), must be absolutely monotone up to a constant: its
    derivatives of every order >= 1 are >= 0. (Orders 1 to m + 1 suffice, with m the degree of the quadrature.) It may
    be infinite at 1.
    Attained by the simplex (K <= D + 1), the orthoplex (K = 2D), polygons, and every sharp code: the icosahedron, E8's
    roots, ... For other sizes it lies below the optimum.
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: Boyvalenkov et al. 2016: the sum of w potential(t) over `levenshtein_quadrature`. The Hermite interpolant h
    of the potential at t lies below it, and its Gegenbauer coefficients are >= 0, so the sum of h over all K^2 pairs is
    at least K^2 times its mean over the sphere, which the quadrature gives. For D = 1 the most even split has the
    fewest coincident pairs.

    >>> import numpy as np
    >>> from tightframe.codes.energies import energy_bound
    >>> round(energy_bound(100, 99, lambda t: -np.log(2 - 2 * t) / 2), 6)  # the simplex
    -0.351599
    """
    nodes, weights = levenshtein_quadrature(num_vectors, dim)
    with np.errstate(divide="ignore"):  # infinite if vectors must coincide: D = 1
        return float(weights @ potential(nodes))


def log_kernel_bound(num_vectors: int, dim: int) -> float:
    """Lower bound on the mean over pairs of -log |u_i - u_j|; infinite for D = 1 and K > 2. See `energy_bound`."""
    return energy_bound(num_vectors, dim, lambda t: -np.log(2 - 2 * t) / 2)


def riesz_bound(num_vectors: int, dim: int, exponent: float = 1.0) -> float:
    """Lower bound on the mean over pairs of |u_i - u_j|^-exponent; infinite for D = 1 and K > 2. See `energy_bound`.

    Raises: RangeError unless the exponent is finite and > 0.
    """
    if not 0 < exponent < math.inf:
        raise RangeError(f"the exponent of the Riesz kernel must be finite and > 0; got {exponent}.")
    return energy_bound(num_vectors, dim, lambda t: (2 - 2 * t) ** (-exponent / 2))


def distance_bound(num_vectors: int, dim: int) -> float:
    """Upper bound on the mean over pairs of |u_i - u_j|: minus the `energy_bound` of -sqrt(2 - 2t)."""
    return -energy_bound(num_vectors, dim, lambda t: -np.sqrt(2 - 2 * t))


def equiangularity_floor(num_vectors: int, dim: int, *, equinorm: float = 0.0, ddof: int = 1) -> float:
    """Lower bound on the standard deviation over pairs of the cosine between K centred vectors in R^D.

    For equal lengths it is sqrt(K (K-1-D) / D) / (K-1) for ddof 0, and 0 for K <= D + 1. `equinorm` is the coefficient
    of variation of the lengths (ddof 1, as the metric `equinorm`): with unequal lengths the sum of the unit vectors u_k
    may differ from zero, and the bound is lower. It is unchanged up to an equinorm of about sqrt(2D / (K - 2D)) for
    K > 2D and, for any lengths, if the mean cosine is at most 1/(K-1). Vectors that are not centred have the bound 0,
    because all may be equal.
    Attained at equal lengths by spherical 2-designs: tight frames of unit vectors whose sum is zero. They exist for
    every K > D + 1, except K = D + 2 with D odd (Mimura 1990), and for D = 1 only if K is even.

    Proof. Let q be the length of the sum of the u_k, x = q^2 / K, and G their Gram matrix, of trace K and rank <= D.
    The sum of its squared entries is at least that of one eigenvalue l and D - 1 equal ones, l^2 + (K-l)^2 / (D-1), for
    l between K/D and the largest; at l = K/D it is Welch's K^2 / D. The mean of the cosines off the diagonal is
    (x - 1) / (K-1), so that their variance is at least

        V(x) = (l^2 + (K-l)^2 / (D-1) - K) / (K (K-1)) - (x-1)^2 / (K-1)^2.

    Equal lengths: x = 0. Else, with lengths proportional to 1 + d_k, where the d_k sum to 0 and their squares to K e^2,
    and c_k = <u_k, direction of the sum>: the weighted vectors sum to zero, so q = -sum d_k c_k, at most the root of
    K e^2 (sum c_k^2 - x), as the c_k have mean q/K. Hence x <= e^2 (sum c_k^2 - x), and the largest eigenvalue is at
    least sum c_k^2 >= r x with r = 1 + 1/e^2. With l = max(K/D, r x), V is concave up to x = K / (D r) and convex
    beyond, with a continuous slope: its least value is at 0 or at the stationary point of the convex part.
    Raises: DimensionError unless K >= 2 and D >= 1; RangeError unless equinorm is finite and >= 0 and ddof is 0 or 1.
    Source: Welch 1974 for equal lengths.

    >>> from tightframe.codes.energies import equiangularity_floor
    >>> round(equiangularity_floor(100, 16), 6)
    0.230085
    """
    require_sizes(num_vectors, dim)
    if not 0 <= equinorm < math.inf:
        raise RangeError(f"equinorm must be finite and >= 0; got {equinorm}.")
    if ddof not in (0, 1):
        raise RangeError(f"ddof must be 0 or 1; got {ddof}.")
    K, D = num_vectors, dim
    if K <= D + 1:
        return 0.0
    variance = _least_variance(K, D)
    squared = equinorm**2 * (K - 1) / K
    if squared > 0:
        ratio = 1 + 1 / squared
        lowest, highest = K / (D * ratio), K / ratio
        if D == 1:
            x, rest = highest, 0.0
            largest = float(K)
        else:
            slope = D * ratio**2 / ((D - 1) * K) - 1 / (K - 1)
            x = (ratio / (D - 1) - 1 / (K - 1)) / slope
            x = min(max(x, lowest), highest)
            largest = ratio * x
            rest = (K - largest) ** 2 / (D - 1)
        moved = (largest**2 + rest - K) / (K * (K - 1)) - (x - 1) ** 2 / (K - 1) ** 2
        variance = max(min(variance, moved), 0.0)  # rounding may give a negative value
    pairs = K * (K - 1) / 2
    return math.sqrt(variance * pairs / (pairs - ddof))


def maximal_angle_floor(num_vectors: int, dim: int) -> float:
    """Lower bound on the mean over pairs of |cos + 1/(K-1)|, for any K unit vectors in R^D: K (K-1-D) / (D (K-1)^2).

    0 for K <= D + 1. No condition on lengths or on the sum of the vectors. It is about 1/D, far below the 0.8/sqrt(D)
    of evenly spread vectors, but no bound can be much higher: K/(2D) copies of the orthoplex have (K-2) / (K-1-D) times
    this value. The measure is small if some vectors coincide and the others are orthogonal.
    Attained for D = 1 and K even.

    Proof. a = cos + 1/(K-1) lies in [-(K-2)/(K-1), K/(K-1)], an interval of length 2 with 0 inside, where
    |a| >= a^2 - a/(K-1), with equality at both ends and at 0. The mean of the right side is
    S2 + S1/(K-1), with S2 the mean of cos^2, by Welch at least (K-D) / (D (K-1)), and S1 that of cos, at least
    -1/(K-1) because the squared length of a sum is >= 0.
    Raises: DimensionError unless K >= 2 and D >= 1.

    >>> from tightframe.codes.energies import maximal_angle_floor
    >>> round(maximal_angle_floor(100, 16), 6)
    0.052928
    """
    require_sizes(num_vectors, dim)
    return _least_variance(num_vectors, dim)


def rank_floor(eigenvalues: npt.ArrayLike, dim: int) -> float:
    """The minimum Frobenius distance of G/|G| to T/|T| over positive semidefinite G of rank at most D = `dim`.

    T is symmetric with these eigenvalues. The minimum is sqrt(2 - 2 sqrt(share)), where share is the part of the D
    largest positive eigenvalues in the sum of squared eigenvalues of T: sqrt(2 - 2 sqrt(D/(K-1))) for the simplex ETF.
    Attained by T restricted to these eigenvalues: <G, T> is at most the sum of products of sorted eigenvalues of both
    (von Neumann), hence at most |G| times the root of the sum of the D largest squares.
    Range: [0, sqrt(2)).
    Raises: DimensionError unless D >= 1; RangeError unless the eigenvalues are finite and one is positive.
    Source: Eckart & Young 1936; von Neumann 1937.

    >>> from tightframe.codes.energies import rank_floor
    >>> round(rank_floor([1.0] * 99, 64), 6)
    0.626051
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())[::-1]
    dim = require_dim(dim)
    if not np.isfinite(values).all() or values.size == 0 or values[0] <= 0:
        raise RangeError("the eigenvalues of a Gram matrix must be finite, and at least one must be positive.")
    values = values / values[0]
    largest = values[:dim][values[:dim] > 0]
    lost = float(np.square(values[len(largest) :]).sum())
    if lost == 0:
        return 0.0
    lost /= lost + float(np.square(largest).sum())
    return math.sqrt(2 * lost / (1 + math.sqrt(1 - lost)))  # 1 - sqrt(1 - lost) without cancellation


def _least_variance(num_vectors: int, dim: int) -> float:
    """Least variance of the cosines between K unit vectors in R^D with sum zero; 0 for K <= D + 1."""
    return num_vectors * max(num_vectors - 1 - dim, 0) / (dim * (num_vectors - 1) ** 2)
