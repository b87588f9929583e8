"""Moments of several layers depend on the set of samples only, lose no digits far from the origin, refuse nonsense."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from similarity_oracle import cka_by_grams
from tightframe.errors import (
    ChoiceError,
    DtypeError,
    EmptyBatchError,
    MergeError,
    NonFiniteError,
    RangeError,
    ShapeError,
    StateError,
    TightframeError,
)
from tightframe.similarity import cka
from tightframe.statistics import ClassStatistics, CrossAccumulator, CrossMoments, FoldedCrossMoments

F64 = torch.float64
WIDTHS = {"a": 3, "b": 5, "c": 2}


def layers(rows: int = 60, seed: int = 0, dtype: torch.dtype = F64, offset: float = 0.0) -> dict[str, Tensor]:
    """Related features of three widths, with skewed sizes so that third moments count."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, 3, generator=generator, dtype=F64).exp()
    b = a @ torch.randn(3, 5, generator=generator, dtype=F64) + torch.randn(rows, 5, generator=generator, dtype=F64)
    c = b[:, :2].square()
    return {name: (each + offset).to(dtype) for name, each in zip("abc", (a, b, c), strict=True)}


def part(features: Mapping[str, Tensor], rows: Any) -> dict[str, Tensor]:
    return {name: each[rows] for name, each in features.items()}


def moments_by_loops(features: Mapping[str, Tensor]) -> dict[str, Any]:
    """Every field, one sample at a time."""
    rows = {name: each.to(F64) for name, each in features.items()}
    means = [each.mean(0) for each in rows.values()]
    L = len(rows)
    fields: dict[str, Any] = {
        "means": means,
        "spread": torch.zeros(L, dtype=F64),
        "squares": torch.zeros(L, L, dtype=F64),
        "products": {},
        "weighted": [torch.zeros(L, len(mean), dtype=F64) for mean in means],
    }
    pairs = list(itertools.combinations_with_replacement(range(L), 2))
    for a, b in pairs:
        fields["products"][a, b] = torch.zeros(len(means[a]), len(means[b]), dtype=F64)
    for sample in zip(*rows.values(), strict=True):
        z = [x - mean for x, mean in zip(sample, means, strict=True)]
        for a in range(L):
            fields["spread"][a] += z[a] @ z[a]
            for b in range(L):
                fields["squares"][a, b] += (z[a] @ z[a]) * (z[b] @ z[b])
                fields["weighted"][b][a] += (z[a] @ z[a]) * z[b]
        for a, b in pairs:
            fields["products"][a, b] += torch.outer(z[a], z[b])
    return fields


def assert_close(value: CrossMoments, fields: Mapping[str, Any], rtol: float = 1e-10) -> None:
    for name, expected in fields.items():
        got = getattr(value, name)
        if isinstance(expected, dict):
            assert got.keys() == expected.keys()
            got, expected = [got[key] for key in expected], list(expected.values())
        for one, other in zip(got, expected, strict=True):
            scale = float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * scale)


def fields_of(value: CrossMoments) -> dict[str, Any]:
    return {name: getattr(value, name) for name in ("means", "spread", "squares", "weighted")} | {
        "products": dict(value.products)
    }


# ---------------------------------------------------------------------- values


def test_moments_of_features_are_those_of_loops() -> None:
    features = layers()
    value = CrossMoments.from_features(features)
    assert int(value.count) == 60 and value.names == ("a", "b", "c") and value.widths == (3, 5, 2)
    assert_close(value, moments_by_loops(features))


@settings(max_examples=25)
@given(order=st.permutations(range(40)), cuts=st.sets(st.integers(0, 40), max_size=6), data=st.data())
def test_any_split_any_order_any_tree(order: list[int], cuts: set[int], data: st.DataObject) -> None:
    features = layers(40, offset=1e3)
    parts = [CrossMoments.empty(WIDTHS)]
    for start, stop in itertools.pairwise([0, *sorted(cuts), 40]):
        if stop > start:
            parts.append(CrossMoments.from_features(part(features, torch.tensor(order[start:stop]))))
    while len(parts) > 1:
        left = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(left.merge(parts.pop(data.draw(st.integers(0, len(parts) - 1)))))
    assert_close(parts[0], moments_by_loops(features), 1e-9)


def test_empty_is_the_identity_and_nothing_merged_is_nothing() -> None:
    nothing, value = CrossMoments.empty(WIDTHS), CrossMoments.from_features(layers())
    for merged in (nothing.merge(value), value.merge(nothing)):
        assert_close(merged, fields_of(value), 1e-15)
        assert int(merged.count) == 60
    both = nothing.merge(nothing)
    assert int(both.count) == 0 and all(bool(mean.isnan().all()) for mean in both.means)
    assert bool(cka(both).isnan().all())


def test_merging_changes_neither_value() -> None:
    features = layers()
    values = [CrossMoments.from_features(part(features, rows)) for rows in (slice(0, 20), slice(20, 60))]
    before = [[each.clone() for each in (*value.means, *value.products.values(), value.squares)] for value in values]
    values[0].merge(values[1]).without(values[0])
    for value, old in zip(values, before, strict=True):
        for one, other in zip((*value.means, *value.products.values(), value.squares), old, strict=True):
            assert torch.equal(one, other)


def test_without_a_part_are_the_other_samples() -> None:
    features = layers(offset=50.0)
    whole = CrossMoments.from_features(features)
    rest = whole.without(CrossMoments.from_features(part(features, slice(0, 25))))
    assert_close(rest, moments_by_loops(part(features, slice(25, 60))), 1e-9)
    assert int(rest.count) == 35
    with pytest.raises(MergeError, match="can't remove 60 samples from 35"):
        rest.without(whole)


def test_chosen_pairs_are_exact_and_others_undefined() -> None:
    features, pairs = layers(), [("c", "a"), ("b", "a")]
    parts = [CrossMoments.from_features(part(features, rows), pairs=pairs) for rows in (slice(0, 9), slice(9, 60))]
    value = parts[0].merge(parts[1])
    assert sorted(value.products) == [(0, 0), (0, 1), (0, 2), (1, 1), (2, 2)]
    expected = cka_by_grams(features)
    expected[1, 2] = expected[2, 1] = torch.nan
    torch.testing.assert_close(cka(value), expected, rtol=1e-10, atol=1e-12, equal_nan=True)


# ---------------------------------------------------------------------- accumulators


def accumulated(features: Mapping[str, Tensor], batch: int, **options: Any) -> CrossAccumulator:
    accumulator = CrossAccumulator({name: each.shape[-1] for name, each in features.items()}, **options)
    for start in range(0, len(features["a"]), batch):
        accumulator.update(part(features, slice(start, start + batch)))
    return accumulator


@pytest.mark.parametrize("batch", [1, 37, 1024, 1500, 9000])
@pytest.mark.parametrize("folds", [None, 3])
def test_batches_of_any_size_give_the_moments_of_all_samples(batch: int, folds: int | None) -> None:
    features = layers(2300 if batch > 1 else 40, offset=1e3)
    order = features["c"][:, 0].argsort()  # sizes grow, so the centre has to follow
    features = part(features, order)
    value = accumulated(features, batch, folds=folds).compute()
    assert_close(value, fields_of(CrossMoments.from_features(features)), 1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float32_features_far_from_the_origin_lose_no_digits(offset: float) -> None:
    """Against the oracle in float64 of the same float32 features: what is lost is float32 products of deviations."""
    features = layers(500, dtype=torch.float32, offset=offset)
    value = accumulated(features, 100).compute()
    torch.testing.assert_close(cka(value), cka_by_grams(features), rtol=0, atol=5e-6)
    exact = CrossMoments.from_features(features)
    torch.testing.assert_close(cka(exact), cka_by_grams(features), rtol=0, atol=1e-10)
    torch.testing.assert_close(value.squares, exact.squares, rtol=1e-9, atol=0)  # sums of sizes are in float64


def test_a_first_batch_far_from_the_others_costs_no_digits() -> None:
    features = layers(5000, dtype=torch.float32)
    for each in features.values():
        each[:8] += 1e3  # the first centre, if batches are alone in a step
    accumulator = CrossAccumulator(WIDTHS)
    accumulator.update(part(features, slice(0, 8)))
    accumulator.compute()  # ends the step
    accumulator.update(part(features, slice(8, 5000)))
    value, exact = accumulator.compute(), CrossMoments.from_features(features)
    for pair, product in value.products.items():
        torch.testing.assert_close(product, exact.products[pair], rtol=0, atol=1e-6 * float(product.abs().max()))
    rest = value.without(CrossMoments.from_features(part(features, slice(0, 8))))
    others = CrossMoments.from_features(part(features, slice(8, 5000)))
    torch.testing.assert_close(cka(rest), cka(others), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12, 1e30])
def test_float32_features_of_any_size(size: float) -> None:
    features = {name: (each * size).float() for name, each in layers(200).items()}
    expected = cka(CrossMoments.from_features(layers(200)))
    torch.testing.assert_close(cka(accumulated(features, 50).compute()), expected, rtol=0, atol=1e-5)


def test_an_accumulator_goes_on_after_its_values_and_leaves_them_as_they_are() -> None:
    features = layers(300)
    accumulator = CrossAccumulator(WIDTHS)
    accumulator.update(part(features, slice(0, 100)))
    early = accumulator.compute()
    again = accumulator.compute()
    accumulator.update(part(features, slice(100, 300)))
    assert_close(accumulator.compute(), fields_of(CrossMoments.from_features(features)))
    for value in (early, again):
        assert_close(value, fields_of(CrossMoments.from_features(part(features, slice(0, 100)))))
    accumulator.reset()
    assert int(accumulator.compute().count) == 0


def test_waiting_rows_are_copies() -> None:
    features, accumulator = layers(50), CrossAccumulator(WIDTHS)
    given_rows = part(features, slice(None))
    accumulator.update({name: each.clone() for name, each in given_rows.items()})
    expected = accumulator.compute()
    accumulator.reset()
    accumulator.update(given_rows)
    for each in given_rows.values():
        each.zero_()
    assert_close(accumulator.compute(), fields_of(expected), 1e-15)


def test_folds_share_the_samples_and_samples_stay_whole() -> None:
    features = {name: each.reshape(20, 3, -1) for name, each in layers(60).items()}
    folded = accumulated(features, 7, folds=4).compute_folds()
    assert [int(part.count) for part in folded.parts] == [15] * 4 and not folded.fixed
    for fold in range(4):
        rows = torch.arange(20) % 4 == fold
        expected = CrossMoments.from_features(part(features, rows))
        assert_close(folded.parts[fold], fields_of(expected))
    accumulator = CrossAccumulator(WIDTHS, folds=2)
    accumulator.update(layers(6), samples=torch.tensor([0, 0, 0, 0, 1, 1]))
    assert [int(part.count) for part in accumulator.compute_folds().parts] == [4, 2]
    accumulator.reset()
    accumulator.update(layers(6), samples=torch.zeros(6, dtype=torch.int64))
    assert accumulator.compute_folds().fixed


def test_numpy_half_precision_and_shapes_with_positions() -> None:
    features = layers(40, dtype=torch.float16)
    expected = CrossMoments.from_features({name: each.double() for name, each in features.items()})
    accumulator = CrossAccumulator(WIDTHS)
    accumulator.update({name: each.reshape(10, 4, -1).numpy() for name, each in features.items()})
    value = accumulator.compute()
    torch.testing.assert_close(cka(value), cka(expected), rtol=0, atol=1e-5)
    assert value.epsilons == (torch.finfo(torch.float16).eps,) * 3
    exact = CrossMoments.from_features({name: np.asarray(each) for name, each in features.items()})
    assert_close(exact, fields_of(expected))


# ---------------------------------------------------------------------- errors


def test_memory_is_what_is_stated() -> None:
    assert CrossAccumulator.memory([768] * 12) == 8 * 78 * 768**2
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "similarity.md").read_text(encoding="utf-8")
    assert f"{CrossAccumulator.memory([768] * 12) / 1e6:.0f} MB for 12 layers of 768 features" in guide
    assert f"{CrossAccumulator.memory([4096] * 33) / 1e9:.0f} GB for 33 layers of 4,096" in guide
    assert CrossAccumulator.memory([4096] * 33, pairs=[(0, k) for k in range(1, 33)]) == 8 * 65 * 4096**2
    assert CrossAccumulator.memory([3, 5], folds=4) == 8 * (9 + 15 + 25) * 7
    value = CrossMoments.from_features(layers())
    assert sum(each.nbytes for each in value.products.values()) == CrossAccumulator.memory([3, 5, 2])


def add(**changed: Tensor) -> None:
    CrossAccumulator(WIDTHS).update({**layers(), **changed})


def of(**changed: Tensor) -> None:
    CrossMoments.from_features({**layers(), **changed})


def merge(widths: Mapping[str, int], **options: Any) -> None:
    CrossMoments.empty(WIDTHS).merge(CrossMoments.empty(widths, **options))


B = layers()["b"]
WRONG: dict[str, tuple[type[TightframeError], str, Callable[[], Any]]] = {
    "one layer": (RangeError, "at least two layers; got 1", lambda: CrossAccumulator({"a": 3})),
    "a fold": (RangeError, "folds must be at least 2", lambda: CrossAccumulator(WIDTHS, folds=1)),
    "no folds": (RangeError, "folds must be at least 2", lambda: CrossAccumulator(WIDTHS).compute_folds()),
    "a budget": (
        RangeError,
        r"3 pairs of layers of up to 5 features needs 0\.00 GB, but the budget is 0\.00 GB\. Compare fewer layers",
        lambda: CrossAccumulator(WIDTHS, max_bytes=8 * 60),
    ),
    "free memory": (
        RangeError,
        "needs 960.0 GB of memory; .* are free",
        lambda: CrossMoments.empty({"a": 2 * 10**5, "b": 2 * 10**5}),
    ),
    "a name": (
        ChoiceError,
        "layer must be one of a, b, c; got 'd'",
        lambda: CrossMoments.empty(WIDTHS, pairs=[("a", "d")]),
    ),
    "a missing layer": (ShapeError, "b, c is missing", lambda: CrossAccumulator(WIDTHS).update({"a": layers()["a"]})),
    "a width": (ShapeError, "'a' must have 3 dimensions; got 5", lambda: add(a=B)),
    "rows": (ShapeError, "'a' has 60 rows, 'b' has 59", lambda: of(b=B[1:])),
    "integers": (DtypeError, "'b' must be floating point", lambda: of(b=B.long())),
    "a vector": (ShapeError, "'b' must have at least two dimensions", lambda: of(b=B[:, 0])),
    "no rows": (EmptyBatchError, "'a' have shape", lambda: of(**part(layers(), slice(0, 0)))),
    "samples": (
        DtypeError,
        "samples must be integers",
        lambda: CrossAccumulator(WIDTHS, folds=2).update(layers(), samples=torch.rand(60)),
    ),
    "other layers": (MergeError, "the same names", lambda: merge({"x": 3, "b": 5, "c": 2})),
    "other widths": (MergeError, "the same widths", lambda: merge({**WIDTHS, "c": 3})),
    "other pairs": (MergeError, "the same pairs", lambda: merge(WIDTHS, pairs=[])),
    "one part": (
        RangeError,
        "folds must be at least 2",
        lambda: FoldedCrossMoments.from_parts([CrossMoments.empty(WIDTHS)]),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_uses_say_what_to_do(what: str) -> None:
    error, message, call = WRONG[what]
    with pytest.raises(error, match=message):
        call()


def test_a_wrong_value_leaves_the_state_as_it_was() -> None:
    features, accumulator = layers(), CrossAccumulator(WIDTHS)
    accumulator.update(features)
    wrong = {**features, "c": torch.full_like(features["c"], torch.nan)}
    with pytest.raises(NonFiniteError, match="features of 'c' must be finite"):
        accumulator.update(wrong)
    assert_close(accumulator.compute(), fields_of(CrossMoments.from_features(features)))
    accumulator.update(wrong, validate=False)
    with pytest.raises(NonFiniteError, match="those of c are not"):
        accumulator.compute()


# ---------------------------------------------------------------------- files


def assert_equal(one: CrossMoments, other: CrossMoments) -> None:
    for name in ("names", "epsilons", "product_epsilon"):
        assert getattr(one, name) == getattr(other, name)
    assert one.count.dtype is other.count.dtype and torch.equal(one.count, other.count)
    for name, expected in fields_of(other).items():
        found = getattr(one, name)
        assert len(found) == len(expected)
        for place in expected if isinstance(expected, dict) else range(len(expected)):
            assert torch.equal(found[place].nan_to_num(-1), expected[place].nan_to_num(-1))


def test_a_file_holds_the_whole_value_and_parts_merge(tmp_path: Path) -> None:
    features, path = layers(dtype=torch.float32), tmp_path / "part.safetensors"
    for pairs in (None, [("a", "c")]):
        halves = [CrossMoments.from_features(part(features, rows), pairs=pairs) for rows in (slice(20), slice(20, 60))]
        loaded = []
        for half in (*halves, CrossMoments.empty(WIDTHS, pairs=pairs)):
            half.save(path, {"epoch": "3"})
            loaded.append(CrossMoments.load(str(path)))
            assert_equal(loaded[-1], half)
        assert_equal(loaded[0].merge(loaded[1]), halves[0].merge(halves[1]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "value.safetensors"
    value = CrossMoments.from_features(layers())
    ClassStatistics.empty(2, 3).save(path)
    with pytest.raises(StateError, match=r"must be a file of CrossMoments.save\(\); got format 'tightframe.ClassSt"):
        CrossMoments.load(path)
    for change in ({"spread": value.spread[:2]}, {"spread": value.spread.float()}, {"products": {}}):
        dataclasses.replace(value, **change).save(path)
        with pytest.raises(StateError, match="as cross moments"):
            CrossMoments.load(path)
    with pytest.raises(StateError, match="doesn't exist"):
        CrossMoments.load(tmp_path / "missing")
