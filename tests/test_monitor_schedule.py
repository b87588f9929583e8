"""When the monitor measures and on how much, what it says of the series, and how it is resumed."""

import itertools
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tightframe import Monitor
from tightframe.errors import LayerError, RangeError, StateError, TrackerWarning
from tightframe.report import Report, RunFolder, plateau, terminal_phase
from tightframe.report.contents.training import sentences
from tightframe.report.facts import Facts

CLASSES = 3
Loader = list[tuple[Tensor, Tensor]]
QUICK: dict[str, Any] = {"metrics": ["nc1"], "folds": None, "progress": False}  # where the numbers don't matter


class Clock:
    """A clock that goes on when told, instead of the processor's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, CLASSES))


@pytest.fixture
def loader() -> Loader:
    labels = torch.arange(30) % CLASSES
    return [(torch.randn(30, 4) + 2 * torch.eye(4)[labels], labels)]


class Slow:
    """A loader whose measurement takes a known time of the clock for each sample."""

    def __init__(self, loader: Loader, clock: Clock, seconds: float):
        self.loader, self.clock, self.seconds = loader, clock, seconds

    def __iter__(self):
        for inputs, labels in self.loader:
            self.clock.now += self.seconds * len(labels)
            yield inputs, labels


# ---------------------------------------------------------------------------------------------- when


def test_without_a_budget_it_is_always_due(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False)
    assert monitor.due()
    monitor.measure(loader)
    assert monitor.due()


@pytest.mark.parametrize("budget", [0.05, 0.2])
def test_a_budget_bounds_the_share_of_all_time(model: nn.Module, loader: Loader, clock: Clock, budget: float) -> None:
    monitor = Monitor(model, budget=budget, **QUICK)
    slow = Slow(loader, clock, 0.1)  # 3 s a measurement
    measured = []
    for epoch in range(1, 201):
        clock.now += 10
        if monitor.due(epoch):
            monitor.measure(slow, epoch=epoch)
            measured.append(epoch)
    share = 3 * len(measured) / (10 * 200 + 3 * len(measured))
    assert measured[0] == 1  # the first at once, whatever it costs
    assert 0.9 * budget < share <= budget + 3 / 2000
    gaps = [b - a for a, b in itertools.pairwise(measured)]
    assert max(gaps[1:]) - min(gaps[1:]) <= 1  # evenly


def test_every_so_many_epochs(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, every=3, **QUICK)
    measured = []
    for epoch in range(1, 11):
        if monitor.due(epoch):
            monitor.measure(loader, epoch=epoch)
            measured.append(epoch)
    assert measured == [1, 4, 7, 10]


@pytest.mark.parametrize("steps", [3, 10, 100])
@pytest.mark.parametrize("first", [0, 1000])
def test_every_so_many_steps_of_an_epoch(steps: int, first: int) -> None:
    """As fractions of epochs, which are rounded."""
    monitor = Monitor(nn.Linear(4, CLASSES), every=1 / steps)
    for step in range(3 * steps):
        epoch = first + step / steps
        assert monitor.due(epoch), epoch
        measured_at(monitor, [epoch])
        assert not monitor.due(epoch + 0.9 / steps)


def measured_at(monitor: Monitor, epochs: Sequence[float]) -> Monitor:
    for epoch in epochs:
        monitor.record(one_report().extended(facts={"epoch": epoch}))
    return monitor


@pytest.mark.parametrize(
    ("every", "measured", "due"),
    [
        (1, [1, 2, 3, 4], {0: True, 1: True, 2: True, 2.5: False, 3: True, 3.5: False, 4: False, 5: True}),
        (3, [1, 4, 7, 10], {0: True, 1: True, 2: False, 3: False, 4: True, 6: False, 7: True, 10: False, 12: False}),
        (None, [1, 4], {0: True, 1: True, 2: True, 4: False, 4.5: True}),
    ],
)
def test_due_again_where_training_was_taken_back(
    every: float | None, measured: list[float], due: dict[float, bool]
) -> None:
    monitor = measured_at(Monitor(nn.Linear(4, CLASSES), every=every), measured)
    assert {epoch: monitor.due(epoch) for epoch in due} == due


def test_a_run_gone_on_with_without_its_checkpoint_is_measured_again(
    model: nn.Module, loader: Loader, tmp_path: Path
) -> None:
    for _ in range(2):
        monitor = Monitor(model, folder=tmp_path, resume=True, every=2, **QUICK)
        due = [epoch for epoch in range(1, 8) if monitor.due(epoch) and monitor.measure(loader, epoch=epoch)]
        assert due == [1, 3, 5, 7]
        assert [report.facts.epoch for report in monitor.series] == due
        monitor.close()


def test_taken_back_within_a_budget(model: nn.Module, loader: Loader, clock: Clock) -> None:
    monitor = Monitor(model, budget=0.1, **QUICK)
    for epoch in (1, 2, 4):
        monitor.measure(Slow(loader, clock, 0.1), epoch=epoch)  # 3 s
    assert [monitor.due(epoch) for epoch in (0, 2, 3, 4, 5)] == [False, True, False, False, False]
    clock.now += 9 * 12 + 1
    assert [monitor.due(epoch) for epoch in (0, 2, 3, 4, 5)] == [True, True, True, False, True]


def test_the_time_of_a_failed_measurement_is_measuring(model: nn.Module, loader: Loader, clock: Clock) -> None:
    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        yield from Slow(loader, clock, 0.1)
        raise RuntimeError("failed")

    monitor = Monitor(model, budget=0.1, progress=False)
    clock.now += 10
    with pytest.raises(RuntimeError, match="failed"):
        monitor.measure(broken(), epoch=1)
    clock.now += 1
    state = monitor.state_dict()
    assert (state["training_seconds"], state["measuring_seconds"]) == pytest.approx((11, 3))
    assert state["series"] == []


def test_a_tracker_that_fails_costs_neither_the_report_nor_the_training(
    model: nn.Module, loader: Loader, tmp_path: Path
) -> None:
    seen: list[float] = []

    def fail(values: object, epoch: float) -> None:
        raise RuntimeError("no connection")

    trackers = [fail, lambda values, epoch: seen.append(epoch)]
    monitor = Monitor(model, folder=tmp_path, trackers=trackers, progress=False)
    with pytest.warns(TrackerWarning, match=r"fail failed at epoch 3: RuntimeError\('no connection'\)"):
        report = monitor.measure(loader, epoch=3)
    assert monitor.report().values == report.values and seen == [3]
    assert RunFolder(tmp_path).series()[-1].values == pytest.approx(report.values, nan_ok=True)


# ---------------------------------------------------------------------------------------------- on how much


def dataset(samples: int) -> TensorDataset:
    labels = torch.arange(samples) % CLASSES
    return TensorDataset(torch.randn(samples, 4) + 2 * torch.eye(4)[labels], labels)


def test_a_limit_on_samples(model: nn.Module) -> None:
    loader = DataLoader(dataset(500), batch_size=50, shuffle=True)
    monitor = Monitor(model, samples=120, progress=False)
    reports = [monitor.measure(loader) for _ in range(2)]
    assert [report.facts.samples for report in reports] == [120, 120]
    assert reports[0].values == pytest.approx(reports[1].values, rel=1e-9, nan_ok=True)  # the same samples each time
    assert "measured on 120 of 500 samples." in reports[0].notes
    assert Monitor(model, samples=500, progress=False).measure(loader).facts.samples == 500


class Counted(TensorDataset):
    """Data that know which of their samples were asked for."""

    def __init__(self, samples: int):
        super().__init__(*dataset(samples).tensors)
        self.seen: set[int] = set()

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.seen.add(index)
        return super().__getitem__(index)


@pytest.mark.parametrize(("test", "ood"), [(300, 90), (90, 300)])
def test_a_limit_on_samples_is_one_on_each_loader(model: nn.Module, test: int, ood: int) -> None:
    data = {"train": Counted(500), "test": Counted(test), "ood": Counted(ood)}
    loaders = {name: DataLoader(each, batch_size=30) for name, each in data.items()}
    report = Monitor(model, samples=120, **QUICK).measure(loaders.pop("train"), **loaders)
    assert {name: len(each.seen) for name, each in data.items()} == {
        "train": 120,
        "test": min(test, 120),
        "ood": min(ood, 120),
    }
    for name, size in (("held-out", test), ("out-of-distribution", ood)):
        assert (f"measured on about 120 of {size} {name} samples." in report.notes) == (size > 120)


def test_every_epoch_within_a_budget_takes_fewer_samples(model: nn.Module, clock: Clock) -> None:
    batches = [(x[None], y[None]) for x, y in dataset(3000)]
    monitor = Monitor(model, budget=0.1, every=1, **QUICK)
    counts = []
    for epoch in range(1, 6):
        clock.now += 90
        assert monitor.due(epoch)
        counts.append(monitor.measure(one_pass_each(batches, clock, 0.05), epoch=epoch).facts.samples)
    assert counts[0] == 20 * CLASSES  # how long a sample takes isn't known yet
    assert counts[1:] == pytest.approx([90 * 0.1 / 0.9 / 0.05] * 4, rel=0.02)


def test_never_fewer_than_twenty_a_class(model: nn.Module, clock: Clock) -> None:
    batches = [(x[None], y[None]) for x, y in dataset(3000)]
    monitor = Monitor(model, budget=0.001, every=1, **QUICK)
    for epoch in (1, 2):
        clock.now += 1
        assert monitor.measure(one_pass_each(batches, clock, 0.05), epoch=epoch).facts.samples == 20 * CLASSES


def one_pass_each(batches: Loader, clock: Clock, seconds: float):
    """A one-pass loader: each sample takes a known time."""

    class Iterable:
        def __iter__(self):
            for inputs, labels in batches:
                clock.now += seconds
                yield inputs, labels

    return Iterable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, r"budget must be a share of the time, in \(0, 1\); got 0"),
        ({"budget": 1.0}, r"in \(0, 1\); got 1.0"),
        ({"every": 0}, "every must be finite and > 0; got 0"),
        ({"samples": -3}, "samples must be finite and > 0; got -3"),
    ],
)
def test_impossible_schedules(model: nn.Module, options: dict[str, float], message: str) -> None:
    with pytest.raises(RangeError, match=message):
        Monitor(model, **options)


# ---------------------------------------------------------------------------------------------- trackers


def test_trackers_get_every_value_of_every_layer(model: nn.Module, loader: Loader) -> None:
    calls: list[tuple[Mapping[str, float], float]] = []
    monitor = Monitor(
        model, layers=["0"], trackers=[lambda values, epoch: calls.append((values, epoch))], progress=False
    )
    report = monitor.measure(loader, epoch=2, test=loader)
    ((values, epoch),) = calls
    assert epoch == 2
    layers = {f"0/{key}": value for key, value in report.layers[0].values.items()}
    assert "test/nc1" in report.values and "0/test/nc1" in layers
    assert values == {**report.values, **layers}


# ---------------------------------------------------------------------------------------------- the series


@cache
def one_report() -> Report:
    with torch.random.fork_rng(devices=[]):  # the same draws in whichever test comes first
        torch.manual_seed(0)
        return Monitor(nn.Linear(4, CLASSES), progress=False).measure([dataset(30).tensors])


def series_of(key: str, *values: float) -> list[Report]:
    report, made = one_report(), []
    for epoch, value in enumerate(values, start=1):
        entries = tuple(replace(e, value=value) if e.key == key else e for e in report)
        made.append(replace(report, entries=entries).extended(facts={"epoch": epoch}))
    return made


def test_the_terminal_phase_begins_where_training_error_first_vanishes() -> None:
    assert terminal_phase(series_of("classifier_accuracy", 0.5, 0.9)) is None
    assert terminal_phase(series_of("classifier_accuracy", 0.5, 1.0, 0.999, 1.0)) == 2
    assert terminal_phase([]) is None


def test_a_plateau_is_where_a_measure_stays_within_a_factor() -> None:
    falling = series_of("nc1", 1.0, 0.5, 0.25, 0.12, 0.06)
    assert plateau(falling) is None
    still = series_of("nc1", 1.0, 0.3, 0.105, 0.1, 0.102, 0.103)
    assert plateau(still) == 3
    assert plateau(still, measurements=5) is None
    assert plateau(still, factor=1.03, measurements=3) == 4
    assert plateau(series_of("nc1", 1.0, 0.0, 0.0, 0.0, 0.0)) is None  # no factor lies between zeros
    assert plateau(still, "unknown") is None


@pytest.mark.parametrize("still", [float("inf"), float("nan"), 0.0, -1.0])
def test_values_that_no_factor_compares_are_no_plateau(still: float) -> None:
    assert plateau(series_of("nc1", *[still] * 5)) is None
    assert plateau(series_of("nc1", *[still] * 5, 0.1, 0.1, 0.1, 0.1)) == 6
    assert plateau(series_of("nc1", 0.1, 0.1, 0.1, still), measurements=1) is None


@pytest.mark.parametrize("options", [{"factor": 0.9}, {"factor": float("nan")}, {"measurements": 0}])
def test_a_plateau_of_nothing(model: nn.Module, options: dict[str, Any]) -> None:
    for call in (lambda: plateau([], **options), lambda: Monitor(model).plateau(**options)):
        with pytest.raises(RangeError, match=f"{next(iter(options))} must be at least 1; got"):
            call()


def ending(series: list[Report]) -> Report:
    return replace(series[-1], history=tuple(series[:-1]))


def test_the_page_and_the_terminal_say_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    fitted = series_of("classifier_accuracy", 0.5, 0.9, 1.0, 1.0)  # and NC1 is the same in all
    begun = "The terminal phase began at epoch 3, the first measurement with zero training error."
    still = "NC1 has stayed within a factor of 1.1 since epoch 1."
    fitting = series_of("classifier_accuracy", 0.5, 0.9)
    for series, found in ((fitted, [begun, still]), (fitting, []), (fitted[2:3], [])):
        report = ending(series)
        assert sentences(report) == found
        report.to_terminal(everything=True)
        printed = " ".join(capsys.readouterr().out.split())
        page = report.to_html()
        for sentence in (begun, still):
            assert (sentence in printed) == (sentence in page) == (sentence in found)
        section = report.section("training")
        figures = () if section is None else section.figures
        assert len(figures) == (5 if report.history else 0)
        assert all(figure.marks == (((3, "terminal phase"),) if found else ()) for figure in figures)
        assert report.verdict.state.startswith("terminal phase since epoch 3") is bool(found)


def test_the_monitor_says_so_too(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False)
    for report in series_of("classifier_accuracy", 0.5, 1.0):
        monitor.record(report)
    assert monitor.terminal_phase == 2
    assert monitor.plateau("cdnv", measurements=2) == 1


# ---------------------------------------------------------------------------------------------- going back and on


def test_a_measurement_at_an_earlier_epoch_supersedes_what_came_after(
    model: nn.Module, loader: Loader, tmp_path: Path
) -> None:
    monitor = Monitor(model, folder=tmp_path, progress=False)
    for epoch in (1, 2, 3, 4):
        monitor.measure(loader, epoch=epoch)
    with torch.no_grad():
        model[0].weight.mul_(3)
    report = monitor.measure(loader, epoch=3)
    for series in (monitor.series, RunFolder(tmp_path).series()):
        assert [each.facts.epoch for each in series] == [1, 2, 3]
    stored = RunFolder(tmp_path).report()
    assert stored.values == report.values
    assert stored.evidence is not None and report.evidence is not None
    assert torch.equal(stored.evidence.statistics.means, report.evidence.statistics.means)
    assert len(list((tmp_path / "statistics").iterdir())) == 3


def test_a_run_is_gone_on_with_or_started_anew(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    first = Monitor(model, folder=tmp_path, resume=True, description={"data": "made up"}, progress=False)
    first.measure(loader, epoch=1)
    first.close()
    second = Monitor(model, folder=tmp_path, resume=True, progress=False)
    assert [report.facts.epoch for report in second.series] == [1]
    assert second.series[0].values == pytest.approx(first.series[0].values, nan_ok=True)
    second.measure(loader)
    assert [report.facts.epoch for report in RunFolder(tmp_path).series()] == [1, 2]
    assert json.loads((tmp_path / "run.json").read_text())["data"] == "made up"
    second.close()
    Monitor(model, folder=tmp_path, overwrite=True, progress=False)
    assert RunFolder(tmp_path).series() == []


def test_a_checkpoint_takes_the_series_back(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    monitor = Monitor(model, folder=tmp_path / "a", layers=["0"], progress=False)
    for epoch in (1, 2):
        monitor.measure(loader, epoch=epoch)
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    monitor.measure(loader, epoch=3)
    monitor.close()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for folder, resume in ((tmp_path / "a", True), (tmp_path / "elsewhere", False), (None, False)):
        other = Monitor(model, folder=folder, resume=resume, layers=["0"], progress=False)
        other.load_state_dict(state)
        assert [report.facts.epoch for report in other.series] == [1, 2]
        assert [len(report.layers) for report in other.series] == [1, 1]
        assert other.measure(loader).facts.epoch == 3
        if folder is not None:
            assert [report.facts.epoch for report in RunFolder(folder).series()] == [1, 2, 3]


def test_a_checkpoint_of_another_branch_has_no_statistics_of_this_one(
    model: nn.Module, loader: Loader, tmp_path: Path
) -> None:
    monitor = Monitor(model, folder=tmp_path, **QUICK)
    states = {}
    for epoch in range(1, 9):
        monitor.measure(loader, epoch=epoch)
        states[epoch] = monitor.state_dict()
    monitor.load_state_dict(states[5])
    with torch.no_grad():
        model[0].weight.mul_(3)
    for epoch in range(6, 10):
        monitor.measure(loader, epoch=epoch)
    monitor.load_state_dict(states[8])
    stored = RunFolder(tmp_path).report()
    assert [report.values for report in stored.history] == [report.values for report in monitor.series[:-1]]
    assert stored.evidence is None
    monitor.load_state_dict(states[5])
    assert RunFolder(tmp_path).report().evidence is not None


def test_a_checkpoint_keeps_the_clocks(model: nn.Module, loader: Loader, clock: Clock) -> None:
    monitor = Monitor(model, budget=0.1, progress=False)
    clock.now += 10
    monitor.measure(Slow(loader, clock, 0.1))
    state = monitor.state_dict()
    clock.now += 1000  # the machine was off
    other = Monitor(model, budget=0.1, progress=False)
    other.load_state_dict(state)
    assert not other.due()
    clock.now += 50  # 60 s of training, 6 s of measuring with the next
    assert other.due() == (6 <= 0.1 * 66)
    clock.now += 10
    assert other.due()


WHOLE = {
    "series": [{"entries": [], "notes": [], "context": {"epoch": 1}}],
    "training_seconds": 1.0,
    "measuring_seconds": 1.0,
    "last_training_seconds": None,
    "seconds_per_sample": None,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"series": 3},
        {"series": [{"entries": []}]},
        {"series": [{"entries": ["text"], "notes": [], "context": {"epoch": 1}}]},
        *({"series": [{"entries": [], "notes": [], "context": each}]} for each in ({}, [], {"epoch": "nan"})),
        *({"series": [{"entries": [], "notes": [], "facts": each}]} for each in ({}, [], {"epoch": "nan"})),
        {"series": [{"entries": [], "notes": [], "facts": {"samples": 3}}]},
        *({name: each} for name in WHOLE for each in ("text", float("nan"), -1.0) if name != "series"),
        {"training_seconds": None},
    ],
)
def test_a_state_of_something_else(model: nn.Module, loader: Loader, tmp_path: Path, wrong: dict[str, object]) -> None:
    monitor = Monitor(model, folder=tmp_path, progress=False)
    monitor.measure(loader, epoch=7)
    before = monitor.state_dict()["series"]
    for state in ({}, {**WHOLE, **wrong}):
        with pytest.raises(StateError, match="no monitor's state"):
            monitor.load_state_dict(state)
    assert monitor.state_dict()["series"] == before
    assert RunFolder(tmp_path).report().evidence is not None
    monitor.load_state_dict(WHOLE)
    assert [report.facts.epoch for report in monitor.series] == [1]


def test_a_folder_whose_measurements_have_no_epoch(model: nn.Module, tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {}).append(Report((), Facts(samples=3)))
    before = (tmp_path / "series.jsonl").read_bytes()
    with pytest.raises(StateError, match="can't be resumed: epoch must be a finite number; got None"):
        Monitor(model, folder=tmp_path, resume=True)
    assert (tmp_path / "series.jsonl").read_bytes() == before


def test_layers_are_measured_each_time_or_chosen_anew(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, layers="auto", progress=False)
    reports = [monitor.measure(loader, **more) for more in ({}, {"layers": "0"})]
    names = [[layer.facts.layer for layer in report.layers] for report in reports]
    assert names == [[], ["0"]]  # one hidden layer: its boundary is the classifier's input
    with pytest.raises(LayerError):
        monitor.measure(loader, layers="nonsense")


def test_training_goes_on_as_if_nothing_was_measured() -> None:
    def train(measured: bool) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES))
        loader = DataLoader(dataset(90), batch_size=16, shuffle=True)
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        monitor = Monitor(model, layers="auto", progress=False)
        for _ in range(3):
            for x, y in loader:
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimiser.step()
            if measured:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a blip, perhaps
                    monitor.measure(loader, test=loader)
        return model.state_dict()

    plain, watched = train(False), train(True)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
