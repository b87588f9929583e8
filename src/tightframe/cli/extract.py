"""`tightframe extract`: a model's features as shards on disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tightframe.choices import require_choice
from tightframe.cli.subject import Subject
from tightframe.sources import extract

DTYPES = ("float16", "bfloat16", "float32", "float64")


def write_shards(
    subject: Subject, folder: Path, *, dtype: str | None, options: Mapping[str, Any], **how: Any
) -> list[str]:
    """Extract, and say what was written and how to measure it.

    Args:
        how: as of `extract`.

    Raises: OptionError for flags that exclude each other; and the errors of `extract`.
    """
    subject.require_consistent()
    if dtype is not None:
        require_choice(dtype, DTYPES, "--dtype")
    kind = None if dtype is None else getattr(torch, dtype)
    written = extract(subject.source(options), folder, dtype=kind, **how)
    rows = ", ".join(f"{count:,} {split}" for split, count in written.rows.items())
    files = f"{written.shards} shard{'s' * (written.shards != 1)}"
    return [
        f"wrote {folder}: {rows} samples in {files}",
        *written.notes,
        f"measure it: tightframe measure {shlex.quote(str(folder))}",
    ]
