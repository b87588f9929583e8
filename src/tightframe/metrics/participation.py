"""NC2, effective dimension: the participation ratio of a covariance, by default of the class means."""

from __future__ import annotations

from torch import Tensor

from tightframe.metrics.metric import Needs, Setting, metric, of_all_classes
from tightframe.metrics.span import spanning_rows
from tightframe.metrics.spectra import Part, require_part, warn_of_few_samples
from tightframe.statistics import ClassStatistics

__all__ = ["participation_ratio"]


def _participation_target(setting: Setting, of: Part = "between") -> float | None:
    return setting.K - 1 if of == "between" else None


@of_all_classes
def _dimension(setting: Setting, of: Part = "between") -> float | None:
    return setting.D if of == "between" else None


def _participation_needs(of: Part = "between") -> Needs:
    return "means" if of == "between" else "scatter"


@metric(
    "participation ratio of means",
    "NC2",
    source="Gao et al. 2017",
    convention="about the mean of class means",
    target=_participation_target,
    floor=_dimension,
    needs=_participation_needs,
)
def participation_ratio(statistics: ClassStatistics, *, of: Part = "between") -> Tensor:
    """(tr S)^2 / tr S^2 for a covariance S, by default of the centred class means: their effective dimension.

    Shape: scalar, float64. Range: [1, min(K-1, D)], in dimensions; K-1 for a simplex ETF. For "total" and "within"
    [1, min(N-1, D)]; N <= D samples limit it, and a GeometryWarning says so. Invariant to rotation, translation and
    common scale.
    Misleads: random means reach about (K-1) / (1 + (K-1)/D), near K-1 if D is much larger than K, without any training.

    Args:
        of: the covariance, as in `spectrum`; "total" and "within" need the scatter.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other covariances.
    Source: participation ratio of the eigenvalues of a covariance (Gao et al. 2017), here of the class means.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # sum of outer products (32, 12), (12, 18)
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.participation_ratio(statistics).item(), 6)  # 50^2 / (32^2 + 2 * 12^2 + 18^2)
    1.528117
    """
    if of != "between":
        matrix = require_part(statistics, of)
        assert matrix is not None
        warn_of_few_samples(statistics, "the participation ratio")
        return matrix.trace().square() / matrix.square().sum()
    rows = spanning_rows(statistics.populated())
    gram = rows @ rows.mT if rows.shape[0] <= rows.shape[1] else rows.mT @ rows
    return gram.trace().square() / gram.square().sum()
