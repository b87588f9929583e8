"""Levels with shuffled labels: against true permutations, in their isotropic limits, and what the draws conserve."""

import gc
import math
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.special import digamma, loggamma
from sklearn.datasets import load_digits

from metrics.isotropic import expected, ncc_accuracy, pair_angles, principal_angle
from metrics.permuted import Data, compared, isotropic, only_means, power_law, rectified, zipf
from thinned import beyond
from tightframe import metrics
from tightframe.decisions import DecisionCounts
from tightframe.metrics import (
    METRICS,
    Evidence,
    Level,
    Metric,
    Setting,
    available,
    closeness,
    evaluate,
    levels,
    shuffled,
)
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


# ---------------------------------------------------------------------- what draws conserve

SHAPES = {
    "balanced": Data(rectified, [20] * 5, 12),
    "single samples": Data(power_law, [1, 30, 2, 1, 9], 6),
    "fewer samples than dimensions": Data(rectified, [3, 2, 4], 16),
    "more classes than dimensions": Data(rectified, [4] * 12, 3),
    "one sample a class": Data(isotropic, [1] * 6, 9),
    "many classes, few dimensions left": Data(power_law, [2] * 9, 12),
    "fewer degrees than dimensions": Data(power_law, [2] * 9, 16),
}


def statistics_of(data: Data, **options: Any) -> ClassStatistics:
    features, labels, *_ = data.drawn()
    return ClassStatistics.from_features(features, labels, len(data.counts), **options)


@pytest.mark.parametrize("name", SHAPES)
def test_draws_conserve_counts_mean_and_total_scatter(name: str) -> None:
    statistics = statistics_of(SHAPES[name], per_class=True)
    mean, total = statistics.global_mean("sample"), statistics.total_covariance()
    size = float(total.trace())
    for draw in shuffled(statistics, 3, class_scatter=True):
        drawn = draw.statistics
        assert torch.equal(drawn.counts, statistics.counts)
        torch.testing.assert_close(drawn.global_mean("sample"), mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(drawn.total_covariance(), total, rtol=0, atol=1e-10 * size)
        assert not torch.allclose(drawn.means, statistics.means)
        assert drawn.within is not None and drawn.class_within is not None
        within = drawn.within
        assert float(torch.linalg.eigvalsh(within)[0]) >= -1e-12 * size
        torch.testing.assert_close(drawn.spread.sum(), within.trace(), rtol=1e-9, atol=1e-12 * size)
        torch.testing.assert_close(drawn.class_within.sum(0), within, rtol=0, atol=1e-10 * size)
        torch.testing.assert_close(
            drawn.class_within.diagonal(dim1=1, dim2=2).sum(1), drawn.spread, rtol=1e-9, atol=1e-12 * size
        )
        assert not drawn.spread[drawn.counts == 1].any()
        degrees = int(statistics.num_samples) - len(statistics.counts)
        assert int(torch.linalg.matrix_rank(within, rtol=1e-9)) == min(degrees, len(within))


@pytest.mark.parametrize("name", SHAPES)
def test_drawn_means_have_the_covariance_of_a_permutation(name: str) -> None:
    """E (mean_k - m)(mean_l - m)^T is S_T / (N (N-1)) times N / n_k - 1 or -1, whatever the features are."""
    statistics = statistics_of(SHAPES[name])
    counts, N = statistics.counts.double(), int(statistics.num_samples)
    covariance = statistics.total_covariance()
    axis = torch.linalg.eigh(covariance).eigenvectors[:, -1]
    gaps = torch.stack(
        [(d.statistics.means - statistics.global_mean("sample")) @ axis for d in shuffled(statistics, 800)]
    )
    products = gaps[:, :, None] * gaps[:, None, :]
    ideal = (torch.diag(N / counts) - 1) * float(axis @ covariance @ axis) / (N - 1)
    error = products.std(0) / math.sqrt(len(gaps))
    assert ((products.mean(0) - ideal).abs() <= 4.5 * error).all()


@pytest.mark.parametrize("kept", [True, False])
def test_drawn_samples_scatter_as_the_drawn_classes_do(kept: bool) -> None:
    """About the mean of their class, which they are a part of: the covariance is (1 - 1/n) / (N - K) of the scatter."""
    for data in (
        SHAPES["single samples"],
        SHAPES["more classes than dimensions"],
        SHAPES["fewer samples than dimensions"],
    ):
        statistics = statistics_of(data, covariance=kept)
        draw = next(iter(shuffled(statistics, 1)))
        within, counts = draw.statistics.within, statistics.counts
        if within is None:
            within = torch.eye(data.dim, dtype=torch.float64) * draw.statistics.spread.sum() / data.dim
        noise = draw.factor.noise(20_000, torch.Generator().manual_seed(0))
        for label, count in enumerate(counts.tolist()):
            gaps = draw.samples(torch.full((20_000,), label), noise).double() - draw.statistics.means[label]
            ideal = within * (1 - 1 / count) / (counts.sum() - len(counts))
            size = float(ideal.diagonal().max())
            torch.testing.assert_close(gaps.mT @ gaps / len(gaps), ideal, rtol=0, atol=0.05 * size + 1e-12)


def test_all_drawn_samples_have_the_drawn_means_and_their_scatter_on_average() -> None:
    statistics = statistics_of(SHAPES["single samples"])
    draw = next(iter(shuffled(statistics, 1)))
    labels = torch.arange(5).repeat_interleave(statistics.counts)
    generator, total = torch.Generator().manual_seed(0), 0.0
    for _ in range(400):
        features = draw.samples(labels, draw.factor.noise(len(labels), generator), complete=True)
        drawn = ClassStatistics.from_features(features, labels, 5)
        torch.testing.assert_close(drawn.means, draw.statistics.means, rtol=0, atol=1e-5)
        total += drawn.require_within("a test") / 400
    assert draw.statistics.within is not None
    torch.testing.assert_close(total, draw.statistics.within, rtol=0, atol=0.05 * float(total.diagonal().max()))


def test_empty_classes_take_no_part() -> None:
    features, labels = torch.randn(40, 6, dtype=torch.float64), 2 * (torch.arange(40) % 4)
    some = ClassStatistics.from_features(features, labels, 9)
    drawn = next(iter(shuffled(some, 1))).statistics
    assert drawn.class_ids.tolist() == [0, 2, 4, 6] and drawn.num_labels == 9
    packed = ClassStatistics.from_features(features, labels // 2, 4)
    assert torch.equal(drawn.means, next(iter(shuffled(packed, 1))).statistics.means)
    assert levels(Evidence(some)) == levels(Evidence(packed))


def test_given_centres_and_projections_are_drawn_from_their_own_scatter() -> None:
    features, labels = torch.randn(60, 8, dtype=torch.float64), torch.arange(60) % 4
    statistics = ClassStatistics.from_features(features, labels, 4)
    about = statistics.about(statistics.means + torch.randn(4, 8, dtype=torch.float64))
    total = about.total_covariance()
    drawn = next(iter(shuffled(about, 1))).statistics
    torch.testing.assert_close(drawn.total_covariance(), total, rtol=1e-10, atol=1e-10)
    assert drawn.recentred
    basis = torch.linalg.qr(statistics.centred_means()[:3].mT)[0]
    inside = ClassStatistics.from_features(features @ basis, labels, 4)
    bare = replace(statistics, within=None)
    found = levels(Evidence(bare, projected=inside), ["nc1", "etf_error"], draws=20)
    assert found["nc1"] == levels(Evidence(inside), ["nc1"], draws=20)["nc1"]  # drawn from what was projected
    assert (found["nc1"].kind, found["etf_error"].kind) == ("shuffled", "isotropic")


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


# ---------------------------------------------------------------------- closeness

BALANCED = Setting(torch.full((10,), 50), 64, 10)


@pytest.mark.parametrize(
    ("metric", "ratio"),
    [
        (metrics.trace_ratio, 1.0),
        (metrics.cdnv, 1.0),
        (metrics.directional_cdnv, 64.0),
        (metrics.nc1, 10 / 9),
        (metrics.nc1.having("n", divided=False), 1 / 9),
    ],
)
def test_ratios_are_compared_by_their_share(metric: Metric[Any], ratio: float) -> None:
    share: Callable[[float], float] = lambda value: ratio * value / (1 + ratio * value)  # noqa: E731
    found = closeness(metric, 0.01, Level(50.0, 1.0), BALANCED)
    assert found.times == pytest.approx(share(50.0) / share(0.01), rel=1e-12)
    assert closeness(metric, 0.01, Level(math.inf, 1.0), BALANCED).times == pytest.approx(1 / share(0.01), rel=1e-12)


def test_other_metrics_are_compared_as_they_are() -> None:
    assert closeness(metrics.etf_error, 0.1, Level(0.6, 0.01), BALANCED) == metrics.Closeness(
        pytest.approx(6.0), "6.0× nearer"
    )
    angle = metrics.minimum_angle.best_in(BALANCED)
    assert angle is not None
    found = closeness(metrics.minimum_angle, angle - 1, Level(angle - 30, 1.0), BALANCED)
    assert found.times == pytest.approx(30) and found.remark == "30× nearer"
    dist4 = metrics.cdnv.having("dist4", distance_exponent=4)
    assert closeness(dist4, 1.0, Level(9.0, 0.1), BALANCED).times == pytest.approx(9.0)  # it has a unit


def test_closeness_in_words() -> None:
    level = Level(0.6, 0.02)
    assert closeness(metrics.etf_error, 0.0, level, BALANCED) == metrics.Closeness(math.inf, "at target")
    crowded = Setting(torch.full((100,), 5), 16, 100)
    floor = metrics.etf_error.floor_in(crowded)
    assert floor is not None
    assert closeness(metrics.etf_error, floor, Level(1.3, 0.01), crowded).remark == "at floor"
    for value in (0.57, 0.6, 0.63, 0.9):  # within two spreads, and beyond
        assert closeness(metrics.etf_error, value, level, BALANCED).remark == "no better than shuffled labels", value
    assert closeness(metrics.etf_error, 0.55, level, BALANCED).remark == "1.1× nearer"
    random = replace(level, kind="random")
    assert closeness(metrics.classifier_etf_error, 0.6, random, BALANCED).remark == "no better than random directions"
    assert closeness(metrics.nc1, 0.0014, Level(49.0, 2.0), BALANCED).remark == "630× nearer"
    assert closeness(metrics.etf_error, 1e-5, level, BALANCED).remark == "60,000× nearer"


def test_where_shuffled_labels_do_as_well_there_is_no_closeness() -> None:
    pair = Setting(torch.tensor([50, 50]), 64, 2)
    found = closeness(metrics.equinorm, 0.0, Level(0.0, 0.0), pair)
    assert found == metrics.Closeness(None, "shuffled labels do as well")
    assert closeness(metrics.etf_error, 0.01, Level(0.02, 0.011), BALANCED).times is None


def test_without_best_value_or_level_there_is_no_closeness() -> None:
    for metric, value, level in (
        (metrics.between_trace, 1.0, Level(2.0, 0.1)),
        (metrics.nc1, 1.0, None),
        (metrics.nc1, math.nan, Level(2.0, 0.1)),
    ):
        assert closeness(metric, value, level, BALANCED) == metrics.Closeness(None, "")


def test_an_infinite_value_is_no_better_than_shuffled_labels() -> None:
    assert closeness(metrics.cdnv, math.inf, Level(50.0, 1.0), BALANCED).remark == "no better than shuffled labels"


# ---------------------------------------------------------------------- closeness and the number of samples


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Fifty digits of every class, pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    rows = torch.cat([torch.as_tensor(labels == k).nonzero().flatten()[:50] for k in range(10)])
    return torch.as_tensor(pixels, dtype=torch.float32)[rows] / 16, torch.as_tensor(labels)[rows]


def network(steps: int) -> torch.nn.Sequential:
    """A small network, trained so long on these digits."""
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    ]
    model = torch.nn.Sequential(*layers)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    pixels, labels = digits()
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("steps", beyond(1, [80, 0, None]))
def test_closeness_does_not_depend_on_the_number_of_samples(steps: int | None) -> None:
    """Every sample ten times over: the values are the same to the last digits, the levels of ratios ten times as large.

    Of a network after so many steps, or of pixels. But for two: nearest-centre accuracy and VCI are nearer their
    targets on few samples, with any labels. There a value on other samples grows with its level.
    """
    pixels, labels = digits()
    model = network(steps or 0)
    features = pixels if steps is None else model[:-1](pixels).detach()
    head = None if steps is None else model[-1].weight.detach()
    once, often = {}, {}
    for found, times in ((once, 1), (often, 10)):
        rows, classes = features.double().repeat(times, 1), labels.repeat(times)
        statistics = ClassStatistics.from_features(rows, classes, 10, per_class=True)
        evidence = Evidence(statistics, head, None, None, None)
        if head is not None:
            decisions = DecisionCounts(statistics, head, model[-1].bias.detach())
            decisions.update(rows, classes)
            evidence = replace(evidence, decisions=decisions)
        where = Setting.of(evidence)
        assert where is not None
        drawn = levels(evidence, draws=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = evaluate(evidence)
        for name, value in values.items():
            found[name] = float(value), closeness(METRICS[name], float(value), drawn.get(name), where).times
    compared = 0
    for name, (value, times) in once.items():
        other, many = often[name]
        assert other == pytest.approx(value, rel=1e-6, abs=1e-9)
        if times is None or many is None or math.isinf(times) or name in ("ncc_accuracy", "vci", "h_score", "unc3"):
            continue
        compared += 1
        assert abs(many / times - 1) < 0.1, name
    assert compared >= (16 if steps is None else 28)


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
