"""Optima under label smoothing, class weights and logit adjustment: against training, limits, certificates."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from thinned import thinned
from tightframe import theory
from tightframe.errors import NonFiniteError, RangeError, ShapeError
from tightframe.theory import UnconstrainedOptimum, cross_entropy_optimum, squared_error_optimum, unconstrained_features

Solve = Callable[..., UnconstrainedOptimum]
COUNTS = [8, 8, 4, 2, 2]
WEIGHTS = [1.0, 1.0, 2.0, 3.0, 3.0]
OFFSETS = [0.5, 0.5, -1.0, 0.0, 0.0]
SEEDS = 3
OPTIONS: list[dict[str, Any]] = [
    {"label_smoothing": 0.1},
    {"class_weights": WEIGHTS},
    {"logit_adjustment": 1.0},
    {"logit_adjustment": OFFSETS},
    {"label_smoothing": 0.2, "class_weights": WEIGHTS, "logit_adjustment": OFFSETS},
]
CASES = [(cross_entropy_optimum, options) for options in OPTIONS]
CASES.append((squared_error_optimum, {"class_weights": WEIGHTS}))


def objective_of(
    solve: Solve, counts: list[int], decays: tuple[float, float, float], options: dict[str, Any]
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The objective of W (S, K, D), H (S, N, D) and b (S, K) as a training loop has it, for each of S seeds."""
    n = torch.tensor(counts).double()
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    weights = torch.tensor(options.get("class_weights", [1.0] * len(counts))).double()
    adjustment = options.get("logit_adjustment", 0.0)
    offsets = adjustment * (n / n.sum()).log() if isinstance(adjustment, float) else torch.tensor(adjustment).double()

    def objective(W: Tensor, H: Tensor, b: Tensor) -> Tensor:
        logits = H @ W.mT + b.unsqueeze(-2)
        if solve is squared_error_optimum:
            errors = (logits - torch.eye(len(counts)).double()[labels]).square().sum(-1) / 2
            loss = errors @ weights[labels] / weights[labels].sum()
        else:
            smoothing = options.get("label_smoothing", 0.0)
            losses = [cross_entropy(run, labels, weight=weights, label_smoothing=smoothing) for run in logits + offsets]
            loss = torch.stack(losses)
        squares = (W.square().sum((-1, -2)), H.square().sum((-1, -2)), b.square().sum(-1))
        return loss + sum(decay / 2 * square for decay, square in zip(decays, squares, strict=True))

    return objective


def descended(
    objective: Callable[[Tensor, Tensor, Tensor], Tensor], counts: list[int], *, with_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """W, H and b after plain gradient descent from as many random starts as there are seeds."""
    generator = torch.Generator().manual_seed(0)
    K, N = len(counts), sum(counts)
    starts = [torch.randn(SEEDS, rows, K + 1, generator=generator).double() / 2 for rows in (K, N)]
    W, H = (start.requires_grad_() for start in starts)
    b = torch.zeros(SEEDS, K).double().requires_grad_(with_bias)
    rates = [{"params": [W, b] if with_bias else [W], "lr": 0.2}, {"params": [H], "lr": 0.2 * N}]
    optimiser = torch.optim.SGD(rates, momentum=0.9)
    for _ in range(600):
        optimiser.zero_grad()
        objective(W, H, b).sum().backward()
        optimiser.step()
    return W.detach(), H.detach(), b.detach()


@pytest.mark.parametrize(("case", "decay_b"), thinned(3, range(len(CASES)), [None, 0.0, 0.1]))
def test_gradient_descent_arrives_at_the_optimum(case: int, decay_b: float | None) -> None:
    solve, options = CASES[case]
    decays = (0.02, 0.002)
    optimum = solve(COUNTS, *decays, decay_b, **options)
    objective = objective_of(solve, COUNTS, (*decays, decay_b or 0.0), options)
    W, H, b = descended(objective, COUNTS, with_bias=decay_b is not None)
    means = torch.stack([part.mean(1) for part in H.split(COUNTS, 1)], 1)
    for losses in objective(W, H, b):
        assert losses.item() == pytest.approx(optimum.loss, rel=1e-3)
        assert losses.item() > optimum.loss - optimum.gap - 1e-13
    for grams, expected in ((W @ W.mT, optimum.classifiers), (means @ means.mT, optimum.means)):
        for gram in grams:
            assert torch.linalg.matrix_norm(gram - expected) < 1e-2 * torch.linalg.matrix_norm(expected)
    if decay_b is not None:
        assert optimum.bias is not None
        torch.testing.assert_close(b, optimum.bias.expand(SEEDS, -1), rtol=0, atol=1e-2)


# ------------------------------------------------------------------ limits and closed forms


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.1])
@pytest.mark.parametrize("options", [{"label_smoothing": 0.0}, {"logit_adjustment": 0}, {"class_weights": [0.7] * 5}])
def test_options_without_effect_change_no_digit(options: dict[str, Any], decay_b: float | None) -> None:
    solvers: list[Solve] = [cross_entropy_optimum]
    if "class_weights" in options:
        solvers.append(squared_error_optimum)
    for solve in solvers:
        plain, same = solve(COUNTS, 0.01, 0.02, decay_b), solve(COUNTS, 0.01, 0.02, decay_b, **options)
        assert torch.equal(plain.classifiers, same.classifiers) and torch.equal(plain.means, same.means)
        assert torch.equal(plain.logits, same.logits)
        assert (plain.loss, plain.gap, plain.merged) == (same.loss, same.gap, same.merged)


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.1])
def test_smoothing_of_equal_counts_leaves_the_simplex(decay_b: float | None) -> None:
    K, n, smoothing = 5, 6, 0.1
    for decay in (1e-6, 1e-3, 0.06):
        optimum = cross_entropy_optimum([n] * K, decay, decay, decay_b, label_smoothing=smoothing)
        gap = math.log(1 / (math.sqrt(n) * decay + smoothing / K) - K + 1)
        assert (optimum.logits[0, 0] - optimum.logits[0, 1]).item() == pytest.approx(gap, abs=1e-12)
        simplex = torch.full((K, K), -1 / (K - 1)).double().fill_diagonal_(1)
        torch.testing.assert_close(optimum.classifier_cosines, simplex, rtol=0, atol=1e-12)
        torch.testing.assert_close(optimum.mean_cosines, simplex, rtol=0, atol=1e-12)
        assert abs(optimum.gap) < 1e-12
    trivial = (1 - smoothing) / (K * math.sqrt(n))  # the decay from which on everything is zero
    for factor, rank in ((0.99, K - 1), (1.01, 0)):
        decay = factor * trivial
        assert cross_entropy_optimum([n] * K, decay, decay, decay_b, label_smoothing=smoothing).rank == rank


def test_weighted_squared_error_without_bias_in_closed_form() -> None:
    n, w = torch.tensor(COUNTS).double(), torch.tensor(WEIGHTS).double()
    for decay_w, decay_h in ((1e-3, 2e-3), (0.05, 0.02)):
        optimum = squared_error_optimum(COUNTS, decay_w, decay_h, class_weights=w)
        z = (1 - (n @ w) * (decay_w * decay_h / n).sqrt() / w).clamp(min=0)
        torch.testing.assert_close(optimum.logits, z.diag(), rtol=0, atol=1e-12)
        assert abs(optimum.gap) < 1e-13


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_free_bias_takes_offsets_up(smoothing: float) -> None:
    plain = cross_entropy_optimum(COUNTS, 0.01, 0.02, 0.0, label_smoothing=smoothing)
    adjusted = cross_entropy_optimum(COUNTS, 0.01, 0.02, 0.0, label_smoothing=smoothing, logit_adjustment=OFFSETS)
    torch.testing.assert_close(adjusted.logits, plain.logits, rtol=0, atol=1e-6)
    assert plain.bias is not None and adjusted.bias is not None
    shift = plain.bias - adjusted.bias - torch.tensor(OFFSETS).double()
    torch.testing.assert_close(shift, shift.mean().expand(5), rtol=0, atol=1e-6)
    assert adjusted.loss == pytest.approx(plain.loss, rel=1e-11)


def test_one_number_stands_for_the_logarithms_of_the_priors() -> None:
    offsets = [2 * math.log(count / sum(COUNTS)) for count in COUNTS]
    one, other = (cross_entropy_optimum(COUNTS, 0.01, 0.02, logit_adjustment=value) for value in (2, offsets))
    torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-9)


def test_only_ratios_of_weights_matter() -> None:
    for solve in (cross_entropy_optimum, squared_error_optimum):
        one = solve(COUNTS, 0.01, 0.02, 0.1, class_weights=WEIGHTS)
        other = solve(COUNTS, 0.01, 0.02, 0.1, class_weights=torch.tensor(WEIGHTS, dtype=torch.float32) * 8)
        torch.testing.assert_close(one.classifiers, other.classifiers, rtol=1e-9, atol=1e-9)
        assert one.loss == pytest.approx(other.loss, rel=1e-12)


# ------------------------------------------------------------------ groups and merging


@pytest.mark.parametrize(("solve", "options"), CASES)
@pytest.mark.parametrize("decay_b", [None, 0.0, 0.1])
def test_classes_alike_are_solved_for_as_if_they_were_alone(
    solve: Solve, options: dict[str, Any], decay_b: float | None
) -> None:
    """In another order, and with counts that differ by a millionth, the larger search finds the same optimum."""
    order = torch.tensor([3, 0, 2, 4, 1])
    uneven = (torch.tensor(COUNTS) * (1 + 1e-7 * torch.arange(5)))[order]
    moved = {name: [value[k] for k in order] if isinstance(value, list) else value for name, value in options.items()}
    grouped = solve(COUNTS, 0.02, 0.02, decay_b, **options)
    alone = solve(uneven, 0.02, 0.02, decay_b, **moved)
    torch.testing.assert_close(alone.classifiers, grouped.classifiers[order][:, order], rtol=0, atol=1e-4)
    torch.testing.assert_close(alone.means, grouped.means[order][:, order], rtol=0, atol=1e-4)
    assert alone.loss == pytest.approx(grouped.loss, rel=1e-6)


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.1])
@pytest.mark.parametrize(
    "options", [{}, {"class_weights": [1, 1, 2, 1.5, 1.5]}, {"logit_adjustment": [0.5, 0.5, -1, 0, 0]}]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_threshold_of_merging(smoothing: float, options: dict[str, Any], decay_b: float | None) -> None:
    weights = options.get("class_weights", [1] * 5)
    total = sum(n * w for n, w in zip(COUNTS, weights, strict=True))
    at_threshold = math.sqrt(COUNTS[3]) * weights[3] * (1 - smoothing) / total  # of sqrt(lambda_W lambda_H)
    for factor, merged in ((1.02, [[3, 4]]), (0.98, [])):
        decay = factor * at_threshold
        threshold = theory.minority_collapse_threshold(total / weights[3], decay, decay, label_smoothing=smoothing)
        assert (threshold >= COUNTS[3]) == bool(merged)
        merging = theory.merging_classes(COUNTS, decay, decay, label_smoothing=smoothing, **options)
        optimum = cross_entropy_optimum(COUNTS, decay, decay, decay_b, label_smoothing=smoothing, **options)
        rows = optimum.classifiers
        assert merging == merged
        apart = float(rows[3, 3] + rows[4, 4] - 2 * rows[3, 4]) / float(rows.diagonal().max())
        assert apart < 1e-12 if factor > 1 else apart > 1e-4


def test_weights_can_keep_classes_apart() -> None:
    counts, balanced = [20, 20, 20, 4, 4, 4], [1, 1, 1, 5, 5, 5]
    assert theory.merging_classes(counts, 0.0295, 0.0295) == [[3, 4, 5]]
    assert theory.merging_classes(counts, 0.0295, 0.0295, class_weights=balanced) == []


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize(("decay", "decay_b"), thinned(4, [1e-6, 1e-3, 0.03, 0.3], [None, 0.0, 1e-3, 1.0]))
def test_the_gap_is_at_rounding_level(decay: float, decay_b: float | None) -> None:
    for counts in ([20, 20, 20, 5, 5, 5], [40, 20, 10, 5, 2, 1], [7] * 6):
        rare = [max(counts) / count for count in counts]
        for smoothing in (0.0, 1e-6, 0.1, 0.5):
            for adjustment in (None, 1.0, [0, -1, 2, -3, 4, -5]):
                for weights in (None, rare):
                    options = {"label_smoothing": smoothing, "class_weights": weights, "logit_adjustment": adjustment}
                    optimum = cross_entropy_optimum(counts, decay, decay, decay_b, **options)
                    assert abs(optimum.gap) < 1e-11 * optimum.loss, (counts, options)
        optimum = squared_error_optimum(counts, decay, decay, decay_b, class_weights=rare)
        assert abs(optimum.gap) < 1e-11 * optimum.loss + 1e-16, counts


@pytest.mark.parametrize("decay_b", [None, 0.0, 0.1])
@pytest.mark.parametrize(("solve", "options"), CASES)
def test_the_dual_bounds_the_optimum_from_any_point(
    solve: Solve, options: dict[str, Any], decay_b: float | None
) -> None:
    squared = solve is squared_error_optimum
    groups = unconstrained_features.ClassGroups.of(
        torch.tensor(COUNTS).double(), options.get("class_weights"), options.get("logit_adjustment")
    )
    if squared:
        model: Any = unconstrained_features._SquaredError(groups, 0.01, decay_b)
    else:
        model = unconstrained_features._CrossEntropy(groups, 0.01, decay_b, options.get("label_smoothing", 0.0))
    Q, contrasts, beta = model.solve()
    best = model.certify(Q, contrasts, beta)[0]
    generator = np.random.default_rng(0)
    ones = np.sqrt(groups.many / groups.many.sum())
    for size in (1e-4, 1e-2, 1.0, 10.0):
        for _ in range(5):
            other = Q + size * generator.standard_normal(Q.shape)
            spread = np.where(groups.many > 1, np.abs(contrasts + size * generator.standard_normal(len(Q))), 0.0)
            if squared:  # whose certificate takes the best bias for granted
                bias = None if beta is None else model._beta(other)
            else:
                other = other - np.outer(ones, ones @ other)
                bias = None if beta is None else beta + size * generator.standard_normal(len(Q))
                bias = None if bias is None else bias - ones * (ones @ bias)
            value, bound = model.certify(other, spread, bias)
            assert value > best
            assert bound <= best + 1e-14


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": 1.0}, RangeError, r"label smoothing must be in \[0, 1\); got 1\.0"),
        ({"label_smoothing": math.nan}, RangeError, "label smoothing"),
        ({"class_weights": [1, 2]}, ShapeError, r"class weights must have shape \(5,\), one per class; got \(2"),
        ({"class_weights": [1, 1, 1, 1, 0]}, RangeError, "class weights must be finite and > 0"),
        ({"class_weights": [1, 1, 1, 1, math.inf]}, RangeError, "class weights"),
        ({"logit_adjustment": [[0.0] * 5]}, ShapeError, r"offsets of the logits .*; got \(1, 5\)"),
        ({"logit_adjustment": math.nan}, NonFiniteError, "the logit adjustment must be finite; got nan"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy_optimum(COUNTS, 0.1, 0.1, **options)
    with pytest.raises(error, match=message):
        theory.merging_classes(COUNTS, 0.1, 0.1, **options)
    if "class_weights" in options:
        with pytest.raises(error, match=message):
            squared_error_optimum(COUNTS, 0.1, 0.1, **options)
