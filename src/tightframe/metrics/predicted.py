"""NC2 for unequal class sizes: distance of Gram matrices to the SELI geometry predicted for the counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.codes.energies import rank_floor
from tightframe.errors import ShapeError
from tightframe.metrics.metric import Setting, metric, of_all_classes
from tightframe.numerics import centred_gram
from tightframe.statistics import ClassStatistics
from tightframe.theory import seli

__all__ = ["seli_error", "classifier_seli_error", "gram_distance"]


def gram_distance(rows: Tensor, gram: Tensor) -> Tensor:
    """|G / |G|_F - T / |T|_F|_F for the Gram matrix G of K centred rows and a centred target T.

    Shape: rows (K, D), gram (K, K); scalar. Range: [0, sqrt(2)]; 0 iff the rows have the target's geometry up to scale
    and rotation.
    Raises: ShapeError unless the shapes are (K, D) and (K, K).
    Source: Thrampoulidis et al. 2022, for classifiers, means and logits.

    >>> import torch
    >>> from tightframe import metrics
    >>> rows, target = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), torch.eye(4)
    >>> round(metrics.gram_distance(rows, target).item(), 4)  # cosine sqrt(2/3) of the two matrices
    0.6058
    """
    if rows.ndim != 2 or gram.shape != (len(rows), len(rows)):
        raise ShapeError(
            f"rows must be (K, D) and the Gram matrix (K, K); got {tuple(rows.shape)} and {tuple(gram.shape)}."
        )
    centred = rows - rows.mean(0)
    target = centred_gram(gram.to(rows))
    measured = centred @ centred.mT
    return torch.linalg.matrix_norm(
        measured / torch.linalg.matrix_norm(measured) - target / torch.linalg.matrix_norm(target)
    )


def _rank_floor(which: str) -> Callable[[Setting], float | None]:
    """Least distance of a Gram matrix of rank D to the SELI Gram matrix."""

    @of_all_classes
    def floor(setting: Setting) -> float:
        return rank_floor(torch.linalg.eigvalsh(getattr(seli(setting.counts), which)), setting.D)

    return floor


@metric(
    "distance to SELI, means",
    "NC2",
    source="Thrampoulidis et al. 2022",
    convention="Gram matrices, Frobenius, if these are the training counts",
    target=0.0,
    floor=_rank_floor("means"),
    most_classes=500,
)
def seli_error(statistics: ClassStatistics) -> Tensor:
    """`gram_distance` of the class means to the SELI geometry for their counts; equals `etf_error` for equal counts.

    Shape: scalar, float64; needs K x K memory. Range: [0, sqrt(2)], unitless; 0 = the limit of unregularised
    cross-entropy training with these counts. Invariant to rotation, translation and common scale.
    Misleads: the counts of the measured samples are taken for those of training, so on a balanced test set it is
    `etf_error` whatever the model was trained with.

    Raises: EmptyClassError if fewer than two classes have samples.
    Source: Thrampoulidis et al. 2022, simplex-encoded-labels interpolation.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> simplex, labels = torch.eye(3), torch.tensor([0, 0, 0, 0, 1, 2])
    >>> statistics = ClassStatistics.from_features(simplex[labels], labels, 3)
    >>> round(metrics.seli_error(statistics).item(), 6)  # 15 degrees between the matrices: 2 sin(7.5 degrees)
    0.261052
    """
    statistics = statistics.populated()
    return gram_distance(statistics.centred_means(), seli(statistics.counts).means)


@metric(
    "distance to SELI, classifier",
    "NC2",
    source="Thrampoulidis et al. 2022",
    convention="rows centred, if these are the training counts",
    target=0.0,
    floor=_rank_floor("classifiers"),
    most_classes=500,
)
def classifier_seli_error(classifier: Tensor, counts: Tensor) -> Tensor:
    """`gram_distance` of the classifier's centred rows to the SELI geometry for the class counts.

    Shape: classifier (K, D), counts (K,); scalar, float64. Range: [0, sqrt(2)], unitless; 0 = the limit of
    unregularised cross-entropy training with these counts.
    Misleads: with weight decay the optimum is not SELI: the distance tends to 0 only logarithmically as weight decay
    vanishes (`theory.cross_entropy_optimum` has the exact geometry).

    Raises: ShapeError unless the classifier has one row per count.
    Source: Thrampoulidis et al. 2022, simplex-encoded-labels interpolation.

    >>> import torch
    >>> from tightframe import metrics
    >>> counts = torch.tensor([4, 1, 1])  # roots of the eigenvalues of the SELI matrix: sqrt(3) and 1
    >>> round(metrics.classifier_seli_error(torch.eye(3), counts).item(), 6)  # 2 sin(7.5 degrees)
    0.261052
    """
    return gram_distance(classifier.to(torch.float64), seli(counts).classifiers)
