"""Constructions end alike: checked sizes at the start; zero padding, scale, dtype and device at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.errors import DimensionError, RangeError


def require_room(construction: str, num_classes: int, dim: int, most: int, bound: str) -> None:
    """Raise DimensionError unless 2 <= num_classes <= most, the `bound` for a `construction` in dim >= 1 dimensions."""
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
    """Vectors (K, d) as (K, dim), zeros behind, times `scale`. Raises: RangeError unless 0 < scale < inf."""
    if not 0 < scale < math.inf:
        raise RangeError(f"scale must be positive and finite; got {scale}.")
    if dim < vectors.shape[1]:
        raise DimensionError(f"these vectors need {vectors.shape[1]} dimensions; got dim={dim}.")
    if dim > vectors.shape[1]:
        vectors = torch.nn.functional.pad(vectors, (0, dim - vectors.shape[1]))
    return (vectors if scale == 1 else vectors * scale).to(dtype).to(device)
