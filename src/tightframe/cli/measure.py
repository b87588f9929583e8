"""`tightframe measure`: from files, or a model and images, to a report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tightframe.measuring import measure
from tightframe.processes import rank
from tightframe.report import Report
from tightframe.sources.files import from_files


def measure_files(
    features: Sequence[Path],
    labels: Sequence[Path] | None,
    *,
    weight: Path | None = None,
    bias: Path | None = None,
    test: Path | None = None,
    ood: Path | None = None,
    options: Mapping[str, Any],
) -> Report:
    """The report of features in files. Under `torch.distributed` each process reads its part of the rows, and all get
    the report of all."""
    source = from_files(features, labels, weight=weight, bias=bias, test=test, ood=ood, options=options)
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
