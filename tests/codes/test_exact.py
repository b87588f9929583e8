"""Every exact code: its inner products, its rank, its graph, its parts."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tightframe.codes import CODES, Code, codes_for
from tightframe.errors import ChoiceError, DimensionError, StateError
from tightframe.prototypes import code

GOLDEN = (1 + math.sqrt(5)) / 4
KISSING = (-1, -1 / 2, -1 / 4, 0, 1 / 4, 1 / 2)
FIFTHS = (-1, -3 / 5, -(5**-0.5), -2 / 5, -1 / 5, 0, 1 / 5, 2 / 5, 5**-0.5, 3 / 5)


def kerdock_products(dim: int) -> tuple[float, ...]:
    return (-1, -(dim**-0.5), 0, dim**-0.5)


def punctured(dim: int, cosine: float) -> tuple[float, ...]:
    """Sign vectors of dim + 1 coordinates have inner products 0 and ± cosine; a common coordinate leaves them."""
    return tuple(((dim + 1) * product - 1) / dim for product in (-cosine, 0, cosine))


LARGE_QUADRANGLES = (7,)

# all inner products of distinct vectors, the largest one last
PRODUCTS: dict[str, tuple[float, ...]] = {
    "icosahedron": (-1, -(5**-0.5), 5**-0.5),
    "icosahedron-11": (-1, -(5**-0.5), 5**-0.5),
    "24-cell": (-1, -1 / 2, 0, 1 / 2),
    "600-cell": (-1, -GOLDEN, -1 / 2, 1 / 2 - GOLDEN, 0, GOLDEN - 1 / 2, 1 / 2, GOLDEN),
    "e8": (-1, -1 / 2, 0, 1 / 2),
    "gosset": (-1, -1 / 3, 1 / 3),
    "schlafli": (-1 / 2, 1 / 4),
    "hemicube": (-3 / 5, 1 / 5),
    "petersen": (-2 / 3, 1 / 6),
    "e7": (-1, -1 / 2, 0, 1 / 2),
    "e6": (-1, -1 / 2, 0, 1 / 2),
    "leech": (-1, *KISSING[1:]),
    "leech-4600": (-1, -1 / 3, 0, 1 / 3),
    "leech-891": (-1 / 2, -1 / 8, 1 / 4),
    "leech-93150": KISSING,
    "leech-49896": KISSING,
    "leech-27720": KISSING,
    "leech-17400": KISSING,
    "barnes-wall": KISSING,
    "d5": (-1, -1 / 2, 0, 1 / 2),
    **{f"quadruples-{dim}": KISSING for dim in (9, 10, 11, 12)},
    **{f"quintuples-{dim}": FIFTHS for dim in (9, 10, 11)},
    "kissing-1154": (
        *(-1, -1 / 2, -(2 + math.sqrt(3)) / 8, -math.sqrt(3) / 4, -1 / 4, -(2 - math.sqrt(3)) / 8),
        *(0, (2 - math.sqrt(3)) / 8, 1 / 4, math.sqrt(3) / 4, (2 + math.sqrt(3)) / 8, 1 / 2),
    ),
    "kissing-1932": KISSING,
    **{f"leech-{K}": (-1, -1 / 3, 0, 1 / 3) for K in (576, 704, 896, 1280)},
    "barnes-wall-512": (-1, -1 / 3, 0, 1 / 3),
    **{f"leech-{K}": (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7) for K in (2048, 3328, 5120, 7680)},
    "leech-1024": (-11 / 13, -7 / 13, -3 / 13, 1 / 13, 5 / 13),
    "leech-1632": (-4 / 5, -1 / 2, -1 / 5, 1 / 10, 2 / 5),
    "leech-2432": (-7 / 9, -13 / 27, -5 / 27, 1 / 9, 11 / 27),
    "leech-10752": (-19 / 29, -11 / 29, -3 / 29, 5 / 29, 13 / 29),
    "leech-20736": (-7 / 11, -4 / 11, -1 / 11, 2 / 11, 5 / 11),
    "leech-47104": (-3 / 5, -1 / 3, -1 / 15, 1 / 5, 7 / 15),
    "leech-552": (-1, -1 / 5, 1 / 5),
    "mclaughlin": (-1 / 4, 1 / 6),
    "mclaughlin-162": (-2 / 7, 1 / 7),
    "higman-sims": (-4 / 11, 1 / 11),
    "m22": (-3 / 8, 1 / 12),
    "gewirtz": (-2 / 5, 1 / 15),
    "hoffman-singleton": (-3 / 7, 1 / 21),
    **{f"quadric-{q}": (-1 / q, 1 / q**2) for q in (3, 4, 5, *LARGE_QUADRANGLES)},
    **{f"kerdock-{dim}": kerdock_products(dim) for dim in (16, 64, 256, 1024)},
    **{f"kerdock-{dim - 1}": punctured(dim - 1, dim**-0.5) for dim in (16, 64, 256, 1024)},
    **{
        f"gold-{dim}": (-1, -math.sqrt(2 / dim), -(dim**-0.5), 0, dim**-0.5, math.sqrt(2 / dim))
        for dim in (8, 32, 128, 512, 2048)
    },
    **{f"gold-{dim - 1}": punctured(dim - 1, math.sqrt(2 / dim)) for dim in (8, 32, 128, 512, 2048)},
}

SIZES = {  # sections of the literature: (K, D, 1/cosine)
    "gosset": (56, 7, 3), "schlafli": (27, 6, 4), "hemicube": (16, 5, 5), "petersen": (10, 4, 6),
    "24-cell": (24, 4, 2), "e8": (240, 8, 2), "leech": (196_560, 24, 2), "leech-4600": (4600, 23, 3),
    "leech-891": (891, 22, 4), "leech-552": (552, 23, 5), "mclaughlin": (275, 22, 6), "mclaughlin-162": (162, 21, 7),
    "quadric-3": (112, 21, 9), "higman-sims": (100, 22, 11), "m22": (77, 21, 12), "gewirtz": (56, 20, 15),
    "hoffman-singleton": (50, 21, 21), "quadric-4": (325, 52, 16), "quadric-5": (756, 105, 25),
    "quadric-7": (2752, 301, 49),
    "kerdock-16": (288, 16, 4), "kerdock-64": (4224, 64, 8), "kerdock-256": (66_048, 256, 16),
    "kerdock-1024": (1_050_624, 1024, 32), "kerdock-15": (128, 15, 5), "kerdock-63": (2048, 63, 9),
    "gold-31": (1024, 31, 31 / 7), "gold-127": (16_384, 127, 127 / 15), "gold-128": (33_024, 128, 8),
    "gold-512": (525_312, 512, 16),
    "d5": (40, 5, 2), "quadruples-9": (306, 9, 2), "quadruples-10": (500, 10, 2), "quadruples-11": (582, 11, 2),
    "quadruples-12": (840, 12, 2), "barnes-wall": (4320, 16, 2),
    "kissing-593": (593, 11, 2), "kissing-1154": (1154, 13, 2), "kissing-1932": (1932, 14, 2),
}  # fmt: skip

GRAPHS = {  # strongly regular: v, k, lambda, mu; neighbours have the smaller inner product
    "petersen": (10, 3, 0, 1), "hemicube": (16, 5, 0, 2), "schlafli": (27, 10, 1, 5),
    "hoffman-singleton": (50, 7, 0, 1), "gewirtz": (56, 10, 0, 2), "m22": (77, 16, 0, 4),
    "higman-sims": (100, 22, 0, 6), "mclaughlin-162": (162, 56, 10, 24), "mclaughlin": (275, 112, 30, 56),
    "quadric-3": (112, 30, 2, 10), "quadric-4": (325, 68, 3, 17), "quadric-5": (756, 130, 4, 26),
}  # fmt: skip

SLOW = [f"quadric-{q}" for q in LARGE_QUADRANGLES]
OWN_TESTS = [name for name in CODES if name.startswith(("bch-", "halves-")) or name == "kissing-593"]
SMALL = [name for name, code in CODES.items() if code.K <= 2500 and name not in (*SLOW, *OWN_TESTS)]
LARGE = [name for name in CODES if name not in OWN_TESTS and name not in SMALL and name not in SLOW]
MIDDLE = [name for name in LARGE if CODES[name].K <= 5000]


def certify_rows(entry: Code, vectors: Tensor, rows: Tensor) -> set[float]:
    """The chosen rows have unit length and the code's inner products, to 1e-12, with all others; returns those met."""
    allowed = torch.tensor(PRODUCTS[entry.name], dtype=torch.float64)
    gram = vectors[rows] @ vectors.T
    itself = (torch.arange(len(rows)), rows)
    assert_close(gram[itself], torch.ones(len(rows), dtype=torch.float64), rtol=0, atol=1e-12)
    gram[itself] = allowed[-1]
    met = set()
    left = torch.full_like(gram, math.inf)
    for product in allowed:
        error = (gram - product).abs()
        if (error < 1e-12).any():
            met.add(float(product))
        torch.minimum(left, error, out=left)
    assert left.max() < 1e-12
    return met


def spread(K: int, count: int) -> Tensor:
    return torch.linspace(0, K - 1, count, dtype=torch.float64).long().unique()


def test_every_code_has_its_inner_products_listed() -> None:
    assert set(PRODUCTS) | set(OWN_TESTS) == set(CODES)
    for name, products in PRODUCTS.items():
        assert CODES[name].cosine == pytest.approx(products[-1], abs=1e-15)
        assert CODES[name].inner_products == pytest.approx(products, abs=1e-15)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_literatures(name: str) -> None:
    K, D, inverse = SIZES[name]
    assert (CODES[name].K, CODES[name].D) == (K, D)
    assert CODES[name].cosine == pytest.approx(1 / inverse, abs=1e-15)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in (*MIDDLE, *SLOW))])
def test_small_codes_are_exact(name: str) -> None:
    entry = CODES[name]
    vectors = entry.build(entry.K)
    assert vectors.shape == (entry.K, entry.D) and vectors.dtype is torch.float64
    assert certify_rows(entry, vectors, torch.arange(entry.K)) == set(PRODUCTS[name])
    assert torch.linalg.matrix_rank(vectors) == entry.D
    if PRODUCTS[name][0] == -1 and name != "icosahedron-11":  # which lacks the opposite of one vector
        assert ((vectors @ vectors.T).amin(dim=1) < -1 + 1e-12).all()


@pytest.mark.parametrize("name", LARGE)
def test_large_codes_are_exact_in_a_sample(name: str) -> None:
    entry = CODES[name]
    n = entry.K if entry.D <= 32 else min(entry.K, 2**22 // entry.D)
    vectors = entry.build(n)
    assert vectors.shape == (n, entry.D)
    certify_rows(entry, vectors, spread(n, 40))
    if entry.D < 1000:
        assert torch.linalg.matrix_rank(vectors[spread(n, 10 * entry.D)]) == entry.D


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leech", "kerdock-256", "gold-128", "gold-127"])
def test_large_codes_are_exact(name: str) -> None:
    entry = CODES[name]
    vectors = entry.build(entry.K)
    assert_close(vectors.norm(dim=1), torch.ones(entry.K, dtype=torch.float64), rtol=0, atol=1e-12)
    assert certify_rows(entry, vectors, spread(entry.K, 300)) == set(PRODUCTS[name])
    unit = vectors.abs()[vectors != 0].min()
    whole = (vectors / unit).round()
    if torch.allclose(whole * unit, vectors, rtol=0, atol=1e-12):
        vectors = whole.to(torch.float32)  # products of whole coordinates are exact
    else:
        unit = torch.ones(())
    for rows in torch.arange(entry.K).split(256):
        gram = vectors[rows] @ vectors[rows[0] :].T  # each pair once
        gram.fill_diagonal_(-math.inf)
        assert gram.max() * unit**2 <= entry.cosine + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [("kerdock-1024", 100_000), ("gold-512", 262_144), ("gold-2048", 40_000)])
def test_the_largest_codes_are_exact_in_a_larger_sample(name: str, n: int) -> None:
    entry = CODES[name]
    certify_rows(entry, entry.build(n), spread(n, 300))


@pytest.mark.parametrize("name", GRAPHS)
def test_two_distance_codes_are_strongly_regular(name: str) -> None:
    entry = CODES[name]
    v, k, common, other = GRAPHS[name]
    vectors = entry.build(entry.K)
    adjacent = (vectors @ vectors.T < 0).to(torch.float64)
    identity, ones = torch.eye(v, dtype=torch.float64), torch.ones(v, v, dtype=torch.float64)
    walks = k * identity + common * adjacent + other * (ones - identity - adjacent)
    assert torch.equal(adjacent @ adjacent, walks)


@pytest.mark.parametrize("name", ["e8", "gosset", "schlafli", "leech-552", "mclaughlin", "higman-sims", "quadric-4"])
def test_sharp_codes_are_designs(name: str) -> None:
    entry = CODES[name]
    vectors = entry.build(entry.K)
    assert vectors.sum(dim=0).abs().max() < 1e-12
    tight = torch.eye(entry.D, dtype=torch.float64) * entry.K / entry.D
    assert_close(vectors.T @ vectors, tight, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["kerdock-64", "gold-32"])
def test_codes_of_bases_begin_with_frames(name: str) -> None:
    dim = CODES[name].D
    vectors = CODES[name].build(4 * dim)
    frame = torch.eye(dim, dtype=torch.float64)
    for basis in (vectors[:dim], vectors[2 * dim : 3 * dim]):
        assert_close(basis @ basis.T, frame, rtol=0, atol=1e-12)
    assert torch.equal(vectors[dim : 2 * dim], -vectors[:dim])


@pytest.mark.parametrize("name", ["kerdock-63", "gold-31"])
def test_punctured_codes_begin_with_simplices(name: str) -> None:
    dim = CODES[name].D
    vectors = CODES[name].build(dim + 1)
    expected = torch.full((dim + 1, dim + 1), -1 / dim, dtype=torch.float64).fill_diagonal_(1)
    assert_close(vectors @ vectors.T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["petersen", "leech-891", "quadric-4", "kerdock-16", "gold-31", "gold-32"])
@pytest.mark.parametrize("n", [2, 7, 10])
def test_a_part_is_the_beginning_of_the_whole(name: str, n: int) -> None:
    entry = CODES[name]
    assert torch.equal(entry.build(n), entry.build(entry.K)[:n])


def test_parts_of_huge_codes_cost_what_they_occupy() -> None:
    assert CODES["gold-2048"].build(5).shape == (5, 2048)  # all of it would take 137 GB
    assert CODES["kerdock-1024"].build(3000).shape == (3000, 1024)


def test_code_is_cut_and_padded() -> None:
    made = code("petersen", 7, dim=6)
    assert made.vectors.shape == (7, 6)
    assert not made.vectors[:, 4:].any()
    assert torch.equal(made.vectors[:, :4], CODES["petersen"].vectors(7))
    arguments = {key: made.provenance[key] for key in ("name", "num_classes", "dim")}
    assert code(**arguments) == made
    assert made.provenance["source"] == CODES["petersen"].source
    assert code("petersen").vectors.shape == (10, 4)
    assert torch.equal(CODES["petersen"].vectors(), code("petersen").vectors)


def test_a_code_without_vectors() -> None:
    only_cosine = Code("(5, 4) code", 5, 4, 0.1, "by hand")
    with pytest.raises(StateError, match=r"only the largest cosine of the \(5, 4\) code is known"):
        only_cosine.vectors(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "peterson"}, ChoiceError, "got 'peterson'. Did you mean 'petersen"),
        (
            {"name": "petersen", "num_classes": 11},
            DimensionError,
            r"num_classes must be at most 10 for the code 'petersen'; got 11\. Use prototypes\.best\(11, 4\)",
        ),
        ({"name": "petersen", "num_classes": 1}, DimensionError, "num_classes must be at least 2; got 1"),
        ({"name": "petersen", "dim": 3}, DimensionError, "dim must be at least 4 for the code 'petersen'; got 3"),
    ],
)
def test_impossible_requests(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        code(**arguments)


def test_codes_for_some_sizes() -> None:
    names = [entry.name for entry in codes_for(100, 16)]
    assert names[:3] == ["kerdock-15", "kerdock-16", "barnes-wall-512"]
    assert [name for name in names if CODES[name].D < 12] == [
        *("e7", "gold-8", "e8", "quadruples-9", "quadruples-10", "quadruples-11", "kissing-593"),
        *("quintuples-9", "quintuples-10", "quintuples-11", "600-cell"),
    ]
    assert codes_for(10_000, 128)[0].name == "gold-127"
    assert codes_for(100_000, 512)[0].name == "gold-511"
    assert codes_for(66_048, 256)[0].name == "kerdock-256"
    assert codes_for(13, 3) == []
