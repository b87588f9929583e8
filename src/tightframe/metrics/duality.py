"""NC3: how close the classifier's rows come to the class means."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.errors import ShapeError
from tightframe.metrics.geometry import classifier_rows, structure_error
from tightframe.statistics import ClassStatistics, Weighting

# ---------------------------------------------------------------------- the two matrices


def self_duality_distance(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """|W/|W|_F - M/|M|_F|_F^2 with M the centred class means, classes with samples only.

    Shape: scalar. Range: [0, 4]; 0 = self-dual, 2 = unrelated. Source: Papyan, Han & Donoho 2020, NC3 (notebook).
    """
    return _frobenius_gap(statistics, weight).square().sum()


def self_duality_distance_root(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Square root of `self_duality_distance`, the form in which NC3 is often quoted. Range: [0, 2]."""
    return torch.linalg.matrix_norm(_frobenius_gap(statistics, weight))


def self_duality_error(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """`structure_error` of the classifier's rows against the centred class means.

    Shape: scalar. Range: [0, 2]; 0 iff the product W M^T is a simplex ETF's Gram matrix up to scale.
    Source: Wu & Papyan 2024; about the mean of all samples, Zhu et al. 2021.
    """
    return structure_error(statistics.populated().centred_means(), classifier_rows(statistics, weight))


def self_duality_error_sample_centred(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """`self_duality_error` with the means taken about the mean of all samples. Source: Zhu et al. 2021."""
    return structure_error(statistics.populated().centred_means("sample"), classifier_rows(statistics, weight))


def _frobenius_gap(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means()
    return rows / torch.linalg.matrix_norm(rows) - means / torch.linalg.matrix_norm(means)


# ---------------------------------------------------------------------- class by class


def classifier_mean_products(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """(K present,) inner products <w_k, mu_k - mu_G>."""
    return (classifier_rows(statistics, weight) * statistics.populated().centred_means()).sum(1)


def classifier_mean_cosines(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """(K present,) cosines between w_k and mu_k - mu_G."""
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means()
    return (numerics.unit_rows(rows) * numerics.unit_rows(means)).sum(1)


def classifier_mean_distances(statistics: ClassStatistics, weight: Tensor, *, unit: bool = True) -> Tensor:
    """(K present,) distances |w_k - (mu_k - mu_G)|, of unit vectors (in [0, 2]) or, with unit=False, as they are."""
    rows, means = classifier_rows(statistics, weight), statistics.populated().centred_means()
    if unit:
        rows, means = numerics.unit_rows(rows), numerics.unit_rows(means)
    return numerics.norms(rows - means)


def nc3_cosine(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean over classes of cos(w_k, mu_k - mu_G). Range: [-1, 1]; 1 = self-dual. Source: Wu & Papyan 2024, NC3."""
    return classifier_mean_cosines(statistics, weight).mean()


def nc3_misalignment(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean over classes of 1 - cos(w_k, mu_k - mu_G). Range: [0, 2]; 0 = self-dual. Source: Jiang et al. 2023, NC3.

    Formed from distances of unit vectors, so it doesn't cancel near collapse.
    """
    return classifier_mean_distances(statistics, weight).square().mean() / 2


def unc3_variance(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Population variance over classes of cos(w_k, mu_k - mu_G); 0 = uniform duality.

    Source: the package released with Wu & Papyan 2024, UNC3.
    """
    cosines = classifier_mean_cosines(statistics, weight)
    return (cosines - cosines.mean()).square().mean()


def unc3_cv(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Population standard deviation over mean of cos(w_k, mu_k - mu_G). Source: Wu & Papyan 2024, UNC3."""
    return numerics.coefficient_of_variation(classifier_mean_cosines(statistics, weight), ddof=0)


def duality_distance(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean over classes of the distance between the unit vectors along w_k and mu_k - mu_G. Range: [0, 2].

    Source: the package released with Wu & Papyan 2024.
    """
    return classifier_mean_distances(statistics, weight).mean()


# ---------------------------------------------------------------------- bias


def bias_collapse(statistics: ClassStatistics, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """|W mu_G + b|: the logits of the global mean (of class means), over classes with samples, in logit units.

    Range: [0, inf); 0 = the bias cancels the mean. Source: Zhu et al. 2021, who centre by the mean of all samples.
    """
    return _central_logits(statistics, weight, bias, "class")


def bias_collapse_sample_centred(statistics: ClassStatistics, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`bias_collapse` with the mean of all samples as global mean. Source: Zhu et al. 2021."""
    return _central_logits(statistics, weight, bias, "sample")


def _central_logits(statistics: ClassStatistics, weight: Tensor, bias: Tensor | None, by: Weighting) -> Tensor:
    logits = classifier_rows(statistics, weight) @ statistics.global_mean(by)
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ShapeError(f"the bias must have shape ({weight.shape[0]},); got {tuple(bias.shape)}.")
        logits = logits + classifier_rows(statistics, bias[:, None].expand_as(weight))[:, 0]
    return torch.linalg.vector_norm(logits)
