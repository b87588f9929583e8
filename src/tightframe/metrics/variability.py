"""NC1: within-class variability compared with the distances between class means."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.choices import require_choice
from tightframe.errors import GeometryWarning, RangeError, ResolutionWarning
from tightframe.metrics.metric import Needs, Setting, metric, share
from tightframe.metrics.pairs import (
    CDNV_DEBIASED,
    TILE_SIZE,
    OverPairs,
    cdnv_kernel,
    debiased_ratio,
    gaps_to,
    mean_errors,
    over_pairs,
    quotient,
    warn_of_close_means,
    warn_of_single_samples,
)
from tightframe.metrics.shared import inverse_near_total, spanning_rows
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics, Weighting

__all__ = [
    "between_covariance_debiased",
    "between_trace",
    "cdnv",
    "cdnv_grid",
    "cdnv_per_class",
    "directional_cdnv",
    "h_score",
    "ledoit_wolf_shrinkage",
    "nc1",
    "nc1_per_class",
    "trace_ratio",
    "trace_share",
    "vci",
    "within_in_mean_span",
    "within_trace",
]

_SCATTER = "Fisher 1936; Rao 1948"
_POOR = 20  # values below 20 times their resolution get a warning: the error may be 5 %
_CERTAIN = 1000  # values below 1000 times their resolution are recomputed in float64 in the second pass
_ENTRIES = 16  # maximum error of a scatter's entries, in machine epsilons

# ---------------------------------------------------------------------- scatter in the between-class metric


def _mean_ratio(value: float, setting: Setting, divided: bool = True) -> float:
    """`share` of the mean scatter ratio over the min(K - 1, D) directions of the means."""
    return share(value * (setting.K if divided else 1) / min(setting.K - 1, setting.D), setting)


def _nc1_needs(within: Weighting = "sample") -> Needs:
    return "span scatter" if within == "sample" else "class scatter"


@metric(
    "NC1  tr(Σ_W Σ_B⁺)/K",
    "NC1",
    source="Papyan, Han & Donoho 2020",
    convention="÷K, Σ_B about the mean of class means",
    target=0.0,
    scale=_mean_ratio,
    needs=_nc1_needs,
    headline=True,
    held_out=True,
)
def nc1(
    statistics: ClassStatistics,
    *,
    weighting: Weighting = "class",
    centre: Weighting | None = None,
    within: Weighting = "sample",
    divided: bool = True,
) -> Tensor:
    """Within-class scatter relative to between-class scatter, tr(S_W S_B^+) / K.

    S_W pools samples (1/N); S_B weights classes equally about the mean of class means; K counts classes with samples.
    If class means coincide, S_B^+ uses the true rank and a GeometryWarning lists the classes.

    Shape: scalar, float64. Range: [0, inf], unitless; 0 = collapsed, inf if all class means coincide. Invariant to
    rotation, translation and common scale.
    Misleads: scatter outside the span of the class means does not count (`within_in_mean_span` is its share), and with
    one sample per class the value is 0 for any features.

    Args:
        weighting: weighting of the classes in S_B; "sample" is the convention of discriminant analysis, where S_W + S_B
            is the covariance of all samples.
        centre: centre of S_B. Default: as `weighting`. "sample" in Zhu et al. 2021, Zhou et al. 2022, Yaras et al. 2022
            and Markou et al. 2024.
        within: "sample" averages S_W over samples; "class" over classes, which needs the scatter per class.
        divided: divide by K; False in the notebook of Papyan et al. and in Han, Papyan & Donoho 2022.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter.
    Source: Papyan, Han & Donoho 2020, NC1.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.nc1(statistics).item(), 4)  # S_W = 1, S_B = 25, K = 2
    0.02
    """
    statistics = statistics.populated()
    if within == "sample":
        scatter = statistics.require_within("nc1") / statistics.num_samples
    else:
        scatter = statistics.within_covariance(within)
    by = centre or weighting
    if weighting == by == "class":
        inverse, rank = _spanning_inverse(statistics)
    else:
        rows, roots, mass = statistics.centred_means(by), None, statistics.class_weights(by)
        if weighting == "sample":
            roots = (statistics.class_weights("sample") * statistics.num_classes).sqrt()
            rows, mass = roots[:, None] * rows, mass / roots
        inverse, rank = _pinv(statistics, numerics.condensed(numerics.contrasts(rows, mass)), roots)
    if rank == 0:  # all means coincide: infinite, though the pseudo-inverse of 0 is 0
        return statistics.spread.sum() / torch.zeros_like(scatter.trace())
    value, size = ((scatter @ inverse) * inverse).sum(), scatter.diagonal() @ inverse.square().sum(1)
    value = _resolved(statistics, value, size, "NC1")
    return value if divided else value * statistics.num_classes


def nc1_per_class(statistics: ClassStatistics) -> Tensor:
    """tr(S_k S_B^+) / K with the covariance S_k of each class; needs per_class=True.

    The mean over classes is `nc1` with within="class"; the mean weighted by counts is `nc1`.

    Shape: (K present,), float64. Range: [0, inf), unitless; 0 = this class is collapsed.
    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter per class.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [11.0], [11.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2, per_class=True)
    >>> [round(value, 4) for value in metrics.nc1_per_class(statistics).tolist()]  # 1 / 25 / 2, and no scatter
    [0.02, 0.0]
    """
    statistics = statistics.populated()
    scatter = statistics.require_class_within("nc1_per_class")
    inverse, _ = _spanning_inverse(statistics)
    traces = torch.stack([((each @ inverse) * inverse).sum() for each in scatter])
    sizes = torch.stack([each.diagonal() @ inverse.square().sum(1) for each in scatter])
    return _resolved(statistics, traces, sizes, "NC1 of each class") / statistics.counts


@metric(
    "share of tr Σ_W in span of means",
    "scale",
    source="this package",
    convention="what NC1 sees",
    needs="span scatter",
    headline=True,
)
def within_in_mean_span(statistics: ClassStatistics) -> Tensor:
    """Share of tr(S_W) in the span of the centred class means, tr(P S_W) / tr(S_W) with the projection P on the span.

    NC1 measures only this share: if it is small, within-class scatter can be large although NC1 is small.

    Shape: scalar, float64. Range: [0, 1]; NaN if tr(S_W) is 0. Invariant to rotation, translation and common scale.
    Misleads: a small value is no structure by itself: for isotropic features it is about (K-1)/D with any labels.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter.
    Source: this package.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> features = torch.cat([cross, cross + torch.tensor([10.0, 0.0])])
    >>> statistics = ClassStatistics.from_features(features, torch.arange(8) // 4, 2)
    >>> round(metrics.within_in_mean_span(statistics).item(), 4)  # variance 0.5 along the means, 2 across
    0.2
    """
    statistics = statistics.populated()
    within = statistics.require_within("within_in_mean_span")
    rows = spanning_rows(statistics)
    inverse, _ = _spanning_inverse(statistics)
    inside = ((within @ inverse) * rows.mT).sum()
    size = within.diagonal() @ (inverse * rows.mT).sum(1).abs()
    return _resolved(statistics, inside, size, "the scatter in the span of the class means") / statistics.spread.sum()


def _resolved(statistics: ClassStatistics, value: Tensor, size: Tensor, what: str, least: float = 0.0) -> Tensor:
    """A value computed from the scatter; NaN, with a warning, below the resolution of the scatter's products.

    Args:
        size: the value for the diagonal of the scatter; times `product_epsilon` it bounds the error of the products.
        least: resolution of the further computation.
    """
    if statistics.product_epsilon == 0:
        return value
    resolution = _ENTRIES * statistics.product_epsilon * size.detach() + least
    poor = value.detach() < _POOR * resolution
    if poor.any():
        largest = float(resolution[poor].max())
        warnings.warn(
            f"{what} is below {_POOR * largest:.1g}, near its resolution of {largest:.1g} (NaN below the resolution): "
            "the scatter in the span of the class means is a very small part of the whole scatter. measure() computes "
            "this part in float64 in its second pass; pass float64 features to an accumulator.",
            ResolutionWarning,
            stacklevel=4,
        )
    if value.requires_grad:
        return value  # in training, a value below the resolution serves as zero
    return torch.where(value < resolution, math.nan, value)


def is_resolved(statistics: ClassStatistics) -> bool:
    """Whether the pooled scatter in the span of the class means is far above the resolution of its products."""
    statistics = statistics.detach().populated()
    if statistics.product_epsilon == 0:
        return True
    inverse, rank = numerics.pinv(spanning_rows(statistics), means_rounding(statistics), statistics.num_classes - 1)
    within = statistics.require_within("the scatter in the span of the class means")
    size = within.diagonal() @ inverse.square().sum(1)
    resolution = _ENTRIES * statistics.product_epsilon * size
    return rank == 0 or bool(((within @ inverse) * inverse).sum() >= _CERTAIN * resolution)


# ---------------------------------------------------------------------- traces


@metric("tr Σ_W", "scale", source=_SCATTER, convention="pooled over samples", target=0.0, headline=True)
def within_trace(statistics: ClassStatistics) -> Tensor:
    """tr(S_W), the mean squared distance of a sample to its class mean.

    Shape: scalar, float64. Range: [0, inf), in squared feature units; 0 = collapsed. Invariant to rotation and
    translation.
    Misleads: it changes with the scale of the features: weight decay that halves all features quarters it, without any
    collapse. Compare `trace_ratio` instead.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: scatter matrices of linear discriminant analysis (Fisher 1936; Rao 1948).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> metrics.within_trace(statistics).item()  # (1 + 1 + 4 + 4) / 4
    2.5
    """
    statistics = statistics.populated()
    return statistics.spread.sum() / statistics.num_samples


@metric("tr Σ_B", "scale", source=_SCATTER, convention="about the mean of class means", headline=True)
def between_trace(statistics: ClassStatistics, *, debiased: bool = False) -> Tensor:
    """tr(S_B), the mean squared distance of a class mean to the mean of class means.

    Shape: scalar, float64. Range: [0, inf), in squared feature units. Invariant to rotation and translation.
    Misleads: means of few samples lie apart by chance: for n samples per class without any structure it is about (1 -
    1/K) tr(S_W)/(n-1), which debiased=True subtracts.

    Args:
        debiased: subtract the sampling bias (1/K) sum_k (1 - 1/K) s_k^2 / n_k with s_k^2 = spread_k / (n_k - 1). The
            expectation is then tr(S_B) of the true means; a value may be negative if these are nearly equal. Classes
            with one sample have no s_k^2: they are left out, with a GeometryWarning; NaN if fewer than two classes
            remain. About given centres nothing is subtracted.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: scatter matrices of linear discriminant analysis (Fisher 1936; Rao 1948).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> [metrics.between_trace(statistics, debiased=each).item() for each in (False, True)]  # s^2 = 2, n = 2
    [25.0, 24.5]
    """
    if debiased:
        return _corrected_between(_with_variances(statistics))
    centred = statistics.populated().centred_means()
    return numerics.row_products(centred, centred).mean()


@metric(
    "tr Σ_W / tr Σ_B",
    "NC1",
    source="Tirer, Huang & Niles-Weed 2023",
    convention="Σ_B about the mean of class means",
    target=0.0,
    scale=share,
    headline=True,
    held_out=True,
)
def trace_ratio(statistics: ClassStatistics, *, debiased: bool = False) -> Tensor:
    """tr(S_W) / tr(S_B), with classes weighted equally in S_B.

    Shape: scalar, float64. Range: [0, inf], unitless; 0 = collapsed, inf if all class means coincide. Invariant to
    rotation, translation and common scale.
    Misleads: one class far from all others makes tr(S_B) large and the ratio small, although the other classes overlap.
    With shuffled labels it grows with the number of samples per class.

    Args:
        debiased: ratio of unbiased traces, spread / (N - K) over the debiased `between_trace`; NaN, with a
            GeometryWarning, if the latter is not positive.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Tirer, Huang & Niles-Weed 2023; Rangamani et al. 2023.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> [round(metrics.trace_ratio(statistics, debiased=each).item(), 6) for each in (False, True)]  # 1 / 25, 2 / 24.5
    [0.04, 0.081633]
    """
    if not debiased:
        return within_trace(statistics) / between_trace(statistics)
    statistics = _with_variances(statistics)
    between = _corrected_between(statistics)
    positive = between > 0
    if between <= 0:
        warnings.warn(
            "the debiased trace ratio is undefined (NaN): the class means are not further apart than means of one "
            "class are by chance. Collect more samples per class.",
            GeometryWarning,
            stacklevel=3,
        )
    free = statistics.num_samples - (0 if statistics.recentred else statistics.num_classes)
    return torch.where(positive, statistics.spread.sum() / free / torch.where(positive, between, 1.0), math.nan)


@metric("tr Σ_W / tr Σ_T", "NC1", source="Beaglehole et al. 2024", convention="Σ_T over all samples", target=0.0)
def trace_share(statistics: ClassStatistics) -> Tensor:
    """tr(S_W) / tr(S_T), with S_T the covariance of all samples.

    Shape: scalar, float64. Range: [0, 1]; 0 = collapsed. Invariant to rotation, translation and common scale.
    Misleads: with shuffled labels its mean is 1 - (K-1)/(N-1), so few samples per class alone bring it well below 1.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Beaglehole et al. 2024, with recursive feature machines.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.trace_share(statistics).item(), 6)  # 1 / (1 + 25)
    0.038462
    """
    statistics = statistics.populated()
    within = within_trace(statistics)
    centred = statistics.centred_means("sample")
    return within / (within + statistics.class_weights("sample") @ numerics.row_products(centred, centred))


def between_covariance_debiased(statistics: ClassStatistics) -> Tensor:
    """Covariance of the class means minus the sampling bias (1/K) (1 - 1/K) sum_k S_k / n_k.

    S_k is the unbiased covariance of class k; needs per_class=True. The trace is the debiased `between_trace`, where
    classes with one sample are described. Only the expectation is correct: eigenvalues can be negative, so the matrix
    can't be inverted, and there is no debiased NC1.

    Shape: (D, D), float64, symmetric, in squared feature units.
    Raises: EmptyClassError if fewer than two classes have two samples; ScatterError without the scatter per class.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2, per_class=True)
    >>> metrics.between_covariance_debiased(statistics).tolist()  # 25 - 1/2 * 1/2 * (2/2 + 2/2)
    [[24.5]]
    """
    statistics.require_class_within("between_covariance_debiased")
    statistics = _with_variances(statistics).populated()
    between = statistics.between_covariance("class")
    if statistics.recentred:
        return between
    scatter, counts = statistics.require_class_within("between_covariance_debiased"), statistics.counts
    errors = torch.einsum("k,kij->ij", 1 / (counts * (counts - 1)).to(between), scatter)
    return between - errors * ((1 - 1 / statistics.num_classes) / statistics.num_classes)


def _corrected_between(statistics: ClassStatistics) -> Tensor:
    """Debiased `between_trace` for classes that all have a variance; NaN for fewer than two classes."""
    if statistics.num_classes < 2:
        return statistics.means.new_full((), math.nan)
    return between_trace(statistics) - (1 - 1 / statistics.num_classes) * mean_errors(statistics).mean()


def _with_variances(statistics: ClassStatistics) -> ClassStatistics:
    """The statistics restricted to classes with a variance: two samples, or one about given centres."""
    statistics = statistics.populated()
    if statistics.recentred:
        return statistics
    warn_of_single_samples(statistics)
    return statistics.select(min_count=2)


# ---------------------------------------------------------------------- pairs of classes


def _cdnv(distance_exponent: float = 2.0, debiased: bool = False, exact: bool = False) -> OverPairs:
    kernel = CDNV_DEBIASED if debiased else cdnv_kernel(distance_exponent)
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
    gaps = torch.where(own[:, None], 1.0, gaps_to(statistics, row))  # no 0/0 in the gradient
    values = quotient((variances + variances[row]) / 2, numerics.norms(gaps) ** distance_exponent)
    return torch.where(own, torch.nan, values)


def _debiased_row(statistics: ClassStatistics, row: int) -> Tensor:
    variances, errors = statistics.variances, mean_errors(statistics)
    own = torch.arange(len(variances), device=variances.device) == row
    squares = gaps_to(statistics, row).square().sum(1)
    values = debiased_ratio((variances + variances[row]) / 2, squares, (errors + errors[row]) / 2)
    return torch.where(own, math.nan, values)


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
        gaps = gaps_to(statistics, row)
        gaps = gaps[gaps.detach().any(1)]
        pairs += len(gaps) / 2
        squares = gaps.square().sum(1).square()
        total = total + (((gaps @ covariance) * gaps).sum(1) / squares).sum() / 2
        resolution = resolution + ((gaps.square() @ covariance.diagonal()) / squares).sum() / 2
    return _resolved(statistics, total / pairs, resolution / pairs, "directional CDNV") if pairs else total * math.nan


# ---------------------------------------------------------------------- variability collapse index


@metric(
    "VCI",
    "NC1",
    source="Xu & Liu 2023",
    convention="true rank of Σ_B, about the mean of class means",
    target=0.0,
    needs="scatter",
    headline=True,
)
def vci(statistics: ClassStatistics) -> Tensor:
    """Variability collapse index, 1 - tr(S_T^+ S_B) / rank(S_B) with S_T = S_W + S_B, classes weighted equally in S_B.

    Shape: scalar, float64. Range: [0, 1]; 0 = collapsed. Invariant to translation and invertible linear maps of the
    features. NaN, with a GeometryWarning, for N <= D + 1 samples, where the value would always be 0. Gradients are
    first-order only.
    Misleads: with shuffled labels it is about 1 - D/(N-1), so it is near 0 without any structure if N is little above
    D.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter.
    Source: Xu & Liu 2023.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.vci(statistics).item(), 6)  # 1 - 25 / 26
    0.038462
    """
    statistics = statistics.populated()
    if _too_few(statistics, "VCI", "0"):
        return statistics.spread.sum() * math.nan
    rows = spanning_rows(statistics)
    constant = statistics.detach() if rows.requires_grad else statistics
    inverse, rank = _spanning_inverse(constant)
    if rank < min(rows.shape):
        rows = rows @ (inverse @ spanning_rows(constant))  # project on the row space at the true rank
    explained, size = _explained(statistics, rows / statistics.num_classes**0.5, lost=rank < min(rows.shape))
    value = 1 - explained / rank if rank else torch.full_like(explained, math.nan)
    if rank and not statistics.spread.any():  # exactly zero, without rounding
        return value - value.detach()
    return _resolved(statistics, value, size / max(rank, 1), "VCI", least=16 * numerics.EPS)


@metric(
    "H-score",
    "NC1",
    source="Bao et al. 2019",
    convention="tr(Σ_T⁺ Σ_B), classes weighted n_k/N",
    target=lambda s: min(s.K - 1, s.D),
    needs="scatter",
)
def h_score(statistics: ClassStatistics, *, shrinkage: float | Literal["ledoit-wolf"] = 0.0) -> Tensor:
    """tr(S_T^+ S_B) with the covariance S_T of all samples; S_B weights classes by size.

    Shape: scalar, float64. Range: [0, min(K-1, D)]; min(K-1, D) = collapsed. Invariant to translation and invertible
    linear maps of the features; with shrinkage only to rotation, translation and common scale. NaN, with a
    GeometryWarning, for N <= D + 1 samples without shrinkage, where the value would always be maximal. Gradients are
    first-order only.
    Misleads: with shuffled labels it is about (K-1) D/(N-1), near its maximum without any structure if N is little
    above D. Shrinkage lowers that.

    Args:
        shrinkage: a in [0, 1]; S_T becomes (1 - a) S_T + a (tr S_T / D) I, and S_B becomes (1 - a) S_B. "ledoit-wolf":
            `ledoit_wolf_shrinkage`. Both are defined for any number of samples.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter; RangeError for a
    shrinkage outside [0, 1].
    Source: Bao et al. 2019 (transferability estimation); with shrinkage Ibrahim et al. 2022, whose code divides S_B by
    N - 1.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.h_score(statistics).item(), 6)  # 25 / 26
    0.961538
    """
    statistics = statistics.populated()
    if isinstance(shrinkage, str) or shrinkage != 0:
        return _shrunk_h_score(statistics, shrinkage)
    if _too_few(statistics, "the H-score", "maximal"):
        return statistics.spread.sum() * math.nan
    roots = statistics.class_weights("sample").sqrt()
    rows = numerics.condensed(numerics.contrasts(roots[:, None] * statistics.centred_means("sample"), roots))
    inverse, rank = _pinv(statistics, rows.detach(), roots)
    if rank < min(rows.shape):
        rows = rows @ (inverse @ rows.detach())
    return _explained(statistics, rows, lost=rank < min(rows.shape))[0]


def _shrunk_h_score(statistics: ClassStatistics, shrinkage: float | str) -> Tensor:
    if isinstance(shrinkage, str):
        require_choice(shrinkage, ("ledoit-wolf",), "shrinkage")
        share = ledoit_wolf_shrinkage(statistics)
    elif not 0 <= shrinkage <= 1:
        raise RangeError(f"shrinkage must lie in [0, 1], or be 'ledoit-wolf'; got {shrinkage}.")
    else:
        share = statistics.spread.new_tensor(shrinkage)
    total = statistics.total_covariance()
    size = total.trace() / statistics.num_features
    if not size.detach() > 0:
        return size * math.nan
    if not share.detach() > 0:
        return h_score(statistics)
    roots = statistics.class_weights("sample").sqrt()
    rows = roots[:, None] * statistics.centred_means("sample") / size.sqrt()
    shrunk = (1 - share) * total / size + share * torch.eye(len(total), dtype=total.dtype, device=total.device)
    return (1 - share) * (rows.mT * torch.linalg.solve(shrunk, rows.mT)).sum()


def ledoit_wolf_shrinkage(statistics: ClassStatistics) -> Tensor:
    """Shrinkage in [0, 1] that minimises the expected squared error of (1 - a) S_T + a (tr S_T / D) I. Scalar.

    The optimum needs the mean of |x - mean|^4 over the samples, which is not among the moments. It is replaced by its
    value for classes that are Gaussian about their means, each with the shape of the pooled scatter and its own
    variance. On Gaussian classes it is within a few per cent of the shrinkage from the samples; for heavier tails it is
    too small. 0 for D = 1 and for equal variances in all directions.
    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter.
    Source: Ledoit & Wolf 2004, in the form for samples; the Gaussian fourth moment is ours.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.randn(40, 30, dtype=torch.float64), torch.arange(40) % 2
    >>> 0.5 < float(metrics.ledoit_wolf_shrinkage(ClassStatistics.from_features(features, labels, 2))) <= 1
    True
    """
    statistics = statistics.populated()
    within, weights = statistics.within_covariance(), statistics.class_weights("sample")
    gaps, variances = statistics.centred_means("sample"), statistics.spread / statistics.counts
    trace = within.trace()
    shape = within / torch.where(trace > 0, trace, 1.0)
    lengths = gaps.square().sum(1)
    along = ((gaps @ shape) * gaps).sum(1)
    fourth = (lengths + variances).square() + 2 * variances.square() * shape.square().sum() + 4 * variances * along
    total, dim = statistics.total_covariance(), statistics.num_features
    squares = total.square().sum()
    distance = (squares - total.trace().square() / dim) / dim
    error = (weights @ fourth - squares) / (dim * statistics.num_samples)
    resolved = distance.detach() > numerics.EPS * squares.detach()  # else equal variances, or D = 1
    return torch.where(resolved, (error / torch.where(resolved, distance, 1.0)).clamp(0, 1), 0.0)


def _explained(statistics: ClassStatistics, rows: Tensor, *, lost: bool) -> tuple[Tensor, Tensor]:
    """tr(R T^+ R^T) for T = S_W + R^T R, and its size for the diagonal of the scatter, for the resolution.

    Args: lost, whether the rank of the rows is deficient.
    """
    scatter = statistics.require_within("the total scatter")
    near = None if lost or scatter.requires_grad or rows.requires_grad else inverse_near_total(statistics)
    solved = None

    def product(values: Tensor) -> Tensor:
        return values @ scatter / statistics.num_samples + (values @ rows.mT) @ rows

    if near is not None and (solved := numerics.refined_solution(product, rows, near)) is not None:
        solution, image = solved.mT, product(solved).mT
    else:
        total = scatter / statistics.num_samples + rows.mT @ rows
        least = 0.0
        if lost:  # directions of rounding do not count
            least = float(statistics.counts.to(torch.float64) @ statistics.rounding.square() / statistics.num_samples)
        solution = numerics.solve_gram(total.detach(), rows.detach().mT, least)
        image = total @ solution
    # tr(R T^+ R^T) is the maximum over X of 2 tr(R X) - tr(X^T T X): at the maximiser the gradient in X is zero
    explained = 2 * (rows.mT * solution).sum() - (solution * image).sum()
    variances = scatter.diagonal().detach() / statistics.num_samples
    spans = variances.sqrt()[:, None] * solution  # errors of entries are nearly independent
    gram = spans.mT @ spans if spans.shape[0] > spans.shape[1] else spans @ spans.mT
    return explained, torch.linalg.matrix_norm(gram)


def _too_few(statistics: ClassStatistics, what: str, value: str) -> bool:
    """Whether N <= D + 1; warns if so."""
    few = bool(statistics.num_samples <= statistics.num_features + 1)
    if few:
        warnings.warn(
            f"{what} is undefined (NaN) for {int(statistics.num_samples)} samples in {statistics.num_features} "
            f"dimensions: it is {value} for any samples. Pass more than {statistics.num_features + 1} samples.",
            GeometryWarning,
            stacklevel=4,
        )
    return few


# ---------------------------------------------------------------------- degenerate geometry


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


def means_rounding(statistics: ClassStatistics, weights: Tensor | None = None) -> float:
    """Largest singular value of the class means, times `weights`, that rounding of the features alone can cause."""
    rounding = statistics.rounding.square()
    varied = statistics.variances.detach() > statistics.num_features * rounding  # else all samples round alike
    stored = (4 * numerics.EPS * numerics.norms(statistics.means.detach())).square()  # float64 storage of the means
    errors = torch.where(varied, rounding / statistics.counts, rounding) + torch.where(rounding > 0, stored, 0.0)
    return float((errors if weights is None else weights.detach().square() * errors).sum().sqrt())


def _spanning_inverse(statistics: ClassStatistics) -> tuple[Tensor, int]:
    """Pseudo-inverse and rank of `spanning_rows`; warns if the rank is deficient."""
    rows = spanning_rows(statistics)
    floor = means_rounding(statistics)
    most = statistics.num_classes - 1
    inverse, rank = once(statistics, "inverse", lambda: numerics.pinv(rows, floor, most), rows)
    warn_of_lost_rank(statistics, rank, min(rows.shape))
    return inverse, rank


def _pinv(statistics: ClassStatistics, rows: Tensor, weights: Tensor | None = None) -> tuple[Tensor, int]:
    """Pseudo-inverse and rank of rows that span the centred means times `weights`; warns if the rank is deficient.

    Singular values up to the rounding of the features count as zero.
    """
    inverse, rank = numerics.pinv(rows, means_rounding(statistics, weights), statistics.num_classes - 1)
    warn_of_lost_rank(statistics, rank, min(rows.shape))
    return inverse, rank


METRICS = (
    *(nc1, trace_ratio, trace_share, cdnv, directional_cdnv, vci, h_score),
    *(within_trace, between_trace, within_in_mean_span),
)
