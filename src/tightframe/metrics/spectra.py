"""Spectra: the effective dimension of features and of their parts, and the decay of their variances."""

from __future__ import annotations

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.choices import require_choice
from tightframe.errors import EmptyClassError, GeometryWarning, RangeError
from tightframe.metrics.metric import Needs, metric
from tightframe.metrics.span import spanning_rows
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics

__all__ = [
    "rankme",
    "effective_rank",
    "alpha_req",
    "spectrum",
    "alpha_req_per_class",
    "effective_rank_per_class",
    "participation_ratio_per_class",
]

Part = Literal["total", "within", "between"]
"""Covariance of all samples, within-class covariance, or covariance of the class means."""

_UNRESOLVED = 16  # eigenvalues up to this many machine epsilons of the scatter's products may be rounding
_FAR = 100  # squared length of the mean, in traces of the covariance, above which eigenvalues would lose digits

# ---------------------------------------------------------------------- eigenvalues


def spectrum(statistics: ClassStatistics, of: Part = "total") -> Tensor:
    """(r,) positive eigenvalues of a covariance, descending, in squared feature units.

    Eigenvalues that may be rounding are left out. For N samples, r is at most min(N - 1, D), for "within"
    min(N - K, D), for "between" min(K - 1, D).

    Args:
        of: "total", the covariance of all samples; "within", S_W pooled over samples; "between", the covariance of the
            class means, classes weighted equally.

    Raises: ChoiceError for other parts; EmptyClassError without samples, for "between" with fewer than two classes;
    ScatterError without the scatter, which "between" does not need.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    >>> metrics.spectrum(ClassStatistics.from_features(features, torch.zeros(4, dtype=torch.int64), 1)).tolist()
    [1.0, 0.25]
    """
    matrix = require_part(statistics, of)
    reads = (statistics.within, statistics.class_within, statistics.means)

    def make() -> Tensor:
        if matrix is None:
            return _positive(torch.linalg.svdvals(spanning_rows(statistics.populated())).square().flip(0))
        return _positive(torch.linalg.eigvalsh(matrix), _unresolved(statistics))

    return once(statistics, f"spectrum, {of}", make, *reads)


def require_part(statistics: ClassStatistics, of: str) -> Tensor | None:
    """The covariance (D, D) that `of` names; None for "between". Raises: as `spectrum`."""
    require_choice(of, get_args(Part), "of")
    if of == "between":
        return None
    if not statistics.present.any():
        raise EmptyClassError("a spectrum needs at least one class with samples; all classes are empty.")
    return statistics.total_covariance() if of == "total" else statistics.within_covariance()


def _unresolved(statistics: ClassStatistics) -> float:
    """Size of eigenvalues that errors of the scatter's products alone can cause."""
    if statistics.product_epsilon == 0:
        return 0.0
    size = torch.linalg.matrix_norm(statistics.within_covariance().detach())
    return _UNRESOLVED * statistics.product_epsilon * float(size)


def _positive(ascending: Tensor, floor: float = 0.0) -> Tensor:
    """The eigenvalues above rounding, descending."""
    values = ascending.flip(0)
    tolerance = len(values) * numerics.EPS * float(values[0].detach().clamp(min=0)) if len(values) else 0.0
    return values[values.detach() > max(tolerance, floor)]


def _second_moments(statistics: ClassStatistics) -> Tensor:
    """(r,) positive eigenvalues of the mean of x x^T over all samples, descending; gradients are first-order only.

    Far from the origin the squared mean would swamp the covariance: there the singular values of a factor are computed.
    """
    covariance, mean = require_part(statistics, "total"), statistics.global_mean("sample")
    assert covariance is not None
    moments = covariance + torch.outer(mean, mean)
    if mean.detach().square().sum() <= _FAR * covariance.detach().trace():
        return _positive(torch.linalg.eigvalsh(moments), _unresolved(statistics))
    values, vectors = torch.linalg.eigh(covariance.detach())
    real = values > max(len(values) * numerics.EPS * float(values[-1].clamp(min=0)), _unresolved(statistics))
    factor = torch.cat([(vectors[:, real] * values[real].sqrt()).mT, mean.detach()[None]])
    _, sizes, right = torch.linalg.svd(factor, full_matrices=False)
    real = sizes > len(mean) * numerics.EPS * sizes[:1]
    right, sizes = right[real], sizes[real]
    change = moments - moments.detach()
    return sizes.square() + ((right @ change) * right).sum(1) if change.requires_grad else sizes.square()


def perplexity(sizes: Tensor) -> Tensor:
    """exp of the entropy of sizes divided by their sum; NaN for none."""
    if not len(sizes):
        return sizes.sum() * math.nan
    shares = sizes / sizes.sum()
    return torch.exp(-(shares * shares.log()).sum())


def warn_of_few_samples(statistics: ClassStatistics, what: str, most: str = "N - 1") -> None:
    """Warn if N <= D, where the number of samples limits a spectrum."""
    samples, dim = int(statistics.num_samples), statistics.num_features
    if samples <= dim:
        warnings.warn(
            f"{what} is limited by the number of samples: {samples} samples in {dim} dimensions have at most {most} = "
            f"{samples - 1 if most == 'N - 1' else samples} positive eigenvalues. Pass more than {dim} samples, or "
            "compare only features with the same number of samples.",
            GeometryWarning,
            stacklevel=3,
        )


# ---------------------------------------------------------------------- effective dimensions


@metric(
    "RankMe",
    "scale",
    source="Garrido et al. 2023",
    convention="singular values of features, not centred",
    needs="scatter",
    labelled=False,
    by_default=False,
)
def rankme(statistics: ClassStatistics) -> Tensor:
    """exp of the entropy of s / sum(s), s the singular values of the N x D features, not centred.

    Shape: scalar, float64. Range: [1, min(N, D)], in dimensions. Invariant to rotation and common scale, not to
    translation. For N <= D samples it is limited by N, and a GeometryWarning says so; NaN if all features are 0. The
    released formula adds 1e-7 to each share; here nothing is added. Gradients are first-order only.
    Misleads: features far from the origin have a value near 1, whatever their variances; encoders with another D, or
    with N <= D, are not comparable.

    Raises: EmptyClassError without samples; ScatterError without the scatter.
    Source: Garrido et al. 2023, eq. 1.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])  # two equal singular values
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.rankme(statistics).item(), 9)
    2.0
    """
    sizes = once(
        statistics,
        "second moments",
        lambda: _second_moments(statistics),
        *(statistics.within, statistics.class_within, statistics.means),
    )
    warn_of_few_samples(statistics, "RankMe", "N")
    return perplexity(sizes.sqrt())


def _needs(of: Part = "total") -> Needs:
    return "means" if of == "between" else "scatter"


@metric(
    "effective rank of Σ_T",
    "scale",
    source="Roy & Vetterli 2007",
    convention="entropy of eigenvalues",
    needs=_needs,
    labelled=False,
    by_default=False,
)
def effective_rank(statistics: ClassStatistics, *, of: Part = "total") -> Tensor:
    """exp of the entropy of v / sum(v), v the eigenvalues of a covariance: its effective number of directions.

    Shape: scalar, float64. Range: [1, min(N - 1, D)], in dimensions. Invariant to rotation, translation and common
    scale. For N <= D samples it is limited by N, and a GeometryWarning says so; NaN if the covariance is 0.
    Misleads: directions of noise count like others; encoders with another D, or with N <= D, are not comparable.

    Args:
        of: the covariance, as in `spectrum`.

    Raises: EmptyClassError without samples, and for "between" with fewer than two classes; ScatterError without the
    scatter; ChoiceError for other covariances.
    Source: Roy & Vetterli 2007, definition 1, of the covariance.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])  # two equal variances
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.effective_rank(statistics).item(), 9)
    2.0
    """
    values = spectrum(statistics, of)
    if of != "between":
        warn_of_few_samples(statistics, "the effective rank")
    return perplexity(values)


def effective_rank_per_class(statistics: ClassStatistics) -> Tensor:
    """(K present,) `effective_rank` of the covariance of each class; NaN for a class without variance.

    Limited by n - 1 for a class of n samples. Needs per_class=True.
    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter per class.
    Source: Roy & Vetterli 2007.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2, per_class=True)
    >>> metrics.effective_rank_per_class(statistics).tolist()
    [1.0, 1.0]
    """
    statistics = statistics.populated()
    scatter = statistics.require_class_within("effective_rank_per_class")
    return torch.stack([perplexity(each) for each in spectra_of(scatter, statistics.product_epsilon)])


def spectra_of(scatters: Tensor, product_epsilon: float) -> list[Tensor]:
    """The positive eigenvalues (r,) of each matrix (D, D), descending, without those that may be rounding."""
    floors = [_UNRESOLVED * product_epsilon * float(torch.linalg.matrix_norm(each.detach())) for each in scatters]
    return [_positive(torch.linalg.eigvalsh(each), floor) for each, floor in zip(scatters, floors, strict=True)]


def participation_ratio_per_class(statistics: ClassStatistics) -> Tensor:
    """(K present,) (tr S)^2 / tr S^2 for the covariance S of each class; NaN for a class without variance.

    Limited by n - 1 for a class of n samples. Needs per_class=True.
    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter per class.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2, per_class=True)
    >>> metrics.participation_ratio_per_class(statistics).tolist()
    [1.0, 1.0]
    """
    statistics = statistics.populated()
    return ratios_of(statistics.require_class_within("participation_ratio_per_class"))


def ratios_of(scatter: Tensor) -> Tensor:
    """(K,) (tr S)^2 / tr S^2 of matrices (K, D, D)."""
    return scatter.diagonal(dim1=1, dim2=2).sum(1).square() / scatter.square().sum((1, 2))


# ---------------------------------------------------------------------- decay


@metric(
    "α-ReQ",
    "scale",
    source="Agrawal et al. 2022",
    convention="−slope of log λ against log rank, weights 1/rank",
    needs="scatter",
    labelled=False,
    by_default=False,
)
def alpha_req(statistics: ClassStatistics, *, first: int = 1, last: int | None = None, weighted: bool = True) -> Tensor:
    """Exponent a of the decay i^-a of the eigenvalues of the covariance of all samples: -slope of log v_i on log i.

    Shape: scalar, float64. Range: [0, inf), unitless; 0 for equal variances. Invariant to rotation, translation and
    common scale. NaN if fewer than two positive eigenvalues are in the range. For N <= D samples the spectrum ends at
    N - 1, the tail falls too fast, and a GeometryWarning says so.
    Misleads: of a spectrum that is no power law, the range of the fit decides the value; directions that are constant
    but for rounding count as tiny variances.

    Args:
        first, last: the ranks i of the fit, from 1; by default all positive eigenvalues. The released code fits ranks
            12 to 100, and other scripts 4 to 50.
        weighted: weights 1/i, as in the released code, so that the many small eigenvalues do not decide; False for
            equal weights.

    Raises: RangeError for ranks below 1 or `last` below `first` + 1; EmptyClassError without samples; ScatterError
    without the scatter.
    Source: Agrawal et al. 2022, with the fit of Stringer et al. 2019.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> variances = torch.tensor([1.0, 1 / 2, 1 / 3])
    >>> features = torch.cat([torch.diag(variances.sqrt()), -torch.diag(variances.sqrt())])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    >>> round(metrics.alpha_req(statistics).item(), 6)
    1.0
    """
    if first < 1:
        raise RangeError(f"first must be at least 1; got {first}.")
    if last is not None and last <= first:
        raise RangeError(f"last must be at least first + 1 = {first + 1}; got {last}.")
    warn_of_few_samples(statistics, "α-ReQ")
    return decay_of(spectrum(statistics), first, last, weighted=weighted)


def decay_of(spectrum: Tensor, first: int = 1, last: int | None = None, *, weighted: bool = True) -> Tensor:
    """`alpha_req` of descending eigenvalues (r,); NaN for fewer than two in the range."""
    values = spectrum[first - 1 : last]
    if len(values) < 2:
        return values.sum() * math.nan
    ranks = torch.arange(first, first + len(values), dtype=values.dtype, device=values.device)
    places, heights = ranks.log(), values.log()
    weights = 1 / ranks if weighted else torch.ones_like(ranks)
    weights = weights / weights.sum()
    deviations = places - weights @ places
    return -(weights * deviations) @ heights / ((weights * deviations) @ deviations)


def alpha_req_per_class(statistics: ClassStatistics) -> Tensor:
    """(K present,) `alpha_req` of the covariance of each class; NaN with fewer than two positive eigenvalues.

    The spectrum of a class of n samples ends at n - 1, where its tail falls too fast: compare only classes with many
    more samples than dimensions. Needs per_class=True.
    Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter per class.
    Source: Agrawal et al. 2022.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.diag(torch.tensor([1.0, 1 / 2, 1 / 3]).sqrt())
    >>> features = torch.cat([features, -features])
    >>> labels = torch.arange(12) // 6
    >>> statistics = ClassStatistics.from_features(features.repeat(2, 1), labels, 2, per_class=True)
    >>> [round(value, 6) for value in metrics.alpha_req_per_class(statistics).tolist()]
    [1.0, 1.0]
    """
    statistics = statistics.populated()
    scatter = statistics.require_class_within("alpha_req_per_class")
    return torch.stack([decay_of(each) for each in spectra_of(scatter, statistics.product_epsilon)])
