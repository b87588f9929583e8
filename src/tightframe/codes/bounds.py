"""Bounds for K vectors in R^D: on the largest cosine, on mean energies, and on the spread of angles.

Every bound is proven; its docstring gives the source or the proof, and the cases in which it is attained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from tightframe.errors import DimensionError, RangeError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """A proven lower bound `value` on the largest cosine of K unit vectors in R^D."""

    name: str
    value: float
    source: str


def rankin(num_vectors: int, dim: int) -> Bound:
    """-1/(K-1) for K <= D+1, attained by the simplex; else 0, attained up to K = 2D by the orthoplex."""
    _require_sizes(num_vectors, dim)
    value = -1 / (num_vectors - 1) if num_vectors <= dim + 1 else 0.0
    return Bound("Rankin", value, "Rankin 1955, The closest packing of spherical caps in n dimensions")


def polygon(num_vectors: int, dim: int) -> Bound | None:
    """cos(2 pi/K), exact for D = 2; None unless D = 2."""
    _require_sizes(num_vectors, dim)
    if dim != 2:
        return None
    return Bound("polygon", math.cos(2 * math.pi / num_vectors), "K arcs share a circle of length 2 pi")


def levenshtein(num_vectors: int, dim: int) -> Bound | None:
    """The universal bound K <= L(D, s) solved for s, by bisection to the last digit; None for D < 3.

    Attained by the icosahedron, E8's roots, the Leech lattice's minimal vectors and other sharp codes.
    """
    _require_sizes(num_vectors, dim)
    if dim < 3:
        return None
    name, source = "Levenshtein", "Levenshtein 1979; 1998, Universal bounds for codes and designs"
    degree, odd = _levenshtein_degree(num_vectors, dim)
    middle = _jacobi_zero(degree, 1, 0, dim)
    if odd:
        low, high = _jacobi_zero(degree - 1, 1, 1, dim), middle
    else:
        low, high = middle, _jacobi_zero(degree, 1, 1, dim)
    return Bound(name, _root(lambda s: _levenshtein_size(dim, degree, odd, s) - num_vectors, low, high), source)


def fejes_toth(num_vectors: int, dim: int) -> Bound | None:
    """(cot^2 w - 1)/2 with w = K pi / (6 (K-2)), attained for K = 3, 4, 6, 12; None unless D = 3 and K >= 3."""
    _require_sizes(num_vectors, dim)
    if dim != 3 or num_vectors < 3:
        return None
    w = num_vectors * math.pi / (6 * (num_vectors - 2))
    return Bound("Fejes Tóth", (1 / math.tan(w) ** 2 - 1) / 2, "Fejes Tóth 1943, on the shortest distance of points")


def coxeter_boroczky(num_vectors: int, dim: int) -> Bound | None:
    """The simplex bound: K caps have at most the density of caps about the vertices of one regular simplex.

    With v_m the share of S^m inside a regular simplex of dihedral angle d, K <= D v_{D-2}(d) / v_{D-1}(d), where the
    simplex on S^{D-1} has the caps' separation as its edge. Equals Fejes Tóth's bound for D = 3; attained by the
    600-cell. None unless K > 2D (caps of less than 45 degrees) and 3 <= D <= 48 (for larger D Levenshtein's bound is
    better for every size met in practice).
    """
    _require_sizes(num_vectors, dim)
    if not 3 <= dim <= _SIMPLEX_DIMS or num_vectors <= 2 * dim:
        return None
    simplex, vertex_figure = _simplex_share(dim - 1), _simplex_share(dim - 2)

    def excess(edge: float) -> float:  # log ratio of cap numbers; falls as the edge grows
        cosine = math.cos(edge)
        face_edge = math.acos(cosine / (1 + cosine))  # the vertex figure has the same dihedral angle
        return math.log(num_vectors / dim) + simplex(edge) - vertex_figure(face_edge)

    edge = _root(excess, 1e-9, math.pi / 2)
    return Bound(
        "Coxeter–Böröczky",
        math.cos(edge),
        "Coxeter 1963; Böröczky 1978, Packing of spheres in spaces of constant curvature",
    )


def welch(num_vectors: int, dim: int) -> Bound:
    """sqrt((K-D)/(D(K-1))) on the largest |cosine|, attained by equiangular tight frames; 0 for K <= D."""
    _require_sizes(num_vectors, dim)
    value = math.sqrt(max(num_vectors - dim, 0) / (dim * (num_vectors - 1)))
    return Bound("Welch", value, "Welch 1974, Lower bounds on the maximum cross correlation of signals")


def levenshtein_lines(num_vectors: int, dim: int) -> Bound | None:
    """sqrt((3K - D^2 - 2D)/((D+2)(K-D))) on the largest |cosine|; None unless K > D(D+1)/2.

    Attained by the D/2 + 1 orthonormal bases of a Kerdock set.
    """
    _require_sizes(num_vectors, dim)
    if num_vectors <= dim * (dim + 1) // 2:
        return None
    value = math.sqrt((3 * num_vectors - dim**2 - 2 * dim) / ((dim + 2) * (num_vectors - dim)))
    return Bound("Levenshtein, lines", value, "Levenshtein 1982; Delsarte, Goethals & Seidel 1975")


def cosine_bound(num_vectors: int, dim: int) -> Bound:
    """The best lower bound on the largest cosine of K unit vectors in R^D.

    Raises: DimensionError unless K >= 2 and D >= 1.
    """
    _require_sizes(num_vectors, dim)
    if dim == 1 and num_vectors > 2:
        return Bound("pigeonhole", 1.0, "R^1 has two unit vectors")
    first = rankin(num_vectors, dim)
    if num_vectors <= 2 * dim and dim > 2:
        return first  # attained
    return _largest(first, *(bound(num_vectors, dim) for bound in BOUNDS))


BOUNDS: tuple[Callable[[int, int], Bound | None], ...] = (polygon, fejes_toth, levenshtein, coxeter_boroczky)
"""Functions of K and D that give a lower bound on the largest cosine, or None; the simpler ones first."""


def _largest(first: Bound, *others: Bound | None) -> Bound:
    """The largest bound; of bounds equal up to rounding the first."""
    best = first
    for bound in others:
        if bound is not None and bound.value > best.value + 1e-13 * (1 - best.value):
            best = bound
    return best


def coherence_bound(num_vectors: int, dim: int) -> Bound:
    """The best lower bound on the largest |cosine| of K unit vectors in R^D, or K lines.

    K lines are 2K antipodal vectors, so the bounds on cosines apply too.
    Raises: DimensionError unless K >= 2 and D >= 1.
    """
    _require_sizes(num_vectors, dim)
    if num_vectors <= dim:
        return Bound("orthonormal", 0.0, "D orthonormal vectors exist")
    antipodal = cosine_bound(2 * num_vectors, dim)
    both = Bound(f"{antipodal.name}, of the 2K vectors ±x", antipodal.value, antipodal.source)
    return _largest(welch(num_vectors, dim), levenshtein_lines(num_vectors, dim), both)


# ---------------------------------------------------------------------- mean energies


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

    >>> nodes, weights = levenshtein_quadrature(12, 3)  # the icosahedron
    >>> nodes.round(6), (11 * weights).round(6)
    (array([-1.      , -0.447214,  0.447214]), array([1., 5., 5.]))
    """
    _require_sizes(num_vectors, dim)
    nodes, weights = _quadrature(num_vectors, dim)
    for values in (nodes, weights):
        values.setflags(write=False)
    return nodes, weights


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


# ---------------------------------------------------------------------- spread of angles


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

    >>> round(equiangularity_floor(100, 16), 6)
    0.230085
    """
    _require_sizes(num_vectors, dim)
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

    >>> round(maximal_angle_floor(100, 16), 6)
    0.052928
    """
    _require_sizes(num_vectors, dim)
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

    >>> round(rank_floor([1.0] * 99, 64), 6)
    0.626051
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())[::-1]
    if dim < 1:
        raise DimensionError(f"dim must be at least 1; got {dim}.")
    if not np.isfinite(values).all() or values.size == 0 or values[0] <= 0:
        raise RangeError("the eigenvalues of a Gram matrix must be finite, and at least one must be positive.")
    values = values / values[0]
    largest = values[:dim][values[:dim] > 0]
    lost = float(np.square(values[len(largest) :]).sum())
    if lost == 0:
        return 0.0
    lost /= lost + float(np.square(largest).sum())
    return math.sqrt(2 * lost / (1 + math.sqrt(1 - lost)))  # 1 - sqrt(1 - lost) without cancellation


# ---------------------------------------------------------------------- random vectors


def random_cosine(num_vectors: int, dim: int) -> float:
    """The median of the largest cosine of K uniform random vectors in R^D, assuming independent pairs.

    Pairs are only pairwise independent; the error is far below the spread. Exact for K = 2.
    """
    _require_sizes(num_vectors, dim)
    if dim == 1:
        return 1.0 if num_vectors > 2 else 0.0
    pairs = num_vectors * (num_vectors - 1) / 2
    target = math.log(-math.expm1(-math.log(2) / pairs))  # logarithm of P[cosine >= c]
    return math.cos(_root(lambda angle: _log_cap(angle, dim) - target, 1e-300, math.pi / 2))


def _require_sizes(num_vectors: int, dim: int) -> None:
    if num_vectors < 2 or dim < 1:
        raise DimensionError(f"num_vectors must be at least 2 and dim at least 1; got {num_vectors} and {dim}.")


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The sign change of an increasing function between low and high, to the last digit."""
    while low < (middle := (low + high) / 2) < high:
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return middle


def _least_variance(num_vectors: int, dim: int) -> float:
    """Least variance of the cosines between K unit vectors in R^D with sum zero; 0 for K <= D + 1."""
    return num_vectors * max(num_vectors - 1 - dim, 0) / (dim * (num_vectors - 1) ** 2)


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
    degree, odd = _levenshtein_degree(K, D)
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


def _levenshtein_degree(num_vectors: int, dim: int) -> tuple[int, bool]:
    """k, and whether Levenshtein's quadrature for K vectors is exact to degree 2k - 1 (odd) or 2k."""
    degree = 1
    while num_vectors > 2 * math.comb(dim + degree - 1, degree):
        degree += 1
    return degree, num_vectors <= math.comb(dim + degree - 1, degree) + math.comb(dim + degree - 2, degree - 1)


def _levenshtein_size(dim: int, degree: int, odd: bool, s: float) -> float:
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


def _jacobi_zero(degree: int, a: int, b: int, dim: int) -> float:
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

    return _root(above, -1.0, 1.0)


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


_SIMPLEX_DIMS = 48
_ORDER = 96  # order of interpolation and quadrature: errors below 1e-13 in all allowed dimensions
_NODES = np.cos((np.arange(_ORDER) + 0.5) * math.pi / _ORDER)  # Chebyshev points on [-1, 1]
_EDGES = (_NODES + 1) * (math.pi / 4)  # edges of simplices, in (0, pi/2)


@cache
def _simplex_share(m: int) -> Callable[[float], float]:
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
