"""Training with measurements, in one go or class by class, into a run folder."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tightframe import datasets
from tightframe.datasets import DATASETS, Dataset
from tightframe.demo import evaluation
from tightframe.demo.network import is_small
from tightframe.demo.settings import PROFILES, Settings
from tightframe.demo.training import Trainer, batches
from tightframe.errors import FolderWarning, RangeError, StateError
from tightframe.heads import ComparisonHead
from tightframe.measuring import measure
from tightframe.monitor import Monitor
from tightframe.numerics import one_thread
from tightframe.report import Report, RunFolder

_MEASURED_ROWS = 512  # of a batch
_OUTSIDE = 1000  # out-of-distribution images


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its number of `epochs`, mean loss and accuracy in training, the latest report."""

    number: int
    epochs: int
    loss: float
    accuracy: float
    report: Report | None


def run(
    settings: Settings,
    folder: str | os.PathLike[str],
    watch: Callable[[Epoch], None] = lambda epoch: None,
    *,
    overwrite: bool = False,
) -> tuple[Report, RunFolder]:
    """Train, measure, and write the run folder; returns the last report (with its history) and the folder.

    The folder is written from the first measurement on; where training is interrupted, its page shows the measurements
    so far.

    Args:
        watch: called after every epoch.
        overwrite: replace an earlier run in the folder.

    Raises: StateError for a folder with an earlier run; DatasetError for missing data; RangeError for more training
    images than there are; KeyboardInterrupt with a sentence on the measurements in the folder, where there are any.
    """
    started = time.perf_counter()
    require_free(folder, overwrite=overwrite)
    settings = settings.filled()
    assert settings.epochs is not None
    data, groups = _training_data(settings)
    outside = datasets.load_outside(settings.ood, data.image_shape, _OUTSIDE, settings.seed, settings.data_folder)
    hierarchy = None if DATASETS[settings.data].tree is None else datasets.hierarchy_of(settings.data)
    sessions = settings.incremental or 1
    torch.manual_seed(settings.seed)
    trainer = Trainer(settings, data, hierarchy)
    description = {"command": "demo", "arguments": asdict(settings), "data": data.source, "model": str(trainer.model)}
    facts: dict[str, Any] = {
        "title": f"tightframe · {data.name}{'' if settings.head == 'linear' else f', {settings.head} head'}",
        "data": data.source,
        "out_of_distribution": settings.ood,
        "class_names": list(data.class_names),
    }
    when = measured_epochs(settings.epochs, settings.measurements) if sessions == 1 else {settings.epochs}
    edges = [round(data.num_classes * session / sessions) for session in range(sessions + 1)]
    monitor: Monitor | None = None
    report: Report | None = None
    try:
        with one_thread() if is_small(data.image_shape) else nullcontext():
            for session, classes in enumerate(edges[1:], 1):
                trainer.begin(classes)
                if sessions > 1:
                    groups = {f"session {i}": range(*pair) for i, pair in enumerate(pairwise(edges[: session + 1]), 1)}
                    facts["session"] = session
                seen = _first(data, classes)
                cost = None if hierarchy is None else hierarchy.distances()[:classes, :classes]
                for step in range(1, settings.epochs + 1):
                    loss, accuracy = trainer.epoch()
                    epoch = (session - 1) * settings.epochs + step
                    if step in when:
                        context = {**facts, "epoch": epoch, "seconds": time.perf_counter() - started}
                        measured = _measured(trainer, seen, outside, cost, groups, settings.layers, context)
                        if monitor is None:
                            monitor = Monitor(
                                trainer.model,
                                folder=folder,
                                overwrite=overwrite,
                                description=description,
                                progress=False,
                            )
                        report = monitor.record(measured)
                    watch(Epoch(epoch, settings.epochs * sessions, loss, accuracy, report))
        assert monitor is not None
        final = monitor.report()
        written = _saved(monitor, trainer.model, final)
    except KeyboardInterrupt:
        if monitor is None or monitor.folder is None or not monitor.series:
            raise
        try:
            monitor.folder.write_html(monitor.report())
        finally:
            raise KeyboardInterrupt(_remains(monitor.series, os.fspath(folder))) from None
    finally:
        if monitor is not None:
            monitor.close()
    return final, written


def _saved(monitor: Monitor, model: nn.Module, final: Report) -> RunFolder:
    """The run folder with weights and page; one for temporary files if the run's own can't be written any more."""
    assert monitor.folder is not None

    def save(folder: RunFolder) -> None:
        folder.save_model(model)
        folder.write_html(final)

    try:
        save(monitor.folder)
    except OSError as error:
        other = tempfile.mkdtemp(prefix="tightframe-")
        monitor.save(other)
        folder = RunFolder.resume(other, {})
        save(folder)
        folder.close()
        reason = f"{monitor.folder.path} can't be written ({error.strerror or error})"
        warnings.warn(f"{reason}; the run is saved in {other}.", FolderWarning, stacklevel=3)
        return folder
    return monitor.folder


def _remains(series: Sequence[Report], folder: str) -> str:
    """The measurements of an interrupted run, and the command that shows them."""
    many = f"{len(series)} measurement{'s' if len(series) > 1 else ''}"
    shown = f"tightframe report {shlex.quote(folder)}"
    return f"{many} up to epoch {series[-1].facts.epoch:g} in {folder}; show with: {shown}"


def require_free(folder: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises: StateError for a folder with an earlier run, unless `overwrite`, with files of another origin, or that
    can't be written."""
    run_folder = RunFolder(folder)
    run_folder.require_startable(overwrite=True)
    if not overwrite and run_folder.series_path.is_file() and run_folder.series_path.stat().st_size:
        raise StateError(
            f"{os.fspath(folder)} holds an earlier run. Replace it with overwrite=True, or take another folder."
        )


def measured_epochs(epochs: int, measurements: int) -> set[int]:
    """About `measurements` epochs from the first to the last, evenly spaced in their logarithm."""
    steps = max(measurements - 1, 1)
    return {round(epochs ** (step / steps)) for step in range(steps + 1)} | {1, epochs}


def _measured(
    trainer: Trainer,
    data: Dataset,
    outside: Tensor,
    cost: Tensor | None,
    groups: Mapping[str, Sequence[int]],
    layers: Sequence[str],
    context: Mapping[str, Any],
) -> Report:
    """The collapse measures, with entries on the decisions on held-out images and on the head."""
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
    entries = evaluation.rows(trainer.model, data, cost, groups)
    notes = [f"{data.name} has no tree of classes: no costs of decisions are reported."] if cost is None else []
    if cost is not None and isinstance(trainer.head, ComparisonHead):
        entries.append(evaluation.distortion_row(trainer.head.weight, cost))
    if "minority" in groups and report.evidence is not None:
        fixed = bool(report.facts.classifier_fixed)
        entry, note = evaluation.minority_row(report.evidence, groups["minority"], fixed=fixed)
        entries.append(entry)
        notes.append(note)
    entries = [entry for entry in entries if entry.key not in report.values]  # a linear head's are measured already
    return report.extended(entries, notes)


def _training_data(settings: Settings) -> tuple[Dataset, Mapping[str, Sequence[int]]]:
    """The data set, cut to `train_images` and to a long tail, and the groups of classes in that tail."""
    data = datasets.load(settings.data, settings.data_folder)
    if settings.train_images is not None:
        if settings.train_images > len(data.train_labels):
            raise RangeError(
                f"train_images= must be at most {len(data.train_labels)}, the training images of {data.name}; got "
                f"{settings.train_images}."
            )
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randperm(len(data.train_labels), generator=generator)[: settings.train_images]
        data = replace(data, train_images=data.train_images[drawn], train_labels=data.train_labels[drawn])
    if settings.long_tail is None or settings.profile is None:
        return data, {}
    profile, K = PROFILES[settings.profile], data.num_classes
    largest = int(torch.bincount(data.train_labels, minlength=K).min())
    counts = profile.counts(largest, K, settings.long_tail)
    return datasets.subsample(data, counts, seed=settings.seed), profile.classes(K)


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
