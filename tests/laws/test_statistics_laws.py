"""Laws of the statistics, against loops in extended precision: every path gives the same; and faults that were."""

from __future__ import annotations

import copy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laws.scenarios import assert_fields_equal
from laws.statistics_oracle import (
    DOUBLE,
    FOLDS,
    OFTEN,
    RECORD,
    SINGLE,
    Data,
    Draws,
    Plan,
    Precision,
    Truth,
    cuts,
    errors,
    make,
    plans,
)
from oracle import ORACLE, Sample
from tightframe import ClassStatistics, StatisticsAccumulator, measure, metrics
from tightframe.errors import GeometryWarning, RangeError, ResolutionWarning
from tightframe.statistics import FoldedStatistics

SLOW = pytest.mark.slow
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# ---------------------------------------------------------------------- 1. every path gives the same


class Case(NamedTuple):
    """A value that some path led to, and what it should be."""

    path: str
    value: ClassStatistics
    truth: Truth
    precision: Precision
    minuend: Truth | None = None
    core: np.ndarray | None = None


def _merged(precision: Precision, values: int) -> Precision:
    return replace(precision, merges=8.0 + 4.0 * values)


def _empty_accumulator(data: Data, **options: object) -> StatisticsAccumulator:
    options = {"per_class": True} | data.options | options
    return StatisticsAccumulator(data.plan.classes, data.plan.dim, **options)


def _stream(
    accumulator: StatisticsAccumulator,
    data: Data,
    rng: Draws,
    items: np.ndarray | None = None,
    *,
    validate: bool | None,
) -> StatisticsAccumulator:
    """Add items in the given order, in batches of random sizes; validate None draws for each batch."""
    items = np.arange(len(data.labels)) if items is None else items
    numbers = torch.from_numpy(items)
    for some in cuts(rng, len(items)):
        checked = bool(rng.integers(2)) if validate is None else validate
        samples = {} if accumulator.folds is None else {"samples": numbers[some]}
        accumulator.update(*data.batch(numbers[some]), validate=checked, **samples)
    return accumulator


def _of(data: Data, items: np.ndarray | slice, **options: object) -> ClassStatistics:
    if not isinstance(items, slice):
        items = torch.from_numpy(items)
    options = {"per_class": True} | data.options | options
    return ClassStatistics.from_features(*data.batch(items), data.plan.classes, **options)


def _parts(data: Data, rng: Draws, *, shuffled: bool = True) -> list[np.ndarray]:
    """The items dealt to a few parts, none empty."""
    order = rng.permutation(len(data.labels)) if shuffled else np.arange(len(data.labels))
    return [order[some] for some in cuts(rng, len(order))]


def _tree(values: list[ClassStatistics], rng: Draws) -> ClassStatistics:
    values = list(values)
    while len(values) > 1:
        left = values.pop(rng.integers(len(values)))
        right = values.pop(rng.integers(len(values)))
        values.append(left.merge(right))
    return values[0]


def whole(data: Data, rng: Draws) -> Iterator[Case]:
    yield Case("from_features", _of(data, slice(None)), data.truth, DOUBLE)
    yield Case("from_features, pooled", _of(data, slice(None), per_class=False), data.truth, DOUBLE)
    yield Case("from_features, no scatter", _of(data, slice(None), covariance=False), data.truth, DOUBLE)


def streams(data: Data, rng: Draws) -> Iterator[Case]:
    precision = SINGLE if data.single else DOUBLE
    order = rng.permutation(len(data.labels))
    for validate in (True, False, None):
        for per_class in (True, False):
            accumulator = _empty_accumulator(data, per_class=per_class)
            items = order if rng.integers(2) else None
            _stream(accumulator, data, rng, items, validate=validate)
            name = f"streamed, per_class={per_class}, validate={validate}"
            yield Case(name, accumulator.compute(), data.truth, precision)
    accumulator = _empty_accumulator(data, covariance=False, per_class=False)
    _stream(accumulator, data, rng, validate=True)
    yield Case("streamed, no scatter", accumulator.compute(), data.truth, precision)


def looks(data: Data, rng: Draws) -> Iterator[Case]:
    """`compute` between batches, and what comes after a reset."""
    precision = SINGLE if data.single else DOUBLE
    accumulator, validate = _empty_accumulator(data), bool(rng.integers(2))
    for repeat, most in (("first", 2 * OFTEN if rng.integers(2) else 7), ("after a reset", 7)):
        order = rng.permutation(len(data.labels))
        for some in cuts(rng, len(order), most):
            accumulator.update(*data.batch(torch.from_numpy(order[some])), validate=validate)
            accumulator.compute()
        yield Case(f"compute between batches, {repeat}", accumulator.compute(), data.truth, precision)
        accumulator.reset()


def folds(data: Data, rng: Draws) -> Iterator[Case]:
    precision = SINGLE if data.single else DOUBLE
    per_class, validate = bool(rng.integers(2)), [True, False, None][rng.integers(3)]
    accumulator = _empty_accumulator(data, folds=FOLDS, per_class=per_class)
    _stream(accumulator, data, rng, rng.permutation(len(data.labels)), validate=validate)
    name = f"folds, per_class={per_class}, validate={validate}"
    yield Case(f"{name}: total", accumulator.compute(), data.truth, precision)
    folded = accumulator.compute_folds()
    merged = ClassStatistics.merge_all(folded.parts)
    yield Case(f"{name}: merged parts", merged, data.truth, _merged(precision, FOLDS))
    for fold, part in enumerate(folded.parts):
        yield _fold_case(f"{name}: fold", part, data, fold, precision)
    numbers = torch.arange(len(data.labels))
    held = FoldedStatistics.from_features(
        *data.batch(slice(None)), data.plan.classes, folds=FOLDS, samples=numbers, per_class=True, **data.options
    )
    for fold, part in enumerate(held.parts):
        yield Case("folds of from_features: fold", part, data.truth_of(slice(fold, None, FOLDS)), DOUBLE)


def _fold_case(path: str, part: ClassStatistics, data: Data, fold: int, precision: Precision) -> Case:
    truth = data.truth_of(slice(fold, None, FOLDS))
    return Case(path, part, truth, precision, core=data.core_about(truth.means))


def dealt_by_class(data: Data, rng: Draws) -> Iterator[Case]:
    """Without numbers, folds depend on the order of samples alone: streamed and whole ones have the same parts."""
    precision = SINGLE if data.single else DOUBLE
    accumulator = _empty_accumulator(data, folds=FOLDS)
    for some in cuts(rng, len(data.labels)):
        accumulator.update(*data.batch(some), validate=True)
    held = FoldedStatistics.from_features(
        *data.batch(slice(None)), data.plan.classes, folds=FOLDS, per_class=True, **data.options
    )
    folded = accumulator.compute_folds()
    yield Case("folds dealt: total", folded.total, data.truth, precision)
    yield Case("folds dealt: merged parts of whole", _tree(list(held.parts), rng), data.truth, _merged(DOUBLE, 4))
    for one, other in zip(folded.parts, held.parts, strict=True):
        assert one.counts.tolist() == other.counts.tolist(), "streamed folds have other samples than whole ones"


def merges(data: Data, rng: Draws) -> Iterator[Case]:
    parts = [_of(data, some) for some in _parts(data, rng)]
    parts.insert(rng.integers(len(parts) + 1), ClassStatistics.empty(data.plan.classes, data.plan.dim, per_class=True))
    precision = _merged(DOUBLE, len(parts))
    yield Case("merge tree", _tree(parts, rng), data.truth, precision)
    yield Case("merge_all", ClassStatistics.merge_all(parts), data.truth, precision)


def streamed_merges(data: Data, rng: Draws) -> Iterator[Case]:
    precision = SINGLE if data.single else DOUBLE
    parts = []
    for some in _parts(data, rng):
        accumulator = _stream(_empty_accumulator(data), data, rng, some, validate=None)
        parts.append(accumulator.compute())
    yield Case("merge_all of streamed", ClassStatistics.merge_all(parts), data.truth, _merged(precision, len(parts)))


def accumulators_merged(data: Data, rng: Draws) -> Iterator[Case]:
    """Accumulators merged into one, which then goes on."""
    precision = SINGLE if data.single else DOUBLE
    with_folds = [None, FOLDS][rng.integers(2)]
    first, *rest = (_empty_accumulator(data, folds=with_folds) for _ in range(3))
    later = None
    for number, some in enumerate(_parts(data, rng)):
        if number % 4 == 3:
            later = some if later is None else np.concatenate([later, some])
        else:
            _stream([first, *rest][number % 4], data, rng, some, validate=True)
    for other in rest:
        first.merge(other)
    if later is not None:
        _stream(first, data, rng, later, validate=None)
    name = f"accumulators merged, folds={with_folds}"
    yield Case(name, first.compute(), data.truth, _merged(precision, 4))
    if with_folds:
        for fold, part in enumerate(first.compute_folds().parts):
            yield _fold_case(f"{name}: fold", part, data, fold, _merged(precision, 4))


def saved_midway(data: Data, rng: Draws) -> Iterator[Case]:
    """Saved, loaded and gone on: bit for bit what it would be without."""
    precision = SINGLE if data.single else DOUBLE
    options = {"folds": [None, FOLDS][rng.integers(2)], "per_class": bool(rng.integers(2))}
    one = _empty_accumulator(data, **options)
    batches = [data.batch(torch.from_numpy(some)) for some in _parts(data, rng)]
    validated = [bool(rng.integers(2)) for _ in batches]
    middle = rng.integers(len(batches) + 1)
    for batch, validate in zip(batches[:middle], validated, strict=False):
        one.update(*batch, validate=validate)
    other = _empty_accumulator(data, **options)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for batch, validate in zip(batches[middle:], validated[middle:], strict=True):
        one.update(*batch, validate=validate)
        other.update(*batch, validate=validate)
    name = f"saved midway, folds={options['folds']}"
    assert_fields_equal(one.compute(), other.compute())
    if one.folds:
        for mine, theirs in zip(one.compute_folds().parts, other.compute_folds().parts, strict=True):
            assert_fields_equal(mine, theirs)
    yield Case(name, other.compute(), data.truth, precision)


def written(data: Data, rng: Draws) -> Iterator[Case]:
    value = _of(data, slice(None))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.safetensors"
        value.save(path)
        again = ClassStatistics.load(path)
    assert_fields_equal(again, value)
    assert torch.equal(again.rounding, value.rounding)
    yield Case("written and read", again, data.truth, DOUBLE)


def subtracted(data: Data, rng: Draws) -> Iterator[Case]:
    parts = _parts(data, rng)
    if len(parts) < 2:
        return
    left, right = parts[0], np.concatenate(parts[1:])
    whole_value = _of(data, slice(None))
    truth = data.truth_of(torch.from_numpy(left))
    precision = _merged(DOUBLE, 4)
    yield Case("subtracted", whole_value.subtract(_of(data, right)), truth, precision, data.truth)
    streamed = _stream(_empty_accumulator(data), data, rng, validate=True).compute()
    taken = _stream(_empty_accumulator(data), data, rng, right, validate=True).compute()
    both = SINGLE if data.single else DOUBLE
    precision = Precision(2 * both.spread, 2 * both.scatter, 2 * both.means, merges=24.0)
    yield Case("streamed, subtracted", streamed.subtract(taken), truth, precision, data.truth)


PATHS: tuple[Callable[[Data, Draws], Iterator[Case]], ...] = (
    whole,
    streams,
    looks,
    folds,
    dealt_by_class,
    merges,
    streamed_merges,
    accumulators_merged,
    saved_midway,
    written,
    subtracted,
)


def wrong_paths(data: Data, path: Callable[[Data, Draws], Iterator[Case]]) -> tuple[int, list[str]]:
    """How many comparisons there were, and a line for each that failed."""
    lines, cases = [], 0
    for case in path(data, np.random.default_rng(data.plan.seed)):
        cases += 1
        worst = errors(*case[1:])
        RECORD["1. paths, as a share of the bound"].add(max(worst.values()), f"{case.path}, {data.plan}")
        lines += [f"{case.path}: {field} off by {x:.2g} times its bound" for field, x in worst.items() if not x <= 1]
    return cases, lines


def check_paths(plan: Plan, path: Callable[[Data, Draws], Iterator[Case]]) -> None:
    _, lines = wrong_paths(make(plan), path)
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@settings(max_examples=20, **QUIET)
@given(plan=plans())
def test_every_path_gives_the_same(path: Callable[[Data, Draws], Iterator[Case]], plan: Plan) -> None:
    check_paths(plan, path)


@SLOW
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@settings(max_examples=750, **QUIET)
@given(plan=st.one_of(plans(), plans(), plans(), plans(max_items=4500)))
def test_every_path_gives_the_same_at_length(path: Callable[[Data, Draws], Iterator[Case]], plan: Plan) -> None:
    check_paths(plan, path)


# ---------------------------------------------------------------------- faults that were


def _silent(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        return function(*arguments, **options)


def _features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _values_of(features: torch.Tensor, labels: torch.Tensor, classes: int) -> dict[str, float]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(features.shape[1], classes)
    return _silent(measure, layer, [(features, labels)], progress=False).values


def _accumulated(features: torch.Tensor, labels: torch.Tensor, classes: int, **options: bool) -> StatisticsAccumulator:
    accumulator = StatisticsAccumulator(classes, features.shape[1], per_class=True)
    accumulator.update(features, labels, **options)
    return accumulator


def test_coincident_means_are_left_out_of_cdnv() -> None:
    labels, means = torch.arange(1000) % 4, _features(4, 8)
    means[1] = means[0]
    assert _values_of(means[labels], labels, 4)["cdnv"] == 0
    same_noise_for_all = _features(250, 8, seed=1)[torch.arange(1000) // 4]
    features = means[labels] + same_noise_for_all
    squares = torch.nn.functional.pdist(means.double())[1:].square()  # of all pairs but the first
    expected = (same_noise_for_all.double().var(0, correction=0).sum() / squares).mean().item()
    assert _values_of(features, labels, 4)["cdnv"] == pytest.approx(expected, rel=1e-5)
    value = ClassStatistics.from_features(features, labels, 4)
    assert np.isinf(_silent(metrics.cdnv, value, exact=True).item())
    means[2:] = means[0]
    assert np.isnan(_values_of(means[labels] + same_noise_for_all, labels, 4)["cdnv"])


def test_constant_features_are_undefined_not_zero() -> None:
    labels = torch.arange(1001) % 4
    values = _values_of(_features(1, 8).expand(1001, 8).clone(), labels, 4)
    names = ("cdnv", "trace_ratio", "etf_error", "equinorm", "equiangularity", "nc1", "vci", "minimum_angle")
    assert all(np.isnan(values[name]) for name in names)


def test_decisions_do_not_depend_on_scale() -> None:
    labels = torch.arange(60) % 3
    features = _features(3, 8)[labels] + 0.1 * _features(60, 8, seed=1)
    assert _values_of(features * 1e20, labels, 3)["ncc_accuracy"] == _values_of(features, labels, 3)["ncc_accuracy"]


@pytest.mark.parametrize("scale", [1e20, 1e16, 1e14, 1e-11, 1e-15, 1e-22])
def test_unvalidated_batches_of_any_size_are_right_or_an_error(scale: float) -> None:
    labels = torch.arange(60) % 3
    features = _features(3, 8)[labels] + 0.1 * _features(60, 8, seed=1)
    expected = metrics.cdnv(ClassStatistics.from_features(features, labels, 3))
    accumulator = _accumulated(features * scale, labels, 3, validate=False)
    try:
        value = accumulator.compute()
    except RangeError:
        return
    torch.testing.assert_close(metrics.cdnv(value), expected, rtol=1e-6, atol=0)


def test_validated_float32_of_any_size_is_right() -> None:
    labels = torch.arange(60) % 3
    features = _features(3, 8)[labels] + 0.1 * _features(60, 8, seed=1)
    expected = metrics.cdnv(ClassStatistics.from_features(features, labels, 3))
    for scale in (1e-23, 1e-30, 1e30):
        value = _accumulated(features * scale, labels, 3, validate=True).compute()
        torch.testing.assert_close(metrics.cdnv(value), expected, rtol=1e-6, atol=0)


def test_an_outlier_as_first_row_leaves_the_other_classes_alone() -> None:
    labels, features = torch.arange(60) % 3, _features(60, 8, dtype=torch.float64)
    expected = ClassStatistics.from_features(features, labels, 3).variances[1:]
    features[0] = 1e16
    assert torch.equal(ClassStatistics.from_features(features, labels, 3).variances[1:], expected)


@pytest.mark.parametrize("exponent", [-20, -23, -26, -30])
def test_unvalidated_small_classes_beside_others(exponent: int) -> None:
    """The batch's largest value says nothing about the smallest class."""
    labels, features = torch.arange(100) % 2, _features(100, 4)
    features[labels == 1] *= 10.0**exponent
    expected = ClassStatistics.from_features(features, labels, 2)
    try:
        value = _accumulated(features, labels, 2, validate=False).compute()
    except RangeError:
        return
    torch.testing.assert_close(value.spread, expected.spread, rtol=1e-6, atol=0)


def test_unvalidated_class_that_comes_late_with_an_outlier_first() -> None:
    features, labels = _features(512 * 128, 16), torch.zeros(512 * 128, dtype=torch.int64)
    labels[512 * 66 :: 2] = 1
    features[512 * 66] = 1e4
    accumulator = StatisticsAccumulator(2, 16)
    for some in zip(features.split(512), labels.split(512), strict=True):
        accumulator.update(*some, validate=False)
    expected = ClassStatistics.from_features(features, labels, 2)
    torch.testing.assert_close(accumulator.compute().spread, expected.spread, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ["looked at early", "merged"])
def test_a_fold_beside_one_with_an_outlier(dtype: torch.dtype, way: str) -> None:
    """Without the fold that has the outlier, which is what a jackknife asks for."""
    features, labels = _features(400, 3, dtype=dtype), torch.zeros(400, dtype=torch.int64)
    features[0] = 1e9
    numbers = torch.arange(400)
    accumulators = [StatisticsAccumulator(1, 3, folds=4) for _ in range(2)]
    for accumulator, rows in zip(accumulators, (numbers[:2], numbers[2:]), strict=True):
        target = accumulators[0] if way == "looked at early" else accumulator
        target.update(features[rows], labels[rows], samples=rows)
        target.compute()
    if way == "merged":
        accumulators[0].merge(accumulators[1])
    for fold, part in enumerate(accumulators[0].compute_folds().parts[1:], 1):
        expected = ClassStatistics.from_features(features[fold::4], labels[fold::4], 1)
        torch.testing.assert_close(part.spread, expected.spread, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_have_no_spread_after_merging_and_going_on(dtype: torch.dtype) -> None:
    row = _features(1, 5, dtype=dtype) * 1e3

    def equal(number: int) -> StatisticsAccumulator:
        return _accumulated(row.expand(number, 5), torch.zeros(number, dtype=torch.int64), 1)

    first = equal(3)
    for number in (4, 1, 2, 3, 5):
        first.merge(equal(number))
        first.update(row, torch.zeros(1, dtype=torch.int64))
        assert first.compute().spread.tolist() == [0.0]
        assert not first.compute().class_within.any()


def test_folds_go_on_in_turn_after_loading() -> None:
    features, labels = _features(21, 5, 3, dtype=torch.float64), torch.arange(105).reshape(21, 5) % 2
    one, other = (StatisticsAccumulator(2, 3, folds=4) for _ in range(2))
    one.update(features[:7], labels[:7])
    other.load_state_dict(one.state_dict())
    for accumulator in (one, other):
        accumulator.update(features[7:], labels[7:])
    for mine, theirs in zip(one.compute_folds().parts, other.compute_folds().parts, strict=True):
        assert_fields_equal(mine, theirs)


def test_shards_with_an_outlier_have_the_nc1_of_the_whole() -> None:
    labels = torch.arange(3000) % 5
    features = _features(5, 6, dtype=torch.float64)[labels] + _features(3000, 6, seed=1, dtype=torch.float64)
    features[100] = 1e9
    sample = Sample(features.numpy(), labels.numpy(), 5)
    values = [_accumulated(*some, 5).compute() for some in zip(features.split(1000), labels.split(1000), strict=True)]
    for value in (ClassStatistics.from_features(features, labels, 5), ClassStatistics.merge_all(values)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            nc1 = metrics.nc1(value).item()
        if not any(issubclass(each.category, ResolutionWarning) for each in warned):
            assert nc1 == pytest.approx(ORACLE["nc1"](sample), rel=0.05)  # what a value without a warning promises


@pytest.mark.parametrize("per_class", [False, True])
def test_one_sample_that_is_left_has_no_scatter(per_class: bool) -> None:
    labels, features = torch.arange(60) % 3, _features(60, 8, dtype=torch.float64) + 1e3
    both = ClassStatistics.from_features(features, labels, 3, per_class=per_class)
    for kept in range(1, 4):
        rest = both.subtract(ClassStatistics.from_features(features[kept:], labels[kept:], 3, per_class=per_class))
        assert not rest.spread.any() and not rest.within.any()


@pytest.mark.parametrize("number", [10, 100, 1000])
def test_rounding_of_equal_rows_does_not_average_out(number: int) -> None:
    """Collapsed classes with means on a line: all rows of a class are rounded alike, so n of them are no more exact."""
    labels = torch.arange(4 * number) % 4
    for seed in range(10):
        line = (torch.arange(4)[:, None] + 0.5) * _features(8, seed=seed, dtype=torch.float64)
        turn = torch.linalg.qr(_features(8, 8, seed=seed + 1, dtype=torch.float64))[0]
        value = ClassStatistics.from_features(((line + 3) @ turn).float()[labels], labels, 4)
        assert _silent(metrics.vci, value).item() == pytest.approx(0, abs=1e-12)
        assert len(_silent(metrics.principal_angles, value, torch.eye(8))) == 1


def test_vci_of_collapsed_classes_is_zero_and_never_negative() -> None:
    for seed in range(20):
        rows = _features(5, 8, seed=seed, dtype=torch.float64).repeat(2, 1)
        assert metrics.vci(ClassStatistics.from_features(rows, torch.arange(5).repeat(2), 5)).item() == 0


@pytest.mark.parametrize("number", [7, 8, 9])
def test_vci_of_too_few_samples_is_undefined(number: int) -> None:
    """N points less their mean span N - 1 dimensions: up to N = D + 1 the means explain all of them."""
    value = ClassStatistics.from_features(_features(number, 8, dtype=torch.float64), torch.arange(number) % 4, 4)
    with pytest.warns(GeometryWarning, match=f"undefined \\(NaN\\) for {number} samples in 8 dimensions"):
        assert metrics.vci(value).isnan()


def test_vci_of_two_samples_more_than_dimensions_is_defined() -> None:
    features, labels = _features(10, 8, dtype=torch.float64), torch.arange(10) % 4
    value = metrics.vci(ClassStatistics.from_features(features, labels, 4)).item()
    assert 0 < value < 1
    assert value == pytest.approx(ORACLE["vci"](Sample(features.numpy(), labels.numpy(), 4)), rel=1e-8)


def test_float32_deviations_limit_the_resolution_too() -> None:
    """Products in float64 don't help where the deviations were rounded to float32."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.arange(480) % 6
    turn = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))[0]
    rows = torch.randn(480, 40, generator=generator, dtype=torch.float64)
    for k in range(6):
        rows[labels == k] -= rows[labels == k].mean(0)
    rows[:, :5] = torch.randn(6, 5, generator=generator, dtype=torch.float64)[labels] + 1e-6 * rows[:, :5]
    features = (rows @ turn).float()
    expected = metrics.nc1(ClassStatistics.from_features(features, labels, 6)).item()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        value = metrics.nc1(_accumulated(features, labels, 6).compute()).item()
    resolved = not any(issubclass(each.category, ResolutionWarning) for each in warned)
    assert not resolved or value == pytest.approx(expected, rel=0.05)


def _seen_often(classes: int, dim: int, **options: bool) -> StatisticsAccumulator:
    """An accumulator of 33 rows of class 0, unvalidated, looked at after each."""
    accumulator = StatisticsAccumulator(classes, dim, **options)
    for row in _features(33, dim).split(1):
        accumulator.update(row, torch.tensor([0]), validate=False)
        accumulator.compute()
    return accumulator


def test_unvalidated_small_class_has_its_scatter_after_many_steps() -> None:
    """Squares of 1e-23 aren't float32 numbers; the batch's largest value doesn't show them."""
    accumulator = _seen_often(2, 9, per_class=True)
    features, labels = 1e-23 * _features(4000, 9, seed=1), torch.ones(4000, dtype=torch.int64)
    features[0], labels[0] = 1.0, 0
    accumulator.update(features, labels, validate=False)
    expected = ClassStatistics.from_features(features[1:], labels[1:], 2, per_class=True).class_within[1]
    largest = expected.abs().max().item()
    torch.testing.assert_close(accumulator.compute().class_within[1], expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("per_class", [False, True])
def test_unvalidated_outlier_as_an_anchor_after_many_steps(per_class: bool) -> None:
    """Nothing may be looked at, but a typical row of the step is its anchor."""
    accumulator = _seen_often(2, 9, per_class=per_class)
    features, labels = _features(4000, 9, seed=1), torch.ones(4000, dtype=torch.int64)
    features[0] = 1e4
    accumulator.update(features, labels, validate=False)
    expected = ClassStatistics.from_features(features, labels, 2).within
    within = accumulator.compute().within
    torch.testing.assert_close(within, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_coincident_classes_in_merged_parts_leave_no_noise_in_nc1() -> None:
    """Merging rounds each mean, however many samples it has."""
    for seed in range(60):
        own = 0.1 * _features(100, 2, seed=seed, dtype=torch.float64)
        features = torch.cat([own, own.flip(0), own + 2]) + 10
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        batches = zip(features[order].split(100), (torch.arange(300) // 100)[order].split(100), strict=True)
        value = ClassStatistics.merge_all([ClassStatistics.from_features(*batch, 3) for batch in batches])
        assert _silent(metrics.nc1, value).item() < 0.1


def test_centred_means_of_two_classes_are_opposite() -> None:
    for seed in range(200):
        value = ClassStatistics.from_features(_features(2, 8, seed=seed, dtype=torch.float64), torch.arange(2), 2)
        assert metrics.minimum_angle(value).item() == pytest.approx(180, abs=1e-12)


def test_the_rounding_that_separates_two_means_is_that_of_their_distance() -> None:
    """Of two classes each centred mean is half of it."""
    features = torch.tensor([[1.0, 0], [1, 2], [1 + 2**-20, 0], [1 + 2**-20, 2]])
    value = ClassStatistics.from_features(features, torch.arange(4) // 2, 2, per_class=True)
    assert 1.5 < (value.means[0] - value.means[1]).norm() / value.rounding[0] < 2
    assert _silent(metrics.cdnv, value).item() == pytest.approx(1 / 2**-40, rel=1e-3)


def test_means_with_a_finite_distance_are_not_called_coincident() -> None:
    features = torch.tensor([[1.0, 0], [1, 2], [1, 0], [1, 2], [20, 0], [20, 2]], dtype=torch.float64)
    features[2:4, 0] += 2.0**-47
    value = ClassStatistics.from_features(features, torch.arange(6) // 2, 3)
    assert (value.means[0] - value.means[1]).norm() / value.rounding[0] > 1.5
    with pytest.warns(GeometryWarning, match="their distances are inexact: 0, 1"):
        assert metrics.cdnv(value).isfinite()


def test_float32_deviations_limit_the_resolution_of_float64_products_too() -> None:
    """Eight features are multiplied in float64; their deviations were rounded to float32."""
    labels = torch.arange(80) % 2
    for seed in range(20):
        rows = _features(80, 8, seed=seed, dtype=torch.float64)
        rows[0, 1:] *= 100
        for k in range(2):
            rows[labels == k] -= rows[labels == k].mean(0)
        rows[:, 0] = 2 * labels - 1 + 1e-5 * rows[:, 0]
        features = (rows @ torch.linalg.qr(_features(8, 8, seed=seed + 1, dtype=torch.float64))[0]).float()
        expected = metrics.nc1(ClassStatistics.from_features(features, labels, 2)).item()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            value = metrics.nc1(_accumulated(features, labels, 2).compute()).item()
        resolved = not any(issubclass(each.category, ResolutionWarning) for each in warned)
        assert not resolved or value == pytest.approx(expected, rel=0.05)


# ---------------------------------------------------------------------- what the laws tried

if __name__ == "__main__":  # from tests/: python -m laws.test_statistics_laws [--slow]
    files = [
        str(Path(__file__).parent / f"test_{law}_laws.py")
        for law in ("statistics", "scale", "degenerate", "resolution")
    ]
    options = ["--tb=line", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    pytest.main([*files, *options, *(["-m", "slow"] if "--slow" in sys.argv else [])])
    for law, tally in sorted(RECORD.items()):
        print(f"{law}: {tally.cases} cases, worst {tally.worst:.3g} ({tally.where})")
    print(f"{time.process_time():.0f} s of CPU")
