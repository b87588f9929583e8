"""Torch's files, .pt and .pth, read as plain tensors."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tightframe.errors import StateError
from tightframe.reading.opening import failures_of, opened

_ALLOCATES = b"bytearray"  # the one function that a file of weights may name and that allocates what it is told


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a torch file, loaded as weights only; a lone tensor is called "". Raises: StateError."""
    with opened(path) as file, failures_of(path, "as a torch file"):
        for pickled in _pickles(path, file):
            if pickled.find(_ALLOCATES) >= 0:
                raise StateError(f"can't read {path}: it holds more than plain tensors.")
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise StateError(
                f"can't read {path}: it holds more than plain tensors, which could run code when loaded."
            ) from None
    return {str(name): value for name, value in content.items()} if isinstance(content, dict) else {"": content}


def _pickles(path: Path, file: Any) -> list[Any]:
    """The pickled parts of the file: those of an archive, or all of an older file, which isn't one."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)]
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(each.compress_type != zipfile.ZIP_STORED for each in members):
            raise StateError(f"can't read {path} as a torch file: its parts are compressed, which torch never does.")
        return [archive.read(each) for each in members if each.filename.endswith(".pkl")]
