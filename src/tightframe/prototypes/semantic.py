"""`semantic`: separated prototypes whose cosines follow the order of class similarities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tightframe.bounds import cosine_bound
from tightframe.checks import Array, as_tensor, require_finite, require_non_negative
from tightframe.errors import RangeError, ShapeError, ZeroVectorError
from tightframe.numerics import float64_device, on_cpu, unit_rows
from tightframe.prototypes.gram_matching import require_symmetric
from tightframe.prototypes.mean_row_maximum import (
    MeanRowMaximum,
    mean_row_maximum,
    warn_of_coincidence,
)
from tightframe.prototypes.metric_guided import all_triplets, chosen_triplets
from tightframe.prototypes.solver.search import Budget, Progress, Search
from tightframe.prototypes.solver.searched import anneal, drawn, exponent_unit, require_sizes, searched
from tightframe.prototypes.solver.sphere import Objective
from tightframe.prototypes.value import Prototypes

_STARTS = 2  # starts per round: triplets cost more than cosines


@on_cpu
def semantic(
    similarity: Array,
    dim: int,
    *,
    weight: float = 1.0,
    time: float | None = None,
    rounds: int | None = None,
    seed: int = 0,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[Progress], None] | None = None,
) -> Prototypes:
    """Separated unit prototypes with cosines in the order of similarities: `hyperspherical` with prior knowledge.

    Minimises the mean over classes of the largest cosine to another, plus `weight` times a RankNet loss: the mean over
    triplets (i, j, k) of the cross-entropy of sigmoid(cos_ij - cos_ik) against [similarity_ij > similarity_ik]. (Equal
    similarities have target 1/2, as in RankNet.) Only the order of similarities matters. Continuation and solver are
    those of `hyperspherical`.

    Args:
        similarity: (K, K) symmetric, of any scale; the diagonal is unused. For word vectors: `similarity_of`.
        weight: weight of the ranking, >= 0.
        time, rounds: limits of the search in seconds and rounds; see `Budget`. The same seed, rounds and machine give
            the same vectors.
        progress: function called with a `Progress` during the search; its score is the objective.
    Returns: Prototypes of length `scale`. Ctrl-C ends the search with the best result so far. A GeometryWarning names
        classes that coincide.
    Provenance: also `value`, the exact objective; `mean_max_cosine`; `rank_agreement` over the triplets used (all, or
        50,000 random ones if K > 47), None if all similarities are equal.
    Raises: ShapeError, NonFiniteError or RangeError that names an invalid entry of `similarity`; RangeError for K < 3
        or an invalid weight, scale or budget; DimensionError for dim < 2.
    Source: Mettes, van der Pol & Snoek 2019, privileged information (their released script averages cosines over
        pairs instead); Burges et al. 2005 (RankNet).
    """
    similarity = require_symmetric(similarity, "similarity").to(float64_device(device))
    K, D = len(similarity), dim
    if K < 3:
        raise RangeError(f"similarity must have at least three classes to rank; got {K}.")
    require_non_negative(weight, "weight")
    require_sizes(K, D, scale)
    triplets = chosen_triplets(K, seed).to(similarity.device)
    ranking = RankLoss(similarity, triplets)
    unit = exponent_unit(cosine_bound(K, D).value)

    def objective(exponents: Tensor) -> Objective:
        separation = MeanRowMaximum(exponents)

        def total(points: Tensor) -> tuple[Tensor, Tensor]:
            apart, ordered = separation(points), ranking(points)
            return apart[0] + weight * ordered[0], apart[1] + weight * ordered[1]

        return total

    def score(points: Tensor) -> float:
        return float(mean_row_maximum(points) + weight * ranking(points[None])[0])

    def play(index: int) -> None:
        points, name = drawn(K, D, seed, index)
        anneal(search, points[:_STARTS].to(similarity), objective, name, unit=unit)

    search = Search(score, Budget(time, rounds), progress)
    vectors = search.run(play)
    warn_of_coincidence(vectors)
    agreement = float(rank_agreement(vectors, similarity, triplets))
    return searched(
        vectors,
        search,
        {"constructor": "semantic", "num_classes": K, "dim": D, "weight": weight, "seed": seed, "scale": scale},
        value=search.best,
        mean_max_cosine=float(mean_row_maximum(vectors)),
        rank_agreement=None if math.isnan(agreement) else agreement,
        device=device,
        dtype=dtype,
        source="Mettes, van der Pol & Snoek 2019",
    )


def similarity_of(word_vectors: Array) -> Tensor:
    """Cosines of the classes' word vectors, (K, E) -> (K, K), float64.

    Raises: ShapeError unless (K, E) with K, E >= 1; NonFiniteError; ZeroVectorError that names the row.
    """
    word_vectors = as_tensor(word_vectors, "word vectors")
    if word_vectors.ndim != 2 or 0 in word_vectors.shape:
        raise ShapeError(f"word vectors must be (K, E) with K, E >= 1; got {tuple(word_vectors.shape)}.")
    words = word_vectors.detach().to(float64_device(word_vectors.device), torch.float64)
    require_finite(words, "word vectors")
    if not (present := words.any(1)).all():
        raise ZeroVectorError(
            f"word vectors must be non-zero; class {int((~present).nonzero()[0])} has a zero vector. Check that its "
            "name is in the vocabulary."
        )
    directions = unit_rows(words / words.abs().amax(1, keepdim=True))  # squares of tiny entries would underflow
    return directions @ directions.mT


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


class RankLoss:
    """The RankNet loss of cosines on triplets, as an objective for `descend`: mean cross-entropy, in (0, inf)."""

    def __init__(self, similarity: Tensor, triplets: Tensor):
        i, j, k = triplets.mT
        self.target = (1 + (similarity[i, j] - similarity[i, k]).sign())[:, None] / 2
        self.nearer, self.further = i * len(similarity) + j, i * len(similarity) + k  # indices into the flat matrix

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        R, K, _ = points.shape
        cosines = (points @ points.mT).view(R, K * K).mT.contiguous()  # one gathered row covers all problems
        margin = cosines[self.nearer] - cosines[self.further]
        value = (softplus(margin) - self.target * margin).mean(0)
        slope = (margin.sigmoid() - self.target) / len(self.target)
        weights = torch.zeros_like(cosines).index_add_(0, self.nearer, slope).index_add_(0, self.further, -slope)
        weights = weights.mT.reshape(R, K, K)
        return value, (weights + weights.mT) @ points
