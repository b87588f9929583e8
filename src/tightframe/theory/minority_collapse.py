"""When the classifiers of rare classes merge: the threshold of unconstrained features."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor
from tightframe.errors import ClassifierError, RangeError
from tightframe.statistics import ClassStatistics
from tightframe.theory.class_groups import ClassGroups, Counts, PerClass, require_counts, require_label_smoothing


def minority_collapse_threshold(
    num_samples: float, weight_decay_w: float, weight_decay_h: float, *, label_smoothing: float = 0.0
) -> float:
    """N^2 lambda_W lambda_H / (1 - e)^2: classes of one size with at most so many samples share one classifier row.

    Of (1/N) sum of cross-entropies + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 over classifier W and free features H, with or
    without bias, and label smoothing e. Where classes have weights w, N is the sum of n_j w_j / w_k for class k.
    Raises: RangeError for decays below 0 or smoothing outside [0, 1). Source: Hong & Ling 2024, block theory;
    smoothing and weights: this package, beside the solver.

    >>> round(minority_collapse_threshold(72, 0.0295, 0.0295), 2)
    4.51
    """
    if num_samples < 1 or weight_decay_w < 0 or weight_decay_h < 0:
        raise RangeError(
            f"samples must be at least 1 and weight decays >= 0; got {num_samples}, {weight_decay_w}, {weight_decay_h}."
        )
    return num_samples**2 * weight_decay_w * weight_decay_h / (1 - require_label_smoothing(label_smoothing)) ** 2


def merging_classes(
    counts: Counts,
    weight_decay_w: float,
    weight_decay_h: float,
    *,
    label_smoothing: float = 0.0,
    class_weights: PerClass | None = None,
    logit_adjustment: float | PerClass | None = None,
) -> list[list[int]]:
    """Groups of labels whose classifier rows merge: two or more classes of one size at or below the threshold.

    Exact for the optimum with cross-entropy or squared error, with or without bias. A class without a partner of its
    size keeps a row of its own, however rare it is: what falls then is the rank. Under cross-entropy without bias or
    with a free one, classes of different sizes share a row only where it is zero, as when decay leaves dimensions to
    none but large classes of one size; under squared error without bias all at or below the threshold vanish.
    `UnconstrainedOptimum.merged` tells what coincides at an optimum, for whichever reason.
    Options: as in `cross_entropy_optimum`. Classes with the same size, weight and offset merge; offsets don't move the
    threshold. Whether others can share a row under weights or offsets isn't known.
    Raises: EmptyClassError for fewer than two classes or one without samples, RangeError for decays below 0; for
    options as `cross_entropy_optimum`.
    Source: Hong & Ling 2024; that sizes must be equal, and the proof beside the solver, are this package's.

    >>> merging_classes([20, 20, 20, 4, 4, 3], 0.0295, 0.0295)  # the threshold is 4.39
    [[3, 4]]
    """
    # Why sizes must be equal: where rows k and j coincide and X = U S V^T, the gradient G in X has (e_k - e_j) G V = 0,
    # as (e_k - e_j) U = 0. Their samples share one feature h. Without bias they also share probabilities, and the
    # product is (n_j - n_k) h up to a factor, h = 0, which makes the row the mean of all, 0. With a free bias the
    # probabilities of k and j are as n_k to n_j, and the product is (n_k - n_j) times the row, up to a factor.
    groups = ClassGroups.of(require_counts(counts), class_weights, logit_adjustment)
    decays = weight_decay_w, weight_decay_h
    thresholds = [
        minority_collapse_threshold(groups.total_weight / weight, *decays, label_smoothing=label_smoothing)
        for weight in groups.weights.tolist()
    ]
    several = [g for g in range(len(groups.sizes)) if groups.many[g] > 1]
    return sorted(groups.labels(g) for g in several if groups.sizes[g] <= thresholds[g])


def estimated_feature_decay(statistics: ClassStatistics, weight: Array, weight_decay_w: float) -> Tensor:
    """lambda_H = lambda_W |W|^2 / |H|^2, 0-d: the penalty on features under which W and H would be in balance.

    Features of a network aren't penalised themselves; at an optimum of the unconstrained-features model both penalties
    are equal, which gives the one that the observed lengths would stand for. An estimate, not a fact of the training.

    Args: weight (K, D), the classifier; features' squares are taken from the statistics, about the origin.
    Raises: ClassifierError for a weight of other features.
    """
    weight = as_tensor(weight, "the weight")
    if weight.ndim != 2 or weight.shape[1] != statistics.num_features:
        raise ClassifierError(f"the weight must be (K, {statistics.num_features}); got {tuple(weight.shape)}.")
    present = statistics.populated()
    squares = present.spread.sum() + (present.counts * present.means.square().sum(1)).sum()
    return weight_decay_w * weight.detach().to(torch.float64).square().sum() / squares
