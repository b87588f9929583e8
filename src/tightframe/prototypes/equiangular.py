"""`equiangular`: basis vectors with a largest |cosine| below a limit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tightframe.bounds import coherence_bound
from tightframe.errors import DimensionError, RangeError, SearchWarning
from tightframe.numerics import float64_device
from tightframe.prototypes.polytopes import orthonormal
from tightframe.prototypes.solver import starts
from tightframe.prototypes.solver.energy import SeparationEnergy
from tightframe.prototypes.solver.orbits import Antipodal
from tightframe.prototypes.solver.polish import LARGEST, polish
from tightframe.prototypes.solver.search import Budget, Progress, Search
from tightframe.prototypes.solver.searched import anneal, exponent_unit, require_sizes, searched
from tightframe.prototypes.solver.sphere import unit
from tightframe.prototypes.value import Prototypes

_ROUNDING = 1e-13


def equiangular(
    num_classes: int,
    dim: int,
    alpha: float | None = None,
    *,
    time: float | None = None,
    rounds: int | None = None,
    seed: int = 0,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[Progress], None] | None = None,
) -> Prototypes:
    """K unit vectors in R^D with |cosine| <= alpha for every pair: equiangular basis vectors.

    The authors push pairs beyond alpha apart by gradient steps. Here the solver of `separated` minimises the smoothed
    largest cosine of the 2K vectors ±x, and alpha only ends the search. For K <= D the result is the coordinate axes.

    Args:
        alpha: largest acceptable |cosine|, in [0, 1). Default: as small as the search finds.
        time, rounds: limits of the search in seconds and rounds; see `Budget`. The same seed, rounds and machine give
            the same vectors.
        progress: function called with a `Progress` during the search; its score is the coherence.
    Returns: Prototypes of length `scale`. Ctrl-C ends the search with the best result so far. A SearchWarning says if
        the result is above alpha.
    Provenance: also `coherence`, the largest |cosine|, and `reached`, whether it is at most alpha or the proven optimum
        (up to rounding).
    Raises: DimensionError if a bound, named in the message, excludes alpha for K lines in R^D, or if K < 2 or D < 1
        (for D = 1: K > 2); RangeError for alpha outside [0, 1), and unless scale and budget are positive.
    Source: Shen et al. 2023 (Equiangular basis vectors).

    >>> round(equiangular(6, 3).provenance["coherence"], 6)  # the diagonals of the icosahedron
    0.447214
    """
    K, D = num_classes, dim
    require_sizes(K, D, scale)
    bound = coherence_bound(K, D)
    if alpha is not None:
        if not 0 <= alpha < 1:
            raise RangeError(f"alpha must be a largest |cosine| in [0, 1); got {alpha}.")
        if alpha < bound.value - _ROUNDING:
            raise DimensionError(
                f"no {K} vectors in dim={D} have all |cosines| <= {alpha:g}: by the bound {bound.name!r} "
                f"({bound.source}) the largest is at least {bound.value:.6f}. Raise alpha or dim, or reduce K."
            )
    target = (bound.value if alpha is None else alpha) + _ROUNDING
    search = Search(coherence, Budget(time, rounds, target), progress)

    def play(index: int) -> None:
        if K <= D:
            search.offer(orthonormal(K, D).vectors, "orthonormal")
            return
        start = starts.free(K, D, torch.Generator().manual_seed((seed << 20) + index))
        points = start.representatives.to(float64_device(device))
        objective = partial(SeparationEnergy, orbits=Antipodal())
        points = anneal(search, points, objective, start.name, unit=exponent_unit(bound.value))
        if 2 * K * D <= LARGEST and not search.stopped():
            best = min(points, key=coherence).cpu()
            polished = polish(torch.cat([best, -best]), stop=search.stopped)
            search.offer(unit(polished[:K] - polished[K:]), start.name)

    vectors = search.run(play)
    reached = search.best <= target
    if alpha is not None and not reached:
        warnings.warn(
            f"the search ended at a largest |cosine| of {search.best:.6f}, above alpha={alpha:g}; the proven bound is "
            f"{bound.value:.6f}. Increase time or rounds, or raise alpha.",
            SearchWarning,
            stacklevel=2,
        )
    return searched(
        vectors,
        search,
        {"constructor": "equiangular", "num_classes": K, "dim": D, "alpha": alpha, "seed": seed, "scale": scale},
        coherence=search.best,
        reached=reached,
        device=device,
        dtype=dtype,
        source="Shen et al. 2023",
    )


def coherence(points: Tensor) -> float:
    """The largest |cosine| between two of K unit vectors (K, D)."""
    return float((points @ points.mT).abs().fill_diagonal_(-math.inf).amax())
