"""Fewer samples from a loader: the right number, the same ones each time, and no random number drawn for it."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from tightframe import Monitor
from tightframe.errors import EmptyBatchError
from tightframe.sources import Batch
from tightframe.sources.sampling import number_of_samples, same_randomness, sampled


def numbered(rows: int = 50) -> TensorDataset:
    """Samples whose only feature is their number."""
    return TensorDataset(torch.arange(rows).float()[:, None], torch.arange(rows) % 3)


def numbers(loader: Any) -> list[int]:
    return [int(number) for inputs, _ in loader for number in inputs[:, 0]]


def sizes(loader: Any) -> list[int]:
    return [len(labels) for _, labels in loader]


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.tensor([float(row)]), row % 3) for row in range(self.rows)])

    def __len__(self) -> int:
        return self.rows


# ---------------------------------------------------------------------------------------------- data loaders


@pytest.mark.parametrize("samples", [1, 7, 20, 49, 50, 80])
def test_a_data_loader_gives_the_same_samples_each_time_and_whatever_its_order(samples: int) -> None:
    data = numbered()
    loaders = [DataLoader(data, 8), DataLoader(data, 8, shuffle=True), DataLoader(data, 3, sampler=RandomSampler(data))]
    drawn = [numbers(sampled(loader, samples, None)) for loader in loaders for _ in range(2)]
    assert all(each == drawn[0] for each in drawn)
    assert len(drawn[0]) == len(set(drawn[0])) == min(samples, 50)
    assert drawn[0] == sorted(drawn[0])  # read in the order of the data set
    smaller = sampled(loaders[0], samples, None)
    assert numbers(smaller) == numbers(smaller)


def test_samples_are_drawn_from_all_over_the_data() -> None:
    drawn = numbers(sampled(DataLoader(numbered(1000), 10), 100, None))
    assert min(drawn) < 50 and max(drawn) > 950
    tenths = np.bincount(np.array(drawn) // 100, minlength=10)
    assert tenths.min() >= 3  # with probability 0.99 for a fair draw; the draw is always the same
    labels = torch.cat([labels for _, labels in sampled(DataLoader(numbered(1000), 10), 100, None)])
    assert torch.bincount(labels).tolist() == [sum(n % 3 == k for n in drawn) for k in range(3)]


def test_fewer_samples_are_among_more() -> None:
    loader = DataLoader(numbered(), 8)
    few, more = (set(numbers(sampled(loader, samples, None))) for samples in (10, 30))
    assert few < more


def test_the_other_settings_of_a_data_loader_are_kept() -> None:
    def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in rows]) + 1000, torch.stack([y for _, y in rows])

    loader = DataLoader(numbered(), 8, shuffle=True, collate_fn=collate)
    smaller = sampled(loader, 20, None)
    assert isinstance(smaller, DataLoader)
    assert sizes(smaller) == [8, 8, 4]
    assert min(numbers(smaller)) >= 1000
    assert len(smaller) == 3
    dropping = sampled(DataLoader(numbered(), 8, drop_last=True), 20, None)
    assert sizes(dropping) == [8, 8, 4]  # so few samples are all kept
    working = sampled(DataLoader(numbered(), 8, num_workers=1), 20, None)
    assert working.num_workers == 1
    assert numbers(working) == numbers(sampled(DataLoader(numbered(), 8), 20, None))


def test_of_a_data_loader_of_single_samples() -> None:
    assert sizes(sampled(DataLoader(numbered(), batch_size=1), 5, None)) == [1] * 5


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", [10, 30, 50, 99])
def test_processes_share_the_samples_without_repeats(replicas: int, drop_last: bool, samples: int) -> None:
    data = numbered()
    parts = []
    for rank in range(replicas):
        sampler = DistributedSampler(data, replicas, rank, shuffle=rank % 2 == 0, drop_last=drop_last)
        sampler.set_epoch(rank)  # whatever order each would have run through
        parts.append(numbers(sampled(DataLoader(data, 8, sampler=sampler), samples, None)))
    together = sorted(number for part in parts for number in part)
    assert together == numbers(sampled(DataLoader(data, 8), samples, None))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---------------------------------------------------------------------------------------------- lists


def lists(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return list(
        zip(torch.arange(sum(sizes)).float()[:, None].split(sizes), torch.zeros(sum(sizes)).split(sizes), strict=True)
    )


@pytest.mark.parametrize(
    ("samples", "places"),
    [
        (10, [0]),
        (20, [0, 5]),
        (30, [0, 3, 6]),
        (31, [0, 2, 5, 7]),  # enough rather than too few
        (34, [0, 2, 5, 7]),
        (50, [0, 2, 4, 6, 8]),
        (99, list(range(10))),
        (1000, list(range(10))),
        (1, [0]),
    ],
)
def test_batches_of_a_list_evenly_spaced(samples: int, places: list[int]) -> None:
    loader = lists(*[10] * 10)
    chosen = sampled(loader, samples, None)
    assert isinstance(chosen, list)
    assert [int(inputs[0, 0]) // 10 for inputs, _ in chosen] == places
    assert all(any(batch is mine for mine in loader) for batch in chosen)
    assert sampled(tuple(loader), samples, None) == chosen


def test_batches_of_a_list_of_several_sizes() -> None:
    chosen = sampled(lists(4, 6, 4, 6, 4, 6), 15, None)
    assert [len(labels) for _, labels in chosen] == [4, 4, 4]


def test_a_list_whose_batches_must_be_unpacked() -> None:
    loader = [{"x": inputs[None], "mine": labels[None]} for inputs, labels in lists(5, 5, 5, 5)]

    def unpack(batch: Any) -> Batch:
        return Batch((batch["x"][0],), labels=batch["mine"][0])

    assert len(sampled(loader, 10, unpack)) == 2
    assert len(sampled(loader, 4, None)) == 4  # as they come, each has one row


def test_an_empty_list() -> None:
    assert list(sampled([], 10, None)) == []
    with pytest.raises(EmptyBatchError, match="yielded no batch"):
        Monitor(nn.Linear(1, 3), samples=10, progress=False).measure([])


# ---------------------------------------------------------------------------------------------- others


class Repeating:
    """An iterable that isn't a sequence."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches, self.given = batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            self.given += 1
            yield batch


WEIGHTED = WeightedRandomSampler([1.0] * 50, 50)
OTHERS: dict[str, Callable[[], Any]] = {
    "iterable": lambda: Repeating(lists(*[10] * 5)),
    "stream": lambda: DataLoader(Stream(50), 10),
    "without batches": lambda: DataLoader(numbered(), None),
    "batch sampler": lambda: DataLoader(
        numbered(), batch_sampler=BatchSampler(SequentialSampler(numbered()), 10, False)
    ),
    "other sampler": lambda: DataLoader(numbered(), 10, sampler=Subset(range(50), range(50)).indices),
}


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (10, 1), (11, 2), (20, 2), (25, 3), (50, 5), (500, 5)])
@pytest.mark.parametrize("kind", ["iterable", "stream", "batch sampler", "other sampler"])
def test_the_first_batches_of_anything_else(kind: str, samples: int, batches: int) -> None:
    chosen = sampled(OTHERS[kind](), samples, None)
    for _ in range(2):
        assert numbers(chosen) == list(range(10 * batches))


def test_no_more_is_read_than_needed() -> None:
    loader = Repeating(lists(*[10] * 5))
    list(sampled(loader, 20, None))
    assert loader.given == 2


def test_a_loader_of_single_samples_without_batches() -> None:
    chosen = sampled(OTHERS["without batches"](), 7, lambda row: Batch((row[0],), labels=row[1][None]))
    assert [int(x) for x, _ in chosen] == list(range(7))


def test_an_iterator_stays_one_that_runs_once() -> None:
    whole = iter(lists(*[10] * 5))
    chosen = sampled(whole, 20, None)
    assert isinstance(chosen, Iterator)
    assert numbers(chosen) == list(range(20))
    assert numbers(chosen) == []
    assert numbers(whole) == list(range(20, 50))  # the rest is still there


def test_batches_without_labels_count_by_their_inputs() -> None:
    images = torch.zeros(4, 2)
    for batch in (images, (images,), {"pixels": images}):
        assert len(list(sampled(Repeating([batch] * 9), 9, None))) == 3  # type: ignore[list-item]
        assert number_of_samples([batch] * 9, None) == 36
    assert number_of_samples([["no tensor"]], None) == 1


# ---------------------------------------------------------------------------------------------- how many


def test_the_number_of_samples_where_it_can_be_told() -> None:
    data = numbered()
    assert number_of_samples(DataLoader(data, 8), None) == 50
    assert number_of_samples(DataLoader(data, 8, shuffle=True), None) == 50
    assert number_of_samples(DataLoader(data, 8, drop_last=True), None) == 50
    sampler = DistributedSampler(data, 4, 1)
    assert len(sampler) == 13
    assert number_of_samples(lists(10, 10, 3), None) == 23
    assert number_of_samples(tuple(lists(4)), None) == 4
    assert number_of_samples([], None) == 0
    assert number_of_samples(DataLoader(data, 8, sampler=sampler), None) == 50  # of all processes


@pytest.mark.parametrize(
    "loader",
    [
        iter(lists(10)),
        Repeating(lists(10, 10)),
        DataLoader(numbered(), None),
        DataLoader(Stream(50), 10),
        DataLoader(numbered(), 10, sampler=WEIGHTED),
        DataLoader(numbered(), 10, sampler=RandomSampler(numbered(), replacement=True, num_samples=20)),
        DataLoader(numbered(), batch_sampler=BatchSampler(RandomSampler(numbered(), num_samples=12), 4, False)),
    ],
    ids=["iterator", "iterable", "without batches", "stream", "weighted", "with replacement", "batch sampler"],
)
def test_the_number_of_samples_where_it_cannot_be_told(loader: Any) -> None:
    assert number_of_samples(loader, None) is None


def test_a_monitor_measures_on_so_many_samples_and_says_so() -> None:
    model = nn.Linear(1, 3)
    for loader, told in ((DataLoader(numbered(), 8), "50"), (Repeating(lists(*[10] * 5)), "more")):
        rows = numbered() if told == "50" else None
        batches: Any = loader if rows else [(x, x[:, 0].long() % 3) for x, _ in loader]
        if not rows:
            batches = Repeating(batches)
        report = Monitor(model, samples=20, progress=False).measure(batches)
        assert report.facts.samples == 20
        assert report.facts.samples_in_all == (50 if rows else None)
        assert f"measured on 20 of {told} samples." in report.notes
        means = report.evidence.statistics.means[:, 0]
        drawn = torch.tensor(numbers(sampled(loader, 20, None)))
        for k in range(3):
            assert float(means[k]) == pytest.approx(float(drawn[drawn % 3 == k].double().mean()), rel=1e-12)


# ---------------------------------------------------------------------------------------------- randomness


def state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), rest, torch.random.get_rng_state().numpy().tobytes()


def draw_everything(*generators: torch.Generator) -> tuple[float, ...]:
    drawn = [torch.rand((), generator=generator).item() for generator in generators]
    return random.random(), float(np.random.rand()), torch.rand(()).item(), *drawn


def test_generators_are_put_back() -> None:
    first, second = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    loaders = DataLoader(numbered(), 8, shuffle=True, generator=first), DataLoader(numbered(), 8, generator=second)
    before = state(), first.get_state(), second.get_state()
    with same_randomness(*loaders, None, [1, 2]):
        drawn = draw_everything(first, second)
        numbers(loaders[0])
        assert state() != before[0]
    assert state() == before[0]
    assert torch.equal(first.get_state(), before[1])
    assert torch.equal(second.get_state(), before[2])
    assert draw_everything(first, second) == drawn


def loader_with(generator: torch.Generator, kind: str) -> Any:
    sampler = RandomSampler(numbered(), generator=generator)
    weighted = WeightedRandomSampler([1.0] * 50, 50, generator=generator)
    kinds: dict[str, Callable[[], Any]] = {
        "sampler": lambda: DataLoader(numbered(), 10, sampler=sampler),
        "batch sampler": lambda: DataLoader(numbered(), batch_sampler=BatchSampler(sampler, 10, False)),
        "weighted": lambda: DataLoader(numbered(), 10, sampler=weighted),
        "first batches": lambda: sampled(DataLoader(numbered(), 10, sampler=weighted), 20, None),
    }
    return kinds[kind]()


@pytest.mark.parametrize("kind", ["sampler", "batch sampler", "weighted", "first batches"])
def test_the_generators_of_samplers_are_put_back(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    loader, before = loader_with(generator, kind), generator.get_state()
    with same_randomness(loader):
        drawn = numbers(loader)
        assert not torch.equal(generator.get_state(), before)
    assert torch.equal(generator.get_state(), before)
    assert numbers(loader) == drawn


def test_a_monitor_puts_back_the_generator_of_a_loader_that_it_reads_in_part() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(numbered(), 10, sampler=WeightedRandomSampler([1.0] * 50, 50), generator=generator)
    before = generator.get_state()
    Monitor(nn.Linear(1, 3), samples=20, progress=False).measure(loader)
    assert torch.equal(generator.get_state(), before)
    numbers(loader)
    assert not torch.equal(generator.get_state(), before)


def test_generators_are_put_back_after_an_error() -> None:
    generator = torch.Generator().manual_seed(1)
    before = state(), generator.get_state()
    loader = DataLoader(numbered(), 8, generator=generator)

    def fail() -> None:
        with same_randomness(loader):
            draw_everything(generator)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert state() == before[0]
    assert torch.equal(generator.get_state(), before[1])


def test_shuffling_goes_on_as_if_nobody_had_looked() -> None:
    def epochs(looked: bool) -> list[list[int]]:
        torch.manual_seed(0)
        loader = DataLoader(numbered(), 8, shuffle=True)
        seen = []
        for _ in range(3):
            seen.append(numbers(loader))
            if looked:
                with same_randomness(loader):
                    numbers(loader)
        return seen

    plain = epochs(False)
    assert plain[0] != plain[1] != plain[2]
    assert epochs(True) == plain


def test_sampling_draws_nothing() -> None:
    before = state()
    for loader in (DataLoader(numbered(), 8, shuffle=True), lists(10, 10), Repeating(lists(10, 10))):
        sampled(loader, 10, None)
    assert state() == before
