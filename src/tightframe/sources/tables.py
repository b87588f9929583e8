"""Arrays of samples in files: `.npy`, `.safetensors`, Parquet. Headers are read at once, rows block by block."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tightframe.checks import listed
from tightframe.errors import DtypeError, MissingExtraError, ShapeError, ShardError
from tightframe.reading import failures_of
from tightframe.reading.npy import npy_header
from tightframe.reading.opening import require_file
from tightframe.reading.safetensors import safetensors_header

FEATURES_COLUMN, LABELS_COLUMN = "features", "labels"
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Kind:
    """The dtype of an array, and the shape of one sample in it."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} (N{''.join(f', {size}' for size in self.shape)})"


class Table(ABC):
    """Arrays with as many rows in one file.

    Attributes:
        path: of the file. rows: of each array. arrays: their kinds by name.
        groups: rows of each part that can be read apart from the others; None if any row can.
    """

    path: Path
    rows: int
    arrays: Mapping[str, Kind]
    groups: tuple[int, ...] | None = None

    @abstractmethod
    def opened(self, only: str | None = None) -> AbstractContextManager[Reader]:
        """A context with a reader of one array, or of all."""


class Reader(ABC):
    """An open file."""

    @abstractmethod
    def read(self, array: str, start: int, stop: int, into: np.ndarray) -> None:
        """Read rows of an array into bytes. Raises: ShardError if the file has become shorter."""


@dataclass(frozen=True)
class RawTable(Table):
    """A file in which the rows of an array lie one after the other.

    Attributes:
        offsets: of the arrays in the file, in bytes.
    """

    path: Path
    rows: int
    arrays: Mapping[str, Kind]
    offsets: Mapping[str, int]

    @contextmanager
    def opened(self, only: str | None = None) -> Iterator[Reader]:
        with self.path.open("rb", buffering=0) as file:
            yield _RawReader(self, file.fileno())


class _RawReader(Reader):
    def __init__(self, table: RawTable, descriptor: int):
        self._table, self._descriptor = table, descriptor

    def read(self, array: str, start: int, stop: int, into: np.ndarray) -> None:
        size = self._table.arrays[array].bytes
        where, rest = self._table.offsets[array] + start * size, into.data[: (stop - start) * size]
        while rest:
            got = os.preadv(self._descriptor, [rest], where)
            if got == 0:
                raise ShardError(
                    f"{self._table.path} has become shorter while it was read: rows from {start} are missing."
                )
            where, rest = where + got, rest[got:]


class ParquetTable(Table):
    """A Parquet file with labels in a column, and features in a column of lists or in a column each.

    Raises: MissingExtraError without pyarrow; ShardError if it is no Parquet file; ShapeError, DtypeError.
    """

    def __init__(self, path: Path, features: str | None, labels: str | None):
        """`features` and `labels` are names of the arrays; None for what isn't read."""
        self.path, self._labels = path, labels
        parquet = _parquet()
        require_file(path)
        with failures_of(path, "as Parquet"), parquet.ParquetFile(path) as file:
            meta, schema = file.metadata, file.schema_arrow
            groups = tuple(meta.row_group(group).num_rows for group in range(meta.num_row_groups))
            first = next(file.iter_batches(batch_size=1), None)
        self.rows, self.groups = sum(groups), groups
        if labels is not None and LABELS_COLUMN not in schema.names:
            raise ShardError(f"{path} has no column {LABELS_COLUMN!r}; it has: {listed(schema.names)}.")
        others = [column for column in schema.names if column != LABELS_COLUMN]
        self._columns = [FEATURES_COLUMN] if FEATURES_COLUMN in others else others
        if first is None:
            raise ShardError(f"{path} has no rows.")
        if features is not None and not self._columns:
            raise ShardError(f"{path} has no columns of features.")
        found = self.values(first, [name for name in (features, labels) if name is not None])
        self.arrays = {name: Kind(_torch_dtype(value.dtype, path), value.shape[1:]) for name, value in found.items()}

    @contextmanager
    def opened(self, only: str | None = None) -> Iterator[Reader]:
        with (
            failures_of(self.path, "as Parquet"),
            _parquet().ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            yield _ParquetReader(self, file, list(self.arrays) if only is None else [only])

    def columns(self, arrays: Sequence[str]) -> list[str]:
        """Those of some arrays."""
        return [each for array in arrays for each in ([LABELS_COLUMN] if array == self._labels else self._columns)]

    def values(self, batch: Any, arrays: Iterable[str]) -> dict[str, np.ndarray]:
        """Some arrays, of a batch of pyarrow that has their columns."""
        return {array: self._values(batch, array) for array in arrays}

    def _values(self, batch: Any, array: str) -> np.ndarray:
        if array == self._labels:
            return self._plain(batch, LABELS_COLUMN)
        parts = [self._plain(batch, column) for column in self._columns]
        return parts[0] if self._columns == [FEATURES_COLUMN] and parts[0].ndim > 1 else np.stack(parts, 1)

    def _plain(self, batch: Any, column: str) -> np.ndarray:
        """(N,) or, of lists, (N, D)."""
        values = batch.column(column)
        if values.null_count:
            raise ShardError(f"{self.path}: column {column!r} has {values.null_count} nulls.")
        if not hasattr(values, "flatten"):
            return _numbers(values, f"{self.path}: column {column!r}")
        flat = _numbers(values.flatten(), f"{self.path}: column {column!r}")
        if not hasattr(values, "value_lengths"):  # fixed-size lists
            return flat.reshape(len(values), values.type.list_size)
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        if len(set(lengths.tolist())) > 1:
            raise ShapeError(
                f"{self.path}: lists in column {column!r} have {lengths.min()} to {lengths.max()} entries."
            )
        return flat.reshape(len(values), -1)


class _ParquetReader(Reader):
    """Reads on where the last call ended, else from the row group that has the row."""

    def __init__(self, table: ParquetTable, file: Any, arrays: Sequence[str]):
        self._table, self._file, self._arrays = table, file, arrays
        self._next = -1
        self._iterator: Iterator[Any] = iter(())
        self._rest: dict[str, np.ndarray] = {}
        self._given: tuple[int, int] = (-1, -1)
        self._block: dict[str, np.ndarray] = {}

    def read(self, array: str, start: int, stop: int, into: np.ndarray) -> None:
        if self._given != (start, stop):
            if start != self._next:
                self._seek(start, stop)
            self._block, self._given, self._next = self._take(stop - start, stop), (start, stop), stop
        values = np.ascontiguousarray(self._block[array])
        into[: values.nbytes] = values.view(np.uint8).reshape(-1)

    def _seek(self, start: int, stop: int) -> None:
        groups, before = self._table.groups or (), 0
        for group, rows in enumerate(groups):
            if start < before + rows:
                columns = self._table.columns(self._arrays)
                batches = self._file.iter_batches(
                    batch_size=stop - start, row_groups=range(group, len(groups)), columns=columns, use_threads=False
                )
                self._iterator, self._rest = (self._table.values(each, self._arrays) for each in batches), {}
                if start > before:
                    self._take(start - before, start)
                return
            before += rows

    def _take(self, size: int, stop: int) -> dict[str, np.ndarray]:
        parts, rows = [], 0
        while rows < size:
            part = self._rest or next(self._iterator, {})
            if not part:
                raise ShardError(f"{self._table.path} ends before row {stop}.")
            length = len(next(iter(part.values())))
            use = min(length, size - rows)
            parts.append({name: values[:use] for name, values in part.items()})
            self._rest = {name: values[use:] for name, values in part.items()} if use < length else {}
            rows += use
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Shard:
    """Arrays of the same samples, in one file or in several.

    Attributes:
        path: of the file with the features.
        rows: N.
        arrays: by name, the table that has the array, and its name there.
        block_rows: rows of each block but the last, if blocks have checksums.
        checksums: CRC-32 of each block, by array.
    """

    path: Path
    rows: int
    arrays: Mapping[str, tuple[Table, str]]
    block_rows: int | None = None
    checksums: Mapping[str, list[int]] | None = None

    @classmethod
    def of(cls, table: Table, **more: Any) -> Shard:
        """All arrays of a table."""
        return cls(table.path, table.rows, {name: (table, name) for name in table.arrays}, **more)

    def kind(self, array: str) -> Kind:
        """Of an array."""
        table, name = self.arrays[array]
        return table.arrays[name]

    def blocks(self, rows: int) -> list[tuple[int, int]]:
        """The parts, (start, stop), that processes share out: of so many rows unless the files say otherwise."""
        tables = {id(table): table for table, _ in self.arrays.values()}.values()
        groups = next((table.groups for table in tables if table.groups is not None), None)
        if groups is not None:
            ends = np.cumsum(groups).tolist()
            return [(end - size, end) for size, end in zip(groups, ends, strict=True) if size]
        size = self.block_rows or rows
        return [(start, min(start + size, self.rows)) for start in range(0, self.rows, size)]

    @contextmanager
    def opened(self) -> Iterator[Mapping[str, tuple[Reader, str]]]:
        """By array, a reader and the array's name there."""
        with ExitStack() as stack:
            tables = {id(table): table for table, _ in self.arrays.values()}
            readers = {key: stack.enter_context(table.opened()) for key, table in tables.items()}
            yield {array: (readers[id(table)], name) for array, (table, name) in self.arrays.items()}


def table_of(path: Path, array: str, *, labels: str | None) -> Table:
    """A user's file: features under the name `array` and, if it has them, labels.

    Raises: ShardError for files that are missing, damaged or of another format; DtypeError, ShapeError.
    """
    if path.suffix == ".npy":
        return npy_table(path, array)
    if path.suffix in PARQUET:
        return ParquetTable(path, array, labels)
    if path.suffix == ".safetensors":
        table = safetensors_table(path)
        wanted = {array: FEATURES_COLUMN} | ({} if labels is None else {labels: LABELS_COLUMN})
        for name in wanted.values():
            if name not in table.arrays:
                raise ShardError(f"{path} has no array {name!r}; it has: {listed(sorted(table.arrays))}.")
        return RawTable(
            path,
            table.rows,
            {mine: table.arrays[name] for mine, name in wanted.items()},
            {mine: table.offsets[name] for mine, name in wanted.items()},
        )
    raise ShardError(f"{path}: features are read from .npy, .safetensors and .parquet files.")


def npy_table(path: Path, array: str) -> RawTable:
    """A `.npy` file. Raises: StateError, ShardError, DtypeError, ShapeError."""
    header = npy_header(path)
    if len(header.shape) == 0:
        raise ShapeError(f"{path} must hold an array with rows; it holds a single number.")
    rows, *shape = header.shape
    if (header.by_columns and shape) or not header.dtype.isnative:
        order = "columns one after the other" if header.by_columns else header.dtype
        raise ShardError(f"{path} holds {order}; save np.ascontiguousarray(x, np.{header.dtype.newbyteorder('=')}).")
    kind = Kind(_torch_dtype(header.dtype, path), tuple(shape))
    return RawTable(path, rows, {array: kind}, {array: header.offset})


def safetensors_table(path: Path) -> RawTable:
    """A `.safetensors` file, all of whose arrays have equally many rows. Raises: StateError, ShardError."""
    arrays, offsets = {}, {}
    rows: dict[int, str] = {}
    for name, declared in safetensors_header(path).arrays.items():
        if not declared.shape:
            raise ShardError(f"{path}: array {name!r} is a single number; arrays must have rows.")
        if declared.dtype is None:
            raise ShardError(f"{path}: array {name!r} has a dtype that torch lacks.")
        rows.setdefault(declared.shape[0], name)
        arrays[name], offsets[name] = Kind(declared.dtype, declared.shape[1:]), declared.offset
    if len(rows) > 1:
        raise ShardError(f"{path}: arrays have {' and '.join(f'{n} rows ({a})' for n, a in rows.items())}.")
    return RawTable(path, next(iter(rows), 0), arrays, offsets)


def _torch_dtype(dtype: np.dtype[Any], path: Path) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError:
        raise DtypeError(
            f"{path} holds {dtype}; features are float16, float32 or float64 and labels integers."
        ) from None


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        array = values.to_numpy(zero_copy_only=False)
    except (NotImplementedError, ValueError) as error:
        raise DtypeError(f"{what} can't be read as numbers: {error}") from None
    if array.dtype.kind not in "iuf":
        raise DtypeError(f"{what} must hold numbers; it holds {values.type}.")
    return array


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet") from None
    return parquet
