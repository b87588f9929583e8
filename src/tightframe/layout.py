"""Where features lie in a tensor: last in (N, D) and (N, T, D), second in (N, D, H, W), as in torch's own layers."""

from __future__ import annotations

from torch import Tensor

from tightframe.errors import DtypeError, ShapeError


def features_last(features: Tensor, num_features: int, what: str = "features") -> Tensor:
    """(N, D), (N, T, D) or (N, D, H, W) as (..., D); a view.

    Raises: ShapeError for another width or fewer than two dimensions, DtypeError unless floating point.
    """
    if features.ndim < 2:
        raise ShapeError(f"{what} must be (N, D), (N, T, D) or (N, D, H, W); got shape {tuple(features.shape)}.")
    if not features.dtype.is_floating_point:
        raise DtypeError(f"{what} must be floating point; got {features.dtype}. Convert them with .float().")
    last = features.movedim(1, -1) if features.ndim > 3 else features
    if last.shape[-1] != num_features:
        where = "second" if features.ndim > 3 else "last"
        raise ShapeError(
            f"{what} must have {num_features} entries in their {where} dimension; got shape {tuple(features.shape)}."
        )
    return last


def like_features(values: Tensor) -> Tensor:
    """The inverse: (..., K) values back in the layout of the features."""
    return values.movedim(-1, 1) if values.ndim > 3 else values
