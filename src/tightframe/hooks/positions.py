"""What becomes of the positions of features with several to a sample: tokens, pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.errors import ChoiceError, ShapeError
from tightframe.layout import rows_of


def _mean(features: Tensor) -> Tensor:
    if features.ndim == 2:
        return features
    return features.mean(tuple(range(1, features.ndim - 1)), dtype=torch.promote_types(features.dtype, torch.float32))


def _one(place: int) -> Callable[[Tensor], Tensor]:
    return lambda features: features if features.ndim == 2 else features.flatten(1, -2)[:, place]


POSITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "each": lambda features: features,
    "mean": _mean,
    "first": _one(0),
    "last": _one(-1),
    "flatten": lambda features: features.flatten(1),
}
"""Functions of features (N, ..., D): every position a sample of its own; the mean over them (N, D), in float32 at
least; the first (a class token) or the last (N, D); all of them as one long vector (N, P D)."""


def require_positions(name: str) -> str:
    """The name, or ChoiceError listing those of `POSITIONS`."""
    if name not in POSITIONS:
        raise ChoiceError(f"positions must be one of {', '.join(POSITIONS)}; got {name!r}.")
    return name


def features_last(features: Tensor, feature_dim: int | None) -> Tensor:
    """Features as (N, ..., D): from `feature_dim`, by default the second of four or more dimensions, else the last."""
    if features.ndim < 2:
        raise ShapeError(f"features must have at least two dimensions; got shape {tuple(features.shape)}.")
    if feature_dim is None:
        return rows_of(features)
    if not -features.ndim <= feature_dim < features.ndim:
        raise ShapeError(f"features of shape {tuple(features.shape)} have no dimension {feature_dim}.")
    return features.movedim(feature_dim, -1)
