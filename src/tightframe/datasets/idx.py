"""The IDX file format: a four-byte magic, big-endian sizes, big-endian values."""

from __future__ import annotations

import gzip
import math
import os
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tightframe.errors import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

MOST_DIMENSIONS = 8
GZIP_MAGIC = b"\x1f\x8b"
GZIP_RATIO = 1032  # deflate makes no more bytes out of one
DTYPES = {
    0x08: ("uint8", 1),
    0x09: ("int8", 1),
    0x0B: ("int16", 2),
    0x0C: ("int32", 4),
    0x0D: ("float32", 4),
    0x0E: ("float64", 8),
}


@dataclass(frozen=True)
class IdxArray:
    """The array of an IDX file; `content` holds its big-endian values."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes = field(repr=False)

    def tensor(self) -> Tensor:
        """The array as a tensor of its own shape and dtype."""
        import torch

        dtype = getattr(torch, self.dtype)
        if not self.content:
            return torch.empty(self.shape, dtype=dtype)  # torch.frombuffer refuses an empty buffer
        stored = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
        if sys.byteorder == "little":
            stored = stored.reshape(-1, dtype.itemsize).flip(1).flatten()
        return stored.view(dtype).reshape(self.shape)


def read_idx(path: Path) -> IdxArray:
    """The array in one IDX file, gzipped or not, as the first bytes tell; its size is checked before it is read.

    Raises: DatasetError naming the file, what its header says and what it holds; OSError if it can't be opened.
    Source: the format's description on the MNIST page, LeCun, Cortes & Burges.
    """
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path} is not a file.")
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        try:
            return _read(path, gzip.GzipFile(fileobj=file) if packed else file, size, packed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{path}: the gzip stream is damaged or cut short ({error}).") from error


def _read(path: Path, stream: gzip.GzipFile | BinaryIO, size: int, packed: bool) -> IdxArray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        codes = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DatasetError(
            f"{path}: an IDX file starts with 00 00, a dtype code in {{{codes}}} and the number of dimensions; got "
            f"{magic.hex(' ') or 'an empty file'}."
        )
    (dtype, width), dimensions = DTYPES[magic[2]], magic[3]
    sizes = stream.read(4 * dimensions)
    header = 4 + 4 * dimensions
    if dimensions > MOST_DIMENSIONS:
        raise DatasetError(f"{path}: an IDX file has at most {MOST_DIMENSIONS} dimensions; got {dimensions}.")
    if len(sizes) < 4 * dimensions:
        raise DatasetError(f"{path}: a header of {dimensions} dimensions takes {header} bytes; got {4 + len(sizes)}.")
    shape = struct.unpack(f">{dimensions}I", sizes)
    expected = header + math.prod(shape) * width
    told = f"{path}: {dtype} of shape {shape} takes {expected} bytes with its header; got"
    if packed and expected > GZIP_RATIO * size:
        raise DatasetError(f"{told} {size} compressed ones, which can't hold as many.")
    if not packed and size != expected:
        raise DatasetError(f"{told} {size}.")
    if math.prod(max(each, 1) for each in shape) * width > sys.maxsize:
        raise DatasetError(f"{told} no array that large.")
    content = stream.read(expected - header + 1)
    if header + len(content) != expected:
        raise DatasetError(f"{told} {'more' if len(content) > expected - header else header + len(content)}.")
    return IdxArray(dtype, shape, content)
