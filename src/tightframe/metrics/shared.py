"""What several metrics read of one value, computed once: factors of the centred means, a weight's singular vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.numerics import condensed, contrasts
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics


class Factors(NamedTuple):
    """Left singular vectors (M, r), singular values (r,), descending, and right ones (r, N); without a graph."""

    left: Tensor
    sizes: Tensor
    right: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Factors:
        return cls(*torch.linalg.svd(matrix.detach(), full_matrices=False))


def spanning_rows(statistics: ClassStatistics) -> Tensor:
    """Rows R with R^T R = K S_B, free of the direction that centring made null.

    Shape: (K-1, D), or (D, D) where that is smaller and they have no graph (`numerics.condensed`).
    """

    def make() -> Tensor:
        centred = statistics.centred_means()
        crowded = len(centred) > centred.shape[1] + 1 and not centred.requires_grad
        return condensed(centred) if crowded else contrasts(centred)  # rows that sum to 0 take no direction of R^D

    return once(statistics, "rows", make, statistics.means)


def spanning_factors(statistics: ClassStatistics) -> Factors:
    """The singular value decomposition of `spanning_rows`."""
    return once(statistics, "factors", lambda: Factors.of(spanning_rows(statistics)), statistics.means)


def weight_factors(weight: Tensor) -> Factors:
    """The singular value decomposition of a weight, made anew if the weight has changed, in whatever way.

    Without a graph it may be of the `condensed` weight, which has other left singular vectors.
    """
    values = weight.detach()
    name = "factors" if weight.requires_grad else "condensed factors"

    def make() -> Factors:
        return Factors.of(values if weight.requires_grad else condensed(values))

    known, factors = once(weight, name, lambda: (values.clone(), make()))
    return factors if torch.equal(known, values) else make()


def inverse_near_total(statistics: ClassStatistics, make: Callable[[], Tensor | None] | None = None) -> Tensor | None:
    """The inverse (D, D) of a matrix near the covariance of all samples, if a function for it was given before.

    Shuffling labels doesn't change that covariance: `levels` gives all draws the same function, which inverts once.
    """
    known = once(statistics, "inverse near total", lambda: make)
    return None if known is None else known()
