"""Batched L-BFGS on products of spheres: R independent problems of M unit vectors in R^D advance together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Unit vectors (R, M, D) -> values (R,) and Euclidean gradients (R, M, D), separately for each problem."""

_ARMIJO = 1e-4
_SHORTEN = 0.25
_TRIALS = 8
_LONGEST = 0.5  # largest movement of a point in one step, in radians


def unit(points: Tensor) -> Tensor:
    """Points divided by their lengths."""
    return points / torch.linalg.vector_norm(points, dim=-1, keepdim=True)


def tangent(vectors: Tensor, points: Tensor) -> Tensor:
    """The parts of vectors that are tangent to the sphere at unit points."""
    return vectors - (vectors * points).sum(-1, keepdim=True) * points


def descend(
    points: Tensor,
    objective: Objective,
    *,
    steps: int,
    tolerance: Tensor | float = 0.0,
    memory: int = 8,
    stop: Callable[[], bool] = lambda: False,
    flat: bool = False,
) -> Tensor:
    """Unit vectors (R, M, D), or any vectors if `flat`, with a lower objective, after at most `steps` steps of L-BFGS.

    Ends early if no value falls by more than its `tolerance` (scalar or (R,)) in a step, or if `stop()` is true. Values
    never rise, up to rounding. Curvature pairs use tangent gradients at successive points without transport, since
    steps are short. A problem with a failed line search stays at its points.
    """
    R, M, D = points.shape
    retract = (lambda moved: moved) if flat else unit
    along = (lambda vectors, _: vectors) if flat else tangent
    past = points.new_zeros(memory, 2, R, M * D)
    scale = points.new_zeros(memory, R)  # 1 / <s, y>, or 0 for a pair that was refused
    first = points.new_full((R,), 0.0)
    settled = torch.zeros(R, dtype=torch.bool, device=points.device)  # rounding decides about their steps
    value, gradient = objective(points)
    gradient = along(gradient, points)
    for step in range(steps):
        if stop():
            break
        recent = [j % memory for j in range(max(step - memory, 0), step)]
        direction = -_two_loop(gradient.reshape(R, -1), past, scale, recent, first).view(R, M, D)
        direction = along(direction, points)
        slope = (direction * gradient).sum((1, 2))
        uphill = slope >= 0
        direction = torch.where(uphill[:, None, None], -gradient, direction)
        slope = torch.where(uphill, -(gradient * gradient).sum((1, 2)), slope)
        longest = torch.linalg.vector_norm(direction, dim=-1).amax(1)
        length = (_LONGEST / longest.clamp(min=1e-300)).clamp(max=1.0)
        rounding = 4 * torch.finfo(points.dtype).eps * value.abs()
        for _ in range(_TRIALS):
            moved = retract(points + length[:, None, None] * direction)
            new_value, new_gradient = objective(moved)
            accepted = new_value <= value + _ARMIJO * length * slope + rounding
            if (accepted | settled).all():
                break
            length = torch.where(accepted, length, length * _SHORTEN)
        settled = ~accepted
        mask = accepted[:, None, None]
        moved = torch.where(mask, moved, points)
        new_gradient = torch.where(mask, along(new_gradient, moved), gradient)
        new_value = torch.where(accepted, new_value, value)
        change, bend = (moved - points).view(R, -1), (new_gradient - gradient).view(R, -1)
        curvature, size = (change * bend).sum(1), (bend * bend).sum(1)
        convex = curvature > 1e-10 * (size * (change * change).sum(1)).sqrt()
        past[step % memory, 0], past[step % memory, 1] = change, bend
        scale[step % memory] = torch.where(convex, 1 / curvature, 0.0)
        first = torch.where(convex, curvature / size, first)
        fall = value - new_value
        points, gradient, value = moved, new_gradient, new_value
        if (fall <= tolerance).all():
            break
    return points


def _two_loop(gradient: Tensor, past: Tensor, scale: Tensor, recent: list[int], first: Tensor) -> Tensor:
    """The inverse Hessian's estimate applied to gradients (R, M * D); without a past, a step of 0.1 radians at most."""
    result = gradient.clone()
    shares = []
    for j in reversed(recent):
        change, bend = past[j]
        share = torch.where(scale[j] > 0, scale[j] * (change * result).sum(1), 0.0)
        shares.append(share)
        result -= share[:, None] * bend
    cautious = 0.1 / torch.linalg.vector_norm(gradient, dim=1).clamp(min=1e-300)
    result *= torch.where(first > 0, first, cautious)[:, None]
    for j, share in zip(recent, reversed(shares), strict=True):
        change, bend = past[j]
        back = torch.where(scale[j] > 0, scale[j] * (bend * result).sum(1), 0.0)
        result += (share - back)[:, None] * change
    return result
