"""Descent to the nearest minimum of a smooth function of points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def descend(loss: Callable[[Tensor], Tensor], points: Tensor, *, most: int = 300, tolerance: float = 1e-13) -> Tensor:
    """Where L-BFGS ends that starts from these points, after at most so many steps.

    Args:
        tolerance: a step that changes the loss by less is the last.
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
