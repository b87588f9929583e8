"""The span of the class means: rows and factors, computed once for all metrics, and its rank."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.errors import GeometryWarning
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
        return numerics.condensed(centred) if crowded else numerics.contrasts(centred)  # D rows: nothing to remove

    return once(statistics, "rows", make, statistics.means)


def spanning_factors(statistics: ClassStatistics) -> Factors:
    """The singular value decomposition of `spanning_rows`."""
    return once(statistics, "factors", lambda: Factors.of(spanning_rows(statistics)), statistics.means)


def spanning_inverse(statistics: ClassStatistics) -> tuple[Tensor, int]:
    """Pseudo-inverse and rank of `spanning_rows`; warns if the rank is deficient."""
    rows = spanning_rows(statistics)
    floor = means_rounding(statistics)
    most = statistics.num_classes - 1
    inverse, rank = once(statistics, "inverse", lambda: numerics.pinv(rows, floor, most), rows)
    warn_of_lost_rank(statistics, rank, min(rows.shape))
    return inverse, rank


def inverse_of_means(statistics: ClassStatistics, rows: Tensor, weights: Tensor | None = None) -> tuple[Tensor, int]:
    """Pseudo-inverse and rank of rows that span the centred means times `weights`; warns if the rank is deficient.

    Singular values up to the rounding of the features count as zero.
    """
    inverse, rank = numerics.pinv(rows, means_rounding(statistics, weights), statistics.num_classes - 1)
    warn_of_lost_rank(statistics, rank, min(rows.shape))
    return inverse, rank


def means_rounding(statistics: ClassStatistics, weights: Tensor | None = None) -> float:
    """Largest singular value of the class means, times `weights`, that rounding of the features alone can cause."""
    rounding = statistics.rounding.square()
    varied = statistics.variances.detach() > statistics.num_features * rounding  # else all samples round alike
    stored = (4 * numerics.EPS * numerics.norms(statistics.means.detach())).square()  # float64 storage of the means
    errors = torch.where(varied, rounding / statistics.counts, rounding) + torch.where(rounding > 0, stored, 0.0)
    return float((errors if weights is None else weights.detach().square() * errors).sum().sqrt())


def warn_of_lost_rank(statistics: ClassStatistics, rank: int, possible: int) -> None:
    """Warn if the rank of the centred class means is deficient; the warning lists coincident classes."""
    if rank < possible:
        equal = statistics.coincident()
        names = "; ".join(", ".join(map(str, classes)) for classes in equal)
        warnings.warn(
            f"the centred class means span {rank} of {possible} possible dimensions"
            + (f"; the means of these classes coincide: {names}." if equal else "."),
            GeometryWarning,
            stacklevel=5,
        )
