"""Solver for convex problems with a nuclear norm: min over Q, t of f(Q, t) + tau |Q|_*, by factorisation.

|Q|_* is the minimum of (|A|^2 + |B|^2)/2 over Q = A B^T, which is smooth. If A and B have as many columns as the
largest possible rank of Q, the factored problem has no spurious minima, and unneeded columns converge to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Curvature = Callable[[Array, Array], tuple[Array, Array]]

_STEPS = 1000  # a few dozen are usual
_ROUNDING = 1e-14  # relative rounding of the value; for smaller decreases the gradient decides
_PRECISION = 1e-15  # of the gradient, relative to tau and the start's length
_FLAT = 1e-8  # times tau: smaller curvature belongs to rotations of A and B, which change nothing


class Smooth(Protocol):
    """A convex, twice differentiable f(Q, t) of a matrix Q and a vector t scaled like the factors of Q."""

    def at(self, Q: Array, t: Array) -> tuple[float, Array, Array, Curvature]:
        """Value, both gradients, and the Hessian as a function of directions."""


def minimise(smooth: Smooth, tau: float, Q: Array, t: Array, rank: int) -> tuple[Array, Array]:
    """(Q, t) that minimise f + tau |Q|_*, from a start of full rank, by Newton steps in a trust region.

    Stops when rounding hides further progress; use a duality gap to bound the distance to the optimum.
    """
    left, values, right = np.linalg.svd(Q)
    roots = np.sqrt(values[:rank])
    x = np.concatenate([(left[:, :rank] * roots).ravel(), (right[:rank].T * roots).ravel(), t])
    split = len(left) * rank

    def parts(flat: Array) -> tuple[Array, Array, Array]:
        return flat[:split].reshape(-1, rank), flat[split : 2 * split].reshape(-1, rank), flat[2 * split :]

    def at(flat: Array) -> tuple[float, Array, Callable[[Array], Array]]:
        A, B, rest = parts(flat)
        value, dQ, dt, curvature = smooth.at(A @ B.T, rest)

        def product(direction: Array) -> Array:
            U, V, u = parts(direction)
            HQ, Ht = curvature(U @ B.T + A @ V.T, u)
            blocks = HQ @ B + dQ @ V + tau * U, HQ.T @ A + dQ.T @ U + tau * V
            return np.concatenate([blocks[0].ravel(), blocks[1].ravel(), Ht])

        value += tau / 2 * float(flat[: 2 * split] @ flat[: 2 * split])
        blocks = dQ @ B + tau * A, dQ.T @ A + tau * B
        return value, np.concatenate([blocks[0].ravel(), blocks[1].ravel(), dt]), product

    x = _descend(at, x, tau)
    A, B, t = parts(x)
    return A @ B.T, t


def _descend(at: Callable[[Array], tuple[float, Array, Callable[[Array], Array]]], x: Array, unit: float) -> Array:
    length = radius = float(np.linalg.norm(x))
    value, gradient, product = at(x)
    for _ in range(_STEPS):
        size = float(np.linalg.norm(gradient))
        if size <= _PRECISION * unit * length:
            break
        # loose far from the optimum, and never below the rounding of products
        tolerance = size * min(max((size / (unit * length)) ** 0.5, 1e-3), 0.1)
        step, on_edge = _truncated_newton(gradient, product, radius, tolerance, _FLAT * unit)
        predicted = -float(gradient @ step + step @ product(step) / 2)
        new = at(x + step)
        hidden = _ROUNDING * abs(value)
        if predicted < hidden:
            if np.linalg.norm(new[1]) >= size:
                break
            accepted = True
        else:
            agreement = (value - new[0] + hidden) / (predicted + hidden)
            accepted = agreement > 1e-4
            if agreement < 0.25:
                radius /= 4
            elif agreement > 0.75 and on_edge:
                radius *= 2
        if accepted:
            x = x + step
            value, gradient, product = new
    return x


def _truncated_newton(
    gradient: Array, product: Callable[[Array], Array], radius: float, tolerance: float, flat: float
) -> tuple[Array, bool]:
    """Steihaug's conjugate gradients: the Newton step, cut at the edge of the trust region, and whether it was cut."""
    step, residual = np.zeros_like(gradient), gradient
    direction, square = -gradient, float(gradient @ gradient)
    for _ in range(2 * len(gradient)):
        image = product(direction)
        curvature, length = float(direction @ image), float(direction @ direction)
        inside = radius**2 - float(step @ step)
        if abs(curvature) <= flat * length and step.any():
            break
        along = float(direction @ step)
        stride = square / curvature if curvature > 0 else np.inf
        edge = (-along + np.sqrt(along**2 + length * inside)) / length
        if stride >= edge:
            return step + edge * direction, True
        step = step + stride * direction
        residual = residual + stride * image
        new = float(residual @ residual)
        if new <= tolerance**2:
            break
        direction, square = new / square * direction - residual, new
    return step, False
