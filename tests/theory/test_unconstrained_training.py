"""Gradient descent on unconstrained features from random starts arrives where the convex solution says."""

import pytest
import torch
from descent import minimum
from torch import Tensor

from tightframe import theory


def trained(
    counts: list[int],
    decays: tuple[float, float],
    decay_b: float | None = None,
    *,
    squared: bool = False,
    per_sample: bool = False,
    extra_dims: int = 2,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, float]:
    """W W^T, the Gram matrix of the classes' features, the bias and the objective, trained from random W and H.

    H has one row a class, weighted by its count, or one row a sample.
    """
    generator = torch.Generator().manual_seed(seed)
    K, N = len(counts), sum(counts)
    labels, weights = torch.arange(K), torch.tensor(counts, dtype=torch.float64)
    if per_sample:
        labels, weights = labels.repeat_interleave(weights.long()), torch.ones(N, dtype=torch.float64)
    sizes = [(K, K + extra_dims), (len(labels), K + extra_dims)]
    start = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    no_bias = torch.zeros(K, dtype=torch.float64)
    onehot = torch.eye(K, dtype=torch.float64)[labels]
    tau = (decays[0] * decays[1]) ** 0.5

    def objective(W: Tensor, H: Tensor, b: Tensor = no_bias) -> Tensor:
        """Over tau, so that tolerances mean the same at every decay."""
        logits = H @ W.T + b
        if squared:
            losses = (logits - onehot).square().sum(1) / 2
        else:  # as log1p, which keeps the digits of a small loss
            others = (logits - (logits * onehot).sum(1, keepdim=True)).masked_fill(onehot.bool(), -torch.inf)
            losses = others.exp().sum(1).log1p()
        value = losses @ weights / N + decays[0] / 2 * W.square().sum()
        return (value + decays[1] / 2 * (weights @ H.square().sum(1)) + (decay_b or 0) / 2 * b.square().sum()) / tau

    W, H, *biases = found = minimum(objective, start if decay_b is None else [*start, no_bias])
    means = torch.stack([H[labels == k].mean(0) for k in range(K)])
    spread = torch.stack([(H[labels == k] - means[k]).norm() for k in range(K)]).max()
    assert spread < 1e-6 * (1 + means.norm())  # features of a class become equal
    return W @ W.T, means @ means.T, biases[0] if biases else no_bias, float(objective(*found)) * tau


def distance(gram: Tensor, other: Tensor) -> float:
    return float(torch.linalg.matrix_norm(gram / gram.norm() - other / other.norm()))


SETTINGS = [
    ([20, 20, 20, 5, 5, 5], (0.0295, 0.0295), None),
    ([40, 20, 10, 5, 2, 1], (1e-3, 1e-3), None),
    ([40, 20, 10, 5, 2, 1], (1e-3, 1e-3), 0.0),
    ([9, 7, 5, 4, 3, 2, 1], (1e-5, 1e-4), 0.01),
    ([10, 10, 1, 1], (1e-7, 1e-7), None),
    ([30, 12, 12, 3, 3], (0.02, 0.04), 0.0),
    ([30, 12, 12, 3, 3], (0.04, 0.02), 0.1),
    ([100, 30, 10, 3], (0.02, 0.02), None),
    ([200, 5, 5], (1e-4, 1e-2), 1e-3),
]


@pytest.mark.parametrize(("counts", "decays", "decay_b"), SETTINGS)
def test_cross_entropy(counts: list[int], decays: tuple[float, float], decay_b: float | None) -> None:
    optimum = theory.cross_entropy_optimum(counts, *decays, decay_b)
    classifiers, means, bias, loss = trained(counts, decays, decay_b)
    assert distance(classifiers, optimum.classifiers) < 1e-9
    assert distance(means, optimum.means) < 1e-9
    assert (classifiers.trace() / optimum.classifiers.trace()).item() == pytest.approx(1, rel=1e-9)
    assert (means.trace() / optimum.means.trace()).item() == pytest.approx(1, rel=1e-9)
    assert loss == pytest.approx(optimum.loss, rel=1e-9)
    assert loss > optimum.loss - optimum.gap - 1e-13 * loss
    if decay_b is not None:
        assert optimum.bias is not None
        torch.testing.assert_close(bias - bias.mean(), optimum.bias, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.05])
def test_cross_entropy_with_a_feature_for_every_sample(decay_b: float | None) -> None:
    counts, decays = [12, 6, 6, 2, 1], (3e-3, 6e-3)
    optimum = theory.cross_entropy_optimum(counts, *decays, decay_b)
    classifiers, means, _, loss = trained(counts, decays, decay_b, per_sample=True, extra_dims=0)
    assert distance(classifiers, optimum.classifiers) < 1e-9
    assert distance(means, optimum.means) < 1e-9
    assert loss == pytest.approx(optimum.loss, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "decays", "decay_b"),
    [
        ([20, 20, 20, 5, 5, 5], (0.0295, 0.0295), None),
        ([40, 20, 10, 5, 2, 1], (3e-3, 3e-2), 0.0),
        ([30, 12, 12, 3, 3], (0.02, 0.04), 0.1),
        ([6, 6, 6, 6], (0.01, 0.02), 0.2),  # the closed form between both frames
        ([6, 6, 6, 6], (0.01, 0.02), 0.0),
        ([6, 6, 6, 6], (0.01, 0.02), None),
    ],
)
def test_squared_error(counts: list[int], decays: tuple[float, float], decay_b: float | None) -> None:
    optimum = theory.squared_error_optimum(counts, *decays, decay_b)
    classifiers, means, bias, loss = trained(counts, decays, decay_b, squared=True, per_sample=len(counts) == 4)
    assert distance(classifiers, optimum.classifiers) < 1e-9
    assert distance(means, optimum.means) < 1e-9
    assert loss == pytest.approx(optimum.loss, rel=1e-10)
    if decay_b is not None:
        assert optimum.bias is not None
        torch.testing.assert_close(bias, optimum.bias, rtol=0, atol=1e-9)
    if len(set(counts)) == 1:
        cosine = (classifiers[0, 1] / classifiers[0, 0]).item()
        assert cosine == pytest.approx(theory.frame_cosine(4, 6, *decays, decay_b), abs=1e-9)


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.02])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("rare", [[5, 5, 5], [5, 5]])
def test_the_threshold_separates_collapse_from_none(rare: list[int], squared: bool, decay_b: float | None) -> None:
    counts = [20, 20, 14, *rare]
    at_threshold = rare[0] ** 0.5 / sum(counts)  # of sqrt(lambda_W lambda_H)
    for factor in (1.03, 0.97):
        decays = (2 * factor * at_threshold, factor * at_threshold / 2)
        merges = factor > 1
        assert theory.merging_classes(counts, *decays) == ([list(range(3, len(counts)))] if merges else [])
        solve = theory.squared_error_optimum if squared else theory.cross_entropy_optimum
        optimum = solve(counts, *decays, decay_b)
        gram = trained(counts, decays, decay_b, squared=squared)[0]
        for rows in (optimum.classifiers, gram):
            apart = float((rows[3, 3] + rows[4, 4] - 2 * rows[3, 4]) / rows[0, 0])  # squared, over the longest row
            assert apart < 1e-9 if merges else apart > 1e-3
        if squared and decay_b is None:
            continue  # the rows vanish, so there's no cosine
        for cosine in (optimum.classifier_cosines[3, 4], gram[3, 4] / (gram[3, 3] * gram[4, 4]).sqrt()):
            assert (cosine >= 1 - 1e-6) == merges
        assert optimum.merged == theory.merging_classes(counts, *decays)
