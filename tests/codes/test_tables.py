"""The table of codes: no code beats a bound, looking up is monotone, and families have the cosines they claim."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from tightframe.codes import CODES, best_built, best_listed, certify, codes_for, table
from tightframe.codes.bounds import coherence_bound, cosine_bound
from tightframe.errors import DimensionError, StateError

ROWS = table._up_to(4096)
SIZES = [2, 3, 5, 9, 12, 13, 24, 25, 27, 56, 100, 101, 120, 240, 288, 289, 1000, 4224, 10**4, 10**5, 196560, 10**6]
DIMS = [1, 2, 3, 4, 6, 7, 8, 9, 15, 16, 22, 24, 32, 63, 64, 127, 128, 256, 512, 4096]


def test_no_code_beats_its_bound() -> None:
    assert len(ROWS) > 290
    for code in ROWS:
        assert code.cosine >= cosine_bound(code.K, code.D).value - 1e-12, code
        products = code.inner_products
        if products is not None and products[0] == -1:
            assert code.cosine >= coherence_bound(code.K // 2, code.D).value - 1e-12, code


def test_inner_products_end_in_the_cosine() -> None:
    for code in ROWS:
        if code.inner_products is not None:
            assert list(code.inner_products) == sorted(code.inner_products)
            assert code.inner_products[-1] == pytest.approx(code.cosine, abs=1e-15)
            assert code.inner_products[0] >= -1


def test_optimal_codes_meet_a_bound_or_name_a_proof() -> None:
    for code in ROWS:
        gap = code.cosine - cosine_bound(code.K, code.D).value
        if code.proof == "attains Levenshtein's bound":
            assert gap < 1e-12, code
        if gap < 1e-12 and code not in table.searched():
            assert code.optimal, code
        elif code.proof:
            assert any(year in code.proof for year in ("1951", "1961", "1986", "2009", "2012", "2015", "2024")), code


def test_looking_up_is_monotone() -> None:
    def cosine(K: int, D: int) -> float:
        code = best_listed(K, D)
        return 1.0 if code is None else code.cosine

    for D in DIMS:
        row = [cosine(K, D) for K in SIZES]
        assert row == sorted(row), D
    for K in SIZES:
        column = [cosine(K, D) for D in DIMS if D > 2]
        assert column == sorted(column, reverse=True), K


@pytest.mark.parametrize(
    ("K", "D", "cosine", "own"),
    [
        (5, 7, -1 / 4, True),
        (9, 7, 0, True),
        (7, 2, math.cos(2 * math.pi / 7), True),
        (11, 3, 5**-0.5, True),
        (12, 3, 5**-0.5, True),
        (331, 12, 0.430647382961074, False),  # worse in its own row than 343 vectors are
        (100, 17, 0.1707531755, False),
        (240, 8, 0.5, True),
        (27, 6, 1 / 4, True),
        (4096, 64, 1 / 8, False),
        (10_000, 128, 15 / 127, False),
        (262_144, 512, 31 / 511, False),
        (262_145, 512, 1 / 16, False),
    ],
)
def test_looking_up(K: int, D: int, cosine: float, own: bool) -> None:
    code = best_listed(K, D)
    assert code is not None
    assert code.K >= K and code.D <= D
    assert ((code.K, code.D) == (K, D)) == own
    assert code.cosine == pytest.approx(cosine, abs=1e-12)


def test_nothing_known() -> None:
    assert best_listed(3, 1) is None
    assert best_listed(10**7, 3).name == "latitudes"


def test_impossible_sizes() -> None:
    with pytest.raises(DimensionError, match="num_vectors must be at least 2; got 1"):
        best_listed(1, 3)


def test_found_codes_have_the_cosines_of_their_rows() -> None:
    assert len(table.searched()) > 50
    for row in table.searched():
        certificate = certify(row.vectors(), one_vs_rest=False)
        assert (certificate.num_vectors, certificate.dim) == (row.K, row.D)
        assert certificate.max_cosine == pytest.approx(row.cosine, abs=1e-14)
        assert certificate.min_norm == pytest.approx(1, abs=1e-14) == certificate.max_norm


def test_names_are_unique_and_built_codes_fit() -> None:
    names = [row.name for row in ROWS if row.build is not None and row not in table.searched()]
    assert len(names) == len(set(names))
    assert set(CODES) <= {*names, *(row.name for row in table._up_to(4096))}
    assert [row.name for row in codes_for(200, 8)] == ["e8"]
    with pytest.raises(StateError, match="only the largest cosine of the"):
        next(row for row in ROWS if row.build is None).vectors()


def test_what_is_built_is_monotone_and_no_better_than_what_is_listed() -> None:
    """For all K <= 130 and D <= 24; `best(K, D, rounds=0)` returns the first K of these vectors."""
    cosines = {(K, D): best_built(K, D).cosine for K in range(2, 131) for D in range(1, 25) if D > 1 or K == 2}
    for (K, D), cosine in cosines.items():
        assert cosine <= cosines.get((K, D - 1), 1) + 1e-9 and cosine >= cosines.get((K - 1, D), -1) - 1e-9
        listed = best_listed(K, D)
        assert listed is None or listed.cosine <= cosine + 1e-12


@pytest.mark.parametrize(("K", "D"), [(9, 5), (60, 6), (130, 3), (1000, 3), (70, 30), (5000, 9), (300_000, 20)])
def test_what_is_built_has_its_cosine(K: int, D: int) -> None:
    row = best_built(K, D)
    vectors = row.vectors(min(K, 3000))
    assert row.K >= K and row.D <= D and vectors.shape[1] == row.D
    largest = certify(vectors, one_vs_rest=False).max_cosine
    assert largest <= row.cosine + 1e-9 and (row.K > K or K > 3000 or largest == pytest.approx(row.cosine, abs=1e-9))


def gold_sign_vectors(m: int, modulus: int) -> Tensor:
    """(-1)^(tr(a x + b x^3) + c) over the field of 2^m elements, for every a, b and c, by loops."""

    def times(x: int, y: int) -> int:
        product = 0
        while y:
            product ^= x * (y & 1)
            x, y = x << 1, y >> 1
            x ^= modulus * (x >> m)
        return product

    def trace(x: int) -> int:
        total = 0
        for _ in range(m):
            total, x = total ^ x, times(x, x)
        return total

    field = range(2**m)
    cubes = [times(x, times(x, x)) for x in field]
    words = [
        [trace(times(a, x) ^ times(b, cube)) for x, cube in zip(field, cubes, strict=True)]
        for a, b in itertools.product(field, field)
    ]
    signs = 1 - 2 * torch.tensor(words, dtype=torch.float64)
    return torch.cat([signs, -signs])


@pytest.mark.parametrize(("m", "modulus"), [(3, 0b1011), (5, 0b100101)])
def test_gold_codes_are_what_the_table_says(m: int, modulus: int) -> None:
    D = 2**m
    signs = gold_sign_vectors(m, modulus)
    basis = torch.eye(D, dtype=torch.float64)
    whole = certify(torch.cat([signs, basis, -basis]), one_vs_rest=False)
    punctured = certify(signs[signs[:, 0] > 0][:, 1:], one_vs_rest=False)
    for certificate, name in ((whole, "Gold code"), (punctured, "punctured Gold code")):
        code = next(
            c for c in ROWS if (c.K, c.D, c.title) == (certificate.num_vectors, certificate.dim, name)
        )
        assert certificate.max_cosine == pytest.approx(code.cosine, abs=1e-12)
        assert certificate.coherence == pytest.approx(-code.inner_products[0], abs=1e-12) or name != "Gold code"
    assert punctured.gram_of == "punctured Gold code" or m == 3  # (64, 7) is beaten by the roots of E8
    if m == 5:
        assert whole.gram_of == "Gold code"
        assert whole.gram_residual == pytest.approx(0, abs=1e-12)
        assert punctured.gram_residual == pytest.approx(0, abs=1e-12)
