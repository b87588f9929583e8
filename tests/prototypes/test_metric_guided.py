"""Distortions against loops and closed forms; what the construction reaches; what it refuses."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from tightframe.errors import ChoiceError, CostMatrixError, DimensionError, RangeError, ShapeError
from tightframe.hierarchy import Hierarchy, absolute_difference_cost
from tightframe.prototypes.distortions import (
    distortion,
    optimal_scale,
    optimal_squared_scale,
    scale_free_distortion,
    squared_scale_free_distortion,
)
from tightframe.prototypes.metric_guided import metric_guided, metric_guided_nodes
from tightframe.prototypes.ranking import all_triplets, random_triplets, rank_loss

VISUAL = torch.tensor(
    [
        [float(entry) for entry in line.split(",")]
        for line in (Path(__file__).parent / "mnist_visual_costs.csv").read_text().split()
    ],
    dtype=torch.float64,
)
TREE = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw", "awl"]}})


def drawn(num: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random vectors and a random metric."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(num, dim, dtype=torch.float64, generator=generator)
    cost = 1 + torch.rand(num, num, dtype=torch.float64, generator=generator)  # within [1, 2]: triangles hold
    cost = (cost + cost.mT) / 2
    return vectors, cost.fill_diagonal_(0)


def errors_by_loops(vectors: Tensor, cost: Tensor, scale: float) -> list[float]:
    pairs = itertools.permutations(range(len(vectors)), 2)
    return [(scale * math.dist(vectors[i].tolist(), vectors[j].tolist()) / cost[i, j].item()) - 1 for i, j in pairs]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# ---------------------------------------------------------------------- measures


def test_the_path() -> None:
    points = torch.tensor([[0.0], [1], [3]], dtype=torch.float64)
    path = torch.tensor([[0, 1, 2], [1, 0, 1], [2, 1, 0]], dtype=torch.float64)
    assert distortion(points, path).item() == pytest.approx(0.5, abs=1e-15)
    assert scale_free_distortion(points, path).item() == pytest.approx(2 / 9, abs=1e-15)
    assert optimal_scale(points, path).item() == pytest.approx(2 / 3, abs=1e-15)
    assert squared_scale_free_distortion(points, path).item() == pytest.approx(2 / 29, abs=1e-15)
    assert optimal_squared_scale(points, path).item() == pytest.approx(18 / 29, abs=1e-15)


@pytest.mark.parametrize(("num", "dim", "seed"), [(2, 3, 0), (3, 1, 1), (6, 2, 2), (9, 4, 3), (12, 3, 4)])
def test_measures_against_loops_and_search(num: int, dim: int, seed: int) -> None:
    vectors, cost = drawn(num, dim, seed)
    assert distortion(vectors, cost).item() == pytest.approx(
        mean([abs(error) for error in errors_by_loops(vectors, cost, 1)]), rel=1e-12
    )

    def absolute(scale: float) -> float:
        return mean([abs(error) for error in errors_by_loops(vectors, cost, scale)])

    def squared(scale: float) -> float:
        return mean([error**2 for error in errors_by_loops(vectors, cost, scale)])

    for measure, scale_of, by_loops in (
        (scale_free_distortion, optimal_scale, absolute),
        (squared_scale_free_distortion, optimal_squared_scale, squared),
    ):
        best = minimize_scalar(by_loops, bounds=(1e-3, 10), method="bounded", options={"xatol": 1e-12})
        value, scale = measure(vectors, cost).item(), scale_of(vectors, cost).item()
        assert value == pytest.approx(by_loops(scale), rel=1e-12, abs=1e-15)
        assert value <= best.fun + 1e-12
        assert value == pytest.approx(best.fun, rel=1e-8, abs=1e-8)
        assert scale == pytest.approx(best.x, rel=1e-4)  # both are convex in the scale; the minimum is flat
        assert measure(37 * vectors + 5, cost).item() == pytest.approx(value, rel=1e-11, abs=1e-15)


def test_squared_distortion_is_a_coefficient_of_variation_and_exact_near_zero() -> None:
    vectors, cost = drawn(8, 3)
    i, j = torch.triu_indices(8, 8, offset=1)
    ratios = torch.linalg.vector_norm(vectors[i] - vectors[j], dim=1) / cost[i, j]
    cv2 = ratios.var(correction=0) / ratios.mean() ** 2
    assert_close(squared_scale_free_distortion(vectors, cost), cv2 / (1 + cv2), rtol=1e-13, atol=0)
    line = torch.arange(3, dtype=torch.float64)[:, None]
    line[2] += 3e-9  # r = 1, 1 + 3e-9, 1 + 1.5e-9: variance 1.5e-18, which 1 - x would lose
    value = squared_scale_free_distortion(line, absolute_difference_cost(3)).item()
    assert value == pytest.approx(1.5e-18, rel=1e-6)


@pytest.mark.parametrize("tie", [False, True])
def test_rank_loss_against_loops(tie: bool) -> None:
    vectors, cost = drawn(7, 3)
    if tie:
        cost = (2 * cost).round() / 2
    total = []
    for i in range(7):
        for j, k in itertools.combinations([c for c in range(7) if c != i], 2):
            gap = math.dist(vectors[i].tolist(), vectors[j].tolist()) - math.dist(
                vectors[i].tolist(), vectors[k].tolist()
            )
            probability = 1 / (1 + math.exp(-gap))
            target = 0.5 if cost[i, j] == cost[i, k] else float(cost[i, j] > cost[i, k])
            total.append(-target * math.log(probability) - (1 - target) * math.log(1 - probability))
    triplets = all_triplets(7)
    assert len(total) == len(triplets) == 105
    assert rank_loss(vectors, cost, triplets).item() == pytest.approx(mean(total), rel=1e-12)
    swapped = triplets[:, [0, 2, 1]]
    assert_close(rank_loss(vectors, cost, swapped), rank_loss(vectors, cost, triplets), rtol=1e-13, atol=0)


def test_a_tie_wants_equal_distances() -> None:
    equal = torch.ones(3, 3, dtype=torch.float64).fill_diagonal_(0)
    triplet = torch.tensor([[0, 1, 2]])
    near, even = torch.tensor([[0.0], [1], [4]]).double(), torch.tensor([[0.0], [2], [-2]]).double()
    assert rank_loss(even, equal, triplet).item() == pytest.approx(math.log(2), rel=1e-14)
    assert rank_loss(near, equal, triplet) > math.log(2)
    even.requires_grad_()
    rank_loss(even, equal, triplet).backward()
    assert_close(even.grad, torch.zeros_like(even), rtol=0, atol=1e-15)


def test_triplets() -> None:
    every = {tuple(triplet) for triplet in all_triplets(5).tolist()}
    assert every == {(i, j, k) for i, j, k in itertools.permutations(range(5), 3) if j < k}
    random, again, other = (
        random_triplets(4, 24_000, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(random, again) and not torch.equal(random, other)
    found, counts = random.unique(dim=0, return_counts=True)
    assert {tuple(triplet) for triplet in found.tolist()} == set(itertools.permutations(range(4), 3))
    assert counts.min() > 850 and counts.max() < 1150  # 1000 each, standard deviation 31


@pytest.mark.parametrize("measure", [distortion, scale_free_distortion, squared_scale_free_distortion])
def test_gradients(measure: object) -> None:
    vectors, cost = drawn(6, 3)
    assert gradcheck(lambda points: measure(points, cost), vectors.requires_grad_())  # type: ignore[operator]


def test_gradient_of_the_rank_loss_and_of_the_scales() -> None:
    vectors, cost = drawn(6, 3)
    vectors.requires_grad_()
    assert gradcheck(lambda points: rank_loss(points, cost, all_triplets(6)), vectors)
    assert gradcheck(lambda points: optimal_scale(points, cost), vectors)
    assert gradcheck(lambda points: optimal_squared_scale(points, cost), vectors)


def test_gradients_are_finite_where_prototypes_coincide() -> None:
    _, cost = drawn(4, 2)
    for measure in (distortion, scale_free_distortion, squared_scale_free_distortion):
        points = torch.tensor([[0.0, 0], [0, 0], [1, 0], [0, 2]], dtype=torch.float64, requires_grad=True)
        measure(points, cost).backward()
        assert points.grad is not None and points.grad.isfinite().all() and points.grad.any()


def test_measures_refuse_what_does_not_fit() -> None:
    vectors, cost = drawn(4, 2)
    with pytest.raises(ShapeError, match=r"\(K, D\) with K >= 2; got \(1, 2\)"):
        distortion(vectors[:1], cost[:1, :1])
    with pytest.raises(CostMatrixError, match=r"\(4, 4\) for 4 vectors; got \(3, 4\)"):
        distortion(vectors, cost[:3])
    with pytest.raises(ShapeError, match=r"triplets must be \(T, 3\) with T >= 1; got \(0, 3\)"):
        rank_loss(vectors, cost, torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(RangeError, match="triplets need at least three classes; got 2"):
        random_triplets(2, 5)


# ---------------------------------------------------------------------- construction


@pytest.mark.parametrize("objective", ["squared", "absolute"])
def test_a_line_is_embedded_exactly(objective: str) -> None:
    cost = absolute_difference_cost(10)
    prototypes = metric_guided(cost, 2, objective=objective)  # type: ignore[arg-type]
    assert prototypes.vectors.shape == (10, 2)
    assert scale_free_distortion(prototypes.vectors, cost) <= 1e-9
    assert distortion(prototypes.vectors, cost) <= 1e-9  # at its optimal scale already
    assert_close(prototypes.vectors.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_visual_digits_in_the_plane() -> None:
    squared = metric_guided(VISUAL, 2)
    value = squared_scale_free_distortion(squared.vectors, VISUAL).item()
    assert value <= 0.0386
    assert squared.provenance["value"] == pytest.approx(value, abs=1e-12)
    assert optimal_squared_scale(squared.vectors, VISUAL).item() == pytest.approx(1, abs=1e-12)
    absolute = metric_guided(VISUAL, 2, objective="absolute")
    value = scale_free_distortion(absolute.vectors, VISUAL).item()
    assert value <= 0.143  # required: 0.146
    assert absolute.provenance["value"] == pytest.approx(value, abs=1e-12)
    assert distortion(absolute.vectors, VISUAL).item() == pytest.approx(value, abs=1e-12)
    ranked = metric_guided(VISUAL, 2, objective="rank")
    value = rank_loss(ranked.vectors, VISUAL, all_triplets(10)).item()
    assert ranked.provenance["value"] == pytest.approx(value, abs=1e-10)
    for other in (squared, absolute):
        assert value < rank_loss(other.vectors, VISUAL, all_triplets(10)).item()


@pytest.mark.parametrize("objective", ["squared", "absolute"])
def test_no_small_move_helps(objective: str) -> None:
    vectors = metric_guided(VISUAL, 3, objective=objective, starts=8).vectors  # type: ignore[arg-type]
    measure = squared_scale_free_distortion if objective == "squared" else scale_free_distortion
    value = measure(vectors, VISUAL)
    for seed in range(200):
        move = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert measure(vectors + 1e-3 * move, VISUAL) > value - 1e-7


def test_enough_dimensions_embed_a_euclidean_metric_exactly_and_more_are_zeros() -> None:
    points, _ = drawn(6, 3, seed=5)
    cost = torch.linalg.vector_norm(points[:, None] - points, dim=-1)
    for dim in (3, 5, 9):
        vectors = metric_guided(cost, dim).vectors
        assert vectors.shape == (6, dim)
        assert distortion(vectors, cost) < 1e-6
        assert not vectors[:, 5:].any()


def test_on_the_sphere() -> None:
    for objective in ("squared", "absolute", "rank"):
        prototypes = metric_guided(VISUAL, 4, objective=objective, spherical=True, starts=8)  # type: ignore[arg-type]
        lengths = torch.linalg.vector_norm(prototypes.vectors, dim=1)
        assert_close(lengths, torch.ones(10, dtype=torch.float64), rtol=1e-12, atol=0)
        chords = torch.linalg.vector_norm(prototypes.vectors[:, None] - prototypes.vectors, dim=-1)
        assert chords[1, 7] < chords[1, 4] < chords[1, 2]  # costs 2, 4, 6


def test_the_size_of_costs_on_the_sphere_makes_the_simplex_exact() -> None:
    equal = 5 * (1 - torch.eye(5, dtype=torch.float64))
    prototypes = metric_guided(equal, 6, spherical=True)
    cosines = prototypes.vectors @ prototypes.vectors.mT
    assert_close(cosines, 1.25 * torch.eye(5, dtype=torch.float64) - 0.25, rtol=0, atol=1e-7)
    assert prototypes.provenance["value"] < 1e-13
    # a line would fit better on a small patch of the sphere, which is nearly flat, were its size free
    line = metric_guided(absolute_difference_cost(6), 3, spherical=True).vectors
    assert torch.dist(line[0], line[5]) > 1.9


def test_separation_spreads_the_nearest() -> None:
    def nearest(separation: float) -> Tensor:
        vectors = metric_guided(VISUAL, 3, spherical=True, separation=separation, starts=8).vectors
        return (vectors @ vectors.mT - 2 * torch.eye(10, dtype=torch.float64)).amax(1).mean()

    assert nearest(1.0) < nearest(0.05) - 0.01 < nearest(0.0) - 0.02


def test_seeds_and_starts() -> None:
    once, again = metric_guided(VISUAL, 2, seed=1, starts=3), metric_guided(VISUAL, 2, seed=1, starts=3)
    assert once == again
    assert once.provenance["constructor"] == "metric_guided"
    assert metric_guided(VISUAL, 2, starts=40).provenance["value"] <= once.provenance["value"] + 1e-9


def test_a_tree_and_its_hidden_nodes() -> None:
    leaves = metric_guided(TREE, 3)
    assert leaves.provenance["names"] == ["cat", "dog", "saw", "awl"]
    assert_close(leaves.vectors, metric_guided(TREE.distances(), 3).vectors)
    nodes = metric_guided_nodes(TREE, 3, starts=8)
    assert nodes.vectors.shape == (7, 3)
    assert nodes.provenance["constructor"] == "metric_guided_nodes"
    assert nodes.provenance["names"] == list(TREE.names)
    cost = TREE.distances("all")
    assert squared_scale_free_distortion(nodes.vectors, cost).item() == pytest.approx(nodes.provenance["value"])
    far = torch.linalg.vector_norm(nodes.vectors[:, None] - nodes.vectors, dim=-1)
    pet, tool = TREE.names.index("pet"), TREE.names.index("tool")
    assert far[0, pet] < far[0, tool] and far[2, tool] < far[2, pet]
    assert nodes[: TREE.num_classes].provenance["classes"] == [0, 1, 2, 3]


def violating() -> Tensor:
    cost = absolute_difference_cost(4)
    cost[0, 3] = cost[3, 0] = 9
    return cost


def test_what_it_refuses() -> None:
    cost = absolute_difference_cost(4)
    with pytest.raises(CostMatrixError, match="triangle inequality; the worst triple"):
        metric_guided(violating(), 2)
    assert metric_guided(violating(), 2, metric=False).vectors.isfinite().all()
    with pytest.raises(CostMatrixError, match="cost must have at least two classes; got 1"):
        metric_guided(torch.zeros(1, 1), 2)
    with pytest.raises(CostMatrixError, match="cost must have at least three classes to rank; got 2"):
        metric_guided(cost[:2, :2], 2, objective="rank")
    with pytest.raises(DimensionError, match="dim must be at least 1; got 0"):
        metric_guided(cost, 0)
    with pytest.raises(ChoiceError, match="got 'best'"):
        metric_guided(cost, 2, objective="best")  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"separation must be .* got 0.5 with spherical=False"):
        metric_guided(cost, 2, separation=0.5)
    with pytest.raises(RangeError, match=r"separation must be .* got -1 with spherical=True"):
        metric_guided(cost, 2, separation=-1, spherical=True)
    with pytest.raises(RangeError, match="starts must be at least 1; got 0"):
        metric_guided(cost, 2, starts=0)
