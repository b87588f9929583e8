"""NC2 and generalised NC: how close the class means come to a simplex equiangular tight frame."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.certificate import smallest_one_vs_rest
from tightframe.errors import DimensionError, ShapeError
from tightframe.metrics.pairs import (
    ANGLE_DEVIATION,
    COSINE,
    DISTANCE,
    LOG,
    NEAREST,
    TILE_SIZE,
    LogMoments,
    Moments,
    Smallest,
    moments,
    reduce_pairs,
    reduce_vectors,
    riesz_kernel,
)
from tightframe.statistics import ClassStatistics

# ---------------------------------------------------------------------- lengths


def mean_norms(statistics: ClassStatistics) -> Tensor:
    """(K present,) distances of the class means to the mean of class means, in feature units."""
    return numerics.norms(statistics.populated().centred_means())


def equinorm(statistics: ClassStatistics, ddof: int = 1) -> Tensor:
    """Coefficient of variation of the class means' lengths, std_k |mu_k - mu_G| / mean_k |mu_k - mu_G|.

    Shape: scalar. Range: [0, inf), unitless; 0 = equal lengths. ddof 1, as in the notebook of Papyan et al.
    Source: Papyan, Han & Donoho 2020, NC2. ddof 0 in Fang et al. 2021 and Liang & Davis 2023.
    """
    lengths = mean_norms(statistics)
    return numerics.coefficient_of_variation(lengths, ddof)


def equinorm_ddof0(statistics: ClassStatistics) -> Tensor:
    """`equinorm` with the population standard deviation. Source: Fang et al. 2021; Liang & Davis 2023."""
    return equinorm(statistics, ddof=0)


def classifier_equinorm(statistics: ClassStatistics, weight: Tensor, ddof: int = 1) -> Tensor:
    """`equinorm` of the classifier's rows w_k as they are. Source: Papyan, Han & Donoho 2020, NC2."""
    lengths = numerics.norms(classifier_rows(statistics, weight))
    return numerics.coefficient_of_variation(lengths, ddof)


# ---------------------------------------------------------------------- angles


def equiangularity(statistics: ClassStatistics, ddof: int = 1, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Standard deviation over pairs of the cosine between centred class means.

    Shape: scalar. Range: [0, 1), unitless; 0 = equal angles. ddof 1 over the K(K-1)/2 pairs; NaN for two classes.
    Source: Papyan, Han & Donoho 2020, NC2.
    """
    return moments(statistics, COSINE, tile_size).standard_deviation(ddof)


def equiangularity_ddof0(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Tensor:
    """`equiangularity` with the population standard deviation over pairs."""
    return equiangularity(statistics, ddof=0, tile_size=tile_size)


def classifier_equiangularity(
    statistics: ClassStatistics, weight: Tensor, ddof: int = 1, *, tile_size: int = TILE_SIZE
) -> Tensor:
    """`equiangularity` of the classifier's rows w_k, not centred. Source: Papyan, Han & Donoho 2020, NC2."""
    rows = classifier_rows(statistics, weight)
    reduced = reduce_vectors(rows, {"cosine": COSINE}, tile_size)["cosine"]
    return cast(Moments, reduced).standard_deviation(ddof)


def mean_cosine(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Mean over pairs of the cosine between centred class means; -1/(K-1) for a simplex ETF."""
    return moments(statistics, COSINE, tile_size).mean


def mean_cosine_uncentred(statistics: ClassStatistics) -> Tensor:
    """Mean over pairs of the cosine between class means as they are, seen from the origin. Range: [-1/(K-1), 1].

    -1/(K-1) for a simplex ETF, 0 for an orthogonal frame, the optimum without a bias or with ReLU features. Centred, an
    orthogonal frame is a simplex ETF, so no centred measure tells the two apart.
    Source: Tirer & Bruna 2022.
    """
    return _mean_cosine(statistics.populated().means)


def classifier_mean_cosine(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """`mean_cosine_uncentred` of the classifier's rows as they are. Source: Tirer & Bruna 2022."""
    return _mean_cosine(classifier_rows(statistics, weight))


def classifier_mean_cosine_centred(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Mean over pairs of the cosine between the classifier's rows minus their mean; -1/(K-1) for a simplex ETF."""
    rows = classifier_rows(statistics, weight)
    return _mean_cosine(rows - rows.mean(0))


def _mean_cosine(rows: Tensor) -> Tensor:
    """From |sum of unit rows|^2 = K + 2 sum of cosines: no pair is formed."""
    units = numerics.unit_rows(rows)
    return (units.sum(0).square().sum() - units.square().sum()) / (len(rows) * (len(rows) - 1))


def maximal_angle_deviation(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Mean over pairs of |cos + 1/(K-1)|, the distance from the maximal equal angle. Range: [0, 1 + 1/(K-1)].

    Source: Papyan, Han & Donoho 2020, NC2 ("closeness to maximal-angle equiangularity").
    """
    return moments(statistics, ANGLE_DEVIATION, tile_size).mean


def minimum_angle(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Smallest angle between two centred class means, in degrees; arccos(-1/(K-1)) for a simplex ETF."""
    return cast(Smallest, reduce_pairs(statistics, {"nearest": NEAREST}, tile_size)["nearest"]).degrees


def interference_grid(statistics: ClassStatistics) -> Tensor:
    """(K, K) inner products of the centred class means of classes with samples, in squared feature units."""
    centred = statistics.populated().centred_means()
    return centred @ centred.mT


def cosine_grid(statistics: ClassStatistics) -> Tensor:
    """(K, K) cosines between the centred class means of classes with samples."""
    units = numerics.unit_rows(statistics.populated().centred_means())
    return units @ units.mT


# ---------------------------------------------------------------------- the whole frame


def structure_error(a: Tensor, b: Tensor) -> Tensor:
    """|B A^T / |B A^T|_F - (I - J/K) / sqrt(K-1)|_F for two sets of K vectors, (K, D) each.

    Zero iff the two are dual simplex ETFs up to scale. Shape: scalar. Range: [0, 2]. For K > D + 1 no K x K matrix is
    built. Raises: ShapeError unless both are (K, D) with K >= 2.
    Source: Zhu et al. 2021; Kothapalli 2023.
    """
    if a.ndim != 2 or a.shape != b.shape or len(a) < 2:
        raise ShapeError(f"two equal (K, D) shapes with K >= 2 expected; got {tuple(a.shape)}, {tuple(b.shape)}.")
    b = b.to(a)
    classes, dim = a.shape
    root = math.sqrt(classes - 1)
    if classes <= dim + 1:
        product = b @ a.mT
        ideal = (torch.eye(classes, dtype=a.dtype, device=a.device) - 1 / classes) / root
        return torch.linalg.matrix_norm(product / torch.linalg.matrix_norm(product) - ideal)
    # |G|^2 = tr(A^T A B^T B) and <G, I - J/K> need D x D only; the rank keeps the error off zero, so nothing cancels
    length = ((a.mT @ a) * (b.mT @ b)).sum().sqrt()
    overlap = (a * b).sum() - a.sum(0) @ b.sum(0) / classes
    return (2 - 2 * overlap / (root * length)).sqrt()


def etf_error(statistics: ClassStatistics) -> Tensor:
    """`structure_error` of the centred class means with themselves. Range: [0, sqrt(2 - 2/sqrt(K-1))].

    Floor where D < K-1: sqrt(2 - 2 sqrt(D/(K-1))). Source: Kothapalli 2023; Wu & Papyan 2024 (NC2).
    """
    centred = statistics.populated().centred_means()
    return structure_error(centred, centred)


def classifier_etf_error(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """`structure_error` of the classifier's rows, not centred. Source: Zhu et al. 2021; Yaras et al. 2022."""
    rows = classifier_rows(statistics, weight)
    return structure_error(rows, rows)


def classifier_etf_error_centred(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """`structure_error` of the classifier's rows minus their mean. Source: Zhou et al. 2022."""
    rows = classifier_rows(statistics, weight)
    rows = rows - rows.mean(0)
    return structure_error(rows, rows)


def etf_distance(statistics: ClassStatistics) -> Tensor:
    """Frobenius distance of the normalised centred class means to the nearest simplex ETF, in closed form.

    Equals sqrt(2 - 2 |M|_* / (sqrt(K-1) |M|_F)); the residual to the polar factor is formed, so nothing cancels near
    collapse. For D < K-1 the means are padded with zeros to K-1 dimensions: floor sqrt(2 - 2 sqrt(D/(K-1))).
    Shape: scalar. Range: [0, sqrt(2 - 2/sqrt(K-1))].
    Source: the orthogonal Procrustes problem; as a target, Markou et al. 2024.
    """
    rows, polar = _polar(statistics)
    residual = rows / torch.linalg.matrix_norm(rows) - polar / math.sqrt(len(rows))
    missing = max(0, len(rows) - rows.shape[1]) / len(rows)
    if missing:
        return (residual.square().sum() + missing).sqrt()
    return torch.linalg.matrix_norm(residual)


def nearest_etf(statistics: ClassStatistics) -> Tensor:
    """(K, D) simplex ETF of unit vectors nearest to the centred class means up to scale.

    Rows follow the classes with samples. Raises: DimensionError where D < K-1, as no simplex ETF fits.
    """
    rows, polar = _polar(statistics)
    classes = len(rows) + 1
    if rows.shape[1] < classes - 1:
        raise DimensionError(f"a simplex ETF of {classes} classes needs {classes - 1} dimensions; got {rows.shape[1]}.")
    return numerics.from_contrasts(polar) * math.sqrt(classes / (classes - 1))


def _polar(statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Contrasts of the centred means (K-1, D) and their polar factor, a constant: the distance is stationary in it."""
    rows = numerics.contrasts(statistics.populated().centred_means())
    left, _, right = torch.linalg.svd(rows.detach(), full_matrices=False)
    return rows, left @ right


def participation_ratio(statistics: ClassStatistics) -> Tensor:
    """(tr S)^2 / tr S^2 of the centred class means' second moment S: how many dimensions they use evenly.

    Shape: scalar. Range: [1, min(K-1, D)]; K-1 for a simplex ETF.
    """
    rows = statistics.populated().centred_means()
    gram = rows @ rows.mT if rows.shape[0] <= rows.shape[1] else rows.mT @ rows
    return gram.trace().square() / gram.square().sum()


# ---------------------------------------------------------------------- hyperspherical uniformity


def distance_kernel(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Moments:
    """Mean, variance and CV over pairs of |u_i - u_j|, u the unit vectors along the centred class means.

    sqrt(2K/(K-1)) without variance for a simplex ETF. Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.
    """
    return moments(statistics, DISTANCE, tile_size)


def log_kernel(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Moments:
    """Mean, variance and CV over pairs of -log |u_i - u_j|; -ln(2K/(K-1))/2 for a simplex ETF, a lower bound.

    Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.
    """
    return moments(statistics, LOG, tile_size)


def riesz_kernel_moments(
    statistics: ClassStatistics, exponent: float = 1.0, *, tile_size: int = TILE_SIZE
) -> LogMoments:
    """Log of the mean, and CV, over pairs of |u_i - u_j|^-exponent, kept in logarithms for any exponent.

    Source: Liu et al. 2023 (GNC2).
    """
    return cast(LogMoments, reduce_pairs(statistics, {"riesz": riesz_kernel(exponent)}, tile_size)["riesz"])


def distance_mean(statistics: ClassStatistics) -> Tensor:
    """Mean of `distance_kernel`; an upper bound is sqrt(2K/(K-1))."""
    return distance_kernel(statistics).mean


def distance_variance(statistics: ClassStatistics) -> Tensor:
    """Population variance of `distance_kernel`."""
    return distance_kernel(statistics).variance


def distance_cv(statistics: ClassStatistics) -> Tensor:
    """Population standard deviation of `distance_kernel` over its mean."""
    return distance_kernel(statistics).cv


def log_kernel_mean(statistics: ClassStatistics) -> Tensor:
    """Mean of `log_kernel`."""
    return log_kernel(statistics).mean


def log_kernel_variance(statistics: ClassStatistics) -> Tensor:
    """Population variance of `log_kernel`."""
    return log_kernel(statistics).variance


def log_kernel_cv(statistics: ClassStatistics) -> Tensor:
    """Population standard deviation of `log_kernel` over its absolute mean."""
    return log_kernel(statistics).cv


def riesz_mean(statistics: ClassStatistics, exponent: float = 1.0) -> Tensor:
    """Mean over pairs of |u_i - u_j|^-exponent; (2K/(K-1))^(-exponent/2) for a simplex ETF."""
    return riesz_kernel_moments(statistics, exponent).mean


def riesz_cv(statistics: ClassStatistics, exponent: float = 1.0) -> Tensor:
    """Population standard deviation over mean of |u_i - u_j|^-exponent."""
    return riesz_kernel_moments(statistics, exponent).cv


def one_vs_rest_distance(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """Smallest distance of a unit classifier row to the convex hull of the others; largest for a softmax code.

    Shape: scalar. Range: [0, K/(K-1)], the upper end for a simplex ETF; at most 1 where K > D + 1. Exact, by a
    quadratic program for every class: the cost grows like K^2 D.
    Source: Jiang et al. 2023, GNC2.
    """
    return smallest_one_vs_rest(numerics.unit_rows(classifier_rows(statistics, weight)))


# ---------------------------------------------------------------------- classifiers


def classifier_rows(statistics: ClassStatistics, weight: Tensor) -> Tensor:
    """The classifier's rows of the classes with samples, (K present, D) in the statistics' dtype and device.

    `weight` has a row for every class of the statistics or, after `select`, for every original label.
    """
    populated = statistics.populated()
    allowed = {statistics.num_classes, statistics.num_labels}
    if weight.ndim != 2 or weight.shape[0] not in allowed or weight.shape[1] != statistics.num_features:
        raise ShapeError(
            f"the classifier's weight must have shape (classes, features) = ({statistics.num_classes}, "
            f"{statistics.num_features}); got {tuple(weight.shape)}."
        )
    weight = weight.to(statistics.means)
    if weight.shape[0] == statistics.num_labels:
        return weight[populated.class_ids]
    return weight[statistics.present]
