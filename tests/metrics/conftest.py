"""The two examples of the formula sheet, and exact simplices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightframe import ClassStatistics


@pytest.fixture
def example_a() -> ClassStatistics:
    """Section A1: three classes on a simplex of radius 2; four samples each, half a unit along either axis."""
    angles = torch.arange(3, dtype=torch.float64) * (2 * torch.pi / 3)
    means = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    steps = torch.tensor([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]], dtype=torch.float64)
    features = (means[:, None] + steps).reshape(12, 2)
    return ClassStatistics.from_features(features, torch.arange(3).repeat_interleave(4), 3, per_class=True)


@pytest.fixture
def example_b() -> ClassStatistics:
    """Section A2: the class means (1, 0), (0, 1) and (0, 0)."""
    means = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.float64)
    return ClassStatistics.from_features(means, torch.arange(3), 3)


@pytest.fixture
def simplex() -> Callable[..., ClassStatistics]:
    """Class means that are the K unit vectors along the axes, which centred are a simplex; one sample each."""

    def make(classes: int, dim: int | None = None) -> ClassStatistics:
        means = torch.eye(classes, dim or classes, dtype=torch.float64)
        return ClassStatistics(torch.ones(classes, dtype=torch.int64), means, means.new_zeros(classes))

    return make


@pytest.fixture
def rotation() -> Callable[[int], Tensor]:
    """A random orthogonal matrix."""

    def make(dim: int) -> Tensor:
        return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0]

    return make
