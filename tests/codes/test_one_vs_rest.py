"""One-vs-rest distances against the check values of section A7, a general solver, and their own gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tightframe.codes import one_vs_rest_distances, smallest_one_vs_rest
from tightframe.errors import DtypeError, NonFiniteError, ShapeError


def circle(points: int) -> torch.Tensor:
    angles = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    return torch.stack([angles.cos(), angles.sin()], 1)


def icosahedron() -> torch.Tensor:
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    rows = [np.roll(corner, shift) for corner in corners for shift in range(3)]
    return torch.nn.functional.normalize(torch.tensor(np.array(rows), dtype=torch.float64), dim=1)


def simplex(classes: int) -> torch.Tensor:
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return centred * math.sqrt(classes / (classes - 1))


@pytest.mark.parametrize(
    ("vectors", "distance"),
    [
        *((simplex(k), k / (k - 1)) for k in (2, 3, 7)),
        (torch.cat([torch.eye(5), -torch.eye(5)]).double(), 1.0),
        *((circle(k), 1 - math.cos(2 * math.pi / k)) for k in (3, 4, 8)),
        (icosahedron(), 1 - 1 / math.sqrt(5)),
    ],
)
def test_known_codes(vectors: torch.Tensor, distance: float) -> None:
    assert float(smallest_one_vs_rest(vectors)) == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize(("classes", "dim"), [(9, 4), (6, 10), (20, 3)])
def test_against_a_general_solver(classes: int, dim: int) -> None:
    vectors = torch.randn(classes, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(classes))
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    found = one_vs_rest_distances(vectors).numpy()
    for k in range(classes):
        rest = np.delete(vectors.numpy(), k, axis=0) - vectors.numpy()[k]
        solved = minimize(
            lambda a, rest=rest: ((a @ rest) ** 2).sum(),
            np.full(classes - 1, 1 / (classes - 1)),
            bounds=[(0, 1)] * (classes - 1),
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        assert found[k] == pytest.approx(math.sqrt(solved.fun), abs=1e-6)
        assert found[k] <= math.sqrt(solved.fun) + 1e-12  # ours is the exact minimum


def test_inside_the_hull_is_zero() -> None:
    vectors = torch.cat([circle(5), torch.tensor([[0.1, -0.2]], dtype=torch.float64)])
    assert float(one_vs_rest_distances(vectors)[-1]) == pytest.approx(0, abs=1e-12)


def test_gradient() -> None:
    vectors = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(vectors, dim=1).requires_grad_()
    assert torch.autograd.gradcheck(smallest_one_vs_rest, vectors)


def test_needs_two_vectors() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 4\)"):
        one_vs_rest_distances(torch.ones(1, 4))


def test_vectors_must_be_finite_floats() -> None:
    with pytest.raises(NonFiniteError, match="row 1 holds nan"):
        one_vs_rest_distances(torch.tensor([[1.0, 0.0], [math.nan, 0.0], [0.0, 1.0]]))
    with pytest.raises(DtypeError, match="vectors must be floating point"):
        one_vs_rest_distances(torch.tensor([[1, 0], [0, 1]]))
