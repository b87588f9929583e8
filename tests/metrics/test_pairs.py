"""Pairs in tiles: near pairs, moments that merge, and names that aren't pairwise."""

import math

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import ClassStatistics, metrics
from tightframe.metrics.pairs import LogMoments, Moments, Smallest


@pytest.mark.filterwarnings("ignore:1 of 21 pairs .* too small to tell them apart:tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("tile_size", [2, 512])
def test_near_pairs_keep_their_digits(gap: float, tile_size: int) -> None:
    """Two means `gap` apart at distance one from the centre: |a|^2 + |b|^2 - 2ab would hold none of it."""
    means = torch.randn(7, 5, dtype=torch.float64)
    means[4] = means[1] + gap * torch.nn.functional.normalize(torch.randn(5, dtype=torch.float64), dim=0)
    statistics = ClassStatistics(torch.full((7,), 3), means, torch.ones(7, dtype=torch.float64))
    values = metrics.pairwise(statistics, tile_size=tile_size)
    i, j = torch.triu_indices(7, 7, 1)
    rtol = max(1e-10, 1e-15 / gap)  # centred means are rounded to their last digit
    squared = (means[i] - means[j]).square().sum(1)
    torch.testing.assert_close(values["cdnv"], (1 / 3 / squared).mean(), rtol=rtol, atol=0)
    units = statistics.centred_means()
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True)
    chords = torch.linalg.vector_norm(units[i] - units[j], dim=1)
    torch.testing.assert_close(values["log_kernel_mean"], -chords.log().mean(), rtol=rtol, atol=0)
    torch.testing.assert_close(values["riesz_mean"], (1 / chords).mean(), rtol=rtol, atol=0)
    torch.testing.assert_close(values["minimum_angle"], torch.rad2deg(2 * (chords.min() / 2).asin()), rtol=rtol, atol=0)


def test_pairwise_takes_names() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    assert list(metrics.pairwise(statistics, ["distance_cv", "cdnv"])) == ["distance_cv", "cdnv"]
    assert metrics.pairwise(statistics, []) == {}
    for name in ("nc1", "nonsense"):
        with pytest.raises(KeyError, match=name):
            metrics.pairwise(statistics, [name])


@pytest.mark.parametrize("cut", [1, 7, 19])
def test_moments_merge(cut: int) -> None:
    values = torch.randn(20, dtype=torch.float64) + 1e6
    merged = Moments.of(values[:cut]).merge(Moments.of(values[cut:]))
    assert merged.number == 20
    torch.testing.assert_close(merged.mean, values.mean(), rtol=1e-15, atol=0)
    for ddof in (0, 1, 19):
        torch.testing.assert_close(merged.standard_deviation(ddof), values.std(correction=ddof), rtol=1e-9, atol=0)
    assert merged.standard_deviation(20).isnan()


@pytest.mark.parametrize("cut", [1, 7, 19])
@pytest.mark.parametrize("size", [1.0, 5000.0])
def test_moments_of_logarithms_merge(cut: int, size: float) -> None:
    logs = size * torch.randn(20, dtype=torch.float64)
    merged = LogMoments.of(logs[:cut]).merge(LogMoments.of(logs[cut:]))
    torch.testing.assert_close(merged.log_mean, logs.logsumexp(0) - math.log(20), rtol=1e-12, atol=1e-12)
    values = (logs - logs.max()).exp()
    torch.testing.assert_close(merged.cv, values.std(correction=0) / values.mean(), rtol=1e-10, atol=0)


def test_the_smallest_merges() -> None:
    values = torch.rand(20)
    merged = Smallest.of(values[:9]).merge(Smallest.of(values[9:]))
    assert merged.value == values.min()
