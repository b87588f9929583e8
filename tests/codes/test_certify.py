"""Certificates: every field against a slow oracle, verdicts on exact, perturbed and beaten codes, what is skipped."""

import itertools
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tightframe.codes import best_listed, certification_seconds, certify, one_vs_rest, smallest_one_vs_rest
from tightframe.codes.bounds import coherence_bound, cosine_bound
from tightframe.errors import NonFiniteError, ShapeError, ZeroVectorError
from tightframe.prototypes import code


def rows(points: object) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(np.array(points), dtype=torch.float64), dim=1)


def signed(*shape: float) -> list[tuple[float, ...]]:
    """All sign changes of all distinct permutations of a vector."""
    points = {
        tuple(s * x for s, x in zip(signs, order, strict=True))
        for order in set(itertools.permutations(shape))
        for signs in itertools.product((1, -1), repeat=len(shape))
    }
    return sorted(points)


def simplex(K: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64) - 1 / K


def orthoplex(D: int) -> Tensor:
    return rows(signed(1, *[0] * (D - 1)))


def polygon(K: int) -> Tensor:
    return rows([(math.cos(2 * math.pi * j / K), math.sin(2 * math.pi * j / K)) for j in range(K)])


def icosahedron() -> Tensor:
    golden = (1 + math.sqrt(5)) / 2
    return rows([np.roll((0, a, b * golden), shift) for a in (1, -1) for b in (1, -1) for shift in range(3)])


def cell_24() -> Tensor:
    return rows(signed(1, 1, 0, 0))


def cell_600() -> Tensor:
    golden = (1 + math.sqrt(5)) / 2
    even = [p for p in itertools.permutations(range(4)) if np.linalg.det(np.eye(4)[list(p)]) > 0]
    signs = itertools.product((1, -1), repeat=3)
    shape = [(a * golden / 2, b / 2, c / (2 * golden), 0.0) for a, b, c in signs]
    third = [tuple(point[i] for i in p) for p in even for point in shape]
    return rows(signed(1, 0, 0, 0) + list(itertools.product((0.5, -0.5), repeat=4)) + third)


def hemicube() -> Tensor:
    return rows([p for p in itertools.product((1, -1), repeat=5) if math.prod(p) > 0])


def e8() -> Tensor:
    pairs = [
        np.eye(8)[i] * a + np.eye(8)[j] * b for i, j in itertools.combinations(range(8), 2) for a, b in signed(1, 1)
    ]
    return rows([*pairs] + [p for p in itertools.product((0.5, -0.5), repeat=8) if math.prod(p) > 0])


def petersen() -> Tensor:
    """Midpoints of the edges of a simplex in R^4."""
    centred = simplex(5)
    points = torch.stack([centred[i] + centred[j] for i, j in itertools.combinations(range(5), 2)])
    return points @ torch.linalg.svd(centred).Vh[:4].T


EXACT: dict[str, tuple[Callable[[], Tensor], float, str]] = {
    "simplex": (lambda: simplex(9), -1 / 8, "simplex ETF"),
    "orthoplex": (lambda: orthoplex(6), 0, "orthoplex"),
    "polygon": (lambda: polygon(7), math.cos(2 * math.pi / 7), "regular polygon"),
    "icosahedron": (icosahedron, 5**-0.5, "icosahedron"),
    "icosahedron without a vertex": (lambda: icosahedron()[1:], 5**-0.5, "icosahedron without a vertex"),
    "24-cell": (cell_24, 0.5, "24-cell"),
    "600-cell": (cell_600, math.cos(math.pi / 5), "600-cell"),
    "hemicube": (hemicube, 0.2, "hemicube"),
    "E8": (e8, 0.5, "E8 roots"),
    "Petersen": (petersen, 1 / 6, "Petersen code"),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_codes_are_certified(name: str) -> None:
    make, cosine, gram_of = EXACT[name]
    vectors = make()
    certificate = certify(3 * vectors)
    K, D = vectors.shape
    assert (certificate.num_vectors, certificate.dim) == (K, D)
    assert certificate.max_cosine == pytest.approx(cosine, abs=1e-14)
    assert certificate.optimal is True, certificate.reason
    assert certificate.gram_of == gram_of
    assert certificate.gram_residual == pytest.approx(0, abs=1e-14)
    assert certificate.best_listed == best_listed(K, D)
    assert certificate.skipped == ()


@pytest.mark.parametrize("name", EXACT)
def test_perturbed_codes_are_not(name: str) -> None:
    vectors = EXACT[name][0]()
    nearest = (vectors @ vectors[0]).masked_fill(torch.arange(len(vectors)) == 0, -2).argmax()
    if name == "orthoplex":  # all but the antipode are equally near
        nearest = (vectors @ vectors[0]).abs().argmin()

    def turned(angle: float) -> Tensor:
        """The first vector turned towards a nearest one."""
        changed = torch.nn.functional.normalize(vectors, dim=1)
        first, towards = changed[0].clone(), changed[nearest]
        side = torch.nn.functional.normalize(towards - (towards @ first) * first, dim=0)
        changed[0] = math.cos(angle) * first + math.sin(angle) * side
        return changed

    certificate = certify(turned(1e-6))
    assert certificate.optimal is None
    excess = certificate.max_cosine - EXACT[name][1] if certificate.gram_residual is None else certificate.gram_residual
    within = float(certificate.word.removeprefix("OPTIMAL TO "))
    assert excess <= within < 2.01 * excess
    assert EXACT[name][2] in certificate.reason
    assert certify(turned(0.1)).optimal is False and certify(turned(0.1)).word == "NOT OPTIMAL"
    assert certificate.max_cosine > EXACT[name][1] + 1e-7
    assert certificate.gram_residual is None or 1e-7 < certificate.gram_residual < 3e-6
    assert certify(turned(1e-10)).optimal is True


@pytest.mark.parametrize(("K", "D"), [(2, 1), (2, 3), (5, 3), (11, 4), (12, 6), (30, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_field_against_loops(K: int, D: int, dtype: torch.dtype) -> None:
    vectors = torch.randn(K, D, dtype=dtype, generator=torch.Generator().manual_seed(K * D))
    lengths = [math.sqrt(math.fsum(x * x for x in row)) for row in vectors.double().tolist()]
    unit = [[x / length for x in row] for row, length in zip(vectors.double().tolist(), lengths, strict=True)]
    cosines = [
        [math.fsum(x * y for x, y in zip(a, b, strict=True)) for j, b in enumerate(unit) if i != j]
        for i, a in enumerate(unit)
    ]
    largest = max(map(max, cosines))
    found = certify(vectors)
    assert (found.num_vectors, found.dim) == (K, D)
    assert found.min_norm == pytest.approx(min(lengths), rel=1e-14)
    assert found.max_norm == pytest.approx(max(lengths), rel=1e-14)
    assert found.max_cosine == pytest.approx(largest, abs=1e-14)
    assert found.min_angle == pytest.approx(math.degrees(math.acos(max(-1, min(1, largest)))), abs=1e-6)
    assert found.mean_max_cosine == pytest.approx(math.fsum(map(max, cosines)) / K, abs=1e-14)
    assert found.coherence == pytest.approx(max(abs(x) for row in cosines for x in row), abs=1e-14)
    assert found.one_vs_rest == pytest.approx(float(smallest_one_vs_rest(torch.tensor(unit, dtype=torch.float64))))
    assert found.bound == cosine_bound(K, D)
    assert found.line_bound == coherence_bound(K, D)
    assert found.gap_cosine == pytest.approx(largest - found.bound.value, abs=1e-14)
    assert found.gap_degrees == pytest.approx(math.degrees(math.acos(found.bound.value)) - found.min_angle, abs=1e-9)
    assert all(isinstance(value, float) for value in (found.min_norm, found.min_angle, found.coherence))


def test_a_simplex_residual() -> None:
    vectors = simplex(4)
    vectors[0, 0] += 0.01
    unit = torch.nn.functional.normalize(vectors, dim=1)
    off = (unit @ unit.T)[~torch.eye(4, dtype=torch.bool)]
    certificate = certify(vectors)
    assert certificate.gram_of == "simplex ETF"
    assert certificate.gram_residual == pytest.approx((off + 1 / 3).abs().max().item(), abs=1e-14)


def test_the_same_cosine_with_another_gram() -> None:
    """Five vectors in space reach cosine 0 in many ways; {0, -1} are the orthoplex's products."""
    tilted = rows([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-0.6, 0, -0.8], [0, -1, 0]])
    certificate = certify(tilted)
    assert certificate.optimal is True
    assert certificate.gram_of == "orthoplex"
    assert certificate.gram_residual == pytest.approx(0.4, abs=1e-15)


def test_many_vectors_are_compared_with_circles_of_latitude() -> None:
    many = torch.randn(1100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    certificate = certify(many, one_vs_rest=False)
    assert certificate.optimal is False
    assert certificate.reason.startswith("A better code is listed: the points on circles of latitude, 1,1")


def test_better_than_the_tables_is_unknown() -> None:
    vectors = code("gold-128", 6256).vectors[256:, :120]  # sign vectors, without eight of their coordinates
    certificate = certify(vectors, one_vs_rest=False)
    assert certificate.best_listed is not None
    assert certificate.max_cosine < 0.21 < certificate.best_listed.cosine == 15 / 63
    assert certificate.optimal is None
    assert certificate.word == "BETTER THAN THE TABLE"
    assert certificate.reason == (
        "The largest cosine is smaller than that of the punctured BCH code [64, 16, 24], 32,768 vectors in 63 "
        "dimensions, the best in the built-in table. The table has no row for D = 120, so better codes may be known."
    )


def test_equal_to_an_unproven_code_is_unknown() -> None:
    """E8's 240 roots in nine dimensions: optimality of the sub-code isn't what is proven."""
    vectors = torch.nn.functional.pad(e8(), (0, 1))
    certificate = certify(vectors, one_vs_rest=False)
    assert certificate.optimal is None
    assert certificate.word == "BEST IN THE TABLE"
    assert certificate.reason == (
        "The largest cosine equals that of the E8 roots, 240 vectors in 8 dimensions, the best in the built-in table. "
        "The table has no row for 240 vectors in 9 dimensions, so better codes may be known."
    )
    assert certificate.gram_of is None


def test_a_tie_with_a_proven_code_of_fewer_vectors_is_no_proof() -> None:
    certificate = certify(cell_24()[:-1], one_vs_rest=False)
    assert certificate.max_cosine == pytest.approx(0.5)
    assert certificate.optimal is None


def test_nearly_parallel_optima_are_held_to_their_angle() -> None:
    vectors = polygon(10_000)
    assert certify(vectors, one_vs_rest=False).optimal is True
    turn = 6e-7  # a thousandth of the angle, 4e-10 in cosine
    c, s = math.cos(turn), math.sin(turn)
    vectors[0] = vectors[0] @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    certificate = certify(vectors, one_vs_rest=False)
    assert certificate.gap_cosine < 1e-9
    assert certificate.optimal is False


def test_one_vs_rest_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = certify(vectors)
    assert whole.one_vs_rest == pytest.approx(
        float(smallest_one_vs_rest(torch.nn.functional.normalize(vectors, dim=1)))
    )
    assert whole.skipped == ()
    omitted = certify(vectors, one_vs_rest=False)
    assert omitted.one_vs_rest is None
    assert omitted.skipped == ("The one-vs-rest distance was skipped on request.",)
    monkeypatch.setattr(one_vs_rest, "LIMIT_SECONDS", 0.02)
    limit = one_vs_rest.one_vs_rest_limit(6)
    assert limit < 40
    limited = certify(vectors)
    assert limited.one_vs_rest is None
    assert f"skipped for K > {limit} in 6 dimensions" in limited.skipped[0]
    assert certify(vectors, one_vs_rest=True).one_vs_rest == whole.one_vs_rest


def test_the_gram_residual_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["tightframe.codes.certify"], "_GRAM_ENTRIES", 1000)
    certificate = certify(e8(), one_vs_rest=False)
    assert certificate.gram_residual is None and certificate.gram_of is None
    assert "E8 roots" in certificate.skipped[1]
    assert certificate.optimal is True


@pytest.mark.parametrize("make", [e8, lambda: simplex(12), lambda: torch.randn(50, 4)])
def test_progress_rises_to_one(make: Callable[[], Tensor]) -> None:
    seen: list[float] = []
    certify(make(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] >= 0 and seen[-1] == 1


def test_estimates_grow() -> None:
    assert certification_seconds(10**5, 128) > 50 * certification_seconds(10**4, 128, one_vs_rest=False)
    assert certification_seconds(100, 16, one_vs_rest=True) > certification_seconds(100, 16, one_vs_rest=False)
    assert certification_seconds(100, 16) == certification_seconds(100, 16, one_vs_rest=True)
    assert certification_seconds(10**5, 16) == certification_seconds(10**5, 16, one_vs_rest=False)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (torch.ones(1, 3), ShapeError, r"\(1, 3\)"),
        (torch.tensor([[1.0, 0], [0, 0], [0, 0]]), ZeroVectorError, r"row 1 is zero \(2 of 3 rows\)"),
        (torch.tensor([[1.0, 0], [0, math.inf]]), NonFiniteError, "row 1 holds inf"),
    ],
)
def test_bad_vectors(vectors: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        certify(vectors)
