"""Torch's files, .pt and .pth, read as plain tensors."""

from __future__ import annotations

import mmap
import pickle
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tightframe.errors import StateError
from tightframe.reading.opening import failures_of, opened

_OLD_PICKLES = 4  # that an older file begins with: magic number, protocol, system, content
_ALLOCATES = b"bytearray"  # the one function that a file of weights may name and that allocates what it is told


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a torch file, loaded as weights only; a lone tensor is called "". Raises: StateError."""
    with opened(path) as file, failures_of(path, "as a torch file"):
        if zipfile.is_zipfile(file):
            _require_plain_archive(path, file)
        else:
            _require_plain_pickles(path, file)
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise StateError(
                f"can't read {path}: it holds more than plain tensors, which could run code when loaded."
            ) from None
    return {str(name): value for name, value in content.items()} if isinstance(content, dict) else {"": content}


def _require_plain_archive(path: Path, file: BinaryIO) -> None:
    """Raise StateError for compressed parts, and for a pickle that allocates memory by a number alone."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(each.compress_type != zipfile.ZIP_STORED for each in members):
            raise StateError(f"can't read {path} as a torch file: its parts are compressed, which torch never does.")
        for each in members:
            if each.filename.endswith(".pkl") and _ALLOCATES in (content := archive.read(each)):
                _require_no_allocation(path, BytesIO(content))


def _require_plain_pickles(path: Path, file: BinaryIO) -> None:
    """The same for the format that torch had before version 1.6, in which pickles declare the sizes of storages."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # it reads no more than there is
        for _ in range(_OLD_PICKLES):
            numbers: list[int] = []
            for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
                if opcode.name == "MARK":
                    numbers = []
                elif isinstance(argument, int) and "PUT" not in opcode.name and "GET" not in opcode.name:
                    numbers.append(argument)
                elif opcode.name == "BINPERSID" and max(numbers, default=0) > len(content):
                    raise StateError(f"{path} is damaged: it declares {max(numbers)} numbers in {len(content)} bytes.")
        end = content.tell()
        if content.find(_ALLOCATES, 0, end) >= 0:
            content.seek(0)
            while content.tell() < end:
                _require_no_allocation(path, content)


def _require_no_allocation(path: Path, content: Any) -> None:
    """Raise StateError if a pickle calls bytearray with a number, as bytearray(10**12)."""
    called, number, numbers = False, False, set[object]()  # the last one: places in the memo that hold a number
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name:
            numbers |= {argument} if number else set()
            continue
        number = (isinstance(argument, int) and "GET" not in opcode.name) or argument in numbers
        if opcode.name == "GLOBAL":
            called = str(argument).endswith(_ALLOCATES.decode())
        elif called and number:
            raise StateError(f"can't read {path}: it holds more than plain tensors, bytearrays of a given length.")
        elif opcode.name == "REDUCE":
            called = False
