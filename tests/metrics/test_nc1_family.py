"""Laws of all measures of NC1: what its statistics must hold, invariances, limits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import EmptyClassError, ScatterError
from variants import VARIANTS

POOLED = [
    metrics.nc1,
    VARIANTS["nc1_undivided"],
    VARIANTS["nc1_sample_centred"],
    VARIANTS["nc1_discriminant"],
    metrics.vci,
    metrics.within_in_mean_span,
]

OWN = [VARIANTS["nc1_class_balanced"], metrics.nc1_per_class, metrics.directional_cdnv]


def close(value: torch.Tensor, expected: object, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("name", SCENARIOS)
def test_nc1_of_each_class_averages_to_both_forms(name: str) -> None:
    statistics = statistics_of(draw(SCENARIOS[name])).populated()
    each = metrics.nc1_per_class(statistics)
    assert each.shape == (statistics.num_classes,)
    close(each.mean(), metrics.nc1(statistics, within="class"))
    close((each * statistics.counts).sum() / statistics.num_samples, metrics.nc1(statistics))
    centred = statistics.centred_means().numpy()
    between = np.linalg.pinv(centred.T @ centred / len(centred), rtol=1e-9)
    for k, own in enumerate(each):
        covariance = (statistics.class_within[k] / statistics.counts[k]).numpy()
        np.testing.assert_allclose(own, np.trace(covariance @ between) / len(centred), rtol=1e-8, atol=1e-20)


# ---------------------------------------------------------------------- what they need


@pytest.mark.parametrize("function", [*POOLED, *OWN], ids=lambda f: f.__name__)
def test_missing_scatter_is_asked_for(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    features, labels = torch.from_numpy(sample.features), torch.from_numpy(sample.labels)
    bare = ClassStatistics.from_features(features, labels, 6, covariance=False)
    option = "per_class=True" if function in OWN else "covariance=True"
    with pytest.raises(ScatterError, match=option):
        function(bare)
    if function in OWN:
        with pytest.raises(ScatterError, match="per_class=True"):
            function(ClassStatistics.from_features(features, labels, 6))


@pytest.mark.parametrize("function", [metrics.trace_ratio, metrics.trace_share, metrics.cdnv, metrics.within_trace])
def test_traces_need_no_scatter(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    features, labels = torch.from_numpy(sample.features), torch.from_numpy(sample.labels)
    bare = ClassStatistics.from_features(features, labels, 6, covariance=False)
    assert torch.equal(function(bare), function(statistics_of(sample)))


@pytest.mark.parametrize("function", [*POOLED, *OWN, metrics.cdnv, metrics.trace_ratio], ids=lambda f: f.__name__)
def test_one_class_has_nothing_between(function: Callable) -> None:
    statistics = ClassStatistics.from_features(torch.randn(5, 2), torch.ones(5).long(), 3, per_class=True)
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        function(statistics)


# ---------------------------------------------------------------------- invariances and limits


@pytest.mark.parametrize("name", SCENARIOS)
def test_ratios_ignore_rotation_translation_and_scale(name: str, rotation: Callable[[int], torch.Tensor]) -> None:
    sample = draw(SCENARIOS[name])
    turn = rotation(SCENARIOS[name].dim).numpy()
    moved = Sample(7 * sample.features @ turn + 3, sample.labels, sample.num_classes)
    one, other = statistics_of(sample), statistics_of(moved)
    for function in (*POOLED, *OWN, metrics.cdnv, metrics.trace_ratio, metrics.trace_share):
        np.testing.assert_allclose(function(other), function(one), rtol=1e-9, atol=1e-15)
    close(metrics.cdnv(other, distance_exponent=4), metrics.cdnv(one, distance_exponent=4) / 49, 1e-9)
    close(metrics.within_trace(other), 49 * metrics.within_trace(one), 1e-9)


def test_vci_ignores_any_invertible_map() -> None:
    sample = draw(SCENARIOS["zipf"])
    stretched = sample.features @ np.random.default_rng(1).normal(size=(12, 12))
    other = statistics_of(Sample(stretched, sample.labels, 8))
    close(metrics.vci(other), metrics.vci(statistics_of(sample)), 1e-9)


def test_test_features_about_training_means() -> None:
    """Strong test collapse: variability about the *training* means, by direct sums."""
    train, test = draw(SCENARIOS["balanced"]), draw(SCENARIOS["balanced"], spread=0.3)
    centres = statistics_of(train).means
    about = statistics_of(test).about(centres)
    gaps = test.features - centres.numpy()[test.labels]
    close(metrics.within_trace(about), (gaps**2).sum(1).mean())
    centred = (centres - centres.mean(0)).numpy()
    between = np.linalg.pinv(centred.T @ centred / 6, rtol=1e-9)
    close(metrics.nc1(about), np.trace(gaps.T @ gaps / len(gaps) @ between) / 6, 1e-9)


def test_perfect_collapse_is_exactly_zero() -> None:
    features = torch.randn(4, 5, dtype=torch.float64).repeat(6, 1)
    statistics = ClassStatistics.from_features(features, torch.arange(4).repeat(6), 4, per_class=True)
    exactly = ClassStatistics(
        statistics.counts, statistics.means, 0 * statistics.spread, 0 * statistics.within, 0 * statistics.class_within
    )
    for function in (*POOLED[:4], *OWN, metrics.cdnv, metrics.trace_ratio, metrics.trace_share):
        assert (function(exactly) == 0).all(), function.__name__
    assert metrics.within_in_mean_span(exactly).isnan()  # a share of nothing
    assert abs(metrics.vci(exactly)) < 1e-14
