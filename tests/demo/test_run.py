"""The demonstration: what it trains, when it measures, what it leaves, and that the network collapses."""

import json
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tightframe import Report, datasets, measure
from tightframe.datasets import DATASETS, DatasetSource
from tightframe.demo.network import network
from tightframe.demo.run import Epoch, measured_epochs, run
from tightframe.demo.settings import Settings
from tightframe.errors import DatasetError, OptionError, RangeError, StateError
from tightframe.metrics import METRICS
from tightframe.report import RunFolder

FILES = {"run.json", "run.lock", "series.jsonl", "statistics", "model.safetensors", "report.html"}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, RunFolder, list[Epoch]]:
    """Three epochs on the digits."""
    seen: list[Epoch] = []
    report, folder = run(Settings(epochs=3), tmp_path_factory.mktemp("demo") / "runs" / "digits", seen.append)
    return report, folder, seen


# ---------------------------------------------------------------------------------------------- when it measures


@pytest.mark.parametrize(
    ("epochs", "measurements", "expected"),
    [
        (1, 12, {1}),
        (2, 12, {1, 2}),
        (3, 12, {1, 2, 3}),
        (10, 12, {1, 2, 3, 4, 5, 7, 8, 10}),
        (100, 3, {1, 10, 100}),
        (7, 1, {1, 7}),
    ],
)
def test_measured_epochs(epochs: int, measurements: int, expected: set[int]) -> None:
    assert measured_epochs(epochs, measurements) == expected


@pytest.mark.parametrize("epochs", [1, 5, 50, 300, 1234])
@pytest.mark.parametrize("measurements", [2, 12, 40])
def test_measured_epochs_run_from_the_first_to_the_last_and_thin_out(epochs: int, measurements: int) -> None:
    chosen = sorted(measured_epochs(epochs, measurements))
    assert chosen[0] == 1
    assert chosen[-1] == epochs
    assert len(chosen) <= measurements
    gaps = [after - before for before, after in pairwise(chosen)]
    assert all(after >= before - 1 for before, after in pairwise(gaps))  # but for rounding


# ---------------------------------------------------------------------------------------------- what it trains


@pytest.mark.parametrize(
    ("shape", "convolutional"),
    [((1, 8, 8), False), ((3, 16, 16), False), ((1, 28, 28), True), ((3, 32, 32), True), ((1, 8, 17), True)],
)
def test_networks(shape: tuple[int, int, int], convolutional: bool) -> None:
    model = network(shape, 10).eval()
    assert any(isinstance(module, nn.Conv2d) for module in model.modules()) is convolutional
    images = torch.rand(5, *shape)
    features = model.features(images)
    assert features.shape == (5, 64)
    assert features.min() == 0  # ReLU
    assert model.classifier.weight.shape == (10, 64)
    torch.testing.assert_close(model(images), features @ model.classifier.weight.T + model.classifier.bias)


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="data_folder= must be a folder"):
        run(Settings(data_folder=tmp_path / "nothing"), tmp_path / "run")
    with pytest.raises(RangeError, match=r"train_images= must be at most 1400, .* of digits; got 2000"):
        run(Settings(train_images=2000), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_normalised_where_the_data_set_says_so() -> None:
    torch.manual_seed(0)
    plain = network((1, 8, 8), 10).eval()
    torch.manual_seed(0)
    normalised = network((1, 8, 8), 10, (0.25, 0.5)).eval()
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(normalised(images), plain((images - 0.25) / 0.5), rtol=0, atol=0)
    assert str(normalised.features[0]) == "Normalise(mean=0.25, deviation=0.5)"


@dataclass(frozen=True, kw_only=True)
class Stripes(DatasetSource):
    """Noisy stripes of three widths, a data set of a user's."""

    def read(self, folder: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(self.train_size + self.test_size) % 3
        stripes = torch.stack([((torch.arange(8) // (k + 1)) % 2).float() for k in range(3)])
        noise = torch.rand(len(labels), 1, 8, 8, generator=generator)
        images = 0.5 * stripes[labels][:, None, None].expand(-1, 1, 8, 8) + 0.5 * noise
        n = self.train_size
        return images[:n], labels[:n], images[n:], labels[n:], "drawn"

    def locate(self) -> Path | None:
        return None


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch) -> DatasetSource:
    row = Stripes(
        name="stripes", description="stripes, grey 8x8", train_size=120, test_size=60, class_names=("1", "2", "3"),
        origin="drawn", normalisation=(0.5, 0.25), epochs=3, weight_decay=1e-3,
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "stripes", row)
    return row


def test_a_user_s_data_set_without_a_tree(stripes: DatasetSource, tmp_path: Path) -> None:
    report, folder = run(Settings(data="stripes", ood="digits", long_tail=2.0), tmp_path)
    assert report.facts.epoch == 3
    assert report.facts.class_names == {"0": "1", "1": "2", "2": "3"}
    assert report["test/balanced_accuracy"].value > 0.5
    assert not {"test/average_cost", "scale_free_distortion"} & set(report.values)
    assert "stripes has no tree of classes: no costs of decisions are reported." in report.notes
    assert "Normalise(mean=0.5, deviation=0.25)" in folder.description["model"]
    assert folder.description["arguments"]["weight_decay"] == 1e-3


@pytest.mark.usefixtures("quick_measurements")
def test_heads_on_data_without_a_tree(stripes: DatasetSource, tmp_path: Path) -> None:
    report, _ = run(Settings(data="stripes", head="etf", loss="cross-entropy"), tmp_path)
    assert "scale_free_distortion" not in report.values
    for head in ("hierarchical", "metric-guided", "metric-fixed", "hierarchy-aware"):
        with pytest.raises(OptionError, match=r"'stripes' has no tree of classes: head must be one of linear, .*ncm"):
            Settings(data="stripes", head=head)
    with pytest.raises(
        OptionError, match=r"no tree of classes: loss must be one of cross-entropy, dot.*'expected-cost'"
    ):
        Settings(data="stripes", loss="expected-cost")


@pytest.mark.usefixtures("quick_measurements")
def test_a_last_batch_of_one_row_is_left_out(tmp_path: Path) -> None:
    """Batch normalisation would refuse it; there are 1400 training images."""
    report, _ = run(Settings(epochs=1, batch_size=1399), tmp_path)
    assert report.facts.samples == 1400


@pytest.mark.usefixtures("quick_measurements")
def test_the_rate_is_cut_after_half_and_three_quarters_of_the_epochs(tmp_path: Path) -> None:
    rates: list[float] = []

    def note(optimiser: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        rates.extend(group["lr"] for group in optimiser.param_groups)

    handle = register_optimizer_step_post_hook(note)
    try:
        run(Settings(epochs=4, batch_size=1400, learning_rate=0.04, measurements=2), tmp_path)
    finally:
        handle.remove()
    assert rates == pytest.approx([0.04, 0.04, 0.004, 0.0004], rel=1e-12)


# ---------------------------------------------------------------------------------------------- what it reports


def test_the_series_starts_with_epoch_one(short: tuple[Report, RunFolder, list[Epoch]]) -> None:
    report, _, _ = short
    assert [r.facts.epoch for r in (*report.history, report)] == [1, 2, 3]
    assert report["nc1"].value < report.history[0]["nc1"].value
    assert len({r["nc1"].value for r in (*report.history, report)}) == 3


def test_every_epoch_is_told(short: tuple[Report, RunFolder, list[Epoch]]) -> None:
    report, _, seen = short
    assert [(epoch.number, epoch.epochs) for epoch in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[2].loss < seen[0].loss
    assert 0 < seen[0].accuracy < seen[2].accuracy <= 1
    assert [p.report["nc1"].value for p in seen] == [r["nc1"].value for r in (*report.history, report)]


def test_all_families_are_reported(short: tuple[Report, RunFolder, list[Epoch]]) -> None:
    report, _, _ = short
    usual = {metric.family for metric in METRICS.values() if metric.by_default}
    assert {entry.family for entry in report} == usual | {"OOD"}
    assert "test/ncc_mismatch" in report.values
    assert report.facts.samples == 1400
    assert report.facts.classifier == "classifier"
    assert report.facts.class_names == {digit: digit for digit in "0123456789"}


def test_the_run_folder_is_complete(short: tuple[Report, RunFolder, list[Epoch]]) -> None:
    report, folder, _ = short
    assert {path.name for path in folder.path.iterdir()} == FILES
    assert len(list((folder.path / "statistics").iterdir())) == 3
    described = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
    assert described["command"] == "demo"
    assert described["arguments"]["epochs"] == 3
    assert described["arguments"]["seed"] == 0
    assert isinstance(described["arguments"]["weight_decay"], float)  # what was used, not None
    stored = RunFolder(folder.path).report()
    assert stored.values == pytest.approx(report.values, rel=0, abs=0, nan_ok=True)
    assert [r.values for r in stored.history] == [r.values for r in report.history]
    page = folder.report_path.read_text(encoding="utf-8")
    assert "<h1>tightframe · digits" in page
    assert "Collapse over training" in page


def test_the_saved_model_gives_the_last_measurement(short: tuple[Report, RunFolder, list[Epoch]]) -> None:
    report, folder, _ = short
    data = datasets.load("digits")
    model = network(data.image_shape, data.num_classes)
    model.load_state_dict(folder.load_weights())
    again = measure(model, [(data.train_images, data.train_labels)], progress=False)
    for key, value in again.values.items():
        assert report[key].value == pytest.approx(value, rel=1e-5, abs=1e-7), key
    assert torch.equal(folder.report().evidence.weight, model.classifier.weight.detach().double())


@pytest.mark.usefixtures("quick_measurements")
def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, folder = run(Settings(epochs=2, seed=5), tmp_path / "a")
    torch.rand(7)  # whatever was drawn in between
    second, other = run(Settings(epochs=2, seed=5), tmp_path / "b")
    assert first.values == pytest.approx(second.values, rel=0, abs=0, nan_ok=True)
    assert [r.values for r in first.history] == [r.values for r in second.history]
    for name, tensor in folder.load_weights().items():
        assert torch.equal(other.load_weights()[name], tensor), name
    third, _ = run(Settings(epochs=2, seed=6), tmp_path / "c")
    assert third.values != first.values


@pytest.mark.usefixtures("quick_measurements")
def test_a_second_run_replaces_the_first_only_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Settings(epochs=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load", None)  # data aren't loaded
        with pytest.raises(StateError, match="overwrite=True"):
            run(Settings(epochs=1, seed=1), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    report, folder = run(Settings(epochs=1, seed=1), tmp_path, overwrite=True)
    assert folder.report().values == pytest.approx(report.values, rel=0, abs=0, nan_ok=True)
    assert folder.report().history == ()
    assert len(list((tmp_path / "statistics").iterdir())) == 1


def test_a_path_that_cant_be_a_run_folder_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load", None)  # data aren't loaded
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(StateError, match="file is not a folder; choose another path"):
        run(Settings(epochs=1), tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(StateError, match=f"new/run can't be written: {tmp_path} is read-only. Make it writable, or"):
        run(Settings(epochs=1), tmp_path / "new/run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("quick_measurements")
def test_an_interrupted_run_keeps_its_measurements(tmp_path: Path) -> None:
    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^2 measurements up to epoch 2 in .*; show with: tightframe report "):
        run(Settings(epochs=100, measurements=8), tmp_path / "run", interrupt)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FILES - {"model.safetensors"}
    assert RunFolder(tmp_path / "run").report().facts.epoch == 2
    assert "Collapse over training" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick_measurements")
def test_a_run_interrupted_before_its_first_measurement_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Settings(epochs=1), tmp_path / "old")

    def interrupt(*args: object, **options: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr("tightframe.demo.run.measure", interrupt)
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt) as stopped:
            run(Settings(epochs=2), tmp_path / name, overwrite=True)
        assert str(stopped.value) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert RunFolder(tmp_path / "old").report().facts.epoch == 1


# ---------------------------------------------------------------------------------------------- that it collapses


@pytest.mark.parametrize(
    ("settings", "equiangularity"),
    [
        (Settings(epochs=60, measurements=2), 0.1),
        pytest.param(Settings(), 0.03, marks=pytest.mark.slow),  # the defaults, as a user runs them
    ],
)
def test_the_demonstration_reaches_collapse(settings: Settings, equiangularity: float, tmp_path: Path) -> None:
    report, _ = run(settings, tmp_path)
    first = report.history[0]
    assert first.facts.epoch == 1
    assert report["classifier_accuracy"].value >= 0.999
    assert report["nc1"].value <= first["nc1"].value / 20
    assert report["equiangularity"].value <= equiangularity
    assert report["ncc_mismatch"].value <= 0.002
    assert report["nc1"].value < report["nc1"].shuffled / 1000
