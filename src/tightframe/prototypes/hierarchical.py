"""Hierarchy-aware frames: unit prototypes whose cosines fall with the cost between classes."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.checks import Array, require_positive
from tightframe.codes.sizes import require_dim
from tightframe.errors import CostMatrixError
from tightframe.hierarchy import Hierarchy, cost_of, require_cost
from tightframe.numerics import float64_device, rank_tolerance, unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction
from tightframe.prototypes.gram_matching import nearest_rows, truncation

_AIM = Aim("costs", "cosines that fall with the costs", "residual", "distance from the target Gram matrix", 0)


@construction("Liang & Davis 2023", aim=_AIM)
def hierarchical(
    cost: Array | Hierarchy, dim: int | None = None, *, gamma: float = 2.0, metric: bool = True, seed: int = 0
) -> tuple[Tensor, Facts]:
    """The hierarchy-aware frame: cosines S = (1 - s) E + s with E_ij = exp(-gamma D_ij / max D).

    s >= -1 is the smallest value for which such vectors exist, in closed form: s = -1 / (q - 1), with q the sum of the
    entries of the inverse of E, or -1 if q < 2. (The authors scan 100 values.) A large gamma brings the frame near the
    simplex ETF; a small gamma makes cosines follow the costs more closely.

    Args:
        cost: (K, K) costs between classes, or a tree, whose distances between leaves are the costs.
        dim: number of dimensions. Default: the frame's rank, K - 1, or K if q < 2. Additional dimensions are zero; with
            fewer, the vectors minimise |V V^T - S|_F over unit rows: truncated eigenvectors, then L-BFGS to a local
            optimum.
        gamma: > 0.
        metric: whether costs must satisfy the triangle inequality.

    Provenance: also `gamma`, `s`, `q` and `residual`, |V V^T - S|_F.
    Raises: CostMatrixError that names the entry, pair or triple, or the smallest eigenvalue of E if E is not positive
    definite; DimensionError for dim < 1; RangeError unless gamma > 0.
    Source: Liang & Davis 2023 (Inducing Neural Collapse to a Fixed Hierarchy-Aware Frame).

    >>> import torch
    >>> from tightframe.hierarchy import Hierarchy
    >>> from tightframe.prototypes import hierarchical
    >>> import math
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw", "awl"]}})
    >>> frame = hierarchical(tree, gamma=2 * math.log(2)).vectors
    >>> bool(torch.allclose((frame @ frame.T)[0], torch.tensor([1, 0, -0.5, -0.5]).double()))
    True
    """
    require_positive(gamma, "gamma")
    dim = None if dim is None else require_dim(dim)
    cosines, s, q = hierarchy_aware_cosines(cost_of(cost), gamma, metric=metric)
    values = torch.linalg.eigvalsh(cosines)
    rank = int((values > rank_tolerance(cosines) * values[-1]).sum())
    width = rank if dim is None else min(rank, dim)
    vectors = unit_rows(truncation(cosines, width)) if width == rank else nearest_rows(cosines, width, seed)
    return vectors, {"s": s, "q": q, "residual": torch.dist(vectors @ vectors.mT, cosines).item()}


def hierarchy_aware_cosines(cost: Tensor, gamma: float, *, metric: bool = True) -> tuple[Tensor, float, float]:
    """The cosines S (K, K) of the hierarchy-aware frame, its s and its q; S is also the target of its training loss.

    Arguments, errors and source: as for `hierarchical`.
    """
    cost = require_cost(cost.to(float64_device(cost.device)), metric=metric)
    if len(cost) < 2:
        raise CostMatrixError("cost must have at least two classes; got 1.")
    affinity = torch.exp(-gamma * cost / cost.max())
    smallest = torch.linalg.eigvalsh(affinity)[0].item()
    if smallest <= rank_tolerance(affinity) * len(cost):  # the largest eigenvalue is at most K
        raise CostMatrixError(
            f"exp(-gamma cost / max cost) must be positive definite; with gamma={gamma} its smallest eigenvalue is "
            f"{smallest:.3g}: no vectors have such cosines. Raise gamma or correct the cost; trees always work."
        )
    q = torch.linalg.solve(affinity, torch.ones_like(affinity[0])).sum().item()
    s = -1 / (q - 1) if q > 2 else -1.0
    cosines = (1 - s) * affinity + s
    return cosines.fill_diagonal_(1), s, q
