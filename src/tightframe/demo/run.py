"""Training with measurements, in one go or class by class, into a run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from tightframe import datasets
from tightframe.datasets import Dataset
from tightframe.demo import evaluation
from tightframe.demo.network import is_small
from tightframe.demo.settings import PROFILES, Progress, Settings
from tightframe.demo.training import Trainer, batches
from tightframe.errors import OptionError
from tightframe.heads import ComparisonHead
from tightframe.measuring import measure
from tightframe.monitor import Monitor
from tightframe.numerics import one_thread
from tightframe.report import Report, RunFolder

_MEASURED_ROWS = 512  # rows of a measured batch


def run(
    settings: Settings, folder: str | os.PathLike[str], watch: Callable[[Progress], None] = lambda progress: None
) -> tuple[Report, RunFolder]:
    """Train, measure, and write the run folder; returns the last report (with its history) and the folder.

    Args:
        watch: called after every epoch.

    Raises: DatasetError for unknown or missing data; OptionError for heads, losses and sessions that don't fit.
    """
    started = time.perf_counter()
    data, groups = _training_data(settings)
    outside = datasets.load_outside(settings.ood, data.image_shape, 1000, settings.seed, settings.data_folder)
    hierarchy = datasets.hierarchy_of(data.name)
    small = is_small(data.image_shape)
    sessions = 1 if settings.incremental is None else settings.incremental
    if not 1 <= sessions <= data.num_classes:
        raise OptionError(f"{data.num_classes} classes arrive in 1 to as many sessions; got {sessions}.")
    default_epochs = (300 if small else 10) if sessions == 1 else (60 if small else 2)
    epochs = settings.epochs if settings.epochs is not None else default_epochs
    decay = settings.weight_decay if settings.weight_decay is not None else (1e-2 if small else 5e-4)
    torch.manual_seed(settings.seed)
    trainer = Trainer(settings, data, hierarchy, epochs, decay)
    model = trainer.model
    used = {**asdict(settings), "epochs": epochs, "weight_decay": decay, "loss": trainer.loss}
    description = {"command": "demo", "arguments": used, "data": data.source, "model": str(model)}
    known = [round(data.num_classes * (number + 1) / sessions) for number in range(sessions)]  # after each session
    named_head = "" if settings.head == "linear" else f", {settings.head} head"
    facts: dict[str, Any] = {
        "title": f"tightframe · {data.name}{named_head}",
        "data": data.source,
        "out_of_distribution": settings.ood,
        "class_names": list(data.class_names),
    }
    when = measured_epochs(epochs, settings.measurements) if sessions == 1 else {epochs}
    monitor: Monitor | None = None
    report: Report | None = None
    with one_thread() if small else nullcontext():
        for number, classes in enumerate(known):
            trainer.begin(classes)
            if monitor is None:
                monitor = Monitor(model, folder=folder, description=description, progress=False)
            if sessions > 1:
                edges = [0, *known]
                groups = {f"session {i + 1}": range(edges[i], edges[i + 1]) for i in range(number + 1)}
                facts["session"] = number + 1
            seen = _first(data, classes)
            held = evaluation.Held(
                seen.test_images, seen.test_labels, hierarchy.distances()[:classes, :classes], groups
            )
            for step in range(1, epochs + 1):
                loss, accuracy = trainer.epoch()
                epoch = number * epochs + step
                if step in when:
                    context = {**facts, "epoch": epoch, "seconds": time.perf_counter() - started}
                    report = monitor.record(_measured(trainer, seen, outside, held, settings.layers, context))
                watch(Progress(epoch, epochs * sessions, loss, accuracy, report))
    assert monitor is not None and monitor.folder is not None
    monitor.folder.save_model(model)
    final = monitor.report()
    monitor.folder.write_html(final)
    return final, monitor.folder


def measured_epochs(epochs: int, measurements: int) -> set[int]:
    """About `measurements` epochs from the first to the last, evenly spaced in their logarithm."""
    steps = max(measurements - 1, 1)
    return {round(epochs ** (step / steps)) for step in range(steps + 1)} | {1, epochs}


def _measured(
    trainer: Trainer,
    data: Dataset,
    outside: Tensor,
    held: evaluation.Held,
    layers: Sequence[str],
    context: Mapping[str, Any],
) -> Report:
    """The collapse measures, with rows on what is decided on held-out images and on the head."""
    report = measure(
        trainer.model,
        batches(data.train_images, data.train_labels, _MEASURED_ROWS),
        test=batches(data.test_images, data.test_labels, _MEASURED_ROWS),
        ood=[(part,) for part in outside.split(_MEASURED_ROWS)],
        layers=layers,
        training=trainer.known,
        progress=False,
        context=context,
    )
    entries = evaluation.rows(trainer.model, held)
    notes = []
    head = trainer.head
    if isinstance(head, ComparisonHead):
        entries.append(evaluation.distortion_row(head.weight, held.cost))
    if "minority" in held.groups and report.evidence is not None:
        fixed = bool(report.facts.classifier_fixed)
        rows, note = evaluation.minority_rows(report.evidence, held.groups["minority"], fixed=fixed)
        entries += rows
        notes.append(note)
    entries = [entry for entry in entries if entry.key not in report.values]  # a linear head's are measured already
    return report.extended(entries, notes)


def _training_data(settings: Settings) -> tuple[Dataset, dict[str, Sequence[int]]]:
    """The data set, cut down as asked, and the groups of classes that were cut differently."""
    data = datasets.load(settings.data, settings.data_folder)
    if settings.train_images is not None:
        if not 1 <= settings.train_images <= len(data.train_labels):
            raise OptionError(f"{data.name} has {len(data.train_labels)} training images; got {settings.train_images}.")
        generator = torch.Generator().manual_seed(settings.seed)
        chosen = torch.randperm(len(data.train_labels), generator=generator)[: settings.train_images]
        data = replace(data, train_images=data.train_images[chosen], train_labels=data.train_labels[chosen])
    if settings.long_tail is None:
        return data, {}
    if settings.profile not in PROFILES:
        raise OptionError(f"the profile must be one of {', '.join(PROFILES)}; got {settings.profile!r}.")
    num = data.num_classes
    largest = int(torch.bincount(data.train_labels, minlength=num).min())
    if settings.profile == "step":
        counts = datasets.step_counts(largest, num, settings.long_tail)
        half = (num + 1) // 2
        groups: dict[str, Sequence[int]] = {"majority": range(half), "minority": range(half, num)}
    else:
        counts = datasets.exponential_counts(largest, num, settings.long_tail)
        third, rest = round(num / 3), round(2 * num / 3)
        groups = {"many-shot": range(third), "medium-shot": range(third, rest), "few-shot": range(rest, num)}
    return datasets.subsample(data, counts, seed=settings.seed), groups


def _first(data: Dataset, classes: int) -> Dataset:
    """The images of the first classes only."""
    if classes == data.num_classes:
        return data
    train, test = data.train_labels < classes, data.test_labels < classes
    return replace(
        data,
        train_images=data.train_images[train],
        train_labels=data.train_labels[train],
        test_images=data.test_images[test],
        test_labels=data.test_labels[test],
        class_names=data.class_names[:classes],
    )
