"""Neural regression collapse: features span as many dimensions as there are targets, aligned with the last layer.

NRC1 to NRC3 correspond to NC1 to NC3 for a linear last layer W that predicts n targets from D features under squared
loss. They read features and weights, because there are no classes. At the optimum of unconstrained features with weight
decay a on W and b on the features, W W^T = sqrt(b/a) [S^(1/2) - sqrt(a b) I]_+ for targets of covariance S. All three
are 0 there if sqrt(a b) is below the least eigenvalue of S^(1/2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe import checks, numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import RangeError, ShapeError

__all__ = ["nrc1", "nrc2", "nrc3", "nrc_null"]


def nrc1(features: Array, num_targets: int) -> Tensor:
    """Mean share of a centred feature's squared length outside the top n principal components of the features.

    Args: features (N, D), any float dtype; num_targets n in [1, D]. Gradients treat the components as constants.
    Shape: scalar, float64. Range: [0, 1]; 0 = features span n dimensions; 1 - n/D for many isotropic features
    (`nrc_null`), smaller for few. NaN if a feature equals the mean and so has no direction.
    Raises: DtypeError, ShapeError, NonFiniteError; RangeError for n outside [1, D].
    Source: Andriopoulos et al. 2024, The Prevalence of Neural Collapse in Neural Multivariate Regression (NRC1).

    >>> import torch
    >>> from tightframe.metrics import nrc1
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(nrc1(features, 1).item(), 12)  # half of the directions lie outside the first component
    0.5
    """
    rows = _centred(features)
    dim = rows.shape[1]
    if not 1 <= num_targets <= dim:
        raise RangeError(f"num_targets must be in [1, {dim}], the dimension of the features; got {num_targets}.")
    constant = rows.detach()
    _, vectors = torch.linalg.eigh(constant.mT @ constant)
    return _outside(rows, vectors[:, dim - num_targets :])


def nrc2(features: Array, weight: Array) -> Tensor:
    """Mean share of a centred feature's squared length outside the row space of the last layer's weight.

    The row space has the weight's numerical rank.

    Shape: features (N, D), weight (n, D); scalar, float64. Range: [0, 1]; 0 = features vary only in the row space; 1 -
    n/D for a random weight.
    Raises: DtypeError, ShapeError, NonFiniteError.
    Source: Andriopoulos et al. 2024 (NRC2).

    >>> import torch
    >>> from tightframe.metrics import nrc2
    >>> features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(nrc2(features, torch.tensor([[0.6, 0.8]])).item(), 6)  # 0.64 along the first axis, 0.36 along the second
    0.5
    """
    rows, weight = _centred(features), as_tensor(weight, "the weight")
    checks.require_matrix(weight, "the weight", "(targets, features)")
    if weight.shape[1] != rows.shape[1]:
        raise ShapeError(
            f"the weight must be (targets, {rows.shape[1]}) to fit the features; got {tuple(weight.shape)}."
        )
    rows_of_weight = weight.to(rows)
    inverse, _ = numerics.pinv(rows_of_weight)
    units = numerics.unit_rows(rows)
    return (units - (units @ inverse) @ rows_of_weight).square().sum(1).mean()


def nrc3(weight: Array, target_covariance: Array) -> Tensor:
    """Squared distance of W W^T to S^(1/2) - g^(1/2) I, both of Frobenius norm 1, at the best g.

    S is the targets' covariance and S^(1/2) its positive root; g is at least 0 and below the least eigenvalue of S. The
    best g is exact: the distance has one stationary point in g^(1/2). For one target both matrices are 1, so NRC3 is
    always 0 and carries no information.

    Shape: weight (n, D), target_covariance (n, n); scalar, float64. Range: [0, 2]; 0 = the weight has the optimum's
    Gram matrix. Differentiable in the weight.

    Args:
        target_covariance: symmetric and positive definite, as `torch.cov(targets.T)`.

    Raises: DtypeError, ShapeError, NonFiniteError; RangeError if the covariance is not symmetric positive definite.
    Source: Andriopoulos et al. 2024 (NRC3).

    >>> import torch
    >>> from tightframe.metrics import nrc3
    >>> covariance = torch.diag(torch.tensor([9.0, 4.0]))
    >>> fitting, other = torch.diag(torch.tensor([2.0, 1.0])).sqrt(), torch.eye(2)  # W W^T = S^(1/2) - I; I
    >>> [round(nrc3(weight, covariance).item(), 6) + 0.0 for weight in (fitting, other)]  # 2 - 2 * 5 / sqrt(2 * 13)
    [0.0, 0.038839]
    """
    weight = as_tensor(weight, "the weight")
    target_covariance = as_tensor(target_covariance, "the targets' covariance")
    checks.require_matrix(weight, "the weight", "(targets, features)")
    checks.require_matrix(target_covariance, "the targets' covariance", "(targets, targets)")
    if target_covariance.shape != (len(weight), len(weight)):
        raise ShapeError(
            f"the targets' covariance must be ({len(weight)}, {len(weight)}), one row per row of the weight; "
            f"got {tuple(target_covariance.shape)}."
        )
    rows = weight.to(numerics.float64_device(weight.device), torch.float64)
    covariance = target_covariance.to(rows)
    skew = float((covariance - covariance.mT).detach().abs().max())
    if skew > 1e-5 * float(covariance.detach().abs().max()):
        raise RangeError(f"the targets' covariance must be symmetric; two mirrored entries differ by {skew:.3g}.")
    values, vectors = torch.linalg.eigh(covariance.detach())
    if values[0] <= numerics.rank_tolerance(covariance) * values[-1]:
        raise RangeError(
            f"the targets' covariance must be positive definite; its least eigenvalue is {float(values[0]):.3g}. "
            "Drop targets that are constant or linear combinations of others."
        )
    gram = rows @ rows.mT
    gram = gram / torch.linalg.matrix_norm(gram)
    root = (vectors * values.sqrt()) @ vectors.mT
    eye = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    shift = _best_shift(gram.detach(), root, values[0].sqrt())
    ideal = root - shift * eye
    return (gram - ideal / torch.linalg.matrix_norm(ideal)).square().sum()


def nrc_null(num_targets: int, num_features: int) -> float:
    """1 - n/D: NRC1 of infinitely many isotropic features, and NRC2 of a random weight.

    NRC1 of few samples is lower, because the components fit the sample.
    Raises: RangeError unless 1 <= n <= D.

    >>> from tightframe.metrics import nrc_null
    >>> nrc_null(2, 64)
    0.96875
    """
    if not 1 <= num_targets <= num_features:
        raise RangeError(
            f"num_targets must be in [1, {num_features}], the dimension of the features; got {num_targets}."
        )
    return 1 - num_targets / num_features


def _best_shift(gram: Tensor, root: Tensor, limit: Tensor) -> Tensor:
    """The x in [0, limit) with the largest cosine between `gram` and root - x I; exact.

    The cosine is (a - b x) / sqrt(s - 2 t x + n x^2); its only stationary point is (a t - b s) / (a n - b t). At the
    limit the difference may be the zero matrix, where the cosine is undefined.
    """
    a, b = (gram * root).sum(), gram.trace()
    s, t, n = root.square().sum(), root.trace(), len(root)
    inside = (a * t - b * s) / (a * n - b * t)
    candidates = torch.stack([torch.zeros_like(limit), inside.clamp(torch.zeros_like(limit), limit), limit])
    squares = s - 2 * t * candidates + n * candidates.square()
    cosines = (a - b * candidates) / squares.clamp(min=0).sqrt()
    defined = squares > numerics.EPS * n * s  # false for NaN
    return candidates[torch.where(defined, cosines, -math.inf).argmax()]


def _centred(array: Array) -> Tensor:
    """Features minus their mean, float64."""
    features = as_tensor(array, "features")
    checks.require_matrix(features, "features", "(samples, dimensions)")
    rows = features.to(numerics.float64_device(features.device), torch.float64)
    rows = rows - rows[:1].detach()  # the mean is inexact far from the origin
    return rows - rows.mean(0)


def _outside(rows: Tensor, basis: Tensor) -> Tensor:
    """Mean squared distance of the rows, at unit length, to the span of an orthonormal basis (D, n)."""
    units = numerics.unit_rows(rows)
    return (units - (units @ basis) @ basis.mT).square().sum(1).mean()
