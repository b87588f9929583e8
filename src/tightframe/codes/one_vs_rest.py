"""Distance of each vector from the convex hull of the others, by small exact quadratic programs."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tightframe.checks import require_matrix
from tightframe.codes.cosines import Meter
from tightframe.errors import ShapeError

LIMIT_SECONDS = 5.0  # a certificate skips the distance by default if it takes longer
_TOLERANCE = 1e-14  # tolerance of the optimality gap <x, x - p>, relative to the largest squared length

Array = npt.NDArray[np.float64]


def one_vs_rest_distances(vectors: Tensor, progress: Meter | None = None) -> Tensor:
    """Distance of each row to the convex hull of the others, (K, D) -> (K,); exact, by K small quadratic programs.

    Differentiable: the distance is stationary in the hull's coefficients. `progress` receives the completed fraction.
    Raises: ShapeError unless K >= 2; DtypeError, NonFiniteError.
    Source: Jiang et al. 2023 (one-vs-rest distance).

    >>> import torch
    >>> from tightframe.codes import one_vs_rest_distances
    >>> square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> [round(distance, 6) for distance in one_vs_rest_distances(square).tolist()]  # the others contain the origin
    [1.0, 1.0, 1.0, 1.0]
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ShapeError(f"vectors must be (K, D) with K >= 2; got {tuple(vectors.shape)}.")
    require_matrix(vectors, "vectors", "(K, D)")
    points = vectors.detach().to("cpu", torch.float64).numpy()
    if points.shape[1] > len(points):
        points = np.asarray(np.linalg.qr(points.T, mode="r")).T  # the same distances in K dimensions
    coefficients = np.zeros((len(points), len(points)))
    for k in range(len(points)):
        rest = np.delete(points, k, axis=0) - points[k]
        coefficients[k] = np.insert(_nearest_to_origin(rest), k, 0.0)
        if progress is not None:
            progress((k + 1) / len(points))
    hull = torch.from_numpy(coefficients).to(vectors) @ vectors
    return torch.linalg.vector_norm(vectors - hull, dim=1)


def smallest_one_vs_rest(vectors: Tensor, progress: Meter | None = None) -> Tensor:
    """The smallest of `one_vs_rest_distances`, which a softmax code maximises over unit vectors; 0-d.

    >>> import torch
    >>> from tightframe.codes import smallest_one_vs_rest
    >>> round(smallest_one_vs_rest(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).item(), 4)  # 2 / sqrt(5)
    0.8944
    """
    return one_vs_rest_distances(vectors, progress).amin()


def one_vs_rest_seconds(num_vectors: int, dim: int) -> float:
    """Rough upper estimate of the time of `one_vs_rest_distances` in seconds.

    Each program visits about min(K - 1, D) corrals; each needs a pass over all points and a QR of the corral.
    """
    corral = min(num_vectors - 1, dim)
    return num_vectors * (6e-4 + corral * (3e-5 + 1e-9 * num_vectors * corral + 1.3e-10 * corral**3))


def one_vs_rest_limit(dim: int) -> int:
    """The largest K for which the distances in R^D take at most `LIMIT_SECONDS`."""
    return 2 + bisect_right(range(3, 10**6 + 1), LIMIT_SECONDS, key=lambda K: one_vs_rest_seconds(K, dim))


def _nearest_to_origin(points: Array) -> Array:
    """Convex coefficients (M,) of the point of conv(points) nearest to the origin; points are (M, D).

    Wolfe's algorithm (1976): finite and exact up to rounding. The current point is a convex combination of a corral of
    affinely independent points; the lowest vertex in its direction enters, vertices with negative weights leave.
    """
    squares = (points**2).sum(1)
    scale = float(squares.max())
    corral = [int(squares.argmin())]
    weights = np.ones(1)
    while True:
        point = weights @ points[corral]
        heights = points @ point
        entering = int(heights.argmin())
        if point @ point - heights[entering] <= _TOLERANCE * scale or entering in corral:
            break
        corral.append(entering)
        weights = np.append(weights, 0.0)
        while True:
            target = _affine_minimiser(points[corral])
            if (target > 0).all():
                weights = target
                break
            falling = target <= 0
            step = float((weights[falling] / (weights[falling] - target[falling])).min())
            weights = weights + step * (target - weights)
            staying = weights > 1e-15
            staying[int(np.where(falling, weights, np.inf).argmin())] = False  # one must leave, or rounding could cycle
            corral = [index for index, keep in zip(corral, staying, strict=True) if keep]
            weights = weights[staying] / weights[staying].sum()
    result = np.zeros(len(points))
    result[corral] = weights
    return result


def _affine_minimiser(points: Array) -> Array:
    """Coefficients, summing to one, of the point of the affine hull nearest to the origin."""
    base, rest = points[0], points[1:] - points[0]
    q, r = np.linalg.qr(rest.T)  # the corral is affinely independent, so r is regular
    tail = np.linalg.solve(r, -(q.T @ base)) if len(rest) else np.zeros(0)
    return np.concatenate([[1 - tail.sum()], tail])
