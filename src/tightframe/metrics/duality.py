"""NC3: how well the classifier's rows align with the class means."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.errors import ShapeError
from tightframe.evidence import classifier_rows
from tightframe.metrics.etf import crowded_error, rank_floor, structure_error
from tightframe.metrics.metric import Setting, metric, share
from tightframe.metrics.span import spanning_rows
from tightframe.statistics import ClassStatistics, Weighting

__all__ = [
    "self_duality_distance",
    "self_duality_error",
    "nc3_cosine",
    "unc3",
    "duality_distance",
    "bias_collapse",
    "classifier_mean_products",
    "classifier_mean_cosines",
    "classifier_mean_distances",
]

_PAPYAN, _WU = "Papyan, Han & Donoho 2020", "Wu & Papyan 2024"
_CENTRED = "about the mean of class means"

# ---------------------------------------------------------------------- targets


def _partial_cosine(setting: Setting, complement: bool = False) -> float | None:
    """Cosine of a row of a simplex of C classes with its class mean, centred by the mean of K classes."""
    if setting.crowded and setting.partial:
        return None
    cosine = math.sqrt((1 - 1 / setting.K) / (1 - 1 / setting.classes))
    return 1 - cosine if complement else cosine


def _partial_distance(setting: Setting, squared: bool = True) -> float | None:
    """|W/|W| - M/|M||^2 of K rows W of a simplex of C classes and the centred means M of these K classes."""
    gap = _partial_cosine(setting, complement=True)
    if gap is None:
        return None
    return 2 * gap if squared else math.sqrt(2 * gap)


def _partial_gap(setting: Setting) -> float | None:
    return _partial_distance(setting, squared=False)


# ---------------------------------------------------------------------- the two matrices


@metric(
    "self-duality ‖Ŵ − M̂‖²",
    "NC3",
    source=_PAPYAN,
    convention="squared Frobenius",
    target=_partial_distance,
    headline=True,
)
def self_duality_distance(
    statistics: ClassStatistics, weight: Tensor, *, squared: bool = True, centre: Weighting = "class"
) -> Tensor:
    """Distance |W/|W|_F - M/|M|_F|_F^2 of the classifier W from the centred class means M.

    Only classes with samples.

    Shape: weight (K, D); scalar, float64. Range: [0, 4], or [0, 2] without the square, unitless; 0 = self-dual.
    Misleads: lengths count as directions do: rows along their means, but of other relative lengths, are not at 0; nor
    are rows with a common vector, which softmax ignores.

    Args:
        squared: False returns the distance without the square, as NC3 is often quoted.
        centre: centre of the class means; "sample" in Fang et al. 2021 and Liang & Davis 2023.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.
    Source: Papyan, Han & Donoho 2020, NC3 (notebook).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> weight = torch.tensor([[1.0, 1.0], [-3.0, 1.0]])
    >>> round(metrics.self_duality_distance(statistics, weight).item(), 6)  # 2 - 2 * (1 + 3) / (sqrt(12) * sqrt(2))
    0.367007
    """
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means(centre)
    gap = torch.addcmul(rows / torch.linalg.matrix_norm(rows), means, 1 / torch.linalg.matrix_norm(means), value=-1)
    return numerics.row_products(gap, gap).sum() if squared else torch.linalg.matrix_norm(gap)


@metric(
    "self-duality error E(M, W)",
    "NC3",
    source=f"Zhu et al. 2021; {_WU}",
    convention=_CENTRED,
    target=0.0,
    floor=rank_floor,
    headline=True,
)
def self_duality_error(
    statistics: ClassStatistics,
    weight: Tensor,
    *,
    centre: Weighting = "class",
    classifier_centred: bool = False,
) -> Tensor:
    """`structure_error` of the classifier's rows W and the centred class means M, |W M^T/|W M^T|_F - (I -
    J/K)/sqrt(K-1)|_F.

    Shape: weight (K, D); scalar, float64. Range: [0, 2], unitless; 0 iff the product W M^T is a simplex ETF's Gram
    matrix up to scale.
    Misleads: it is 0 for linearly independent means of any shape if W is the transposed pseudo-inverse of M: neither
    need be a simplex, nor W parallel to M.

    Args:
        centre: centre of the class means; "sample", the mean of all samples, in Zhu et al. 2021.
        classifier_centred: subtract the mean row from the classifier, as in Zhou et al. 2022.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.
    Source: Zhu et al. 2021; Wu & Papyan 2024 (NC3).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> weight = torch.tensor([[1.0, 1.0], [-3.0, 1.0]])  # W M^T = (1, -1), (-3, 3)
    >>> round(metrics.self_duality_error(statistics, weight).item(), 6)  # sqrt(2 - 2 * 4 / sqrt(20))
    0.459506
    """
    rows = classifier_rows(statistics, weight)
    rows = rows - rows.mean(0) if classifier_centred else rows
    statistics = statistics.populated()
    means = statistics.centred_means(centre)
    if centre != "class" or statistics.num_classes <= statistics.num_features + 1:
        return structure_error(means, rows)
    spanning = spanning_rows(statistics)  # D rows
    overlap = numerics.row_products(means, rows).sum() - means.sum(0) @ rows.sum(0) / len(rows)
    return crowded_error(spanning.mT @ spanning, rows.mT @ rows, overlap, len(rows))


# ---------------------------------------------------------------------- class by class


def classifier_mean_products(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Inner products <w_k, mu_k - mu_G> of classifier rows and centred class means.

    Shape: weight (K, D); (K present,), float64, in logit units.
    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> metrics.classifier_mean_products(statistics, torch.tensor([[1.0, 1.0], [-3.0, 1.0]])).tolist()
    [1.0, 3.0]
    """
    return numerics.row_products(classifier_rows(statistics, weight), statistics.populated().centred_means())


def classifier_mean_cosines(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Cosines between classifier rows w_k and centred class means mu_k - mu_G.

    Shape: weight (K, D); (K present,), float64. Range: [-1, 1]; 1 = parallel.
    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> cosines = metrics.classifier_mean_cosines(statistics, torch.tensor([[3.0, 4.0], [-4.0, 3.0]]))
    >>> [round(cosine, 6) for cosine in cosines.tolist()]
    [0.6, 0.8]
    """
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means()
    return numerics.row_products(numerics.unit_rows(rows), numerics.unit_rows(means))


def classifier_mean_distances(statistics: ClassStatistics, weight: Tensor, *, unit: bool = True) -> Tensor:
    """Distances |w_k - (mu_k - mu_G)| of the unit vectors.

    Shape: weight (K, D); (K present,), float64. Range: [0, 2]; 0 = parallel.

    Args:
        unit: False takes the distances of the vectors themselves.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> distances = metrics.classifier_mean_distances(statistics, torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> [round(distance, 4) for distance in distances.tolist()]  # parallel; orthogonal
    [0.0, 1.4142]
    """
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means()
    if unit:
        rows, means = numerics.unit_rows(rows), numerics.unit_rows(means)
    return numerics.norms(rows - means)


@metric("cos(w, μ), mean", "NC3", source=_WU, convention=_CENTRED, target=_partial_cosine, headline=True)
def nc3_cosine(statistics: ClassStatistics, weight: Tensor, *, complement: bool = False) -> Tensor:
    """Mean over classes of cos(w_k, mu_k - mu_G).

    Shape: weight (K, D); scalar, float64. Range: [-1, 1], unitless; 1 = self-dual.
    Misleads: lengths do not count, and the mean hides a few classes whose rows point elsewhere
    (`classifier_mean_cosines` lists them).

    Args:
        complement: return 1 - cos, in [0, 2], computed from distances of unit vectors to avoid cancellation near
            collapse (Jiang et al. 2023, NC3).

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.
    Source: Wu & Papyan 2024, NC3.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> weight = torch.tensor([[3.0, 4.0], [-4.0, 3.0]])
    >>> round(metrics.nc3_cosine(statistics, weight).item(), 6)  # (0.6 + 0.8) / 2
    0.7
    """
    if complement:
        return classifier_mean_distances(statistics, weight).square().mean() / 2
    return classifier_mean_cosines(statistics, weight).mean()


def _bounded(value: float, setting: Setting) -> float:
    """|v| / (1 + |v|): with shuffled labels the mean is near zero, so the ratio v is unbounded."""
    return share(abs(value), setting)


@metric("UNC3  CV of cos(w, μ)", "NC3", source=_WU, convention="ddof 0", target=0.0, scale=_bounded)
def unc3(
    statistics: ClassStatistics,
    weight: Tensor,
    *,
    of: Literal["cosine", "product"] = "cosine",
    relative: bool = True,
    ddof: int = 0,
) -> Tensor:
    """Coefficient of variation over classes of cos(w_k, mu_k - mu_G), std / mean.

    Shape: weight (K, D); scalar, float64. Range: (-inf, inf), unitless, negative if the mean is; 0 = equal alignment of
    all classes; NaN if the mean is exactly 0.
    Misleads: it is 0 as well if all rows are equally far from their means, and unbounded where the mean cosine is near
    0.

    Args:
        of: "cosine" or "product", the inner products.
        relative: True divides the standard deviation by the mean; False returns the variance.
        ddof: degrees of freedom subtracted in the standard deviation or variance.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.
    Source: Wu & Papyan 2024, UNC3; their package takes the variance of products, ddof 1.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> weight = torch.tensor([[3.0, 4.0], [-4.0, 3.0]])
    >>> round(metrics.unc3(statistics, weight).item(), 6)  # cosines 0.6 and 0.8: 0.1 / 0.7
    0.142857
    """
    values = (classifier_mean_cosines if of == "cosine" else classifier_mean_products)(statistics, weight)
    if relative:
        return numerics.coefficient_of_variation(values, ddof)
    if len(values) <= ddof:
        return values.new_full((), math.nan)
    return (values - values.mean()).square().sum() / (len(values) - ddof)


@metric("‖ŵ − μ̂‖, mean", "NC3", source=f"{_WU} (package)", convention="unit vectors", target=_partial_gap)
def duality_distance(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean over classes of the distance |w_k/|w_k| - (mu_k - mu_G)/|mu_k - mu_G|| of unit vectors.

    Shape: weight (K, D); scalar, float64. Range: [0, 2], unitless; 0 = self-dual.
    Misleads: lengths do not count: rows of rare classes that have shrunk to almost nothing can be at 0.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.
    Source: package released with Wu & Papyan 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # parallel; orthogonal
    >>> round(metrics.duality_distance(statistics, weight).item(), 4)  # (0 + sqrt(2)) / 2
    0.7071
    """
    return classifier_mean_distances(statistics, weight).mean()


# ---------------------------------------------------------------------- bias


@metric(
    "bias collapse ‖Wμ_G + b‖",
    "NC3",
    source="Zhu et al. 2021",
    convention=_CENTRED,
    target=lambda s: None if s.partial else 0.0,
    headline=True,
    labelled=False,
)
def bias_collapse(
    statistics: ClassStatistics, weight: Tensor, bias: Tensor | None = None, *, centre: Weighting = "class"
) -> Tensor:
    """|W mu_G + b|: length of the logit vector of the global mean, over classes with samples.

    mu_G is the mean of class means.

    Shape: weight (K, D), bias (K,) or None for 0; scalar, float64. Range: [0, inf), in logit units; 0 = the bias
    cancels the mean.
    Misleads: logits that are equal for all classes count, although softmax ignores them, and the value grows with the
    scale of the weight.

    Args:
        centre: "sample" takes the mean of all samples as mu_G, as in Zhu et al. 2021.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if weight or bias does not fit.
    Source: Zhu et al. 2021.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.arange(2), 2)
    >>> weight, bias = torch.tensor([[1.0, 1.0], [-3.0, 1.0]]), torch.tensor([1.0, 2.0])
    >>> round(metrics.bias_collapse(statistics, weight, bias).item(), 6)  # |(2, -6) + (1, 2)|
    5.0
    """
    logits = classifier_rows(statistics, weight) @ statistics.global_mean(centre)
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ShapeError(f"the bias must have shape ({weight.shape[0]},); got {tuple(bias.shape)}.")
        logits = logits + classifier_rows(statistics, bias[:, None].expand_as(weight))[:, 0]
    return torch.linalg.vector_norm(logits)
