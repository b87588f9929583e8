"""The last digits of a spherical code: an interior-point Newton method on the graph of nearest pairs.

Minimise t subject to cosine(i, j) <= t on the product of spheres. Primal-dual Newton steps solve the optimality
conditions of the barrier problem, in the points X, t and one multiplier per pair, while the barrier shrinks. At a rigid
code convergence is quadratic, to rounding level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.numerics import unit_rows

LARGEST = 3000  # maximum number K * D of unknowns; a step factorises a matrix of that size
_PAIRS_PER_NUMBER = 4
_SHORTEN = 0.7


def polish(
    points: Tensor, *, steps: int = 100, accuracy: float = 1e-14, stop: Callable[[], bool] = lambda: False
) -> Tensor:
    """Unit vectors (K, D), float64, at a local minimum of the largest cosine near the given ones, never worse.

    Pairs far from contact are left out of the equations, but their cosines stay below t. A shift makes the Hessian
    positive definite, which also handles rotations and points without contact.
    Stops when t exceeds the largest cosine by at most `accuracy`.
    """
    K, D = points.shape
    X = points
    cosines = _cosines(X)
    best, best_cosine = X, float(cosines.max())
    near, barrier = _contacts(cosines, K * D)
    t = _level(cosines[near], barrier)
    slack = torch.where(near, t - cosines, 1.0)
    multipliers = torch.where(near, barrier / slack, 0.0)
    shift = 1e-8
    for _ in range(steps):
        if stop():
            break
        stiffness = torch.where(near, multipliers / slack, 0.0)
        push = torch.where(near, barrier / slack, 0.0)
        gradients = X - cosines.masked_fill(~near, 0.0)[:, :, None] * X[:, None]  # of cosine (i, j) in point i
        rising = torch.einsum("ij,ijd->id", stiffness, gradients).flatten()
        force = torch.einsum("ij,ijd->id", push, gradients).flatten()
        factor, shift = _factorise(_hessian(X, cosines, near, multipliers, stiffness, gradients), shift)
        if factor is None:
            break
        u, v = torch.cholesky_solve(torch.stack([rising, -force], 1), factor).unbind(1)
        dt = float((1 - push.sum() / 2 - rising @ v) / (rising @ u - stiffness.sum() / 2))
        dX = (v + u * dt).view(K, D)
        change = torch.einsum("ijd,id->ij", gradients, dX)
        change = change + change.mT
        length = 1.0
        while length > 1e-4:
            moved = unit_rows(X + length * dX)
            new_cosines = _cosines(moved)
            new_slack = torch.where(near, t + length * dt - new_cosines, 1.0)
            if bool((new_slack > 0.01 * slack).all()) and float(new_cosines.max()) < t + length * dt:
                break
            length *= _SHORTEN
        else:
            shift = max(shift, 1e-10) * 100
            if shift > 10:
                break
            continue
        d_multipliers = torch.where(near, push - multipliers - stiffness * (dt - change), 0.0)
        falling = d_multipliers < 0
        dual_length = min(1.0, 0.99 * float((-multipliers / d_multipliers)[falling].min())) if falling.any() else 1.0
        multipliers = multipliers + dual_length * d_multipliers
        X, cosines, slack, t = moved, new_cosines, new_slack, t + length * dt
        highest = float(cosines.max())
        if highest < best_cosine:
            best, best_cosine = X, highest
        if t - highest <= accuracy and length == 1.0:
            break
        shift = max(shift / 10, 1e-13) if length > 0.3 else shift * 3
        # the barrier shrinks once its own minimum is reached, or contacts alone make the Hessian convex
        if length == 1.0 and (shift < 1e-5 or float(dX.abs().max()) < 0.5 * math.sqrt(barrier)):
            barrier = max(barrier * 0.1, 1e-18)
    return best


def _cosines(X: Tensor) -> Tensor:
    return (X @ X.mT).fill_diagonal_(-math.inf)


def _contacts(cosines: Tensor, numbers: int) -> tuple[Tensor, float]:
    """The pairs in the equations, (K, K), and the first barrier.

    A rigid code has about as many contacts as unknowns. The spread of that many nearest pairs shows the distance from
    contact, which determines the barrier.
    """
    K = len(cosines)
    values = cosines[torch.triu(torch.ones_like(cosines, dtype=torch.bool), 1)]
    highest = float(values.max())
    nearest = values.topk(min(len(values), _PAIRS_PER_NUMBER * numbers)).values
    threshold = min(float(nearest[-1]), highest - 1e-3)
    rigid = min(len(values) - 1, numbers - K)
    spread = highest - float(nearest[min(rigid, len(nearest) - 1)])
    return cosines >= threshold, max(spread, 1e-12) / max(numbers, 1)


def _level(cosines: Tensor, barrier: float) -> float:
    """t at which the multipliers barrier / (t - cosine) sum to one; each pair comes twice in (L,) cosines."""
    low = float(cosines.max())
    high = low + 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float((barrier / (middle - cosines)).sum()) > 2 else (low, middle)
    return high


def _hessian(
    X: Tensor, cosines: Tensor, near: Tensor, multipliers: Tensor, stiffness: Tensor, gradients: Tensor
) -> Tensor:
    """Hessian of the Lagrangian on the spheres plus the barrier's stiffness, (K D, K D); radial parts are identity."""
    K, D = X.shape
    radial = X[:, :, None] * X[:, None]
    flat = torch.eye(D, dtype=X.dtype, device=X.device) - radial
    result = torch.einsum("ija,jib->iajb", stiffness[:, :, None] * gradients, gradients)
    # the product of two projections, weighed by the multipliers: flat_i flat_j = flat_i - gradient_ij x_j'
    result += (multipliers[:, :, None, None] * flat[:, None]).permute(0, 2, 1, 3)
    result -= torch.einsum("ija,jb->iajb", multipliers[:, :, None] * gradients, X)
    own = torch.einsum("ij,ija,ijb->iab", stiffness, gradients, gradients)
    own -= (multipliers * cosines.masked_fill(~near, 0.0)).sum(1)[:, None, None] * flat
    index = torch.arange(K, device=X.device)
    result[index, :, index] += own + radial
    return result.reshape(K * D, K * D)


def _factorise(matrix: Tensor, shift: float) -> tuple[Tensor | None, float]:
    """Cholesky factor of the matrix plus the smallest tried shift of its diagonal that makes it positive definite.

    None if no shift does: multipliers have overflowed.
    """
    diagonal = matrix.diagonal()
    added = 0.0
    while shift < 1e6:
        diagonal += shift - added
        added = shift
        factor, failure = torch.linalg.cholesky_ex(matrix)
        if not failure:
            return factor, shift
        shift *= 10
    return None, shift
