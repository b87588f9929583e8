"""Hierarchy-aware frames: the closed form against a scan, check values, and best frames in fewer dimensions."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tightframe.errors import CostMatrixError, DimensionError, RangeError
from tightframe.hierarchy import Hierarchy, absolute_difference_cost
from tightframe.prototypes.hierarchical import hierarchical, hierarchy_aware_cosines

DIGITS = torch.tensor(
    [
        [float(entry) for entry in line.split(",")]
        for line in (Path(__file__).parent / "mnist_visual_costs.csv").read_text().split()
    ],
    dtype=torch.float64,
)
BALANCED = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw", "awl"]}})


def gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.mT


def test_balanced_tree() -> None:
    prototypes = hierarchical(BALANCED, gamma=2 * math.log(2))
    assert prototypes.provenance["q"] == pytest.approx(2, abs=1e-12)
    assert prototypes.provenance["s"] == pytest.approx(-1, abs=1e-12)
    assert prototypes.provenance["gamma"] == 2 * math.log(2)
    assert prototypes.provenance["residual"] < 1e-12
    assert prototypes.provenance["names"] == ["cat", "dog", "saw", "awl"]
    assert prototypes.vectors.shape == (4, 3)
    expected = [[1, 0, -0.5, -0.5], [0, 1, -0.5, -0.5], [-0.5, -0.5, 1, 0], [-0.5, -0.5, 0, 1]]
    assert_close(gram(prototypes.vectors), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_visual_digits() -> None:
    prototypes = hierarchical(DIGITS, gamma=2)
    assert prototypes.provenance["q"] == pytest.approx(3.542529, abs=1e-6)
    assert prototypes.provenance["s"] == pytest.approx(-0.393309, abs=1e-6)
    assert prototypes.vectors.shape == (10, 9)
    s = prototypes.provenance["s"]
    assert_close(gram(prototypes.vectors), (1 - s) * torch.exp(-DIGITS / 3) + s, rtol=0, atol=1e-12)


def random_tree(seed: int, num: int = 14) -> Hierarchy:
    generator = torch.Generator().manual_seed(seed)
    parents = [-1] + [int(torch.randint(node, (1,), generator=generator)) for node in range(1, num)]
    return Hierarchy.from_parents(parents)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.5, 2.0, 6.0])
def test_s_is_the_smallest_for_which_the_frame_exists(seed: int, gamma: float) -> None:
    cost = random_tree(seed).distances()
    cosines, s, _ = hierarchy_aware_cosines(cost, gamma)
    affinity = torch.exp(-gamma * cost / cost.max())

    def smallest_eigenvalue(s: float) -> float:
        return torch.linalg.eigvalsh((1 - s) * affinity + s)[0].item()

    assert torch.linalg.eigvalsh(cosines)[0] > -1e-12
    assert (cosines.diagonal() == 1).all()
    if s == -1:
        assert smallest_eigenvalue(-1) > -1e-12
    else:
        assert -1 < s < 0
        assert abs(smallest_eigenvalue(s)) < 1e-12
        assert smallest_eigenvalue(s - 1e-4) < -1e-7


def test_below_q_two_s_is_clipped_and_the_frame_spans_all_dimensions() -> None:
    prototypes = hierarchical(absolute_difference_cost(4), gamma=0.5)
    assert prototypes.provenance["q"] < 2
    assert prototypes.provenance["s"] == -1
    assert prototypes.vectors.shape == (4, 4)
    assert prototypes.provenance["residual"] < 1e-12


def test_equal_costs_give_the_simplex() -> None:
    prototypes = hierarchical(1 - torch.eye(5, dtype=torch.float64), gamma=3.0)
    q = 5 / (1 + 4 * math.exp(-3))
    assert prototypes.provenance["s"] == pytest.approx(-1 / (q - 1), abs=1e-12)
    assert prototypes.vectors.shape == (5, 4)
    assert_close(gram(prototypes.vectors), 1.25 * torch.eye(5).double() - 0.25, rtol=0, atol=1e-12)


def test_more_dimensions_are_zeros() -> None:
    wide = hierarchical(BALANCED, 6)
    assert wide.vectors.shape == (4, 6)
    assert not wide.vectors[:, 3:].any()
    assert_close(gram(wide.vectors), gram(hierarchical(BALANCED).vectors))


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_fewer_dimensions(dim: int) -> None:
    prototypes = hierarchical(DIGITS, dim)
    vectors, target = prototypes.vectors, hierarchy_aware_cosines(DIGITS, 2.0)[0]
    assert vectors.shape == (10, dim)
    assert_close(torch.linalg.vector_norm(vectors, dim=1), torch.ones(10).double(), rtol=1e-12, atol=0)
    residual = torch.linalg.matrix_norm(gram(vectors) - target).item()
    assert prototypes.provenance["residual"] == pytest.approx(residual, rel=1e-10)
    # Eckart and Young: no Gram matrix of this rank is nearer than the truncation, whose rows aren't unit
    values, directions = torch.linalg.eigh(target)
    assert residual >= values[:-dim].norm().item()
    truncated = torch.nn.functional.normalize(directions[:, -dim:] * values[-dim:].sqrt(), dim=1)
    assert residual < torch.linalg.matrix_norm(gram(truncated) - target).item() - 1e-3
    for seed in range(200):
        move = torch.randn(10, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        near = torch.nn.functional.normalize(vectors + 1e-3 * move, dim=1)
        assert torch.linalg.matrix_norm(gram(near) - target).item() > residual - 1e-8


def test_the_plane_against_many_random_descents() -> None:
    target = hierarchy_aware_cosines(BALANCED.distances(), 2 * math.log(2))[0]
    angles = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)[:-1]
    grid = torch.stack(torch.meshgrid(angles, angles, angles, indexing="ij"), dim=-1).reshape(-1, 3)
    grid = torch.cat([torch.zeros(len(grid), 1, dtype=torch.float64), grid], dim=1)  # the first may stay
    best = (torch.cos(grid[:, :, None] - grid[:, None]) - target).square().sum((1, 2)).min().sqrt().item()
    residual = hierarchical(BALANCED, 2, gamma=2 * math.log(2)).provenance["residual"]
    assert residual <= best + 1e-9
    assert residual == pytest.approx(best, abs=0.05)


def test_seeds() -> None:
    assert hierarchical(DIGITS, 3, seed=2) == hierarchical(DIGITS, 3, seed=2)


def test_a_cost_without_a_frame_is_named() -> None:
    # the bipartite graph K(2,3): exp(-gamma d) isn't positive definite for small gamma
    cost = torch.tensor(
        [[0, 2, 1, 1, 1], [2, 0, 1, 1, 1], [1, 1, 0, 2, 2], [1, 1, 2, 0, 2], [1, 1, 2, 2, 0]], dtype=torch.float64
    )
    smallest = torch.linalg.eigvalsh(torch.exp(-0.1 * cost / 2))[0].item()
    assert smallest < 0
    with pytest.raises(CostMatrixError, match=rf"with gamma=0\.1 its smallest eigenvalue is {smallest:.3g}"):
        hierarchical(cost, gamma=0.1)
    assert hierarchical(cost, gamma=4.0).provenance["residual"] < 1e-12


def test_what_it_refuses() -> None:
    with pytest.raises(CostMatrixError, match="cost must have at least two classes; got 1"):
        hierarchical(torch.zeros(1, 1))
    with pytest.raises(DimensionError, match="dim must be at least 1; got 0"):
        hierarchical(BALANCED, 0)
    for gamma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(RangeError, match="gamma must be finite and > 0"):
            hierarchical(BALANCED, gamma=gamma)
    cost = absolute_difference_cost(3).square()
    with pytest.raises(CostMatrixError, match=r"triple is \(i, j, k\) = \(0, 1, 2\)"):
        hierarchical(cost)
    assert hierarchical(cost, metric=False).provenance["residual"] < 1e-12
