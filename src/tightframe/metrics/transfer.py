"""Transfer: how well features serve to classify, from their moments alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.metrics.metric import Needs, metric
from tightframe.statistics import ClassStatistics
from tightframe.theory import few_shot, few_shot_pairs
from tightframe.theory.few_shot import mean_of_pairs

__all__ = ["log_me", "few_shot_error", "few_shot_accuracy"]

_PLACES = 64  # points of a grid of log(alpha / beta), on which the maximum is bracketed
_STEPS = 60  # halvings of the bracket: to the last digit
_BEYOND = 20.0  # the grid reaches this far, in log units, beyond the smallest and largest eigenvalue


# ---------------------------------------------------------------------- log maximum evidence


@metric(
    "LogME",
    "transfer",
    source="You et al. 2021",
    convention="per sample, mean over classes, no intercept",
    needs="scatter",
    by_default=False,
)
def log_me(statistics: ClassStatistics) -> Tensor:
    """Log evidence per sample of Bayesian ridge regression of each one-hot label on the features, mean over classes.

    The precisions of weights and noise maximise the evidence of each class; there is no intercept.

    Shape: scalar, float64. Range: (-inf, inf], in nats per sample; inf after a complete collapse if the labels are
    linear in the features. Scatter along a direction counts as at least the resolution of the moments. Invariant to
    rotation and common scale, not to translation. Defined for N <= D too, where the prior limits the weights. The
    released code adds 1e-5 to two denominators and stops after 11 steps; this is the maximum itself. Gradients are
    first-order only.
    Misleads: it depends on the class shares, so that data sets are not comparable, and on the origin: an offset of all
    features serves as an intercept. Of collapsed features it says only how finely they are rounded.

    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter.
    Source: You et al. 2021 (LogME); MacKay 1992.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.randn(60, 4, dtype=torch.float64), torch.arange(60) % 2
    >>> apart = ClassStatistics.from_features(features + 3 * labels[:, None], labels, 2)
    >>> bool(metrics.log_me(apart) > metrics.log_me(ClassStatistics.from_features(features, labels, 2)))
    True
    """
    statistics = statistics.populated()
    counts, samples = statistics.counts.to(torch.float64), float(statistics.num_samples)
    sizes, shares = _coordinates(statistics.detach())
    precision = _best_ratio(sizes, shares, counts, samples)
    misfits = _misfit(precision, sizes, shares, counts)
    kept = torch.log1p(sizes / precision[:, None]).sum(1)
    values = -(kept + samples * (misfits.log() - math.log(samples) + 1 + math.log(2 * math.pi))) / (2 * samples)
    linear = (misfits <= 0) | _interpolated(shares, counts, len(sizes), samples)
    value = torch.where(linear, math.inf, values).mean()
    if statistics.means.requires_grad:
        value = value + _change(statistics, precision, samples / misfits)
    return value


def _coordinates(statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Squared singular values (r,) of the features, and the squared components (K, r) of one-hot labels along them.

    From a factor of F^T F with rows sqrt(n_k) mean_k, not from F^T F itself, which would square its condition number.
    """
    within, counts = statistics.require_within("log_me"), statistics.counts.to(torch.float64)
    values, vectors = torch.linalg.eigh(within)
    resolution = max(len(values) * numerics.EPS, 16 * statistics.product_epsilon)
    if values[-1] > 0:  # scatter below the resolution is not none: without it, labels would look linear in the features
        rank = min(len(values), int(statistics.num_samples) - len(counts))
        values = values.clamp(min=resolution * float(values[-1]))
        values[: len(values) - rank] = 0.0  # N samples about K means span no more than N - K directions
    scattered = (vectors * values.clamp(min=0).sqrt()).mT
    factor = torch.cat([scattered, counts.sqrt()[:, None] * statistics.means])
    left, sizes, _ = torch.linalg.svd(factor, full_matrices=False)
    real = sizes > max(factor.shape) * numerics.EPS * sizes[:1]
    return sizes[real].square(), counts[:, None] * left[len(scattered) :, real].square()


def _interpolated(shares: Tensor, counts: Tensor, rank: int, samples: float) -> Tensor:
    """(K,) whether a one-hot label is linear in the features though their rank is below N."""
    return (_outside(shares, counts) == 0) & (rank < samples)


def _outside(shares: Tensor, counts: Tensor) -> Tensor:
    """(K,) squared distance of the one-hot labels to the span of the features; 0 if it may be rounding."""
    outside = counts - shares.sum(1)
    return torch.where(outside > 16 * shares.shape[1] * numerics.EPS * counts, outside, 0.0)


def _misfit(ratio: Tensor, sizes: Tensor, shares: Tensor, counts: Tensor) -> Tensor:
    """(K,) |y - F w|^2 + ratio |w|^2 at the ridge solution w, for ratios (K,) of the precisions."""
    return _outside(shares, counts) + (shares / (1 + sizes / ratio[:, None])).sum(1)


def _best_ratio(sizes: Tensor, shares: Tensor, counts: Tensor, samples: float) -> Tensor:
    """(K,) ratio of the precisions of weights and noise that maximises the evidence; infinite if the weights are 0.

    The noise's own precision has a closed form, samples / misfit, so only the ratio is searched: the best point of a
    grid, then halvings between its neighbours. Tiny if the misfit vanishes with the ratio.
    """

    def evidence(ratio: Tensor) -> Tensor:
        return -torch.log1p(sizes / ratio[:, None]).sum(1) - samples * _misfit(ratio, sizes, shares, counts).log()

    def slope(ratio: Tensor) -> Tensor:
        free = 1 + sizes / ratio[:, None]
        pull = (shares * sizes / ratio[:, None] / free.square()).sum(1)
        return (1 - 1 / free).sum(1) - samples * pull / _misfit(ratio, sizes, shares, counts)

    if not len(sizes):
        return torch.full_like(counts, math.inf)
    low, high = float(sizes[-1].log()) - _BEYOND, float(sizes[0].log()) + _BEYOND
    grid = torch.linspace(low, high, _PLACES, dtype=sizes.dtype, device=sizes.device)
    heights = torch.stack([evidence(place.exp().expand(len(counts))) for place in grid])
    best = heights.argmax(0)
    below, above = grid[(best - 1).clamp(min=0)], grid[(best + 1).clamp(max=_PLACES - 1)]
    for _ in range(_STEPS):
        middle = (below + above) / 2
        rising = slope(middle.exp()) > 0
        below, above = torch.where(rising, middle, below), torch.where(rising, above, middle)
    return torch.where(best == _PLACES - 1, math.inf, above.exp())


def _change(statistics: ClassStatistics, ratio: Tensor, precision: Tensor) -> Tensor:
    """Zero, with the gradient of the evidence: at its maximum the two precisions count as constants."""
    counts, samples = statistics.counts.to(torch.float64), statistics.num_samples
    sums = counts[:, None] * statistics.means
    moments = statistics.require_within("log_me") + statistics.means.mT @ sums
    eye = torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    total = moments.new_zeros(())
    for row, weight, noise in zip(sums, ratio.tolist(), precision.tolist(), strict=True):
        if math.isfinite(weight):
            lower = torch.linalg.cholesky(moments + weight * eye)
            explained = torch.linalg.solve_triangular(lower, row[:, None], upper=False).square().sum()
            total = total + noise * explained / 2 - lower.diagonal().log().sum()
    return (total - total.detach()) / (samples * len(counts))


# ---------------------------------------------------------------------- few shots


def _few_shot_needs(per_class: bool | None = False) -> Needs:
    return "class scatter" if per_class else "scatter"


@metric(
    "m-shot error of pairs",
    "transfer",
    source="Sorscher et al. 2022, related",
    convention="m = 5, mean over pairs, Gaussian classes of one shape",
    target=0.0,
    needs=_few_shot_needs,
    most_classes=1000,
    by_default=False,
)
def few_shot_error(statistics: ClassStatistics, *, shots: int = 5, per_class: bool | None = False) -> Tensor:
    """Forecast error of the nearer of two class means, each taken of `shots` samples; mean over ordered pairs.

    Shape: scalar, float64. Range: [0, 1]; 0 = collapsed, 0.5 = chance. Invariant to rotation, translation and common
    scale. From a formula for Gaussian classes; see `theory.few_shot_pairs`. NaN if no class has two samples, and if two
    collapsed classes coincide.
    Misleads: classes with several clusters are not Gaussian; of few samples per class it is too small, as their means
    lie too far apart; the error among all classes is larger than that of pairs.

    Args:
        shots: number of samples per class that the means are taken of.
        per_class: as in `theory.few_shot`; but by default the shape of the pooled scatter, so that the value does not
            depend on whether the scatter of each class was kept.

    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter; RangeError for shots below 1.
    Source: the formula is ours; related: Sorscher, Ganguli & Sompolinsky 2022.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [9.0], [11.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.few_shot_error(statistics, shots=1).item(), 4)
    0.0136
    """
    return mean_of_pairs(few_shot_pairs(statistics, [shots], per_class=per_class))[0]


@metric(
    "m-shot accuracy among all classes",
    "transfer",
    source="Sorscher et al. 2022, related",
    convention="m = 5, nearest class mean, Gaussian classes of one shape, drawn",
    target=1.0,
    needs=_few_shot_needs,
    most_classes=1000,
    by_default=False,
    drawn=True,
)
def few_shot_accuracy(
    statistics: ClassStatistics,
    *,
    shots: int = 5,
    per_class: bool | None = False,
    draws: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Forecast accuracy of the nearest of all class means, each taken of `shots` samples.

    Shape: scalar, float64, without gradient. Range: [0, 1]; 1 = collapsed, 1/K = chance. The value depends on random
    draws with this seed; `theory.few_shot` gives their error. Not in `METRICS`, whose values do not depend on draws.
    Misleads: as `few_shot_error`.

    Args:
        shots: number of samples per class that the means are taken of.
        per_class: as in `theory.few_shot`; but by default the shape of the pooled scatter, so that the value does not
            depend on whether the scatter of each class was kept.
        draws, seed: as in `theory.few_shot`.

    Raises: as `theory.few_shot`.
    Source: own; related: Sorscher, Ganguli & Sompolinsky 2022.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [90.0], [92.0]])
    >>> float(metrics.few_shot_accuracy(ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)))
    1.0
    """
    return few_shot(statistics, [shots], per_class=per_class, draws=draws, seed=seed).accuracy[0]
