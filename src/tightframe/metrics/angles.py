"""NC2, equal angles: cosines and angles between centred class means, and between the classifier's rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.codes import best_listed, bounds, energies
from tightframe.evidence import require_classifier
from tightframe.metrics.metric import Setting, metric, of_all_classes
from tightframe.metrics.pairs import TILE_SIZE, Kernel, OverPairs, over_pairs, reduce_vectors
from tightframe.metrics.reductions import Moments, Smallest
from tightframe.statistics import ClassStatistics

__all__ = [
    "equiangularity",
    "classifier_equiangularity",
    "maximal_angle_deviation",
    "mean_cosine",
    "classifier_mean_cosine",
    "minimum_angle",
    "interference_grid",
    "cosine_grid",
]

_PAPYAN, _TIRER = "Papyan, Han & Donoho 2020", "Tirer & Bruna 2022"
_CENTRED = "about the mean of class means"

COSINE = Kernel(lambda tile: tile.cosine, directed=True)

# ---------------------------------------------------------------------- spread of the cosines

_MANY_ROWS = 4096  # number of rows above which the variance of cosines is computed without forming pairs
_CANCELLING = 1e-9  # variance of cosines below which that computation loses digits


def _equiangularity(ddof: int = 1, exact: bool = False) -> OverPairs:
    return OverPairs(COSINE, lambda moments: (moments.exact if exact else moments).standard_deviation(ddof))


@of_all_classes
def _spread_floor(setting: Setting, ddof: int = 1) -> float:
    return energies.equiangularity_floor(setting.K, setting.D, ddof=ddof)


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
    rows = require_classifier(classifier)
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


# ---------------------------------------------------------------------- deviation from the simplex


ANGLE_DEVIATION = Kernel(lambda tile: (tile.cosine + 1 / (tile.classes - 1)).abs(), directed=True)


def _deviation(exact: bool = False) -> OverPairs:
    return OverPairs(ANGLE_DEVIATION, lambda moments: (moments.exact if exact else moments).mean)


@of_all_classes
def _deviation_floor(setting: Setting) -> float:
    return energies.maximal_angle_floor(setting.K, setting.D)


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


# ---------------------------------------------------------------------- mean cosine


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
    rows = require_classifier(classifier)
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


# ---------------------------------------------------------------------- smallest angle


NEAREST = Kernel(lambda tile: tile.smallest_angle, Smallest, directed=True)


def _nearest() -> OverPairs:
    return OverPairs(NEAREST, lambda smallest: torch.rad2deg(smallest.value))


@of_all_classes
def _angle_floor(setting: Setting) -> float:
    """The largest possible smallest angle of K vectors in R^D: a proven optimum, else a bound."""
    K, D = setting.K, setting.D
    cosine = bounds.cosine_bound(K, D).value
    code = best_listed(K, D) if D > 1 else None
    if code is not None and code.optimal and (code.K, code.D) == (K, D):
        cosine = max(cosine, code.cosine)
    return math.degrees(math.acos(min(cosine, 1.0)))


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


# ---------------------------------------------------------------------- pair by pair


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
