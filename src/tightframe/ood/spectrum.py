"""Principal directions of the training features, without directions of rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from tightframe.errors import RangeError, ScatterError
from tightframe.numerics import EPS
from tightframe.statistics import ClassStatistics

_SINGLE = torch.finfo(torch.float32).eps
_PRODUCTS = 2 * _SINGLE  # error of a scatter from float32 products, relative to its Frobenius norm


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Principal directions of all training samples; features may be divided by their standard deviations.

    Equal to scikit-learn's StandardScaler and PCA, from moments alone. Constant features are not divided.

    Attributes:
        mean: (D,), mean of all samples.
        scale: (D,), standard deviations (ddof 0), 1 for constant features; all 1 if not scaled.
        directions: (D, R), orthonormal columns, largest variance first; R is the rank of the covariance.
        num_classes: number of classes with samples.
        scaled: whether features are divided by their standard deviations.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    num_classes: int
    scaled: bool

    @classmethod
    def of(cls, statistics: ClassStatistics, *, scaled: bool) -> Self:
        """The spectrum of some statistics. Raises: ScatterError without the scatter, or if all features are equal."""
        statistics = require_scatter(statistics, "principal directions (NECO)")
        mean, covariance = statistics.global_mean("sample"), statistics.total_covariance("sample")
        scale = torch.ones_like(mean)
        if scaled:
            variance = covariance.diagonal()
            # scikit-learn's bound on the rounding of N terms about a mean
            constant = variance <= (int(statistics.num_samples) * EPS * mean).square()
            scale = torch.where(constant, 1.0, variance.clamp_min(0)).sqrt()
        ratio = scale.outer(scale)
        _, directions = eigenvectors(covariance / ratio, rounding(statistics, statistics.within_covariance() / ratio))
        if directions.shape[1] == 0:
            raise ScatterError("principal directions are undefined: all training features are equal.")
        return cls(mean, scale, directions, statistics.num_classes, scaled)


def require_scatter(statistics: ClassStatistics, what: str) -> ClassStatistics:
    """The statistics of the classes with samples, without a graph. Raises: ScatterError without a covariance."""
    statistics = statistics.detach().populated()
    if statistics.recentred:
        raise ScatterError(f"{what} needs scatter about the class means; fit before calling about().")
    statistics.require_within(what)
    return statistics


def require_components(components: Sequence[int], num_features: int) -> None:
    """Raise RangeError unless numbers of principal directions are in [1, D], and there is at least one."""
    wrong = [p for p in components if not 1 <= p <= num_features]
    if wrong or not components:
        got = wrong[0] if wrong else "none"
        raise RangeError(f"components must be in [1, {num_features}], the number of features; got {got}.")


def rounding(statistics: ClassStatistics, within: Tensor) -> float:
    """The largest eigenvalue that rounding alone can cause in `within`, a covariance from the statistics' scatter.

    Products of features in single or half precision are computed in float32, and summed in float64.
    """
    size = (statistics.mean_square / statistics.num_features).sqrt()
    single = bool((statistics.rounding > _SINGLE * size).any())
    return _PRODUCTS * float(torch.linalg.matrix_norm(within)) if single else 0.0


def eigenvectors(covariance: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (R,), largest first, and eigenvectors (D, R) of a covariance, without those within rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    rank = int((values > rounding + len(values) * EPS * float(values[-1])).sum())
    return values.flip(0)[:rank], vectors.flip(1)[:, :rank].contiguous()
