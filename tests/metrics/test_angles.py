"""Angles between class means: grids, small and straight angles, cosines of very many rows."""

import math

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import ClassStatistics, metrics
from tightframe.metrics import angles, classifier_equiangularity
from tightframe.metrics.pairs import reduce_vectors


def of_means(means: torch.Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(means, torch.arange(len(means)), len(means))


@pytest.mark.parametrize("name", SCENARIOS)
def test_grids_are_the_products_of_the_centred_means(name: str) -> None:
    statistics = statistics_of(draw(SCENARIOS[name]))
    means = statistics.means[statistics.present].numpy()
    centred = means - means.mean(0)
    norms = np.linalg.norm(centred, axis=1)
    gram = centred @ centred.T
    np.testing.assert_allclose(metrics.mean_norms(statistics), norms, rtol=1e-12)
    np.testing.assert_allclose(metrics.interference_grid(statistics), gram, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.cosine_grid(statistics), gram / np.outer(norms, norms), rtol=0, atol=1e-12)


@pytest.mark.parametrize("step", [1e-4, 1e-7, 1e-10])
def test_small_angles_keep_their_digits(step: float) -> None:
    """Two means `step` apart seen from a centre at distance one, between two more that hold the centre."""
    means = torch.tensor([[1, step / 2, 0], [1, -step / 2, 0], [-1, 0, 1], [-1, 0, -1]], dtype=torch.float64)
    expected = math.degrees(2 * math.atan(step / 2))
    assert abs(metrics.minimum_angle(of_means(means)) / expected - 1) < 1e-6


def test_the_angle_of_two_classes_is_a_straight_one() -> None:
    """arccos of a cosine of -1 - 2e-16 is NaN, and of -1 + 2e-16 it is 1e-6 degrees off."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(200):
        means = torch.randn(2, 1 + trial % 20, dtype=torch.float64, generator=generator)
        angle = metrics.minimum_angle(of_means(means)).item()
        assert angle == pytest.approx(180, rel=0, abs=1e-12)
        assert angle <= 180


@pytest.mark.parametrize("angle", [1e-9, 1e-3, 30.0, 90.0, 120.0, 179.0, 180 - 1e-3, 180 - 1e-7])
def test_the_smallest_angle_is_exact_in_all_of_its_range(angle: float) -> None:
    """Two vectors at that angle, seen through the kernel: centred means of three classes are never all so far apart."""
    half = math.radians(angle) / 2
    vectors = torch.tensor([[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]], dtype=torch.float64)
    if angle > 120:
        vectors = torch.tensor([[1.0, 0.0], [math.cos(2 * half), math.sin(2 * half)]], dtype=torch.float64)
    found = reduce_vectors(vectors, {"nearest": angles.NEAREST})["nearest"].value.rad2deg().item()
    assert found == pytest.approx(angle, rel=1e-13 if angle > 1 else 1e-9, abs=0)


@pytest.mark.parametrize("common", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_spread_of_cosines_without_pairs(monkeypatch: pytest.MonkeyPatch, common: float, ddof: int) -> None:
    rows = torch.randn(60, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + common
    over_pairs = classifier_equiangularity(rows, ddof=ddof)
    monkeypatch.setattr(angles, "_MANY_ROWS", 10)
    calls: list[int] = []
    tiled = angles.reduce_vectors
    monkeypatch.setattr(angles, "reduce_vectors", lambda *given: calls.append(1) or tiled(*given))
    assert float(classifier_equiangularity(rows, ddof=ddof)) == pytest.approx(float(over_pairs), rel=1e-6)
    assert not calls


def test_cosines_that_are_nearly_equal_are_taken_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.ones(60, 7, dtype=torch.float64) + 1e-4 * torch.eye(60, 7, dtype=torch.float64)
    expected = classifier_equiangularity(rows)
    monkeypatch.setattr(angles, "_MANY_ROWS", 10)
    assert float(classifier_equiangularity(rows)) == float(expected) > 0
