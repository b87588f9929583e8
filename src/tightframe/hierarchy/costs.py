"""What it costs to take one class for another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pdist

from tightframe.checks import Array, as_tensor
from tightframe.errors import CostMatrixError
from tightframe.hierarchy.tree import Hierarchy


def tree_cost(hierarchy: Hierarchy) -> Tensor:
    """(K, K) float64, the length of the way between two classes through the tree: a metric if edges have length."""
    return hierarchy.distances()


def cost_of(given: Array | Hierarchy) -> Tensor:
    """Costs (K, K) as they are, a tensor or a numpy array, or a tree's `tree_cost`."""
    return tree_cost(given) if isinstance(given, Hierarchy) else as_tensor(given, "costs")


def lca_height_cost(hierarchy: Hierarchy) -> Tensor:
    """(K, K) float64, how far one must go up from the leaves until two classes are one: an ultrametric.

    The height of the lowest common ancestor, i.e. the longest way from it down to a leaf; 0 on the diagonal.
    Source: Bertinetto et al. 2020 (who divide by the height of the tree).
    """
    return hierarchy.heights[hierarchy.lowest_common_ancestors()]


def absolute_difference_cost(num_classes: int) -> Tensor:
    """(K, K) float64, |i - j|: the cost of ordered classes."""
    order = torch.arange(num_classes, dtype=torch.float64, device="cpu")
    return (order[:, None] - order).abs()


def require_decision_cost(matrix: Array, *, tolerance: float = 1e-9) -> Tensor:
    """A detached float64 copy of costs (K, K) of deciding column k where row y is true, once they are known to be that.

    Finite, zero on the diagonal (to `tolerance` of the largest cost) and positive off it; not necessarily symmetric.
    Raises: CostMatrixError naming the entry.
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
    """A detached float64 copy of a (K, K) cost matrix, once it is known to be one.

    Costs are as `require_decision_cost` has them, and symmetric; with `metric` they also satisfy the triangle
    inequality. O(K^3) time, O(K^2) memory.

    Args:
        tolerance: how far symmetry, diagonal and triangles may be off, as a share of the largest cost.

    Raises: CostMatrixError naming the entry, the pair or the worst triple.
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
