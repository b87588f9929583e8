"""Folds of the samples: dealt evenly whatever the batches, exact without one of them, merged, saved, never in part."""

import copy
import datetime
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from laws.scenarios import assert_fields_close, assert_fields_equal
from tightframe import ClassStatistics, StatisticsAccumulator
from tightframe.errors import (
    DtypeError,
    EmptyBatchError,
    LabelError,
    MergeError,
    NonFiniteError,
    RangeError,
    ShapeError,
    StateError,
)
from tightframe.metrics import nc1
from tightframe.statistics import FoldedStatistics
from tightframe.statistics.folds import Dealer

Picture = Callable[[StatisticsAccumulator], object]
K, D, G = 5, 4, 3
DTYPES = [torch.float32, torch.float64]
FEW, MANY = 700, 20_000  # rows that all wait to be dealt out, and rows dealt out twice with some left


def rows(number: int = FEW, dtype: torch.dtype = torch.float64, *, far: float = 0.0, width: float = 1.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, K - 1, (number,), generator=generator)  # class K - 1 has no samples
    labels[:2] = torch.arange(2)
    means = torch.randn(K, D, generator=generator, dtype=torch.float64)
    noise = torch.randn(number, D, generator=generator, dtype=torch.float64)
    return (far + means[labels] + width * noise).to(dtype), labels


def fed(features: Tensor, labels: Tensor, size: int = 97, *, folds: int = G, validate: bool | None = None, **options):
    accumulator = StatisticsAccumulator(K, D, folds=folds, **options)
    for start in range(0, len(labels), size):
        accumulator.update(features[start : start + size], labels[start : start + size], validate=validate)
    return accumulator


def fold_by_fold(labels: Tensor, folds: int = G) -> Tensor:
    """The i-th sample of class k is in fold (i + k) mod G."""
    seen: dict[int, int] = {}
    fold = []
    for label in labels.tolist():
        fold.append((seen.get(label, 0) + label) % folds)
        seen[label] = seen.get(label, 0) + 1
    return torch.tensor(fold)


def assert_folds_close(value: FoldedStatistics, expected: FoldedStatistics, tolerance: float) -> None:
    assert value.folds == expected.folds
    for mine, theirs in zip((value.total, *value.parts), (expected.total, *expected.parts), strict=True):
        assert_fields_close(mine, theirs, tolerance)


def assert_folds_equal(value: FoldedStatistics, expected: FoldedStatistics) -> None:
    assert value.folds == expected.folds
    for mine, theirs in zip((value.total, *value.parts), (expected.total, *expected.parts), strict=True):
        assert_fields_equal(mine, theirs)


# ---------------------------------------------------------------------- who is in which fold


@pytest.mark.parametrize("folds", [2, 3, 16])
def test_samples_are_dealt_in_turn_whatever_the_batches(folds: int) -> None:
    _, labels = rows()
    expected = fold_by_fold(labels, folds)
    for size in (1, 7, 700):
        dealer, dealt = Dealer(folds), torch.zeros(K, dtype=torch.int64)
        found = []
        for batch in labels.split(size):
            mine = torch.empty_like(batch)
            for fold, where in dealer.split(batch, dealer.folds_of(batch, None), dealt):
                mine[where] = fold
            found.append(mine)
            dealt += torch.bincount(batch, minlength=K)
        assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize("folds", [2, 7, 16])
def test_every_class_is_spread_evenly(folds: int) -> None:
    counts = torch.stack([part.counts for part in fed(*rows(FEW), folds=folds).compute_folds().parts])
    assert (counts.amax(0) - counts.amin(0) <= 1).all()
    sizes = counts.sum(1)
    assert sizes.amax() - sizes.amin() <= K - 1


def test_small_classes_start_at_different_folds() -> None:
    labels = torch.arange(32)
    value = FoldedStatistics.from_features(torch.randn(32, D), labels, 32, folds=16)
    assert [int(part.num_samples) for part in value.parts] == [2] * 16


@pytest.mark.parametrize("number", [FEW, MANY])
@pytest.mark.parametrize("dtype", DTYPES)
def test_folds_hold_the_statistics_of_their_samples(dtype: torch.dtype, number: int) -> None:
    features, labels = rows(number, dtype)
    value = fed(features, labels, per_class=True).compute_folds()
    fold = fold_by_fold(labels)
    expected = [
        ClassStatistics.from_features(features[fold == g], labels[fold == g], K, per_class=True) for g in range(G)
    ]
    total = ClassStatistics.from_features(features, labels, K, per_class=True)
    tolerance = 1e-10 if dtype is torch.float64 else 1e-5
    assert_folds_close(value, FoldedStatistics(total, tuple(expected)), tolerance)
    assert_folds_close(
        FoldedStatistics.from_features(features, labels, K, folds=G, per_class=True),
        FoldedStatistics(total, tuple(expected)),
        1e-12,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("validate", [True, False])
def test_the_batches_do_not_matter_to_a_single_bit(validate: bool, dtype: torch.dtype) -> None:
    features, labels = rows(MANY, dtype)
    expected = fed(features, labels, MANY, validate=validate).compute_folds()
    for size in (63, 512, 9000):
        assert_folds_equal(fed(features, labels, size, validate=validate).compute_folds(), expected)


@pytest.mark.parametrize("place", [(0.0, 1.0), (1e4, 1e-3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_total_is_a_plain_accumulators(dtype: torch.dtype, place: tuple[float, float]) -> None:
    features, labels = rows(MANY, torch.float64, far=place[0], width=place[1])
    features = features.to(dtype)
    plain = StatisticsAccumulator(K, D)
    plain.update(features, labels)
    value = fed(features, labels, 512).compute_folds().total
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12 + 1e-15 * place[0] / place[1]
    assert_fields_close(value, plain.compute(), tolerance)
    torch.testing.assert_close(value.rounding, plain.compute().rounding)


# ---------------------------------------------------------------------- without a fold


@pytest.mark.parametrize("place", [(0.0, 1.0), (1e3, 1e-3), (1e4, 1e-3)])
@pytest.mark.parametrize("source", [fed, "memory"])
def test_without_a_fold_is_what_the_other_samples_give(source: Any, place: tuple[float, float]) -> None:
    features, labels = rows(FEW, far=place[0], width=place[1])
    folded = (
        FoldedStatistics.from_features(features, labels, K, folds=G)
        if source == "memory"
        else source(features, labels).compute_folds()
    )
    fold = fold_by_fold(labels)
    for g in range(G):
        left = ClassStatistics.from_features(features[fold != g], labels[fold != g], K)
        assert_fields_close(folded.without(g), left, 1e-12 + 1e-15 * place[0] / place[1])
        torch.testing.assert_close(nc1(folded.without(g)), nc1(left), rtol=1e-10, atol=0)
        assert_fields_close(
            folded.without(g), folded.total.subtract(folded.parts[g]), 1e-12 + 1e-14 * place[0] / place[1]
        )
    assert_fields_equal(folded.without(-1), folded.without(G - 1))


@pytest.mark.parametrize("size", [1e6, 1e9])
def test_without_the_fold_of_an_outlier_no_digits_are_lost(size: float) -> None:
    """Taking it away from the total would lose them all: of the outlier's square, the rest is less than rounding."""
    features, labels = rows(FEW)
    features[0] *= size
    fold = fold_by_fold(labels)
    folded = FoldedStatistics.from_features(features, labels, K, folds=G)
    left = fold != fold[0]
    expected = ClassStatistics.from_features(features[left], labels[left], K)
    assert_fields_close(folded.without(int(fold[0])), expected, 1e-12)


@pytest.mark.parametrize("number", [2, 5])
def test_merging_many_is_merging_one_by_one(number: int) -> None:
    values = [ClassStatistics.from_features(*rows(60, far=3, seed=seed), K, per_class=True) for seed in range(number)]
    values.append(ClassStatistics.empty(K, D, per_class=True))
    one_by_one = values[0]
    for value in values[1:]:
        one_by_one = one_by_one.merge(value)
    assert_fields_close(ClassStatistics.merge_all(values), one_by_one, 1e-12)
    assert_fields_equal(ClassStatistics.merge_all(values[:1]), values[0])
    with pytest.raises(MergeError, match="must have the same classes and features"):
        ClassStatistics.merge_all([*values, ClassStatistics.empty(K, D + 1, per_class=True)])


def test_merging_many_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [ClassStatistics.from_features(*rows(60, far=3, seed=seed), K, per_class=True) for seed in range(5)]
    expected = ClassStatistics.merge_all(values)
    monkeypatch.setattr("tightframe.statistics.scatter._BLOCK_ROWS", K)
    assert_fields_close(ClassStatistics.merge_all(values), expected, 1e-13)


def test_the_graph_is_kept() -> None:
    features, labels = rows(60)
    features.requires_grad_()
    nc1(FoldedStatistics.from_features(features, labels, K, folds=G).without(0)).backward()
    outside = fold_by_fold(labels) == 0
    assert not features.grad[outside].any()
    assert features.grad[~outside].all(1).any()


# ---------------------------------------------------------------------- values


def test_merging_adds_fold_by_fold() -> None:
    first, second, third = (FoldedStatistics.from_features(*rows(60, seed=s), K, folds=G) for s in range(3))
    both = first.merge(second)
    for g in range(G):
        assert_fields_equal(both.parts[g], first.parts[g].merge(second.parts[g]))
    assert_fields_close(both.total, ClassStatistics.merge_all(both.parts), 1e-13)
    assert_folds_close(both.merge(third), first.merge(second.merge(third)), 1e-12)
    assert_folds_close(both, second.merge(first), 1e-12)
    with pytest.raises(MergeError, match="same number of folds; got 3 and 4"):
        first.merge(FoldedStatistics.from_features(*rows(60), K, folds=4))


def test_selected_classes_are_those_of_every_fold() -> None:
    features, labels = rows(60)
    features, labels = torch.cat([features, features[:1]]), torch.cat([labels, torch.tensor([K - 1])])
    value = FoldedStatistics.from_features(features, labels, K, folds=G)
    assert value.undivided.tolist() == [K - 1]
    chosen = value.select(min_count=2)
    assert chosen.undivided.tolist() == []
    kept = labels != K - 1
    expected = FoldedStatistics.from_features(features[kept], labels[kept], K, folds=G)
    assert torch.equal(chosen.without(0).means, expected.without(0).means[: K - 1])
    assert all(part.within is None for part in (chosen.total, *chosen.parts))
    own = FoldedStatistics.from_features(features, labels, K, folds=G, per_class=True).select(min_count=2)
    torch.testing.assert_close(nc1(own.without(1)), nc1(expected.without(1)), rtol=1e-10, atol=0)


def test_values_move_together() -> None:
    value = fed(*rows(60)).compute_folds()
    assert_folds_equal(value.to("cpu"), value)


@pytest.mark.parametrize("folds", [-1, 0, 1])
def test_one_fold_is_none(folds: int) -> None:
    with pytest.raises(RangeError, match=f"folds must be at least 2; got {folds}"):
        StatisticsAccumulator(K, D, folds=folds)
    with pytest.raises(RangeError, match="folds must be at least 2"):
        FoldedStatistics.from_features(*rows(60), K, folds=folds)


# ---------------------------------------------------------------------- the accumulator


@pytest.mark.parametrize("before", [0, FEW, MANY])
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("label", LabelError),
        ("NaN", NonFiniteError),
        ("labels as floats", DtypeError),
        ("width", ShapeError),
        ("nothing", EmptyBatchError),
    ],
)
def test_a_bad_batch_changes_nothing(bad: str, error: type[Exception], before: int, picture: Picture) -> None:
    features, labels = rows(9000, torch.float32, seed=1)
    if bad == "label":
        labels[-1] = K
    elif bad == "NaN":
        features[-1, 0] = torch.nan
    elif bad == "labels as floats":
        labels = labels.float()
    elif bad == "width":
        features = features[:, 1:]
    else:
        features, labels = features[:0], labels[:0]
    accumulator = StatisticsAccumulator(K, D, folds=G)
    if before:
        accumulator.update(*rows(before, torch.float32))
    before_it = picture(accumulator)
    with pytest.raises(error):
        accumulator.update(features, labels)
    assert picture(accumulator) == before_it


@pytest.mark.parametrize("size", [50, 9000])
def test_an_unvalidated_bad_batch_is_left_out_and_reported(size: int) -> None:
    features, labels = rows(MANY, torch.float32)
    accumulator = fed(features, labels, 512, validate=False)
    bad, targets = rows(size, torch.float32, seed=1)
    bad[3] = torch.inf
    accumulator.update(bad, targets, validate=False)
    accumulator.update(features, labels, validate=False)
    for report in (accumulator.compute_folds, accumulator.state_dict, lambda: accumulator.update(features, labels)):
        with pytest.raises(NonFiniteError, match=r"1 unvalidated batch\(es\) were left out"):
            report()
    accumulator.intake.rejected.zero_()  # or else nothing could be read
    expected = fed(torch.cat([features, features]), torch.cat([labels, labels]))
    assert_fields_close(accumulator.compute(), expected.compute(), 1e-5)


@pytest.mark.parametrize("validate", [True, False])
def test_ignored_rows_are_as_if_absent(validate: bool) -> None:
    features, labels = rows(MANY)
    kept = torch.arange(MANY) % 7 != 0
    marked = torch.where(kept, labels, -100)
    features = torch.where(kept[:, None], features, torch.nan)
    value = fed(features, marked, ignore_index=-100, validate=validate)
    assert_fields_close(value.compute(), fed(features[kept], labels[kept]).compute(), 1e-10)
    if validate:
        assert_folds_close(value.compute_folds(), fed(features[kept], labels[kept]).compute_folds(), 1e-10)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("ignored", [False, True])
def test_the_rows_of_a_sample_stay_together(ignored: bool, validate: bool) -> None:
    """Images of 12 pixels in batches of 5 and of 3: each image is in one fold, and the folds have them in turn."""
    features, labels = rows(15 * 12)
    if ignored:
        labels[::5] = K - 1
    expected = []
    for fold in range(G):
        mine = (torch.arange(15 * 12) // 12) % G == fold
        mine &= ~(ignored & (labels == K - 1))
        expected.append(ClassStatistics.from_features(features[mine], labels[mine], K))
    maps, targets = features.reshape(15, 12, D).mT, labels.reshape(15, 12)
    for size in (5, 3):
        accumulator = StatisticsAccumulator(K, D, folds=G, class_dim=1, ignore_index=K - 1 if ignored else None)
        for x, y in zip(maps.split(size), targets.split(size), strict=True):
            accumulator.update(x, y, validate=validate)
        value = accumulator.compute_folds()
        assert_folds_close(value, FoldedStatistics(value.total, tuple(expected)), 1e-12)
    options = {"class_dim": 1, "ignore_index": K - 1 if ignored else None}
    whole = FoldedStatistics.from_features(maps, targets, K, folds=G, **options)
    assert_folds_close(whole, FoldedStatistics(whole.total, tuple(expected)), 1e-12)


@pytest.mark.parametrize("validate", [True, False])
def test_numbered_samples_stay_together_wherever_they_come(validate: bool) -> None:
    features, labels = rows(600)
    samples = torch.randint(-5, 40, (600,))
    accumulator = StatisticsAccumulator(K, D, folds=G)
    for place in torch.randperm(600).split(70):
        accumulator.update(features[place], labels[place], samples=samples[place], validate=validate)
    mine = [samples % G == fold for fold in range(G)]
    expected = [ClassStatistics.from_features(features[each], labels[each], K) for each in mine]
    value = accumulator.compute_folds()
    assert_folds_close(value, FoldedStatistics(value.total, tuple(expected)), 1e-12)
    whole = FoldedStatistics.from_features(features, labels, K, folds=G, samples=samples)
    assert_folds_close(whole, value, 1e-12)


def test_samples_of_another_kind_are_named_and_change_nothing(picture: Picture) -> None:
    features, labels = rows(60)
    accumulator = fed(features, labels)
    before = picture(accumulator)
    with pytest.raises(DtypeError, match=r"samples must be integers.*got torch\.float32"):
        accumulator.update(features, labels, samples=labels.float())
    with pytest.raises(ShapeError, match=r"labels' shape \(60,\).*got \(59,\)"):
        accumulator.update(features, labels, samples=labels[1:])
    assert picture(accumulator) == before


def test_a_class_in_one_fold_leaves_the_others_alone() -> None:
    """Its samples stay; the scatter that it shares with others of its fold is told apart by trace, or exactly."""
    features, labels = rows(300)
    features, labels = torch.cat([features, 3 * features[:9] + 7]), torch.cat([labels, torch.full((9,), K - 1)])
    samples = torch.cat([torch.arange(300), torch.full((9,), 1)])
    for per_class in (True, False):
        value = FoldedStatistics.from_features(features, labels, K, folds=G, samples=samples, per_class=per_class)
        assert value.undivided.tolist() == [K - 1]
        for fold in range(G):
            kept = (samples % G != fold) | (labels == K - 1)
            expected = ClassStatistics.from_features(features[kept], labels[kept], K, per_class=per_class)
            left = value.without(fold)
            if per_class or fold != 1:
                assert_fields_close(left, expected, 1e-12)
            assert torch.equal(left.counts, expected.counts)
            torch.testing.assert_close(left.spread, expected.spread, rtol=1e-12, atol=0)
            torch.testing.assert_close(left.means, expected.means, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(left.within.trace(), expected.within.trace(), rtol=1e-12, atol=0)


def test_folds_of_means_and_spreads_alone() -> None:
    features, labels = rows(MANY, torch.float32)
    full, lean = fed(features, labels), fed(features, labels, fold_scatter=False)
    assert_fields_close(lean.compute(), full.compute(), 1e-5)
    value, expected = lean.compute_folds(), full.compute_folds()
    for mine, theirs in zip(value.parts, expected.parts, strict=True):
        assert mine.within is None
        torch.testing.assert_close(mine.spread, theirs.spread, rtol=1e-6, atol=0)
        torch.testing.assert_close(mine.means, theirs.means, rtol=1e-6, atol=1e-6, equal_nan=True)
    second = fed(*rows(MANY, torch.float32, seed=1), fold_scatter=False)
    merged = value.total.merge(second.compute())
    lean.merge(second)
    assert_fields_close(lean.compute(), merged, 1e-11)


def test_reading_does_not_stop_it() -> None:
    features, labels = rows(MANY, torch.float32)
    accumulator = StatisticsAccumulator(K, D, folds=G)
    for x, y in zip(features.split(3000), labels.split(3000), strict=True):
        accumulator.update(x, y)
        first = accumulator.compute_folds()
        assert_folds_equal(accumulator.compute_folds(), first)
    assert_folds_close(first, fed(features, labels).compute_folds(), 1e-5)


def test_float64_features_after_float32_ones() -> None:
    features, labels = rows(MANY)
    accumulator = StatisticsAccumulator(K, D, folds=G)
    accumulator.update(features[:9000].float(), labels[:9000])
    accumulator.update(features[9000:], labels[9000:])
    rounded = torch.cat([features[:9000].float().double(), features[9000:]])
    assert_folds_close(accumulator.compute_folds(), fed(rounded, labels).compute_folds(), 1e-5)


def test_reset_forgets_everything(picture: Picture) -> None:
    accumulator = fed(*rows(MANY))
    accumulator.compute_folds()
    accumulator.reset()
    assert picture(accumulator) == picture(StatisticsAccumulator(K, D, folds=G))
    assert int(accumulator.compute_folds().total.num_samples) == 0


@pytest.mark.parametrize("after", [0, FEW, 9000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resuming_from_a_saved_state_is_exact(dtype: torch.dtype, after: int) -> None:
    features, labels = rows(MANY, dtype)
    accumulator = StatisticsAccumulator(K, D, folds=G, per_class=True)
    if after:
        accumulator.update(features[:after], labels[:after])
    file = io.BytesIO()
    torch.save(accumulator.state_dict(), file)
    file.seek(0)
    resumed = fed(*rows(300, torch.float32, seed=3), per_class=True)  # which forgets what it had
    resumed.load_state_dict(torch.load(file))
    for each in (accumulator, resumed, copy.deepcopy(resumed)):
        each.update(features[after:], labels[after:])
        assert_folds_equal(each.compute_folds(), fed(features, labels, MANY, per_class=True).compute_folds())


def test_a_state_of_other_folds_is_refused() -> None:
    saved = fed(*rows()).state_dict()
    with pytest.raises(StateError, match="the same num_classes, num_features, covariance, per_class and folds"):
        StatisticsAccumulator(K, D, folds=G + 1).load_state_dict(saved)
    with pytest.raises(StateError, match="counts"):
        StatisticsAccumulator(K + 1, D, folds=G).load_state_dict(saved)


@pytest.mark.parametrize("number", [FEW, MANY])
def test_merged_accumulators_hold_both_samples(number: int) -> None:
    first, second = fed(*rows(number)), fed(*rows(number, seed=1))
    expected = first.compute_folds().merge(second.compute_folds())
    first.merge(second)
    assert_folds_close(first.compute_folds(), expected, 1e-11)
    first.update(*rows(number, seed=2))
    assert int(first.compute_folds().total.num_samples) == 3 * number
    with pytest.raises(MergeError, match="same folds to be merged; got 3 and 4"):
        first.merge(fed(*rows(), folds=4))


@pytest.mark.parametrize("covariance", [True, False])
def test_memory_is_told(covariance: bool) -> None:
    """At least the state and the value, and not twice as much."""
    classes, dim, folds = 50, 300, 8
    accumulator = StatisticsAccumulator(classes, dim, folds=folds, covariance=covariance)
    accumulator.update(torch.randn(600, dim), torch.arange(600) % classes)
    value = accumulator.compute_folds()
    tensors = [*accumulator.buffers()]
    for statistics in (value.total, *value.parts):
        tensors += [each for each in vars(statistics).values() if isinstance(each, Tensor)]
    held = sum(tensor.nbytes for tensor in tensors)
    told = StatisticsAccumulator.memory(classes, dim, folds=folds, covariance=covariance)
    assert held <= told <= 2 * held


# ---------------------------------------------------------------------- processes


def work(rank: int, folder: str) -> None:
    """Sum with the other process and write down what came out."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    meeting, timeout = f"file://{folder}/meeting", datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
    mine = rows(300, seed=rank)
    value = FoldedStatistics.from_features(*mine, K, folds=G)
    accumulator = fed(*mine)
    accumulator.update(torch.ones(1, D), torch.tensor([K - 1]))  # one sample of the last class in each
    everything = {"values": value.all_reduce(), "accumulators": accumulator.compute_folds_all()}
    fields = {k: [s._tensors() for s in (v.total, *v.parts)] for k, v in everything.items()}
    failures = []
    for call in (
        FoldedStatistics.from_features(*mine, K, folds=G + rank).all_reduce,
        lambda: unvalidated(rank).compute_folds_all(),
    ):
        try:
            call()
        except (MergeError, LabelError) as error:
            failures.append(f"{type(error).__name__}: {error}")
    torch.save((fields, failures), Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def unvalidated(label: int) -> StatisticsAccumulator:
    accumulator = StatisticsAccumulator(1, D, folds=G)
    accumulator.update(torch.ones(1, D), torch.tensor([label]), validate=False)
    return accumulator


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("folds")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["laws.scenarios", "tightframe.metrics", "torch"])  # so each starts with them loaded
    processes = [context.Process(target=work, args=(rank, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def as_value(fields: list[dict[str, Tensor]]) -> FoldedStatistics:
    total, *parts = (ClassStatistics(**each) for each in fields)
    return FoldedStatistics(total, tuple(parts))


@pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
class TestProcesses:
    def test_values_of_all_processes(self, outcomes: list[Any]) -> None:
        first, second = (as_value(fields["values"]) for fields, _ in outcomes)
        assert_folds_equal(first, second)
        alone = [FoldedStatistics.from_features(*rows(300, seed=rank), K, folds=G) for rank in range(2)]
        assert_folds_close(first, alone[0].merge(alone[1]), 1e-12)

    def test_processes_start_at_different_folds(self, outcomes: list[Any]) -> None:
        first, second = (as_value(fields["accumulators"]) for fields, _ in outcomes)
        assert_folds_equal(first, second)
        assert first.total.counts.sum() == 602
        assert sorted(int(part.counts[K - 1]) for part in first.parts) == [0, 1, 1]

    def test_failures_are_told_in_both(self, outcomes: list[Any]) -> None:
        assert all("folds 3 here, 3 to 4" in failures[0] for _, failures in outcomes[:1])
        assert "folds 4 here, 3 to 4" in outcomes[1][1][0]
        assert "another process failed before it had folded statistics" in outcomes[0][1][1]
        assert outcomes[1][1][1].startswith("LabelError")
