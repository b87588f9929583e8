"""The optimum of multivariate regression on unconstrained features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_finite, require_positive
from tightframe.errors import ShapeError
from tightframe.numerics import rank_tolerance


@dataclass(frozen=True, eq=False)
class RegressionOptimum:
    """The global optimum of multivariate regression on unconstrained features, (T, T) float64 on the CPU.

    Attributes:
        weights: W W^T, the Gram matrix of the last layer's rows.
        features: M with <h_i, h_j> = (y_i - mean)^T M (y_j - mean).
        map: A with W h_i = A (y_i - mean); predictions are shrunk targets.
        loss: value of the objective, including penalties.
        rank: number of target dimensions that survive the decay.
    """

    weights: Tensor
    features: Tensor
    map: Tensor
    loss: float
    rank: int


def regression_optimum(target_covariance: Array, weight_decay_w: float, weight_decay_h: float) -> RegressionOptimum:
    """The minimum of (1/2N) sum |W h_i + b - y_i|^2 + lambda_W/2 |W|^2 + lambda_H/(2N) sum |h_i|^2.

    With the targets' covariance Sigma (divided by N) and tau = sqrt(lambda_W lambda_H):
    W W^T = sqrt(lambda_H / lambda_W) [Sigma^(1/2) - tau I]_+, where [.]_+ drops negative eigenvalues. Directions of
    the targets with a standard deviation of at most tau vanish from W and from the features. The bias is free and
    equals the targets' mean. The features' second moment H H^T / N is (lambda_W / lambda_H) W^T W.
    The feature penalty is a mean over samples, as in the source; in `cross_entropy_optimum` it is a sum.

    Args: target_covariance (T, T), symmetric and positive semidefinite. The optimum is the same for all D >= T.
    Raises: ShapeError unless it is square and symmetric without negative eigenvalues; NonFiniteError; RangeError unless
        decays are > 0.
    Source: Andriopoulos et al. 2024 (The prevalence of neural collapse in neural multivariate regression).

    >>> import torch
    >>> from tightframe.theory import regression_optimum
    >>> optimum = regression_optimum(torch.tensor([[4.0, 0.0], [0.0, 0.25]]), 0.1, 0.1)
    >>> [round(length, 6) for length in optimum.weights.diagonal().tolist()]
    [1.9, 0.4]
    """
    require_positive(weight_decay_w, "the weight decay of W")
    require_positive(weight_decay_h, "the weight decay of H")
    target_covariance = as_tensor(target_covariance, "the covariance")
    covariance = target_covariance.detach().to("cpu", torch.float64)
    if covariance.ndim != 2 or len(covariance) != covariance.shape[1] or len(covariance) == 0:
        raise ShapeError(f"the covariance must be (T, T); got {tuple(covariance.shape)}.")
    require_finite(covariance, "the covariance")
    variances, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
    precision = torch.finfo(target_covariance.dtype).eps if target_covariance.is_floating_point() else 0.0
    rounding = max(rank_tolerance(covariance), 10 * precision) * float(covariance.abs().max())
    skew = float((covariance - covariance.mT).abs().max())
    if skew > rounding or float(variances[0]) < -len(covariance) * rounding:
        raise ShapeError(
            f"the covariance must be symmetric without negative eigenvalues; it differs from its transpose by "
            f"{skew:.3g}, and its smallest eigenvalue is {float(variances[0]):.3g}."
        )
    tau = (weight_decay_w * weight_decay_h) ** 0.5
    deviations = variances.clamp(min=0).sqrt()
    survives = deviations > tau
    shrunk = torch.where(survives, deviations - tau, 0.0)
    share = torch.where(survives, shrunk / torch.where(survives, deviations, 1.0), 0.0)
    ratio = (weight_decay_h / weight_decay_w) ** 0.5

    def matrix(values: Tensor) -> Tensor:
        return axes @ torch.diag(values) @ axes.mT

    # minimum of (shrunk - deviation)^2 / 2 + tau * shrunk per direction
    loss = ((deviations - shrunk).square() / 2 + tau * shrunk).sum()
    return RegressionOptimum(
        weights=matrix(shrunk * ratio),
        features=matrix(torch.where(survives, share / torch.where(survives, deviations, 1.0), 0.0) / ratio),
        map=matrix(share),
        loss=float(loss),
        rank=int(survives.sum()),
    )
