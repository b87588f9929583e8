"""VCI and H-score: between-class scatter relative to the total scatter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.choices import require_choice
from tightframe.errors import GeometryWarning, RangeError
from tightframe.metrics.metric import metric
from tightframe.metrics.resolution import resolved
from tightframe.metrics.span import inverse_of_means, spanning_inverse, spanning_rows
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics

__all__ = ["vci", "h_score", "ledoit_wolf_shrinkage"]


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
    inverse, rank = spanning_inverse(constant)
    if rank < min(rows.shape):
        rows = rows @ (inverse @ spanning_rows(constant))  # project on the row space at the true rank
    explained, size = _explained(statistics, rows / statistics.num_classes**0.5, lost=rank < min(rows.shape))
    value = 1 - explained / rank if rank else torch.full_like(explained, math.nan)
    if rank and not statistics.spread.any():  # exactly zero, without rounding
        return value - value.detach()
    return resolved(statistics, value, size / max(rank, 1), "VCI", least=16 * numerics.EPS)


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
    inverse, rank = inverse_of_means(statistics, rows.detach(), roots)
    if rank < min(rows.shape):
        rows = rows @ (inverse @ rows.detach())
    return _explained(statistics, rows, lost=rank < min(rows.shape))[0]


# ---------------------------------------------------------------------- shrinkage


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
    uneven = distance.detach() > numerics.EPS * squares.detach()  # else equal variances, or D = 1
    return torch.where(uneven, (error / torch.where(uneven, distance, 1.0)).clamp(0, 1), 0.0)


# ---------------------------------------------------------------------- the quotient


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


def inverse_near_total(statistics: ClassStatistics, make: Callable[[], Tensor | None] | None = None) -> Tensor | None:
    """The inverse (D, D) of a matrix near the covariance of all samples; None unless `make` was set before.

    Shuffled labels do not change that covariance: `levels` sets the same `make` for all draws, and it inverts once.
    """
    inverse = once(statistics, "inverse near total", lambda: make)
    return None if inverse is None else inverse()


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
