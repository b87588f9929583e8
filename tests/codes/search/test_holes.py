"""Holes: the centres of an orthoplex' faces, of a cap's far side, and how many are taken."""

import math

import pytest
import torch

from tightframe.codes.search.holes import filled


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


def test_no_more_points_than_wanted() -> None:
    points = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator()), dim=1)
    assert torch.equal(filled(points, 9, generator()), points)
    assert filled(points, 12, generator()).shape == (12, 5)
    assert filled(points, 12, generator()).dtype is torch.float32
