"""Coincident points, seen by comparing every pair."""

import pytest
import torch

from tightframe.numerics import first_of_coincident


@pytest.mark.parametrize("seed", range(20))
def test_clumps_of_points_against_every_pair(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, 1 + seed % 4, dtype=torch.float64, generator=generator)
    which = torch.randint(0, 12, (40,), generator=generator)
    points = centres[which] + 1e-9 * torch.rand(40, centres.shape[1], dtype=torch.float64, generator=generator)
    near = torch.linalg.vector_norm(points[:, None] - points, dim=2) <= 1e-8
    assert first_of_coincident(points, torch.full((40,), 1e-8)).tolist() == near.numpy().argmax(1).tolist()


def test_many_classes_coincide_in_little_time() -> None:
    """Pairs of 50,000 classes aren't compared one by one."""
    means = torch.randn(500, 16, dtype=torch.float64).repeat(100, 1)
    means += 1e-12 * torch.randn(means.shape, dtype=torch.float64)
    rounding = torch.full((50_000,), 1e-9, dtype=torch.float64)
    assert first_of_coincident(means, rounding).tolist() == list(range(500)) * 100
    assert first_of_coincident(means, rounding * 0).tolist() == list(range(50_000))


def test_rounding_of_projections_separates_no_coinciding_means() -> None:
    means = 1e6 * torch.randn(50, 333, dtype=torch.float64)
    copies = means + 1e-10 * torch.randn(50, 333, dtype=torch.float64)
    rounding = torch.full((100,), float(torch.linalg.vector_norm(means - copies, dim=1).max()), dtype=torch.float64)
    assert first_of_coincident(torch.cat([means, copies]), rounding).tolist() == list(range(50)) * 2
