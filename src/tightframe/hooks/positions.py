"""`POSITIONS`: ways to use features with several positions per sample, such as tokens or pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.errors import ShapeError
from tightframe.layout import rows_of


def _each(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    """Features as (N, ..., D). Default `feature_dim`: the second of four or more dimensions, else the last."""
    if features.ndim < 2:
        raise ShapeError(f"features must have at least two dimensions; got shape {tuple(features.shape)}.")
    if feature_dim is None:
        return rows_of(features)
    if not -features.ndim <= feature_dim < features.ndim:
        raise ShapeError(f"features of shape {tuple(features.shape)} have no dimension {feature_dim}.")
    return features.movedim(feature_dim, -1)


def _mean(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    last = _each(features, feature_dim)
    if last.ndim == 2:
        return last
    wide = torch.promote_types(last.dtype, torch.float32)
    places = tuple(range(1, last.ndim - 1))
    if mask is None or mask.shape != last.shape[:-1]:
        return last.mean(places, dtype=wide)
    counted = mask.to(last.device, torch.bool)[..., None]
    return torch.where(counted, last, 0).sum(places, dtype=wide) / counted.sum(places)


def _one(features: Tensor, feature_dim: int | None, mask: Tensor | None, place: int) -> Tensor:
    """The first (0) or last (-1) position in the mask."""
    last = _each(features, feature_dim)
    if last.ndim == 2:
        return last
    if mask is None or mask.shape != last.shape[:-1]:
        return last.flatten(1, -2)[:, place]
    counted = mask.to(last.device, torch.int64).flatten(1)
    where = counted.argmax(1) if place == 0 else counted.shape[1] - 1 - counted.flip(1).argmax(1)
    return last.flatten(1, -2)[torch.arange(len(last), device=last.device), where]


def _first(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    return _one(features, feature_dim, mask, 0)


def _last(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    return _one(features, feature_dim, mask, -1)


def _flat(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    return features.flatten(1)


POSITIONS: dict[str, Callable[..., Tensor]] = {
    "each": _each,
    "mean": _mean,
    "first": _first,
    "last": _last,
    "flatten": _flat,
}
"""Functions of features, the dimension of the D features (None: as in torch's layers) and a mask of positions that are
not padding. "each": every position is a sample (N, ..., D); "mean": mean over the mask (N, D), in float32 at least;
"first" (a class token) and "last": one position in the mask (N, D); "flatten": all positions as one vector (N, P D), in
the order of `torch.nn.Flatten`, including padding."""


def require_positions(name: str) -> str:
    """The name, or ChoiceError listing those of `POSITIONS`."""
    require_choice(name, POSITIONS, "positions")
    return name
