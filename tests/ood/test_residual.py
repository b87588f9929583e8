import math

import pytest
import torch
from streams import D, K, features, streamed
from torch import Tensor

from tightframe import ClassStatistics
from tightframe.errors import ClassifierError, EmptyClassError, RangeError, ScatterError
from tightframe.ood import Energy, Residual, Vim
from tightframe.ood.logits import Logits
from tightframe.ood.residual import origin, principal_dimension

ROWS, LABELS = features(400, 0)
NEW, _ = features(100, 1)
DRAWS = torch.Generator().manual_seed(8)
WEIGHT, BIAS = torch.randn(K, D, generator=DRAWS).double(), torch.randn(K, generator=DRAWS).double()


def residuals(rows: Tensor, new: Tensor, components: int) -> list[float]:
    """From the stored features: the principal directions of the uncentred features about the origin, one by one."""
    u = -torch.linalg.pinv(WEIGHT) @ BIAS
    moment = sum(torch.outer(row - u, row - u) for row in rows) / len(rows)
    directions = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :components]
    lengths = []
    for row in new:
        rest = row - u
        for each in directions.mT:
            rest = rest - float((row - u) @ each) * each
        lengths.append(float(rest.norm()))
    return lengths


@pytest.mark.parametrize("components", [1, 4, D - 1])
def test_residual_by_loops(components: int) -> None:
    detector = Residual.fit(streamed(ROWS, LABELS), WEIGHT, BIAS, components=components)
    expected = torch.tensor(residuals(ROWS, NEW, components), dtype=torch.float64)
    torch.testing.assert_close(detector.scores(NEW), -expected, rtol=1e-7, atol=0)
    squares = torch.tensor(residuals(ROWS, ROWS, components), dtype=torch.float64).square()
    assert float(detector.mean_square) == pytest.approx(float(squares.mean()), rel=1e-7)


def test_vim_by_loops() -> None:
    vim = Vim.fit(streamed(ROWS, LABELS), WEIGHT, BIAS)
    means = [ROWS[LABELS.eq(k)].mean(0) for k in range(K)]
    largest = sum(int((LABELS.eq(k)).sum()) * max(float(w @ means[k] + b) for w, b in zip(WEIGHT, BIAS, strict=True))
                  for k in range(K)) / len(ROWS)  # fmt: skip
    square = sum(value**2 for value in residuals(ROWS, ROWS, D // 2)) / len(ROWS)
    assert float(vim.scale) == pytest.approx(largest / math.sqrt(square), rel=1e-7)
    energy = Energy.fit(WEIGHT, BIAS).scores(NEW)
    expected = energy - vim.scale * torch.tensor(residuals(ROWS, NEW, D // 2), dtype=torch.float64)
    torch.testing.assert_close(vim.scores(NEW), expected, rtol=1e-7, atol=1e-7)


def test_the_scale_of_moments_is_at_most_the_released_one() -> None:
    for seed in range(5):
        rows, labels = features(300, 10 + seed)
        vim = Vim.fit(streamed(rows, labels), WEIGHT, BIAS)
        matched = vim.matched(rows)
        largest = [max(float(w @ row + b) for w, b in zip(WEIGHT, BIAS, strict=True)) for row in rows]
        exact = sum(largest) / sum(residuals(rows, rows, D // 2))
        assert float(matched.scale) == pytest.approx(exact, rel=1e-7)
        assert vim.scale < matched.scale


def test_both_scales_are_equal_for_collapsed_features() -> None:
    """Two classes on one axis, with residuals of equal length on another."""
    rows = torch.tensor([[3.0, 0.0, 0.5], [3.0, 0.0, -0.5], [-3.0, 0.0, 0.5], [-3.0, 0.0, -0.5]]).double()
    weight = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    vim = Vim.fit(ClassStatistics.from_features(rows, torch.tensor([0, 0, 1, 1]), 2), weight, components=1)
    assert float(vim.scale) == pytest.approx(6.0, rel=1e-12)
    assert float(vim.matched(rows).scale) == pytest.approx(6.0, rel=1e-12)
    assert Vim.fit(ClassStatistics.from_features(rows, torch.tensor([0, 0, 1, 1]), 2), weight, scale=2.5).scale == 2.5


def test_the_origin() -> None:
    """The logits vanish at it; rows with the sum zero, in single precision, do not send it away."""
    u = origin(Logits.of(WEIGHT, BIAS))
    torch.testing.assert_close(WEIGHT @ u + BIAS, torch.zeros(K).double(), rtol=0, atol=1e-12)
    simplex = (torch.eye(4) - 0.25) @ torch.linalg.qr(torch.randn(6, 4, generator=DRAWS))[0].mT
    bias = torch.tensor([0.5, 0.1, -0.2, 0.3])
    u = origin(Logits.of(simplex, bias))
    expected = -torch.linalg.pinv(simplex.double(), rtol=1e-4) @ bias.double()
    torch.testing.assert_close(u, expected, rtol=1e-5, atol=1e-6)
    assert float(origin(Logits.of(simplex, None)).abs().max()) == 0


@pytest.mark.parametrize(("rank", "components"), [(1, 1), (2, 1), (7, 3), (767, 383), (768, 512), (2048, 1000)])
def test_the_default_number_of_components(rank: int, components: int) -> None:
    assert principal_dimension(rank) == components


def test_what_cannot_be_fitted() -> None:
    statistics = streamed(ROWS, LABELS)
    with pytest.raises(ScatterError, match=r"the residual \(Residual, ViM\) needs"):
        Residual.fit(ClassStatistics.from_features(ROWS, LABELS, K, covariance=False), WEIGHT)
    with pytest.raises(ClassifierError, match=rf"must be \(K, {D}\) to fit"):
        Residual.fit(statistics, WEIGHT[:, 1:])
    with pytest.raises(ClassifierError, match="detector needs logits"):
        Vim.fit(statistics, None)
    for components in (0, D + 1):
        with pytest.raises(RangeError, match=rf"components must be in \[1, {D}\]"):
            Vim.fit(statistics, WEIGHT, components=components)
    with pytest.raises(EmptyClassError):
        Residual.fit(ClassStatistics.empty(K, D), WEIGHT)
    with pytest.raises(ScatterError, match="equal to the classifier's origin"):
        Residual.fit(ClassStatistics.from_features(torch.zeros(4, 3), torch.arange(4) % 2, 2), torch.eye(2, 3))
    with pytest.raises(ScatterError, match=r"do not leave the principal subspace\. Pass fewer components"):
        Vim.fit(statistics, WEIGHT, components=D)
    with pytest.raises(RangeError, match="positive on average; their mean is -100"):
        Vim.fit(statistics, 0 * WEIGHT, torch.full((K,), -100.0))
    with pytest.raises(RangeError, match="ViM's scale"):
        Vim.fit(statistics, WEIGHT, BIAS, scale=0.0)
