"""NC2 for unequal class sizes: distance of Gram matrices to the SELI geometry predicted for the counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.codes.energies import rank_floor
from tightframe.errors import ShapeError
from tightframe.metrics.metric import Setting, metric
from tightframe.numerics import centred_gram
from tightframe.statistics import ClassStatistics
from tightframe.theory import seli

__all__ = ["classifier_seli_error", "gram_distance", "seli_error"]


def gram_distance(rows: Tensor, gram: Tensor) -> Tensor:
    """|G / |G|_F - T / |T|_F|_F for the Gram matrix G of K centred rows (K, D) and a centred target T (K, K).

    Shape: scalar. Range: [0, sqrt(2)]; 0 iff the rows have the target's geometry up to scale and rotation.
    Raises: ShapeError unless the shapes are (K, D) and (K, K).
    Source: Thrampoulidis et al. 2022, for classifiers, means and logits.
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

    def floor(setting: Setting) -> float | None:
        if setting.partial:
            return None
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

    Range: [0, sqrt(2)]; 0 = the limit of unregularised cross-entropy training with these counts. Needs K x K memory.
    Source: Thrampoulidis et al. 2022.
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
    """`gram_distance` of the classifier's centred rows (K, D) to the SELI geometry for the class counts (K,).

    Source: Thrampoulidis et al. 2022.
    """
    return gram_distance(classifier.to(torch.float64), seli(counts).classifiers)


METRICS = (seli_error, classifier_seli_error)
