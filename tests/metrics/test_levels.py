"""Levels with shuffled labels: against true permutations, and in their isotropic limits."""

import gc
import math
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.special import digamma, loggamma

from metrics.isotropic import expected, ncc_accuracy, pair_angles, principal_angle
from metrics.permuted import SHAPES, Data, compared, isotropic, only_means, power_law, rectified, statistics_of, zipf
from thinned import beyond
from tightframe import metrics
from tightframe.metrics import METRICS, Evidence, Level, Setting, available, levels
from tightframe.statistics import ClassStatistics

pytestmark = pytest.mark.levels

# ---------------------------------------------------------------------- against permutations

SMALL = {
    "power law, ReLU": Data(rectified, [100] * 10, 64),
    "fewer samples than dimensions": Data(power_law, [4] * 10, 64),
    "two classes": Data(rectified, [25] * 2, 16),
    "three classes": Data(power_law, [20] * 3, 32),
    "more classes than dimensions": Data(power_law, [20] * 20, 8),
    "single samples": Data(power_law, zipf(200, 20), 32),
}


KNOWN = {("single samples", "ncc_accuracy")}
"""5 or 6 % high: rows are drawn one by one, which few samples in many dimensions aren't."""


@pytest.mark.parametrize("name", beyond(1, SMALL))
def test_draws_agree_with_permutations(name: str) -> None:
    """For every metric whose level is one of shuffled labels; `benchmarks/shuffled_levels.py` takes more settings."""
    rows = compared(SMALL[name], permutations=100, draws=200)
    assert len(rows) >= 29
    missed = {
        metric: (row.permuted, row.drawn, row.deviations if row.drawn else None)
        for metric, row in rows.items()
        if not row.agrees and (name, metric) not in KNOWN
    }
    assert not missed


# ---------------------------------------------------------------------- isotropic limits

LIMITS = {
    "balanced": ([50] * 10, 64),
    "more classes than dimensions": ([30] * 40, 20),
    "two sizes": ([20, 40] * 8, 50),
    "eight sizes": ([20, 60, 150, 30, 90, 45, 70, 25], 100),
}


@pytest.mark.parametrize("name", beyond(1, LIMITS))
def test_levels_of_isotropic_features(name: str) -> None:
    """Closed forms of means: within 5 % or three standard errors of the median, which a skewed law has elsewhere."""
    counts, dim = LIMITS[name]
    data = Data(isotropic, counts, dim)
    features, labels, weight, bias = data.drawn()
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(weight.shape, dtype=torch.float64, generator=generator)  # in all directions alike
    evidence = data.evidence(features, labels, weight, 0 * bias, features[:1])
    known = expected(counts, dim)
    drawn = levels(evidence, list(known), draws=200)
    assert drawn.keys() == known.keys()
    for metric, value in known.items():
        level = drawn[metric]
        error = level.spread * math.sqrt(math.pi / 2 / 200)
        near = math.isclose(level.value, value, rel_tol=0.05, abs_tol=1e-9)
        assert near or abs(level.value - value) <= 3 * error, metric


def test_closed_forms_have_the_values_of_the_formula_sheet() -> None:
    """Sections A1, A2 and A6: null levels, random Gaussian means, random unit vectors."""
    levels = expected([50] * 10, 200)
    assert levels["nc1"] == pytest.approx(49 * 9 / 190, rel=1e-12)  # 2.321
    assert levels["trace_ratio"] == pytest.approx(49 * 10 / 9, rel=1e-12)  # 54.4
    assert levels["cdnv"] == pytest.approx(24.5 * 200 / 198, rel=1e-12)
    for classes, dim, level in ((100, 64, 0.864), (10, 512, 0.13)):
        known = expected([20] * classes, dim)["etf_error"]
        assert known == pytest.approx(level, abs=2.5e-3)
        assert known == pytest.approx(math.sqrt(2 - 2 / math.sqrt(1 + (classes - 1) / dim)), rel=1e-12)
    assert principal_angle(32, 64) == pytest.approx(45, rel=1e-6)  # half the dimensions: uniform in [0, 90]
    assert principal_angle(1, 10**6) == pytest.approx(90 - math.degrees(8 / (3 * math.pi) * 1e-3), rel=1e-7)
    for classes, samples, dim, share in ((10, 100, 64, 0.28), (10, 100, 512, 0.755), (10, 4, 64, 0.99)):  # section S
        assert ncc_accuracy(torch.full((classes,), float(samples)).numpy(), dim) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("dim", [3, 8, 64])
def test_the_law_of_angles_has_the_moments_of_a_beta_variable(dim: int) -> None:
    """|u - v|^2 / 4 of uncorrelated directions is a beta variable of (D-1)/2 twice."""
    angles, shares = pair_angles(torch.full((400,), 5.0).double().numpy(), dim)
    half, chords = (dim - 1) / 2, 2 * torch.tensor(angles / 2).sin()
    weights = torch.tensor(shares)

    def power(exponent: float) -> float:
        logs = loggamma(half + exponent) - loggamma(half) - loggamma(2 * half + exponent) + loggamma(2 * half)
        return float(4**exponent * math.exp(logs))

    log = -math.log(2) - (digamma(half) - digamma(2 * half)) / 2
    assert float(-(weights @ chords.log())) == pytest.approx(log, abs=3e-3)
    assert float(weights @ chords) == pytest.approx(power(0.5), rel=5e-3)
    assert float(weights @ chords.reciprocal()) == pytest.approx(power(-0.5), rel=5e-3)
    assert float(weights @ torch.tensor(angles).cos().square()) == pytest.approx(1 / dim, rel=5e-3)


# ---------------------------------------------------------------------- levels


@pytest.fixture
def evidence() -> Evidence:
    data = Data(rectified, [12] * 6, 16)
    features, labels, weight, bias = data.drawn()
    return data.evidence(features, labels, weight, bias, features[:5])


def test_same_seed_same_levels(evidence: Evidence) -> None:
    first = levels(evidence, draws=8)
    fresh = replace(evidence, statistics=replace(evidence.statistics))
    assert levels(fresh, draws=8) == first
    again = replace(evidence, statistics=replace(evidence.statistics))
    assert levels(again, draws=8, seed=1) != first
    apart = {name: level for name in first for name, level in levels(evidence, [name], draws=8, seed=2).items()}
    together = levels(evidence, list(first), draws=8, seed=2)
    alone = {name for name in first if apart[name] != together[name]}
    assert alone <= {"ood_orthogonality"}  # it shares a generator with decisions


def test_the_second_call_draws_nothing(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    first = levels(evidence, draws=4)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(metrics.levels.__globals__["torch"], "randn", fail)
    assert levels(evidence, draws=4) == first
    with pytest.raises(AssertionError, match="drawn again"):
        levels(evidence, draws=5)


def test_every_metric_that_depends_on_labels_has_a_level(evidence: Evidence) -> None:
    found = levels(evidence, METRICS)
    assert found.keys() == {name for name, each in METRICS.items() if each.labelled and each.available(evidence)}
    unlabelled = {"numerical_rank", "rankme", "effective_rank", "alpha_req"}
    assert set(METRICS) - found.keys() == unlabelled | {"bias_collapse"}
    assert levels(evidence).keys() == found.keys() & {each.name for each in available(evidence)}
    for name, level in found.items():
        assert math.isfinite(level.value) and level.spread >= 0, name
        reads = METRICS[name].reads
        assert level.kind == ("shuffled" if {"statistics", "decisions"} & {*reads} else "random"), name


@pytest.mark.parametrize("shape", beyond(1, [(50, 64), (50, 400), (4, 64)]))
def test_levels_without_scatter_are_isotropic_and_say_so(shape: tuple[int, int]) -> None:
    each, dim = shape
    data = Data(rectified, [each] * 10, dim)
    features, labels, weight, bias = data.drawn()
    evidence = only_means(data.evidence(features, labels, weight, bias, features[:5]))
    names = ["trace_ratio", "cdnv", "equinorm", "equiangularity", "etf_error", "ncc_accuracy", "ood_orthogonality"]
    found = levels(evidence, [*names, "classifier_equinorm"], draws=200)
    assert [level.kind for level in found.values()] == 7 * ["isotropic"] + ["random"]
    known = expected(data.counts, data.dim)
    for name in names[:-1]:
        assert found[name].value == pytest.approx(known[name], rel=0.06), name


def test_what_too_few_samples_cannot_tell_has_no_level() -> None:
    statistics = statistics_of(SHAPES["fewer samples than dimensions"])
    found = levels(Evidence(statistics))
    assert "vci" not in found and "nc1" in found


def test_two_classes_have_the_levels_that_they_must_have() -> None:
    found = levels(Evidence(statistics_of(Data(rectified, [7, 30], 5))), draws=16)
    for name, value in (("equinorm", 0.0), ("mean_cosine", -1.0), ("participation_ratio", 1.0), ("etf_error", 0.0)):
        assert found[name].value == pytest.approx(value, abs=1e-7), name
    assert "equiangularity" not in found  # one pair has no spread


def test_held_out_samples_are_not_in_the_means_of_their_class() -> None:
    """Training samples are often nearest to the mean that they are a part of; held-out ones by chance alone."""
    data = Data(isotropic, [20] * 10, 200)
    features, labels, weight, bias = data.drawn()
    training = data.evidence(features, labels, weight, bias, features[:5])
    other, *_ = data.drawn(seed=1)
    held_out = data.evidence(other[::2], labels[::2], weight, bias, other[:5])
    held_out = replace(held_out, statistics=None, outside=None)
    names = ["ncc_accuracy", "classifier_accuracy", "ncc_mismatch"]
    own, found = levels(training, names), levels(held_out, names, trained=training)
    assert own["ncc_accuracy"].value > 0.5
    assert found["ncc_accuracy"].value == pytest.approx(0.1, abs=0.02)
    for level in (own, found):
        assert level["classifier_accuracy"].value == pytest.approx(0.1, abs=0.02)
        assert level["ncc_mismatch"].value == pytest.approx(0.9, abs=0.03)


def test_of_many_classes_a_random_part_tells_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Centred by all: about their own mean the angles between so few are wider, and kernels 17 % nearer the target."""
    statistics = statistics_of(Data(isotropic, [2] * 3000, 128))
    names = ["log_kernel", "equiangularity", "maximal_angle_deviation", "cdnv", "distance_kernel", "minimum_angle"]
    where = Setting.of(Evidence(statistics))
    assert where is not None
    some = levels(Evidence(statistics), names, draws=2)
    assert some.keys() == {*names} - {"minimum_angle"}  # the smallest of a part isn't that of all
    monkeypatch.setitem(levels.__globals__, "MANY", 3000)
    every = levels(Evidence(statistics), names, draws=2, seed=1)
    assert every.keys() == {*names}
    for name, level in some.items():
        target = METRICS[name].target_in(where)
        assert target is not None
        assert level.value - target == pytest.approx(every[name].value - target, rel=0.06), name


def test_held_out_statistics_are_drawn_from_their_own_scatter() -> None:
    training = Evidence(statistics_of(SHAPES["balanced"], per_class=True))
    held_out = Evidence(statistics_of(Data(rectified, [9, 8, 7, 9, 3], 12), per_class=True))
    names = ["nc1", "trace_ratio", "directional_cdnv", "etf_error"]
    found, own = levels(held_out, names, trained=training, draws=200), levels(held_out, names, draws=200, seed=1)
    assert found.keys() == own.keys() == {*names}
    for name in names:
        assert found[name].value == pytest.approx(own[name].value, rel=0.1), name


def test_a_metric_of_ones_own_has_a_level(evidence: Evidence) -> None:
    @metrics.metric("mean variance", "scale", target=0.0)
    def mean_variance(statistics: ClassStatistics) -> torch.Tensor:
        return statistics.populated().variances.mean()

    level = levels(evidence, [mean_variance], draws=64)["mean_variance"]
    statistics = evidence.statistics
    assert statistics is not None
    assert level.kind == "shuffled"
    assert level.value == pytest.approx(float(statistics.total_covariance().trace()) * 11 / 12, rel=0.05)


def test_a_level_is_the_median_and_half_the_middle_range() -> None:
    assert Level.of([float(i) for i in range(101)], "shuffled") == Level(50.0, 34.0)
    assert Level.of([1.0, 3.0, math.inf], "shuffled") == Level(3.0, math.inf)
    assert Level.of([1.0, 3.0], "random") == Level(2.0, 1.0, "random")
    assert Level.of([1.0, math.nan], "shuffled") is None


def test_levels_are_of_the_classifier_that_is_given() -> None:
    statistics = statistics_of(SHAPES["fewer samples than dimensions"])
    rows = torch.randn(2, *statistics.means.shape, dtype=torch.float64)
    first, second, again = (levels(Evidence(statistics, rows[i]), ["nc3_cosine"], draws=4) for i in (0, 1, 0))
    assert first != second
    assert first == again


def test_levels_do_not_keep_their_statistics_alive() -> None:
    statistics = statistics_of(SHAPES["fewer samples than dimensions"])
    alive = weakref.ref(statistics)
    evidence = Evidence(statistics, torch.randn(statistics.means.shape, dtype=torch.float64))
    levels(evidence, ["nc1", "nc3_cosine"], draws=2)
    levels(evidence, ["nc1"], trained=evidence, draws=2)
    del statistics, evidence
    gc.collect()
    assert alive() is None
