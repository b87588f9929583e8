"""What every detector is: a function from features to scores, higher for samples like the training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_features

_ENTRIES = 1 << 22  # float64 numbers in one block of rows


class Detector(Protocol):
    """A frozen value that scores features. Higher is always more in-distribution."""

    def scores(self, features: Array) -> Tensor:
        """(N, D) features, a tensor or a numpy array, -> (N,) float64 scores."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that the scores depend on besides the data, as plain data."""
        ...


@torch.no_grad()
def in_blocks(score: Callable[[Tensor], Tensor], features: Array, like: Tensor, width: int) -> Tensor:
    """`score` of (N, D) features, in blocks of rows that have `like`'s dtype and device and `width` numbers each.

    Raises: DtypeError, ShapeError or NonFiniteError for features that aren't finite floats (N, D), D = like.shape[-1].
    """
    features = as_tensor(features, "features")
    require_features(features, like.shape[-1])
    height = max(1, _ENTRIES // max(width, like.shape[-1]))
    return torch.cat([score(block.to(like)) for block in features.detach().split(height)])
