"""Traces of the scatter: within classes, between class means and in the span of the means, and their ratios."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.errors import GeometryWarning
from tightframe.metrics.debiasing import mean_errors, warn_of_single_samples
from tightframe.metrics.metric import metric, share
from tightframe.metrics.resolution import resolved
from tightframe.metrics.span import spanning_inverse, spanning_rows
from tightframe.statistics import ClassStatistics

__all__ = [
    "trace_ratio",
    "trace_share",
    "within_trace",
    "between_trace",
    "within_in_mean_span",
    "between_covariance_debiased",
]

_SCATTER = "Fisher 1936; Rao 1948"


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
    inverse, _ = spanning_inverse(statistics)
    inside = ((within @ inverse) * rows.mT).sum()
    size = within.diagonal() @ (inverse * rows.mT).sum(1).abs()
    return resolved(statistics, inside, size, "the scatter in the span of the class means") / statistics.spread.sum()


# ---------------------------------------------------------------------- ratios


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


# ---------------------------------------------------------------------- without the sampling bias


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
