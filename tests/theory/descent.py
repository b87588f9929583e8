"""Minima to rounding on any processor: L-BFGS comes near, Newton's method arrives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def minimum(objective: Callable[..., Tensor], start: Sequence[Tensor]) -> list[Tensor]:
    """A minimum of objective(*parts) near where descent from `start` leads; float64.

    Newton's steps leave directions alone in which nothing changes, such as rotations.
    """
    lengths = [part.numel() for part in start]

    def parts(point: Tensor) -> list[Tensor]:
        return [piece.view_as(part) for piece, part in zip(point.split(lengths), start, strict=True)]

    def value(point: Tensor) -> Tensor:
        return objective(*parts(point))

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = value(point)
        loss.backward()
        return loss

    point = torch.cat([part.flatten() for part in start]).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [point], max_iter=5000, history_size=60, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    optimiser.step(closure)
    near, slope = point.detach(), torch.func.grad(value)
    for _ in range(4):
        near = near - torch.linalg.pinv(torch.func.jacrev(slope)(near), rtol=1e-6, hermitian=True) @ slope(near)
    assert slope(near).norm() < 1e-10
    return parts(near)
