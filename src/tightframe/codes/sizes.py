"""Checks of the number of vectors and of dimensions."""

from __future__ import annotations

import operator

from tightframe.errors import DimensionError


def require_sizes(num_vectors: int, dim: int, name: str = "num_vectors", *, distinct: bool = False) -> tuple[int, int]:
    """K and D as int.

    Args:
        name: the argument that gives K, for messages.
        distinct: refuse K > 2 for D = 1, where distinct unit vectors don't exist.

    Raises: DimensionError unless both are integers with K >= 2 and D >= 1.

    >>> from tightframe.codes.sizes import require_sizes
    >>> require_sizes(3, 2)
    (3, 2)
    """
    K, D = _at_least(2, num_vectors, name), require_dim(dim)
    if distinct and D == 1 and K > 2:
        raise DimensionError(f"there are at most two unit vectors on a line; got {K} with dim=1. Increase dim.")
    return K, D


def require_dim(dim: int) -> int:
    """D as int. Raises: DimensionError unless it is an integer >= 1."""
    return _at_least(1, dim, "dim")


def _at_least(least: int, value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise DimensionError(f"{name} must be an integer; got {value!r}.") from None
    if number < least:
        raise DimensionError(f"{name} must be at least {least}; got {number}.")
    return number
