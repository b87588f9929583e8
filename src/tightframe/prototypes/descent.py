"""Descent of points to a minimum of a smooth function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def descend(loss: Callable[[Tensor], Tensor], points: Tensor, *, most: int = 300, tolerance: float = 1e-13) -> Tensor:
    """The result of L-BFGS from these points, after at most `most` steps.

    Args:
        tolerance: stop after a step that changes the loss by less.
    """
    points = points.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [points],
        max_iter=most,
        history_size=20,
        tolerance_grad=1e-13,
        tolerance_change=tolerance,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(points)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    return points.detach()
