"""The energy by lists of near pairs against all pairs, while points move; and what happens when time is up."""

import math
from collections.abc import Callable

import pytest
import torch

from fake_clock import Clock
from tightframe.codes.search import energy, neighbours
from tightframe.codes.search.energy import LargestCosine, SeparationEnergy, largest_cosines, seconds_of_a_pass
from tightframe.codes.search.neighbours import NearEnergy, NearestEnergy, collect
from tightframe.codes.search.sphere import descend
from tightframe.numerics import unit_rows
from tightframe.prototypes import separated


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Counted:
    """A function that counts its calls, and those that returned None."""

    def __init__(self, function: Callable):
        self.function, self.calls, self.refusals = function, 0, 0

    def __call__(self, *arguments: object) -> object:
        result = self.function(*arguments)
        self.calls += 1
        self.refusals += result is None
        return result


@pytest.mark.parametrize(("K", "D", "p"), [(600, 3, 1e4), (600, 3, 1e6), (600, 8, 1e3), (300, 2, 1e6)])
def test_equal_to_all_pairs_while_points_move(K: int, D: int, p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(collect)
    monkeypatch.setattr(neighbours, "collect", counted)
    exponent = torch.tensor([p], dtype=torch.float64)
    full, near = SeparationEnergy(exponent), NearEnergy(exponent)
    passes = Counted(near._full)
    near._full = passes  # type: ignore[assignment]
    x = descend(unit_rows(random(1, K, D)), SeparationEnergy(torch.tensor([float(K)], dtype=torch.float64)), steps=20)
    steps = [0, 1e-6, 1e-6, 1e-5, 1e-5, 1e-3, 1e-3, 0.1, 0.1, 1e-6]
    for seed, step in enumerate(steps):
        x = unit_rows(x + step * unit_rows(random(1, K, D, seed=seed)))
        value, gradient = near(x)
        expected, slope = full(x)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
        # p times the rounding of cosines is what weights, and so gradients, are uncertain by
        torch.testing.assert_close(gradient, slope, rtol=0, atol=1e-12 + 1e-14 * p)
    assert counted.calls - counted.refusals >= 2, "lists are rebuilt"
    assert counted.calls <= len(steps) - 3, "and serve for a while"
    assert passes.calls < len(steps) / 2


def test_nearest_neighbours_are_all_that_counts_near_the_first_points() -> None:
    x = descend(unit_rows(random(2, 80, 3)), SeparationEnergy(torch.full((2,), 300.0, dtype=torch.float64)), steps=50)
    exponents = torch.tensor([1000.0, 3000.0], dtype=torch.float64)
    nearest = NearestEnergy(exponents, x, 12)
    for step in (0.0, 1e-3):
        moved = unit_rows(x + step * random(2, 80, 3))
        for ours, theirs in zip(nearest(moved), SeparationEnergy(exponents)(moved), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_low_exponents_take_all_pairs() -> None:
    x = unit_rows(random(1, 200, 5))
    exponent = torch.tensor([3.0], dtype=torch.float64)
    near = NearEnergy(exponent)
    for _ in range(2):
        for ours, theirs in zip(near(x), SeparationEnergy(exponent)(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_pair_that_comes_near_is_noticed() -> None:
    x = unit_rows(random(1, 400, 4))
    near = NearEnergy(torch.tensor([1e5], dtype=torch.float64))
    near(x), near(x)
    cosines = (x[0] @ x[0].T).fill_diagonal_(-2)
    i, j = divmod(int(cosines.argmin()), 400)  # opposite, so in no list
    x[0, i] = unit_rows(x[0, j] + 1e-4 * random(4))
    expected = largest_cosines(x) + math.log(2) / 1e5  # both orders of the pair
    torch.testing.assert_close(near(x)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile", [1, 1000, 1 << 22])
def test_collected_pairs(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TILE", tile)
    x = unit_rows(random(150, 3))
    pairs = collect(x, 0.2)
    assert pairs is not None
    close = ((x @ x.T) > math.cos(0.2)).fill_diagonal_(False)
    assert torch.equal(torch.stack([pairs.left, pairs.right], 1).long(), close.nonzero())
    weights = random(len(pairs.right))
    dense = torch.zeros(150, 150, dtype=torch.float64)
    dense[pairs.left.long(), pairs.right.long()] = weights
    torch.testing.assert_close(pairs.gather(x, weights), dense @ x, rtol=0, atol=1e-13)


def test_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(random(150, 3))
    assert collect(x, 1.0) is None  # a quarter of all pairs
    assert collect(x, 0.2, lambda: True) is None
    monkeypatch.setattr(neighbours, "_MOST", 10)
    assert collect(x, 0.2) is None
    monkeypatch.setattr(neighbours, "_SAMPLE", 1)  # finds none near the one point that it looks at
    x[0] = torch.tensor([0.0, 0, 1])
    x[1:] = unit_rows(torch.tensor([0.0, 0, -1], dtype=torch.float64) + 0.01 * x[1:])
    assert collect(x, 0.2) is None


def test_an_energy_without_time_is_refused_by_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_TILE", 100)
    exponent = torch.tensor([20.0], dtype=torch.float64)
    x = unit_rows(random(1, 30, 4))
    left = [45]  # tiles of 3 rows, 10 a pass and 9 questions

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    lowered = descend(x, SeparationEnergy(exponent, stop=stop), steps=50)
    assert bool(torch.isfinite(lowered).all())
    full = SeparationEnergy(exponent)
    assert float(full(lowered)[0]) < float(full(x)[0])
    assert float(SeparationEnergy(exponent, stop=lambda: True)(x)[0]) == math.inf
    assert torch.equal(descend(x, SeparationEnergy(exponent, stop=lambda: True), steps=5, stop=lambda: True), x)


def test_largest_cosines_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(random(2, 50, 6))
    gram = x @ x.mT
    for each in gram:
        each.fill_diagonal_(-2)
    for tile in (1, 1000, 1 << 24):
        monkeypatch.setattr(energy, "_TILE", tile)
        torch.testing.assert_close(largest_cosines(x, every=7), gram[:, ::7].amax((1, 2)), rtol=0, atol=1e-14)


def test_scores_are_samples_where_time_is_short(clock: Clock) -> None:
    clock.tick = 1.0  # the time that a pass takes
    x = unit_rows(random(3000, 16))
    whole, sample = LargestCosine(None), LargestCosine(seconds_of_a_pass(x[None]))
    assert whole(x) == float(largest_cosines(x[None]))
    assert whole.remark(3000) == ""
    score = sample(x)
    assert sample.every == 50
    assert score == float(largest_cosines(x[None], every=sample.every))
    assert sample.remark(3000) == f", judged by 1 in {sample.every} of 3000 points"


def test_huge_problems_keep_their_time(clock: Clock) -> None:
    clock.tick = 0.05
    found = separated(20000, 64, time=1, caps=False)
    assert 1 < clock.now < 3  # a pass over all pairs takes 1.2
    assert found.provenance["start"].startswith("free, judged by 1 in ")
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(20000, dtype=torch.float64), rtol=0, atol=1e-12)
    warm = found.vectors + 1e-3
    again = separated(20000, 64, time=1, rounds=1, seed=2, warm_start=warm)
    assert again.provenance["start"].startswith("warm start, judged by 1 in ")
    assert float((again.vectors - unit_rows(warm)).norm(dim=1).max()) < 0.01


def test_ctrl_c_before_the_first_stage_ends_returns_the_start() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    found = separated(2101, 3, time=60, caps=False, progress=interrupt)
    assert found.provenance["interrupted"] is True
    assert found.provenance["start"] == "free"
