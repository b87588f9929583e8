"""Minima to hop from: the best different ones remain, and their changes are sets of unit vectors nearby."""

import pytest
import torch

from tightframe.codes.search.hops import Minima
from tightframe.numerics import unit_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(*shape: int, seed: int = 0) -> torch.Tensor:
    return unit_rows(torch.randn(*shape, dtype=torch.float64, generator=generator(seed)))


def test_the_best_different_minima_remain() -> None:
    minima = Minima(generator(), 1e-6)
    assert minima.draw(2) is None and minima.unfinished(1.0) is None
    sets = points(10, 6, 3)
    energies = torch.arange(10, dtype=torch.float64).flip(0)
    minima.admit(sets, energies, [f"start {index}" for index in range(10)])
    assert minima.names == [f"start {index}" for index in range(9, 1, -1)]
    torch.testing.assert_close(minima.points, sets.flip(0)[:8])
    minima.finished[0] = True
    minima.admit(sets[:1], energies[9:] + 1e-9, ["the same"])  # as the lowest
    minima.admit(sets[:1], energies[9:] + 0.5, ["another"])
    assert minima.names[:3] == ["start 9", "another", "start 8"]
    assert minima.finished == [True] + [False] * 7


def test_minima_to_finish_are_near_the_lowest() -> None:
    minima = Minima(generator(), 1e-6)
    minima.admit(points(2, 5, 3), torch.tensor([0.3, 0.1]), ["high", "low"])
    assert minima.unfinished(0.1) == 0
    minima.finished[0] = True
    assert minima.unfinished(0.1) is None
    assert minima.unfinished(0.3) == 1


@pytest.mark.parametrize(("K", "D"), [(5, 3), (40, 3), (30, 9)])
def test_changes_are_unit_vectors_that_differ(K: int, D: int) -> None:
    minima = Minima(generator(), 1e-6)
    minima.admit(points(1, K, D), torch.zeros(1), ["free"])
    drawn = minima.draw(60)
    assert drawn is not None
    changed, names = drawn
    assert names == ["free"] * 60
    torch.testing.assert_close(changed.norm(dim=2), torch.ones(60, K, dtype=torch.float64), rtol=0, atol=1e-14)
    differences = (changed - minima.points[0]).norm(dim=2)
    assert float((differences.amax(1) > 1e-3).double().mean()) > 0.9
    assert bool(((differences > 1e-12).sum(1) <= 3).any())  # a few points moved into holes
    again = Minima(generator(), 1e-6)
    again.admit(points(1, K, D), torch.zeros(1), ["free"])
    drawn = again.draw(60)
    assert drawn is not None and torch.equal(drawn[0], changed)


def test_a_point_moves_into_the_only_hole() -> None:
    """Points cover half of a sphere; wherever a point is taken from, it goes to the other half."""
    half = points(60, 3)
    half[:, 2] = half[:, 2].abs()
    minima = Minima(generator(), 1e-6)
    moved = minima._moved(half.expand(10, 60, 3).clone())
    gone = (moved - half).norm(dim=2) > 0
    assert bool((gone.sum(1) >= 1).all()) and bool((moved[gone][:, 2] < 0).any())
    assert all(float(one[flags][:, 2].min()) < -0.5 for one, flags in zip(moved, gone, strict=True))
