"""`CollapseCallback` in transformers' Trainer: images and tokens, when it measures, and what checkpoints hold."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from integrations.processes import WORLD, launch, meet, part
from thinned import beyond
from tightframe import ClassStatistics, measure, metrics
from tightframe.errors import StateError
from tightframe.integrations.transformers import CollapseCallback
from tightframe.report import Report, RunFolder

pytestmark = pytest.mark.integration

CLASSES, SIZE = 3, 31
VOCABULARY, LENGTH = 12, 7

quick = partial(CollapseCallback, folds=None)  # standard errors take most of a measurement's time


def without_datasets(patch: pytest.MonkeyPatch) -> None:
    """The folder of tests of data sets is on the path, and looks like Hugging Face's package of that name."""
    for module in ("transformers.trainer", "accelerate.data_loader"):
        patch.setattr(f"{module}.is_datasets_available", lambda: False)


@pytest.fixture(autouse=True)
def _without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    without_datasets(monkeypatch)


class Samples(Dataset[dict[str, Tensor]]):
    """A map-style data set of mappings."""

    def __init__(self, columns: dict[str, Tensor]):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def images_of(seed: int = 0, size: int = SIZE) -> Samples:
    labels = torch.arange(size) % CLASSES
    noise = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Samples({"pixel_values": noise + torch.eye(8)[labels][:, None, None], "labels": labels})


def texts_of(seed: int = 0, size: int = SIZE) -> Samples:
    """Sentences of other lengths, padded; labels are the tokens, as collators for language models make them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY - 2, (size, LENGTH), generator=generator)
    lengths = 2 + torch.arange(size) % (LENGTH - 1)
    mask = torch.arange(LENGTH) < lengths[:, None]
    return Samples({"input_ids": tokens, "attention_mask": mask.long(), "labels": torch.where(mask, tokens, -100)})


def vit() -> ViTForImageClassification:
    torch.manual_seed(3)
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=4,
            num_channels=1,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=CLASSES,
        )
    )


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )


def trainer_of(
    folder: Path,
    model: nn.Module,
    data: Any,
    callbacks: Sequence[TrainerCallback],
    held_out: Any = None,
    **options: Any,
) -> Trainer:
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 5,
    }
    arguments = TrainingArguments(output_dir=str(folder / "trainer"), **{**settings, **options})
    return Trainer(model, arguments, train_dataset=data, eval_dataset=held_out, callbacks=list(callbacks))


def batches(data: Samples, size: int = 16) -> list[dict[str, Tensor]]:
    return [{k: v[i : i + size] for k, v in data.columns.items()} for i in range(0, len(data), size)]


def epochs_of(callback: CollapseCallback) -> list[float]:
    assert callback.monitor is not None
    return [report.facts.epoch for report in callback.monitor.series]


def assert_same_values(values: dict[str, float], others: dict[str, float]) -> None:
    assert values == pytest.approx(others, rel=1e-4, abs=1e-6, nan_ok=True)


# ---------------------------------------------------------------------- what is measured


def test_every_epoch_of_a_vit_is_measured_on_the_trainers_data(tmp_path: Path) -> None:
    model, callback = vit(), quick(layers="auto")
    trainer_of(tmp_path, model, images_of(), [callback], images_of(1), eval_strategy="epoch").train()
    assert epochs_of(callback) == [1, 2, 3]
    data = batches(images_of())
    expected = measure(model, data, test=batches(images_of(1)), layers="auto", folds=None, progress=False)
    last = callback.monitor.series[-1]
    assert_same_values(last.values, expected.values)
    assert [layer.facts.layer for layer in last.layers] == [layer.facts.layer for layer in expected.layers]
    assert last.facts.samples == SIZE
    assert all("test/ncc_accuracy" in report.values for report in callback.monitor.series)


def test_positions_of_a_language_model_have_the_next_token_as_label(tmp_path: Path) -> None:
    model, data, callback = gpt2(), texts_of(), quick()
    trainer_of(tmp_path, model, data, [callback], num_train_epochs=1).train()
    report = callback.monitor.series[-1]
    model.eval()
    features, labels = [], []
    with torch.no_grad():
        for row in range(len(data)):
            length = int(data.columns["attention_mask"][row].sum())
            tokens = data.columns["input_ids"][row, :length]
            hidden = model.transformer(tokens[None]).last_hidden_state[0]
            for position in range(length - 1):
                features.append(hidden[position].double())
                labels.append(int(tokens[position + 1]))
    statistics = ClassStatistics.from_features(torch.stack(features), torch.tensor(labels), VOCABULARY)
    weight = model.lm_head.weight.detach().double()
    assert report.facts.samples == len(labels)
    assert report.facts.classes == VOCABULARY
    assert_same_values(
        {name: report.values[name] for name in ("nc1", "cdnv", "etf_error", "self_duality_error")},
        {
            "nc1": float(metrics.nc1(statistics)),
            "cdnv": float(metrics.cdnv(statistics)),
            "etf_error": float(metrics.etf_error(statistics)),
            "self_duality_error": float(metrics.self_duality_error(statistics, weight)),
        },
    )
    correct = [int((weight @ rows).argmax()) == label for rows, label in zip(features, labels, strict=True)]
    assert report.values["classifier_accuracy"] == pytest.approx(sum(correct) / len(labels))


def test_labels_are_next_tokens_as_asked(tmp_path: Path) -> None:
    values = {}
    for shift in (None, True, False):
        model = gpt2()
        callback = quick(next_token=shift)
        trainer_of(tmp_path, model, texts_of(), [callback], num_train_epochs=1, max_steps=1).train()
        values[shift] = callback.monitor.series[-1]
    assert str(values[None].values) == str(values[True].values)  # as text, since NaN isn't equal to itself
    assert any("next token" in note for note in values[None].notes)
    padded = texts_of().columns["labels"]
    assert values[False].facts.samples == int((padded != -100).sum())
    assert values[None].facts.samples == int((padded[:, 1:] != -100).sum())


def test_loaders_and_options_of_ones_own(tmp_path: Path) -> None:
    data, model = batches(images_of(4)), vit()
    callback = quick(
        loader=data, test=batches(images_of(6)), ood=batches(images_of(5)), classifier="classifier", every=2
    )
    trainer_of(tmp_path, model, images_of(), [callback], images_of(1), num_train_epochs=4).train()
    assert epochs_of(callback) == [1, 3, 4]
    expected = measure(model, data, test=batches(images_of(6)), ood=batches(images_of(5)), folds=None, progress=False)
    assert_same_values(callback.monitor.series[-1].values, expected.values)


def test_a_stream_is_measured_as_the_trainer_reads_it(tmp_path: Path) -> None:
    class Stream(IterableDataset[dict[str, Tensor]]):
        def __iter__(self) -> Any:
            return (images_of()[index] for index in range(SIZE))

    model, callback = vit(), quick()
    trainer_of(tmp_path, model, Stream(), [callback], max_steps=6).train()
    assert callback.monitor.series[-1].facts.samples == SIZE
    assert_same_values(
        callback.monitor.series[-1].values, measure(model, batches(images_of()), folds=None, progress=False).values
    )


# ---------------------------------------------------------------------- training goes on


def test_training_goes_on_as_if_nothing_was_measured(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [quick(folder=tmp_path / "run", layers="auto")]):
        model = vit()
        trainer = trainer_of(tmp_path, model, images_of(), callbacks, images_of(1), eval_strategy="epoch")
        trainer.train()
        losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        found.append((model.state_dict(), trainer.optimizer.state_dict()["state"], losses, torch.rand(1)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert len(RunFolder(tmp_path / "run").series()) == 3


def test_values_are_in_the_log_history(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    callback = quick(every=2, trackers=[lambda values, epoch: seen.append((epoch, values["nc1"]))])
    trainer = trainer_of(tmp_path, vit(), images_of(), [callback])
    trainer.train()
    logs = [log for log in trainer.state.log_history if "tightframe/nc1" in log]
    assert [(log["epoch"], log["step"]) for log in logs] == [(1, 4), (3, 12)]
    assert [(log["epoch"], log["tightframe/nc1"]) for log in logs] == seen
    assert [report.values["nc1"] for report in callback.monitor.series] == [nc1 for _, nc1 in seen]


def test_steps_that_end_within_an_epoch_are_a_fraction_of_it(tmp_path: Path) -> None:
    callback = quick()
    trainer_of(tmp_path, vit(), images_of(), [callback], max_steps=6).train()
    assert epochs_of(callback) == [1, 1.5]


@pytest.mark.parametrize("stopping_first", [True, False])
def test_the_last_epoch_isnt_taken_for_the_best(tmp_path: Path, stopping_first: bool) -> None:
    """Training stops at an evaluation, and the best weights are back before `on_train_end`."""
    callback, stopping = quick(every=3), EarlyStoppingCallback(1, early_stopping_threshold=1e9)
    trainer = trainer_of(
        tmp_path,
        vit(),
        images_of(),
        [stopping, callback] if stopping_first else [callback, stopping],
        images_of(1),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer.train()
    assert trainer.state.epoch == 2
    assert epochs_of(callback) == ([1, 2] if stopping_first else [1])


@pytest.mark.parametrize("when", beyond(1, [{"eval_strategy": "epoch"}, {"eval_strategy": "steps", "eval_steps": 2}]))
@pytest.mark.parametrize("start", beyond(1, [False, True]))
def test_of_several_evaluations_the_first_counts(tmp_path: Path, when: dict[str, Any], start: bool) -> None:
    model, callback = vit(), quick()
    held_out = {"a": images_of(1), "b": images_of(2)}
    trainer_of(tmp_path, model, images_of(), [callback], held_out, eval_on_start=start, **when).train()
    assert epochs_of(callback) == [1, 2, 3]
    expected = measure(model, batches(images_of()), test=batches(images_of(1)), folds=None, progress=False)
    assert_same_values(callback.monitor.series[-1].values, expected.values)


class Besides(TrainerCallback):
    """Evaluates on other data, at the end of every epoch or step."""

    def __init__(self, event: str):
        setattr(self, event, self._evaluate)

    def _evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        due = control.should_evaluate
        self.trainer.evaluate(images_of(2))
        control.should_evaluate = due


@pytest.mark.parametrize("event", beyond(1, ["on_epoch_end", "on_epoch_begin", "on_step_begin"]))
def test_an_evaluation_of_the_users_changes_nothing(tmp_path: Path, event: str) -> None:
    model, callback, besides = vit(), quick(), Besides(event)
    steps = {"eval_strategy": "steps", "eval_steps": 2, "num_train_epochs": 2}
    trainer = trainer_of(tmp_path, model, images_of(), [besides, callback], images_of(1), **steps)
    besides.trainer = trainer
    trainer.evaluate(images_of(3))
    trainer.train()
    assert epochs_of(callback) == [1, 2]
    expected = measure(model, batches(images_of()), test=batches(images_of(1)), folds=None, progress=False)
    assert_same_values(callback.monitor.series[-1].values, expected.values)


def test_an_evaluation_before_training_brings_no_held_out_data(tmp_path: Path) -> None:
    callback = quick()
    trainer = trainer_of(tmp_path, vit(), images_of(), [callback], num_train_epochs=1)
    trainer.evaluate(images_of(3))
    trainer.train()
    assert not any(key.startswith("test/") for key in callback.monitor.series[-1].values)


# ---------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("save", beyond(1, [{"save_strategy": "epoch"}, {"save_strategy": "steps", "save_steps": 4}]))
@pytest.mark.parametrize("every", beyond(1, [1, 2]))
def test_a_resumed_run_has_neither_gap_nor_duplicate(tmp_path: Path, save: dict[str, Any], every: int) -> None:
    """The checkpoint of an epoch's last step, unlike that of the epoch, is older than the measurement there."""

    def series() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "run/series.jsonl").read_text().splitlines()]

    whole = quick(every=every, folder=tmp_path / "run")
    trainer_of(tmp_path, gpt2(), texts_of(), [whole], num_train_epochs=5, **save).train()
    before = series()
    resumed = quick(every=every, folder=tmp_path / "run")
    trainer = trainer_of(tmp_path, gpt2(), texts_of(), [resumed], num_train_epochs=5, **save)
    trainer.train(resume_from_checkpoint=str(tmp_path / "trainer/checkpoint-12"))
    assert epochs_of(resumed) == epochs_of(whole) == {1: [1, 2, 3, 4, 5], 2: [1, 3, 5]}[every]
    for report, other in zip(resumed.monitor.series, whole.monitor.series, strict=True):
        assert_same_values(report.values, other.values)
    assert [line["facts"]["epoch"] for line in series()] == epochs_of(whole)
    assert len(list((tmp_path / "run/statistics").iterdir())) == len(series())
    kept = len([epoch for epoch in epochs_of(whole) if epoch < 3])
    assert series()[:kept] == before[:kept]


def test_a_checkpoint_moved_elsewhere_is_enough(tmp_path: Path) -> None:
    whole = quick()
    trainer_of(tmp_path, vit(), images_of(), [whole], save_strategy="epoch").train()
    (tmp_path / "trainer/checkpoint-8").rename(tmp_path / "elsewhere")
    resumed = quick()
    trainer = trainer_of(tmp_path, vit(), images_of(), [resumed])
    trainer.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))
    assert epochs_of(resumed) == [1, 2, 3]
    assert [r.values for r in resumed.monitor.series[:2]] == [r.values for r in whole.monitor.series[:2]]


def test_a_new_run_starts_anew(tmp_path: Path) -> None:
    callback = quick(folder=tmp_path / "run", overwrite=True)
    trainer = trainer_of(tmp_path, vit(), images_of(), [callback], num_train_epochs=2)
    trainer.train()
    first = callback.monitor
    refused = trainer_of(tmp_path, vit(), images_of(), [quick(folder=tmp_path / "run")])
    with pytest.raises(StateError, match=r"holds 2 measurements of an earlier run\. Pass overwrite=True"):
        refused.train()
    trainer.train()
    assert callback.monitor is not first
    assert epochs_of(callback) == [1, 2]
    trainer.evaluate(images_of(1))
    assert epochs_of(callback) == [1, 2]


def test_evaluation_before_training_is_no_measurement(tmp_path: Path) -> None:
    callback = quick()
    trainer_of(tmp_path, vit(), images_of(), [callback], images_of(1)).evaluate()
    assert callback.monitor is None


# ---------------------------------------------------------------------- two processes


def work(rank: int, folder: str) -> None:
    """Train under data parallelism, and write down what each process has."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}  # of no use, as they have met
    meet(rank, folder)
    without_datasets(pytest.MonkeyPatch())
    model, callback = vit(), CollapseCallback(folder=Path(folder) / "run")
    trainer_of(
        Path(folder), model, images_of(), [callback], images_of(1), num_train_epochs=2, eval_strategy="epoch"
    ).train()
    torch.save({"model": model.state_dict(), **callback.monitor.state_dict()}, Path(folder) / f"{rank}.pt")
    part()


def test_two_processes_measure_all_samples_once(tmp_path: Path) -> None:
    launch(work, tmp_path, "transformers.trainer", "transformers.models.vit.modeling_vit", "tightframe.monitor")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    series = [[Report.from_dict(each) for each in state["series"]] for state in found]
    assert [report.facts.epoch for report in series[0]] == [1, 2]
    assert [report.values for report in series[0]] == [report.values for report in series[1]]
    assert [report.values for report in RunFolder(tmp_path / "run").series()] == [r.values for r in series[0]]
    torch.testing.assert_close(found[0]["model"], found[1]["model"], rtol=0, atol=0)
    model = vit()
    model.load_state_dict(found[0]["model"])
    expected = measure(model, batches(images_of()), test=batches(images_of(1)), folds=None, progress=False)
    assert series[0][-1].facts.samples == SIZE
    assert_same_values(series[0][-1].values, expected.values)
