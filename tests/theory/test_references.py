"""Targets, floors and null levels against the check values of the formula sheet, derivations and simulation."""

import math
import tracemalloc
from statistics import mean, stdev

import pytest
import torch
from scipy.special import digamma, hyp2f1, loggamma

from tightframe import metrics, theory
from tightframe.bounds import random_cosine
from tightframe.decisions import DecisionCounts
from tightframe.metrics import METRICS, Evidence, evaluate
from tightframe.statistics import ClassStatistics
from tightframe.theory import REFERENCES, reference


def test_every_metric_has_references() -> None:
    assert set(REFERENCES) == set(METRICS)


# Values below: section A1-A3, A6 of the formula sheet ("null levels", "floor", "random Gaussian means").
def test_null_levels_of_variability() -> None:
    counts = [50] * 10
    assert reference("nc1", counts, 200).null == pytest.approx(49 * 9 / 190, rel=1e-12)  # 2.321
    assert reference("trace_ratio", counts, 200).null == pytest.approx(49 * 10 / 9, rel=1e-12)  # 54.4
    assert reference("cdnv", counts, 200).null == pytest.approx(24.5, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "classes", "dim", "floor"),
    [("etf_error", 100, 64, 0.6261), ("etf_error", 29233, 1024, 1.2750), ("etf_distance", 100, 64, 0.6261)],
)
def test_rank_floor(name: str, classes: int, dim: int, floor: float) -> None:
    assert reference(name, [7] * classes, dim).floor == pytest.approx(floor, abs=5e-5)
    assert reference(name, [7] * classes, dim).floor == pytest.approx(
        math.sqrt(2 - 2 * math.sqrt(dim / (classes - 1))), rel=1e-12
    )


@pytest.mark.parametrize(("classes", "dim", "level"), [(100, 64, 0.864), (29233, 1024, 1.2775), (10, 512, 0.13)])
def test_random_means_etf_error(classes: int, dim: int, level: float) -> None:
    null = reference("etf_error", [20] * classes, dim).null
    assert null == pytest.approx(level, abs=2.5e-3)
    assert null == pytest.approx(math.sqrt(2 - 2 / math.sqrt(1 + (classes - 1) / dim)), rel=1e-12)


@pytest.mark.parametrize(
    ("classes", "value"), [(2, -0.693147), (3, -0.549306), (10, -0.399254), (100, -0.351599), (10**6, -0.346574)]
)
def test_log_kernel_target(classes: int, value: float) -> None:
    assert reference("log_kernel_mean", [3] * classes, classes).target == pytest.approx(value, abs=1e-6)


def test_log_kernel_null_tends_to_random_unit_vectors() -> None:
    null = reference("log_kernel_mean", [5] * 100_000, 1024).null
    assert null == pytest.approx(-0.346574 + 1 / (4 * 1024), abs=1e-5)


@pytest.mark.parametrize("dim", [2, 3, 8, 64])
def test_mean_kernels_of_many_random_vectors(dim: int) -> None:
    """|u - v|^2 / 4 is a beta variable of (D-1)/2 twice: its moments and logarithm have closed forms."""
    counts, half = torch.full((2 * 10**6,), 5), (dim - 1) / 2
    log = -math.log(2) - (digamma(half) - digamma(2 * half)) / 2
    assert reference("log_kernel_mean", counts, dim).null == pytest.approx(log, abs=2e-6)

    def power(exponent: float) -> float:
        logs = loggamma(half + exponent) - loggamma(half) - loggamma(2 * half + exponent) + loggamma(2 * half)
        return 4**exponent * math.exp(logs)

    assert reference("distance_mean", counts, dim).null == pytest.approx(power(0.5), rel=1e-6)
    assert reference("distance_variance", counts, dim).null == pytest.approx(2 - power(0.5) ** 2, rel=1e-4)
    assert reference("equiangularity", counts, dim).null == pytest.approx(dim**-0.5, rel=1e-6)
    if dim > 2:
        assert reference("riesz_mean", counts, dim).null == pytest.approx(power(-0.5), rel=1e-4)
    else:
        assert reference("riesz_mean", counts, dim).null is None  # infinite
    if dim > 7:
        cv = math.sqrt(power(-1) / power(-0.5) ** 2 - 1)
        assert reference("riesz_cv", counts, dim).null == pytest.approx(cv, rel=1e-4)


def test_the_expected_smallest_angle_is_near_the_median_of_random_vectors() -> None:
    for classes, dim in ((100, 16), (1000, 128), (50_000, 512)):
        null = reference("minimum_angle", [5] * classes, dim).null
        median = math.degrees(math.acos(random_cosine(classes, dim)))
        assert null == pytest.approx(median, rel=0.02)


def test_two_classes_are_a_simplex_in_any_place() -> None:
    for name in ("mean_cosine", "distance_mean", "log_kernel_mean", "riesz_mean", "etf_error", "participation_ratio"):
        for dim in (3, 7):
            level = reference(name, [4, 9], dim)
            assert level.null == level.random == pytest.approx(level.target, abs=1e-12), name


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(
    ("counts", "dim"),
    [([1, 1], 1), ([3, 3, 3], 1), ([1, 10**6, 10**6], 1), ([1, 2, 9], 2), ([1, 10**6, 10**6], 900), ([2] * 9, 1)],
)
def test_few_classes_and_dimensions_give_finite_levels_or_none(name: str, counts: list[int], dim: int) -> None:
    level = reference(name, counts, dim)
    for value in (level.target, level.floor, level.null, level.random):
        assert value is None or (type(value) is float and math.isfinite(value))  # a numpy scalar can't be reloaded


def test_levels_of_a_vocabulary_take_no_pairs_of_classes() -> None:
    """With hundreds of distinct sizes among 30,000 classes: less memory than a number for each class and size."""
    counts = [max(1, int(20_000 / rank**0.9)) for rank in range(1, 30_001)]
    tracemalloc.start()
    known = [reference(name, counts, 512).null for name in REFERENCES]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(counts) * len(set(counts))
    assert sum(level is not None for level in known) >= 40


def test_no_correlation_is_lost_on_the_grid() -> None:
    """Unequal counts put pairs onto a grid of correlations; pair by pair, the mean of the cosine's law is the same."""
    counts, dim = [3, 5, 40, 41, 200, 200], 12
    variances = torch.diag(1 / torch.tensor(counts, dtype=torch.float64))
    centring = torch.eye(6, dtype=torch.float64) - 1 / 6
    gram = centring @ variances @ centring
    means = []
    for i in range(6):
        for j in range(i):
            cosine = (gram[i, j] / (gram[i, i] * gram[j, j]).sqrt()).item()
            # E r = rho * Gamma(D/2 + 1/2)^2 / (Gamma(D/2) Gamma(D/2 + 1)) F(1/2, 1/2; D/2 + 1; rho^2)
            factor = math.exp(2 * loggamma(dim / 2 + 0.5) - loggamma(dim / 2) - loggamma(dim / 2 + 1))
            means.append(cosine * factor * hyp2f1(0.5, 0.5, dim / 2 + 1, cosine**2))
    assert reference("mean_cosine", counts, dim).null == pytest.approx(mean(means), rel=1e-3)


def test_no_floor_where_a_simplex_fits() -> None:
    assert reference("etf_error", [5] * 65, 64).floor is None
    assert reference("etf_error", [5] * 66, 64).floor is not None


def test_empty_classes_are_left_out() -> None:
    assert reference("cdnv", [4, 0, 9, 0], 8) == reference("cdnv", [4, 9], 8)
    assert reference("cdnv", [4, 0, 0], 8).target is None


SETTINGS = {
    "balanced": ([50] * 10, 64),
    "more classes than dimensions": ([10] * 60, 20),
    "two sizes": ([20, 40] * 15, 50),
    "eight sizes": ([20, 60, 150, 30, 90, 45, 70, 25], 100),
    "few samples": ([2, 4, 8, 30] * 5, 12),
}


def assert_levels(draws: list[dict[str, float]], level: str, counts: list[int], dim: int) -> int:
    """Means over simulated data agree with each level; returns how many were compared.

    The tolerance is four standard errors of the mean, plus 5 % as the levels are ratios of expectations.
    """
    checked = 0
    for name in draws[0]:
        values = [draw[name] for draw in draws]
        expected = getattr(reference(name, counts, dim), level)
        if expected is None:
            continue
        if name == "cdnv":  # E 1/|gap|^2 is D/(D-2) times 1/E|gap|^2
            expected *= dim / (dim - 2)
        error = stdev(values) / math.sqrt(len(values))
        assert abs(mean(values) - expected) <= 4 * error + 0.05 * abs(expected) + 1e-12, (name, mean(values), expected)
        checked += 1
    return checked


def evaluated(evidence: Evidence) -> dict[str, float]:
    names = [name for name in METRICS if METRICS[name].available(evidence) and name != "one_vs_rest_distance"]  # slow
    return {name: float(value) for name, value in evaluate(evidence, names).items()}


@pytest.mark.filterwarnings("ignore:.*too small to tell them apart:tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("setting", SETTINGS)
def test_null_levels_against_simulation(setting: str) -> None:
    """Over data without class structure."""
    counts, dim = SETTINGS[setting]
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    draws = []
    for _ in range(20):
        features = torch.randn(len(labels), dim, dtype=torch.float64, generator=generator)
        weight = torch.randn(len(counts), dim, generator=generator)
        statistics = ClassStatistics.from_features(features, labels, len(counts), per_class=True)
        decisions = DecisionCounts(statistics, weight)
        decisions.update(features, labels)
        outside = torch.randn(dim, generator=generator)
        draws.append(evaluated(Evidence(statistics, weight, None, decisions, outside)))
    assert assert_levels(draws, "null", counts, dim) >= 48


@pytest.mark.parametrize("setting", SETTINGS)
def test_random_levels_against_simulation(setting: str) -> None:
    """Over class means and classifier rows in random Gaussian directions, whatever the counts say."""
    counts, dim = SETTINGS[setting]
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(30):
        means = torch.randn(len(counts), dim, dtype=torch.float64, generator=generator)
        weight = torch.randn(len(counts), dim, generator=generator)
        statistics = ClassStatistics(torch.tensor(counts), means, torch.zeros(len(counts), dtype=torch.float64))
        draws.append(evaluated(Evidence(statistics, weight, None, None, torch.randn(dim, generator=generator))))
    assert assert_levels(draws, "random", counts, dim) == 36


def test_random_levels_are_null_levels_of_equal_counts_and_of_shapes_only() -> None:
    for name in REFERENCES:
        level = reference(name, [7, 7, 7, 90, 1, 60, 31], 20)
        if METRICS[name].family in {"NC2", "GNC2", "NC3", "NC5"} and "seli" not in name:  # SELI is that of the counts
            expected = reference(name, [29] * 7, 20).null
            assert level.random == (None if expected is None else pytest.approx(expected, rel=1e-12)), name
            if METRICS[name].arguments == ("statistics", "weight") and METRICS[name].family == "NC2":
                assert level.random == level.null, name  # the classifier knows of no counts
        else:
            assert level.random is None, name


# Values below: sections A2 and A6 of the formula sheet ("random Gaussian means", "random unit vectors").
@pytest.mark.parametrize(("classes", "dim", "value"), [(100, 64, 0.864), (29233, 1024, 1.2775), (10, 512, 0.13)])
def test_random_level_of_the_etf_error(classes: int, dim: int, value: float) -> None:
    counts = [1 + 3 * (k % 9) for k in range(classes)]
    assert reference("etf_error", counts, dim).random == pytest.approx(value, abs=2.5e-3)


def test_random_level_of_the_log_kernel() -> None:
    level = reference("log_kernel_variance", [5] * 10_000, 1024)
    assert math.sqrt(level.random) == pytest.approx(1 / (2 * math.sqrt(1024)), rel=2e-3)
    cv = reference("log_kernel_cv", [5] * 10_000, 1024).random
    assert cv == pytest.approx(0.045, abs=5e-4)  # as quoted beside the language models of Wu & Papyan


@pytest.mark.parametrize(
    ("classes", "dim", "angle"),
    [(8, 2, 45), (8, 4, 90), (6, 3, 90), (12, 3, 63.4349), (24, 4, 60), (7, 3, 77.8695), (240, 8, 60), (5, 1, 0)],
)
def test_floor_of_the_smallest_angle(classes: int, dim: int, angle: float) -> None:
    assert reference("minimum_angle", [3] * classes, dim).floor == pytest.approx(angle, abs=5e-5)


def test_floor_of_the_smallest_angle_is_a_bound_where_no_optimum_is_known() -> None:
    bound = math.degrees(math.acos(0.153298))
    assert reference("minimum_angle", [3] * 100, 16).floor == pytest.approx(bound, abs=1e-4)
    assert reference("minimum_angle", [3] * 17, 16).floor is None  # a simplex fits


@pytest.mark.parametrize(
    ("classes", "dim", "value"),
    [(4, 1, 0.0), (8, 2, 0.292893), (4, 2, 1.0), (5, 3, 1.0), (8, 4, 1.0), (9, 4, None), (12, 3, None)],
)
def test_floor_of_the_one_vs_rest_distance(classes: int, dim: int, value: float | None) -> None:
    floor = reference("one_vs_rest_distance", [3] * classes, dim).floor
    assert floor == (None if value is None else pytest.approx(value, abs=1e-6))


def test_null_level_of_the_numerical_rank() -> None:
    assert reference("numerical_rank", [50] * 10, 64).null == 64
    assert reference("numerical_rank", [3] * 10, 640).null == 29
    assert reference("numerical_rank", [64] * 10, 639).null is None  # square: variances come arbitrarily near zero


def test_ranks_at_collapse() -> None:
    assert reference("numerical_rank", [3, 5, 9], 8).target == 2
    assert reference("numerical_rank", [3] * 10, 4).target == 9
    assert reference("numerical_rank", [3] * 10, 4).floor == 4
    assert reference("numerical_rank", [3000, 3], 4).target is None  # a class may be too small to be seen


def test_null_levels_of_angles() -> None:
    """Half the dimensions each: angles are uniform in [0, 90]. All of them: both subspaces are everything."""
    assert reference("mean_principal_angle", [5] * 33, 64).null == pytest.approx(45, rel=1e-6)
    largest = reference("largest_principal_angle", [5] * 33, 64).null
    assert largest == pytest.approx(90 - math.degrees(0.6557 / 32), rel=1e-6)  # 0.6557: hard edge of real matrices
    for name in ("mean_principal_angle", "largest_principal_angle"):
        assert reference(name, [5] * 9, 8).null == reference(name, [5] * 20, 8).null == 0
    nearly = reference("mean_principal_angle", [5] * 2, 10**6).null
    assert nearly == pytest.approx(90 - math.degrees(8 / (3 * math.pi) * 1e-3), rel=1e-7)  # the quarter-circle law


def test_targets_are_attained_at_a_simplex() -> None:
    """At an exact simplex ETF with no spread and a self-dual classifier every metric with a target attains it."""
    classes, dim = 6, 9
    generator = torch.Generator().manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(dim, classes, dtype=torch.float64, generator=generator))
    means = (torch.eye(classes, dtype=torch.float64) - 1 / classes) @ basis.mT * 3
    labels = torch.arange(classes).repeat_interleave(4)
    statistics = ClassStatistics.from_features(means[labels], labels, classes, per_class=True)
    decisions = DecisionCounts(statistics, means)
    decisions.update(means[labels], labels)
    orthogonal = torch.linalg.svd(means).Vh[-1]
    values = evaluate(Evidence(statistics, means, None, decisions, orthogonal))
    for name, value in values.items():
        target = reference(name, statistics.counts, dim).target
        if target is not None:
            assert float(value) == pytest.approx(target, abs=2e-7), name


def test_theory_is_reachable_from_the_package() -> None:
    assert theory.reference is reference
    assert metrics.METRICS is METRICS
