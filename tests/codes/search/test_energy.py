"""The smoothed largest cosine against loops and automatic derivatives, under every kind of symmetry."""

import math

import pytest
import torch

from tightframe.codes.search import energy as module
from tightframe.codes.search.energy import SeparationEnergy, largest_cosines
from tightframe.codes.search.orbits import Antipodal, Free, Orbits
from tightframe.codes.search.sphere import tangent
from tightframe.codes.search.starts import Symmetric
from tightframe.numerics import unit_rows


def points(*shape: int) -> torch.Tensor:
    return unit_rows(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def symmetric_start() -> tuple[torch.Tensor, Orbits]:
    drawn = Symmetric(20, 5, torch.Generator().manual_seed(3)).draw()
    assert drawn is not None
    return drawn[0].representatives, drawn[0].orbits


def by_loops(representatives: torch.Tensor, orbits: Orbits, p: float) -> torch.Tensor:
    """(1/p) log of the sum over pairs of all points, each pair of an orbit's representative weighed by its size."""
    everything = orbits.expand(representatives)
    values = []
    for one, all_points in zip(representatives, everything, strict=True):
        own = orbits.own.tolist() if orbits.own is not None else range(len(one))
        sizes = orbits.sizes.tolist() if orbits.sizes is not None else [1] * len(one)
        terms = [
            math.log(sizes[i]) + p * (one[i] @ all_points[j])
            for i in range(len(one))
            for j in range(len(all_points))
            if j != own[i]
        ]
        values.append(torch.logsumexp(torch.stack([torch.as_tensor(term) for term in terms]), 0) / p)
    return torch.stack(values)


CASES = {
    "free": lambda: (points(2, 9, 4), Free()),
    "antipodal": lambda: (points(2, 6, 4), Antipodal()),
    "group": symmetric_start,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("p", [2.0, 50.0])
@pytest.mark.parametrize("tile", [1, 1 << 24])
def test_values_and_gradients(case: str, p: float, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", tile)
    representatives, orbits = CASES[case]()
    value, gradient = SeparationEnergy(torch.full((len(representatives),), p, dtype=torch.float64), orbits)(
        representatives
    )
    torch.testing.assert_close(value, by_loops(representatives, orbits, p), rtol=0, atol=1e-12)
    tracked = representatives.clone().requires_grad_()
    (expected,) = torch.autograd.grad(by_loops(tracked, orbits, p).sum(), tracked)
    ours = tangent(gradient, representatives)
    theirs = tangent(orbits.project(expected), representatives)
    # representatives stand for their orbit: gradients agree up to the orbits' common size, if sizes are equal
    factor = (ours * theirs).sum() / (theirs * theirs).sum()
    torch.testing.assert_close(ours, factor * theirs, rtol=0, atol=1e-10)
    assert factor > 0


@pytest.mark.parametrize("case", CASES)
def test_largest_cosines(case: str) -> None:
    representatives, orbits = CASES[case]()
    for one, all_points in zip(largest_cosines(representatives, orbits), orbits.expand(representatives), strict=True):
        gram = (all_points @ all_points.T).fill_diagonal_(-2)
        assert float(one) == pytest.approx(float(gram.max()), abs=1e-14)


def test_the_value_bounds_the_largest_cosine() -> None:
    x = points(3, 12, 5)
    for p in (1.0, 30.0, 1e5):
        value, _ = SeparationEnergy(torch.full((3,), p, dtype=torch.float64))(x)
        above = value - largest_cosines(x)
        assert bool((above >= 0).all()) and bool((above <= math.log(12 * 11) / p).all())
