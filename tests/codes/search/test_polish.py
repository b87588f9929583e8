"""Polishing: to rounding level at rigid codes, never worse, and stationary where it ends."""

import math

import pytest
import torch

from tightframe.codes.search.energy import SeparationEnergy, largest_cosines
from tightframe.codes.search.polish import polish
from tightframe.codes.search.sphere import descend
from tightframe.numerics import unit_rows
from tightframe.prototypes import code, orthoplex


def shaken(vectors: torch.Tensor, size: float) -> torch.Tensor:
    noise = torch.randn(vectors.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return unit_rows(vectors + size * noise)


def highest(points: torch.Tensor) -> float:
    return float(largest_cosines(points[None]))


@pytest.mark.parametrize("name", ["icosahedron", "petersen", "24-cell", "hemicube", "schlafli", "gosset"])
@pytest.mark.parametrize("size", [1e-6, 1e-3])
def test_shaken_codes_return(name: str, size: float) -> None:
    exact = code(name)
    assert highest(shaken(exact.vectors, size)) > exact.certificate.max_cosine + size / 10
    assert highest(polish(shaken(exact.vectors, size))) == pytest.approx(exact.certificate.max_cosine, abs=1e-12)


def test_points_with_freedom_left() -> None:
    """In the orthoplex range optimal codes move freely; the multipliers are degenerate too."""
    start = shaken(orthoplex(7, 5).vectors, 1e-3)
    assert highest(polish(start)) == pytest.approx(0, abs=1e-12)


def test_never_worse_and_on_the_sphere() -> None:
    for seed in range(5):
        start = unit_rows(torch.randn(15, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
        found = polish(start, steps=5)
        assert highest(found) <= highest(start)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(15, dtype=torch.float64), rtol=0, atol=1e-14)


def test_ends_at_a_local_minimum() -> None:
    """No small random move lowers the largest cosine of a polished code, in first order."""
    points = unit_rows(torch.randn(1, 14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
    for p in (10.0, 100.0, 1000.0, 1e4, 1e5):
        points = descend(points, SeparationEnergy(torch.tensor([p], dtype=torch.float64)), steps=300)
    found = polish(points[0])
    best = highest(found)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-2, 1e-4, 1e-6):
        for _ in range(300):
            moved = unit_rows(found + size * torch.randn(14, 3, dtype=torch.float64, generator=generator))
            assert highest(moved) > best - 1e-12


def test_it_stops_when_told() -> None:
    start = shaken(code("icosahedron").vectors, 1e-3)
    assert torch.equal(polish(start, stop=lambda: True), start)
    assert math.isclose(highest(start), highest(polish(start, steps=0)))
