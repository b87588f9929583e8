"""Pairs in tiles: near pairs, values in order, one pass for each kernel."""

from operator import attrgetter

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import ClassStatistics, metrics
from tightframe.metrics.pairs import Kernel, OverPairs, over_pairs
from tightframe.metrics.table import pairwise
from tightframe.metrics.tile import Tile
from variants import VARIANTS


@pytest.mark.filterwarnings("ignore:1 of 21 pairs .* are by chance:tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("tile_size", [2, 512])
def test_near_pairs_keep_their_digits(gap: float, tile_size: int) -> None:
    """Two means `gap` apart at distance one from the centre: |a|^2 + |b|^2 - 2ab would hold none of it."""
    means = torch.randn(7, 5, dtype=torch.float64)
    means[4] = means[1] + gap * torch.nn.functional.normalize(torch.randn(5, dtype=torch.float64), dim=0)
    statistics = ClassStatistics(torch.full((7,), 3), means, torch.ones(7, dtype=torch.float64))
    chosen = [metric for metric in VARIANTS.values() if metric.pairs is not None]
    wanted = [metric.pairs(**metric.options) for metric in chosen]
    found = over_pairs(statistics, *wanted, tile_size=tile_size)
    values = dict(zip([metric.name for metric in chosen], found, strict=True))
    i, j = torch.triu_indices(7, 7, 1)
    rtol = max(1e-10, 1e-15 / gap)  # centred means are rounded to their last digit
    squared = (means[i] - means[j]).square().sum(1)
    torch.testing.assert_close(values["cdnv"], (1 / 3 / squared).mean(), rtol=rtol, atol=0)
    units = statistics.centred_means()
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True)
    chords = torch.linalg.vector_norm(units[i] - units[j], dim=1)
    torch.testing.assert_close(values["log_kernel"], -chords.log().mean(), rtol=rtol, atol=0)
    torch.testing.assert_close(values["riesz_kernel"], (1 / chords).mean(), rtol=rtol, atol=0)
    torch.testing.assert_close(values["minimum_angle"], torch.rad2deg(2 * (chords.min() / 2).asin()), rtol=rtol, atol=0)


def test_pairwise_gives_values_in_order() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    wanted = [VARIANTS["distance_kernel_cv"], metrics.cdnv, metrics.distance_kernel, metrics.cdnv]
    values = pairwise(statistics, wanted)
    assert len(values) == 4
    assert torch.equal(values[1], values[3])
    for metric, value in zip(wanted, values, strict=True):
        torch.testing.assert_close(value, metric(statistics), rtol=1e-12, atol=0)


def test_measures_that_share_a_kernel_share_its_reduction() -> None:
    """Three readings of one kernel, exact or not, are one pass: its value is computed once for each tile."""
    calls = []

    def value(tile: Tile) -> torch.Tensor:
        calls.append(tile)
        return tile.squared_chord.sqrt()

    kernel = Kernel(value)
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    readings = [OverPairs(kernel, attrgetter(of)) for of in ("mean", "variance", "cv")]
    over_pairs(statistics, *readings, tile_size=3)
    assert len(calls) == 3
