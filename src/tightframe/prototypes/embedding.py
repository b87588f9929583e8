"""Common parts of constructions: checks of sizes; zero padding, scale, dtype and device of the result."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.errors import DimensionError, RangeError


def require_room(construction: str, num_classes: int, dim: int, most: int, bound: str) -> None:
    """Raise DimensionError unless 2 <= num_classes <= most and dim >= 1; `bound` is the formula of `most`."""
    if num_classes < 2 or dim < 1:
        raise DimensionError(f"prototypes need at least 2 classes and 1 dimension; got {num_classes} and {dim}.")
    if num_classes > most:
        raise DimensionError(
            f"{construction} in {dim} dimensions has at most {most} vectors ({bound}); got {num_classes}. "
            f"Take more dimensions, or prototypes.best({num_classes}, {dim}), which separates any number of vectors."
        )


def embedded(
    vectors: Tensor, dim: int, *, scale: float, device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    """Vectors (K, d) padded with zeros to (K, dim), times `scale`. Raises: RangeError unless 0 < scale < inf."""
    if not 0 < scale < math.inf:
        raise RangeError(f"scale must be positive and finite; got {scale}.")
    if dim < vectors.shape[1]:
        raise DimensionError(f"dim must be at least {vectors.shape[1]} for these vectors; got {dim}.")
    if dim > vectors.shape[1]:
        vectors = torch.nn.functional.pad(vectors, (0, dim - vectors.shape[1]))
    return (vectors if scale == 1 else vectors * scale).to(dtype).to(device)
