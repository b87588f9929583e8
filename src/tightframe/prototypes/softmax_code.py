"""`softmax_code`: prototypes far from the convex hull of the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.codes import Search, searching
from tightframe.codes.one_vs_rest import LIMIT_SECONDS, one_vs_rest_seconds, smallest_one_vs_rest
from tightframe.codes.search.anneal import anneal
from tightframe.codes.search.running import Running
from tightframe.codes.table import polytope
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction, require_classes

_OPTIMAL = 1e-13
_AIM = Aim("one-vs-rest distance", "vectors far from the hull of the others", "one_vs_rest", "the smallest distance is")


@searching
@construction("Jiang et al. 2023", aim=_AIM)
def softmax_code(num_classes: int, dim: int, *, search: Search) -> tuple[Tensor, Facts]:
    """K unit vectors in R^D with a large one-vs-rest distance, min_k |w_k - conv{w_j : j != k}|.

    This distance is the maximum of min_{k, j != k} <w_k - w_j, h_k> over unit vectors h_k, the normals of the widest
    gaps. The search optimises prototypes and normals together: L-BFGS on both spheres lowers the smoothed maximum of
    <w_j - w_k, h_k> while its exponent rises. Any normals prove a lower bound on the distance, the score of the search.
    The known optimum is returned at once for K <= D + 1 (simplex ETF, K/(K-1)), up to 2D (orthoplex, 1) and on
    the circle (polygon, 1 - cos(2 pi/K)).

    Args:
        search: limits, seed and warm start, or its fields as arguments. The score is minus the proven distance.

    Returns: (K, D) unit vectors. Ctrl-C ends the search with the best result so far.
    Provenance: also `one_vs_rest`, the distance of the unit vectors, and `exact`: False if computing it
        would take more than 5 seconds or half of the search's time; `one_vs_rest` is then the distance proven by the
        normals.
    Raises: DimensionError if K < 2 or D < 1 (for D = 1: K > 2), and the errors of `Search`.
    Source: Jiang et al. 2023 (Generalized neural collapse for a large number of classes).

    >>> from tightframe.prototypes import softmax_code
    >>> round(softmax_code(12, 3, rounds=1).provenance["one_vs_rest"], 6)  # the icosahedron
    0.552786
    """
    K, D = require_classes(num_classes, dim)
    optimum = polytope(K, D)  # its vectors are their own normals
    best = -math.inf if optimum is None else -proven_distance(both(optimum.vectors())) + _OPTIMAL
    running = Running(lambda points: -proven_distance(points), search, (K, D), best)
    seconds = one_vs_rest_seconds(K, D)
    exact = seconds <= min(LIMIT_SECONDS, search.seconds / 2)
    running.reserve(seconds if exact else 0.0)

    def play(index: int) -> None:
        if optimum is not None:
            running.offer(both(optimum.vectors()), optimum.name)
        else:
            anneal(running, OneVsRestMargin, lift=both)

    vectors = running.run(play)[:K]
    distance = float(smallest_one_vs_rest(vectors)) if exact else -running.best
    return vectors, {**running.facts, "one_vs_rest": distance, "exact": exact}


def both(vectors: Tensor) -> Tensor:
    """Vectors (..., K, D), followed by themselves as normals: (..., 2K, D)."""
    return torch.cat([vectors, vectors], dim=-2)


def proven_distance(points: Tensor) -> float:
    """The one-vs-rest distance proven by unit normals, for (2K, D): vectors, then their normals."""
    return -float(_excesses(points[None]).amax())


class OneVsRestMargin:
    """The smoothed maximum of <w_j - w_k, h_k> over j != k, as an objective for `descend`, of (R, 2K, D) w and h.

    It exceeds the maximum, which is minus the proven distance, by at most log(K (K-1)) / p.
    """

    def __init__(self, exponents: Tensor):
        self.exponents = exponents  # (R,)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        vectors, normals = points.chunk(2, dim=1)
        scaled = _excesses(points).mul_(self.exponents[:, None, None]).flatten(1)
        shares = scaled.softmax(1).unflatten(1, (vectors.shape[1],) * 2)  # class k is the row, j the column
        own = shares.sum(2, keepdim=True)
        gradient = torch.cat([shares.mT @ normals - own * normals, shares @ vectors - own * vectors], dim=1)
        return scaled.logsumexp(1) / self.exponents, gradient


def _excesses(points: Tensor) -> Tensor:
    """<w_j - w_k, h_k> in row k and column j, (R, 2K, D) -> (R, K, K); -inf on the diagonal."""
    vectors, normals = points.chunk(2, dim=1)
    excesses = normals @ vectors.mT - (normals * vectors).sum(2, keepdim=True)
    excesses.diagonal(0, 1, 2).fill_(-math.inf)
    return excesses
