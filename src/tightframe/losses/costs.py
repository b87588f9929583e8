"""Losses on logits with misclassification costs."""

from __future__ import annotations

import math
from abc import ABC

import torch
from torch import Tensor

from tightframe.checks import Array, require_dense, require_finite, require_non_negative
from tightframe.errors import CostMatrixError, RangeError, ShapeError
from tightframe.hierarchy import Hierarchy, TreeInference, cost_of, require_decision_cost
from tightframe.losses.class_loss import ClassLoss


class LogitLoss(ClassLoss, ABC):
    """A `ClassLoss` of logits (N, K)."""

    def __init__(
        self, num_classes: int, weight: Tensor | None, reduction: str, ignore_index: int, on_empty: str = "zero"
    ):
        super().__init__(num_classes, weight, reduction, ignore_index, on_empty)
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes

    @property
    def num_features(self) -> int:
        """K."""
        return self.num_classes


class CostLoss(LogitLoss, ABC):
    """A `LogitLoss` with costs (K, K): entry (y, k) is the cost of predicting k for true class y; may be asymmetric.

    Raises: CostMatrixError naming an entry that is negative, not finite, or not zero on the diagonal.
    """

    cost: Tensor

    def __init__(
        self,
        cost: Array | Hierarchy,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        matrix = require_decision_cost(cost_of(cost))
        if len(matrix) < 2:
            raise CostMatrixError(f"costs must be for at least two classes; got {len(matrix)}.")
        super().__init__(len(matrix), weight, reduction, ignore_index, on_empty)
        self.hold("cost", matrix)


class SoftLabelCrossEntropy(CostLoss):
    """Cross-entropy with soft labels q_c ~ exp(-beta cost[y, c] / max cost): cheaper mistakes get more probability.

    Args:
        cost: (K, K), or a tree, whose distances between classes are then the costs.
        weight, reduction, ignore_index, on_empty: see `ClassLoss`.
        beta: >= 0; larger values are closer to one-hot labels.
        focal: exponent gamma >= 0 of a factor (1 - p_c)^gamma on each term.

    Shape: logits (N, K), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: at least the mean entropy of the soft
    labels, unless `focal` is positive.
    Source: Bertinetto et al. 2020 (Making better mistakes), soft labels, with costs `lca_height_cost(tree)`. Their code
    subtracts the entropy of the soft labels (Kullback-Leibler divergence) and divides by K. Focal form: released
    metric-guided code.

    >>> import torch
    >>> from tightframe.losses import SoftLabelCrossEntropy
    >>> cost = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> SoftLabelCrossEntropy(cost, beta=2.0).soft_labels[0].round(decimals=3).tolist()
    [0.665, 0.245, 0.09]
    """

    soft_labels: Tensor

    def __init__(
        self,
        cost: Array | Hierarchy,
        beta: float = 4.0,
        *,
        focal: float = 0.0,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__(cost, weight=weight, reduction=reduction, ignore_index=ignore_index, on_empty=on_empty)
        self.beta, self.focal = require_non_negative(beta, "beta"), require_non_negative(focal, "focal")
        self.hold("soft_labels", (-beta * self.cost / self.cost.max()).softmax(1))

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        terms = focal_terms(rows.log_softmax(1), self.focal)
        return -(self.soft_labels[labels].to(rows) * terms).sum(1)


class HierarchicalCrossEntropy(LogitLoss):
    """-sum of w_v ln P(v | parent of v) over the path v from the root to the class, with w_v = exp(-alpha depth(v)).

    P of a node is the sum of softmax(logits) over the classes below it. alpha = 0 gives cross-entropy; a larger alpha
    gives fine levels less weight than coarse levels, and a smaller loss.

    Args:
        hierarchy: tree over the K classes, M nodes. weight, reduction, ignore_index, on_empty: see `ClassLoss`.
        alpha: >= 0. Depth is the distance from the root, in hops or in edge lengths of the tree.
        level_weights: (M,) weights instead of w.
        focal: exponent gamma >= 0 of a factor (1 - P(v | parent))^gamma.

    Shape: logits (N, K), labels (N,), or the layouts of `ClassLoss`; 0-d. Range: [0, inf).
    Source: Bertinetto et al. 2020 (Making better mistakes), with the weights of their code, which also divides by the
    sum of the weights over all nodes, a constant factor. Focal form: released metric-guided code, which weights by
    height and so favours fine levels; use `level_weights` for that.

    >>> import torch
    >>> from tightframe.hierarchy import Hierarchy
    >>> from tightframe.losses import HierarchicalCrossEntropy
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> loss = HierarchicalCrossEntropy(tree, alpha=0.0)
    >>> loss(torch.zeros(1, 3), torch.tensor([0]))  # ln 3
    tensor(1.0986)
    """

    level_weights: Tensor

    def __init__(
        self,
        hierarchy: Hierarchy,
        alpha: float = 0.1,
        *,
        level_weights: Tensor | None = None,
        focal: float = 0.0,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__(hierarchy.num_classes, weight, reduction, ignore_index, on_empty)
        self.alpha, self.focal = require_non_negative(alpha, "alpha"), require_non_negative(focal, "focal")
        self.tree = TreeInference(hierarchy)
        if level_weights is None:
            level_weights = (-alpha * hierarchy.distances("all")[hierarchy.root]).exp()
        if level_weights.shape != (len(hierarchy),):
            raise ShapeError(
                f"level weights must be ({len(hierarchy)},), one per node; got {tuple(level_weights.shape)}."
            )
        require_dense(level_weights, "level weights")
        require_finite(level_weights.reshape(-1, 1), "level weights")
        self.hold("level_weights", level_weights.detach().clone())

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        masses = self.tree.log_masses(rows.log_softmax(1))
        path = self.tree.indices("paths", rows)[labels]
        on_path = masses.gather(1, path.clamp(min=0))
        inside = path[:, 1:] >= 0
        conditional = torch.where(inside, on_path[:, 1:] - on_path[:, :-1], 0.0)
        weights = torch.where(inside, self.level_weights.to(rows)[path[:, 1:].clamp(min=0)], 0.0)
        return -(weights * focal_terms(conditional, self.focal)).sum(1)


class ExpectedCost(CostLoss):
    """Expected cost of a class drawn from softmax(logits): sum_k softmax(logits)_k cost[y, k], in [0, max cost].

    Args: cost, weight, reduction, ignore_index, on_empty: as for `SoftLabelCrossEntropy`. For the cost of the most
    probable class see `ConfusionCounts.average_cost`.
    Shape: logits (N, K), labels (N,), or the layouts of `ClassLoss`; 0-d, in the unit of the costs.
    Source: Sainte Fare Garnot & Landrieu 2021; the risk of decision theory.

    >>> import torch
    >>> from tightframe.losses import ExpectedCost
    >>> ExpectedCost(1 - torch.eye(4))(torch.zeros(1, 4), torch.tensor([2]))  # wrong three times in four
    tensor(0.7500)
    """

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return (rows.softmax(1) * self.cost[labels].to(rows)).sum(1)


class SquaredEarthMover(CostLoss):
    """sum_k softmax(logits)_k^2 (cost[y, k] - offset), a regulariser of cross-entropy; may be negative.

    It decreases probabilities of classes with a cost above the offset, and increases those below.
    Args: offset: finite; the others as for `SoftLabelCrossEntropy`.
    Shape: logits (N, K), labels (N,), or the layouts of `ClassLoss`; 0-d, in the unit of the costs.
    Source: Hou, Yu & Samaras 2017 (Squared earth mover's distance-based loss), as a regulariser; released metric-guided
    code.

    >>> import torch
    >>> from tightframe.losses import SquaredEarthMover
    >>> SquaredEarthMover(1 - torch.eye(2))(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.2500)
    """

    def __init__(
        self,
        cost: Array | Hierarchy,
        offset: float = 0.0,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__(cost, weight=weight, reduction=reduction, ignore_index=ignore_index, on_empty=on_empty)
        if not math.isfinite(offset):
            raise RangeError(f"offset must be finite; got {offset}.")
        self.offset = offset

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return (rows.softmax(1).square() * (self.cost[labels].to(rows) - self.offset)).sum(1)


def focal_terms(log_probabilities: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma ln p; 0 with gradient 0 at p = 1, where the gradient is unbounded for gamma < 1."""
    if gamma == 0:
        return log_probabilities
    certain = log_probabilities == 0
    miss = torch.where(certain, 1.0, -torch.expm1(log_probabilities))
    return torch.where(certain, 0.0, miss.pow(gamma) * log_probabilities)
