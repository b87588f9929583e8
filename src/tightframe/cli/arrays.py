"""Arrays from the files that users have, without running anything that is in them."""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tightframe.errors import CostMatrixError, DtypeError, ShapeError, StateError


def read_arrays(path: Path) -> dict[str, Any]:
    """The named arrays of a .npz, .npy, .safetensors or .pt/.pth file; a lone array is called "".

    Nothing in the file is executed: .pt files are read as weights only, .npy and .npz without pickled objects.
    Raises: StateError for files of another kind, damaged or missing.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        if path.suffix == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix in (".pt", ".pth"):
            return _read_checkpoint(path)
    except (OSError, ValueError, SafetensorError, EOFError, zipfile.BadZipFile) as error:
        raise StateError(f"can't read {path}: {str(error) or type(error).__name__}") from None
    raise StateError(f"{path} must be a .npz, .npy, .safetensors or .pt file.")


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """The tensors of a torch file. Raises ValueError for anything that isn't plain tensors."""
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise ValueError("it holds more than plain tensors, which could run code when loaded") from None
        except Exception as error:  # a damaged file makes the unpickler fail in any way
            raise ValueError(f"it is no torch file ({type(error).__name__})") from None
    return dict(content) if isinstance(content, dict) else {"": content}


def pick(arrays: dict[str, Any], names: tuple[str, ...], path: Path, *, required: bool = True) -> Any:
    """The array under one of the names (or a lone array); StateError lists what the file has."""
    for name in (*names, ""):
        if name in arrays:
            if not isinstance(arrays[name], Tensor | np.ndarray):
                raise StateError(f"{path} holds a {type(arrays[name]).__name__} where an array is needed.")
            return arrays[name]
    if required:
        raise StateError(
            f"{path} has no array called {' or '.join(names)}; it has: {', '.join(map(str, arrays)) or 'a lone array'}."
        )
    return None


def read_matrix(path: Path, key: str | None = None) -> Tensor:
    """A real matrix from a file of arrays, as float64: the array called `key`, or else the only one that has two
    dimensions.

    Raises: StateError listing the file's arrays unless one is meant; ShapeError, DtypeError for one of another kind.
    """
    arrays = dict(_flat(read_arrays(path)))
    there = ", ".join(f"{name or 'a lone array'} {tuple(array.shape)}" for name, array in arrays.items()) or "none"
    if key is None:
        matrices = [array for array in arrays.values() if array.ndim == 2]
        if len(matrices) > 1:
            raise StateError(f"{path} has several matrices; choose one with --key. Its arrays: {there}.")
        if not matrices:
            raise StateError(f"{path} has no matrix (an array of two dimensions). Its arrays: {there}.")
        array = matrices[0]
    elif key not in arrays:
        raise StateError(f"{path} has no array called {key!r}. Its arrays: {there}.")
    else:
        array = arrays[key]
    if array.ndim != 2:
        raise ShapeError(f"a matrix is needed; {key!r} in {path} has shape {tuple(array.shape)}.")
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise DtypeError(f"real numbers are needed; {path} holds {array.dtype}.")
        return torch.from_numpy(np.array(array, dtype=np.float64))
    if array.dtype.is_complex or array.dtype is torch.bool:
        raise DtypeError(f"real numbers are needed; {path} holds {array.dtype}.")
    return array.detach().double()


def read_cost(path: Path) -> Tensor:
    """(K, K) costs from a .csv or a file that `read_matrix` reads; that they are costs is for `require_cost` to say.

    A .csv holds the matrix, or lines i,j,cost with classes counted from 0 and each pair once; a header is skipped.
    Raises: StateError, CostMatrixError naming the line or the pair that is wrong.
    """
    if path.suffix != ".csv":
        return read_matrix(path)
    try:
        lines = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"can't read {path}: {error}") from None
    if lines and not _are_numbers(lines[0]):
        del lines[0]
    for number, line in enumerate(lines, 1):
        if not _are_numbers(line) or len(line) != len(lines[0]):
            raise StateError(f"row {number} of {path} must be {len(lines[0])} numbers; got {','.join(line)}.")
    table = torch.tensor([[float(field) for field in line] for line in lines], dtype=torch.float64)
    # three lines of three numbers may be either, but only a matrix has zeros on its diagonal
    square = len(lines) > 0 and table.shape[0] == table.shape[1] and (len(table) != 3 or not table.diagonal().any())
    if square or table.ndim != 2 or table.shape[1] != 3:
        return table
    return _from_triples(table, path)


def _from_triples(triples: Tensor, path: Path) -> Tensor:
    pairs = triples[:, :2]
    if (pairs < 0).any() or (pairs != pairs.round()).any():
        raise CostMatrixError(f"{path} must hold a square matrix or lines i,j,cost with i, j = 0, 1, 2, ...")
    rows, columns = pairs.long().mT
    size = int(pairs.max()) + 1
    cost = torch.full((size, size), torch.nan, dtype=torch.float64).fill_diagonal_(0)
    cost[rows, columns] = cost[columns, rows] = triples[:, 2]
    if (missing := cost.isnan().nonzero()).numel():
        raise CostMatrixError(f"{path} lacks the cost of {tuple(missing[0].tolist())}; it must list every pair.")
    return cost


def _are_numbers(fields: list[str]) -> bool:
    try:
        return all(float(field) is not None for field in fields)
    except ValueError:
        return False


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of nested dicts, such as checkpoints, with dots between the names."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor | np.ndarray):
            yield f"{prefix}{name}", value
