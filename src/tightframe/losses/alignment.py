"""Losses that pull an embedding towards the prototype of its class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tightframe.checks import Array, require_positive
from tightframe.heads import ComparisonHead
from tightframe.losses.class_loss import EmbeddingLoss
from tightframe.numerics import directions, norms
from tightframe.prototypes import Prototypes
from tightframe.theory import cross_entropy_floor


class DotRegression(EmbeddingLoss):
    """(<p_y, h> - |p_y| L)^2 / (2 |p_y| L) for the embedding h at length L, equal to |p_y| L (1 - cos)^2 / 2.

    With unit prototypes and L = 1: 0 aligned, 1/2 orthogonal, 2 opposite. Only the prototype of the own class enters.

    Args:
        prototypes: see `EmbeddingLoss`. weight, reduction, ignore_index, on_empty: see `ClassLoss`.
        feature_length: L > 0, length of the normalised embeddings; sqrt(E_H) in the paper, where |p_y| is sqrt(E_W).

    Shape: embeddings (N, D), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: [0, 2 |p_y| L].
    Raises: as `ClassLoss`; RangeError unless feature_length > 0.
    Source: Yang et al. 2022 (Inducing neural collapse in imbalanced learning), dot-regression loss. Their code
    normalises embeddings after an `nn.BatchNorm1d` and has |p_y|^2 instead of |p_y| L, equal for unit prototypes.

    >>> import torch
    >>> from tightframe.losses import DotRegression
    >>> from tightframe import prototypes
    >>> p = prototypes.simplex(3, 2)
    >>> DotRegression(p)(-p.vectors, torch.arange(3)).round(decimals=12)
    tensor(2., dtype=torch.float64)
    """

    def __init__(
        self,
        prototypes: Prototypes | Array | nn.Module,
        *,
        feature_length: float = 1.0,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__(prototypes, weight=weight, reduction=reduction, ignore_index=ignore_index, on_empty=on_empty)
        self.feature_length = require_positive(feature_length, "feature_length")

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        lengths = norms(self.own(rows, labels))
        return self.feature_length * lengths * self.gaps(rows, labels).square() / 2


class BalancedDotRegression(DotRegression):
    """Dot regression with equal weight for each class in a batch of B rows: each loss is multiplied by B / (C n_y).

    C is the number of classes in the batch and n_y the number of rows of class y. The released code scales unit
    prototypes by the root of that factor. The value depends on the batches of each process (the later code for few-shot
    learning counts the labels of all processes).
    Shape, args, errors: as for `DotRegression`.
    Source: Yang et al. 2022, released code.

    >>> import torch
    >>> from tightframe.losses import BalancedDotRegression
    >>> loss = BalancedDotRegression(torch.eye(2))  # three rows of class 0 are right, the one of class 1 is wrong
    >>> loss(torch.eye(2)[torch.tensor([0, 0, 0, 0])], torch.tensor([0, 0, 0, 1]))
    tensor(0.2500)
    """

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        counts = torch.zeros(self.num_classes, dtype=rows.dtype, device=rows.device)
        counts = counts.index_add(0, labels, kept.to(rows.dtype))
        share = kept.sum() / ((counts > 0).sum() * counts[labels])
        return super().losses(rows, labels, kept) * torch.where(kept, share, 0.0)


class Hyperspherical(EmbeddingLoss):
    """(1 - cos(z, p_y))^2, in [0, 4]: 0 aligned, 1 orthogonal, 4 opposite.

    Args: prototypes: see `EmbeddingLoss`; weight, reduction, ignore_index, on_empty: see `ClassLoss`.
    Shape: embeddings (N, D), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: [0, 4].
    Raises: as `ClassLoss`.
    Source: Mettes, van der Pol & Snoek 2019 (Hyperspherical Prototype Networks); the released code sums over the batch.

    >>> import torch
    >>> from tightframe.losses import Hyperspherical
    >>> Hyperspherical(torch.eye(2))(torch.tensor([[0.0, 3.0]]), torch.tensor([0]))  # orthogonal
    tensor(1.)
    """

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return self.gaps(rows, labels).square()


class CosineMatching(EmbeddingLoss):
    """Sum over classes c of (cos(z, p_c) - cos(p_y, p_c))^2; 0 if z has the cosines of its prototype.

    The prototypes are a hierarchy-aware frame; the authors add this loss to cross-entropy. Args, errors: as for
    `Hyperspherical`.
    Shape: embeddings (N, D), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: [0, 4 K].
    Source: Liang & Davis 2023 (Inducing Neural Collapse to a Fixed Hierarchy-Aware Frame).

    >>> import torch
    >>> from tightframe.losses import CosineMatching
    >>> CosineMatching(torch.eye(2))(torch.tensor([[0.0, 3.0]]), torch.tensor([0]))
    tensor(2.)
    """

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        frame = directions(self.prototypes.to(rows), "prototypes")
        # cos(z, p_c) - cos(p_y, p_c) = <z - p_y, p_c>, without cancellation near 0
        return ((self.unit(rows)[0] - frame[labels]) @ frame.mT).square().sum(1)


class PrototypeCrossEntropy(EmbeddingLoss):
    """Cross-entropy of the logits scale cos(z, p_k); `floor` is its minimum for fixed prototypes.

    Args: as for `Hyperspherical`; scale: > 0. Default: the scale of a head with cosine logits, else 16; unit vectors
    can't fit the labels at scale 1.
    Shape: embeddings (N, D), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: [0, 2 scale + ln K].
    Source: Zhu et al. 2021, Yang et al. 2022 (fixed ETF classifier).

    >>> import torch
    >>> from tightframe.losses import PrototypeCrossEntropy
    >>> from tightframe import prototypes
    >>> p = prototypes.simplex(10, 9)
    >>> loss = PrototypeCrossEntropy(p, scale=1.0)
    >>> round(loss.floor, 6), round(loss(p.vectors, torch.arange(10)).item(), 6)
    (1.376935, 1.376935)
    """

    def __init__(
        self,
        prototypes: Prototypes | Array | nn.Module,
        *,
        scale: float | None = None,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__(prototypes, weight=weight, reduction=reduction, ignore_index=ignore_index, on_empty=on_empty)
        self._scale = None if scale is None else require_positive(scale, "scale")

    @property
    def scale(self) -> float | Tensor:
        """Factor of the cosines: the argument, or the head's scale, 0-d, which may be learnt."""
        if self._scale is not None:
            return self._scale
        head = None if self._head is None else self._head[0]
        return head.scale if isinstance(head, ComparisonHead) and head.logits == "cosine" else 16.0

    @property
    def floor(self) -> float:
        """Minimum of the mean loss for balanced classes, attained by the simplex ETF."""
        return cross_entropy_floor(self.num_classes, float(self.scale))

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return cross_entropy(self.logits(rows), labels, reduction="none")

    def logits(self, rows: Tensor, what: str = "embeddings") -> Tensor:
        """(N, K), scaled cosines of float rows (N, D) to the prototypes."""
        frame = directions(self.prototypes.to(rows), "prototypes")
        return self.unit(rows, what)[0] @ (self.scale * frame).mT
