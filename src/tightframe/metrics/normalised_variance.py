"""CDNV: class variances normalised by the distances between class means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.metrics.debiasing import mean_errors
from tightframe.metrics.metric import Setting, metric, share
from tightframe.metrics.pairs import TILE_SIZE, Kernel, OverPairs, over_pairs, warn_of_close_means
from tightframe.metrics.resolution import resolved
from tightframe.statistics import ClassStatistics

__all__ = ["cdnv", "directional_cdnv", "cdnv_grid", "cdnv_per_class"]

# ---------------------------------------------------------------------- over all pairs


def _cdnv_kernel(distance_exponent: float) -> Kernel:
    """(v_i + v_j) / (2 |mu_i - mu_j|^distance_exponent)."""
    if distance_exponent == 2:
        return Kernel(lambda tile: _quotient(tile.mean_variance, tile.squared_distance))
    return Kernel(lambda tile: _quotient(tile.mean_variance, tile.squared_distance ** (distance_exponent / 2)))


def _quotient(variance: Tensor, power: Tensor) -> Tensor:
    """variance / power; infinity or NaN, without a gradient, where the power is 0."""
    if bool(power.detach().amin() > 0):
        return variance / power
    apart = power.detach() > 0
    return torch.where(apart, variance / torch.where(apart, power, 1.0), variance.detach() / 0)


def _debiased_ratio(variance: Tensor, squared_distance: Tensor, error: Tensor) -> Tensor:
    """s^2 / (squared distance - 2 error), with the unbiased variance s^2; flat vectors, means over a pair's classes.

    NaN if the corrected distance is not positive, or a class has no variance (one sample).
    """
    corrected = squared_distance - 2 * error
    defined = corrected > 0
    ratio = torch.where(defined, variance + error, 0.0) / torch.where(defined, corrected, 1.0)
    return torch.where(defined, ratio, math.nan)


_DEBIASED = Kernel(lambda t: _debiased_ratio(t.mean_variance, t.squared_distance, t.mean_error), debiased=True)


def _cdnv(distance_exponent: float = 2.0, debiased: bool = False, exact: bool = False) -> OverPairs:
    kernel = _DEBIASED if debiased else _cdnv_kernel(distance_exponent)
    return OverPairs(kernel, lambda moments: (moments.exact if exact else moments).mean)


def _pair_ratio(value: float, setting: Setting, distance_exponent: float = 2.0) -> float:
    return share(value, setting) if distance_exponent == 2 else value


@metric(
    "CDNV",
    "NC1",
    source="Galanti et al. 2022",
    convention="÷2, distance², ddof 0",
    target=0.0,
    scale=_pair_ratio,
    pairs=_cdnv,
    headline=True,
    held_out=True,
)
def cdnv(
    statistics: ClassStatistics,
    *,
    distance_exponent: float = 2.0,
    debiased: bool = False,
    exact: bool = False,
    tile_size: int = TILE_SIZE,
) -> Tensor:
    """Class-distance normalised variance, mean over pairs of (v_i + v_j) / (2 |mu_i - mu_j|^distance_exponent).

    v_k is the mean squared distance to the class mean (ddof 0). Pairs with coincident means are left out, with a
    GeometryWarning.

    Shape: scalar, float64. Range: [0, inf); 0 = collapsed; unitless for exponent 2. Invariant to rotation and
    translation, for exponent 2 also to common scale.
    Misleads: one pair of close means can dominate the mean over pairs (`cdnv_per_class` shows its classes), and means
    of few samples lie too far apart, which makes the value too small (see `debiased`).

    Args:
        distance_exponent: 4 in Wu & Papyan 2024.
        debiased: correct the bias of small samples, (s_i^2 + s_j^2) / (2 (|mu_i - mu_j|^2 - s_i^2/n_i - s_j^2/n_j))
            with s_k^2 = spread_k / (n_k - 1): sample means lie further apart than the true means, and the corrected
            squared distance has the correct expectation. Pairs with a corrected distance <= 0 and classes with one
            sample (no s_k^2) are left out; GeometryWarnings list them. The error is a few per cent if there are several
            times as many samples as make the correction half of the distance; the value is too small if many pairs are
            left out. About given centres there is no correction.
        exact: include all pairs: infinite or NaN if one pair is.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Galanti, György & Hutter 2022, class-distance normalized variance.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> [round(metrics.cdnv(statistics, debiased=each).item(), 6) for each in (False, True)]  # 1 / 100, 2 / (100 - 2)
    [0.01, 0.020408]
    """
    return over_pairs(statistics, _cdnv(distance_exponent, debiased, exact), tile_size=tile_size)[0]


# ---------------------------------------------------------------------- along the line of a pair


def _line_ratio(value: float, setting: Setting) -> float:
    """`share` of D times the value, the CDNV of isotropic scatter: with shuffled labels it is near 1."""
    return share(value * setting.D, setting)


@metric(
    "directional CDNV",
    "NC1",
    source="Luthra & Galanti 2026",
    convention="variance along the pair's line",
    target=0.0,
    scale=_line_ratio,
    needs="class scatter",
)
def directional_cdnv(statistics: ClassStatistics) -> Tensor:
    """`cdnv` with the class variances along the line between the two means, u^T S_k u; needs per_class=True.

    u is the unit vector along mu_i - mu_j. Pairs with coincident means are left out.

    Shape: scalar, float64. Range: [0, inf), at most `cdnv`; 0 = collapsed. Invariant to rotation, translation and
    common scale.
    Misleads: variance across the line does not count, so classes that fill all other directions can have a small value.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter per class.
    Source: Luthra & Galanti 2026.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> features = torch.cat([cross, cross + torch.tensor([10.0, 0.0])])
    >>> statistics = ClassStatistics.from_features(features, torch.arange(8) // 4, 2, per_class=True)
    >>> round(metrics.directional_cdnv(statistics).item(), 6)  # 0.5 / 10^2; CDNV: 2.5 / 10^2
    0.005
    """
    statistics = statistics.populated()
    scatter = statistics.require_class_within("directional_cdnv")
    warn_of_close_means(statistics)
    total = resolution = statistics.means.new_zeros(())
    pairs = 0.0
    for row, covariance in enumerate(scatter / statistics.counts[:, None, None]):
        gaps = _gaps_to(statistics, row)
        gaps = gaps[gaps.detach().any(1)]
        pairs += len(gaps) / 2
        squares = gaps.square().sum(1).square()
        total = total + (((gaps @ covariance) * gaps).sum(1) / squares).sum() / 2
        resolution = resolution + ((gaps.square() @ covariance.diagonal()) / squares).sum() / 2
    return resolved(statistics, total / pairs, resolution / pairs, "directional CDNV") if pairs else total * math.nan


# ---------------------------------------------------------------------- pair by pair


def cdnv_grid(statistics: ClassStatistics, *, distance_exponent: float = 2.0, debiased: bool = False) -> Tensor:
    """`cdnv` of each pair of classes.

    Shape: (K present, K present), float64, symmetric. Range: [0, inf); NaN where undefined and on the diagonal.
    Raises: EmptyClassError if fewer than two classes have samples.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> metrics.cdnv_grid(statistics)
    tensor([[   nan, 0.0100],
            [0.0100,    nan]], dtype=torch.float64)
    """
    statistics = statistics.populated()
    return torch.stack([_cdnv_row(statistics, k, distance_exponent, debiased) for k in range(statistics.num_classes)])


def cdnv_per_class(statistics: ClassStatistics, *, distance_exponent: float = 2.0, debiased: bool = False) -> Tensor:
    """Mean `cdnv` of each class with the other classes, over pairs with a finite value.

    Shape: (K present,), float64. Range: [0, inf); NaN for a class without a finite pair.
    Raises: EmptyClassError if fewer than two classes have samples.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[-1.0], [1.0], [10.0], [10.0], [-5.0], [-5.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.arange(6) // 2, 3)
    >>> [round(value, 4) for value in metrics.cdnv_per_class(statistics).tolist()]  # pairs: 1/200, 1/50, 0
    [0.0125, 0.0025, 0.01]
    """
    statistics = statistics.populated()
    rows = (_cdnv_row(statistics, k, distance_exponent, debiased) for k in range(statistics.num_classes))
    return torch.stack([row[row.isfinite()].mean() for row in rows])


def _cdnv_row(statistics: ClassStatistics, row: int, distance_exponent: float, debiased: bool) -> Tensor:
    if debiased:
        return _debiased_row(statistics, row)
    variances = statistics.variances
    own = torch.arange(len(variances), device=variances.device) == row
    gaps = torch.where(own[:, None], 1.0, _gaps_to(statistics, row))  # no 0/0 in the gradient
    values = _quotient((variances + variances[row]) / 2, numerics.norms(gaps) ** distance_exponent)
    return torch.where(own, torch.nan, values)


def _debiased_row(statistics: ClassStatistics, row: int) -> Tensor:
    variances, errors = statistics.variances, mean_errors(statistics)
    own = torch.arange(len(variances), device=variances.device) == row
    squares = _gaps_to(statistics, row).square().sum(1)
    values = _debiased_ratio((variances + variances[row]) / 2, squares, (errors + errors[row]) / 2)
    return torch.where(own, math.nan, values)


def _gaps_to(statistics: ClassStatistics, row: int) -> Tensor:
    """(K, D) class means minus the mean of class `row`; 0 below the rounding of the features."""
    gaps = statistics.means - statistics.means[row]
    rounding = torch.maximum(statistics.rounding, statistics.rounding[row])
    return torch.where((numerics.norms(gaps.detach()) <= rounding)[:, None], 0.0, gaps)
