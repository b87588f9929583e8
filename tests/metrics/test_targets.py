"""Targets and floors: attained at a simplex and its parts, none where theory knows none, right where D is small."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tightframe import metrics
from tightframe.codes import energies
from tightframe.decisions import DecisionCounts
from tightframe.metrics import METRICS, Evidence, Setting, available, evaluate
from tightframe.statistics import ClassStatistics

CLASSES = 8


def setting(classes: int, dim: int, model: int | None = None, each: int = 7) -> Setting:
    return Setting(torch.full((classes,), each), dim, model or classes)


def collapsed(present: int, dim: int = 11) -> Evidence:
    """A perfectly collapsed, self-dual model of `CLASSES` classes, and data of the first `present` of them."""
    generator = torch.Generator().manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(dim, CLASSES, dtype=torch.float64, generator=generator))
    weight = (torch.eye(CLASSES, dtype=torch.float64) - 1 / CLASSES) @ basis.mT * 3
    labels = torch.arange(present).repeat_interleave(8)
    statistics = ClassStatistics.from_features(weight[labels], labels, CLASSES, per_class=True)
    decisions = DecisionCounts(statistics, weight, torch.zeros(CLASSES))
    decisions.update(weight[labels], labels)
    return Evidence(statistics, weight, None, decisions, torch.linalg.svd(weight).Vh[-1])


@pytest.mark.parametrize("present", [8, 7, 4, 3, 2])
def test_targets_are_attained_at_a_simplex_and_at_a_part_of_one(present: int) -> None:
    """Of K classes of a model of C: the means, centred by theirs, are a simplex again, the classifier's rows aren't."""
    evidence = collapsed(present)
    where = Setting.of(evidence)
    assert where is not None and (where.K, where.classes, where.partial) == (present, 8, present < 8)
    compared = 0
    for name, value in evaluate(evidence).items():
        target = METRICS[name].target_in(where)
        if target is None:
            continue
        if value.isnan():  # one pair of classes has no spread
            assert present == 2 and name in ("equiangularity", "classifier_equiangularity"), name
            continue
        compared += 1
        assert float(value) == pytest.approx(target, abs=1e-12 if name != "one_vs_rest_distance" else 1e-9), name
    assert compared >= 34


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("counts", "dim", "model"),
    [([1, 1], 1, 2), ([3, 3, 3], 1, 3), ([1, 10**6, 10**6], 1, 9), ([1, 2, 9], 2, 3), ([1, 10**6, 10**6], 900, 3)],
)
def test_targets_and_floors_are_plain_numbers_or_none(name: str, counts: list[int], dim: int, model: int) -> None:
    """A numpy scalar, say, can't be reloaded from a checkpoint."""
    where, metric = Setting(torch.tensor(counts), dim, model), METRICS[name]
    for value in (metric.target_in(where), metric.floor_in(where), metric.best_in(where)):
        assert value is None or (type(value) is float and math.isfinite(value))


# ---------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("classes", "value"), [(2, -0.693147), (3, -0.549306), (10, -0.399254), (100, -0.351599), (10**6, -0.346574)]
)
def test_the_log_kernel_of_a_simplex(classes: int, value: float) -> None:
    """Section A6 of the formula sheet."""
    where = setting(classes, classes)
    assert metrics.log_kernel.target_in(where) == pytest.approx(value, abs=1e-6)
    assert metrics.log_kernel.having(of="variance").target_in(where) == 0
    assert metrics.riesz_kernel.target_in(where) == pytest.approx(math.exp(value), abs=1e-6)
    assert metrics.distance_kernel.target_in(where) == pytest.approx(math.exp(-value), abs=1e-5)


def test_ranks_at_collapse() -> None:
    rank = metrics.numerical_rank
    assert rank.target_in(Setting(torch.tensor([3, 5, 9]), 8, 3)) == 2
    assert rank.best_in(setting(10, 4)) == 4
    assert rank.target_in(Setting(torch.tensor([3000, 3]), 4, 2)) is None  # a class may be too small to be seen


def test_options_have_targets_of_their_own() -> None:
    where = setting(10, 64)
    assert metrics.nc3_cosine.target_in(where) == 1 and metrics.nc3_cosine.having(complement=True).target_in(where) == 0
    assert metrics.mean_cosine.target_in(where) == pytest.approx(-1 / 9)
    assert metrics.mean_cosine.having(centred=False).target_in(where) is None
    assert metrics.classifier_mean_cosine.target_in(where) is None
    assert metrics.classifier_mean_cosine.having(centred=True).target_in(where) == pytest.approx(-1 / 9)
    part = setting(4, 64, 10)
    assert metrics.classifier_etf_error.having(centred=True).target_in(part) == 0
    assert metrics.classifier_etf_error.target_in(part) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(3 / 3.36)))


def test_an_option_of_a_metrics_function_is_no_fact_of_the_metric() -> None:
    statistics = ClassStatistics.from_features(torch.randn(30, 8), torch.arange(30) % 4, 4)
    largest, weight = metrics.principal_angle.having(largest=True), torch.randn(5, 8)
    assert largest.options == {"largest": True}
    assert largest(statistics, weight) == metrics.principal_angles(statistics, weight)[-1].rad2deg()
    with pytest.raises(TypeError, match="rename the parameter 'target'; Metric has an attribute"):

        @metrics.metric("something", "scale")
        def something(statistics: ClassStatistics, *, target: float = 0.0) -> torch.Tensor:
            return statistics.spread.sum() - target


# ---------------------------------------------------------------------- floors


def test_no_floor_where_a_simplex_fits() -> None:
    for metric in METRICS.values():
        assert metric.floor_in(setting(65, 64)) is None
        assert metric.best_in(setting(65, 64)) == metric.target_in(setting(65, 64))
    assert metrics.etf_error.floor_in(setting(66, 64)) is not None


@pytest.mark.parametrize(("classes", "dim", "floor"), [(100, 64, 0.6261), (29233, 1024, 1.2750)])
def test_rank_floor(classes: int, dim: int, floor: float) -> None:
    """Section A2 of the formula sheet."""
    exact = math.sqrt(2 - 2 * math.sqrt(dim / (classes - 1)))
    assert exact == pytest.approx(floor, abs=5e-5)
    for metric in (metrics.etf_error, metrics.etf_distance, metrics.classifier_etf_error, metrics.self_duality_error):
        assert metric.floor_in(setting(classes, dim)) == pytest.approx(exact, rel=1e-12)
    assert metrics.participation_ratio.floor_in(setting(classes, dim)) == dim


@pytest.mark.parametrize(
    ("classes", "dim", "angle"),
    [(8, 2, 45), (8, 4, 90), (6, 3, 90), (12, 3, 63.4349), (24, 4, 60), (7, 3, 77.8695), (240, 8, 60), (5, 1, 0)],
)
def test_floor_of_the_smallest_angle(classes: int, dim: int, angle: float) -> None:
    """Section A7: the best angles that are known to be the best."""
    assert metrics.minimum_angle.floor_in(setting(classes, dim)) == pytest.approx(angle, abs=5e-5)


def test_floor_of_the_smallest_angle_is_a_bound_where_no_optimum_is_known() -> None:
    bound = math.degrees(math.acos(0.153298))
    assert metrics.minimum_angle.floor_in(setting(100, 16)) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    ("classes", "dim", "value"),
    [(4, 1, 0.0), (8, 2, 0.292893), (4, 2, 1.0), (5, 3, 1.0), (8, 4, 1.0), (9, 4, None), (12, 3, None)],
)
def test_floor_of_the_one_vs_rest_distance(classes: int, dim: int, value: float | None) -> None:
    """Section A7."""
    floor = metrics.one_vs_rest_distance.floor_in(setting(classes, dim))
    assert floor == (None if value is None else pytest.approx(value, abs=1e-6))


FROM_BOUNDS: list[tuple[metrics.Metric[Any], Callable[[int, int], float]]] = [
    (metrics.log_kernel, energies.log_kernel_bound),
    (metrics.distance_kernel, energies.distance_bound),
    (metrics.riesz_kernel, energies.riesz_bound),
    (metrics.riesz_kernel.having(exponent=3.0), lambda K, D: energies.riesz_bound(K, D, 3.0)),
    (metrics.equiangularity, energies.equiangularity_floor),
    (metrics.equiangularity.having(ddof=0), lambda K, D: energies.equiangularity_floor(K, D, ddof=0)),
    (metrics.maximal_angle_deviation, energies.maximal_angle_floor),
]


@pytest.mark.parametrize(("metric", "bound"), FROM_BOUNDS, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.parametrize(("classes", "dim"), [(6, 3), (12, 3), (100, 16), (1000, 128)])
def test_floors_of_mean_energies_and_angles_are_proven_bounds(
    metric: metrics.Metric[Any], bound: Callable[[int, int], float], classes: int, dim: int
) -> None:
    assert metric.floor_in(setting(classes, dim)) == bound(classes, dim)
    assert metric.best_in(setting(classes, dim)) == (bound(classes, dim) if metric.attainable else None)


@pytest.mark.parametrize(("vectors", "dim"), [("orthoplex", 5), ("polygon", 2), ("random", 6)])
def test_no_means_do_better_than_a_floor(vectors: str, dim: int) -> None:
    """Optimal codes attain those of kernels and angles; nothing passes one."""
    if vectors == "orthoplex":
        means = torch.cat([torch.eye(dim), -torch.eye(dim)]).double()
    elif vectors == "polygon":
        turns = torch.arange(7, dtype=torch.float64) * (2 * math.pi / 7)
        means = torch.stack([turns.cos(), turns.sin()], 1)
    else:
        means = torch.randn(20, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classes = len(means)
    statistics = ClassStatistics(torch.full((classes,), 3), means, torch.zeros(classes, dtype=torch.float64))
    evidence = Evidence(statistics, means - means.mean(0))
    where, attained = Setting.of(evidence), set()
    assert where is not None
    for each in available(evidence):
        floor, value = each.floor_in(where), float(each.of(evidence))
        if floor is None or (each.target_in(where) is None and each.name != "one_vs_rest_distance"):
            continue
        largest = each.name in ("minimum_angle", "distance_kernel", "one_vs_rest_distance", "participation_ratio")
        assert (floor - value if largest else value - floor) >= -1e-9, each.name
        if value == pytest.approx(floor, abs=1e-9):
            attained.add(each.name)
    best = {"etf_error", "etf_distance", "self_duality_error", "participation_ratio", "classifier_etf_error"}
    best |= {"minimum_angle", "log_kernel", "distance_kernel", "riesz_kernel", "one_vs_rest_distance"}
    assert attained >= (best if vectors != "random" else set()), best - attained


def test_where_the_data_lack_classes_that_are_too_many_nothing_is_known_of_shapes() -> None:
    """Some of the vectors of a crowded model may be a simplex by chance, or not."""
    part = setting(10, 16, 100)
    assert part.crowded and part.partial
    shapes = {
        *(metrics.etf_error, metrics.etf_distance, metrics.equiangularity, metrics.minimum_angle),
        *(metrics.maximal_angle_deviation, metrics.participation_ratio, metrics.one_vs_rest_distance),
        *(metrics.log_kernel, metrics.distance_kernel, metrics.riesz_kernel, metrics.classifier_etf_error),
        *(metrics.self_duality_error, metrics.seli_error, metrics.classifier_seli_error),
    }
    for metric in METRICS.values():
        if metric in shapes:
            assert metric.best_in(part) is None, metric
    for metric in (metrics.nc1, metrics.cdnv, metrics.vci, metrics.trace_ratio, metrics.ncc_mismatch):
        assert metric.best_in(part) == 0
