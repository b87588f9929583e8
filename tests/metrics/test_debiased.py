"""Debiased CDNV and traces: right on average at few samples, pairs left out where samples can't tell means apart."""

import math
import warnings
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.scenarios import COUNTED, SCENARIOS, Sample, draw, statistics_of
from oracle import ORACLE
from tightframe import ClassStatistics, metrics
from tightframe.errors import EmptyClassError, GeometryWarning, ScatterError
from tightframe.metrics import METRICS
from tightframe.metrics.table import pairwise
from variants import VARIANTS

SINGLE = "debiased measures leave out"
SMALL = "are by chance"


def sampled(means: Tensor, counts: list[int], generator: torch.Generator) -> ClassStatistics:
    """Classes of unit Gaussians about the means."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), means.shape[1], dtype=torch.float64, generator=generator)
    return ClassStatistics.from_features(means[labels] + noise, labels, len(counts), covariance=False)


# ---------------------------------------------------------------------- right on average


def test_cdnv_at_five_samples_a_class() -> None:
    """Section A1 of the formula sheet: K = 20, n = 5, D = 100; truth 2.08, plug-in 0.44 of it, debiased within 10 %."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(20, 100, dtype=torch.float64, generator=generator) / 2
    truth = (100 / torch.nn.functional.pdist(means).square()).mean().item()
    assert truth == pytest.approx(2.08, abs=0.1)
    plugged, debiased = [], []
    for _ in range(200):
        statistics = sampled(means, [5] * 20, generator)
        plugged.append(metrics.cdnv(statistics).item())
        debiased.append(metrics.cdnv(statistics, debiased=True).item())
    assert mean(plugged) == pytest.approx(0.44 * truth, rel=0.02)
    assert mean(debiased) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("counts", [[5] * 8, [2, 3, 4, 50, 2, 9, 30, 6]])
def test_the_between_trace_is_unbiased(counts: list[int]) -> None:
    """Against the true means' trace; the plain one is off by (1/K) (1 - 1/K) sum D / n_k, many standard errors."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(8, 30, dtype=torch.float64, generator=generator) / 3
    truth = (means - means.mean(0)).square().sum(1).mean().item()
    values, plain = [], []
    for _ in range(400):
        statistics = sampled(means, counts, generator)
        values.append(metrics.between_trace(statistics, debiased=True).item())
        plain.append(metrics.between_trace(statistics).item())
    error = stdev(values) / math.sqrt(len(values))
    assert abs(mean(values) - truth) < 3 * error
    excess = 30 * (1 - 1 / 8) * mean(1 / n for n in counts)
    assert mean(plain) - truth == pytest.approx(excess, abs=3 * stdev(plain) / 20)
    assert excess > 30 * error


def test_the_between_covariance_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(5, 3, dtype=torch.float64, generator=generator) / 2
    shapes = torch.randn(5, 3, 3, dtype=torch.float64, generator=generator)  # every class has its own covariance
    labels = torch.arange(5).repeat_interleave(torch.tensor([2, 3, 4, 20, 7]))
    centred = means - means.mean(0)
    truth = centred.mT @ centred / 5
    values, plain = [], []
    for _ in range(300):
        noise = torch.randn(len(labels), 1, 3, dtype=torch.float64, generator=generator) @ shapes[labels]
        statistics = ClassStatistics.from_features(means[labels] + noise[:, 0], labels, 5, per_class=True)
        value = metrics.between_covariance_debiased(statistics)
        trace = metrics.between_trace(statistics, debiased=True)
        torch.testing.assert_close(value.trace(), trace, rtol=1e-10, atol=1e-12)
        values.append(value)
        plain.append(statistics.between_covariance())
    scores, uncorrected = (
        (stacked.mean(0) - truth) / (stacked.std(0) / math.sqrt(len(stacked)))
        for stacked in (torch.stack(values), torch.stack(plain))
    )
    assert scores.abs().max() < 3.5
    assert uncorrected.abs().max() > 10


def test_the_trace_ratio_at_few_samples() -> None:
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(20, 100, dtype=torch.float64, generator=generator) / 2
    truth = (100 / (means - means.mean(0)).square().sum(1).mean()).item()
    sets = [sampled(means, [5] * 20, generator) for _ in range(100)]
    assert mean(metrics.trace_ratio(each, debiased=True).item() for each in sets) == pytest.approx(truth, rel=0.01)
    assert mean(metrics.trace_ratio(each).item() for each in sets) < 0.6 * truth


def test_many_samples_need_no_correction() -> None:
    generator = torch.Generator().manual_seed(4)
    means = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    statistics = sampled(means, [20_000] * 4, generator)
    for name in ("cdnv", "trace_ratio", "between_trace"):
        plain, debiased = METRICS[name](statistics), METRICS[name](statistics, debiased=True)
        assert debiased == pytest.approx(plain.item(), rel=1e-3)
        assert debiased != plain


# ---------------------------------------------------------------------- undefined


def two_near_pairs() -> ClassStatistics:
    """Five classes; 0 and 1, and 3 and 4, are nearer to each other than their scatter explains."""
    means = torch.tensor([[0.0, 0], [0.1, 0], [9, 0], [0, 9], [0.1, 9]], dtype=torch.float64)
    return ClassStatistics(torch.full((5,), 4), means, torch.full((5,), 12.0, dtype=torch.float64))


def test_pairs_that_samples_cannot_tell_apart_are_left_out() -> None:
    statistics = two_near_pairs()
    grid = metrics.cdnv_grid(statistics, debiased=True)
    for tile_size in (2, 512):
        with pytest.warns(GeometryWarning, match=f"^2 of 10 pairs of class means .* {SMALL}; .* leaves out these"):
            value = metrics.cdnv(statistics, debiased=True, tile_size=tile_size)
        torch.testing.assert_close(value, grid.nanmean(), rtol=1e-12, atol=0)
        with pytest.warns(GeometryWarning, match="^2 of 10 pairs"):
            assert metrics.cdnv(statistics, debiased=True, exact=True, tile_size=tile_size).isnan()
    with pytest.warns(GeometryWarning, match="^2 of 10 pairs"):
        debiased, plain = pairwise(statistics, [VARIANTS["cdnv_debiased"], metrics.cdnv])
    assert torch.equal(debiased, value)
    torch.testing.assert_close(plain, metrics.cdnv_grid(statistics).nanmean(), rtol=1e-12, atol=0)
    undefined = grid.isnan() & ~torch.eye(5, dtype=torch.bool)
    assert undefined.nonzero().tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]
    each = metrics.cdnv_per_class(statistics, debiased=True)
    torch.testing.assert_close(each, grid.nanmean(1), rtol=1e-12, atol=0)
    assert grid[0, 2].item() == pytest.approx(4 / (81 - 2), rel=1e-12)  # s^2 = 12/3 and s^2/n = 1


def test_a_corrected_distance_of_zero_is_left_out_too() -> None:
    means = torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64)
    statistics = ClassStatistics(torch.full((3,), 2), means, torch.ones(3, dtype=torch.float64))  # s^2 = 1, s^2/n = 1/2
    with pytest.warns(GeometryWarning, match="^1 of 3 pairs"):
        value = metrics.cdnv(statistics, debiased=True).item()
    assert value == pytest.approx((1 / (81 - 1) + 1 / (64 - 1)) / 2, rel=1e-12)


def test_where_no_pair_can_be_told_apart_there_is_no_value() -> None:
    means = torch.tensor([[0.0], [0.1], [0.2]], dtype=torch.float64)
    statistics = ClassStatistics(torch.full((3,), 2), means, torch.ones(3, dtype=torch.float64))
    for tile_size in (1, 2, 512):
        with pytest.warns(GeometryWarning, match="^3 of 3 pairs"):
            assert metrics.cdnv(statistics, debiased=True, tile_size=tile_size).isnan()
    assert metrics.cdnv_per_class(statistics, debiased=True).isnan().all()


def test_a_trace_that_is_not_positive_has_no_ratio() -> None:
    means = torch.tensor([[0.0, 0.1], [0.1, 0.0], [0.0, 0.0]], dtype=torch.float64)
    statistics = ClassStatistics(torch.full((3,), 3), means, torch.ones(3, dtype=torch.float64))
    assert metrics.between_trace(statistics, debiased=True) < 0
    with pytest.warns(GeometryWarning, match=SMALL):
        assert metrics.trace_ratio(statistics, debiased=True).isnan()


# ---------------------------------------------------------------------- classes with a single sample


def test_classes_with_one_sample_are_left_out_and_named() -> None:
    sample = draw(SCENARIOS["single samples"])
    statistics = statistics_of(sample)
    kept = statistics.select([1, 3, 4])
    functions = [VARIANTS[name] for name in COUNTED if name.endswith("_debiased")]
    functions.append(metrics.between_covariance_debiased)
    for function in functions:
        with pytest.warns(GeometryWarning, match=rf"{SINGLE} 2 of 5 classes, .*: 0, 2\.$"):
            value = function(statistics)
        torch.testing.assert_close(value, function(kept), rtol=1e-12, atol=0)
    grid = metrics.cdnv_grid(statistics, debiased=True)
    assert grid.isnan().sum(1).tolist() == [5, 3, 5, 3, 3]
    each = metrics.cdnv_per_class(statistics, debiased=True)
    assert each.isnan().tolist() == [True, False, True, False, False]
    torch.testing.assert_close(each[[1, 3, 4]], metrics.cdnv_per_class(kept, debiased=True), rtol=1e-12, atol=0)


def test_many_of_them_are_not_all_named() -> None:
    counts = torch.tensor([1] * 30 + [3] * 3)
    statistics = ClassStatistics(counts, torch.randn(33, 4).double() * 9, torch.ones(33).double() * (counts > 1))
    with pytest.warns(GeometryWarning, match=r"30 of 33 classes, .*: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.\.$"):
        metrics.cdnv(statistics, debiased=True)


@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 5, 1]])
@pytest.mark.filterwarnings(f"ignore:{SINGLE}")
def test_without_two_classes_of_several_samples_nothing_is_defined(counts: list[int]) -> None:
    spread = torch.tensor([0.0 if n == 1 else 1.0 for n in counts], dtype=torch.float64)
    scatter = spread[:, None, None] * torch.eye(4, dtype=torch.float64) / 4
    means = torch.randn(3, 4, dtype=torch.float64)
    statistics = ClassStatistics(torch.tensor(counts), means, spread, class_within=scatter)
    for name in (each for each in COUNTED if each.endswith("_debiased")):
        assert VARIANTS[name](statistics).isnan(), name
    with pytest.raises(EmptyClassError):
        metrics.between_covariance_debiased(statistics)


# ---------------------------------------------------------------------- definitions


@pytest.mark.parametrize("tile_size", [1, 2, 3, 512])
@pytest.mark.parametrize("name", ["balanced", "zipf", "empty classes", "more classes than dimensions"])
def test_debiased_cdnv_of_each_pair(name: str, tile_size: int) -> None:
    sample = draw(SCENARIOS[name])
    statistics = statistics_of(sample)
    grid = metrics.cdnv_grid(statistics, debiased=True)
    np.testing.assert_allclose(np.nanmean(grid), ORACLE["cdnv_debiased"](sample), rtol=1e-10)
    each = metrics.cdnv_per_class(statistics, debiased=True)
    np.testing.assert_allclose(each, np.nanmean(grid, axis=1), rtol=1e-12)
    value = metrics.cdnv(statistics, debiased=True, tile_size=tile_size)
    np.testing.assert_allclose(value, ORACLE["cdnv_debiased"](sample), rtol=1e-10)


def test_about_given_centres_nothing_is_subtracted() -> None:
    train, test = draw(SCENARIOS["balanced"]), draw(SCENARIOS["balanced"], spread=0.3)
    about = statistics_of(test).about(statistics_of(train).means)
    for name in ("cdnv", "between_trace", "trace_ratio"):
        plain, debiased = METRICS[name](about), METRICS[name](about, debiased=True)
        torch.testing.assert_close(debiased, plain, rtol=1e-12, atol=0)
    between = metrics.between_covariance_debiased(about)
    torch.testing.assert_close(between, about.between_covariance(), rtol=1e-12, atol=0)


def test_the_between_covariance_needs_the_scatter_of_each_class() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]), per_class=False)
    with pytest.raises(ScatterError, match=r"between_covariance_debiased .* per_class=True"):
        metrics.between_covariance_debiased(statistics)


def test_ratios_ignore_translation_and_scale() -> None:
    sample = draw(SCENARIOS["zipf"])
    moved = Sample(7 * sample.features + 3e3, sample.labels, sample.num_classes)
    for name in ("cdnv_debiased", "trace_ratio_debiased"):
        function = VARIANTS[name]
        np.testing.assert_allclose(function(statistics_of(moved)), function(statistics_of(sample)), rtol=1e-9)


def test_gradients_pass_single_samples_and_undefined_pairs() -> None:
    torch.manual_seed(5)
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3])
    features = torch.randn(8, 3, dtype=torch.float64)
    features[6:] = features[4:6] + torch.tensor([[0.01], [-0.01]])  # 2 and 3 share their mean
    leaf = features.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        statistics = ClassStatistics.from_features(leaf, labels, 4)
        values = metrics.cdnv_grid(statistics, debiased=True).nan_to_num().sum()
        values = values + metrics.between_trace(statistics, debiased=True)
        (gradient,) = torch.autograd.grad(values, leaf, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient[3] == 0).all()
        (gradient,) = torch.autograd.grad(metrics.cdnv(statistics, debiased=True), leaf)
        assert gradient.isfinite().all()
