"""NumPy's formats, .npy and .npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from tightframe.errors import DtypeError, StateError
from tightframe.reading.opening import failures_of, opened

_MOST_DEFLATED = 1032  # bytes that deflate makes of one, at most
_DTYPES = "biufcSUmM"  # kinds of dtypes that hold no objects and no records


class Header(NamedTuple):
    """What a .npy file declares: shape, whether columns lie one after the other, dtype, and where its data begin."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    offset: int

    @property
    def bytes(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], path: Path, size: int) -> Header:
    """The header of .npy data of `size` bytes. Raises: StateError."""
    with failures_of(path, "as .npy"):
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise StateError(f"can't read {path} as .npy: its version is {version}.")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        header = Header(tuple(map(int, shape)), by_columns, dtype, file.tell())
    if dtype.hasobject:  # pickled, of any length
        return header
    difference = size - header.offset - header.bytes
    if min(shape, default=0) < 0:
        raise StateError(f"{path} is damaged: its shape is {header.shape}.")
    if difference < 0:
        raise StateError(f"{path} is truncated: its header needs {header.offset + header.bytes} bytes; it has {size}.")
    if difference > 0:
        raise StateError(f"{path} is damaged: it has {size} bytes, {difference} more than its header says.")
    return header


def require_plain(dtype: np.dtype, path: Path) -> None:
    """Raise DtypeError for Python objects and records."""
    if dtype.hasobject or dtype.kind not in _DTYPES:
        what = "Python objects, which could run code when loaded" if dtype.hasobject else f"records of {dtype}"
        raise DtypeError(f"{path} must hold numbers or text; it holds {what}.")


def npy_header(path: Path) -> Header:
    """The header of a .npy file, whose data are as long as it says. Raises: StateError, DtypeError."""
    with opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = read_header(file, path, size)
    require_plain(header.dtype, path)
    return header


def map_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, as a memory map that can't be written to. Raises: StateError, DtypeError."""
    header = npy_header(path)
    order = "F" if header.by_columns else "C"
    if header.bytes == 0:  # nothing to map
        return np.empty(header.shape, header.dtype)
    with failures_of(path, "as .npy"):
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload]


class Npz:
    """The arrays of an .npz file, read one by one.

    Raises: StateError; DtypeError for an array of Python objects or records when it is read.
    """

    def __init__(self, path: Path):
        self._path = path
        with self._archive() as archive:
            members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
            self._members = {name: each for name, each in members.items() if each.filename.endswith(".npy")}
            self.shapes = {name: self._header(archive, each).shape for name, each in self._members.items()}

    def read(self, name: str) -> np.ndarray:
        """The array of that name."""
        with self._archive() as archive:
            member = self._members[name]
            header = self._header(archive, member)
            require_plain(header.dtype, self._where(member))
            with archive.open(member) as stream:
                stream.read(header.offset)
                flat = np.empty(math.prod(header.shape), header.dtype)
                view = flat.view(np.uint8) if flat.dtype.itemsize else flat  # text of no characters has no bytes
                for start in range(0, header.bytes, 1 << 24):
                    part = stream.read(min(1 << 24, header.bytes - start))
                    view[start : start + len(part)] = np.frombuffer(part, np.uint8)
                stream.read(1)  # its end, where the checksum is compared
        return flat.reshape(header.shape, order="F" if header.by_columns else "C")

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with opened(self._path) as file, failures_of(self._path, "as .npz"), zipfile.ZipFile(file) as archive:
            yield archive

    def _where(self, member: zipfile.ZipInfo) -> Path:
        return Path(f"{self._path} ({member.filename})")

    def _header(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
        where = self._where(member)
        if member.file_size > _MOST_DEFLATED * member.compress_size + 1024:
            raise StateError(f"{where} is damaged: it declares {member.file_size} bytes in {member.compress_size}.")
        with archive.open(member) as stream:
            return read_header(stream, where, member.file_size)
