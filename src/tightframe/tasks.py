"""Tasks other than classification: reports on multi-label tags and on regression targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from tightframe.errors import DtypeError, EmptyBatchError, LabelError, LoaderError, ShapeError, TightframeError
from tightframe.metrics.multilabel import tagwise_average_error
from tightframe.metrics.regression import nrc1, nrc2, nrc3, nrc_null
from tightframe.options import Measuring
from tightframe.processes import every_process, world_size
from tightframe.report import Entry, Report
from tightframe.report.facts import CALLERS, Facts
from tightframe.sources import FeatureBatch, FeatureSource, LinearClassifier
from tightframe.sources.next_token import IGNORED
from tightframe.sources.source import TRAIN

_LI, _ANDRIOPOULOS = "Li et al. 2024", "Andriopoulos et al. 2024"


class _Buffer:
    """Features and targets, up to `buffer_bytes`."""

    def __init__(self, options: Measuring):
        self._room, self._shared = options.buffer_bytes, options.distributed and world_size() > 1
        self._parts: list[tuple[Tensor, Tensor]] = []
        self.left_out = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Features (N, D) and targets (N, n)."""
        self._room -= features.nbytes + targets.nbytes
        if self._room < 0:
            self.left_out += len(features)
        else:
            self._parts.append((features, targets))

    def joined(self) -> tuple[Tensor, Tensor]:
        """The features and targets of all processes, on the CPU. Raises: EmptyBatchError if there are none."""
        own = [(features.cpu(), targets.cpu()) for features, targets in self._parts]
        by_process = every_process((own, self.left_out), "features of all processes", shared=self._shared)
        parts = [part for process, _ in by_process for part in process]
        self.left_out = sum(number for _, number in by_process)
        if not parts:
            raise EmptyBatchError("no batch of training samples fits into buffer_bytes. Raise buffer_bytes.")
        features, targets = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(targets)

    @property
    def notes(self) -> list[str]:
        """A note on samples that do not fit, if there are any."""
        if not self.left_out:
            return []
        return [f"{self.left_out} samples do not fit into buffer_bytes and are left out of measures over sets of tags."]


class _SingleTags(FeatureSource):
    """A source of tags as a source of classes: samples with exactly one tag have it as class; others are ignored."""

    ignore_index = IGNORED

    def __init__(self, source: FeatureSource, buffer: _Buffer):
        self._source, self._buffer, self._ignored = source, buffer, source.ignore_index
        self.splits, self.repeatable, self.device = source.splits, source.repeatable, source.device
        self.class_names, self.title = source.class_names, source.title
        self._filled = False
        self._columns: int | None = None

    @property
    def classifier(self) -> LinearClassifier | None:  # type: ignore[override]
        """The classifier of the source."""
        return self._source.classifier

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """One class per tag: from the source, or from the columns of the first batch."""
        return self._columns if self._source.num_classes is None else self._source.num_classes

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """The notes of the source."""
        return list(self._source.notes)

    def opened(self) -> AbstractContextManager[object]:
        return self._source.opened()

    def consumer(self, layer: str, num_features: int) -> Tensor | None:
        return self._source.consumer(layer, num_features)

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        return self._source.remarks()

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        keep = split == TRAIN and not self._filled
        for batch in map(FeatureBatch.of, self._source.batches(split)):
            if batch.labels is None:
                yield batch
                continue
            tags = batch.labels
            unknown = torch.zeros_like(tags[:, :1], dtype=torch.bool).squeeze(1)
            if self._ignored is not None:
                unknown = (tags == self._ignored).any(1)
            if ((tags != 0) & (tags != 1) & ~unknown[:, None]).any():
                raise LabelError("tags must be 0 or 1. Pass ignore_index= to leave out samples with unknown tags.")
            hot = (tags != 0) & ~unknown[:, None]
            features = list(batch.by_layer.values())[-1]
            if features.ndim != 2 or hot.ndim != 2:
                raise ShapeError(f"tags must be (N, K) for features (N, D); got {tuple(batch.labels.shape)}.")
            self._columns = hot.shape[1]
            if keep:
                self._buffer.add(features[~unknown], hot[~unknown])
            alone = hot.sum(1) == 1
            yield batch._replace(labels=torch.where(alone, hot.long().argmax(1), IGNORED))
        self._filled = True


def measure_tags(
    source: FeatureSource, options: Measuring, report_of: Callable[[FeatureSource, Measuring], Report]
) -> Report:
    """The report of the samples with exactly one tag, tags as classes, and the tag-wise average of sets of tags."""
    buffer = _Buffer(options)
    report = report_of(_SingleTags(source, buffer), options)
    features, tags = buffer.joined()
    notes = [
        "classes are the tags of samples with exactly one tag; other samples enter the tag-wise average only.",
        *buffer.notes,
    ]
    try:
        value = float(tagwise_average_error(features, tags))
    except TightframeError as error:
        return report.extended(notes=[*notes, f"tag-wise averages are left out: {error}"])
    entry = Entry(
        "tagwise_average_error",
        TRAIN,
        "tag-wise average",
        "multilabel",
        value,
        0.0,
        None,
        1.0,
        None,
        "mean over sets of tags of 1 - cos(mean of the set, sum of its tags' means)",
        _LI,
        True,
        level="isotropic",
    )
    return report.extended([entry], notes)


def measure_regression(
    source: FeatureSource, options: Measuring, report_of: Callable[[FeatureSource, Measuring], Report]
) -> Report:
    """The report with NRC1 to NRC3 of the last layer's features, its weight and the targets."""
    buffer = _Buffer(options)
    with source.opened():
        for batch in map(FeatureBatch.of, source.batches(TRAIN)):
            name, features = list(batch.by_layer.items())[-1]
            if batch.labels is None:
                raise LoaderError("every batch must have targets; the source returned a batch without targets.")
            if batch.labels.is_complex():
                raise DtypeError(f"targets must be real numbers; got {batch.labels.dtype}.")
            targets = batch.labels.reshape(len(batch.labels), -1).to(torch.float64)
            buffer.add(features.reshape(len(targets), -1), targets)
        classifier = source.classifier
        facts, notes = source.remarks()
    features, targets = buffer.joined()
    n, (samples, dim) = targets.shape[1], features.shape
    level = nrc_null(n, dim) if n <= dim else None
    entries = []

    def add(name: str, label: str, value: Callable[[], Tensor], convention: str, shuffled: float | None) -> None:
        try:
            number = float(value())
        except TightframeError as error:
            notes.append(f"{label} is left out: {error}")
            number = math.nan
        entry = Entry(
            name, TRAIN, label, "NRC", number, 0.0, None, shuffled, None, convention, _ANDRIOPOULOS, True,
            level="" if shuffled is None else "isotropic",
        )  # fmt: skip
        entries.append(entry)

    add("nrc1", "NRC1", lambda: nrc1(features, n), "share of a feature outside the top n components", level)
    if classifier is not None:
        weight = _weight(classifier, n)
        add("nrc2", "NRC2", lambda: nrc2(features, weight), "share of a feature outside the weight's rows", level)
        add(
            "nrc3", "NRC3", lambda: nrc3(weight, torch.cov(targets.mT).reshape(n, n)), "Gram matrix of the weight", None
        )
    else:
        notes.append("NRC2 and NRC3 are left out: they need the last layer's weight.")
    measured = {"task": "regression", "layer": name, "samples": samples, "dimension": dim, "targets": n}
    notes = [*source.notes, *notes, *buffer.notes]
    context = options.context or {}
    own = {key: value for key, value in context.items() if key not in CALLERS}
    return Report(tuple(entries), Facts.of({**measured, **facts, **context}), tuple(notes), own)


def _weight(classifier: LinearClassifier, targets: int) -> Tensor:
    """The last layer's weight (n, D); for one output w, not the rows -w/2 and w/2 of two classes."""
    return 2 * classifier.weight[1:] if targets == 1 and len(classifier.weight) == 2 else classifier.weight


TASKS: dict[str, Callable[[FeatureSource, Measuring, Callable[[FeatureSource, Measuring], Report]], Report]] = {
    "multilabel": measure_tags,
    "regression": measure_regression,
}
"""Report functions of tasks other than classification, by name."""
