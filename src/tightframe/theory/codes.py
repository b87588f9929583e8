"""How far apart K unit vectors in R^D can be: what training should reach where there are more classes than D + 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.bounds import cosine_bound
from tightframe.certificate import best_known


@dataclass(frozen=True)
class CodeOptimum:
    """What is known of the largest value of a distance over K unit vectors in R^D.

    Attributes:
        lower: the value of a known code, or None where none is listed.
        upper: a proven bound.
        source: of the code, or of the bound where there is none.
    """

    lower: float | None
    upper: float
    source: str

    @property
    def exact(self) -> bool:
        """Whether the optimum itself is known: both values agree."""
        return self.lower == self.upper


def tammes_optimum(num_classes: int, dim: int) -> CodeOptimum:
    """The largest possible smallest distance between two of K unit vectors in R^D, Tammes' problem; in [0, 2].

    Exact for K <= 2D, for D <= 2, and where the best known code is proven optimal. A distance d is the angle
    2 arcsin(d/2).
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: the codes' and bounds' own; see `tightframe.certificate.best_known` and `tightframe.bounds`.

    >>> optimum = tammes_optimum(12, 3)  # the icosahedron
    >>> round(math.degrees(2 * math.asin(optimum.upper / 2)), 4), optimum.exact
    (63.4349, True)
    """
    if dim == 1 and num_classes > 2:
        return CodeOptimum(0.0, 0.0, "R^1 has two unit vectors")
    code, bound = best_known(num_classes, dim), cosine_bound(num_classes, dim)
    upper = math.sqrt(2 - 2 * bound.value)
    if code is None:
        return CodeOptimum(None, upper, bound.source)
    lower = math.sqrt(2 - 2 * code.cosine)
    proven = code.optimal and (code.num_vectors, code.dim) == (num_classes, dim)
    return CodeOptimum(lower, lower if proven else max(upper, lower), code.source)


def softmax_code_optimum(num_classes: int, dim: int) -> CodeOptimum:
    """The largest possible one-vs-rest distance of K unit vectors in R^D: min over k of dist(w_k, conv of the others).

    K/(K-1) for K <= D + 1, the simplex ETF; 1 for D + 2 <= K <= 2D; 1 - cos(2 pi/K) on the circle. Beyond, a code of
    largest cosine s gives 1 - s at least, as all others lie below the plane at height s over each of its vectors; and
    neither 1 nor the largest smallest distance (`tammes_optimum`) can be exceeded, the latter as the others' hull
    contains the nearest of them, the former as more vectors only enlarge hulls.
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: Jiang et al. 2023 (Generalized neural collapse for a large number of classes); the bounds beyond K = 2D
        and the circle's proof are derivations of this package.

    >>> softmax_code_optimum(8, 4)
    CodeOptimum(lower=1.0, upper=1.0, source='Jiang et al. 2023')
    >>> optimum = softmax_code_optimum(12, 3)  # the icosahedron isn't proven best
    >>> round(optimum.lower, 6), optimum.upper
    (0.552786, 1.0)
    """
    apart = tammes_optimum(num_classes, dim)
    if num_classes <= dim + 1:
        value = num_classes / (num_classes - 1)
        return CodeOptimum(value, value, "Jiang et al. 2023")
    if dim <= 2:
        # between arcs a and b a vertex is 2 sin(a/2) sin(b/2) above its neighbours' chord; the product of these over
        # all vertices is largest for equal arcs, as ln sin is concave, and the smallest isn't above their mean
        value = 1 - math.cos(2 * math.pi / num_classes) if dim == 2 else 0.0
        return CodeOptimum(value, value, "product of the distances over all vertices" if dim == 2 else apart.source)
    if num_classes <= 2 * dim:
        return CodeOptimum(1.0, 1.0, "Jiang et al. 2023")
    lower = None if apart.lower is None else apart.lower**2 / 2
    return CodeOptimum(lower, min(1.0, apart.upper), apart.source)
