"""`Monitor`: the series of a run, in memory and on disk."""

import json
from dataclasses import replace
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tightframe import Monitor, measure
from tightframe.errors import ChoiceError, ClassifierError, LabelError, LayerError, RangeError, StateError
from tightframe.metrics import CONVENTIONS
from tightframe.report import Report, RunFolder

CLASSES = 3
Loader = list[tuple[Tensor, Tensor]]


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES))


@pytest.fixture
def loader() -> Loader:
    labels = torch.arange(30) % CLASSES
    return [(torch.randn(30, 4) + 2 * torch.eye(4)[labels], labels)]


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_a_measurement_is_measures_report(model: nn.Module, loader: Loader) -> None:
    expected = measure(model, loader, progress=False)
    report = Monitor(model, progress=False).measure(loader, epoch=7)
    assert report.values == expected.values
    assert report.facts.measuring_seconds > 0
    assert replace(report.facts, measuring_seconds=None) == replace(expected.facts, epoch=7)
    assert report.context == expected.context == {}


def test_the_series_grows_and_the_report_has_it_as_history(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False)
    returned = []
    for epoch in (1, 2, 5):
        change(model)
        returned.append(monitor.measure(loader, epoch=epoch))
    assert [report.values for report in monitor.series] == [report.values for report in returned]
    assert len({report["nc1"].value for report in monitor.series}) == 3
    final = monitor.report()
    assert final.values == returned[-1].values
    assert [report.facts.epoch for report in final.history] == [1, 2]
    assert [report.values for report in final.history] == [report.values for report in returned[:-1]]


def test_epochs_count_from_zero_and_go_on_from_the_last(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False)
    epochs = [monitor.measure(loader, epoch=epoch).facts.epoch for epoch in (None, None, 10, None, 2.5, None)]
    assert epochs == [0, 1, 10, 11, 2.5, 3.5]


def test_only_the_latest_keeps_its_evidence(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False)
    for _ in range(3):
        monitor.measure(loader)
    assert [report.evidence is None for report in monitor.series] == [True, True, False]
    assert all(report.evidence is None for report in monitor.report().history)
    assert monitor.report().evidence is not None


def test_no_report_before_the_first_measurement(model: nn.Module) -> None:
    with pytest.raises(StateError, match=r"nothing was measured yet; call measure\(\)"):
        Monitor(model).report()


def test_num_classes_is_checked(model: nn.Module, loader: Loader) -> None:
    Monitor(model, num_classes=CLASSES)
    with pytest.raises(ClassifierError, match="num_classes is 10, but the classifier '3' has 3 rows"):
        Monitor(model, num_classes=10)


def test_num_classes_is_checked_against_the_classifier_by_name(model: nn.Module) -> None:
    Monitor(model, num_classes=5, classifier="0")
    with pytest.raises(ClassifierError, match="3, but the classifier '0' has 5"):
        Monitor(model, num_classes=3, classifier="0")


def test_a_classifier_that_is_named_and_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="no module or parameter 'fc'"):
        Monitor(nn.ReLU(), classifier="fc", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_layers_are_refused_at_once(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no module of the model matches 'all'; choose from 0, 1, 2, 3"):
        Monitor(model, layers="all", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"per_clas": True}, TypeError, "unknown option 'per_clas'; choose from layers"),
        ({"loader": []}, TypeError, "unknown option 'loader'"),
        ({"epoch": 3}, TypeError, "unknown option 'epoch'"),
        ({"metrics": ["nc1", "nc9"]}, ChoiceError, "got 'nc9'. Did you mean nc1"),
        ({"conventions": ["nc1"]}, ChoiceError, "convention must be a name in .*CONVENTIONS; got 'nc1'"),
        ({"positions": "middle"}, ChoiceError, "positions must be one of each, mean"),
        ({"samples": 2.5}, RangeError, "samples must be a whole number; got 2.5"),
    ],
)
def test_unknown_options_are_refused_at_once(
    model: nn.Module, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Monitor(model, folder=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_every_option_of_measure_is_one_of_the_monitor(model: nn.Module, loader: Loader) -> None:
    own = {"model", "loader", "layers"}
    defaults = {name: each.default for name, each in signature(measure).parameters.items() if name not in own}
    report = Monitor(model, **{**defaults, "conventions": [next(iter(CONVENTIONS))], "progress": False}).measure(loader)
    assert report.values.keys() > measure(model, loader, progress=False).values.keys()


def test_samples_may_be_written_as_a_float(model: nn.Module, loader: Loader) -> None:
    data = TensorDataset(*loader[0])
    report = Monitor(model, samples=2e1, progress=False).measure(DataLoader(data, batch_size=5))  # type: ignore[arg-type]
    assert report.facts.samples == 20


def test_options_go_to_every_measurement_and_can_be_overridden(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, per_class=True, metrics=["directional_cdnv"], progress=False)
    assert list(monitor.measure(loader).values) == ["directional_cdnv"]
    assert list(monitor.measure(loader, metrics=["nc1", "cdnv"]).values) == ["nc1", "cdnv"]
    assert list(monitor.measure(loader).values) == ["directional_cdnv"]


def test_context_of_one_measurement(model: nn.Module, loader: Loader) -> None:
    report = Monitor(model, progress=False).measure(loader, epoch=4, context={"title": "mine", "epoch": 99})
    assert report.facts.title == "mine"
    assert report.facts.epoch == 4


def test_context_of_all_measurements(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, progress=False, context={"title": "mine", "seed": 1})
    report = monitor.measure(loader, epoch=4, context={"seed": 2})
    assert (report.facts.title, report.context["seed"], report.facts.epoch) == ("mine", 2, 4)
    assert monitor.measure(loader).context["seed"] == 1


@pytest.mark.parametrize(
    ("epoch", "number"),
    [(np.int64(1), 1), (np.float32(1.5), 1.5), (torch.tensor(2), 2), (torch.tensor(0.5), 0.5), (Fraction(1, 4), 0.25)],
)
def test_an_epoch_is_a_number_of_any_library(
    model: nn.Module, loader: Loader, tmp_path: Path, epoch: Any, number: float
) -> None:
    monitor = Monitor(model, folder=tmp_path, context={"lr": np.float32(0.5)}, progress=False)
    assert monitor.due(epoch)
    found = monitor.measure(loader, epoch=epoch).facts.epoch
    assert (found, type(found)) == (number, type(number))
    assert not monitor.due(epoch)
    (report,) = RunFolder(tmp_path).series()
    assert (report.facts.epoch, report.context["lr"]) == (number, 0.5)


@pytest.mark.parametrize(
    "epoch", [float("nan"), float("inf"), -float("inf"), "1", torch.tensor([1, 2]), np.float32("nan"), True, 1j, [1]]
)
def test_an_epoch_that_is_no_finite_number(model: nn.Module, loader: Loader, epoch: Any) -> None:
    class Untouched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            pytest.fail("something was measured")

    monitor = Monitor(model, progress=False)
    made = measure(model, loader, progress=False).extended(facts={"epoch": epoch})
    for call in (
        lambda: monitor.due(epoch),
        lambda: monitor.measure(Untouched(loader), epoch=epoch),
        lambda: monitor.record(made),
    ):
        with pytest.raises(RangeError, match="epoch must be a finite number; got"):
            call()
    assert monitor.series == []


def test_without_folder_nothing_is_written(
    model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monitor = Monitor(model, progress=False)
    monitor.measure(loader)
    assert monitor.folder is None
    assert list(tmp_path.iterdir()) == []


def test_the_run_folder_grows_with_the_series(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    monitor = Monitor(model, folder=path, description={"data": "made up"}, progress=False)
    assert json.loads((path / "run.json").read_text())["data"] == "made up"
    for number in range(1, 4):
        change(model)
        monitor.measure(loader)
        assert len((path / "series.jsonl").read_text().splitlines()) == number  # on disk at once, not at the end
        assert len(list((path / "statistics").iterdir())) == number
    stored = RunFolder(path).report()
    assert str(stored.values) == str(monitor.report().values)  # as text, since NaN isn't equal to itself
    assert [str(report.values) for report in stored.history] == [str(r.values) for r in monitor.report().history]
    assert stored.evidence is not None and monitor.report().evidence is not None
    assert torch.equal(stored.evidence.statistics.means, monitor.report().evidence.statistics.means)


def test_a_failed_measurement_leaves_no_trace(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    monitor = Monitor(model, folder=tmp_path, progress=False)
    monitor.measure(loader)
    before = monitor.report().values
    with pytest.raises(LabelError):
        monitor.measure([(loader[0][0], loader[0][1] + 1)])
    assert len(monitor.series) == 1
    assert len(RunFolder(tmp_path).series()) == 1
    assert monitor.report().values == before
    assert monitor.report().evidence is not None
    assert monitor.measure(loader).facts.epoch == 1


def test_the_page_of_a_series(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    monitor = Monitor(model, progress=False)
    for _ in range(2):
        monitor.measure(loader)
    text = monitor.report().to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text
    assert "Collapse over training" in text


def test_the_page_of_a_series_of_measures_without_a_curve(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, metrics=["mean_cosine"], progress=False)
    for _ in range(2):
        report: Report = monitor.measure(loader)
    assert report["mean_cosine"].label in monitor.report().to_html()


def test_a_report_without_an_epoch_is_one_after_the_last(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    monitor = Monitor(model, folder=tmp_path, progress=False)
    monitor.record(measure(model, loader, progress=False))
    assert monitor.due(1)
    monitor.measure(loader)
    monitor.record(measure(model, loader, progress=False))
    assert [report.facts.epoch for report in monitor.series] == [0, 1, 2]
    assert [report.facts.epoch for report in RunFolder(tmp_path).series()] == [0, 1, 2]


def test_only_the_classifiers_input_keeps_its_evidence(model: nn.Module, loader: Loader) -> None:
    monitor = Monitor(model, layers=["0"], progress=False)
    report = monitor.measure(loader)
    assert report.layers[0].evidence is not None  # for the caller
    kept = monitor.report()
    assert kept.layers[0].evidence is None
    assert kept.layers[0].values == report.layers[0].values
    assert kept.evidence is not None
