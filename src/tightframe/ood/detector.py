"""`Detector`: a function from features to scores, higher for in-distribution samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_features

_ENTRIES = 1 << 22  # maximum float64 entries in one block of rows


class Detector(Protocol):
    """A frozen value that scores features. Higher scores mean more in-distribution.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Detector, NearestCentre
    >>> statistics = ClassStatistics.from_features(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), 2)
    >>> detector: Detector = NearestCentre.fit(statistics)
    >>> detector.scores(torch.tensor([[1.0], [9.0]])).tolist()  # distances 1 and 5
    [-1.0, -5.0]
    """

    def scores(self, features: Array) -> Tensor:
        """Features (N, D), a tensor or numpy array -> scores (N,), float64."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters of the detector, as plain data."""
        ...


@torch.no_grad()
def in_blocks(score: Callable[[Tensor], Tensor], features: Array, like: Tensor, width: int) -> Tensor:
    """`score` of features (N, D) in blocks of rows, in the dtype and device of `like`; `width` entries per row.

    Raises: DtypeError, ShapeError or NonFiniteError unless features are finite floats (N, D) with D = like.shape[-1].
    """
    features = as_tensor(features, "features")
    require_features(features, like.shape[-1])
    height = max(1, _ENTRIES // max(width, like.shape[-1]))
    return torch.cat([score(block.to(like)) for block in features.detach().split(height)])
