"""`tightframe extract`: a model's features as shards on disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tightframe.choices import require_choice
from tightframe.cli.failures import of_system
from tightframe.cli.output import require_folder
from tightframe.cli.subject import Subject
from tightframe.errors import OptionError
from tightframe.sources import extract
from tightframe.sources.source import OOD, TEST, TRAIN

DTYPES = ("float16", "bfloat16", "float32", "float64")


def write_shards(
    subject: Subject, folder: Path, *, dtype: str | None, options: Mapping[str, Any], **how: Any
) -> list[str]:
    """Extract, and say what was written and how to measure it.

    Args:
        how: as of `extract`.

    Raises: OptionError for flags that exclude each other; and the errors of `extract`.
    """
    subject.require_consistent(options)
    require_folder("--out", folder)
    _require_splits(subject, how.get("splits", ()))
    if dtype is not None:
        require_choice(dtype, DTYPES, "--dtype")
    kind = None if dtype is None else getattr(torch, dtype)
    try:
        with subject.failures():
            written = extract(subject.source(options), folder, dtype=kind, **how)
    except OSError as error:
        if any(folder.glob("*-*.safetensors")):
            raise
        raise OptionError(f"{of_system(error)} Nothing was written.") from None
    measured = f"measure it: tightframe measure {shlex.quote(str(folder))}"
    if not written.new_shards:
        return [f"{folder} is complete already; nothing was written.", measured]
    rows = ", ".join(f"{count:,} {split}" for split, count in written.rows.items())
    files = f"{written.shards} shard{'s' * (written.shards != 1)}"
    return [
        f"wrote {folder}: {rows} samples in {files}",
        *written.notes,
        measured,
    ]


def _require_splits(subject: Subject, splits: Sequence[str]) -> None:
    """Raise OptionError for splits that don't exist or have no data."""
    given = {TRAIN: True, TEST: subject.test is not None or subject.data is not None, OOD: subject.ood is not None}
    for split in splits:
        if split not in given:
            raise OptionError(f"--splits must be among {', '.join(given)}; got {split!r}.")
        if not given[split]:
            raise OptionError(f"--splits {split} needs --{split}.")
    if splits and TRAIN not in splits:
        raise OptionError(f"--splits must include {TRAIN}; got {', '.join(splits)}.")
