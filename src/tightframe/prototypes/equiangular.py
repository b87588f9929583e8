"""`equiangular`: basis vectors with a largest |cosine| below a limit."""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch
from torch import Tensor

from tightframe.codes import Search, searching
from tightframe.codes.bounds import coherence_bound
from tightframe.codes.search.anneal import anneal
from tightframe.codes.search.energy import SeparationEnergy
from tightframe.codes.search.orbits import Antipodal
from tightframe.codes.search.polish import LARGEST, polish
from tightframe.codes.search.running import Running
from tightframe.errors import DimensionError, RangeError, SearchWarning
from tightframe.numerics import unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction, require_classes
from tightframe.prototypes.polytopes import orthonormal
from tightframe.prototypes.simplex import simplex

_ROUNDING = 1e-13
_AIM = Aim("small |cosines|", "a small |cosine| of every pair", "coherence", "the largest is")


@searching
@construction("Shen et al. 2023", aim=_AIM)
def equiangular(num_classes: int, dim: int, alpha: float | None = None, *, search: Search) -> tuple[Tensor, Facts]:
    """K unit vectors in R^D with |cosine| <= alpha for every pair: equiangular basis vectors.

    The authors push pairs beyond alpha apart by gradient steps. Here the solver of `separated` minimises the smoothed
    largest cosine of the 2K vectors ±x, and alpha only ends the search. For K <= D the result is the coordinate axes.

    Args:
        alpha: largest acceptable |cosine|, in [0, 1). Default: as small as the search finds.
        search: limits, seed and warm start, or its fields as arguments. The score is the largest |cosine|.

    Returns: (K, D) unit vectors. Ctrl-C ends the search with the best result so far. A SearchWarning says if
        the result is above alpha.
    Provenance: also `coherence`, the largest |cosine|, and `reached`, whether it is at most alpha or the proven optimum
        (up to rounding).
    Raises: DimensionError if a bound, named in the message, excludes alpha for K lines in R^D, or if K < 2 or D < 1
        (for D = 1: K > 2); RangeError for alpha outside [0, 1), and the errors of `Search`.
    Source: Shen et al. 2023 (Equiangular basis vectors).

    >>> from tightframe.prototypes import equiangular
    >>> round(equiangular(6, 3).provenance["coherence"], 6)  # the diagonals of the icosahedron
    0.447214
    """
    K, D = require_classes(num_classes, dim)
    bound = coherence_bound(K, D)
    if alpha is not None:
        if not 0 <= alpha < 1:
            raise RangeError(f"alpha must be a largest |cosine| in [0, 1); got {alpha}.")
        if alpha < bound.value - _ROUNDING:
            raise DimensionError(
                f"alpha must be at least {bound.value:.6f} for {K} vectors in {D} dimensions, by the {bound.name} "
                f"bound ({bound.source}); got {alpha:g}. Raise alpha, increase dim, or reduce num_classes."
            )
    target = (bound.value if alpha is None else alpha) + _ROUNDING
    running = Running(coherence, search, (K, D), target)

    def play(index: int) -> None:
        if K <= D or D == 1:
            running.offer((orthonormal if K <= D else simplex)(K, D).vectors, "axes")
            return
        objective = partial(SeparationEnergy, orbits=Antipodal())
        points, name = anneal(running, objective, bound=bound.value, opposites=False)
        if 2 * K * D <= LARGEST and not running.stopped():
            best = min(points, key=coherence).cpu()
            polished = polish(torch.cat([best, -best]), stop=running.stopped)
            running.offer(unit_rows(polished[:K] - polished[K:]), name)

    vectors = running.run(play)
    reached = running.best <= target
    if alpha is not None and not reached:
        warnings.warn(
            f"the search ended at a largest |cosine| of {running.best:.6f}, above alpha={alpha:g}; the proven bound is "
            f"{bound.value:.6f}. Search longer, with time= or rounds=, or raise alpha.",
            SearchWarning,
            stacklevel=5,
        )
    return vectors, {**running.facts, "coherence": running.best, "reached": reached}


def coherence(points: Tensor) -> float:
    """The largest |cosine| between two of K unit vectors (K, D)."""
    return float((points @ points.mT).abs().fill_diagonal_(-math.inf).amax())
