"""`semantic`: separated prototypes whose cosines follow the order of class similarities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_finite, require_non_negative
from tightframe.codes import Search, searching
from tightframe.codes.search.anneal import anneal, by_autograd
from tightframe.codes.search.running import Running
from tightframe.codes.search.sphere import Objective
from tightframe.errors import RangeError, ShapeError, ZeroVectorError
from tightframe.numerics import float64_device, unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction, require_classes
from tightframe.prototypes.gram_matching import require_symmetric
from tightframe.prototypes.hyperspherical import (
    MeanRowMaximum,
    mean_row_maximum,
    warn_of_coincidence,
)
from tightframe.prototypes.ranking import rank_agreement, rank_cross_entropy, triplets_for

_STARTS = 2  # starts per round: triplets cost more than cosines
_AIM = Aim(
    "similarities",
    "separated vectors with cosines in the order of similarities",
    "rank_agreement",
    "share of triplets in that order",
    1,
)


@searching
@construction("Mettes, van der Pol & Snoek 2019", aim=_AIM)
def semantic(similarity: Array, dim: int, *, weight: float = 1.0, search: Search) -> tuple[Tensor, Facts]:
    """Separated unit prototypes with cosines in the order of similarities: `hyperspherical` with prior knowledge.

    Minimises the mean over classes of the largest cosine to another, plus `weight` times a RankNet loss: the mean over
    triplets (i, j, k) of the cross-entropy of sigmoid(cos_ij - cos_ik) against [similarity_ij > similarity_ik]. (Equal
    similarities have target 1/2, as in RankNet.) Only the order of similarities matters. Continuation and solver are
    those of `hyperspherical`.

    Args:
        similarity: (K, K) symmetric, of any scale; the diagonal is unused. For word vectors: `similarity_of`.
        weight: weight of the ranking, >= 0.
        search: limits, seed and warm start, or its fields as arguments. The score is the objective.

    Returns: (K, D) unit vectors. Ctrl-C ends the search with the best result so far. A GeometryWarning names
        classes that coincide.
    Provenance: also `value`, the exact objective; `mean_max_cosine`; `rank_agreement` over the triplets used (all, or
        50,000 random ones if K > 47), None if all similarities are equal.
    Raises: ShapeError, NonFiniteError or RangeError that names an invalid entry of `similarity`; RangeError for K < 3
        or an invalid weight; DimensionError for dim < 2; the errors of `Search`.
    Source: Mettes, van der Pol & Snoek 2019, privileged information (their released script averages cosines over
        pairs instead); Burges et al. 2005 (RankNet).

    >>> import torch
    >>> from tightframe.prototypes import semantic
    >>> similarity = torch.tensor([[0.0, 0.9, 0.1], [0.9, 0.0, 0.2], [0.1, 0.2, 0.0]])
    >>> vectors = semantic(similarity, 2, weight=10.0, rounds=1).vectors
    >>> cosines = vectors @ vectors.mT
    >>> bool(cosines[0, 1] > cosines[1, 2] > cosines[0, 2])  # the order of the similarities
    True
    """
    similarity = require_symmetric(similarity, "similarity").to(float64_device(search.device))
    if len(similarity) < 3:
        raise RangeError(f"similarity must have at least three classes to rank; got {len(similarity)}.")
    require_non_negative(weight, "weight")
    K, D = require_classes(len(similarity), dim)
    running = Running(lambda points: score(points), search, (K, D))
    triplets = triplets_for(K, search.seed).to(similarity.device)

    def disorder(points: Tensor) -> Tensor:
        return rank_cross_entropy(points @ points.mT, similarity, triplets)

    ranking = by_autograd(disorder)

    def objective(exponents: Tensor) -> Objective:
        separation = MeanRowMaximum(exponents)

        def total(points: Tensor) -> tuple[Tensor, Tensor]:
            apart, ordered = separation(points), ranking(points)
            return apart[0] + weight * ordered[0], apart[1] + weight * ordered[1]

        return total

    def score(points: Tensor) -> float:
        return float(mean_row_maximum(points) + weight * disorder(points))

    def play(index: int) -> None:
        anneal(running, objective, most=_STARTS)

    vectors = running.run(play)
    warn_of_coincidence(vectors)
    agreement = float(rank_agreement(vectors, similarity, triplets))
    return vectors, {
        **running.facts,
        "value": running.best,
        "mean_max_cosine": float(mean_row_maximum(vectors)),
        "rank_agreement": None if math.isnan(agreement) else agreement,
    }


def similarity_of(word_vectors: Array) -> Tensor:
    """Cosines of the classes' word vectors.

    Shape: word_vectors (K, E); (K, K), float64, symmetric. Range: [-1, 1].
    Raises: ShapeError unless (K, E) with K, E >= 1; NonFiniteError; ZeroVectorError that names the row.

    >>> import torch
    >>> from tightframe.prototypes import similarity_of
    >>> similarity_of(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]
    """
    word_vectors = as_tensor(word_vectors, "word_vectors")
    if word_vectors.ndim != 2 or 0 in word_vectors.shape:
        raise ShapeError(f"word_vectors must be (K, E) with K, E >= 1; got {tuple(word_vectors.shape)}.")
    words = word_vectors.detach().to(float64_device(word_vectors.device), torch.float64)
    require_finite(words, "word_vectors")
    if not (present := words.any(1)).all():
        raise ZeroVectorError(
            f"word_vectors must be non-zero; class {int((~present).nonzero()[0])} has a zero vector. Check that its "
            "name is in the vocabulary."
        )
    directions = unit_rows(words / words.abs().amax(1, keepdim=True))  # squares of tiny entries would underflow
    return directions @ directions.mT
