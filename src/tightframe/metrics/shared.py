"""Quantities shared by several metrics and computed once: factors of the centred means and of a weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.numerics import condensed, contrasts
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics


class Factors(NamedTuple):
    """Singular value decomposition without a graph: left (M, r), descending sizes (r,), right (r, N)."""

    left: Tensor
    sizes: Tensor
    right: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Factors:
        return cls(*torch.linalg.svd(matrix.detach(), full_matrices=False))


def spanning_rows(statistics: ClassStatistics) -> Tensor:
    """Rows R with R^T R = K S_B, without the null direction of centring.

    Shape: (K-1, D), or (D, D) if that is smaller and the means have no graph (`numerics.condensed`).
    """

    def make() -> Tensor:
        centred = statistics.centred_means()
        crowded = len(centred) > centred.shape[1] + 1 and not centred.requires_grad
        return condensed(centred) if crowded else contrasts(centred)  # D rows: nothing to remove

    return once(statistics, "rows", make, statistics.means)


def spanning_factors(statistics: ClassStatistics) -> Factors:
    """The singular value decomposition of `spanning_rows`."""
    return once(statistics, "factors", lambda: Factors.of(spanning_rows(statistics)), statistics.means)


def weight_factors(weight: Tensor) -> Factors:
    """The singular value decomposition of a weight, recomputed if the weight has changed.

    Without a graph it may be of the `condensed` weight, which has different left singular vectors.
    """
    values = weight.detach()
    name = "factors" if weight.requires_grad else "condensed factors"

    def make() -> Factors:
        return Factors.of(values if weight.requires_grad else condensed(values))

    cached_values, factors = once(weight, name, lambda: (values.clone(), make()))
    return factors if torch.equal(cached_values, values) else make()


def inverse_near_total(statistics: ClassStatistics, make: Callable[[], Tensor | None] | None = None) -> Tensor | None:
    """The inverse (D, D) of a matrix near the covariance of all samples; None unless `make` was set before.

    Shuffled labels do not change that covariance: `levels` sets the same `make` for all draws, and it inverts once.
    """
    inverse = once(statistics, "inverse near total", lambda: make)
    return None if inverse is None else inverse()
