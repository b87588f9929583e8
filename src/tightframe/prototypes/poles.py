"""Poles for regression: a target value is an angle between two opposite prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, can_look
from tightframe.codes.sizes import require_dim
from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import construction


@construction(
    "Mettes, van der Pol & Snoek 2019", aim=Aim("regression", "two opposite poles for each regression target")
)
def poles(num_targets: int, dim: int) -> Tensor:
    """Two opposite poles for each regression target: rows 2t (lower bound) and 2t + 1 (upper bound) for target t.

    The targets' axes are orthogonal, so that each target is read independently. A value has cosine `pole_cosine` with
    the upper pole and its negative with the lower pole.

    Returns: (2 num_targets, dim) unit vectors along the coordinate axes.
    Raises: DimensionError unless 1 <= num_targets <= dim.
    Source: Mettes, van der Pol & Snoek 2019 (Hyperspherical Prototype Networks), one target.

    >>> from tightframe.prototypes import poles
    >>> poles(1, 2).vectors.tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    if not 1 <= num_targets <= require_dim(dim):
        raise DimensionError(
            f"num_targets must be at least 1 and at most {dim} (D), one axis per target; got {num_targets}. "
            "Increase dim, or reduce num_targets."
        )
    axes = torch.eye(num_targets, dtype=torch.float64)
    return torch.stack([0 - axes, axes], dim=1).flatten(0, 1)  # 0 - x avoids the negative zeros of -x


def pole_cosine(values: Array, lower: float, upper: float) -> Tensor:
    """The cosine to the upper pole that encodes a value: -1 at `lower`, 1 at `upper`, linear between.

    Shape: any; the result has the same shape. Range: [-1, 1]. Differentiable.
    Raises: RangeError unless lower < upper and, checked on the CPU only, all values lie in [lower, upper].
    Source: Mettes, van der Pol & Snoek 2019, r = 2 (y - v_l) / (v_u - v_l) - 1.

    >>> import torch
    >>> from tightframe.prototypes import pole_cosine
    >>> pole_cosine(torch.tensor([0.0, 15.0, 20.0]), lower=0, upper=20).tolist()
    [-1.0, 0.5, 1.0]
    """
    _require_bounds(lower, upper)
    values = as_tensor(values)
    outside = ~((values >= lower) & (values <= upper))
    if can_look(values) and outside.any():
        raise RangeError(
            f"values must lie between the poles, in [{lower}, {upper}]; got {values[outside][0].item()} "
            f"({int(outside.sum())} of {values.numel()} outside). Pass bounds that include all values."
        )
    return 2 * (values - lower) / (upper - lower) - 1


def pole_value(cosines: Array, lower: float, upper: float) -> Tensor:
    """The value that a cosine to the upper pole encodes: the inverse of `pole_cosine`.

    Shape: any; the result has the same shape. Any number is allowed, so rounding beyond a pole is no error.
    Differentiable.
    Raises: RangeError unless lower < upper.
    Source: Mettes, van der Pol & Snoek 2019.

    >>> import torch
    >>> from tightframe.prototypes import pole_value
    >>> pole_value(torch.tensor([-1.0, 0.5, 1.0]), lower=0, upper=20).tolist()
    [0.0, 15.0, 20.0]
    """
    _require_bounds(lower, upper)
    return lower + (as_tensor(cosines, "cosines") + 1) * (upper - lower) / 2


def _require_bounds(lower: float, upper: float) -> None:
    if not lower < upper:
        raise RangeError(f"lower must be less than upper; got {lower} and {upper}.")
