import math
import sys
from itertools import product

import pytest
import torch
from torch import Tensor

from tightframe.errors import DtypeError, EmptyBatchError, MissingExtraError, NonFiniteError, ShapeError
from tightframe.ood import Detection, evaluate

pytest.importorskip("sklearn")


def auroc_by_pairs(inside: list[float], outside: list[float]) -> float:
    points = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(inside, outside)]
    return sum(points) / len(points)


def fpr95_by_trial(inside: list[float], outside: list[float]) -> float:
    """Every score as the threshold, from above, until enough in-distribution samples reach it."""
    for threshold in sorted(inside, reverse=True):
        if 100 * sum(score >= threshold for score in inside) >= 95 * len(inside):
            return sum(score >= threshold for score in outside) / len(outside)
    raise AssertionError


def draws(count: int, shift: float, seed: int, *, ties: bool) -> Tensor:
    scores = torch.randn(count, generator=torch.Generator().manual_seed(seed)).double() + shift
    return (scores * 2).round() / 2 if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (19, 7), (20, 30), (21, 30), (40, 11), (100, 60)])
def test_by_counting_pairs(sizes: tuple[int, int], ties: bool) -> None:
    for seed in range(5):
        inside, outside = draws(sizes[0], 1.0, seed, ties=ties), draws(sizes[1], 0.0, 50 + seed, ties=ties)
        found = evaluate(inside, outside)
        assert found.auroc == pytest.approx(auroc_by_pairs(inside.tolist(), outside.tolist()), abs=1e-13)
        assert found.fpr95 == pytest.approx(fpr95_by_trial(inside.tolist(), outside.tolist()), abs=1e-13)
        assert (found.inside, found.outside) == sizes


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_the_jackknife_of_pairs(ties: bool) -> None:
    """The spread of the AUROC as each sample is left out, of one kind and of the other, added."""
    inside, outside = draws(23, 0.7, 1, ties=ties).tolist(), draws(14, 0.0, 2, ties=ties).tolist()

    def jackknife(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) * (len(values) - 1) / len(values)

    variance = jackknife([auroc_by_pairs(inside[:i] + inside[i + 1 :], outside) for i in range(23)])
    variance += jackknife([auroc_by_pairs(inside, outside[:i] + outside[i + 1 :]) for i in range(14)])
    error = evaluate(torch.tensor(inside, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64)).auroc_error
    assert error == pytest.approx(math.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_bootstrap_over_all_samples_there_can_be(ties: bool) -> None:
    """All 5^5 x 4^4 equally likely resamples, one by one."""
    inside, outside = draws(5, 0.4, 11, ties=ties).tolist(), draws(4, 0.0, 12, ties=ties).tolist()
    values = []
    for known in product(inside, repeat=5):
        threshold = min(known)  # 95 % of 5 are all 5
        passed = [score >= threshold for score in outside]
        values += [sum(chosen) / 4 for chosen in product(passed, repeat=4)]
    rates = torch.tensor(values, dtype=torch.float64)
    found = evaluate(torch.tensor(inside, dtype=torch.float64), torch.tensor(outside, dtype=torch.float64))
    assert 0 < found.fpr95_error == pytest.approx(float(rates.std(correction=0)), rel=1e-10)


def test_the_bootstrap_against_resampling() -> None:
    """With an order statistic inside the sample: 4000 resamples give the same to their own error of 1 %."""
    inside, outside = draws(150, 1.5, 21, ties=False), draws(80, 0.0, 22, ties=False)
    generator = torch.Generator().manual_seed(5)
    known = inside[torch.randint(150, (4000, 150), generator=generator)].sort(dim=1).values
    foreign = outside[torch.randint(80, (4000, 80), generator=generator)]
    rates = (foreign >= known[:, 7:8]).double().mean(1)  # 143 of 150 are at least 95 %, and 142 aren't
    assert evaluate(inside, outside).fpr95_error == pytest.approx(float(rates.std()), rel=0.05)


def simulated(known: int, foreign: int, shift: float, sets: int) -> tuple[Tensor, Tensor, Tensor]:
    """AUROC and FPR95 of many sets of normal scores (sets, 2), their standard errors, and the true values (2,)."""
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    auroc = normal.cdf(torch.tensor(shift / math.sqrt(2)).double())
    fpr95 = 1 - normal.cdf(shift + normal.icdf(torch.tensor(0.05).double()))
    generator = torch.Generator().manual_seed(7)
    values, errors = [], []
    for _ in range(sets):
        inside = torch.randn(known, generator=generator).double() + shift
        found = evaluate(inside, torch.randn(foreign, generator=generator).double())
        values.append([found.auroc, found.fpr95])
        errors.append([found.auroc_error, found.fpr95_error])
    return torch.tensor(values).double(), torch.tensor(errors).double(), torch.stack([auroc, fpr95])


def require_coverage(sizes: tuple[int, int], shift: float, sets: int) -> None:
    """95 % intervals hold the true value in 95 % of the sets, to 3 standard errors of that share."""
    values, errors, truth = simulated(*sizes, shift, sets)
    shares = ((values - truth).abs() <= 1.96 * errors).double().mean(0)
    assert bool(((shares - 0.95).abs() < 3 * math.sqrt(0.95 * 0.05 / sets)).all()), shares


@pytest.mark.parametrize("sets", [200, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("sizes", "shift"), [((200, 200), 1.0), ((500, 200), 2.0)])
def test_intervals_cover(sizes: tuple[int, int], shift: float, sets: int) -> None:
    require_coverage(sizes, shift, sets)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "shift"), [((2000, 2000), 1.0), ((2000, 2000), 2.0), ((4000, 1000), 3.0)])
def test_intervals_of_many_samples_cover_more_exactly(sizes: tuple[int, int], shift: float) -> None:
    require_coverage(sizes, shift, sets=2000)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "shift"), [((50, 50), 1.0), ((200, 200), 2.0), ((500, 500), 3.0)])
def test_errors_are_the_spread_of_repeated_experiments(sizes: tuple[int, int], shift: float) -> None:
    """DeLong's variance is unbiased whatever the sizes; the bootstrap's has a bias that shrinks with them."""
    values, errors, _ = simulated(*sizes, shift, sets=3000)
    ratio = errors.square().mean(0) / values.var(0)
    assert abs(float(ratio[0]) - 1) < 4 * math.sqrt(2 / 3000), ratio
    assert 1 - 4 * math.sqrt(2 / 3000) < float(ratio[1]) < 1.2 + 4 * math.sqrt(2 / 3000), ratio


def test_constant_scores_are_worth_nothing() -> None:
    same = torch.ones(30)
    assert evaluate(same, same[:20]) == Detection(0.5, 0.0, 1.0, 0.0, 30, 20)


def test_scores_apart() -> None:
    low, high = draws(30, 0.0, 1, ties=False), draws(20, 100.0, 2, ties=False)
    assert evaluate(high, low) == Detection(1.0, 0.0, 0.0, 0.0, 20, 30)
    assert evaluate(low, high) == Detection(0.0, 0.0, 1.0, 0.0, 30, 20)


def test_only_the_order_of_scores_counts() -> None:
    inside, outside = draws(60, 1.0, 3, ties=True), draws(50, 0.0, 4, ties=True)
    expected = evaluate(inside, outside)
    assert evaluate(inside.exp(), outside.exp()) == expected
    assert evaluate(inside.flip(0), outside[torch.randperm(50)]) == expected
    turned = evaluate(-outside, -inside)
    assert turned.auroc == pytest.approx(expected.auroc, abs=1e-14)
    assert turned.auroc_error == pytest.approx(expected.auroc_error, abs=1e-14)


def test_one_sample_has_no_standard_error() -> None:
    assert math.isnan(evaluate(torch.ones(1), torch.zeros(5)).auroc_error)


def test_what_cannot_be_judged() -> None:
    good = torch.rand(4)
    with pytest.raises(EmptyBatchError, match="out-of-distribution scores are empty"):
        evaluate(good, good[:0])
    with pytest.raises(EmptyBatchError, match="in-distribution scores are empty"):
        evaluate(good[:0], good)
    with pytest.raises(NonFiniteError, match="2 of 4 are not"):
        evaluate(torch.tensor([1.0, math.nan, math.inf, 0.0]), good)
    with pytest.raises(ShapeError, match=r"\(N,\); got \(2, 2\)"):
        evaluate(good, good.reshape(2, 2))
    with pytest.raises(DtypeError, match="floating point"):
        evaluate(good, torch.arange(3))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn is not installed.*tightframe\[ood\]"):
        evaluate(torch.ones(2), torch.zeros(2))
