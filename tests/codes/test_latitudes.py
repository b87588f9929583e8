"""Points on circles of latitude: as many as are counted, at the angles that are asked for."""

import math

import pytest
import torch

from tightframe.codes import best_built
from tightframe.codes.exact.latitudes import latitudes, number_on_latitudes


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
@pytest.mark.parametrize("angle", [math.pi, 2.0, math.pi / 2, 1.0, 0.5, 0.3])
def test_angles_and_number(dim: int, angle: float) -> None:
    points = latitudes(dim, angle)
    assert points.shape == (number_on_latitudes(dim, angle), dim)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(len(points)).double(), rtol=0, atol=1e-14)
    if len(points) > 1:
        largest = float((points @ points.T).fill_diagonal_(-1).max())
        assert largest <= math.cos(angle) + 1e-12


def test_the_octahedron_and_the_count_of_many() -> None:
    assert number_on_latitudes(3, math.pi / 2) == 6
    assert 0.6 < number_on_latitudes(3, 0.01) / (8 * math.pi / math.sqrt(3) / 0.01**2) < 0.9  # of hexagons
    assert number_on_latitudes(6, 1e-3) is None


@pytest.mark.parametrize(("K", "D"), [(23_000, 4), (1000, 8), (30_000, 3), (2001, 10)])
def test_many_vectors_in_few_dimensions_are_far_apart(K: int, D: int) -> None:
    """Where nothing else can be built; a polygon would have 360 / K degrees."""
    row = best_built(K, D)
    assert row.K >= K and row.D <= D
    assert math.degrees(math.acos(row.cosine)) > 20 * 360 / K
