"""Largest distances of K unit vectors: values of the formula sheet, and codes that attain them."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from tightframe import theory
from tightframe.codes import smallest_one_vs_rest
from tightframe.errors import DimensionError


def circle(points: int) -> torch.Tensor:
    angles = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    return torch.stack([angles.cos(), angles.sin()], 1)


def simplex(classes: int) -> torch.Tensor:
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    values, vectors = torch.linalg.eigh(centred)
    return torch.nn.functional.normalize(vectors[:, 1:] * values[1:].sqrt(), dim=1)  # in K - 1 dimensions


def orthoplex(dim: int) -> torch.Tensor:
    return torch.cat([torch.eye(dim), -torch.eye(dim)]).double()


def icosahedron() -> torch.Tensor:
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    rows = [np.roll(corner, shift) for corner in corners for shift in range(3)]
    return torch.nn.functional.normalize(torch.tensor(np.array(rows), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("vectors", [simplex(3), simplex(6), orthoplex(3), orthoplex(5), *map(circle, (3, 4, 8))])
def test_known_codes_attain_the_one_vs_rest_optimum(vectors: torch.Tensor) -> None:
    optimum = theory.softmax_code_optimum(*vectors.shape)
    assert optimum.exact
    assert float(smallest_one_vs_rest(vectors)) == pytest.approx(optimum.upper, abs=1e-8)


def test_the_icosahedron_is_the_best_known_beyond_the_orthoplex() -> None:
    optimum = theory.softmax_code_optimum(12, 3)
    assert optimum.lower == pytest.approx(1 - 1 / math.sqrt(5), abs=1e-8)
    assert float(smallest_one_vs_rest(icosahedron())) == pytest.approx(optimum.lower, abs=1e-8)
    assert optimum.upper == 1
    assert not optimum.exact


@pytest.mark.parametrize(
    ("K", "D", "value"),
    [
        *[(2, 1, 2), (2, 5, 2), (10, 9, 10 / 9), (10, 512, 10 / 9), (11, 9, 1), (18, 9, 1)],
        *[(3, 2, 1.5), (4, 2, 1), (8, 2, 0.292893), (3, 1, 0)],
    ],
)
def test_exact_one_vs_rest_values(K: int, D: int, value: float) -> None:
    optimum = theory.softmax_code_optimum(K, D)
    assert optimum.exact
    assert optimum.upper == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize(("K", "D"), [(4, 2), (7, 2), (5, 3), (6, 3), (9, 3), (30, 4), (3, 2)])
def test_no_random_code_exceeds_the_bound(K: int, D: int) -> None:
    upper = theory.softmax_code_optimum(K, D).upper
    apart = theory.tammes_optimum(K, D).upper
    for seed in range(20):
        vectors = torch.randn(K, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        assert float(smallest_one_vs_rest(vectors)) <= upper
        assert min(float((vectors[i] - vectors[j]).norm()) for i, j in itertools.combinations(range(K), 2)) <= apart


def test_the_circle_s_optimum_by_ascent() -> None:
    """From random starts, gradient ascent on five points of the circle reaches 1 - cos 72° and nothing more."""
    best = 0.0
    for seed in range(3):
        angles = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 * math.pi
        angles.requires_grad_()
        for step in range(300):
            value = smallest_one_vs_rest(torch.stack([angles.cos(), angles.sin()], 1))
            (gradient,) = torch.autograd.grad(value, angles)
            with torch.no_grad():
                angles += 0.3 * 0.98**step * gradient / gradient.norm()
            best = max(best, float(value.detach()))
    optimum = theory.softmax_code_optimum(5, 2).upper
    assert optimum - 0.01 < best <= optimum + 1e-12


def test_a_wide_code_is_bounded_by_its_nearest_pair() -> None:
    optimum = theory.softmax_code_optimum(240, 8)
    assert optimum.upper == 1  # E8's roots are 60° apart
    assert optimum.lower == pytest.approx(0.5, abs=1e-12)
    optimum = theory.softmax_code_optimum(10_000, 8)
    assert optimum.upper < 0.8
    assert optimum.upper == theory.tammes_optimum(10_000, 8).upper


@pytest.mark.parametrize(
    ("K", "D", "degrees", "digits"),
    [
        *[(4, 3, 109.4712, 5e-5), (5, 3, 90, 1e-9), (6, 3, 90, 1e-9), (7, 3, 77.8695, 5e-5), (8, 3, 74.8585, 5e-5)],
        *[(9, 3, 70.5288, 5e-5), (10, 3, 66.1468, 5e-5), (12, 3, 63.4349, 5e-5), (24, 4, 60, 1e-9), (240, 8, 60, 1e-9)],
    ],
)
def test_tammes_angles(K: int, D: int, degrees: float, digits: float) -> None:
    optimum = theory.tammes_optimum(K, D)
    assert optimum.exact
    assert math.degrees(2 * math.asin(optimum.upper / 2)) == pytest.approx(degrees, abs=digits)


def test_tammes_where_only_bounds_are_known() -> None:
    optimum = theory.tammes_optimum(100, 16)
    assert optimum.upper == pytest.approx(math.sqrt(2 - 2 * 0.153298), abs=1e-6)
    assert not optimum.exact
    assert optimum.lower is not None and optimum.lower < optimum.upper
    many = theory.tammes_optimum(10**6, 3)
    assert many.lower is not None and 0.8 * many.upper < many.lower < many.upper  # points on circles of latitude
    assert 0 < theory.softmax_code_optimum(10**6, 3).upper == many.upper
    assert theory.tammes_optimum(3, 1) == theory.CodeOptimum(0.0, 0.0, "elementary: R^1 has two unit vectors")


@pytest.mark.parametrize("solve", [theory.tammes_optimum, theory.softmax_code_optimum])
@pytest.mark.parametrize(
    ("K", "D", "message"),
    [(1, 3, "num_classes must be at least 2; got 1"), (3, 0, "dim must be at least 1; got 0")],
)
def test_bad_sizes(solve, K: int, D: int, message: str) -> None:
    with pytest.raises(DimensionError, match=message):
        solve(K, D)


@pytest.mark.parametrize(
    ("K", "D", "source"),
    [
        (3, 1, "elementary: R^1 has two unit vectors"),
        (10, 9, "Rankin 1955, "),  # a bound that the code attains
        (7, 2, "elementary: K arcs"),
        (240, 8, "Levenshtein 1979"),
        (24, 4, "de Laat, Leijenhorst & de Muinck Keizer 2024"),  # the proof of the code's optimality
        (120, 4, "Coxeter 1963; Böröczky 1978"),
        (7, 3, "Schütte & van der Waerden 1951"),
        (126, 7, "Conway & Sloane 1999"),  # a code without proof
        (10**6, 3, "tightframe, points on circles of latitude"),
    ],
)
def test_the_source_is_a_paper_or_says_whose_argument_it_is(K: int, D: int, source: str) -> None:
    assert theory.tammes_optimum(K, D).source.startswith(source)


def test_no_optimum_names_a_property_of_the_code_as_its_source() -> None:
    named = re.compile(r"\b(1[89]|20)\d\d\b|^(tightframe, |elementary: |Cohn, table of spherical codes$)")
    for K in range(2, 130):
        for D in (1, 2, 3, 4, 8):
            for solve in (theory.tammes_optimum, theory.softmax_code_optimum):
                assert named.search(solve(K, D).source), (K, D)
