"""Principal directions of the training features, without those in which rounding is all that varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from tightframe.errors import ScatterError
from tightframe.numerics import EPS
from tightframe.statistics import ClassStatistics

_SINGLE = torch.finfo(torch.float32).eps
_PRODUCTS = 2 * _SINGLE  # error of a scatter whose products were float32, as a share of its Frobenius norm


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The principal directions of all training samples, each feature divided by its standard deviation or as it is.

    As scikit-learn's StandardScaler and PCA find them, from moments alone. A feature that doesn't vary keeps its unit.

    Attributes:
        mean: (D,) of all samples.
        scale: (D,) standard deviations (ddof 0), 1 for features that don't vary; all 1 where features are as they are.
        directions: (D, R) orthonormal columns, most variance first; R is the rank of the covariance.
        num_classes: with samples.
        scaled: whether features were divided.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    num_classes: int
    scaled: bool

    @classmethod
    def of(cls, statistics: ClassStatistics, *, scaled: bool) -> Self:
        """From the one pass's moments. Raises: ScatterError without the scatter, or where no feature varies."""
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
            raise ScatterError("all training features are equal: they have no principal directions.")
        return cls(mean, scale, directions, statistics.num_classes, scaled)


def require_scatter(statistics: ClassStatistics, what: str) -> ClassStatistics:
    """The classes with samples, without a graph. Raises: ScatterError where their covariance isn't known."""
    statistics = statistics.detach().populated()
    if statistics.recentred:
        raise ScatterError(f"{what}: the scatter must be about the class means; fit before calling about().")
    statistics.require_within(what)
    return statistics


def rounding(statistics: ClassStatistics, within: Tensor) -> float:
    """The largest eigenvalue that rounding alone can give `within`, a covariance made from the statistics' scatter.

    Features of single or half precision are multiplied in float32, whatever their products are summed in.
    """
    size = (statistics.mean_square / statistics.num_features).sqrt()
    single = bool((statistics.rounding > _SINGLE * size).any())
    return _PRODUCTS * float(torch.linalg.matrix_norm(within)) if single else 0.0


def eigenvectors(covariance: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (R,), largest first, and eigenvectors (D, R) of a covariance; those within rounding are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = int((values > rounding + len(values) * EPS * float(values[-1])).sum())
    return values.flip(0)[:kept], vectors.flip(1)[:, :kept].contiguous()
