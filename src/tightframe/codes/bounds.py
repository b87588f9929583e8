"""Lower bounds on the largest cosine, or |cosine|, of K vectors in R^D.

Every bound is proven; its docstring gives the source or the proof, and the cases in which it is attained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tightframe.codes.levenshtein import jacobi_zero, levenshtein_degree, levenshtein_size, root_of
from tightframe.codes.simplex_share import LARGEST_DIM, simplex_share
from tightframe.codes.sizes import require_sizes


@dataclass(frozen=True)
class Bound:
    """A proven lower bound `value` on the largest cosine of K unit vectors in R^D."""

    name: str
    value: float
    source: str


def rankin(num_vectors: int, dim: int) -> Bound:
    """-1/(K-1) for K <= D+1, attained by the simplex; else 0, attained up to K = 2D by the orthoplex."""
    require_sizes(num_vectors, dim)
    value = -1 / (num_vectors - 1) if num_vectors <= dim + 1 else 0.0
    return Bound("Rankin", value, "Rankin 1955, The closest packing of spherical caps in n dimensions")


def polygon(num_vectors: int, dim: int) -> Bound | None:
    """cos(2 pi/K), exact for D = 2; None unless D = 2."""
    require_sizes(num_vectors, dim)
    if dim != 2:
        return None
    return Bound("polygon", math.cos(2 * math.pi / num_vectors), "elementary: K arcs share a circle of length 2 pi")


def levenshtein(num_vectors: int, dim: int) -> Bound | None:
    """The universal bound K <= L(D, s) solved for s, by bisection to the last digit; None for D < 3.

    Attained by the icosahedron, E8's roots, the Leech lattice's minimal vectors and other sharp codes.
    """
    require_sizes(num_vectors, dim)
    if dim < 3:
        return None
    name, source = "Levenshtein", "Levenshtein 1979; 1998, Universal bounds for codes and designs"
    degree, odd = levenshtein_degree(num_vectors, dim)
    middle = jacobi_zero(degree, 1, 0, dim)
    if odd:
        low, high = jacobi_zero(degree - 1, 1, 1, dim), middle
    else:
        low, high = middle, jacobi_zero(degree, 1, 1, dim)
    return Bound(name, root_of(lambda s: levenshtein_size(dim, degree, odd, s) - num_vectors, low, high), source)


def fejes_toth(num_vectors: int, dim: int) -> Bound | None:
    """(cot^2 w - 1)/2 with w = K pi / (6 (K-2)), attained for K = 3, 4, 6, 12; None unless D = 3 and K >= 3."""
    require_sizes(num_vectors, dim)
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
    require_sizes(num_vectors, dim)
    if not 3 <= dim <= LARGEST_DIM or num_vectors <= 2 * dim:
        return None
    simplex, vertex_figure = simplex_share(dim - 1), simplex_share(dim - 2)

    def excess(edge: float) -> float:  # log ratio of cap numbers; falls as the edge grows
        cosine = math.cos(edge)
        face_edge = math.acos(cosine / (1 + cosine))  # the vertex figure has the same dihedral angle
        return math.log(num_vectors / dim) + simplex(edge) - vertex_figure(face_edge)

    edge = root_of(excess, 1e-9, math.pi / 2)
    return Bound(
        "Coxeter–Böröczky",
        math.cos(edge),
        "Coxeter 1963; Böröczky 1978, Packing of spheres in spaces of constant curvature",
    )


def welch(num_vectors: int, dim: int) -> Bound:
    """sqrt((K-D)/(D(K-1))) on the largest |cosine|, attained by equiangular tight frames; 0 for K <= D."""
    require_sizes(num_vectors, dim)
    value = math.sqrt(max(num_vectors - dim, 0) / (dim * (num_vectors - 1)))
    return Bound("Welch", value, "Welch 1974, Lower bounds on the maximum cross correlation of signals")


def levenshtein_lines(num_vectors: int, dim: int) -> Bound | None:
    """sqrt((3K - D^2 - 2D)/((D+2)(K-D))) on the largest |cosine|; None unless K > D(D+1)/2.

    Attained by the D/2 + 1 orthonormal bases of a Kerdock set.
    """
    require_sizes(num_vectors, dim)
    if num_vectors <= dim * (dim + 1) // 2:
        return None
    value = math.sqrt((3 * num_vectors - dim**2 - 2 * dim) / ((dim + 2) * (num_vectors - dim)))
    return Bound("Levenshtein line", value, "Levenshtein 1982; Delsarte, Goethals & Seidel 1975")


def cosine_bound(num_vectors: int, dim: int) -> Bound:
    """The best lower bound on the largest cosine of K unit vectors in R^D.

    Raises: DimensionError unless K >= 2 and D >= 1.
    """
    require_sizes(num_vectors, dim)
    if dim == 1 and num_vectors > 2:
        return Bound("pigeonhole", 1.0, "elementary: R^1 has two unit vectors")
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
    require_sizes(num_vectors, dim)
    if num_vectors <= dim:
        return Bound("orthonormal", 0.0, "elementary: D orthonormal vectors exist")
    antipodal = cosine_bound(2 * num_vectors, dim)
    both = Bound(f"{antipodal.name} antipodal", antipodal.value, antipodal.source)
    return _largest(welch(num_vectors, dim), levenshtein_lines(num_vectors, dim), both)
