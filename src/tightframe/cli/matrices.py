"""Matrices from files: vectors, similarities, costs between classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tightframe.checks import as_tensor
from tightframe.errors import CostMatrixError, DtypeError, ShapeError, StateError
from tightframe.reading import read_arrays, read_rows


def read_matrix(path: Path, key: str | None = None, *, flag: str | None = None) -> Tensor:
    """A real matrix from a file of arrays, as float64.

    Args:
        key: name of the array. Default: the only array with two dimensions.
        flag: the option that gives `key`, for messages. Default: there is none.

    Raises: StateError that lists the file's arrays, unless exactly one fits; ShapeError or DtypeError for another array
    than a real matrix.
    """
    arrays = read_arrays(path)
    if key is None:
        matrices = [name for name, shape in arrays.shapes.items() if len(shape) == 2]
        if len(matrices) > 1:
            advice = f"choose one with {flag}" if flag is not None else "give a file with one matrix"
            raise StateError(f"{path} has several matrices; {advice}. Its arrays: {arrays}.")
        if not matrices:
            raise StateError(f"{path} has no matrix (an array of two dimensions). Its arrays: {arrays}.")
        key = matrices[0]
    elif key not in arrays.shapes:
        raise StateError(f"{path} has no array called {key!r}. Its arrays: {arrays}.")
    if len(arrays.shapes[key]) != 2:
        raise ShapeError(f"{path} must hold a matrix; {key!r} has the shape {arrays.shapes[key]}.")
    matrix = as_tensor(arrays[key], str(path))
    if matrix.is_complex() or matrix.dtype is torch.bool:
        raise DtypeError(f"{path} must hold real numbers; it holds {matrix.dtype}.")
    return matrix.double()


def read_cost(path: Path) -> Tensor:
    """A matrix of costs (K, K) from a .csv or a file that `read_matrix` reads; `require_cost` checks the values.

    A .csv holds the matrix, or lines i,j,cost with classes counted from 0 and each pair once; a header is skipped.
    Raises: StateError or CostMatrixError that names the wrong line or the missing pair.
    """
    if path.suffix != ".csv":
        return read_matrix(path)
    lines = read_rows(path)
    if lines and not _are_numbers(lines[0][1]):
        del lines[0]
    for number, row in lines:
        if not _are_numbers(row) or len(row) != len(lines[0][1]):
            raise StateError(f"line {number} of {path} must be {len(lines[0][1])} numbers; got {','.join(row):.100}.")
    table = torch.tensor([[float(field) for field in row] for _, row in lines], dtype=torch.float64)
    # three lines of three numbers are ambiguous; only a matrix has zeros on its diagonal
    square = len(lines) > 0 and table.shape[0] == table.shape[1] and (len(table) != 3 or not table.diagonal().any())
    if square or table.ndim != 2 or table.shape[1] != 3:
        return table
    return _from_triples(table, path)


def _from_triples(triples: Tensor, path: Path) -> Tensor:
    pairs = triples[:, :2]
    if not ((pairs >= 0) & (pairs == pairs.round())).all():
        raise CostMatrixError(f"{path} must hold a square matrix or lines i,j,cost with i, j = 0, 1, 2, ...")
    size = int(pairs.max()) + 1
    if size * (size - 1) > 8 * len(pairs) + 32:  # a matrix of this size may not fit into memory
        raise CostMatrixError(
            f"{path} lists {len(pairs)} pairs, but its classes run to {size - 1}, which makes {size * (size - 1) // 2}."
        )
    rows, columns = pairs.long().mT
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
