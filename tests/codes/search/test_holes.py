"""Holes: the centres of an orthoplex' faces, of a cap's far side, and how many are taken."""

import math

import pytest
import torch

from tightframe.codes.search.holes import filled, thinned


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_deep_holes_of_an_orthoplex_are_its_faces_centres() -> None:
    axes = torch.eye(4, dtype=torch.float64)
    points = torch.cat([axes, -axes])
    found = filled(points, 24, generator())  # the 24-cell: a hypercube's 16 vertices are the holes of an orthoplex
    assert torch.equal(found[:8], points)
    assert found[8:].abs() == pytest.approx(0.5, abs=0.01)
    assert float((found @ found.T).fill_diagonal_(-1).max()) == pytest.approx(0.5, abs=0.01)


def test_the_largest_hole_is_taken_first() -> None:
    angles = torch.linspace(0, math.pi, 20, dtype=torch.float64)  # half of a circle
    points = torch.stack([angles.cos(), angles.sin()], 1)
    found = filled(points, 21, generator())
    assert found[20].tolist() == pytest.approx([0, -1], abs=0.02)


def test_directions_move_no_further_when_time_is_up() -> None:
    axes = torch.eye(4, dtype=torch.float64)
    steps = iter([False, False, True])
    found = filled(torch.cat([axes, -axes]), 24, generator(), lambda: next(steps))  # asked no more after the third
    assert found.shape == (24, 4) and found.norm(dim=1) == pytest.approx(1, abs=1e-6)
    assert found[8:].abs() != pytest.approx(0.5, abs=0.01)


def test_no_more_points_than_wanted() -> None:
    points = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator()), dim=1)
    assert torch.equal(filled(points, 9, generator()), points)
    assert filled(points, 12, generator()).shape == (12, 5)
    assert filled(points, 12, generator()).dtype is torch.float32


def test_thinning_takes_the_points_with_the_most_contacts() -> None:
    """A square on the equator, the poles, and two more points close to one corner."""
    corner = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    close = torch.nn.functional.normalize(torch.tensor([[1, 0.1, 0.1], [1, -0.1, 0.1]]).double(), dim=1)
    axes = torch.eye(3, dtype=torch.float64)
    points = torch.cat([close, axes, -axes])
    assert torch.equal(thinned(points, 8), points)
    kept = thinned(points, 6)
    assert (kept @ corner > 0.9).sum() == 1
    assert float((kept @ kept.T).fill_diagonal_(-1).max()) < 0.2
