"""NC2, the frame: distance of the class means, or of the classifier's rows, to a simplex equiangular tight frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import DimensionError, ShapeError
from tightframe.evidence import require_classifier
from tightframe.metrics.metric import Setting, metric, of_all_classes
from tightframe.metrics.span import spanning_factors, spanning_rows
from tightframe.statistics import ClassStatistics

__all__ = ["etf_error", "classifier_etf_error", "etf_distance", "structure_error", "nearest_etf"]

# ---------------------------------------------------------------------- Gram matrices


@of_all_classes
def rank_floor(setting: Setting) -> float:
    return math.sqrt(2 - 2 * math.sqrt(setting.D / (setting.K - 1)))


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
    rows = require_classifier(classifier)
    rows = rows - rows.mean(0) if centred else rows
    return structure_error(rows, rows)


# ---------------------------------------------------------------------- the nearest frame


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
