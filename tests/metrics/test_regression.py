"""Neural regression collapse: the optimum of unconstrained features, null levels, loops, limits and bad input."""

import math

import pytest
import torch
from torch import Tensor

from tightframe import metrics
from tightframe.errors import DtypeError, NonFiniteError, RangeError, ShapeError


def optimum(n: int, D: int, N: int, decay_w: float, decay_h: float) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, D), weight (n, D) and targets (N, n), of mean zero, at the optimum of unconstrained features."""
    targets = torch.randn(N, n, dtype=torch.float64) @ torch.randn(n, n, dtype=torch.float64)
    targets = targets - targets.mean(0)
    covariance = targets.mT @ targets / N
    values, vectors = torch.linalg.eigh(covariance)
    shrunk = (values.sqrt() - math.sqrt(decay_w * decay_h)).clamp(min=0) * math.sqrt(decay_h / decay_w)
    rows = torch.linalg.qr(torch.randn(D, n, dtype=torch.float64))[0].mT
    weight = (vectors * shrunk.sqrt()) @ rows
    features = targets @ torch.linalg.solve(weight.mT @ weight + decay_h * torch.eye(D).double(), weight.mT).mT
    return features, weight, targets


@pytest.mark.parametrize(("n", "D"), [(1, 5), (2, 7), (4, 4), (5, 20)])
def test_all_three_vanish_at_the_optimum_of_unconstrained_features(n: int, D: int) -> None:
    features, weight, targets = optimum(n, D, 50, 3e-3, 2e-3)
    assert torch.linalg.matrix_rank(weight) == n
    assert metrics.nrc1(features, n) < 1e-20
    assert metrics.nrc2(features, weight) < 1e-20
    assert metrics.nrc3(weight, targets.mT @ targets / 50) < 1e-20


def test_the_optimum_is_one() -> None:
    """What the test above stands on: both gradients of the penalised loss vanish, and no random step lowers it."""
    torch.manual_seed(2)
    n, D, N, decay_w, decay_h = 3, 6, 40, 3e-3, 2e-3
    features, weight, targets = optimum(n, D, N, decay_w, decay_h)

    def loss(h: Tensor, w: Tensor) -> Tensor:
        fit = (h @ w.mT - targets).square().sum() / (2 * N)
        return fit + decay_w / 2 * w.square().sum() + decay_h / (2 * N) * h.square().sum()

    h, w = features.requires_grad_(), weight.requires_grad_()
    for gradient in torch.autograd.grad(loss(h, w), (h, w)):
        assert gradient.abs().max() < 1e-14
    best = loss(h, w)
    for _ in range(200):
        step = (1e-2 * torch.randn_like(h), 1e-2 * torch.randn_like(w))
        assert loss(h + step[0], w + step[1]) > best


def test_by_loops() -> None:
    features, weight = torch.randn(30, 5, dtype=torch.float64) + 100, torch.randn(2, 5, dtype=torch.float64)
    centred = features - features.mean(0)
    _, _, right = torch.linalg.svd(centred, full_matrices=False)
    for value, basis in (
        (metrics.nrc1(features, 2), right[:2].mT),
        (metrics.nrc2(features, weight), torch.linalg.qr(weight.mT)[0]),
    ):
        outside = []
        for row in centred:
            unit = row / row.norm()
            outside.append((unit - basis @ (basis.mT @ unit)).square().sum().item())
        assert value.item() == pytest.approx(sum(outside) / 30, rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_nrc3_is_the_minimum_over_gamma(n: int) -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        weight, targets = torch.randn(n, 9, dtype=torch.float64), torch.randn(50, n, dtype=torch.float64)
        covariance = torch.cov((targets @ torch.randn(n, n).double()).mT)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors @ values.sqrt().diag() @ vectors.mT
        gram = weight @ weight.mT
        scanned = []
        for share in torch.linspace(0, 1, 401, dtype=torch.float64):
            ideal = root - share * values[0].sqrt() * torch.eye(n)
            scanned.append((gram / gram.norm() - ideal / ideal.norm()).square().sum().item())
        value = metrics.nrc3(weight, covariance).item()
        assert value <= min(scanned) + 1e-12
        assert value == pytest.approx(min(scanned), abs=1e-5)


def test_nrc3_of_white_targets() -> None:
    """S = I leaves the identity for every gamma but the last, where the difference is zero and has no direction."""
    eye = torch.eye(3, dtype=torch.float64)
    assert metrics.nrc3(eye, 4 * eye) < 1e-28
    assert metrics.nrc3(torch.randn(1, 7), torch.tensor([[2.5]])) < 1e-28  # one target: always zero


def test_null_levels() -> None:
    assert metrics.nrc_null(3, 12) == 0.75
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20_000, 12, generator=generator, dtype=torch.float64)
    assert metrics.nrc1(features, 3).item() == pytest.approx(0.75, rel=0.03)
    values = [metrics.nrc2(features, torch.randn(3, 12, generator=generator)).item() for _ in range(5)]
    assert values == pytest.approx([0.75] * 5, rel=0.01)


@pytest.mark.parametrize("bad", [(0, 4), (5, 4), (-1, 4)])
def test_numbers_of_targets(bad: tuple[int, int]) -> None:
    with pytest.raises(RangeError, match=f"{bad[0]}"):
        metrics.nrc_null(*bad)
    with pytest.raises(RangeError, match=rf"in \[1, 4\].*got {bad[0]}"):
        metrics.nrc1(torch.randn(9, 4), bad[0])


def test_they_do_not_depend_on_place_scale_or_rotation() -> None:
    features, weight = torch.randn(40, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    moved = 1e3 * features @ turn + 1e6
    torch.testing.assert_close(metrics.nrc1(moved, 2), metrics.nrc1(features, 2), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        metrics.nrc2(moved, 7 * weight @ turn), metrics.nrc2(features, weight), rtol=1e-9, atol=0
    )


def test_a_weight_of_lower_rank_looks_at_fewer_dimensions() -> None:
    features, row = torch.randn(40, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    torch.testing.assert_close(metrics.nrc2(features, torch.cat([row, 2 * row])), metrics.nrc2(features, row))


def test_gradients() -> None:
    features, weight = torch.randn(20, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    covariance = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(metrics.nrc2, (features.requires_grad_(), weight.requires_grad_()))
    assert torch.autograd.gradcheck(lambda w: metrics.nrc3(w, covariance), (weight,))
    flat = torch.randn(20, 2).double() @ torch.randn(2, 4).double()  # collapsed: the other components are degenerate
    (gradient,) = torch.autograd.grad(metrics.nrc1(flat.requires_grad_(), 2), flat)
    assert gradient.isfinite().all()


def test_half_precision_and_a_feature_at_the_mean() -> None:
    features = torch.randn(20, 4)
    value = metrics.nrc1(features.bfloat16(), 2)
    assert value.dtype is torch.float64
    assert value.item() == pytest.approx(metrics.nrc1(features.bfloat16().double(), 2).item(), rel=1e-12)
    still = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert metrics.nrc1(still, 1).isnan()  # the last one has no direction


def test_bad_input() -> None:
    x, w = torch.randn(9, 4), torch.randn(2, 4)
    with pytest.raises(DtypeError, match=r"features must be floating point; got torch\.int64"):
        metrics.nrc1(torch.ones(9, 4, dtype=torch.int64), 2)
    with pytest.raises(ShapeError, match=r"\(samples, dimensions\), neither empty; got \(9,\)"):
        metrics.nrc1(x[:, 0], 1)
    with pytest.raises(NonFiniteError, match="row 3 holds nan"):
        metrics.nrc2(x.index_fill(0, torch.tensor(3), math.nan), w)
    with pytest.raises(ShapeError, match=r"the weight must be \(targets, 4\).*got \(2, 3\)"):
        metrics.nrc2(x, w[:, :3])
    with pytest.raises(ShapeError, match=r"covariance must be \(2, 2\).*got \(3, 3\)"):
        metrics.nrc3(w, torch.eye(3))
    with pytest.raises(RangeError, match=r"symmetric; .* differ by 0\.5"):
        metrics.nrc3(w, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(RangeError, match="positive definite; its least eigenvalue is"):
        metrics.nrc3(w, torch.ones(2, 2))
