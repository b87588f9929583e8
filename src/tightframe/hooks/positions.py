"""What becomes of the positions of features with several to a sample: tokens, pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.errors import ChoiceError, ShapeError
from tightframe.layout import rows_of


def _each(features: Tensor, feature_dim: int | None) -> Tensor:
    """Features as (N, ..., D): from `feature_dim`, by default the second of four or more dimensions, else the last."""
    if features.ndim < 2:
        raise ShapeError(f"features must have at least two dimensions; got shape {tuple(features.shape)}.")
    if feature_dim is None:
        return rows_of(features)
    if not -features.ndim <= feature_dim < features.ndim:
        raise ShapeError(f"features of shape {tuple(features.shape)} have no dimension {feature_dim}.")
    return features.movedim(feature_dim, -1)


def _mean(features: Tensor, feature_dim: int | None) -> Tensor:
    last = _each(features, feature_dim)
    if last.ndim == 2:
        return last
    return last.mean(tuple(range(1, last.ndim - 1)), dtype=torch.promote_types(last.dtype, torch.float32))


def _one(place: int) -> Callable[[Tensor, int | None], Tensor]:
    def chosen(features: Tensor, feature_dim: int | None) -> Tensor:
        last = _each(features, feature_dim)
        return last if last.ndim == 2 else last.flatten(1, -2)[:, place]

    return chosen


POSITIONS: dict[str, Callable[[Tensor, int | None], Tensor]] = {
    "each": _each,
    "mean": _mean,
    "first": _one(0),
    "last": _one(-1),
    "flatten": lambda features, feature_dim: features.flatten(1),
}
"""Functions of features and the dimension of the D features (None: as in torch's layers). Every position a sample of
its own (N, ..., D); the mean over them (N, D), in float32 at least; the first (a class token) or the last (N, D); all
of them as one long vector (N, P D), in the order of `torch.nn.Flatten`."""


def require_positions(name: str) -> str:
    """The name, or ChoiceError listing those of `POSITIONS`."""
    if name not in POSITIONS:
        raise ChoiceError(f"positions must be one of {', '.join(POSITIONS)}; got {name!r}.")
    return name
