"""NC2, equal norms: lengths of the centred class means and of the classifier's rows."""

from __future__ import annotations

from torch import Tensor

from tightframe import numerics
from tightframe.evidence import require_classifier
from tightframe.metrics.metric import metric
from tightframe.statistics import ClassStatistics, Weighting

__all__ = ["equinorm", "classifier_equinorm", "mean_norms"]

_PAPYAN = "Papyan, Han & Donoho 2020"


def mean_norms(statistics: ClassStatistics) -> Tensor:
    """Distance of each class mean to the mean of class means, |mu_k - mu_G|.

    Shape: (K present,), float64. Range: [0, inf), in feature units.
    Raises: EmptyClassError if fewer than two classes have samples.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # their mean is 0
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> [round(length, 6) for length in metrics.mean_norms(statistics).tolist()]
    [4.0, 3.0, 5.0]
    """
    return numerics.norms(statistics.populated().centred_means())


@metric(
    "equinorm, means", "NC2", source=_PAPYAN, convention="std/mean, ddof 1", target=0.0, headline=True, held_out=True
)
def equinorm(
    statistics: ClassStatistics, *, ddof: int = 1, centre: Weighting = "class", logarithmic: bool = False
) -> Tensor:
    """Coefficient of variation of the class means' lengths, std_k |mu_k - mu_G| / mean_k |mu_k - mu_G|.

    Shape: scalar, float64. Range: [0, sqrt(K)], unitless, or [0, inf) if logarithmic; 0 = equal lengths. Invariant to
    rotation, translation and common scale.
    Misleads: equal lengths say nothing about directions: it is 0 for any two classes, and for means that all lie at two
    opposite points.

    Args:
        ddof: 1 as in the notebook of Papyan et al.; 0 in Fang et al. 2021 and Liang & Davis 2023.
        centre: mu_G; "sample", the mean of all samples, in Fang et al. 2021 and Liang & Davis 2023.
        logarithmic: use the logarithms of the lengths and the absolute value of their mean, as in Wu & Papyan 2024. The
            result then depends on the scale of the features.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Papyan, Han & Donoho 2020, NC2 (equal norms).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.equinorm(statistics).item(), 6)  # lengths 4, 3, 5: standard deviation 1, mean 4
    0.25
    """
    lengths = numerics.norms(statistics.populated().centred_means(centre))
    value = numerics.coefficient_of_variation(lengths.log() if logarithmic else lengths, ddof)
    return value.abs() if logarithmic else value


@metric("equinorm, classifier", "NC2", source=_PAPYAN, convention="std/mean, ddof 1", target=0.0, headline=True)
def classifier_equinorm(classifier: Tensor, *, ddof: int = 1) -> Tensor:
    """`equinorm` of the classifier's rows, std_k |w_k| / mean_k |w_k|, not centred.

    Shape: classifier (K, D); scalar, float64. Range: [0, sqrt(K)], unitless; 0 = equal lengths.
    Misleads: a large vector common to all rows, which softmax ignores, makes all lengths nearly equal.

    Args:
        ddof: degrees of freedom subtracted in the standard deviation.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Papyan, Han & Donoho 2020, NC2 (equal norms).

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> round(metrics.classifier_equinorm(weight).item(), 6)  # lengths 4, 3, 5
    0.25
    """
    return numerics.coefficient_of_variation(numerics.norms(require_classifier(classifier)), ddof)
