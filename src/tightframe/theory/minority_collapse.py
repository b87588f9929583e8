"""When the classifiers of rare classes merge: the threshold of unconstrained features."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.errors import ClassifierError, RangeError
from tightframe.statistics import ClassStatistics


def minority_collapse_threshold(num_samples: int, weight_decay_w: float, weight_decay_h: float) -> float:
    """N^2 lambda_W lambda_H: classes of one size with at most so many samples each share one classifier row.

    Of (1/N) sum of cross-entropies + lambda_W/2 |W|^2 + lambda_H/2 |H|^2 over classifier W and free features H, with or
    without bias. Raises: RangeError for weights below 0. Source: Hong & Ling 2024, block theory.

    >>> round(minority_collapse_threshold(72, 0.0295, 0.0295), 2)
    4.51
    """
    if num_samples < 1 or weight_decay_w < 0 or weight_decay_h < 0:
        raise RangeError(
            f"samples must be at least 1 and weight decays >= 0; got {num_samples}, {weight_decay_w}, {weight_decay_h}."
        )
    return num_samples**2 * weight_decay_w * weight_decay_h


def estimated_feature_decay(statistics: ClassStatistics, weight: Tensor, weight_decay_w: float) -> Tensor:
    """lambda_H = lambda_W |W|^2 / |H|^2, 0-d: the penalty on features under which W and H would be in balance.

    Features of a network aren't penalised themselves; at an optimum of the unconstrained-features model both penalties
    are equal, which gives the one that the observed lengths would stand for. An estimate, not a fact of the training.

    Args: weight (K, D), the classifier; features' squares are taken from the statistics, about the origin.
    Raises: ClassifierError for a weight of other features.
    """
    if weight.ndim != 2 or weight.shape[1] != statistics.num_features:
        raise ClassifierError(f"the weight must be (K, {statistics.num_features}); got {tuple(weight.shape)}.")
    present = statistics.populated()
    squares = present.spread.sum() + (present.counts * present.means.square().sum(1)).sum()
    return weight_decay_w * weight.detach().to(torch.float64).square().sum() / squares
