"""Minority collapse: the class size at which classifier rows of rare classes merge, for unconstrained features."""

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
    """N^2 lambda_W lambda_H / (1 - e)^2: classes of equal size up to this number of samples share a classifier row.

    For the objective (1/N) sum of cross-entropies + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 over classifier W and free
    features H, with or without bias, and label smoothing e. With class weights w, N is sum_j n_j w_j / w_k for class k.
    Raises: RangeError for decays below 0 or smoothing outside [0, 1). Source: Hong & Ling 2024, block theory;
    smoothing and weights: this package, see the solver.

    >>> from tightframe.theory import minority_collapse_threshold
    >>> round(minority_collapse_threshold(72, 0.0295, 0.0295), 2)
    4.51
    """
    if num_samples < 1 or weight_decay_w < 0 or weight_decay_h < 0:
        raise RangeError(
            f"num_samples must be at least 1 and weight decays >= 0; got {num_samples}, {weight_decay_w}, "
            f"{weight_decay_h}."
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
    """Groups of labels whose classifier rows merge: two or more classes of equal size at or below the threshold.

    Exact for the optimum with cross-entropy or squared error, with or without bias. A class with a unique size keeps a
    separate row, however rare it is; only the rank falls. Under cross-entropy without bias or with a free bias, classes
    of different sizes share a row only if it is zero, which happens if decay leaves dimensions only to large classes of
    equal size. Under squared error without bias all rows at or below the threshold are zero.
    `UnconstrainedOptimum.merged` lists all coincident rows of an optimum, for any reason.
    Options: as in `cross_entropy_optimum`. Classes with equal size, weight and offset merge; offsets don't change the
    threshold. Whether other classes can share a row under weights or offsets is unknown.
    Raises: EmptyClassError for fewer than two classes or a class without samples, RangeError for decays below 0; for
    options as `cross_entropy_optimum`.
    Source: Hong & Ling 2024; the condition of equal sizes and the proofs are derivations of this package.

    >>> from tightframe.theory import merging_classes
    >>> merging_classes([20, 20, 20, 4, 4, 3], 0.0295, 0.0295)  # the threshold is 4.39
    [[3, 4]]
    """
    # Why sizes must be equal: if rows k and j coincide and X = U S V^T, the gradient G in X has (e_k - e_j) G V = 0,
    # as (e_k - e_j) U = 0. Their samples share one feature h. Without bias they also share probabilities, and the
    # product is (n_j - n_k) h up to a factor; so h = 0, and the row is the mean row, 0. With a free bias the
    # probabilities of k and j have the ratio n_k : n_j, and the product is (n_k - n_j) times the row, up to a factor.
    groups = ClassGroups.of(require_counts(counts), class_weights, logit_adjustment)
    decays = weight_decay_w, weight_decay_h
    thresholds = [
        minority_collapse_threshold(groups.total_weight / weight, *decays, label_smoothing=label_smoothing)
        for weight in groups.weights.tolist()
    ]
    several = [g for g in range(len(groups.sizes)) if groups.many[g] > 1]
    return sorted(groups.labels(g) for g in several if groups.sizes[g] <= thresholds[g])


def estimated_feature_decay(statistics: ClassStatistics, weight: Array, weight_decay_w: float) -> Tensor:
    """lambda_H = lambda_W |W|^2 / |H|^2: the feature decay for which W and H have equal penalties.

    A network's features have no explicit penalty. At an optimum of the unconstrained-features model both penalties are
    equal, which determines lambda_H from the observed lengths. It is an estimate, not a parameter of the training.

    Shape: weight (K, D), the classifier; 0-d, float64. Range: [0, inf). |H|^2, about the origin, comes from the
    statistics.
    Raises: ClassifierError if the weight does not fit the features.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.theory import estimated_feature_decay
    >>> statistics = ClassStatistics.from_features(2 * torch.eye(2), torch.arange(2), 2)
    >>> round(estimated_feature_decay(statistics, torch.eye(2), 0.01).item(), 6)  # 0.01 * 2 / 8
    0.0025
    """
    weight = as_tensor(weight, "the weight")
    if weight.ndim != 2 or weight.shape[1] != statistics.num_features:
        raise ClassifierError(f"the weight must be (K, {statistics.num_features}); got {tuple(weight.shape)}.")
    present = statistics.populated()
    squares = present.spread.sum() + (present.counts * present.means.square().sum(1)).sum()
    return weight_decay_w * weight.detach().to(torch.float64).square().sum() / squares
