"""`CollapseCallback` in Lightning's Trainer: what is measured, when, and what training and checkpoints see of it."""

import csv
import json
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from integrations.processes import WORLD, launch, meet, part
from tightframe import measure
from tightframe.errors import LayerError, LoaderError, StateError
from tightframe.integrations.lightning import CollapseCallback
from tightframe.report import Report, RunFolder

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*this measurement may be a blip:tightframe.errors.BlipWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

CLASSES, DIM, SIZE = 3, 5, 61

quick = partial(CollapseCallback, folds=None)  # standard errors take most of a measurement's time


def data_of(seed: int = 0, size: int = SIZE) -> TensorDataset:
    labels = torch.arange(size) % CLASSES
    noise = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(noise + 2 * torch.eye(4)[labels], labels)


def train_loader() -> DataLoader[Any]:
    return DataLoader(data_of(), batch_size=8, shuffle=True, drop_last=False)


def held_out_loader(seed: int = 1) -> DataLoader[Any]:
    return DataLoader(data_of(seed), batch_size=32)


class Module(pl.LightningModule):
    """A small network with what draws random numbers and what behaves otherwise in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, DIM), nn.BatchNorm1d(DIM), nn.ReLU(), nn.Dropout(0.2), nn.Linear(DIM, CLASSES)
        )
        self.held_out_losses: list[float] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.log("loss", outputs["loss"], on_epoch=True)

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
        self.held_out_losses.append(float(cross_entropy(self(batch[0]), batch[1])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def trainer_of(callbacks: Sequence[pl.Callback], epochs: int = 3, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks),
    }
    return pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), **{**settings, **options})


def fit(
    callback: CollapseCallback | None, *others: pl.Callback, epochs: int = 3, held_out: Any = None, **options: Any
) -> tuple[Module, pl.Trainer]:
    """A module and its trainer, after so many epochs from the same start."""
    torch.manual_seed(3)
    module = Module()
    checkpoint = options.pop("ckpt_path", None)
    trainer = trainer_of([*([] if callback is None else [callback]), *others], epochs, **options)
    trainer.fit(module, train_loader(), held_out, ckpt_path=checkpoint)
    return module, trainer


def epochs_of(callback: CollapseCallback) -> list[float]:
    assert callback.monitor is not None
    return [report.facts.epoch for report in callback.monitor.series]


def values_of(callback: CollapseCallback) -> list[dict[str, float]]:
    assert callback.monitor is not None
    return [report.values for report in callback.monitor.series]


def assert_same_values(reports: Sequence[dict[str, float]], others: Sequence[dict[str, float]]) -> None:
    """Up to rounding: batches may come in another order."""
    assert len(reports) == len(others)
    for values, wanted in zip(reports, others, strict=True):
        assert values == pytest.approx(wanted, rel=1e-5, abs=1e-6, nan_ok=True)


def test_every_epoch_is_measured_on_the_trainers_data() -> None:
    seen: list[float] = []
    callback = CollapseCallback(layers=["net.0"], trackers=[lambda values, epoch: seen.append(epoch)])
    module, _ = fit(callback, held_out=held_out_loader())
    assert epochs_of(callback) == seen == [1, 2, 3]  # each once
    expected = measure(module, train_loader(), layers=["net.0"], test=held_out_loader(), progress=False)
    last = callback.monitor.series[-1]
    assert_same_values([last.values, last.layers[0].values], [expected.values, expected.layers[0].values])
    assert "test/ncc_accuracy" in last.values
    assert last.facts.samples == SIZE
    assert len({report.values["nc1"] for report in callback.monitor.series}) == 3


def test_loaders_of_ones_own_come_first() -> None:
    callback = quick(loader=held_out_loader(5), test=held_out_loader(6), ood=held_out_loader(7), every=2, log=False)
    module, _ = fit(callback, held_out=held_out_loader())
    assert epochs_of(callback) == [1, 3]
    expected = measure(
        module, held_out_loader(5), test=held_out_loader(6), ood=held_out_loader(7), folds=None, progress=False
    )
    assert_same_values([callback.monitor.series[-1].values], [expected.values])


def test_training_goes_on_as_if_nothing_was_measured(tmp_path: Path) -> None:
    def state(callback: CollapseCallback | None) -> tuple[dict[str, Any], Any, list[float], Tensor]:
        module, trainer = fit(callback, held_out=held_out_loader())
        return module.state_dict(), trainer.optimizers[0].state_dict(), module.held_out_losses, torch.rand(1)

    callback = quick(folder=tmp_path, layers="auto")
    watched, alone = state(callback), state(None)
    torch.testing.assert_close(watched, alone, rtol=0, atol=0)
    assert epochs_of(callback) == [1, 2, 3]


def test_the_last_epoch_is_measured_in_any_case_and_trackers_are_called(tmp_path: Path) -> None:
    seen: list[float] = []
    callback = quick(every=2, folder=tmp_path, trackers=[lambda values, epoch: seen.append(epoch)])
    fit(callback, epochs=4)
    assert epochs_of(callback) == seen == [1, 3, 4]
    assert [report.facts.epoch for report in RunFolder(tmp_path).series()] == [1, 3, 4]


def test_steps_that_end_within_an_epoch_end_it() -> None:
    callback = quick()
    fit(callback, epochs=-1, max_steps=11)  # epochs have 8
    assert epochs_of(callback) == [1, 2]


# ---------------------------------------------------------------------- logs


def logged(folder: Path) -> list[dict[str, str]]:
    with next(folder.glob("**/metrics.csv")).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("log", [True, False])
def test_headline_values_are_logged(tmp_path: Path, log: bool) -> None:
    callback = quick(every=2, log=log)
    _, trainer = fit(callback, epochs=4, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    rows = [row for row in logged(tmp_path) if row.get("tightframe/nc1")]
    last = callback.monitor.series[-1]
    if not log:
        assert rows == [] and "tightframe/nc1" not in trainer.callback_metrics
        return
    assert [(float(row["tightframe/epoch"]), int(row["step"])) for row in rows] == [(1, 7), (3, 23), (4, 31)]
    names = {key for key in rows[-1] if key.startswith("tightframe/")} - {"tightframe/epoch"}
    assert names == {f"tightframe/{e.key}" for e in last.entries if e.headline and math.isfinite(e.value)}
    for row, report in zip(rows, callback.monitor.series, strict=True):
        assert float(row["tightframe/nc1"]) == pytest.approx(report.values["nc1"], rel=1e-6)
    third = callback.monitor.series[1].values["nc1"]  # the fourth epoch was measured after the epochs' metrics
    assert float(trainer.callback_metrics["tightframe/nc1"]) == pytest.approx(third, rel=1e-6)


def test_callbacks_can_watch_the_values(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="tightframe/nc1", mode="max", save_on_train_epoch_end=True)
    stopping = EarlyStopping("tightframe/nc1", mode="max", patience=1, check_on_train_epoch_end=True)
    callback = quick()
    fit(callback, stopping, best, epochs=20)
    nc1 = [values["nc1"] for values in values_of(callback)]
    assert len(nc1) < 20  # it falls
    assert float(best.best_model_score) == pytest.approx(max(nc1), rel=1e-6)


# ---------------------------------------------------------------------- checkpoints


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("when", ["at the epoch's end", "at validation", "after the last batch"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_resumed_run_has_neither_gap_nor_duplicate(tmp_path: Path, when: str, every: int) -> None:
    """Checkpoints of the second and third kind are older than the measurement at their epoch's end."""

    def saving() -> ModelCheckpoint:
        late, steps = when == "at the epoch's end", 8 if when == "after the last batch" else None
        return ModelCheckpoint(
            tmp_path / "saved", "{epoch}", save_top_k=-1, save_on_train_epoch_end=late, every_n_train_steps=steps
        )

    whole = quick(every=every, folder=tmp_path / "run")
    fit(whole, saving(), epochs=5, held_out=held_out_loader())
    before = (tmp_path / "run/series.jsonl").read_text()
    resumed = quick(every=every, folder=tmp_path / "run")
    saved = tmp_path / "saved/epoch=2.ckpt"
    fit(resumed, saving(), epochs=5, held_out=held_out_loader(), ckpt_path=saved)
    found = torch.load(saved, weights_only=False)["callbacks"]["CollapseCallback"]["series"]
    assert (found[-1]["facts"]["epoch"] == 3) is (when == "at the epoch's end")
    assert epochs_of(resumed) == epochs_of(whole) == {1: [1, 2, 3, 4, 5], 2: [1, 3, 5]}[every]
    lines = [json.loads(line) for line in (tmp_path / "run/series.jsonl").read_text().splitlines()]
    assert [line["facts"]["epoch"] for line in lines] == epochs_of(whole)
    assert len(list((tmp_path / "run/statistics").iterdir())) == len(lines)
    kept = len([epoch for epoch in epochs_of(whole) if epoch < 3])
    assert (tmp_path / "run/series.jsonl").read_text().splitlines()[:kept] == before.splitlines()[:kept]
    third = epochs_of(whole).index(3)
    assert_same_values(values_of(resumed)[: third + 1], values_of(whole)[: third + 1])


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("step", [12, 16])
def test_a_checkpoint_without_a_series_starts_one_at_whole_epochs(tmp_path: Path, step: int) -> None:
    fit(None, ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=step), held_out=held_out_loader())
    callback = quick()
    fit(callback, held_out=held_out_loader(), ckpt_path=tmp_path / f"step={step}.ckpt")
    assert epochs_of(callback) == [2, 3]


def test_a_run_that_goes_on_in_the_same_trainer_keeps_its_series() -> None:
    callback = quick()
    module, trainer = fit(callback, epochs=2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train_loader())
    assert epochs_of(callback) == [1, 2, 3, 4]


def test_a_new_run_starts_anew(tmp_path: Path) -> None:
    callback = quick(every=3, folder=tmp_path, overwrite=True)
    module, _ = fit(callback, epochs=4)
    before = values_of(callback)
    trainer_of([callback], 2).fit(module, train_loader())
    assert epochs_of(callback) == [1, 2]
    assert values_of(callback)[0] != before[0]
    assert [report.values for report in RunFolder(tmp_path).series()] == values_of(callback)


def test_an_earlier_run_is_overwritten_only_if_asked(tmp_path: Path) -> None:
    fit(quick(folder=tmp_path), epochs=2)
    with pytest.raises(StateError, match=f"{tmp_path} holds 2 measurements of an earlier run. Pass overwrite=True"):
        fit(quick(folder=tmp_path), epochs=2)
    assert len(RunFolder(tmp_path).series()) == 2
    fit(quick(folder=tmp_path, overwrite=True), epochs=1)
    assert len(RunFolder(tmp_path).series()) == 1


def test_a_run_that_failed_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    failing = quick(folder=tmp_path, trackers=[])
    failing.on_train_epoch_end = lambda trainer, module: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        fit(failing)
    fit(quick(folder=tmp_path), epochs=1)
    assert len(RunFolder(tmp_path).series()) == 1


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_checkpoint_that_is_only_tested_takes_nothing_back(tmp_path: Path) -> None:
    callback = quick(folder=tmp_path / "run")
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    module, trainer = fit(callback, saving)
    trainer.validate(module, held_out_loader(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    assert epochs_of(callback) == [1, 2, 3]
    assert len(RunFolder(tmp_path / "run").series()) == 3
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, train_loader())
    assert epochs_of(callback) == [1, 2, 3, 4]


# ---------------------------------------------------------------------- ways to train


def test_a_fast_dev_run_checks_names_and_writes_nothing(tmp_path: Path) -> None:
    fit(quick(folder=tmp_path))
    before = (tmp_path / "series.jsonl").read_text()
    callback = quick(folder=tmp_path)
    fit(callback, fast_dev_run=True)
    assert epochs_of(callback) == []
    assert (tmp_path / "series.jsonl").read_text() == before
    with pytest.raises(LayerError, match="no module of the model matches 'nonsense'"):
        fit(quick(layers="nonsense"), fast_dev_run=True)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_inputs_have_the_trainers_precision(precision: Any, dtype: torch.dtype) -> None:
    callback = quick()
    module, _ = fit(callback, precision=precision, epochs=1)
    inputs, labels = data_of().tensors
    assert module.net[0].weight.dtype is dtype
    expected = measure(module, [(inputs.to(dtype), labels)], folds=None, progress=False)
    assert_same_values([{"nc1": values_of(callback)[0]["nc1"]}], [{"nc1": expected.values["nc1"]}])


def test_features_are_those_under_autocast() -> None:
    callback = quick()
    module, _ = fit(callback, precision="bf16-mixed", epochs=1)
    with torch.autocast("cpu", torch.bfloat16):
        expected = measure(module, train_loader(), folds=None, progress=False)
    plain = measure(module, train_loader(), folds=None, progress=False)
    found = values_of(callback)[0]["nc1"]
    assert found == pytest.approx(expected.values["nc1"], rel=1e-3)
    assert found != plain.values["nc1"]


def test_several_dataloaders() -> None:
    class Several(Module):
        def training_step(self, batch: Any, index: int) -> Tensor:
            return super().training_step(batch["a"], index)

    loaders = {"a": train_loader(), "b": train_loader()}
    with pytest.raises(LoaderError, match=r"must be one train dataloader; there are 2. Choose one with loader="):
        trainer_of([quick()]).fit(Several(), loaders)
    callback, module = quick(loader=loaders["a"]), Several()
    trainer_of([callback], 1).fit(module, loaders, [held_out_loader(8), held_out_loader(9)])
    expected = measure(module, train_loader(), test=held_out_loader(8), folds=None, progress=False)
    assert_same_values(values_of(callback), [expected.values])


@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")
@pytest.mark.parametrize(("held_out", "options"), [(None, {}), ([], {}), (held_out_loader(), {"limit_val_batches": 0})])
def test_without_validation_nothing_is_held_out(held_out: Any, options: dict[str, Any]) -> None:
    callback = quick()
    fit(callback, held_out=held_out, **options)
    assert epochs_of(callback) == [1, 2, 3]
    assert not [key for key in values_of(callback)[0] if key.startswith("test/")]


def test_batches_of_another_form_are_unpacked() -> None:
    from tightframe.sources import Batch

    callback = quick(unpack=lambda batch: Batch((batch[0],), labels=(batch[1] + 1) % CLASSES))
    module, _ = fit(callback, epochs=1)
    inputs, labels = data_of().tensors
    expected = measure(module, [(inputs, (labels + 1) % CLASSES)], folds=None, progress=False)
    assert_same_values(values_of(callback), [expected.values])


class Looking(Module):
    """Calls itself on a batch of the size that is measured, in eval mode."""

    def on_validation_epoch_end(self) -> None:
        self(data_of().tensors[0])


def test_a_compiled_module_is_measured_uncompiled() -> None:
    torch.manual_seed(3)
    module, callback = Looking(), quick()
    compiled: Any = torch.compile(module, backend="eager")
    loader = DataLoader(data_of(), batch_size=SIZE)
    trainer_of([callback], 2, inference_mode=False).fit(compiled, loader, loader)
    assert epochs_of(callback) == [1, 2]
    assert_same_values(
        values_of(callback)[-1:], [measure(module, loader, test=loader, folds=None, progress=False).values]
    )


# ---------------------------------------------------------------------- two processes


def work(rank: int, folder: str) -> None:
    """Fit under data parallelism, and write down what each process has."""
    os.environ["LOCAL_RANK"] = str(rank)
    meet(rank, folder)
    callback = CollapseCallback(folder=Path(folder) / "run", layers=["net.0"])
    module, _ = fit(callback, epochs=2, devices=WORLD, strategy="ddp", held_out=held_out_loader())
    saved = {"model": module.state_dict(), "series": callback.state_dict()["series"]}
    torch.save(saved, Path(folder) / f"{rank}.pt")
    part()


def test_two_processes_measure_all_samples_once(tmp_path: Path) -> None:
    launch(work, tmp_path, "lightning.pytorch", "tightframe.monitor")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    series = [[Report.from_dict(each) for each in each_found["series"]] for each_found in found]
    assert [report.facts.epoch for report in series[0]] == [1, 2]
    assert [report.values for report in series[0]] == [report.values for report in series[1]]
    assert [report.values for report in RunFolder(tmp_path / "run").series()] == [r.values for r in series[0]]
    torch.testing.assert_close(found[0]["model"], found[1]["model"], rtol=0, atol=0)
    module = Module()
    module.load_state_dict(found[0]["model"])
    expected = measure(module, train_loader(), layers=["net.0"], test=held_out_loader(), folds=None, progress=False)
    assert series[0][-1].facts.samples == SIZE
    assert_same_values([series[0][-1].values], [expected.values])
