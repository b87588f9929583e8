"""What it costs to take one class for another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pdist

from tightframe.checks import Array, as_tensor
from tightframe.errors import CostMatrixError
from tightframe.hierarchy.tree import Hierarchy


def tree_cost(hierarchy: Hierarchy) -> Tensor:
    """Distance between two classes through the tree; a metric if all edges have a positive length.

    Shape: (K, K), float64, symmetric. Range: [0, inf), in hops or in edge lengths; 0 on the diagonal.

    >>> from tightframe.hierarchy import Hierarchy, tree_cost
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> tree_cost(tree).tolist()
    [[0.0, 2.0, 4.0], [2.0, 0.0, 4.0], [4.0, 4.0, 0.0]]
    """
    return hierarchy.distances()


def cost_of(given: Array | Hierarchy) -> Tensor:
    """Costs (K, K): a tensor or a numpy array as it is, or the `tree_cost` of a tree.

    >>> from tightframe.hierarchy import Hierarchy, cost_of
    >>> cost_of(Hierarchy.from_nested({"all": ["cat", "dog"]})).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    return tree_cost(given) if isinstance(given, Hierarchy) else as_tensor(given, "costs")


def lca_height_cost(hierarchy: Hierarchy) -> Tensor:
    """Height of the lowest common ancestor of two classes: its largest distance to a leaf below it. An ultrametric.

    Shape: (K, K), float64, symmetric. Range: [0, height of the tree]; 0 on the diagonal.
    Source: Bertinetto et al. 2020, who divide by the height of the tree.

    >>> from tightframe.hierarchy import Hierarchy, lca_height_cost
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> lca_height_cost(tree).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [2.0, 2.0, 0.0]]
    """
    return hierarchy.heights[hierarchy.lowest_common_ancestors()]


def absolute_difference_cost(num_classes: int) -> Tensor:
    """|i - j|, the cost of ordered classes.

    Shape: (K, K), float64, symmetric. Range: [0, K - 1].

    >>> from tightframe.hierarchy import absolute_difference_cost
    >>> absolute_difference_cost(3).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    """
    order = torch.arange(num_classes, dtype=torch.float64, device="cpu")
    return (order[:, None] - order).abs()


def require_decision_cost(matrix: Array, *, tolerance: float = 1e-9) -> Tensor:
    """A detached float64 copy of costs (K, K), checked: row y, column k is the cost of deciding k for true class y.

    Finite, zero on the diagonal (to `tolerance` of the largest cost) and positive elsewhere; not necessarily symmetric.
    Raises: CostMatrixError naming the entry.

    >>> import torch
    >>> from tightframe.hierarchy import require_decision_cost
    >>> require_decision_cost(torch.tensor([[0, 1], [5, 0]])).tolist()
    [[0.0, 1.0], [5.0, 0.0]]
    """
    matrix = as_tensor(matrix, "costs")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.numel():
        raise CostMatrixError(f"costs must be a square matrix, (K, K); got shape {tuple(matrix.shape)}.")
    cost = matrix.detach().to(torch.float64, copy=True)
    _refuse(cost, ~cost.isfinite(), "costs must be finite")
    _refuse(cost, cost < 0, "costs must not be negative")
    diagonal = torch.eye(len(cost), dtype=torch.bool, device=cost.device)
    _refuse(cost, diagonal & (cost > tolerance * cost.max()), "the cost of a class with itself must be zero")
    _refuse(cost, ~diagonal & (cost == 0), "the cost of different classes must be positive")
    cost.fill_diagonal_(0)
    return cost


def require_cost(matrix: Array, *, tolerance: float = 1e-9, metric: bool = True) -> Tensor:
    """A detached float64 copy of a cost matrix (K, K), checked as by `require_decision_cost` and for symmetry.

    With `metric` the costs must also satisfy the triangle inequality. O(K^3) time, O(K^2) memory.

    Args:
        tolerance: largest violation of symmetry, diagonal and triangles, as a share of the largest cost.

    Raises: CostMatrixError naming the entry, the pair or the worst triple.

    >>> import torch
    >>> from tightframe.hierarchy import require_cost
    >>> require_cost(torch.tensor([[0, 1], [1, 0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    cost = require_decision_cost(matrix, tolerance=tolerance)
    slack = tolerance * cost.max()
    _refuse(cost, (cost - cost.mT).abs() > slack, "costs must be symmetric")
    cost = (cost + cost.mT) / 2
    if metric:
        _require_triangles(cost, float(slack))
    return cost


def _refuse(cost: Tensor, wrong: Tensor, expected: str) -> None:
    if wrong.any():
        i, j = wrong.nonzero()[0].tolist()
        raise CostMatrixError(
            f"{expected}; entry ({i}, {j}) is {cost[i, j].item():g} and ({j}, {i}) is {cost[j, i].item():g} "
            f"({int(wrong.sum())} such {'entry' if wrong.sum() == 1 else 'entries'})."
        )


def _require_triangles(cost: Tensor, slack: float) -> None:
    # D_ik <= D_ij + D_jk for all k, and with i and j exchanged: rows i and j differ by at most D_ij in any entry
    pairs = torch.triu_indices(len(cost), len(cost), offset=1, device=cost.device)
    excess = pdist(cost, p=float("inf")) - cost[pairs[0], pairs[1]]
    if not (excess > slack).any():
        return
    i, j = pairs[:, excess.argmax()].tolist()
    k = int((cost[i] - cost[j]).abs().argmax())
    if cost[i, k] < cost[j, k]:
        i, j = j, i
    raise CostMatrixError(
        f"costs must satisfy the triangle inequality; the worst triple is (i, j, k) = {(i, j, k)}: the cost of "
        f"({i}, {k}) is {cost[i, k].item():g}, more than {cost[i, j].item():g} of ({i}, {j}) plus "
        f"{cost[j, k].item():g} of ({j}, {k}). Pass metric=False if that is meant."
    )
