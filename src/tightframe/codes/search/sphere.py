"""Batched L-BFGS on products of spheres: R independent problems of M unit vectors in R^D advance together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.numerics import unit_rows

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Unit vectors (R, M, D) -> values (R,) and Euclidean gradients (R, M, D), separately for each problem."""

_ARMIJO = 1e-4
_SHORTEN = 0.25
_SHORTEST = 1e-4  # smallest share of a full step; a problem that refuses it is at rounding level
_LONGEST = 0.5  # largest movement of a point in one step, in radians


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
    """Unit vectors (R, M, D), or any vectors if `flat`, with a lower objective, after at most `steps` steps.

    The method is L-BFGS. A problem that refuses a step tries a shorter one next, while the others go on. Ends early
    once every value has fallen by no more than its `tolerance` (scalar or (R,)) in a step, or if `stop()` is true.
    Values never rise, up to rounding. Curvature pairs use tangent gradients at successive points without transport,
    since steps are short.
    """
    R, M, D = points.shape
    retract = (lambda moved: moved) if flat else unit_rows
    along = (lambda vectors, _: vectors) if flat else tangent
    history = _History(points.reshape(R, -1), memory)
    shortened = points.new_ones(R)
    settled = torch.zeros(R, dtype=torch.bool, device=points.device)
    value, gradient = objective(points)
    gradient = along(gradient, points)
    for _ in range(steps):
        if stop():
            break
        direction = along(-history.newton(gradient.reshape(R, -1)).view(R, M, D), points)
        slope = (direction * gradient).sum((1, 2))
        downhill = slope < 0
        if not downhill.all():
            direction = torch.where(downhill[:, None, None], direction, -gradient)
            slope = torch.where(downhill, slope, -(gradient * gradient).sum((1, 2)))
        longest = torch.linalg.vector_norm(direction, dim=-1).amax(1)
        length = (_LONGEST / longest.clamp(min=1e-300)).clamp(max=1.0) * shortened
        moved = retract(points + length[:, None, None] * direction)
        new_value, new_gradient = objective(moved)
        rounding = 4 * torch.finfo(points.dtype).eps * value.abs()
        accepted = new_value <= value + _ARMIJO * length * slope + rounding
        mask = accepted[:, None, None]
        moved = torch.where(mask, moved, points)
        new_gradient = torch.where(mask, along(new_gradient, moved), gradient)
        fall = torch.where(accepted, value - new_value, 0.0)
        history.add((moved - points).view(R, -1), (new_gradient - gradient).view(R, -1))
        points, gradient, value = moved, new_gradient, value - fall
        shortened = torch.where(accepted, 1.0, _SHORTEN * shortened)
        settled |= torch.where(accepted, fall <= tolerance, shortened < _SHORTEST)
        if settled.all():
            break
    return points


class _History:
    """The last changes of points and gradients in each of R problems, and the inverse Hessian they imply.

    Source: the compact form of L-BFGS, Byrd, Nocedal & Schnabel 1994, theorem 2.2; a few products of matrices.
    """

    def __init__(self, like: Tensor, memory: int):
        R, N = like.shape
        self._memory = memory
        self._pairs = like.new_zeros(R, 2 * memory, N)  # changes, then those of gradients; zeros where refused
        self._products = like.new_zeros(R, 2 * memory, memory)  # of pairs with the changes of gradients
        self._first = like.new_zeros(R)
        self._added = 0

    def add(self, change: Tensor, bend: Tensor) -> None:
        """Store the last step, except where the objective bends the wrong way."""
        curvature, size = (change * bend).sum(1), (bend * bend).sum(1)
        convex = curvature > 1e-10 * (size * (change * change).sum(1)).sqrt()
        self._first = torch.where(convex, curvature / size, self._first)
        slot = self._added % self._memory
        self._added += 1
        self._pairs[:, slot] = torch.where(convex[:, None], change, 0.0)
        self._pairs[:, self._memory + slot] = bend = torch.where(convex[:, None], bend, 0.0)
        self._products[:, :, slot] = products = (self._pairs @ bend[:, :, None])[:, :, 0]
        self._products[:, self._memory + slot] = products[:, self._memory :]

    def newton(self, gradient: Tensor) -> Tensor:
        """The inverse Hessian applied to gradients (R, N); without a history, a step of 0.1 radians at most."""
        cautious = 0.1 / torch.linalg.vector_norm(gradient, dim=1).clamp(min=1e-300)
        first = torch.where(self._first > 0, self._first, cautious)[:, None]
        if not self._added:
            return first * gradient
        m = self._memory
        age = -(self._added % m)  # the oldest pair comes first
        mixed, bends = (
            self._products[:, :m].roll((age, age), (1, 2)).triu(),
            self._products[:, m:].roll((age, age), (1, 2)),
        )
        along = (self._pairs @ gradient[:, :, None]).view(-1, 2, m, 1).roll(age, 2)
        diagonal = mixed.diagonal(dim1=1, dim2=2)
        curvature = diagonal.clone()[:, :, None]
        diagonal += diagonal == 0
        u = torch.linalg.solve_triangular(mixed, along[:, 0], upper=True)
        right = curvature * u + first[:, :, None] * (bends @ u - along[:, 1])
        v = torch.linalg.solve_triangular(mixed.mT, right, upper=False)
        weights = torch.stack([v, -first[:, :, None] * u], 1).roll(-age, 2).view(-1, 1, 2 * m)
        return first * gradient + (weights @ self._pairs)[:, 0]
