"""The safetensors format."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor

from tightframe.errors import StateError
from tightframe.reading.opening import failures_of, opened

_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors library
DTYPES = {
    **{"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "BOOL": torch.bool},
    **{"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "U8": torch.uint8},
    **{"U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu},
    **{"F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz},
}
"""Dtypes by their names in safetensors."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Declared(NamedTuple):
    """An array that a header declares: dtype (None for one that isn't in `DTYPES`), shape, and where its data begin."""

    dtype: torch.dtype | None
    shape: tuple[int, ...]
    offset: int


class Header(NamedTuple):
    """What a safetensors file declares: its arrays by name, and its metadata."""

    arrays: Mapping[str, Declared]
    metadata: Mapping[str, str]


def safetensors_header(path: Path) -> Header:
    """The header of a safetensors file, whose data are as long as it says. Raises: StateError."""
    with opened(path) as file, failures_of(path, "as safetensors"):
        size = file.seek(0, 2)
        file.seek(0)
        if size < 8:
            raise StateError(f"{path} is truncated: it has {size} bytes.")
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _LONGEST_HEADER):
            raise StateError(f"{path} is damaged or truncated: it declares a header of {length} bytes and has {size}.")
        content = json.loads(file.read(length))
        if not isinstance(content, dict):
            raise StateError(f"{path} is damaged: its header must be an object.")
        metadata = content.pop("__metadata__", {})
        arrays, end = {}, 8 + length
        for name, entry in content.items():
            declared, stop = _declared(path, name, entry, 8 + length)
            arrays[name], end = declared, max(end, stop)
    if size != end:
        what = "truncated" if size < end else "damaged"
        raise StateError(f"{path} is {what}: it has {size} bytes, and its header needs {end}.")
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise StateError(f"{path} is damaged: its metadata must be text.")
    return Header(arrays, metadata)


def _declared(path: Path, name: str, entry: Mapping[str, Any], begin: int) -> tuple[Declared, int]:
    """An array of the header, and where its data end. Raises: StateError."""
    first, last = 0, -1
    try:
        shape, (first, last), dtype = tuple(entry["shape"]), entry["data_offsets"], DTYPES.get(entry["dtype"])
        whole = all(type(number) is int and number >= 0 for number in (*shape, first, last))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        text = f"{entry}"
        raise StateError(f"{path}: array {name!r} must have dtype, shape and offsets: {text:.100}.")
    if last < first or (dtype is not None and last - first != math.prod(shape) * dtype.itemsize):
        raise StateError(f"{path} is damaged: array {name!r} has {last - first} bytes for the shape {shape}.")
    return Declared(dtype, shape, begin + first), begin + last


def read_safetensors(path: Path, format: str | None = None) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """All arrays of a safetensors file, and its metadata. Raises: StateError.

    Args:
        format: the entry "format" that the metadata must have.
    """
    header = safetensors_header(path)
    if format is not None and header.metadata.get("format") != format:
        raise StateError(f"{path} must have the format {format!r}; it has {header.metadata.get('format')!r}.")
    return _tensors(path, header.arrays), header.metadata


def read_tensor(path: Path, name: str) -> Tensor:
    """One array of a file whose header was read. Raises: StateError."""
    return _tensors(path, [name])[name]


def _tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    with failures_of(path, "as safetensors"):
        if not _is_utf8(path):  # which the library can't open
            content = load(path.read_bytes())
            return {name: content[name] for name in names}
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
