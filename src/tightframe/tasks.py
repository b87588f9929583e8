"""Other tasks than classification: reports on tags, of which a sample has several, and on targets of a regression."""

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


class _Kept:
    """Features and what belongs to them, as long as they fit into a budget of bytes."""

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
        """All that was kept by all processes, on the CPU. Raises: EmptyBatchError."""
        mine = [(features.cpu(), targets.cpu()) for features, targets in self._parts]
        said = every_process((mine, self.left_out), "features of all processes", shared=self._shared)
        parts = [part for theirs, _ in said for part in theirs]
        self.left_out = sum(number for _, number in said)
        if not parts:
            raise EmptyBatchError("no batch of training samples fitted into buffer_bytes.")
        features, targets = zip(*parts, strict=True)
        return torch.cat(features), torch.cat(targets)

    @property
    def notes(self) -> list[str]:
        """That samples were left out, if they were."""
        if not self.left_out:
            return []
        return [f"{self.left_out} samples beyond buffer_bytes are left out of the measures over sets of tags."]


class _SingleTags(FeatureSource):
    """A source of tags, whose samples with exactly one tag are those of its class; the others don't count."""

    ignore_index = IGNORED

    def __init__(self, source: FeatureSource, kept: _Kept):
        self._source, self._kept, self._ignored = source, kept, source.ignore_index
        self.splits, self.repeatable, self.device = source.splits, source.repeatable, source.device
        self.class_names, self.title = source.class_names, source.title
        self._filled = False
        self._columns: int | None = None

    @property
    def classifier(self) -> LinearClassifier | None:  # type: ignore[override]
        """Of the source."""
        return self._source.classifier

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """One for each tag: as the source says, or the columns of the first batch."""
        return self._columns if self._source.num_classes is None else self._source.num_classes

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """Of the source."""
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
                raise LabelError("tags must be 0 or 1; pass ignore_index= to leave out samples with unknown ones.")
            hot = (tags != 0) & ~unknown[:, None]
            features = list(batch.by_layer.values())[-1]
            if features.ndim != 2 or hot.ndim != 2:
                raise ShapeError(f"tags must be (N, K) for features (N, D); got {tuple(batch.labels.shape)}.")
            self._columns = hot.shape[1]
            if keep:
                self._kept.add(features[~unknown], hot[~unknown])
            alone = hot.sum(1) == 1
            yield batch._replace(labels=torch.where(alone, hot.long().argmax(1), IGNORED))
        self._filled = True


def measure_tags(
    source: FeatureSource, options: Measuring, report_of: Callable[[FeatureSource, Measuring], Report]
) -> Report:
    """The report of the samples with one tag, a class for each tag, and how the means of sets of tags follow."""
    kept = _Kept(options)
    report = report_of(_SingleTags(source, kept), options)
    features, tags = kept.joined()
    notes = [
        "classes are the tags of samples with exactly one; the others play a part in the tag-wise average only.",
        *kept.notes,
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
    """NRC1 to NRC3 of the last layer's features, its weight and the targets."""
    kept = _Kept(options)
    with source.opened():
        for batch in map(FeatureBatch.of, source.batches(TRAIN)):
            name, features = list(batch.by_layer.items())[-1]
            if batch.labels is None:
                raise LoaderError("a batch has no targets.")
            if batch.labels.is_complex():
                raise DtypeError(f"targets must be real numbers; got {batch.labels.dtype}.")
            targets = batch.labels.reshape(len(batch.labels), -1).to(torch.float64)
            kept.add(features.reshape(len(targets), -1), targets)
        classifier = source.classifier
        facts, notes = source.remarks()
    features, targets = kept.joined()
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
        notes.append("NRC2 and NRC3 need the last layer's weight.")
    known = {"task": "regression", "layer": name, "samples": samples, "dimension": dim, "targets": n}
    notes = [*source.notes, *notes, *kept.notes]
    said = options.context or {}
    own = {key: value for key, value in said.items() if key not in CALLERS}
    return Report(tuple(entries), Facts.of({**known, **facts, **said}), tuple(notes), own)


def _weight(classifier: LinearClassifier, targets: int) -> Tensor:
    """The last layer's (n, D): of one output, as it is, and not as the two classes that it decides between."""
    return 2 * classifier.weight[1:] if targets == 1 and len(classifier.weight) == 2 else classifier.weight


TASKS: dict[str, Callable[[FeatureSource, Measuring, Callable[[FeatureSource, Measuring], Report]], Report]] = {
    "multilabel": measure_tags,
    "regression": measure_regression,
}
"""The report of a source for each task but classification, by name."""
