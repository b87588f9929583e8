"""RankNet on prototypes: whether distances or cosines have the order of costs or similarities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tightframe.errors import RangeError, ShapeError
from tightframe.numerics import unit_rows
from tightframe.prototypes.distortions import require_fit

MOST_TRIPLETS = 50_000  # ranks use all triplets, or this many random ones


def rank_loss(vectors: Tensor, cost: Tensor, triplets: Tensor) -> Tensor:
    """RankNet on triplets (i, j, k): mean cross-entropy of sigmoid(d_ij - d_ik) against [D_ij > D_ik]; 0-d, > 0.

    If D_ij = D_ik the target is 1/2, as in RankNet (Burges et al. 2005): i should be as far from j as from k.
    (The paper's released code uses 0, which pulls j towards i.) The loss depends on the vectors' scale.

    Args:
        vectors, cost: as for `distortion`.
        triplets: (T, 3) integers from `all_triplets` or `random_triplets`.

    Raises: ShapeError, CostMatrixError if the shapes don't fit.
    """
    require_fit(vectors, cost)
    if triplets.ndim != 2 or triplets.shape[1] != 3 or not len(triplets):
        raise ShapeError(f"triplets must be (T, 3) with T >= 1; got {tuple(triplets.shape)}.")
    vectors = vectors - vectors.detach().mean(0)  # cdist uses the Gram matrix, which would lose digits
    distances = torch.cdist(vectors, vectors)
    return rank_cross_entropy(distances, cost.to(distances), triplets)


def rank_cross_entropy(values: Tensor, order: Tensor, triplets: Tensor) -> Tensor:
    """RankNet on values (..., K, K): mean cross-entropy of sigmoid(v_ij - v_ik) with [order_ij > order_ik]."""
    i, j, k = triplets.mT
    target = (1 + (order[i, j] - order[i, k]).sign()) / 2
    margin = values[..., i, j] - values[..., i, k]
    return binary_cross_entropy_with_logits(margin, target.to(values).expand_as(margin), reduction="none").mean(-1)


def all_triplets(num_classes: int) -> Tensor:
    """(K (K-1) (K-2) / 2, 3) int64, every i with every j < k, all distinct."""
    j, k = torch.triu_indices(num_classes, num_classes, offset=1, device="cpu")
    i = torch.arange(num_classes, device="cpu").repeat_interleave(len(j))
    j, k = j.repeat(num_classes), k.repeat(num_classes)
    return torch.stack([i, j, k], dim=1)[(i != j) & (i != k)]


def has_few_triplets(num_classes: int) -> bool:
    """Whether there are at most `MOST_TRIPLETS` triplets, so that all are used."""
    return num_classes * (num_classes - 1) * (num_classes - 2) // 2 <= MOST_TRIPLETS


def triplets_for(num_classes: int, seed: int) -> Tensor:
    """(T, 3) int64: all triplets, or `MOST_TRIPLETS` random ones."""
    if has_few_triplets(num_classes):
        return all_triplets(num_classes)
    return random_triplets(num_classes, MOST_TRIPLETS, generator=torch.Generator().manual_seed(seed))


def random_triplets(
    num_classes: int, number: int, *, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """(number, 3) int64: independent draws of distinct (i, j, k), by default from torch's own generator."""
    if num_classes < 3:
        raise RangeError(f"triplets need at least three classes; got {num_classes}.")
    i, j, k = (torch.randint(num_classes - gone, (number,), generator=generator, device=device) for gone in range(3))
    j = j + (j >= i)  # uniform on the classes without i, and then without i and j
    low, high = torch.minimum(i, j), torch.maximum(i, j)
    k = k + (k >= low)
    return torch.stack([i, j, k + (k >= high)], dim=1)


def rank_agreement(vectors: Tensor, similarity: Tensor, triplets: Tensor | None = None) -> Tensor:
    """The share of triplets (i, j, k) whose cosines to i have the same order as the similarities to i.

    Triplets with equal similarities are left out, and equal cosines count as disagreement. 0-d, in [0, 1], about 1/2 by
    chance; NaN if all similarities are equal.

    Args:
        vectors: (K, D) non-zero.
        similarity: (K, K).
        triplets: (T, 3) integers. Default: all.

    Raises: ShapeError if the shapes don't fit.
    """
    if vectors.ndim != 2 or similarity.shape != (len(vectors), len(vectors)):
        raise ShapeError(
            f"similarity must be (K, K) for vectors (K, D); got {tuple(similarity.shape)} for {tuple(vectors.shape)}."
        )
    i, j, k = (all_triplets(len(vectors)) if triplets is None else triplets).to(vectors.device).mT
    directions = unit_rows(vectors)
    cosines = directions @ directions.mT
    similarity = similarity.to(vectors.device)
    order = (similarity[i, j] - similarity[i, k]).sign()
    agreed = (cosines[i, j] - cosines[i, k]).sign() == order
    return agreed[order != 0].to(vectors.dtype).mean()
