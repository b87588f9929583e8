"""`hyperspherical`: prototypes with a small mean over classes of the largest cosine to another class."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from tightframe.codes import Search, searching
from tightframe.codes.search.anneal import anneal
from tightframe.codes.search.energy import products_with_others
from tightframe.codes.search.running import Running
from tightframe.errors import GeometryWarning
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction, require_classes
from tightframe.prototypes.simplex import simplex

_TILE = 1 << 24  # number of cosines held at once
_OPTIMAL = 1e-13
_AIM = Aim("mean separation", "a small mean of each class's largest cosine", "mean_max_cosine", "the mean is")
_COINCIDENT = 1e-6  # vectors coincide if 1 - cosine is below this


@searching
@construction("Mettes, van der Pol & Snoek 2019", aim=_AIM)
def hyperspherical(num_classes: int, dim: int, *, search: Search) -> tuple[Tensor, Facts]:
    """K unit vectors in R^D with a small mean over classes of the largest cosine to another class.

    The authors minimise it by gradient steps and renormalisation. Here every maximum is smoothed to
    (1/p) log sum exp(p cosine), and L-BFGS on the sphere follows the minimum while p rises. For K <= D + 1 the
    result is the simplex ETF, whose mean -1/(K-1) is optimal.

    If K is large for its D, the mean is smallest when some classes coincide, and the search finds such solutions.
    (Seven points on the circle: .623 evenly spread, .571 as a square with four points at one corner.) A
    GeometryWarning then names two of them. Use `separated` if the nearest pair matters.

    Args:
        search: limits, seed and warm start, or its fields as arguments. The score is the mean. The result is no worse
            than a warm start, such as `warm_start=best(K, D).vectors`.

    Returns: (K, D) unit vectors. Ctrl-C ends the search with the best result so far.
    Provenance: also `mean_max_cosine`, the exact mean.
    Raises: DimensionError if K < 2 or D < 1 (for D = 1: K > 2), and the errors of `Search`.
    Source: Mettes, van der Pol & Snoek 2019 (Hyperspherical Prototype Networks).

    >>> from tightframe.prototypes import hyperspherical
    >>> round(hyperspherical(4, 3).provenance["mean_max_cosine"], 6)  # the tetrahedron
    -0.333333
    """
    K, D = require_classes(num_classes, dim)
    is_simplex = K <= D + 1
    optimum = -1 / (K - 1) + _OPTIMAL if is_simplex else -math.inf
    running = Running(lambda points: float(mean_row_maximum(points)), search, (K, D), optimum)

    def play(index: int) -> None:
        if is_simplex:
            running.offer(simplex(K, D).vectors, "simplex")
        else:
            anneal(running, MeanRowMaximum)

    vectors = running.run(play)
    warn_of_coincidence(vectors)
    return vectors, {**running.facts, "mean_max_cosine": running.best}


def warn_of_coincidence(vectors: Tensor) -> None:
    """Issue a GeometryWarning, as if from the call of the construction, if two unit vectors (K, D) are the same."""
    K, D = vectors.shape
    for rows in _tiles(1, K):
        nearest, index = products_with_others(vectors[None], vectors[None], rows)[0].max(1)
        if float(nearest.max()) > 1 - _COINCIDENT:
            i = int(nearest.argmax())
            warnings.warn(
                f"some classes coincide, for example {rows.start + i} and {int(index[i])}, which minimises the mean. "
                f"Increase dim, or use prototypes.separated({K}, {D}), which keeps the nearest pair apart.",
                GeometryWarning,
                stacklevel=6,
            )
            return


class MeanRowMaximum:
    """The mean over points of the smoothed largest cosine to another point, as an objective for `descend`.

    (1/p) log sum_j exp(p cosine_ij) exceeds the maximum by at most log(K - 1) / p. Work: R x K x K cosines, in tiles
    of rows.
    """

    def __init__(self, exponents: Tensor):
        self.exponents = exponents  # (R,)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        R, K, _ = points.shape
        p = self.exponents[:, None, None]
        value, gradient = points.new_zeros(R), torch.zeros_like(points)
        for rows in _tiles(R, K):
            scaled = products_with_others(points, points, rows).mul_(p)
            value += scaled.logsumexp(2).sum(1)
            shares = scaled.softmax(2)
            gradient[:, rows] += shares @ points
            gradient += shares.mT @ points[:, rows]
        return value / (self.exponents * K), gradient / K


def mean_row_maximum(points: Tensor) -> Tensor:
    """The exact mean over unit vectors (K, D) of the largest cosine to another vector; 0-d."""
    maxima = [products_with_others(points[None], points[None], rows).amax(2)[0] for rows in _tiles(1, len(points))]
    return torch.cat(maxima).mean()


def _tiles(R: int, K: int) -> list[slice]:
    height = max(1, _TILE // (R * K))
    return [slice(start, start + height) for start in range(0, K, height)]
