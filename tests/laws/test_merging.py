"""Statistics depend on the set of samples only: not on batches, their order, or who merged what when."""

from collections.abc import Callable
from itertools import count, cycle, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws.scenarios import Scenario, assert_fields_close, assert_fields_equal, draw, statistics_of, tensors
from tightframe import ClassStatistics, StatisticsAccumulator

FEW = draw(Scenario((20, 1, 0, 12, 7), 4), offset=1e3, outliers=True)
MANY = draw(Scenario((1100, 1, 0, 600, 90, 3), 4), offset=1e3, outliers=True)


def merge_tree(parts: list[Any], data: st.DataObject, merge: Callable[[Any, Any], Any]) -> Any:
    """Merge any two of the parts until one is left."""
    while len(parts) > 1:
        left = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        right = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(merge(left, right))
    return parts[0]


def absorb(left: StatisticsAccumulator, right: StatisticsAccumulator) -> StatisticsAccumulator:
    left.merge(right)
    return left


@given(order=st.permutations(range(40)), cuts=st.sets(st.integers(0, 40), max_size=7), data=st.data())
def test_any_split_any_order_any_tree_of_values(order: list[int], cuts: set[int], data: st.DataObject) -> None:
    features, labels = tensors(FEW)
    edges = [0, *sorted(cuts), 40]
    parts = [ClassStatistics.empty(5, 4, per_class=True)]
    for start, stop in pairwise(edges):
        if stop > start:
            rows = torch.tensor(order[start:stop])
            parts.append(ClassStatistics.from_features(features[rows], labels[rows], 5, per_class=True))
    assert_fields_close(merge_tree(parts, data, ClassStatistics.merge), statistics_of(FEW), 1e-10)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.one_of(st.integers(1, 40), st.integers(500, 1300)), min_size=1, max_size=12),
    keepers=st.integers(1, 4),
    validate=st.booleans(),
    data=st.data(),
)
def test_any_split_any_order_any_tree_of_accumulators(
    seed: int, sizes: list[int], keepers: int, validate: bool, data: st.DataObject
) -> None:
    features, labels = tensors(MANY)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = [StatisticsAccumulator(6, 4, per_class=True) for _ in range(keepers)]
    turns = cycle(sizes)
    for number in count():
        rows, order = order.tensor_split([next(turns)])
        if len(rows) == 0:
            break
        parts[number % keepers].update(features[rows], labels[rows], validate=validate)
    assert_fields_close(merge_tree(parts, data, absorb).compute(), statistics_of(MANY), 1e-10)


@given(cut=st.integers(1, 1793), validate=st.booleans())
def test_an_accumulator_goes_on_after_a_merge(cut: int, validate: bool) -> None:
    features, labels = tensors(MANY)
    parts = []
    for start, stop in ((0, cut), (cut, 1794)):
        part = StatisticsAccumulator(6, 4, per_class=True)
        part.update(features[start:stop], labels[start:stop], validate=validate)
        parts.append(part)
    merged = absorb(*parts)
    merged.update(features[:700], labels[:700], validate=validate)
    merged.update(features[700:], labels[700:], validate=validate)
    whole = statistics_of(MANY)
    assert_fields_close(merged.compute(), whole.merge(whole), 1e-10)


def test_merging_leaves_the_other_accumulator_as_it_was() -> None:
    features, labels = tensors(MANY)
    parts = [StatisticsAccumulator(6, 4), StatisticsAccumulator(6, 4)]
    for part in parts:
        part.update(features[:1000], labels[:1000])
        part.update(features[1000:1010], labels[1000:1010])
    before = parts[1].compute()
    parts[0].merge(parts[1])
    assert_fields_equal(parts[1].compute(), before)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("sample", [FEW, MANY], ids=["few", "many"])
def test_empty_is_the_identity_of_merge(sample: Any, per_class: bool) -> None:
    value = statistics_of(sample, per_class)
    empty = ClassStatistics.empty(value.num_classes, value.num_features, per_class=per_class)
    assert_fields_equal(value.merge(empty), value)
    assert_fields_equal(empty.merge(value), value)
    assert_fields_equal(empty.merge(empty), empty)


def test_merging_an_empty_accumulator_changes_nothing() -> None:
    features, labels = tensors(MANY)
    full = StatisticsAccumulator(6, 4, per_class=True)
    full.update(features, labels)
    expected = full.compute()
    full.merge(StatisticsAccumulator(6, 4, per_class=True))
    assert_fields_close(full.compute(), expected, 1e-12)
    empty = StatisticsAccumulator(6, 4, per_class=True)
    empty.merge(full)
    assert_fields_close(empty.compute(), expected, 1e-12)


@given(cut=st.integers(1, 39), order=st.permutations(range(40)))
def test_subtract_inverts_merge(cut: int, order: list[int]) -> None:
    features, labels = tensors(FEW)
    parts = []
    for rows in (torch.tensor(order[:cut]), torch.tensor(order[cut:])):
        parts.append(ClassStatistics.from_features(features[rows], labels[rows], 5, per_class=True))
    left, right = parts
    whole = left.merge(right)
    for name in ("means", "spread", "within", "class_within"):
        scale = getattr(whole, name).nan_to_num().abs().max().item()
        for rest, expected in ((whole.subtract(right), left), (whole.subtract(left), right)):
            assert torch.equal(rest.counts, expected.counts)
            torch.testing.assert_close(
                getattr(rest, name), getattr(expected, name), rtol=0, atol=1e-10 * scale, equal_nan=True
            )


def test_subtracting_everything_leaves_the_empty_value() -> None:
    value = statistics_of(FEW)
    rest = value.subtract(value)
    assert rest.counts.tolist() == [0] * 5
    assert rest.means.isnan().all()
    assert rest.spread.tolist() == [0] * 5


def test_one_sample_that_is_left_has_no_spread() -> None:
    """Whatever rounding leaves of the sums: exactly zero."""
    features, labels = tensors(draw(Scenario((30, 20), 4), offset=1e3))
    for kept in range(10):
        alone = torch.arange(50) == kept
        parts = [
            ClassStatistics.from_features(features[rows], labels[rows], 2, per_class=True) for rows in (alone, ~alone)
        ]
        rest = parts[0].merge(parts[1]).subtract(parts[1])
        assert rest.counts.sum() == 1
        assert rest.spread.tolist() == [0.0, 0.0]
        assert not rest.class_within.any()
