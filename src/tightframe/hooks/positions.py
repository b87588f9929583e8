"""What becomes of the positions of features with several to a sample: tokens, pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.errors import ShapeError
from tightframe.layout import rows_of


def _each(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
    """Features as (N, ..., D): from `feature_dim`, by default the second of four or more dimensions, else the last."""
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
    kept = mask.to(last.device, torch.bool)[..., None]
    return torch.where(kept, last, 0).sum(places, dtype=wide) / kept.sum(places)


def _one(place: int) -> Callable[[Tensor, int | None, Tensor | None], Tensor]:
    """The first (0) or last (-1) position, of those that the mask keeps."""

    def chosen(features: Tensor, feature_dim: int | None, mask: Tensor | None = None) -> Tensor:
        last = _each(features, feature_dim)
        if last.ndim == 2:
            return last
        if mask is None or mask.shape != last.shape[:-1]:
            return last.flatten(1, -2)[:, place]
        kept = mask.to(last.device, torch.int64).flatten(1)
        where = kept.argmax(1) if place == 0 else kept.shape[1] - 1 - kept.flip(1).argmax(1)
        return last.flatten(1, -2)[torch.arange(len(last), device=last.device), where]

    return chosen


POSITIONS: dict[str, Callable[..., Tensor]] = {
    "each": _each,
    "mean": _mean,
    "first": _one(0),
    "last": _one(-1),
    "flatten": lambda features, feature_dim, mask=None: features.flatten(1),
}
"""Functions of features, the dimension of the D features (None: as in torch's layers) and, if there is padding, a mask
of the positions that count. Every position a sample of its own (N, ..., D); the mean over those that count (N, D), in
float32 at least; the first (a class token) or the last of them (N, D); all as one long vector (N, P D), in the order of
`torch.nn.Flatten`, padding included."""


def require_positions(name: str) -> str:
    """The name, or ChoiceError listing those of `POSITIONS`."""
    require_choice(name, POSITIONS, "positions")
    return name
