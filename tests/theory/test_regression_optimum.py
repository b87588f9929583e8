"""Regression on unconstrained features: the closed form against gradient descent on W, b and a feature a sample."""

import math

import pytest
import torch
from descent import minimum
from torch import Tensor

from tightframe import theory
from tightframe.errors import NonFiniteError, RangeError, ShapeError


def targets(scales: list[float], seed: int) -> Tensor:
    """Targets (40, T) with correlated coordinates and a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(len(scales), len(scales), generator=generator, dtype=torch.float64))[0]
    return torch.randn(40, len(scales), generator=generator, dtype=torch.float64) * torch.tensor(scales) @ mixing + 1.5


@pytest.mark.parametrize(
    ("scales", "decays", "rank"),
    [([1.0, 0.5], (0.05, 0.2), 2), ([2.0, 1.0, 0.1], (0.3, 0.2), 2), ([0.1, 0.1], (0.5, 0.5), 0)],
)
def test_gradient_descent_arrives_there(scales: list[float], decays: tuple[float, float], rank: int) -> None:
    y = targets(scales, len(scales))
    N, T = y.shape
    centred = y - y.mean(0)
    optimum = theory.regression_optimum(centred.T @ centred / N, *decays)
    assert optimum.rank == rank
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(rows, T + 1, generator=generator, dtype=torch.float64) for rows in (T, N)]

    def objective(W: Tensor, H: Tensor, b: Tensor) -> Tensor:
        error = (H @ W.T + b - y).square().sum() / (2 * N)
        return error + decays[0] / 2 * W.square().sum() + decays[1] / (2 * N) * H.square().sum()

    W, H, b = found = minimum(objective, [*start, torch.zeros(T, dtype=torch.float64)])
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(W @ W.T, optimum.weights, **close)
    torch.testing.assert_close(H @ H.T, centred @ optimum.features @ centred.T, **close)
    torch.testing.assert_close(H.T @ H / N, decays[0] / decays[1] * W.T @ W, **close)
    torch.testing.assert_close(H @ W.T, centred @ optimum.map.T, **close)
    torch.testing.assert_close(b, y.mean(0), **close)
    assert float(objective(*found)) == pytest.approx(optimum.loss, abs=1e-12)


def test_the_formula() -> None:
    """W W^T = sqrt(lambda_H / lambda_W) [Sigma^(1/2) - sqrt(lambda_W lambda_H) I]_+, by an eigendecomposition."""
    y = targets([3.0, 1.0, 0.2, 0.05], 0)
    covariance = torch.cov(y.T, correction=0)
    decay_w, decay_h = 0.02, 0.5  # sqrt(lambda_W lambda_H) = 0.1 loses one direction
    values, vectors = torch.linalg.eigh(covariance)
    expected = math.sqrt(decay_h / decay_w) * vectors @ (values.sqrt() - 0.1).clamp(min=0).diag() @ vectors.mT
    optimum = theory.regression_optimum(covariance, decay_w, decay_h)
    torch.testing.assert_close(optimum.weights, expected, rtol=0, atol=1e-12)
    assert optimum.rank == 3


def test_scalars_and_single_precision() -> None:
    optimum = theory.regression_optimum(torch.tensor([[4.0]]), 0.5, 0.5)
    assert [optimum.weights.item(), optimum.map.item()] == pytest.approx([1.5, 0.75], abs=1e-12)
    assert optimum.weights.dtype is torch.float64
    covariance = torch.cov(targets([1.0, 0.5, 0.2], 1).float().T)
    assert theory.regression_optimum(covariance, 0.1, 0.1).rank == 3
    singular = torch.ones(3, 3, dtype=torch.float64)  # a direction without variance is lost, without NaN
    optimum = theory.regression_optimum(singular, 1e-20, 1e-20)
    assert optimum.features.isfinite().all()


def test_bad_arguments() -> None:
    for shape in ((2, 3), (2,), (0, 0)):
        with pytest.raises(ShapeError, match=r"must be \(T, T\)"):
            theory.regression_optimum(torch.ones(shape), 0.1, 0.1)
    with pytest.raises(ShapeError, match="differs from its transpose by 1,"):
        theory.regression_optimum(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), 0.1, 0.1)
    with pytest.raises(ShapeError, match="smallest eigenvalue is -1"):
        theory.regression_optimum(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 0.1, 0.1)
    with pytest.raises(NonFiniteError, match="the covariance"):
        theory.regression_optimum(torch.tensor([[math.nan]]), 0.1, 0.1)
    with pytest.raises(RangeError, match="the weight decay of W"):
        theory.regression_optimum(torch.eye(2), 0.0, 0.1)
    with pytest.raises(RangeError, match="the weight decay of H"):
        theory.regression_optimum(torch.eye(2), 0.1, -1.0)
