"""`tightframe measure`: from files, or a model and images, to a report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tightframe.cli.options import changed
from tightframe.cli.subject import Subject
from tightframe.errors import OptionError
from tightframe.measurement.provided import Provided
from tightframe.measuring import measure
from tightframe.metrics.table import chosen
from tightframe.options import Measuring
from tightframe.processes import rank
from tightframe.report import Report
from tightframe.sources import ArraySource, FeatureSource, ShardSource
from tightframe.sources.files import from_files


def measured(
    files: Sequence[Path],
    subject: Subject,
    *,
    labels: Sequence[Path] | None = None,
    weight: Path | None = None,
    bias: Path | None = None,
    options: Mapping[str, Any],
) -> Report:
    """The report of features in files, of a folder that `extract` wrote, or of a model and data. Under
    `torch.distributed` each process reads its part, and all get the report of all.

    Raises: OptionError for flags that exclude each other, or that lack another; and the errors of the sources.
    """
    subject.require_consistent(options)
    settings = Measuring.of(options)
    of_files = {"FEATURES": files, "--labels": labels, "--weight": weight, "--bias": bias}
    if subject.model is not None:
        if named := [flag for flag, value in of_files.items() if value]:
            raise OptionError(f"{named[0]} is for features in files; it can't go with --model, which makes features.")
        with subject.failures():
            return _report(subject.source(options), settings, "a classifier that is a linear layer")
    if named := changed(options, [each for each in Measuring.flags() if each[1].metadata["of"] == "model"]):
        raise OptionError(f"{named[0]} needs --model: features in files are measured as they are.")
    if any(file.is_dir() for file in files):
        if len(files) > 1:
            raise OptionError(
                f"give one folder, or files; got {len(files)}, {next(filter(Path.is_dir, files))} among them."
            )
        if named := [
            flag for flag, value in [*of_files.items(), ("--test", subject.test), ("--ood", subject.ood)][1:] if value
        ]:
            raise OptionError(f"{named[0]} can't go with a folder: {files[0]} holds all that was extracted.")
        return _report(ShardSource(files[0], options=options), settings, "a classifier, which the folder lacks")
    source = from_files(files, labels, weight=weight, bias=bias, test=subject.test, ood=subject.ood, options=options)
    return _report(source, settings, "--weight")


def _report(source: FeatureSource, settings: Measuring, classifier: str) -> Report:
    """The report of a source. Raises: OptionError, before the pass, for a measure that the source does not allow.

    Args:
        classifier: what a measure of the classifier needs, for messages.
    """
    if settings.training is not None and source.classifier is None:
        raise OptionError(f"--weight-decay needs {classifier}.")
    if settings.task == "regression":
        named = [("--metric", each.name) for each in chosen(settings.metrics or ())]
        for flag, name in [*named, *(("--convention", name) for name in settings.conventions)]:
            raise OptionError(f"{flag} {name} is a measure of classes; --task regression reports measures of its own.")
    provided = Provided.of(settings, source.splits, source.classifier, decided=not isinstance(source, ArraySource))
    needed = {
        "outside": "--ood",
        "classifier": classifier,
        "decisions": "--decisions above 0",
        "scatter": "--covariance",
        "class scatter": "--per-class",
    }
    for argument, name, lack in provided.lacks(settings):
        raise OptionError(f"--{argument.removesuffix('s')} {name} needs {needed[lack]}.")
    return measure(source, **settings.to_dict())


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
