"""Optima of unconstrained features: values of the formula sheet, closed forms, certificates, and what they refuse."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tightframe import theory
from tightframe.errors import EmptyClassError, RangeError, SearchWarning
from tightframe.theory import UnconstrainedOptimum, cross_entropy_optimum, squared_error_optimum, unconstrained_features

LONG_TAIL = [100 * 500 // (500 + 4 * k * k) for k in range(12)]
COUNTS = ([20, 20, 20, 5, 5, 5], [40, 20, 10, 5, 2, 1], [10, 10, 1, 1], [1000, 10, 10, 1], [3, 1], LONG_TAIL)
BIASES = (None, 0.0, 1e-3, 1.0)


def distance(gram: Tensor, other: Tensor) -> float:
    return float(torch.linalg.matrix_norm(gram / gram.norm() - other / other.norm()))


def diagonal(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).diag()


def factors(optimum: UnconstrainedOptimum) -> tuple[Tensor, Tensor]:
    """W (K, K) and a feature a class (K, K) with the optimum's Gram matrices and logits, from W alone."""
    values, vectors = torch.linalg.eigh(optimum.classifiers)
    kept = values > 1e-12 * values[-1]
    weight = vectors[:, kept] * values[kept].sqrt()
    features = torch.linalg.lstsq(weight, optimum.logits).solution.mT  # least features that give these logits
    return weight, features


def objective(
    weight: Tensor, features: Tensor, bias: Tensor | None, counts: list[int], decays: tuple[float, ...], squared: bool
) -> float:
    """The objective by its definition, a sample at a time."""
    total = 0.0
    for k, count in enumerate(counts):
        logits = weight @ features[k] + (0 if bias is None else bias)
        target = torch.tensor(k)
        if squared:
            loss = sum((float(logits[j]) - (j == k)) ** 2 for j in range(len(counts))) / 2
        else:
            loss = float(cross_entropy(logits, target))
        for _ in range(count):
            total += loss / sum(counts) + decays[1] / 2 * float(features[k].square().sum())
    total += decays[0] / 2 * float(weight.square().sum())
    return total + (0.0 if bias is None else decays[2] / 2 * float(bias.square().sum()))


# ------------------------------------------------------------------ check values


@pytest.mark.parametrize("decay_b", BIASES)
def test_balanced_cross_entropy(decay_b: float | None) -> None:
    optimum = cross_entropy_optimum([25] * 4, 5e-4, 5e-4, decay_b)
    gap = optimum.logits.diagonal() - optimum.logits[0, 1]
    assert gap.tolist() == pytest.approx([math.log(397)] * 4, abs=1e-12)
    assert optimum.classifiers.diagonal().tolist() == pytest.approx([22.43976] * 4, abs=5e-6)
    assert optimum.means.diagonal().tolist() == pytest.approx([0.897590] * 4, abs=5e-7)
    simplex = torch.full((4, 4), -1 / 3, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(optimum.classifier_cosines, simplex, rtol=0, atol=1e-12)
    torch.testing.assert_close(optimum.mean_cosines, simplex, rtol=0, atol=1e-12)
    assert optimum.rank == 3
    assert optimum.merged == []
    assert abs(optimum.gap) < 1e-12 * optimum.loss
    assert optimum.bias is None if decay_b is None else optimum.bias.abs().max() == 0


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_balanced_cross_entropy_is_trivial_from_a_decay_on(factor: float) -> None:
    K, n = 5, 8
    decay = factor / (K * math.sqrt(n))  # where K sqrt(n lambda^2) is the factor
    optimum = cross_entropy_optimum([n] * K, decay, decay)
    if factor < 1:
        alpha = math.log(1 / (math.sqrt(n) * decay) - K + 1)
        assert (optimum.logits[0, 0] - optimum.logits[0, 1]).item() == pytest.approx(alpha, abs=1e-12)
        assert optimum.rank == K - 1
    else:
        assert optimum.logits.abs().max() == 0
        assert optimum.loss == pytest.approx(math.log(K), abs=1e-14)
        assert optimum.rank == 0
        assert optimum.merged == [[0, 1, 2, 3, 4]]
        assert optimum.classifier_cosines.isnan().all()
    assert abs(optimum.gap) < 1e-12


@pytest.mark.parametrize(
    ("rare", "decay_b", "cosine"),
    [(4, None, 1), (5, None, 0.845), (8, None, 0.129), (4, 0.0, 1), (5, 0.0, 0.736), (6, 0.0, 0.242)],
)
def test_minority_collapse_at_the_sheet_s_values(rare: int, decay_b: float | None, cosine: float) -> None:
    optimum = cross_entropy_optimum([20] * 3 + [rare] * 3, 0.0295, 0.0295, decay_b)
    assert optimum.classifier_cosines[3, 4].item() == pytest.approx(cosine, abs=1e-12 if cosine == 1 else 5e-4)
    assert optimum.merged == ([[3, 4, 5]] if rare == 4 else [])


@pytest.mark.parametrize(("decay", "away"), [(1e-3, 0.103), (1e-5, 0.061), (1e-7, 0.044)])
def test_the_slow_approach_to_seli(decay: float, away: float) -> None:
    counts = [10, 10, 1, 1]
    optimum = cross_entropy_optimum(counts, decay, decay)
    assert distance(optimum.classifiers, theory.seli(counts).classifiers) == pytest.approx(away, abs=5e-4)


def test_squared_error_without_bias_at_the_sheet_s_values() -> None:
    optimum = squared_error_optimum([16, 4], 0.01, 0.01)
    torch.testing.assert_close(optimum.logits, diagonal(0.95, 0.9), rtol=0, atol=1e-12)
    torch.testing.assert_close(optimum.classifiers, diagonal(3.8, 1.8), rtol=0, atol=1e-12)
    torch.testing.assert_close(optimum.means, diagonal(0.2375, 0.45), rtol=0, atol=1e-12)
    assert abs(optimum.gap) < 1e-14
    assert optimum.rank == 2


@pytest.mark.parametrize("counts", COUNTS)
def test_squared_error_without_bias_in_closed_form(counts: list[int]) -> None:
    decay_w, decay_h, N = 2e-3, 5e-4, sum(counts)
    optimum = squared_error_optimum(counts, decay_w, decay_h)
    n = torch.tensor(counts, dtype=torch.float64)
    z = (1 - N * (decay_w * decay_h / n).sqrt()).clamp(min=0)
    torch.testing.assert_close(optimum.logits, z.diag(), rtol=0, atol=1e-12)
    torch.testing.assert_close(optimum.classifiers, ((n * decay_h / decay_w).sqrt() * z).diag(), rtol=0, atol=1e-11)
    torch.testing.assert_close(optimum.means, ((decay_w / (n * decay_h)).sqrt() * z).diag(), rtol=0, atol=1e-11)
    vanished = (n <= theory.minority_collapse_threshold(N, decay_w, decay_h)).nonzero().flatten().tolist()
    assert optimum.merged == ([vanished] if len(vanished) > 1 else [])
    assert optimum.rank == len(counts) - len(vanished)


@pytest.mark.parametrize("decay_b", [0.0, 0.01, 0.03, 0.2, 10.0, None])
def test_a_bias_turns_the_orthogonal_frame_into_a_simplex(decay_b: float | None) -> None:
    """The closed form of both eigenvalues, and the search with one class a little smaller, which is close to it."""
    K, n, decay = 5, 20, 1e-3
    optimum = squared_error_optimum([n] * K, decay, decay, decay_b)
    shrinkage = K * math.sqrt(n) * decay
    contrast = 1 - shrinkage
    common = contrast if decay_b is None else 0.0
    if decay_b:
        common = max(0.0, 1 - shrinkage * (1 + decay_b) / decay_b)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(optimum.logits),
        torch.tensor([common, *[contrast] * (K - 1)], dtype=torch.float64),
        rtol=0,
        atol=1e-12,
    )
    cosine = theory.frame_cosine(K, n, decay, decay, decay_b)
    assert optimum.classifier_cosines[0, 1].item() == pytest.approx(cosine, abs=1e-12)
    if decay_b is not None:
        assert optimum.bias is not None
        assert optimum.bias.tolist() == pytest.approx([(1 - common) / (K * (1 + decay_b))] * K, abs=1e-12)
    near = squared_error_optimum([1000 * n] * (K - 1) + [1000 * n - 1], decay / 1000, decay, decay_b)
    assert near.classifier_cosines[0, 1].item() == pytest.approx(cosine, abs=1e-3)
    assert near.classifier_cosines[0, K - 1].item() == pytest.approx(cosine, abs=1e-3)


def test_the_frame_s_ends_and_its_centring() -> None:
    assert theory.frame_cosine(7, 10, 1e-4, 1e-4, 0) == pytest.approx(-1 / 6, abs=1e-15)
    assert theory.frame_cosine(7, 10, 1e-4, 1e-4) == 0
    assert theory.frame_cosine(7, 10, 1e-4, 1e-4, 1e9) == pytest.approx(0, abs=1e-9)
    assert math.isnan(theory.frame_cosine(7, 10, 1.0, 1.0, 0.1))
    gram = squared_error_optimum([10] * 7, 1e-4, 1e-4).classifiers
    centring = torch.eye(7, dtype=torch.float64) - 1 / 7
    centred = centring @ gram @ centring
    assert (centred[0, 1] / centred[0, 0]).item() == pytest.approx(-1 / 6, abs=1e-12)


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize("solve", [cross_entropy_optimum, squared_error_optimum])
@pytest.mark.parametrize("decay_b", [*BIASES, 1e-7])
@pytest.mark.parametrize("decay", [1e-7, 1e-5, 1e-3, 1e-2, 3e-2, 0.3, 3.0])
def test_the_gap_is_at_rounding_level(solve, decay_b: float | None, decay: float) -> None:
    for counts in COUNTS:
        optimum = solve(counts, decay, decay, decay_b)
        assert abs(optimum.gap) < 1e-12 * optimum.loss + 1e-16, (counts, optimum.gap, optimum.loss)


@pytest.mark.parametrize("decay_b", BIASES)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("decays", [(1e-3, 4e-3), (0.03, 0.02), (1e-5, 1e-5)])
def test_the_loss_is_the_objective_and_no_neighbour_is_better(
    decays: tuple[float, float], squared: bool, decay_b: float | None
) -> None:
    counts = [12, 12, 7, 3, 3, 1]
    optimum = (squared_error_optimum if squared else cross_entropy_optimum)(counts, *decays, decay_b)
    weight, features = factors(optimum)
    all_decays = (*decays, decay_b or 0.0)
    torch.testing.assert_close(features @ features.mT, optimum.means, rtol=0, atol=1e-7 * float(optimum.means.max()))
    at_optimum = objective(weight, features, optimum.bias, counts, all_decays, squared)
    assert at_optimum == pytest.approx(optimum.loss, rel=1e-9)
    generator = torch.Generator().manual_seed(0)

    def nudge(value: Tensor, size: float) -> Tensor:
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value + size * noise * value.norm() / noise.norm()

    for size in (1e-3, 0.1, 1.0):
        for _ in range(4):
            bias = optimum.bias
            if bias is not None:
                bias = bias + size * torch.randn(len(counts), generator=generator, dtype=torch.float64)
            value = objective(nudge(weight, size), nudge(features, size), bias, counts, all_decays, squared)
            assert value > optimum.loss * (1 - 1e-12)


@pytest.mark.parametrize("decay_b", BIASES)
@pytest.mark.parametrize("squared", [False, True])
def test_the_dual_bounds_the_optimum_from_any_point(squared: bool, decay_b: float | None) -> None:
    """The bound that is tight at the optimum stays below it everywhere else, and the objective above."""
    counts = torch.tensor([12, 12, 7, 3, 3, 1]).double()
    groups = unconstrained_features.ClassGroups.of(counts)
    kind = unconstrained_features._SquaredError if squared else unconstrained_features._CrossEntropy
    model = kind(groups, 0.01, decay_b)
    Q, contrasts, beta = model.solve()
    best, bound = model.certify(Q, contrasts, beta)
    assert abs(best - bound) < 1e-12
    generator = np.random.default_rng(0)
    ones = np.sqrt(groups.many / groups.many.sum())
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(10):
            other = Q + size * generator.standard_normal(Q.shape)
            spread = np.where(groups.many > 1, np.abs(contrasts + size * generator.standard_normal(len(Q))), 0.0)
            if squared:  # whose certificate takes the best bias for granted
                bias = None if beta is None else model._beta(other)
            else:
                other = other - np.outer(ones, ones @ other)
                bias = None if beta is None else beta + size * generator.standard_normal(len(Q))
                if bias is not None and decay_b != 0:
                    bias = bias - ones * (ones @ bias)
            value, bound = model.certify(other, spread, bias)
            assert value > best
            assert bound <= best + 1e-14
            assert np.isfinite(bound)


def test_classes_of_one_size_are_solved_for_as_if_they_were_alone() -> None:
    """Counts that differ by a millionth are no groups, and give the same optimum by the larger search."""
    counts = torch.tensor([20, 20, 20, 5, 5, 5]).double()
    uneven = counts * (1 + 1e-7 * torch.arange(6))
    for decay_b in (None, 0.0, 0.01):
        grouped = cross_entropy_optimum(counts, 0.02, 0.02, decay_b)
        alone = cross_entropy_optimum(uneven, 0.02, 0.02, decay_b)
        assert distance(grouped.classifiers, alone.classifiers) < 1e-5
        assert distance(grouped.means, alone.means) < 1e-5
        assert alone.loss == pytest.approx(grouped.loss, rel=1e-6)


def test_the_order_of_classes_does_not_matter() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    counts = torch.tensor([9, 9, 5, 5, 2, 1])
    for solve in (cross_entropy_optimum, squared_error_optimum):
        one, other = solve(counts, 0.01, 0.02, 0.1), solve(counts[order], 0.01, 0.02, 0.1)
        for name in ("classifiers", "means", "logits"):
            torch.testing.assert_close(
                getattr(one, name)[order][:, order], getattr(other, name), rtol=0, atol=1e-8, msg=name
            )
        assert one.bias is not None
        torch.testing.assert_close(one.bias[order], other.bias, rtol=0, atol=1e-8)


def test_logits_are_rows_times_features_and_sum_to_zero_under_cross_entropy() -> None:
    optimum = cross_entropy_optimum([40, 20, 10, 5, 2, 1], 1e-3, 4e-3)
    weight, features = factors(optimum)
    torch.testing.assert_close(weight @ features.mT, optimum.logits, rtol=0, atol=1e-10)
    assert optimum.logits.sum(0).abs().max() < 1e-9
    # both penalties are equal at an optimum
    rows, columns = optimum.classifiers.trace(), (optimum.counts * optimum.means.diagonal()).sum()
    assert (1e-3 * rows).item() == pytest.approx((4e-3 * columns).item(), rel=1e-12)


def test_a_thousand_classes_in_two_groups() -> None:
    optimum = cross_entropy_optimum([500] * 500 + [5] * 500, 1e-6, 1e-6)
    assert optimum.rank == 999
    assert abs(optimum.gap) < 1e-12 * optimum.loss


def test_a_hundred_distinct_counts() -> None:
    optimum = cross_entropy_optimum(range(1, 101), 1e-5, 1e-5)
    assert optimum.rank == 99
    assert abs(optimum.gap) < 1e-11 * optimum.loss


def test_a_gap_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightframe.theory.nuclear_norm._STEPS", 3)
    with pytest.warns(SearchWarning, match=r"gap of the optimum is .*, a share .* of the loss") as caught:
        optimum = cross_entropy_optimum([40, 20, 10, 5, 2, 1], 1e-4, 1e-4)
    assert caught[0].filename == __file__
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = cross_entropy_optimum([40, 20, 10, 5, 2, 1], 1e-4, 1e-4)
    assert optimum.gap >= optimum.loss - best.loss > 0


@pytest.mark.parametrize("solve", [cross_entropy_optimum, squared_error_optimum])
def test_bad_arguments(solve) -> None:
    for counts in ([5], [3, 0], [[1, 2]], [3, math.nan], []):
        with pytest.raises(EmptyClassError, match="must be positive, for at least two classes"):
            solve(counts, 0.1, 0.1)
    with pytest.raises(RangeError, match=r"the weight decay of W must be finite and > 0; got 0\.0"):
        solve([1, 2], 0.0, 0.1)
    with pytest.raises(RangeError, match="the weight decay of H must be finite and > 0; got inf"):
        solve([1, 2], 0.1, math.inf)
    with pytest.raises(RangeError, match="the weight decay of the bias must be finite and >= 0; got -1"):
        solve([1, 2], 0.1, 0.1, -1.0)


def test_bad_frames() -> None:
    with pytest.raises(RangeError, match="at least 2 and samples_per_class at least 1; got 1 and 3"):
        theory.frame_cosine(1, 3, 0.1, 0.1)
    with pytest.raises(RangeError, match="the weight decay of H"):
        theory.frame_cosine(2, 3, 0.1, -0.1)
