"""Targets, floors and null levels against the check values of the formula sheet, derivations and simulation."""

import math
from statistics import mean, stdev

import pytest
import torch

from tightframe import metrics, theory
from tightframe.metrics import METRICS, Evidence, evaluate
from tightframe.statistics import ClassStatistics, DecisionCounts
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
    null = reference("log_kernel_mean", [5] * 100_000, 64).null
    assert null == pytest.approx(-0.346574 + 1 / (4 * 64), abs=1e-5)


def test_no_floor_where_a_simplex_fits() -> None:
    assert reference("etf_error", [5] * 65, 64).floor is None
    assert reference("etf_error", [5] * 66, 64).floor is not None


def test_empty_classes_are_left_out() -> None:
    assert reference("cdnv", [4, 0, 9, 0], 8) == reference("cdnv", [4, 9], 8)
    assert reference("cdnv", [4, 0, 0], 8).target is None


@pytest.mark.parametrize(
    ("counts", "dim"),
    [([50] * 10, 64), ([10] * 60, 20), ([20, 40] * 15, 50), ([20, 60, 150, 30, 90, 45, 70, 25], 100)],
    ids=["balanced", "more classes than dimensions", "two sizes", "eight sizes"],
)
def test_null_levels_against_simulation(counts: list[int], dim: int) -> None:
    """Means over simulated data without class structure agree with each null level.

    The tolerance is four standard errors of the mean, plus 5 % as the levels are ratios of expectations.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    draws: dict[str, list[float]] = {}
    for _ in range(20):
        features = torch.randn(len(labels), dim, dtype=torch.float64, generator=generator)
        weight = torch.randn(len(counts), dim, generator=generator)
        statistics = ClassStatistics.from_features(features, labels, len(counts), per_class=True)
        decisions = DecisionCounts(statistics, weight)
        decisions.update(features, labels)
        outside = torch.randn(dim, generator=generator)
        names = [name for name in METRICS if name != "one_vs_rest_distance"]  # no null level, and slow
        for name, value in evaluate(Evidence(statistics, weight, None, decisions, outside), names).items():
            draws.setdefault(name, []).append(float(value))
    checked = 0
    for name, values in draws.items():
        null = reference(name, counts, dim).null
        if null is None:
            continue
        if name == "cdnv":  # E 1/|gap|^2 is D/(D-2) times 1/E|gap|^2
            null *= dim / (dim - 2)
        error = stdev(values) / math.sqrt(len(values))
        assert abs(mean(values) - null) <= 4 * error + 0.05 * abs(null) + 1e-12, (name, mean(values), null, error)
        checked += 1
    assert checked >= 18


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
