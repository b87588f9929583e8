"""The frame of class means: structure errors, and the nearest simplex."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tightframe import ClassStatistics, metrics
from tightframe.errors import DimensionError, ShapeError


def of_means(means: torch.Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(means, torch.arange(len(means)), len(means))


@pytest.mark.parametrize(("a", "b"), [((5, 3), (5, 4)), ((5, 3), (4, 3)), ((1, 3), (1, 3)), ((5,), (5,))])
def test_structure_error_needs_two_equal_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"K >= 2; got \("):
        metrics.structure_error(torch.ones(a), torch.ones(b))


@pytest.mark.parametrize(("K", "D"), [(4, 9), (4, 3), (4, 2), (12, 3)])
def test_structure_error_by_its_definition(K: int, D: int) -> None:
    a, b = torch.randn(2, K, D, dtype=torch.float64)
    product = (b @ a.mT).numpy()
    ideal = (np.eye(K) - 1 / K) / math.sqrt(K - 1)
    expected = np.linalg.norm(product / np.linalg.norm(product) - ideal)
    np.testing.assert_allclose(metrics.structure_error(a, b), expected, rtol=1e-12)


def test_structure_error_of_dual_simplices_is_zero(
    simplex: Callable[..., ClassStatistics], rotation: Callable[[int], torch.Tensor]
) -> None:
    rows = simplex(5, 8).centred_means() @ rotation(8)
    assert metrics.structure_error(rows, 3 * rows) < 1e-14
    assert abs(metrics.structure_error(rows, -rows) - 2) < 1e-14


@pytest.mark.parametrize("D", [1, 2])
def test_a_simplex_needs_its_dimensions(D: int) -> None:
    with pytest.raises(DimensionError, match=f"4 classes needs at least 3 dimensions; got {D}"):
        metrics.nearest_etf(of_means(torch.randn(4, D, dtype=torch.float64)))


def test_the_simplex_is_its_own_nearest(simplex: Callable[..., ClassStatistics]) -> None:
    for K in (2, 3, 6):
        centred = simplex(K).centred_means()
        units = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        torch.testing.assert_close(metrics.nearest_etf(simplex(K)), units, rtol=0, atol=1e-12)
        assert metrics.etf_distance(simplex(K)) < 1e-14
        assert metrics.etf_error(simplex(K)) < 1e-14


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_near_the_simplex_errors_shrink_with_the_step(simplex: Callable[..., ClassStatistics], step: float) -> None:
    """The forms with a square root of a difference would stall at 1e-8."""
    noise = torch.randn(5, 5, dtype=torch.float64)
    near, tenth = (of_means(simplex(5).means + scale * noise) for scale in (step, step / 10))
    for function in (metrics.etf_error, metrics.etf_distance, metrics.equinorm, metrics.equiangularity):
        assert abs(function(near) / function(tenth) - 10) < 0.05, function.__name__


def test_two_classes_are_always_a_simplex() -> None:
    statistics = of_means(torch.randn(2, 7, dtype=torch.float64))
    assert metrics.etf_error(statistics) < 1e-14
    assert metrics.etf_distance(statistics) < 1e-14
    assert abs(metrics.mean_cosine(statistics) + 1) < 1e-14
    assert abs(metrics.minimum_angle(statistics) - 180) < 1e-12
    assert metrics.equiangularity(statistics, ddof=0) == 0
    assert metrics.equiangularity(statistics).isnan()  # one pair has no spread about itself
