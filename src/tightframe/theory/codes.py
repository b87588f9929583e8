"""Largest distances between K unit vectors in R^D: the optima of training with more than D + 1 classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.codes import best_listed
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.code import tolerance
from tightframe.codes.sizes import require_sizes


@dataclass(frozen=True)
class CodeOptimum:
    """Bounds on the largest value of a distance over K unit vectors in R^D.

    Attributes:
        lower: value of a known code; None if no code is listed.
        upper: proven upper bound.
        source: source of the optimality, else of the code, else of the upper bound. It is a paper, "tightframe, ..."
            for a derivation or code of this package, or "elementary: ..." with an argument of one line.
    """

    lower: float | None
    upper: float
    source: str

    @property
    def exact(self) -> bool:
        """Whether the optimum is known: both bounds are equal."""
        return self.lower == self.upper


def tammes_optimum(num_classes: int, dim: int) -> CodeOptimum:
    """The largest possible minimum distance of K unit vectors in R^D (Tammes' problem), in [0, 2].

    Exact for K <= 2D, for D <= 2, and if the best listed code is proven optimal. Distance d means angle 2 arcsin(d/2).
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: see `tightframe.codes.best_listed` and `tightframe.codes.bounds`.

    >>> import math
    >>> from tightframe.theory import tammes_optimum
    >>> optimum = tammes_optimum(12, 3)  # the icosahedron
    >>> round(math.degrees(2 * math.asin(optimum.upper / 2)), 4), optimum.exact
    (63.4349, True)
    """
    K, D = require_sizes(num_classes, dim, "num_classes")
    code, bound = best_listed(K, D), cosine_bound(K, D)
    upper = math.sqrt(2 - 2 * bound.value)
    if code is None:  # K > 2 on a line
        return CodeOptimum(0.0, upper, bound.source)
    lower = math.sqrt(2 - 2 * code.cosine)
    if code.cosine <= bound.value + tolerance(bound.value):
        return CodeOptimum(lower, lower, bound.source)
    if code.proof is not None and (K, D) == (code.K, code.D):
        return CodeOptimum(lower, lower, code.proof)
    return CodeOptimum(lower, max(upper, lower), code.source)


def softmax_code_optimum(num_classes: int, dim: int) -> CodeOptimum:
    """The largest possible one-vs-rest distance of K unit vectors in R^D: min over k of dist(w_k, conv of the others).

    K/(K-1) for K <= D + 1, the simplex ETF; 1 for D + 2 <= K <= 2D; 1 - cos(2 pi/K) for D = 2. Otherwise a code with
    largest cosine s attains at least 1 - s, because the other vectors lie in the half-space <w_k, x> <= s. Upper bounds
    are 1, because more vectors only enlarge the hulls, and the largest minimum distance (`tammes_optimum`), because the
    hull contains the nearest vector.
    Raises: DimensionError unless K >= 2 and D >= 1.
    Source: Jiang et al. 2023 (Generalized neural collapse for a large number of classes); the bounds for K > 2D and the
        proof for D = 2 are derivations of this package.

    >>> from tightframe.theory import softmax_code_optimum
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
        # a vertex between arcs a and b is 2 sin(a/2) sin(b/2) above the chord of its neighbours; the product over all
        # vertices is largest for equal arcs, as ln sin is concave, and the smallest is at most the geometric mean
        value = 1 - math.cos(2 * math.pi / num_classes) if dim == 2 else 0.0
        return CodeOptimum(
            value, value, "tightframe, product of the distances over all vertices" if dim == 2 else apart.source
        )
    if num_classes <= 2 * dim:
        return CodeOptimum(1.0, 1.0, "Jiang et al. 2023")
    lower = None if apart.lower is None else apart.lower**2 / 2
    return CodeOptimum(lower, min(1.0, apart.upper), apart.source)
