"""Groups of samples: dealt out evenly whatever the batches, exact without one of them, merged, saved, never in part."""

import copy
import datetime
import io
import os
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
from tightframe.statistics import GroupedAccumulator, GroupedStatistics
from tightframe.statistics.groups import deal

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


def fed(features: Tensor, labels: Tensor, size: int = 97, *, groups: int = G, validate: bool | None = None, **options):
    accumulator = GroupedAccumulator(K, D, groups=groups, **options)
    for start in range(0, len(labels), size):
        accumulator.update(features[start : start + size], labels[start : start + size], validate=validate)
    return accumulator


def group_by_group(labels: Tensor, groups: int = G) -> Tensor:
    """The i-th sample of class k is in group (i + k) mod G."""
    seen: dict[int, int] = {}
    group = []
    for label in labels.tolist():
        group.append((seen.get(label, 0) + label) % groups)
        seen[label] = seen.get(label, 0) + 1
    return torch.tensor(group)


def assert_groups_close(value: GroupedStatistics, expected: GroupedStatistics, tolerance: float) -> None:
    assert value.groups == expected.groups
    for mine, theirs in zip((value.total, *value.parts), (expected.total, *expected.parts), strict=True):
        assert_fields_close(mine, theirs, tolerance)


def assert_groups_equal(value: GroupedStatistics, expected: GroupedStatistics) -> None:
    assert value.groups == expected.groups
    for mine, theirs in zip((value.total, *value.parts), (expected.total, *expected.parts), strict=True):
        assert_fields_equal(mine, theirs)


def state(accumulator: GroupedAccumulator) -> dict[str, Any]:
    """Every buffer and extra state, as dtype, shape and bytes."""
    tensors = dict(accumulator.named_buffers())
    tensors |= {f"extra {g}": member.get_extra_state() for g, member in enumerate(accumulator.members)}
    return {name: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()}


# ---------------------------------------------------------------------- who is in which group


@pytest.mark.parametrize("groups", [2, 3, 16])
def test_samples_are_dealt_in_turn_whatever_the_batches(groups: int) -> None:
    _, labels = rows()
    expected = group_by_group(labels, groups)
    for size in (1, 7, 700):
        dealt = torch.zeros(K, dtype=torch.int64)
        group = []
        for batch in labels.split(size):
            group.append(deal(batch, dealt, groups))
            dealt += torch.bincount(batch, minlength=K)
        assert torch.equal(torch.cat(group), expected)


@pytest.mark.parametrize("groups", [2, 7, 16])
def test_every_class_is_spread_evenly(groups: int) -> None:
    counts = torch.stack([part.counts for part in fed(*rows(FEW), groups=groups).compute().parts])
    assert (counts.amax(0) - counts.amin(0) <= 1).all()
    sizes = counts.sum(1)
    assert sizes.amax() - sizes.amin() <= K - 1


def test_small_classes_start_at_different_groups() -> None:
    labels = torch.arange(32)
    value = GroupedStatistics.from_features(torch.randn(32, D), labels, 32, groups=16)
    assert [int(part.num_samples) for part in value.parts] == [2] * 16


@pytest.mark.parametrize("number", [FEW, MANY])
@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_hold_the_statistics_of_their_samples(dtype: torch.dtype, number: int) -> None:
    features, labels = rows(number, dtype)
    value = fed(features, labels, per_class=True).compute()
    group = group_by_group(labels)
    expected = [
        ClassStatistics.from_features(features[group == g], labels[group == g], K, per_class=True) for g in range(G)
    ]
    total = ClassStatistics.from_features(features, labels, K, per_class=True)
    tolerance = 1e-10 if dtype is torch.float64 else 1e-5
    assert_groups_close(value, GroupedStatistics(total, tuple(expected)), tolerance)
    assert_groups_close(
        GroupedStatistics.from_features(features, labels, K, groups=G, per_class=True),
        GroupedStatistics(total, tuple(expected)),
        1e-12,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("validate", [True, False])
def test_the_batches_do_not_matter_to_a_single_bit(validate: bool, dtype: torch.dtype) -> None:
    features, labels = rows(MANY, dtype)
    expected = fed(features, labels, MANY).compute()
    for size in (63, 512, 9000):
        assert_groups_equal(fed(features, labels, size, validate=validate).compute(), expected)


@pytest.mark.parametrize("place", [(0.0, 1.0), (1e4, 1e-3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_total_is_a_plain_accumulators(dtype: torch.dtype, place: tuple[float, float]) -> None:
    features, labels = rows(MANY, torch.float64, far=place[0], width=place[1])
    features = features.to(dtype)
    plain = StatisticsAccumulator(K, D)
    plain.update(features, labels)
    value = fed(features, labels, 512).compute().total
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12 + 1e-15 * place[0] / place[1]
    assert_fields_close(value, plain.compute(), tolerance)
    assert value.rounding == pytest.approx(plain.compute().rounding)


# ---------------------------------------------------------------------- without a group


@pytest.mark.parametrize("place", [(0.0, 1.0), (1e3, 1e-3), (1e4, 1e-3)])
@pytest.mark.parametrize("source", [fed, "memory"])
def test_without_a_group_is_what_the_other_samples_give(source: Any, place: tuple[float, float]) -> None:
    features, labels = rows(FEW, far=place[0], width=place[1])
    grouped = (
        GroupedStatistics.from_features(features, labels, K, groups=G)
        if source == "memory"
        else source(features, labels).compute()
    )
    group = group_by_group(labels)
    for g in range(G):
        left = ClassStatistics.from_features(features[group != g], labels[group != g], K)
        assert_fields_close(grouped.without(g), left, 1e-12 + 1e-15 * place[0] / place[1])
        torch.testing.assert_close(nc1(grouped.without(g)), nc1(left), rtol=1e-10, atol=0)
        assert_fields_close(
            grouped.without(g), grouped.total.subtract(grouped.parts[g]), 1e-12 + 1e-14 * place[0] / place[1]
        )
    assert_fields_equal(grouped.without(-1), grouped.without(G - 1))


@pytest.mark.parametrize("size", [1e6, 1e9])
def test_without_the_group_of_an_outlier_no_digits_are_lost(size: float) -> None:
    """Taking it away from the total would lose them all: of the outlier's square, the rest is less than rounding."""
    features, labels = rows(FEW)
    features[0] *= size
    group = group_by_group(labels)
    grouped = GroupedStatistics.from_features(features, labels, K, groups=G)
    left = group != group[0]
    expected = ClassStatistics.from_features(features[left], labels[left], K)
    assert_fields_close(grouped.without(int(group[0])), expected, 1e-12)


@pytest.mark.parametrize("number", [2, 5])
def test_merging_many_is_merging_one_by_one(number: int) -> None:
    values = [ClassStatistics.from_features(*rows(60, far=3, seed=seed), K, per_class=True) for seed in range(number)]
    values.append(ClassStatistics.empty(K, D, per_class=True))
    one_by_one = values[0]
    for value in values[1:]:
        one_by_one = one_by_one.merge(value)
    assert_fields_close(ClassStatistics.merge_all(values), one_by_one, 1e-12)
    assert_fields_equal(ClassStatistics.merge_all(values[:1]), values[0])
    with pytest.raises(MergeError, match="different classes or features"):
        ClassStatistics.merge_all([*values, ClassStatistics.empty(K, D + 1, per_class=True)])


def test_merging_many_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [ClassStatistics.from_features(*rows(60, far=3, seed=seed), K, per_class=True) for seed in range(5)]
    expected = ClassStatistics.merge_all(values)
    monkeypatch.setattr("tightframe.statistics.class_statistics._GAP_ROWS", 2 * K)
    assert_fields_close(ClassStatistics.merge_all(values), expected, 1e-13)


def test_the_graph_is_kept() -> None:
    features, labels = rows(60)
    features.requires_grad_()
    nc1(GroupedStatistics.from_features(features, labels, K, groups=G).without(0)).backward()
    outside = group_by_group(labels) == 0
    assert not features.grad[outside].any()
    assert features.grad[~outside].all(1).any()


# ---------------------------------------------------------------------- values


def test_merging_adds_group_by_group() -> None:
    first, second, third = (GroupedStatistics.from_features(*rows(60, seed=s), K, groups=G) for s in range(3))
    both = first.merge(second)
    for g in range(G):
        assert_fields_equal(both.parts[g], first.parts[g].merge(second.parts[g]))
    assert_fields_close(both.total, ClassStatistics.merge_all(both.parts), 1e-13)
    assert_groups_close(both.merge(third), first.merge(second.merge(third)), 1e-12)
    assert_groups_close(both, second.merge(first), 1e-12)
    with pytest.raises(MergeError, match="can't merge 4 groups into 3"):
        first.merge(GroupedStatistics.from_features(*rows(60), K, groups=4))


def test_selected_classes_are_those_of_every_group() -> None:
    features, labels = rows(60)
    features, labels = torch.cat([features, features[:1]]), torch.cat([labels, torch.tensor([K - 1])])
    value = GroupedStatistics.from_features(features, labels, K, groups=G)
    assert value.undivided.tolist() == [K - 1]
    chosen = value.select(min_count=2)
    assert chosen.undivided.tolist() == []
    kept = labels != K - 1
    expected = GroupedStatistics.from_features(features[kept], labels[kept], K, groups=G)
    assert torch.equal(chosen.without(0).means, expected.without(0).means[: K - 1])
    assert all(part.within is None for part in (chosen.total, *chosen.parts))
    own = GroupedStatistics.from_features(features, labels, K, groups=G, per_class=True).select(min_count=2)
    torch.testing.assert_close(nc1(own.without(1)), nc1(expected.without(1)), rtol=1e-10, atol=0)


def test_values_move_together() -> None:
    value = fed(*rows(60)).compute()
    assert_groups_equal(value.to("cpu"), value)


@pytest.mark.parametrize("groups", [-1, 0, 1])
def test_one_group_is_none(groups: int) -> None:
    with pytest.raises(RangeError, match=f"at least two groups; got {groups}"):
        GroupedAccumulator(K, D, groups=groups)
    with pytest.raises(RangeError, match="at least two groups"):
        GroupedStatistics.from_features(*rows(60), K, groups=groups)


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
def test_a_bad_batch_changes_nothing(bad: str, error: type[Exception], before: int) -> None:
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
    accumulator = GroupedAccumulator(K, D, groups=G)
    if before:
        accumulator.update(*rows(before, torch.float32))
    picture = state(accumulator)
    with pytest.raises(error):
        accumulator.update(features, labels)
    assert state(accumulator) == picture


@pytest.mark.parametrize("size", [50, 9000])
def test_an_unvalidated_bad_batch_is_left_out_and_reported(size: int) -> None:
    features, labels = rows(MANY, torch.float32)
    accumulator = fed(features, labels, 512, validate=False)
    bad, targets = rows(size, torch.float32, seed=1)
    bad[3] = torch.inf
    accumulator.update(bad, targets, validate=False)
    accumulator.update(features, labels, validate=False)
    for report in (accumulator.compute, accumulator.state_dict, lambda: accumulator.update(features, labels)):
        with pytest.raises(NonFiniteError, match=r"1 unvalidated batch\(es\) were left out"):
            report()
    accumulator.members[0].rejected.zero_()  # or else nothing could be read
    expected = fed(torch.cat([features, features]), torch.cat([labels, labels])).compute()
    assert_groups_close(accumulator.compute(), expected, 1e-5)


@pytest.mark.parametrize("validate", [True, False])
def test_ignored_rows_are_as_if_absent(validate: bool) -> None:
    features, labels = rows(MANY)
    kept = torch.arange(MANY) % 7 != 0
    marked = torch.where(kept, labels, -100)
    features = torch.where(kept[:, None], features, torch.nan)
    value = fed(features, marked, ignore_index=-100, validate=validate).compute()
    assert_groups_close(value, fed(features[kept], labels[kept]).compute(), 1e-10)


def test_pixels_are_rows() -> None:
    features, labels = rows(60)
    accumulator = GroupedAccumulator(K, D, groups=G, class_dim=1)
    accumulator.update(features.reshape(5, 12, D).mT, labels.reshape(5, 12))
    assert_groups_equal(accumulator.compute(), fed(features, labels).compute())


def test_reading_does_not_stop_it() -> None:
    features, labels = rows(MANY, torch.float32)
    accumulator = GroupedAccumulator(K, D, groups=G)
    for x, y in zip(features.split(3000), labels.split(3000), strict=True):
        accumulator.update(x, y)
        first = accumulator.compute()
        assert_groups_equal(accumulator.compute(), first)
    assert_groups_close(first, fed(features, labels).compute(), 1e-5)


def test_float64_features_after_float32_ones() -> None:
    features, labels = rows(MANY)
    accumulator = GroupedAccumulator(K, D, groups=G)
    accumulator.update(features[:9000].float(), labels[:9000])
    accumulator.update(features[9000:], labels[9000:])
    rounded = torch.cat([features[:9000].float().double(), features[9000:]])
    assert_groups_close(accumulator.compute(), fed(rounded, labels).compute(), 1e-5)


def test_reset_forgets_everything() -> None:
    accumulator = fed(*rows(MANY))
    accumulator.compute()
    accumulator.reset()
    assert state(accumulator) == state(GroupedAccumulator(K, D, groups=G))
    assert int(accumulator.compute().total.num_samples) == 0


@pytest.mark.parametrize("after", [0, FEW, 9000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resuming_from_a_saved_state_is_exact(dtype: torch.dtype, after: int) -> None:
    features, labels = rows(MANY, dtype)
    accumulator = GroupedAccumulator(K, D, groups=G, per_class=True)
    if after:
        accumulator.update(features[:after], labels[:after])
    file = io.BytesIO()
    torch.save(accumulator.state_dict(), file)
    file.seek(0)
    resumed = fed(*rows(300, torch.float32, seed=3), per_class=True)  # which forgets what it had
    resumed.load_state_dict(torch.load(file))
    for each in (accumulator, resumed, copy.deepcopy(resumed)):
        each.update(features[after:], labels[after:])
        assert_groups_equal(each.compute(), fed(features, labels, MANY, per_class=True).compute())


def test_a_state_of_other_groups_is_refused() -> None:
    saved = fed(*rows()).state_dict()
    with pytest.raises(StateError, match="has 3 groups, this one 4"):
        GroupedAccumulator(K, D, groups=G + 1).load_state_dict(saved)
    with pytest.raises(StateError, match="counts"):
        GroupedAccumulator(K + 1, D, groups=G).load_state_dict(saved)


def test_casting_changes_nothing() -> None:
    features, labels = rows(FEW, torch.float32)
    accumulator = fed(features, labels)
    picture = state(accumulator)
    assert state(accumulator.half()) == picture


@pytest.mark.parametrize("number", [FEW, MANY])
def test_merged_accumulators_hold_both_samples(number: int) -> None:
    first, second = fed(*rows(number)), fed(*rows(number, seed=1))
    expected = first.compute().merge(second.compute())
    first.merge(second)
    assert_groups_close(first.compute(), expected, 1e-11)
    first.update(*rows(number, seed=2))
    assert int(first.compute().total.num_samples) == 3 * number
    with pytest.raises(MergeError, match="can't merge 4 groups into 3"):
        first.merge(fed(*rows(), groups=4))


@pytest.mark.parametrize("covariance", [True, False])
def test_memory_is_told(covariance: bool) -> None:
    """At least the state and the value, and not twice as much."""
    classes, dim, groups = 50, 300, 8
    accumulator = GroupedAccumulator(classes, dim, groups=groups, covariance=covariance)
    accumulator.update(torch.randn(600, dim), torch.arange(600) % classes)
    value = accumulator.compute()
    tensors = [*accumulator.buffers()]
    for statistics in (value.total, *value.parts):
        tensors += statistics._tensors().values()
    held = sum(tensor.nbytes for tensor in tensors)
    told = GroupedAccumulator.memory(classes, dim, groups=groups, covariance=covariance)
    assert held <= told <= 2 * held


# ---------------------------------------------------------------------- processes


def work(rank: int, folder: str) -> None:
    """Sum with the other process and write down what came out."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    meeting, timeout = f"file://{folder}/meeting", datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
    mine = rows(300, seed=rank)
    value = GroupedStatistics.from_features(*mine, K, groups=G)
    accumulator = fed(*mine)
    accumulator.update(torch.ones(1, D), torch.tensor([K - 1]))  # one sample of the last class in each
    everything = {"values": value.all_reduce(), "accumulators": accumulator.compute_all()}
    fields = {k: [s._tensors() for s in (v.total, *v.parts)] for k, v in everything.items()}
    failures = []
    for call in (
        GroupedStatistics.from_features(*mine, K, groups=G + rank).all_reduce,
        lambda: unvalidated(rank).compute_all(),
    ):
        try:
            call()
        except (MergeError, LabelError) as error:
            failures.append(f"{type(error).__name__}: {error}")
    torch.save((fields, failures), Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def unvalidated(label: int) -> GroupedAccumulator:
    accumulator = GroupedAccumulator(1, D, groups=G)
    accumulator.update(torch.ones(1, D), torch.tensor([label]), validate=False)
    return accumulator


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("groups")
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["laws.scenarios", "tightframe.metrics", "torch"])  # so each starts with them loaded
    processes = [context.Process(target=work, args=(rank, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def as_value(fields: list[dict[str, Tensor]]) -> GroupedStatistics:
    total, *parts = (ClassStatistics(**each) for each in fields)
    return GroupedStatistics(total, tuple(parts))


@pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
class TestProcesses:
    def test_values_of_all_processes(self, outcomes: list[Any]) -> None:
        first, second = (as_value(fields["values"]) for fields, _ in outcomes)
        assert_groups_equal(first, second)
        alone = [GroupedStatistics.from_features(*rows(300, seed=rank), K, groups=G) for rank in range(2)]
        assert_groups_close(first, alone[0].merge(alone[1]), 1e-12)

    def test_processes_start_at_different_groups(self, outcomes: list[Any]) -> None:
        first, second = (as_value(fields["accumulators"]) for fields, _ in outcomes)
        assert_groups_equal(first, second)
        assert first.total.counts.sum() == 602
        assert sorted(int(part.counts[K - 1]) for part in first.parts) == [0, 1, 1]

    def test_failures_are_told_in_both(self, outcomes: list[Any]) -> None:
        assert all("groups 3 here, 3 to 4" in failures[0] for _, failures in outcomes[:1])
        assert "groups 4 here, 3 to 4" in outcomes[1][1][0]
        assert "another process has no grouped statistics to give" in outcomes[0][1][1]
        assert outcomes[1][1][1].startswith("LabelError")
