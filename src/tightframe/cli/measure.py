"""`tightframe measure`: features from files to a report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import as_tensor
from tightframe.cli.arrays import pick, read_arrays
from tightframe.errors import ClassifierError, LabelError, ShapeError, StateError
from tightframe.hooks import Classifier
from tightframe.measurement.collecting import FREE_SHARE, LayerCollection, detected, free_memory, planned
from tightframe.processes import every_process, rank, world_size
from tightframe.report import Report
from tightframe.statistics.folds import FOLDS
from tightframe.theory import Training

_ROWS = 4096  # rows read into memory at a time
_FEATURES = ("features", "x", "embeddings", "h")
_LABELS = ("labels", "label", "y", "targets")
_WEIGHT = ("weight", "w", "classifier.weight", "fc.weight", "head.weight")
_BIAS = ("bias", "b", "classifier.bias", "fc.bias", "head.bias")


def measure_files(
    features: Path,
    *,
    labels: Path | None = None,
    weight: Path | None = None,
    bias: Path | None = None,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    per_class: bool = False,
    covariance: bool = True,
    folds: int = FOLDS,
    min_count: int = 1,
    training: Training | None = None,
    test: Path | None = None,
    ood: Path | None = None,
) -> Report:
    """The report of features in a file; see `tightframe measure --help` for the files' contents.

    Under `torch.distributed` each process reads its part of the rows, and all get the report of all.

    Raises: StateError for unreadable files, ClassifierError for a bias without a weight, and the errors of
    `StatisticsAccumulator.update`.
    """
    x, y = _features_and_labels(features, labels)
    if weight is None and bias is not None:
        raise ClassifierError("--bias needs --weight.")
    rows = offsets = None
    if weight is not None:
        arrays = read_arrays(weight)
        rows = as_tensor(pick(arrays, _WEIGHT, weight))
        found = (
            pick(read_arrays(bias), _BIAS, bias)
            if bias is not None
            else pick({k: v for k, v in arrays.items() if k}, _BIAS, weight, required=False)
        )
        offsets = None if found is None else as_tensor(found)
    if num_classes is None:
        kept = y if ignore_index is None else y[y != ignore_index]
        if len(kept) == 0:
            raise LabelError(f"{features} has no labels other than {ignore_index}.")
        num_classes = len(rows) if rows is not None else max(int(kept.max()) + 1, 1)
    options = {"ignore_index": ignore_index, "device": "cpu"}
    budget = min(every_process(free_memory(torch.device("cpu")), "the memory budget")) // FREE_SHARE
    name = features.name
    [plan] = planned(
        {name: x.shape[-1]},
        num_classes,
        budget,
        name,
        covariance=covariance,
        per_class=per_class,
        folds=folds or None,
    )
    classifier = None if rows is None else Classifier("", torch.nn.Identity(), rows, offsets, -1)
    collection = LayerCollection(plan, classifier, num_classes, options, shared=world_size() > 1)
    for some, targets in _batches(x, y):
        collection.add(some, targets)
    collection.finish_moments()
    if covariance:
        collection.project(budget)
    for some, targets in _batches(x, y):
        collection.look_again(some, targets)
    collection.finish()
    if test is not None and ood is not None:
        collection.detect()
    if test is not None:
        for some, targets in _batches(*_features_and_labels(test, None)):
            collection.add_held_out(some, targets)
    if ood is not None:
        outside = pick(read_arrays(ood), _FEATURES, ood)
        for part in _parts(outside):
            collection.add_outside(as_tensor(outside[part]))
    report = Report.from_evidence(
        collection.evidence(with_outside=ood is not None),
        test=None if test is None else collection.held_out_evidence(),
        min_count=min_count,
        training=training,
        context={"title": f"Neural collapse of {name}", "layer": name},
    )
    return detected(report, collection)


def _features_and_labels(features: Path, labels: Path | None) -> tuple[Any, Tensor]:
    arrays = read_arrays(features)
    x = pick(arrays, _FEATURES, features)
    if labels is not None:
        y = as_tensor(pick(read_arrays(labels), _LABELS, labels))
    else:
        named = {name: array for name, array in arrays.items() if name}
        if not any(name in named for name in _LABELS):
            raise StateError(f"{features} has no labels ({', '.join(_LABELS)}); give their file with --labels.")
        y = as_tensor(pick(named, _LABELS, features))
    if x.shape[:1] != y.shape[:1]:
        raise ShapeError(f"{features} has {len(x)} rows of features, but there are {len(y)} labels.")
    integer = not y.dtype.is_floating_point and y.dtype is not torch.bool
    return x, y.to(torch.int64) if integer else y  # small unsigned types lack max()


def _batches(x: Any, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part in _parts(x):
        yield as_tensor(x[part]), y[part]


def _parts(array: Any) -> list[slice]:
    """This process's part of the rows, a few at a time."""
    starts = range(0, max(len(array), 1), _ROWS)
    return [slice(start, start + _ROWS) for start in starts[rank() :: world_size()]]


@contextmanager
def torchrun_processes() -> Iterator[bool]:
    """Join the processes that torchrun started, if it did, while the context lasts; yields whether this one speaks."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield True
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield rank() == 0
    finally:
        torch.distributed.destroy_process_group()
