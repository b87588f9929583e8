"""Costs are what they say, and what isn't a cost is named."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trees import DIGITS, ancestors, random_tree

from tightframe.errors import CostMatrixError
from tightframe.hierarchy import (
    Hierarchy,
    absolute_difference_cost,
    lca_height_cost,
    require_cost,
    require_decision_cost,
    tree_cost,
)


def test_the_visual_digit_tree() -> None:
    path = Path(__file__).parents[1] / "prototypes" / "mnist_visual_costs.csv"
    published = [[float(entry) for entry in line.split(",")] for line in path.read_text().split()]
    tree = Hierarchy.from_nested(DIGITS, classes=[str(digit) for digit in range(10)])
    assert tree_cost(tree).tolist() == published
    assert require_cost(tree_cost(tree)).tolist() == published


@pytest.mark.parametrize("seed", range(4))
def test_lca_heights_are_an_ultrametric(seed: int) -> None:
    tree = random_tree(30, seed)
    cost = lca_height_cost(tree)
    for i, j in itertools.combinations(range(tree.num_classes), 2):
        shared = next(node for node in ancestors(tree, i) if node in ancestors(tree, j))
        leaves = [leaf for leaf in range(tree.num_classes) if shared in ancestors(tree, leaf)]
        assert cost[i, j] == cost[j, i] == max(ancestors(tree, leaf).index(shared) for leaf in leaves)
    assert (cost.diagonal() == 0).all()
    for i, j, k in itertools.permutations(range(min(8, len(cost))), 3):
        assert cost[i, k] <= max(cost[i, j], cost[j, k])


def test_absolute_differences() -> None:
    assert absolute_difference_cost(3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]


def test_good_costs_come_back_as_a_float64_copy() -> None:
    given = absolute_difference_cost(4).float().requires_grad_()
    cost = require_cost(given)
    assert cost.dtype is torch.float64 and not cost.requires_grad
    cost[0, 1] = 7
    assert given[0, 1] == 1
    off = absolute_difference_cost(4)
    off[0, 3] += 1e-10  # within tolerance: made symmetric
    assert torch.equal(require_cost(off), require_cost(off).mT)


def with_entry(i: int, j: int, value: float, *, both: bool = True) -> Tensor:
    cost = absolute_difference_cost(5)
    cost[i, j] = value
    if both:
        cost[j, i] = value
    return cost


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.zeros(2, 3), r"square matrix, \(K, K\); got shape \(2, 3\)"),
        (torch.zeros(4), r"got shape \(4,\)"),
        (torch.zeros(0, 0), r"got shape \(0, 0\)"),
        (with_entry(1, 3, float("nan")), r"finite; entry \(1, 3\) is nan"),
        (
            with_entry(1, 3, float("inf"), both=False),
            r"finite; entry \(1, 3\) is inf and \(3, 1\) is 2 \(1 such entry\)",
        ),
        (with_entry(2, 4, -1), r"not be negative; entry \(2, 4\) is -1 .* \(2 such entries\)"),
        (with_entry(2, 2, 0.5), r"with itself must be zero; entry \(2, 2\) is 0.5"),
        (with_entry(0, 4, 3.5, both=False), r"symmetric; entry \(0, 4\) is 3.5 and \(4, 0\) is 4"),
        (with_entry(1, 2, 0), r"different classes must be positive; entry \(1, 2\) is 0"),
    ],
)
@pytest.mark.parametrize("metric", [True, False])
def test_bad_costs_are_named(cost: Tensor, message: str, metric: bool) -> None:
    with pytest.raises(CostMatrixError, match=message):
        require_cost(cost, metric=metric)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_triple_is_named(seed: int) -> None:
    points = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    cost = torch.linalg.vector_norm(points[:, None] - points, dim=-1).square()  # squares violate triangles
    worst = max(
        ((cost[i, k] - cost[i, j] - cost[j, k]).item(), (i, j, k)) for i, j, k in itertools.permutations(range(9), 3)
    )
    i, j, k = worst[1]
    with pytest.raises(CostMatrixError) as raised:
        require_cost(cost)
    assert f"{(i, j, k)}" in str(raised.value) or f"{(k, j, i)}" in str(raised.value)
    assert f"{cost[i, k].item():g}" in str(raised.value) and f"{cost[i, j].item():g}" in str(raised.value)
    assert require_cost(cost, metric=False).shape == (9, 9)


def test_the_tolerance_is_a_share_of_the_largest_cost() -> None:
    cost = 1000 * absolute_difference_cost(5)
    cost[0, 2] = cost[2, 0] = 2000 + 3e-6  # 7.5e-10 of 4000
    assert require_cost(cost)[0, 2] > 2000
    with pytest.raises(CostMatrixError, match=r"triple is \(i, j, k\) = \(0, 1, 2\)"):
        require_cost(cost, tolerance=5e-10)


def test_costs_need_not_be_symmetric() -> None:
    given = with_entry(0, 4, 3.5, both=False).requires_grad_()
    cost = require_decision_cost(given)
    assert cost.tolist() == given.tolist()  # no mean of the two directions
    assert cost.dtype is torch.float64 and not cost.requires_grad
    cost[0, 1] = 7
    assert given[0, 1] == 1


def test_a_diagonal_within_tolerance_becomes_zero_also_without_symmetry() -> None:
    cost = with_entry(2, 2, 1e-10)
    assert require_decision_cost(cost)[2, 2] == 0 and cost[2, 2] == 1e-10


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.zeros(2, 3), r"got shape \(2, 3\)"),
        (with_entry(3, 1, float("nan"), both=False), r"finite; entry \(3, 1\) is nan"),
        (with_entry(4, 2, -1, both=False), r"not be negative; entry \(4, 2\) is -1 .* \(1 such entry\)"),
        (with_entry(2, 2, 0.5), r"with itself must be zero; entry \(2, 2\) is 0.5"),
        (with_entry(2, 1, 0, both=False), r"different classes must be positive; entry \(2, 1\) is 0"),
    ],
)
def test_bad_costs_are_named_also_without_symmetry(cost: Tensor, message: str) -> None:
    with pytest.raises(CostMatrixError, match=message):
        require_decision_cost(cost)
