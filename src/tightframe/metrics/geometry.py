"""NC2 and generalised NC: how close the class means are to a simplex equiangular tight frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.codes import best_listed, bounds, energies, smallest_one_vs_rest
from tightframe.errors import ChoiceError, DimensionError, ShapeError
from tightframe.metrics.metric import Needs, Setting, metric
from tightframe.metrics.pairs import (
    ANGLE_DEVIATION,
    COSINE,
    DISTANCE,
    LOG,
    NEAREST,
    TILE_SIZE,
    Kernel,
    Moments,
    OverPairs,
    over_pairs,
    reduce_vectors,
    riesz,
)
from tightframe.metrics.shared import spanning_factors, spanning_rows
from tightframe.metrics.spectra import Part, require_part, warn_of_few_samples
from tightframe.statistics import ClassStatistics, Weighting

__all__ = [
    "classifier_equiangularity",
    "classifier_equinorm",
    "classifier_etf_error",
    "classifier_mean_cosine",
    "cosine_grid",
    "distance_kernel",
    "equiangularity",
    "equinorm",
    "etf_distance",
    "etf_error",
    "interference_grid",
    "log_kernel",
    "maximal_angle_deviation",
    "mean_cosine",
    "mean_norms",
    "minimum_angle",
    "nearest_etf",
    "one_vs_rest_distance",
    "participation_ratio",
    "riesz_kernel",
    "structure_error",
]

_PAPYAN, _LIU, _TIRER = "Papyan, Han & Donoho 2020", "Liu et al. 2023", "Tirer & Bruna 2022"
_CENTRED = "about the mean of class means"

Reading = Literal["mean", "variance", "cv"]
"""Statistic of a kernel's values over all pairs: mean, population variance, or coefficient of variation."""

# ---------------------------------------------------------------------- bounds from the dimension


def _whole(bound: Callable[..., float | None]) -> Callable[..., float | None]:
    """The bound if all classes of the model have samples, else None: it does not hold for a subset of classes.

    None also for an infinite bound (D = 1): there some vectors must coincide, and the metric leaves out such pairs.
    """

    @wraps(bound)
    def floor(setting: Setting, **options: Any) -> float | None:
        value = None if setting.partial else bound(setting, **options)
        return None if value is None or math.isinf(value) else value

    return floor


@_whole
def rank_floor(setting: Setting) -> float:
    return math.sqrt(2 - 2 * math.sqrt(setting.D / (setting.K - 1)))


@_whole
def _angle_floor(setting: Setting) -> float:
    """The largest possible smallest angle of K vectors in R^D: a proven optimum, else a bound."""
    K, D = setting.K, setting.D
    cosine = bounds.cosine_bound(K, D).value
    code = best_listed(K, D) if D > 1 else None
    if code is not None and code.optimal and (code.K, code.D) == (K, D):
        cosine = max(cosine, code.cosine)
    return math.degrees(math.acos(min(cosine, 1.0)))


@_whole
def _one_vs_rest_floor(setting: Setting) -> float | None:
    """0 for D = 1, where two rows coincide; 1 - cos(2 pi/K) for D = 2; 1 for D + 2 <= K <= 2D; else unknown."""
    if setting.D <= 2:
        return 0.0 if setting.D == 1 else 1 - math.cos(2 * math.pi / setting.K)
    return 1.0 if setting.K <= 2 * setting.D else None


@_whole
def _log_floor(setting: Setting, of: Reading = "mean") -> float | None:
    return energies.log_kernel_bound(setting.K, setting.D) if of == "mean" else None


@_whole
def _distance_floor(setting: Setting, of: Reading = "mean") -> float | None:
    return energies.distance_bound(setting.K, setting.D) if of == "mean" else None


@_whole
def _riesz_floor(setting: Setting, of: Reading = "mean", exponent: float = 1.0) -> float | None:
    return energies.riesz_bound(setting.K, setting.D, exponent) if of == "mean" else None


@_whole
def _spread_floor(setting: Setting, ddof: int = 1) -> float:
    return energies.equiangularity_floor(setting.K, setting.D, ddof=ddof)


@_whole
def _deviation_floor(setting: Setting) -> float:
    return energies.maximal_angle_floor(setting.K, setting.D)


@_whole
def _dimension(setting: Setting, of: Part = "between") -> float | None:
    return setting.D if of == "between" else None


# ---------------------------------------------------------------------- lengths


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


_MANY_ROWS = 4096  # number of rows above which the variance of cosines is computed without forming pairs
_CANCELLING = 1e-9  # variance of cosines below which that computation loses digits


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
    return numerics.coefficient_of_variation(numerics.norms(_rows(classifier)), ddof)


# ---------------------------------------------------------------------- angles


def _equiangularity(ddof: int = 1, exact: bool = False) -> OverPairs:
    return OverPairs(COSINE, lambda moments: (moments.exact if exact else moments).standard_deviation(ddof))


@metric(
    "equiangularity, means",
    "NC2",
    source=_PAPYAN,
    convention="std of cosines, ddof 1",
    target=0.0,
    floor=_spread_floor,
    pairs=_equiangularity,
    headline=True,
    held_out=True,
)
def equiangularity(
    statistics: ClassStatistics, *, ddof: int = 1, exact: bool = False, tile_size: int = TILE_SIZE
) -> Tensor:
    """Standard deviation over pairs of the cosine between centred class means, std_{i<j} cos(mu_i - mu_G, mu_j - mu_G).

    A class mean equal to the mean of class means has no direction: its pairs are left out; with `exact` they give NaN.

    Shape: scalar, float64. Range: [0, sqrt(P/(P - ddof))] for P = K(K-1)/2 pairs, unitless; 0 = equal angles; NaN for
    two classes with ddof 1. Invariant to rotation, translation and common scale.
    Misleads: random directions in D dimensions give about 1/sqrt(D), so a small value in many dimensions is no evidence
    of equal angles.

    Args:
        ddof: degrees of freedom subtracted from the number of pairs, K(K-1)/2.
        exact: include all pairs: NaN if one is.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Papyan, Han & Donoho 2020, NC2 (equal angles).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.equiangularity(statistics).item(), 6)  # cosines 0, -0.8, -0.6: variance 0.52 / 3
    0.416333
    """
    return over_pairs(statistics, _equiangularity(ddof, exact), tile_size=tile_size)[0]


@metric(
    "equiangularity, classifier", "NC2", source=_PAPYAN, convention="std of cosines, ddof 1", target=0.0, headline=True
)
def classifier_equiangularity(classifier: Tensor, *, ddof: int = 1, tile_size: int = TILE_SIZE) -> Tensor:
    """`equiangularity` of the classifier's rows, std_{i<j} cos(w_i, w_j), not centred.

    Shape: classifier (K, D); scalar, float64. Range: [0, sqrt(P/(P - ddof))] for P = K(K-1)/2 pairs, unitless; 0 =
    equal angles; NaN for two rows with ddof 1.
    Misleads: a large vector common to all rows, which softmax ignores, moves every cosine towards 1 and the deviation
    towards 0.

    Args:
        ddof: degrees of freedom subtracted from the number of pairs, K(K-1)/2.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Papyan, Han & Donoho 2020, NC2 (equal angles).

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> round(metrics.classifier_equiangularity(weight).item(), 6)  # cosines 0, -0.8, -0.6: variance 0.52 / 3
    0.416333
    """
    rows = _rows(classifier)
    if len(rows) > max(_MANY_ROWS, 2 * rows.shape[1]) and not rows.requires_grad:
        variance = _variance_of_cosines(rows, ddof)
        if variance > _CANCELLING:
            return variance.sqrt()
    reduced = reduce_vectors(rows, {"cosine": COSINE}, tile_size)["cosine"]
    assert isinstance(reduced, Moments)
    return reduced.standard_deviation(ddof)


def _variance_of_cosines(rows: Tensor, ddof: int) -> Tensor:
    """Variance over pairs of (K, D) rows, from |U^T U|^2 and |sum of U|^2 of unit rows U, in K D^2 products."""
    units = numerics.unit_rows(rows)
    squares = units.square().sum(1)
    pairs = len(rows) * (len(rows) - 1) / 2
    total = (units.sum(0).square().sum() - squares.sum()) / 2
    of_squares = ((units.mT @ units).square().sum() - squares.square().sum()) / 2
    return (of_squares - total.square() / pairs) / (pairs - ddof)


def _simplex_cosine(setting: Setting, centred: bool = True) -> float | None:
    return -1 / (setting.K - 1) if centred else None  # not centred: -1/(K-1) or 0, both optimal


@metric(
    "mean cosine of means",
    "NC2",
    source=f"{_PAPYAN}; {_TIRER}",
    convention=_CENTRED,
    target=_simplex_cosine,
)
def mean_cosine(statistics: ClassStatistics, *, centred: bool = True) -> Tensor:
    """Mean over pairs of the cosine between class means; -1/(K-1) for a simplex ETF.

    Shape: scalar, float64. Range: [-1/(K-1), 1], unitless. Invariant to rotation and common scale, centred also to
    translation.
    Misleads: centred means of equal length have the mean -1/(K-1) at any angles, because they sum to zero.

    Args:
        centred: subtract the mean of class means. Not centred: -1/(K-1) for a simplex ETF, 0 for an orthogonal frame,
            the optimum without a bias or with ReLU features (Tirer & Bruna 2022). A centred orthogonal frame is a
            simplex ETF, so centred measures can't distinguish the two.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Papyan, Han & Donoho 2020, NC2, for centred means; Tirer & Bruna 2022 for means that are not centred.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.mean_cosine(statistics).item(), 6)  # (0 - 0.8 - 0.6) / 3
    -0.466667
    """
    statistics = statistics.populated()
    return _mean_cosine(statistics.centred_means() if centred else statistics.means)


@metric(
    "mean cosine of classifier",
    "NC2",
    source=_TIRER,
    convention="rows not centred: −1/(K−1) simplex, 0 orthogonal",
    target=lambda s, centred=False: _simplex_cosine(s, centred),
)
def classifier_mean_cosine(classifier: Tensor, *, centred: bool = False) -> Tensor:
    """`mean_cosine` of the classifier's rows, by default not centred.

    Rows of length zero have no direction: their pairs are left out; NaN if fewer than two rows remain.

    Shape: classifier (K, D); scalar, float64. Range: [-1/(K-1), 1], unitless.
    Misleads: rows of equal length that sum to zero have the mean -1/(K-1) at any angles.

    Args:
        centred: subtract the mean row.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Tirer & Bruna 2022, orthogonal frames of models without a bias.

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.eye(3)
    >>> for centred in (False, True):  # an orthogonal frame; a simplex ETF
    ...     print(round(metrics.classifier_mean_cosine(weight, centred=centred).item(), 6))
    0.0
    -0.5
    """
    rows = _rows(classifier)
    return _mean_cosine(rows - rows.mean(0) if centred else rows)


def _mean_cosine(rows: Tensor) -> Tensor:
    """Mean cosine over pairs from |sum of unit rows|^2 = K + 2 sum of cosines, without forming pairs.

    Rows of length zero are left out; NaN for fewer than two others."""
    lengths = numerics.norms(rows)
    directed = lengths.detach() > 0  # a mean at the centre has no direction
    if not directed.all():
        rows, lengths = rows[directed], lengths[directed]
    if (number := len(rows)) < 2:
        return rows.new_full((), math.nan)
    return ((1 / lengths @ rows).square().sum() - number) / (number * (number - 1))


def _deviation(exact: bool = False) -> OverPairs:
    return OverPairs(ANGLE_DEVIATION, lambda moments: (moments.exact if exact else moments).mean)


@metric(
    "maximal-angle deviation",
    "NC2",
    source=_PAPYAN,
    convention="mean |cos + 1/(K−1)|",
    target=0.0,
    floor=_deviation_floor,
    attainable=False,
    pairs=_deviation,
    headline=True,
)
def maximal_angle_deviation(statistics: ClassStatistics, *, exact: bool = False, tile_size: int = TILE_SIZE) -> Tensor:
    """Mean over pairs of |cos(mu_i - mu_G, mu_j - mu_G) + 1/(K-1)|, the deviation from the maximal equal angle.

    A class mean equal to the mean of class means has no direction: its pairs are left out; with `exact` they give NaN.

    Shape: scalar, float64. Range: [0, 1 + 1/(K-1)], unitless; 0 = simplex directions. Invariant to rotation,
    translation and common scale.
    Misleads: random directions in D dimensions give about sqrt(2/(pi D)), so a small value in many dimensions is no
    evidence of a simplex.

    Args:
        exact: include all pairs: NaN if one is.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Papyan, Han & Donoho 2020, NC2 ("closeness to maximal-angle equiangularity").

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.maximal_angle_deviation(statistics).item(), 6)  # cosines 0, -0.8, -0.6: (0.5 + 0.3 + 0.1) / 3
    0.3
    """
    return over_pairs(statistics, _deviation(exact), tile_size=tile_size)[0]


def _nearest() -> OverPairs:
    return OverPairs(NEAREST, lambda smallest: torch.rad2deg(smallest.value))


@metric(
    "smallest angle of means (°)",
    "NC2",
    source="Tammes 1930",
    convention=_CENTRED,
    target=lambda s: math.degrees(math.acos(-1 / (s.K - 1))),
    floor=_angle_floor,
    pairs=_nearest,
)
def minimum_angle(statistics: ClassStatistics, *, tile_size: int = TILE_SIZE) -> Tensor:
    """Smallest angle between two centred class means, min_{i<j} arccos cos(mu_i - mu_G, mu_j - mu_G).

    Shape: scalar, float64. Range: [0, 180], in degrees; arccos(-1/(K-1)) for a simplex ETF. Invariant to rotation,
    translation and common scale.
    Misleads: one pair decides: two similar classes give the same value as a frame in which all angles are small.

    Args:
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: the quantity that Tammes's problem maximises (Tammes 1930).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.minimum_angle(statistics).item(), 6)  # the first two
    90.0
    """
    return over_pairs(statistics, _nearest(), tile_size=tile_size)[0]


def interference_grid(statistics: ClassStatistics) -> Tensor:
    """Inner products of the centred class means.

    Shape: (K present, K present), float64, symmetric, in squared feature units.
    Raises: EmptyClassError if fewer than two classes have samples.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> metrics.interference_grid(statistics).tolist()
    [[16.0, 0.0, -16.0], [0.0, 9.0, -9.0], [-16.0, -9.0, 25.0]]
    """
    centred = statistics.populated().centred_means()
    return centred @ centred.mT


def cosine_grid(statistics: ClassStatistics) -> Tensor:
    """Cosines between the centred class means.

    Shape: (K present, K present), float64, symmetric. Range: [-1, 1]; NaN for a mean without a direction.
    Raises: EmptyClassError if fewer than two classes have samples.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> [round(value, 6) for value in metrics.cosine_grid(statistics)[2].tolist()]
    [-0.8, -0.6, 1.0]
    """
    units = numerics.unit_rows(statistics.populated().centred_means())
    return units @ units.mT


# ---------------------------------------------------------------------- the whole frame


def structure_error(a: Array, b: Array) -> Tensor:
    """|B A^T / |B A^T|_F - (I - J/K) / sqrt(K-1)|_F for two sets of K vectors; J is the matrix of ones.

    For K > D + 1 no K x K matrix is built.

    Shape: a, b (K, D); scalar, in the dtype of a. Range: [0, 2]; 0 iff the sets are dual simplex ETFs up to scale.
    Raises: ShapeError unless both are (K, D) with K >= 2.
    Source: Zhu et al. 2021; Kothapalli 2023.

    >>> import torch
    >>> from tightframe import metrics
    >>> a, b = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [-3.0, 1.0]])
    >>> round(metrics.structure_error(a, b).item(), 4)  # B A^T = (1, -1), (-3, 3): sqrt(2 - 2 * 4 / sqrt(20))
    0.4595
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim != 2 or a.shape != b.shape or len(a) < 2:
        raise ShapeError(f"both sets must have the same shape (K, D), K >= 2; got {tuple(a.shape)}, {tuple(b.shape)}.")
    b = b.to(a)
    classes, dim = a.shape
    if classes <= dim + 1:
        product = b @ a.mT
        ideal = (torch.eye(classes, dtype=a.dtype, device=a.device) - 1 / classes) / math.sqrt(classes - 1)
        return torch.linalg.matrix_norm(product / torch.linalg.matrix_norm(product) - ideal)
    gram = a.mT @ a
    overlap = numerics.row_products(a, b).sum() - a.sum(0) @ b.sum(0) / classes
    return crowded_error(gram, gram if a is b else b.mT @ b, overlap, classes)


def crowded_error(a: Tensor, b: Tensor, overlap: Tensor, classes: int) -> Tensor:
    """`structure_error` for K > D + 1, from A^T A, B^T B and <B A^T, I - J/K>: |B A^T|^2 = tr(A^T A B^T B).

    The rank bounds the error away from 0, so nothing cancels.
    """
    return (2 - 2 * overlap / (math.sqrt(classes - 1) * (a * b).sum().sqrt())).sqrt()


@metric(
    "ETF error, means",
    "NC2",
    source="Kothapalli 2023",
    convention="Gram matrices, Frobenius",
    target=0.0,
    floor=rank_floor,
    headline=True,
    held_out=True,
)
def etf_error(statistics: ClassStatistics) -> Tensor:
    """`structure_error` of the centred class means M with themselves, |M M^T / |M M^T|_F - (I - J/K) / sqrt(K-1)|_F.

    Equals sqrt(2 - 2 sqrt(PR / (K-1))) with the `participation_ratio` PR.

    Shape: scalar, float64. Range: [0, sqrt(2 - 2/sqrt(K-1))], unitless; 0 = simplex ETF; for D < K-1 at least sqrt(2 -
    2 sqrt(D/(K-1))). Invariant to rotation, translation and common scale.
    Misleads: it depends on the participation ratio of the means alone, so it can't distinguish unequal lengths from
    unequal angles.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Kothapalli 2023; Wu & Papyan 2024 (NC2).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.etf_error(statistics).item(), 6)  # PR = 50^2 / 1636: sqrt(2 - 2 * sqrt(PR / 2))
    0.501788
    """
    statistics = statistics.populated()
    if statistics.num_classes <= statistics.num_features + 1:
        centred = statistics.centred_means()
        return structure_error(centred, centred)
    rows = spanning_rows(statistics)
    gram = rows.mT @ rows
    return crowded_error(gram, gram, gram.trace(), statistics.num_classes)


def _partial_error(setting: Setting, centred: bool = False) -> float | None:
    """Error of K rows of a simplex of C classes; their Gram matrix, not centred, is I - J/C."""
    K, C = setting.K, setting.classes
    if setting.crowded and setting.partial:
        return None
    if centred:
        return 0.0
    length = math.sqrt(K * (1 - 1 / C) ** 2 + K * (K - 1) / C**2)
    return math.sqrt(max(2 - 2 * math.sqrt(K - 1) / length, 0.0)) if K < C else 0.0


@metric(
    "ETF error, classifier",
    "NC2",
    source="Zhu et al. 2021",
    convention="rows not centred",
    target=_partial_error,
    floor=rank_floor,
    headline=True,
)
def classifier_etf_error(classifier: Tensor, *, centred: bool = False) -> Tensor:
    """`structure_error` of the classifier's rows W with themselves, |W W^T / |W W^T|_F - (I - J/K) / sqrt(K-1)|_F.

    Shape: classifier (K, D); scalar, float64. Range: [0, sqrt(2)], unitless; 0 = simplex ETF.
    Misleads: a vector common to all rows makes it large, although softmax ignores this vector; centred=True removes it.

    Args:
        centred: subtract the mean row.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Zhu et al. 2021 and Yaras et al. 2022, not centred; Zhou et al. 2022, centred.

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.eye(2)  # W W^T = I: sqrt(2 - 2 / sqrt(2)); centred (1, -1) / 2 and its negative, a simplex
    >>> [round(metrics.classifier_etf_error(weight, centred=each).item(), 6) for each in (False, True)]
    [0.765367, 0.0]
    """
    rows = _rows(classifier)
    rows = rows - rows.mean(0) if centred else rows
    return structure_error(rows, rows)


@metric(
    "distance to nearest ETF",
    "NC2",
    source="closed form",
    convention="Procrustes, Frobenius",
    target=0.0,
    floor=rank_floor,
    headline=True,
)
def etf_distance(statistics: ClassStatistics) -> Tensor:
    """Frobenius distance of the normalised centred class means to the nearest simplex ETF, in closed form.

    Equals sqrt(2 - 2 |M|_* / (sqrt(K-1) |M|_F)); computed from the residual to the polar factor, without cancellation
    near collapse. For D < K-1 the means are padded with zeros to K-1 dimensions; minimum sqrt(2 - 2 sqrt(D/(K-1))).

    Shape: scalar, float64. Range: [0, sqrt(2 - 2/sqrt(K-1))], unitless; 0 = simplex ETF. Invariant to rotation,
    translation and common scale.
    Misleads: one mean far from the others dominates |M|_F, so the distance is large although the other means are a
    simplex.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: orthogonal Procrustes problem, closed form; used as a training target in Markou et al. 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # |M|_F = sqrt(50), |M|_* = sqrt(50 + 2 sqrt(432))
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.etf_distance(statistics).item(), 6)  # sqrt(2 - 2 * 9.569178 / 10)
    0.293537
    """
    statistics = statistics.populated()
    rows, polar = _polar(statistics)
    possible = statistics.num_classes - 1
    residual = rows / torch.linalg.matrix_norm(rows) - polar / math.sqrt(possible)
    missing = max(0, possible - rows.shape[1]) / possible
    if missing:
        return (residual.square().sum() + missing).sqrt()
    return torch.linalg.matrix_norm(residual)


def nearest_etf(statistics: ClassStatistics) -> Tensor:
    """The simplex ETF of unit vectors nearest to the centred class means up to scale, the target of `etf_distance`.

    Shape: (K present, D), float64; rows of length 1.
    Raises: DimensionError if D < K-1, where no simplex ETF exists; EmptyClassError if fewer than two classes have
    samples.
    Source: orthogonal Procrustes problem.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.arange(2), 2)
    >>> [[round(value, 6) + 0.0 for value in row] for row in metrics.nearest_etf(statistics).tolist()]
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    statistics = statistics.populated()
    classes, dim = statistics.num_classes, statistics.num_features
    if dim < classes - 1:
        raise DimensionError(f"a simplex ETF of {classes} classes needs at least {classes - 1} dimensions; got {dim}.")
    _, polar = _polar(statistics)
    return numerics.from_contrasts(polar) * math.sqrt(classes / (classes - 1))


def _polar(statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
    """`spanning_rows` and their polar factor without a graph: the distance is stationary in the factor."""
    left, _, right = spanning_factors(statistics)
    return spanning_rows(statistics), left @ right


def _participation_target(setting: Setting, of: Part = "between") -> float | None:
    return setting.K - 1 if of == "between" else None


def _participation_needs(of: Part = "between") -> Needs:
    return "means" if of == "between" else "scatter"


@metric(
    "participation ratio of means",
    "NC2",
    source="Gao et al. 2017",
    convention=_CENTRED,
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


# ---------------------------------------------------------------------- hyperspherical uniformity


def _kernel(kernel: Kernel, of: Reading, exact: bool) -> OverPairs:
    if of not in ("mean", "variance", "cv"):
        raise ChoiceError(f'of must be "mean", "variance" or "cv"; got {of!r}.')
    return OverPairs(kernel, lambda moments: getattr(moments.exact if exact else moments, of))


def _log(of: Reading = "mean", exact: bool = False) -> OverPairs:
    return _kernel(LOG, of, exact)


def _distance(of: Reading = "mean", exact: bool = False) -> OverPairs:
    return _kernel(DISTANCE, of, exact)


def _riesz(of: Reading = "mean", exponent: float = 1.0, exact: bool = False) -> OverPairs:
    return _kernel(_UNIT_RIESZ if exponent == 1 else riesz(exponent), of, exact)


_UNIT_RIESZ = riesz(1)


def _edge(setting: Setting) -> float:
    """Distance between two unit vectors of a simplex ETF."""
    return math.sqrt(2 * setting.K / (setting.K - 1))


def _log_target(setting: Setting, of: Reading = "mean") -> float:
    return -math.log(_edge(setting)) if of == "mean" else 0.0


def _distance_target(setting: Setting, of: Reading = "mean") -> float:
    return _edge(setting) if of == "mean" else 0.0


def _riesz_target(setting: Setting, of: Reading = "mean", exponent: float = 1.0) -> float:
    return _edge(setting) ** -exponent if of == "mean" else 0.0


_UNIT = "unit centred means, over pairs"


@metric(
    "log kernel", "GNC2", source=_LIU, convention=_UNIT, target=_log_target, floor=_log_floor, pairs=_log, headline=True
)
def log_kernel(
    statistics: ClassStatistics, *, of: Reading = "mean", exact: bool = False, tile_size: int = TILE_SIZE
) -> Tensor:
    """-log |u_i - u_j| over pairs; u are the unit vectors of the centred class means.

    Over all pairs the mean is at least -ln(2K/(K-1))/2, attained by a simplex ETF, where variance and CV are 0. Pairs
    with equal directions are left out, which can lower the mean to -ln 2; with `exact` they make it infinite.

    Shape: scalar, float64. Range: of the mean, [-ln(2), inf), unitless; of variance and CV, [0, inf). Invariant to
    rotation, translation and common scale.
    Misleads: classes in the same direction are left out, so a collapsed frame can be below the minimum (see `exact`).
    Random directions of many classes have a mean of about -0.3466 + 1/(4D), close to the minimum in many dimensions.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.log_kernel(statistics).item(), 6)  # -ln(2 * 3.6 * 3.2) / 6
    -0.522872
    """
    return over_pairs(statistics, _log(of, exact), tile_size=tile_size)[0]


@metric(
    "distance kernel",
    "GNC2",
    source=_LIU,
    convention=_UNIT,
    target=_distance_target,
    floor=_distance_floor,
    pairs=_distance,
)
def distance_kernel(
    statistics: ClassStatistics, *, of: Reading = "mean", exact: bool = False, tile_size: int = TILE_SIZE
) -> Tensor:
    """|u_i - u_j| over pairs; u are the unit vectors of the centred class means.

    The mean is at most sqrt(2K/(K-1)), attained by a simplex ETF.

    Shape: scalar, float64. Range: of the mean, [0, sqrt(2K/(K-1))], unitless; of variance and CV, [0, inf). Invariant
    to rotation, translation and common scale.
    Misleads: random directions of many classes in many dimensions have a mean near sqrt(2), close to the maximum.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2); Wu & Papyan 2024.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.distance_kernel(statistics).item(), 6)  # (sqrt(2) + sqrt(3.6) + sqrt(3.2)) / 3
    1.700145
    """
    return over_pairs(statistics, _distance(of, exact), tile_size=tile_size)[0]


@metric(
    "Riesz kernel, s = 1", "GNC2", source=_LIU, convention=_UNIT, target=_riesz_target, floor=_riesz_floor, pairs=_riesz
)
def riesz_kernel(
    statistics: ClassStatistics,
    *,
    of: Reading = "mean",
    exponent: float = 1.0,
    exact: bool = False,
    tile_size: int = TILE_SIZE,
) -> Tensor:
    """|u_i - u_j|^-exponent over pairs; u are the unit vectors of the centred class means.

    Over all pairs the mean is at least (2K/(K-1))^(-exponent/2), attained by a simplex ETF. Computed in logarithms, for
    any exponent. Pairs with equal directions are left out, which can lower the mean to 2^-exponent; with `exact` they
    make it infinite.

    Shape: scalar, float64. Range: of the mean, [2^(-exponent), inf), unitless; of variance and CV, [0, inf). Invariant
    to rotation, translation and common scale.
    Misleads: classes in the same direction are left out, so a collapsed frame can be below the minimum (see `exact`).
    The larger the exponent, the more the nearest pair alone decides.

    Args:
        of: "mean", "variance" (population) or "cv", the population standard deviation over the absolute mean.
        exponent: > 0.
        exact: include all pairs.
        tile_size: number of classes per tile of the Gram matrix; it changes memory and time only.

    Raises: EmptyClassError if fewer than two classes have samples; ChoiceError for other values of `of`.
    Source: Liu et al. 2023 (GNC2).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])  # squared distances of directions 2, 3.6, 3.2
    >>> statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    >>> round(metrics.riesz_kernel(statistics, exponent=2).item(), 6)  # (1/2 + 1/3.6 + 1/3.2) / 3
    0.363426
    """
    return over_pairs(statistics, _riesz(of, exponent, exact), tile_size=tile_size)[0]


def _one_vs_rest_target(setting: Setting) -> float | None:
    if setting.crowded:
        return None
    return math.sqrt(setting.classes / (setting.classes - 1) * setting.K / (setting.K - 1))


@metric(
    "one-vs-rest distance",
    "GNC2",
    source="Jiang et al. 2023",
    convention="unit classifier rows",
    target=_one_vs_rest_target,
    floor=_one_vs_rest_floor,
    most_classes=100,
)
def one_vs_rest_distance(classifier: Tensor) -> Tensor:
    """Smallest distance of a unit classifier row to the convex hull of the other rows; maximal for a softmax code.

    Exact, from one quadratic program per class; the cost grows as K^2 D. NaN if a row has length zero, which has no
    direction.

    Shape: classifier (K, D); scalar, float64. Range: [0, K/(K-1)], unitless; K/(K-1) for a simplex ETF, at most 1 for K
    > D + 1.
    Misleads: one row decides, and the lengths of rows, which decisions depend on, do not count.

    Raises: ShapeError unless the classifier is (K, D) with K >= 2.
    Source: Jiang et al. 2023, GNC2.

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # the other rows contain the origin
    >>> round(metrics.one_vs_rest_distance(weight).item(), 6)
    1.0
    """
    units = numerics.unit_rows(_rows(classifier))
    return units.new_full((), math.nan) if units.isnan().any() else smallest_one_vs_rest(units)


def _rows(classifier: Tensor) -> Tensor:
    """The classifier's rows in float64. Raises: ShapeError for fewer than two rows."""
    if classifier.ndim != 2 or len(classifier) < 2:
        raise ShapeError(f"the classifier must be (K, D) with K >= 2 rows; got {tuple(classifier.shape)}.")
    return classifier if classifier.dtype is torch.float64 else classifier.to(torch.float64)


METRICS = (
    *(equinorm, classifier_equinorm, equiangularity, classifier_equiangularity, maximal_angle_deviation),
    *(mean_cosine, classifier_mean_cosine, minimum_angle, etf_error, classifier_etf_error, etf_distance),
    *(participation_ratio, one_vs_rest_distance, log_kernel, distance_kernel, riesz_kernel),
)
