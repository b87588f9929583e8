"""GNC2, hyperspherical uniformity: kernels of the distances between the directions of class means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, ParamSpec

from torch import Tensor

from tightframe.codes import energies
from tightframe.errors import ChoiceError
from tightframe.metrics.metric import Metric, Setting, metric, of_all_classes
from tightframe.metrics.pairs import TILE_SIZE, Kernel, OverPairs, over_pairs
from tightframe.metrics.reductions import LogMoments
from tightframe.statistics import ClassStatistics

__all__ = ["log_kernel", "distance_kernel", "riesz_kernel"]

P = ParamSpec("P")

Reading = Literal["mean", "variance", "cv"]
"""Statistic of a kernel's values over all pairs: mean, population variance, or coefficient of variation."""

# ---------------------------------------------------------------------- families of kernels


@dataclass(frozen=True)
class _Family:
    """The facts that the metric of a kernel declares; functions of the exponent, which only the Riesz kernel reads.

    Attributes:
        kernel: the kernel, for an exponent.
        at: its value, for a distance between unit vectors and an exponent.
        bound: best possible mean over all pairs, for K vectors in R^D and an exponent.
    """

    kernel: Callable[[float], Kernel]
    at: Callable[[float, float], float]
    bound: Callable[[int, int, float], float]

    def pairs(self, of: Reading = "mean", exponent: float = 1.0, exact: bool = False) -> OverPairs:
        if of not in ("mean", "variance", "cv"):
            raise ChoiceError(f'of must be "mean", "variance" or "cv"; got {of!r}.')
        return OverPairs(self.kernel(exponent), lambda moments: getattr(moments.exact if exact else moments, of))

    def target(self, setting: Setting, of: Reading = "mean", exponent: float = 1.0) -> float:
        """All pairs of a simplex ETF have one distance."""
        return self.at(math.sqrt(2 * setting.K / (setting.K - 1)), exponent) if of == "mean" else 0.0

    def floor(self, setting: Setting, of: Reading = "mean", exponent: float = 1.0) -> float | None:
        return self.bound(setting.K, setting.D, exponent) if of == "mean" else None

    def as_metric(self, label: str, *, headline: bool = False) -> Callable[[Callable[P, Tensor]], Metric[P]]:
        """The decorator `metric` with the facts of the family."""
        return metric(
            label,
            "GNC2",
            source="Liu et al. 2023",
            convention="unit centred means, over pairs",
            target=self.target,
            floor=of_all_classes(self.floor),
            pairs=self.pairs,
            headline=headline,
        )


DISTANCE = Kernel(lambda tile: tile.squared_chord.sqrt(), directed=True)
LOG = Kernel(lambda tile: tile.log_squared_chord / -2, directed=True)


@cache
def riesz(exponent: float) -> Kernel:
    """Logarithm of |u_i - u_j|^-exponent."""
    return Kernel(lambda tile: tile.log_squared_chord * (-exponent / 2), LogMoments, directed=True)


_LOG = _Family(lambda s: LOG, lambda d, s: -math.log(d), lambda K, D, s: energies.log_kernel_bound(K, D))
_DISTANCE = _Family(lambda s: DISTANCE, lambda d, s: d, lambda K, D, s: energies.distance_bound(K, D))
_RIESZ = _Family(riesz, lambda d, s: d**-s, energies.riesz_bound)

# ---------------------------------------------------------------------- metrics


@_LOG.as_metric("log kernel", headline=True)
def log_kernel(
    statistics: ClassStatistics, *, of: Reading = "mean", exact: bool = False, tile_size: int = TILE_SIZE
) -> Tensor:
    """-log |u_i - u_j| over pairs; u are the unit vectors of the centred class means.

    Over all pairs the mean is at least -ln(2K/(K-1))/2, attained by a simplex ETF, where variance and CV are 0. Pairs
    with equal directions are left out, which can lower the mean to -ln 2; with `exact` they make it infinite.

    Shape: scalar, float64. Range: of the mean, [-ln(2), inf), unitless; of variance and CV, [0, inf). Invariant to
    rotation, translation and common scale.
    Misleads: classes in the same direction are left out, so a collapsed frame can be below the minimum (see `exact`).
    Random directions of many classes have a mean of about -0.3466 + 1/(4D), close to the minimum in many dimensions.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.log_kernel(statistics).item(), 6)  # -ln(2 * 3.6 * 3.2) / 6
    -0.522872
    """
    return over_pairs(statistics, _LOG.pairs(of, exact=exact), tile_size=tile_size)[0]


@_DISTANCE.as_metric("distance kernel")
def distance_kernel(
    statistics: ClassStatistics, *, of: Reading = "mean", exact: bool = False, tile_size: int = TILE_SIZE
) -> Tensor:
    """|u_i - u_j| over pairs; u are the unit vectors of the centred class means.

    The mean is at most sqrt(2K/(K-1)), attained by a simplex ETF.

    Shape: scalar, float64. Range: of the mean, [0, sqrt(2K/(K-1))], unitless; of variance and CV, [0, inf). Invariant
    to rotation, translation and common scale.
    Misleads: random directions of many classes in many dimensions have a mean near sqrt(2), close to the maximum.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.distance_kernel(statistics).item(), 6)  # (sqrt(2) + sqrt(3.6) + sqrt(3.2)) / 3
    1.700145
    """
    return over_pairs(statistics, _DISTANCE.pairs(of, exact=exact), tile_size=tile_size)[0]


@_RIESZ.as_metric("Riesz kernel, s = 1")
def riesz_kernel(
    statistics: ClassStatistics,
    *,
    of: Reading = "mean",
    exponent: float = 1.0,
    exact: bool = False,
    tile_size: int = TILE_SIZE,
) -> Tensor:
    """|u_i - u_j|^-exponent over pairs; u are the unit vectors of the centred class means.

    Over all pairs the mean is at least (2K/(K-1))^(-exponent/2), attained by a simplex ETF. Computed in logarithms, for
    any exponent. Pairs with equal directions are left out, which can lower the mean to 2^-exponent; with `exact` they
    make it infinite.

    Shape: scalar, float64. Range: of the mean, [2^(-exponent), inf), unitless; of variance and CV, [0, inf). Invariant
    to rotation, translation and common scale.
    Misleads: classes in the same direction are left out, so a collapsed frame can be below the minimum (see `exact`).
    The larger the exponent, the more the nearest pair alone decides.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exponent: > 0.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.riesz_kernel(statistics, exponent=2).item(), 6)  # (1/2 + 1/3.6 + 1/3.2) / 3
    0.363426
    """
    return over_pairs(statistics, _RIESZ.pairs(of, exponent, exact), tile_size=tile_size)[0]
