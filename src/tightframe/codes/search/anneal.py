"""Continuation: starts descend while the exponent of a smoothed objective rises."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.codes.bounds import cosine_bound
from tightframe.codes.search import starts
from tightframe.codes.search.running import Running, generator_of
from tightframe.codes.search.sphere import Objective, descend
from tightframe.numerics import float64_device

_LOWEST, _HIGHEST, _LAST = 1.0, 60.0, 1e5  # exponents of the first stage, mixed in a batch, and of the last
_STAGES, _STEPS = 14, 120  # and steps of descent in each


def exponent_unit(bound: float) -> float:
    """Unit of the exponents, 1 / (1 − lower bound on the largest cosine)."""
    return 1 / (1 - min(bound, 1 - 1e-9))


def by_autograd(loss: Callable[[Tensor], Tensor]) -> Objective:
    """An objective for `descend` from a differentiable function, (R, M, D) -> (R,)."""

    def objective(points: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            values = loss(points)
            (gradient,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradient

    return objective


def anneal(
    running: Running,
    objective: Callable[[Tensor], Objective],
    *,
    bound: float | None = None,
    opposites: bool = True,
    most: int | None = None,
    lift: Callable[[Tensor], Tensor] = lambda points: points,
) -> tuple[Tensor, str]:
    """A batch of starts (R, M, D) after descent while the exponents of an objective rise, and its name.

    Starts are uniform points, in odd rounds with their `opposites` if K is even. Which minimum a start reaches depends
    on the first exponent, and none is always best, so the problems of a batch have different ones. In round 0 a warm
    start replaces the last, whose exponents are highest, so that it keeps its structure. The best is offered after
    every stage.

    Args:
        objective: function of the exponents (R,).
        bound: a lower bound on the largest cosine, which sets the unit of the exponents. Default: the best one.
        most: the largest R.
        lift: function from points (R, K, D) to those of the objective, (R, M, D).
    """
    K, D = running.sizes
    kind = starts.antipodal if opposites and running.round % 2 and K % 2 == 0 else starts.free
    start = kind(K, D, generator_of(running.search, running.round))
    points, name = start.orbits.expand(start.representatives)[:most], start.name
    if running.round == 0 and (warm := running.warm_start) is not None:
        points[-1] = warm.to(points)
        name = "warm start or free"
    points = lift(points).to(float64_device(running.search.device))
    if running.points is None:
        running.offer(points[-1], name)  # for Ctrl-C in the first stage
    unit = exponent_unit(cosine_bound(K, D).value if bound is None else bound)
    first = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), len(points) + 2, dtype=points.dtype)[1:-1]
    growth = (_LAST / first) ** (1 / (_STAGES - 1))
    for stage in range(_STAGES):
        exponents = (unit * first * growth**stage).to(points)
        smooth = objective(exponents)
        end = running.seconds + running.remaining / (_STAGES - stage)
        points = descend(
            points,
            smooth,
            steps=_STEPS,
            tolerance=1e-3 / exponents,
            stop=lambda end=end: running.seconds > end,  # type: ignore[misc]
        )
        running.offer(points[smooth(points)[0].argmin() if len(points) > 1 else 0], name)
        if running.remaining <= 0:
            break
    return points, name
