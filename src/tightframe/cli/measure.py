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
from tightframe.measuring import measure
from tightframe.options import Measuring
from tightframe.processes import rank
from tightframe.report import Report
from tightframe.sources import ShardSource
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
    subject.require_consistent()
    of_files = {"FEATURES": files, "--labels": labels, "--weight": weight, "--bias": bias}
    if subject.model is not None:
        if named := [flag for flag, value in of_files.items() if value]:
            raise OptionError(f"{named[0]} is for features in files; it can't go with --model, which makes features.")
        return measure(subject.source(options), **options)
    if named := changed(options, [each for each in Measuring.flags() if each[1].metadata["of"] == "model"]):
        raise OptionError(f"{named[0]} needs --model: features in files are measured as they are.")
    if len(files) == 1 and files[0].is_dir():
        if named := [
            flag for flag, value in [*of_files.items(), ("--test", subject.test), ("--ood", subject.ood)][1:] if value
        ]:
            raise OptionError(f"{named[0]} can't go with a folder: {files[0]} holds all that was extracted.")
        return measure(ShardSource(files[0], options=options), **options)
    source = from_files(files, labels, weight=weight, bias=bias, test=subject.test, ood=subject.ood, options=options)
    return measure(source, **options)


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
