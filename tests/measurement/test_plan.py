"""The memory plan of a ranking: folds of every layer, scatter per class within a bound, less in little memory."""

import math

from tightframe.measurement.plan import Keep, LayerPlan, left_out, planned
from tightframe.statistics import StatisticsAccumulator

K, WIDTHS = 100, {"first": 256, "last": 8}


def plan(budget: float, class_scatter: float = math.inf) -> list[LayerPlan]:
    return planned(
        WIDTHS, K, budget, "last", covariance=True, per_class=True, folds=16, keep=Keep(class_scatter=class_scatter)
    )


def kept(plans: list[LayerPlan]) -> list[tuple[str, bool, int | None]]:
    return [(each.name, each.per_class, each.folds) for each in plans]


def needed(per_class: bool, folds: int) -> int:
    memory = StatisticsAccumulator.memory
    return sum(
        memory(K, size, per_class=per_class, folds=folds) - memory(K, size, covariance=False)
        for size in WIDTHS.values()
    )


def test_layers_within_the_bound_have_scatter_per_class() -> None:
    assert kept(plan(1e12)) == [("first", True, 16), ("last", True, 16)]
    bounded = plan(1e12, K * 256**2 - 1)
    assert kept(bounded) == [("first", False, 16), ("last", True, 16)]
    assert left_out(bounded, K, per_class=True, folds=16, keep=Keep(K * 256**2 - 1)) == []


def test_little_memory_means_fewer_folds_then_pooled_scatter_then_no_folds_of_other_layers() -> None:
    for own, folds in [(own, folds) for own in (True, False) for folds in (16, 8, 4)]:
        assert kept(plan(needed(own, folds))) == [("first", own, folds), ("last", own, folds)]
    least = plan(needed(False, 4) - 1)
    assert [each.folds is None for each in least] == [True, False]
    notes = left_out(least, K, per_class=True, folds=16, keep=Keep(math.inf))
    assert "the scatter per class exceeds covariance_bytes at: first, last." in notes
    assert "the scatter per fold of all layers exceeds covariance_bytes; no errors at: first." in notes
