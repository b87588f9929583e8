"""Named arrays from a file of any format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tightframe.checks import Array, as_array, require_dense
from tightframe.errors import DtypeError, StateError
from tightframe.reading.checkpoint import read_checkpoint
from tightframe.reading.npy import Npz, map_npy
from tightframe.reading.safetensors import read_tensor, safetensors_header

SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth")


class Arrays(Mapping[str, Array]):
    """The arrays of a file by name, each read when it is asked for; a lone array is called "".

    Attributes:
        shapes: of all arrays, by name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Array]):
        self.shapes, self._read = shapes, read

    def __getitem__(self, name: str) -> Array:
        self.shapes[name]  # raises KeyError
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __str__(self) -> str:
        """Names and shapes, for messages."""
        return ", ".join(f"{name or 'a lone array'} {shape}" for name, shape in self.shapes.items()) or "none"


def read_arrays(path: Path) -> Arrays:
    """The arrays of a .npz, .npy (memory-mapped), .safetensors, .pt or .pth file. Nothing in the file is run.

    Arrays in nested dicts of a torch file have names with dots, as "model.weight"; lists of integers or of text in it
    are arrays too.
    Raises: StateError for a file that is missing, damaged or of another format, and for one that declares more data
    than it can hold; DtypeError for arrays of Python objects. An array's own errors are raised when it is read.
    """
    if path.suffix == ".npz":
        npz = Npz(path)
        return Arrays(npz.shapes, npz.read)
    if path.suffix == ".npy":
        array = map_npy(path)
        return Arrays({"": array.shape}, lambda _: array)
    if path.suffix == ".safetensors":
        declared = safetensors_header(path).arrays
        return Arrays({name: each.shape for name, each in declared.items()}, lambda name: read_tensor(path, name))
    if path.suffix in (".pt", ".pth"):
        arrays = _flat(read_checkpoint(path))
        return Arrays(
            {name: tuple(each.shape) for name, each in arrays.items()},
            lambda name: _plain(path, name, arrays[name]),
        )
    raise wrong_suffix(path, SUFFIXES)


def wrong_suffix(path: Path, suffixes: Sequence[str]) -> StateError:
    """The error for a file whose suffix is none of those that can be read."""
    return StateError(f"{path} must be a {', '.join(suffixes[:-1])} or {suffixes[-1]} file.")


def _flat(content: Mapping[str, Any]) -> dict[str, Array]:
    """The tensors of nested dicts, and their lists of integers or of text, as labels often are."""
    arrays: dict[str, Array] = {}
    waiting, seen = [("", content)], set[int]()
    while waiting:
        prefix, entries = waiting.pop()
        if id(entries) in seen:  # a damaged file can hold a dict that holds itself
            continue
        seen.add(id(entries))
        for name, value in entries.items():
            if isinstance(value, Mapping):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor) and not value.is_nested:  # the shape of a nested one can't be told
                arrays[f"{prefix}{name}"] = value
            elif isinstance(value, list) and any(_all(value, kind) for kind in (int, str)):
                arrays[f"{prefix}{name}"] = as_array(value, f"{prefix}{name}")
    return arrays


def _all(values: list[Any], kind: type) -> bool:
    return bool(values) and all(isinstance(each, kind) for each in values)


def _plain(path: Path, name: str, array: Array) -> Array:
    """The array. Raises: DtypeError unless it is a plain one with values."""
    if not isinstance(array, Tensor):
        return array
    what = f"{path}: the array {name or 'in it'!r}"
    require_dense(array, what)
    if array.numel() * array.element_size() > array.untyped_storage().nbytes():
        raise DtypeError(f"{what} is an expanded view; save x.contiguous().")
    return array.detach()
