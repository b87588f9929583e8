"""Regularisers of learnt prototypes: separation, or distances that follow costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from tightframe.checks import Array, can_look, require_finite
from tightframe.errors import CostMatrixError, DtypeError, RangeError, ShapeError
from tightframe.fixed import FixedTensors
from tightframe.hierarchy import Hierarchy, cost_of, require_cost
from tightframe.numerics import directions, widened, without_autocast
from tightframe.prototypes.distortions import distortion, scale_free_distortion, squared_scale_free_distortion
from tightframe.prototypes.gram_matching import require_symmetric
from tightframe.prototypes.hyperspherical import mean_row_maximum
from tightframe.prototypes.ranking import (
    MOST_TRIPLETS,
    all_triplets,
    has_few_triplets,
    random_triplets,
    rank_cross_entropy,
    rank_loss,
)


class PrototypeLoss(FixedTensors, ABC):
    """A scalar loss of prototypes (K, D). Call it with `head.prototypes` and add it to the training loss.

    Computed in float32 at least. Raises: ShapeError unless (K, D) with K >= 2, NonFiniteError (CPU only), DtypeError.
    """

    def forward(self, prototypes: Tensor) -> Tensor:
        if prototypes.ndim != 2 or len(prototypes) < 2:
            raise ShapeError(f"prototypes must be (K, D) with K >= 2; got {tuple(prototypes.shape)}.")
        if not prototypes.dtype.is_floating_point:
            raise DtypeError(f"prototypes must be floating point; got {prototypes.dtype}.")
        if can_look(prototypes):
            require_finite(prototypes.detach(), "prototypes")
        with without_autocast(prototypes.device):
            return self.loss(widened(prototypes))

    @abstractmethod
    def loss(self, vectors: Tensor) -> Tensor:
        """The loss, 0-d, for vectors (K, D) in float32 at least."""


class Separation(PrototypeLoss):
    """Mean over prototypes of the largest cosine to another prototype; minimum -1/(K-1), for the simplex.

    Memory: K^2. Source: Mettes, van der Pol & Snoek 2019; their code adds 1 and normalises after each step.

    Shape: prototypes (K, D); 0-d. Range: [-1/(K-1), 1].

    >>> from tightframe.losses import Separation
    >>> from tightframe import prototypes
    >>> round(Separation()(prototypes.simplex(4, 3).vectors).item(), 6)
    -0.333333
    """

    def loss(self, vectors: Tensor) -> Tensor:
        return mean_row_maximum(directions(vectors, "prototypes"))


class EquiangularHinge(PrototypeLoss):
    """Mean over pairs of max(0, |cosine| - alpha); 0 if all |cosines| are at most alpha.

    Args: alpha: in [0, 1). Memory: K^2. Used with `PrototypeHead(p, scale=1 / 0.07)`.
    Shape: prototypes (K, D); 0-d. Range: [0, 1 - alpha].
    Source: Shen et al. 2023 (Equiangular basis vectors); their code sums over ordered pairs.

    >>> import torch
    >>> from tightframe.losses import EquiangularHinge
    >>> EquiangularHinge(0.0)(torch.eye(4))
    tensor(0.)
    """

    def __init__(self, alpha: float):
        super().__init__()
        if not 0 <= alpha < 1:
            raise RangeError(f"alpha, the largest allowed |cosine|, must be in [0, 1); got {alpha}.")
        self.alpha = alpha

    def loss(self, vectors: Tensor) -> Tensor:
        unit = directions(vectors, "prototypes")
        beyond = ((unit @ unit.mT).abs() - self.alpha).clamp(min=0)
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        return beyond.masked_fill(itself, 0).sum() / (len(unit) * (len(unit) - 1))


class _TripletLoss(PrototypeLoss, ABC):
    """Ranking loss on triplets of K classes: all, or `number` random triplets per call."""

    triplets: Tensor | None

    def __init__(self, num_classes: int, number: int | None):
        super().__init__()
        if num_classes < 3:
            raise CostMatrixError(f"a ranking loss needs at least three classes; got {num_classes}.")
        if number is not None and number < 1:
            raise RangeError(f"number must be at least 1; got {number}.")
        self.num_classes, self.number = num_classes, MOST_TRIPLETS if number is None else number
        triplets = all_triplets(num_classes) if number is None and has_few_triplets(num_classes) else None
        self.hold("triplets", triplets)

    def drawn(self, vectors: Tensor) -> Tensor:
        """(T, 3), the triplets of this call. Raises: ShapeError if the number of classes differs."""
        if len(vectors) != self.num_classes:
            raise ShapeError(f"there must be {self.num_classes} prototypes, one per class; got {len(vectors)}.")
        if self.triplets is not None:
            return self.triplets
        return random_triplets(self.num_classes, self.number, device=vectors.device)


class SemanticRanking(_TripletLoss):
    """RankNet loss of cosines: mean cross-entropy over triplets (i, j, k) of sigmoid(cos_ij - cos_ik).

    The target is 1, 1/2 or 0 if similarity_ij is larger than, equal to or smaller than similarity_ik.

    Args:
        similarity: (K, K), symmetric; `prototypes.similarity_of` computes it from word vectors.
        number: number of random triplets per call. Default: all triplets; 50,000 for K > 47.

    Shape: prototypes (K, D); 0-d. Range: [ln(1 + e^-2), ln(1 + e^2)].
    Raises: ShapeError, NonFiniteError, RangeError if the similarity is invalid.
    Source: Mettes, van der Pol & Snoek 2019, privileged information; Burges et al. 2005 (RankNet). The released script
    has a different loss: the mean cosine to the far classes minus that to the two most similar classes.

    >>> import torch
    >>> from tightframe.losses import SemanticRanking
    >>> loss = SemanticRanking(torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    >>> loss(torch.eye(3))  # equal cosines: sigmoid(0) = 1/2, ln 2
    tensor(0.6931)
    """

    similarity: Tensor

    def __init__(self, similarity: Array, number: int | None = None):
        matrix = require_symmetric(similarity, "similarity")
        super().__init__(len(matrix), number)
        self.hold("similarity", matrix)

    def loss(self, vectors: Tensor) -> Tensor:
        unit = directions(vectors, "prototypes")
        return rank_cross_entropy(unit @ unit.mT, self.similarity, self.drawn(vectors))


class _CostRegulariser(PrototypeLoss, ABC):
    cost: Tensor

    def __init__(self, cost: Array | Hierarchy, *, metric: bool = True):
        super().__init__()
        self.hold("cost", _checked(cost, metric))


class Distortion(_CostRegulariser):
    """Mean over pairs of |d_ij - D_ij| / D_ij for the prototypes' distances d and the costs D.

    Args:
        cost: (K, K), or a tree, whose distances between classes are then the costs.
        metric: require the triangle inequality.

    Shape: prototypes (K, D); 0-d. Range: [0, inf); 0 = distances equal to the costs.
    Raises: CostMatrixError naming the entry, pair or triple. Source: Sainte Fare Garnot & Landrieu 2021.

    >>> import torch
    >>> from tightframe.losses import Distortion
    >>> cost = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> Distortion(cost)(torch.tensor([[0.0], [1.0], [3.0]]))  # distances 1, 3 and 2
    tensor(0.5000)
    """

    def loss(self, vectors: Tensor) -> Tensor:
        return distortion(vectors, self.cost)


class ScaleFreeDistortion(_CostRegulariser):
    """`Distortion` at the best scale of the prototypes, in closed form (a weighted median).

    The gradient includes the scale; the released code treats it as a constant. Args, errors: as for `Distortion`.
    Range: [0, 1]; 0 = distances proportional to the costs.
    Source: Sainte Fare Garnot & Landrieu 2021.

    >>> import torch
    >>> from tightframe.losses import ScaleFreeDistortion
    >>> cost = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> ScaleFreeDistortion(cost)(torch.tensor([[0.0], [1.0], [3.0]]))  # ratios 1, 1.5 and 2 times 2/3: (1/3 + 1/3) / 3
    tensor(0.2222)
    """

    def loss(self, vectors: Tensor) -> Tensor:
        return scale_free_distortion(vectors, self.cost)


class SquaredScaleFreeDistortion(_CostRegulariser):
    """Minimum over s of the mean of (s d_ij / D_ij - 1)^2; smooth, as in the paper. Args, errors: as for `Distortion`.

    Range: [0, 1]; 0 = distances proportional to the costs.
    Source: Sainte Fare Garnot & Landrieu 2021.

    >>> import torch
    >>> from tightframe.losses import SquaredScaleFreeDistortion
    >>> cost = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> SquaredScaleFreeDistortion(cost)(torch.tensor([[0.0], [1.0], [3.0]]))  # 1 - 4.5^2 / (3 * 7.25)
    tensor(0.0690)
    """

    def loss(self, vectors: Tensor) -> Tensor:
        return squared_scale_free_distortion(vectors, self.cost)


class PrototypeRank(_TripletLoss):
    """RankNet loss of distances: mean cross-entropy of sigmoid(d_ij - d_ik) with the order of the costs as target.

    Depends on the prototypes' scale.

    Args:
        cost: (K, K), or a tree, as for `Distortion`.
        number: as for `SemanticRanking`.
        metric: as for `Distortion`.

    Shape: prototypes (K, D); 0-d. Range: [0, inf).
    Raises: CostMatrixError naming the entry, pair or triple, or for fewer than three classes; RangeError for number <
    1.
    Source: Sainte Fare Garnot & Landrieu 2021, rank loss; equal costs have target 1/2 (released code: 0).

    >>> import torch
    >>> from tightframe.losses import PrototypeRank
    >>> loss = PrototypeRank(torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [2.0, 2.0, 0.0]]))
    >>> loss(torch.eye(3))  # equal distances: ln 2
    tensor(0.6931)
    """

    cost: Tensor

    def __init__(self, cost: Array | Hierarchy, number: int | None = None, *, metric: bool = True):
        matrix = _checked(cost, metric)
        super().__init__(len(matrix), number)
        self.hold("cost", matrix)

    def loss(self, vectors: Tensor) -> Tensor:
        return rank_loss(vectors, self.cost, self.drawn(vectors))


def _checked(cost: Array | Hierarchy, metric: bool) -> Tensor:
    matrix = require_cost(cost_of(cost), metric=metric)
    if len(matrix) < 2 or not math.isfinite(float(matrix.max())):
        raise CostMatrixError(f"costs must be finite, for at least two classes; got {len(matrix)} classes.")
    return matrix
