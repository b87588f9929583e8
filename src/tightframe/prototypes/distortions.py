"""How well the distances of prototypes follow the costs between classes.

With distances d_ij of prototypes, costs D_ij and ratios r_ij = d_ij / D_ij, all measures use the pairs i < j.
Source: Sainte Fare Garnot & Landrieu 2021 (Leveraging Class Hierarchies with Metric-Guided Prototype Learning).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pdist

from tightframe.errors import CostMatrixError, ShapeError


def distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """Mean over pairs of |d_ij - D_ij| / D_ij: relative error of the unscaled distances; 0-d, in [0, inf).

    Args:
        vectors: (K, D) prototypes, K >= 2.
        cost: (K, K), symmetric and positive off the diagonal; see `require_cost`, which is not called here.

    Raises: ShapeError, CostMatrixError if the shapes don't fit.
    """
    return (_ratios(vectors, cost) - 1).abs().mean()


def scale_free_distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """The smallest `distortion` over multiples of the vectors, min_s mean |s r_ij - 1|; 0-d, in [0, 1).

    Exact: the best scale is `optimal_scale`. Arguments and errors: as for `distortion`.
    """
    ratios = _ratios(vectors, cost)
    return (ratios * _absolute_scale(ratios) - 1).abs().mean()


def squared_scale_free_distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """min_s mean (s r_ij - 1)^2, which is CV^2 / (1 + CV^2) for the coefficient of variation of r; 0-d, in [0, 1).

    Its best scale is `optimal_squared_scale`. Arguments and errors: as for `distortion`.
    """
    ratios = _ratios(vectors, cost)
    return (ratios * _squared_scale(ratios) - 1).square().mean()  # 1 - (sum r)^2 / (P sum r^2) would cancel near 0


def optimal_scale(vectors: Tensor, cost: Tensor) -> Tensor:
    """The scale s > 0 that minimises mean |s r_ij - 1|: one over the median of r weighted by r; 0-d.

    Arguments and errors: as for `distortion`.
    """
    return _absolute_scale(_ratios(vectors, cost))


def optimal_squared_scale(vectors: Tensor, cost: Tensor) -> Tensor:
    """The scale s > 0 that minimises mean (s r_ij - 1)^2: sum r / sum r^2; 0-d.

    Arguments and errors: as for `distortion`.
    """
    return _squared_scale(_ratios(vectors, cost))


def require_fit(vectors: Tensor, cost: Tensor) -> None:
    """Raise ShapeError or CostMatrixError unless vectors are (K, D) and costs (K, K), K >= 2."""
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ShapeError(f"vectors must be (K, D) with K >= 2; got {tuple(vectors.shape)}.")
    if cost.shape != (len(vectors), len(vectors)):
        raise CostMatrixError(
            f"costs must be (K, K) = ({len(vectors)}, {len(vectors)}) for {len(vectors)} vectors; "
            f"got {tuple(cost.shape)}."
        )


def pairs_of(matrix: Tensor) -> Tensor:
    """The entries above the diagonal, (K, K) -> (P,), in the order of `pdist`."""
    i, j = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    return matrix[i, j]


def _ratios(vectors: Tensor, cost: Tensor) -> Tensor:
    require_fit(vectors, cost)
    return pdist(vectors) / pairs_of(cost).to(vectors)


def _squared_scale(ratios: Tensor) -> Tensor:
    return ratios.sum() / ratios.square().sum()


def _absolute_scale(ratios: Tensor) -> Tensor:
    # mean |s r - 1| = mean r |s - 1/r|, which is least if s is the median of 1/r weighted by r
    ordered = ratios.sort().values
    mass = ordered.detach().cumsum(0)
    return 1 / ordered[torch.searchsorted(mass, mass[-1:] / 2).clamp(max=len(mass) - 1)].squeeze(0)
