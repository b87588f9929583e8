"""Batched descent on spheres: against plain gradients, one problem at a time, and at its own stops."""

from itertools import pairwise

import torch

from tightframe.codes.search.sphere import descend, tangent
from tightframe.numerics import unit_rows


def random_points(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit_rows(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def towards(goal: torch.Tensor):
    """The objective -<x, goal>, whose minimum on the sphere is the goal itself."""
    return lambda points: (-(points * goal).sum((1, 2)), -goal.expand_as(points))


def test_a_linear_objective_ends_at_its_direction() -> None:
    goal = random_points(1, 5, 4, seed=1)
    found = descend(random_points(3, 5, 4), towards(goal), steps=100)
    torch.testing.assert_close(found, goal.expand(3, 5, 4), rtol=0, atol=1e-9)


def test_a_quadratic_form_ends_at_its_lowest_eigenvector() -> None:
    draw = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    form = draw + draw.T
    found = descend(random_points(4, 1, 6), lambda x: ((x @ form * x).sum((1, 2)), 2 * x @ form), steps=300)
    lowest = torch.linalg.eigvalsh(form)[0]
    torch.testing.assert_close((found @ form * found).sum((1, 2)), lowest.expand(4), rtol=0, atol=1e-10)


def test_problems_of_a_batch_do_not_mix() -> None:
    goals = random_points(2, 3, 4, seed=3)
    together = descend(random_points(2, 3, 4), towards(goals), steps=7)
    for problem in range(2):
        alone = descend(random_points(2, 3, 4)[problem : problem + 1], towards(goals[problem : problem + 1]), steps=7)
        torch.testing.assert_close(together[problem], alone[0], rtol=0, atol=1e-12)


def test_values_never_rise_and_points_stay_on_the_sphere() -> None:
    form = torch.diag(torch.linspace(-3, 5, 8, dtype=torch.float64))
    seen: list[float] = []
    points = random_points(1, 4, 8)
    for _ in range(20):
        seen.append(float((points @ form * points).sum()))
        points = descend(points, lambda x: ((x @ form * x).sum((1, 2)), 2 * x @ form), steps=1)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(seen))
    assert seen[-1] < seen[0] - 1
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(1, 4, dtype=torch.float64), rtol=0, atol=1e-14)


def test_it_stops_when_told() -> None:
    calls = 0

    def objective(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        return towards(random_points(1, 2, 3, seed=5))(points)

    start = random_points(1, 2, 3)
    assert torch.equal(descend(start, objective, steps=50, stop=lambda: True), start)
    assert calls == 1


def test_tangent_vectors_are_orthogonal_to_points() -> None:
    points = random_points(2, 5, 3)
    inner = (tangent(torch.randn(2, 5, 3, dtype=torch.float64), points) * points).sum(-1)
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-14)
