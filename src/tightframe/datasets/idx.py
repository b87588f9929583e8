"""The IDX file format: a four-byte magic, big-endian sizes, big-endian values."""

import gzip
import math
import struct
import sys
import zlib
from pathlib import Path

import torch
from torch import Tensor

from tightframe.errors import DatasetError

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {
    0x08: torch.uint8,
    0x09: torch.int8,
    0x0B: torch.int16,
    0x0C: torch.int32,
    0x0D: torch.float32,
    0x0E: torch.float64,
}


def read_idx(path: Path) -> Tensor:
    """The array stored in one IDX file, gzipped or not (told by content, not by name).

    Shape and dtype: as the file's header says.
    Raises: DatasetError naming the file, what its header promises and what it holds; OSError if it
    cannot be opened.
    Source: the format's description on the MNIST page, LeCun, Cortes & Burges.
    """
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{path}: the gzip stream is damaged or cut short ({error}).") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        codes = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DatasetError(
            f"{path}: an IDX file starts with 00 00, a dtype code in {{{codes}}} and the number of "
            f"dimensions; got {content[:4].hex(' ') or 'an empty file'}."
        )
    dtype, dimensions = DTYPES[content[2]], content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DatasetError(f"{path}: a header of {dimensions} dimensions takes {header} bytes; got {len(content)}.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DatasetError(
            f"{path}: {dtype} of shape {shape} takes {expected} bytes with its header; got {len(content)}."
        )
    if len(content) == header:
        return torch.empty(shape, dtype=dtype)  # torch.frombuffer refuses an empty buffer
    stored = torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8)
    if sys.byteorder == "little":
        stored = stored.reshape(-1, dtype.itemsize).flip(1).flatten()
    return stored.view(dtype).reshape(shape)
