"""The tables of spherical codes: exact ones, infinite families, published values, and codes found by long searches."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

from torch import Tensor

from tightframe.codes.code import Code
from tightframe.codes.exact import bases, golden, halves, kissing, lattices, polytopes, quadrics
from tightframe.codes.exact.bch import bch, punctured_bch
from tightframe.codes.exact.blocks import BLOCKS, signed_blocks
from tightframe.codes.exact.latitudes import latitudes, number_on_latitudes
from tightframe.codes.sizes import require_sizes

CIRCLE = "elementary: K arcs share a circle of length 2 pi"
RANKIN = "attains Rankin's bound"
SHARP = "attains Levenshtein's bound"
CGS = "Cameron, Goethals & Seidel 1978, Strongly regular graphs having strongly regular subconstituents"
DGS = "Delsarte, Goethals & Seidel 1977, Spherical codes and designs"
LAYER = "tightframe, a layer of the Leech lattice's minimal vectors"
PACKINGS = "Conway & Sloane 1999, Sphere packings, lattices and groups"
KERDOCK = (
    "Calderbank, Cameron, Kantor & Seidel 1997, Z4-Kerdock codes, orthogonal spreads and extremal Euclidean line-sets"
)
GOLD = "Gold 1968, Maximal recursive sequences with 3-valued recursive cross-correlation functions"
BCH = (
    "Bose & Ray-Chaudhuri 1960 and Hocquenghem 1959, as in MacWilliams & Sloane 1977, The theory of error-correcting "
    "codes; the designed distance is attained"
)
BLOCK_SOURCE = "Brouwer, Shearer, Sloane & Smith 1990, A new table of constant weight codes, with all signs"
HALVES = "tightframe, even and odd sign vectors about the halves of a Reed-Muller code"
ALPHAEVOLVE = (
    "Novikov et al. 2025, AlphaEvolve; the vectors are from github.com/google-deepmind/alphaevolve_results, "
    "copyright 2025 Google LLC, CC BY 4.0, scaled to unit length"
)
COHN = "Cohn, de Laat & Leijenhorst 2024, Optimality of spherical codes via exact semidefinite programming bounds"
ROOTS = (-1, -1 / 2, 0, 1 / 2)
_STEPS, _LATITUDES = 16, 6  # angles of `latitudes` for each factor of two, and most dimensions
_FEW = 1000  # vectors of a polygon whose inner products are listed
_CORNERS = 10, 64  # bits and dimensions of linear codes that `best_built` tries; beyond, Kerdock codes are better
_BCH: dict[int, dict[int, tuple[int, ...]]] = {
    32: {21: tuple(range(6, 17, 2)), 26: (4,)},
    64: {
        **{16: (24, 28, 32), 18: tuple(range(22, 33, 2)), 24: (16, 18, *range(22, 33, 2))},
        **{30: (14,), 36: (12,), 39: (10,)},
    },
    128: {22: (48, 56, 64), 29: (44,), 36: (32,)},
    256: {21: (112, 120, 128), 29: (96,), 37: (92,)},
    512: {28: (224,), 31: (220,), 40: (192,)},
    1024: {26: (480,), 36: (448,)},
}
"""By length and bits: the weights up to half the length, where all words were counted, or the smallest one. Only codes
of up to 40 bits for which no other row has as many vectors, as few dimensions and as small a cosine."""
_LARGEST_QUADRANGLE = 7  # its 2,752 vectors take seconds; the next ones minutes
QUARTERS = (-1, -1 / 2, -1 / 4, 0, 1 / 4, 1 / 2)
THIRDS = (-1, -1 / 3, 0, 1 / 3)
SEVENTHS = (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7)
FIFTHS = (-1, -3 / 5, -(5**-0.5), -2 / 5, -1 / 5, 0, 1 / 5, 2 / 5, 5**-0.5, 3 / 5)
LAYERED = (
    *(-1, -1 / 2, -(2 + 3**0.5) / 8, -(3**0.5) / 4, -1 / 4, -(2 - 3**0.5) / 8, 0),
    *((2 - 3**0.5) / 8, 1 / 4, 3**0.5 / 4, (2 + 3**0.5) / 8, 1 / 2),
)
ICOSAHEDRON = (-1, -(5**-0.5), 5**-0.5)
ICOSIANS = (-1, -golden.COS_36, -1 / 2, 1 / 2 - golden.COS_36, 0, golden.COS_36 - 1 / 2, 1 / 2, golden.COS_36)


def _code(
    name: str, K: int, D: int, products: Sequence[float], source: str, points: Callable[[], Tensor], **facts: Any
) -> Code:
    """A code that is built whole."""
    inner = tuple(products)
    return Code(name, K, D, inner[-1], source, inner_products=inner, build=_first_of(points), **facts)


def _first_of(points: Callable[[], Tensor]) -> Callable[[int], Tensor]:
    return lambda n: points()[:n].clone()  # a clone, or a few vectors would keep all of them in memory


def _e8(
    name: str, K: int, products: Sequence[float], poles: list[list[int]], at: list[int], source: str = DGS, **facts: Any
) -> Code:
    return _code(name, K, 8 - len(at), products, source, partial(lattices.e8_layer, poles, at), **facts)


def _leech(
    name: str, K: int, products: Sequence[float], poles: list[list[int]], at: list[int], source: str = PACKINGS,
    *, long: bool = False, title: str = "", proof: str | None = None,
) -> Code:  # fmt: skip
    points = partial(lattices.leech_layer, poles, at, long=long)
    title = title or f"{K} points of the Leech lattice"
    return _code(name, K, 24 - len(at), products, source, points, title=title, proof=proof)


def _stored(file: str, vectors: str, n: int) -> Tensor:
    """The first n vectors of a code, by the name of its tensor in a file of the package."""
    with resources.as_file(resources.files("tightframe.codes").joinpath(f"{file}.safetensors")) as path:
        from safetensors import safe_open

        with safe_open(path, "pt") as tensors:
            rows: Tensor = tensors.get_tensor(vectors)
    return rows[:n]


def _diagram(letter: str, n: int) -> list[list[int]]:
    """Inner products of each pole but the first with those before it: the Dynkin diagram A_n, D_n or E_n, of norm 4."""
    rows = [[0] * before + [-2] for before in range(n - 1)]  # a chain
    branch = {"A": n - 2, "D": n - 3, "E": 2}[letter]
    if letter != "A":
        rows[-1] = [-2 if before == branch else 0 for before in range(n - 1)]
    return rows


def _at(n: int, pole: int) -> list[int]:
    """Inner product 1 with one of n poles, 0 with the others."""
    return [int(pole == other) for other in range(n)]


def _halves(K: int, dim: int, cosine: float, points: Callable[[], Tensor]) -> Code:
    build, title = _first_of(points), "even and odd sign vectors"
    return Code(f"halves-{K}", K, dim, cosine, HALVES, build=build, title=title)


def _blocks(dim: int, size: int) -> Code:
    name = {4: "quadruples", 5: "quintuples"}[size]
    number = 2 * dim + 2**size * BLOCKS[dim, size]
    products = {4: QUARTERS, 5: FIFTHS}[size]
    points = partial(signed_blocks, dim, size)
    return _code(f"{name}-{dim}", number, dim, products, BLOCK_SOURCE, points, title=f"signed {name}")


EXACT = (
    _code("icosahedron", 12, 3, ICOSAHEDRON, "Fejes Tóth 1943", golden.icosahedron, proof="Fejes Tóth 1943"),
    _code(
        "icosahedron-11", 11, 3, ICOSAHEDRON, "Fejes Tóth 1943", golden.icosahedron,
        proof="Danzer 1986", title="icosahedron without a vertex",
    ),
    _code(
        "24-cell", 24, 4, ROOTS, "Schläfli 1852", golden.cell_24,
        proof="de Laat, Leijenhorst & de Muinck Keizer 2024, Optimality and uniqueness of the D4 root system",
    ),
    _code(
        "600-cell", 120, 4, ICOSIANS, "Schläfli 1852", golden.cell_600,
        proof="Böröczky 1978, Packing of spheres in spaces of constant curvature",
    ),
    # one pole after the other, at 60 degrees from all before; the points at 60 degrees from every pole
    _code("e8", 240, 8, ROOTS, PACKINGS, lambda: lattices.e8() / 2**0.5, proof=SHARP, title="E8 roots"),
    _e8("gosset", 56, (-1, -1 / 3, 1 / 3), [], [1], proof=SHARP, title="Gosset polytope"),
    _e8("schlafli", 27, (-1 / 2, 1 / 4), [[1]], [1, 1], proof=SHARP, title="Schläfli code"),
    _e8("hemicube", 16, (-3 / 5, 1 / 5), [[1], [1, 1]], [1, 1, 1], proof=SHARP),
    _e8(
        "petersen", 10, (-2 / 3, 1 / 6), [[1], [1, 1], [1, 1, 1]], [1, 1, 1, 1], title="Petersen code",
        proof="Bachoc & Vallentin 2009, Optimality and uniqueness of the (4,10,1/6) spherical code",
    ),
    # the points at 90 degrees: kissing configurations
    _e8("e7", 126, ROOTS, [], [0], PACKINGS, title="E7 roots"),
    _e8("e6", 72, ROOTS, [[1]], [0, 0], PACKINGS, title="E6 roots"),
    _code("d5", 40, 5, ROOTS, PACKINGS, lambda: lattices.roots(5) / 2**0.5, title="D5 roots"),
    *(_blocks(dim, size) for dim, size in BLOCKS),
    _halves(264, 12, 2 / 5, partial(halves.even_and_odd, 12, 5)),
    _halves(304, 13, 5 / 13, partial(halves.even_and_odd, 13, 5)),
    _halves(458, 13, 4 / 78**0.5, partial(halves.even_and_odd, 13, 6, axes=True)),
    _halves(764, 14, 4 / 84**0.5, partial(halves.even_and_odd, 14, 6, axes=True)),
    _halves(960, 14, 2**0.5 / 3, halves.with_triples),
    _halves(2014, 15, 5 / 105**0.5, partial(halves.even_and_odd, 15, 7, axes=True)),
    Code(
        "kissing-593", 593, 11, 1 / 2, ALPHAEVOLVE, build=partial(_stored, "published", "593 11"),
        title="kissing configuration of 593 vectors",
    ),
    _code(
        "kissing-1154", 1154, 13, LAYERED, "Zinoviev & Ericson 1999, New lower bounds for contact numbers",
        kissing.zinoviev_ericson, title="kissing configuration of 1154 vectors",
    ),
    _code(
        "kissing-1932", 1932, 14, QUARTERS, "Ganzhinov 2022, Highly symmetric lines",
        kissing.ganzhinov, title="kissing configuration of 1932 vectors",
    ),
    _code(
        "leech", 196_560, 24, QUARTERS, PACKINGS, lambda: lattices.leech() / 2,
        proof=SHARP, title="Leech lattice, minimal vectors",
    ),
    _leech("leech-4600", 4600, THIRDS, [], [2], DGS, proof=SHARP),
    _leech("leech-891", 891, (-1 / 2, -1 / 8, 1 / 4), [[2]], [2, 2], DGS, proof=SHARP),
    _leech("leech-93150", 93_150, QUARTERS, [], [0]),
    _leech("leech-49896", 49_896, QUARTERS, [[2]], [0, 0]),
    _leech("leech-27720", 27_720, QUARTERS, [[2], [2, 2]], [0, 0, 0]),
    _leech("leech-17400", 17_400, QUARTERS, [[2], [2, 0], [2, 0, 0]], [0, 0, 0, 0]),
    _leech("barnes-wall", 4320, QUARTERS, _diagram("E", 8), [0] * 8, title="Barnes–Wall lattice, minimal vectors"),
    # with poles that make a root lattice, times the root of 2: vectors as far from it as a short one of its dual
    _leech("barnes-wall-512", 512, THIRDS, _diagram("E", 8), _at(8, 6), LAYER),
    _leech("leech-1024", 1024, (-11 / 13, -7 / 13, -3 / 13, 1 / 13, 5 / 13), _diagram("E", 7), _at(7, 5), LAYER),
    _leech("leech-576", 576, THIRDS, _diagram("E", 7), _at(7, 0), LAYER),
    _leech("leech-2048", 2048, SEVENTHS, _diagram("D", 6), _at(6, 0), LAYER),
    _leech("leech-1632", 1632, (-4 / 5, -1 / 2, -1 / 5, 1 / 10, 2 / 5), _diagram("E", 6), _at(6, 0), LAYER),
    _leech("leech-704", 704, THIRDS, _diagram("E", 6), _at(6, 5), LAYER),
    _leech("leech-3328", 3328, SEVENTHS, _diagram("D", 5), _at(5, 0), LAYER),
    _leech("leech-2432", 2432, (-7 / 9, -13 / 27, -5 / 27, 1 / 9, 11 / 27), _diagram("D", 5), _at(5, 4), LAYER),
    _leech("leech-896", 896, THIRDS, _diagram("D", 5), _at(5, 1), LAYER),
    _leech("leech-5120", 5120, SEVENTHS, _diagram("D", 4), _at(4, 0), LAYER),
    _leech("leech-1280", 1280, THIRDS, _diagram("D", 4), _at(4, 1), LAYER),
    _leech("leech-10752", 10_752, (-19 / 29, -11 / 29, -3 / 29, 5 / 29, 13 / 29), _diagram("A", 3), _at(3, 0), LAYER),
    _leech("leech-7680", 7680, SEVENTHS, _diagram("A", 3), _at(3, 1), LAYER),
    _leech("leech-20736", 20_736, (-7 / 11, -4 / 11, -1 / 11, 2 / 11, 5 / 11), _diagram("A", 2), _at(2, 0), LAYER),
    _leech("leech-47104", 47_104, (-3 / 5, -1 / 3, -1 / 15, 1 / 5, 7 / 15), [], _at(1, 0), LAYER),
    # about a vector of squared length 6: the 276 equiangular lines, and in them McLaughlin's graph...
    _leech(
        "leech-552", 552, (-1, -1 / 5, 1 / 5), [], [3], DGS, long=True, proof=SHARP, title="276 equiangular lines"
    ),
    _leech(
        "mclaughlin", 275, (-1 / 4, 1 / 6), [[3]], [3, 2], DGS, long=True, proof=SHARP, title="McLaughlin graph"
    ),
    _leech(
        "mclaughlin-162", 162, (-2 / 7, 1 / 7), [[3], [3, 2]], [3, 2, 2], CGS,
        long=True, proof=SHARP, title="second subconstituent of the McLaughlin graph",
    ),
    # ... and Higman's and Sims', with the graphs that it contains
    _leech(
        "higman-sims", 100, (-4 / 11, 1 / 11), [[2]], [3, 2], DGS, long=True, proof=SHARP, title="Higman–Sims graph"
    ),
    _leech("m22", 77, (-3 / 8, 1 / 12), [[2], [3, 2]], [3, 2, 2], CGS, long=True, proof=COHN, title="M22 graph"),
    _leech(
        "gewirtz", 56, (-2 / 5, 1 / 15), [[2], [3, 2], [3, 2, 1]], [3, 2, 2, 2], CGS,
        long=True, proof=COHN, title="Gewirtz graph",
    ),
    _leech(
        "hoffman-singleton", 50, (-3 / 7, 1 / 21), [[2], [3, 1]], [3, 2, 2], CGS,
        long=True, proof=COHN, title="Hoffman–Singleton graph",
    ),
)  # fmt: skip
"""Single codes, in closed form but for one that is stored."""


# ---------------------------------------------------------------------- families


def _kerdock(dim: int) -> Iterator[Code]:
    """D/2 + 1 orthonormal bases in D = 4^m dimensions, and the punctured code of their sign vectors."""
    for D in (4**m for m in range(2, ((dim + 1).bit_length() + 1) // 2)):
        cosine = D**-0.5
        proof = COHN if D <= 1024 else None  # the semidefinite bounds were computed up to there
        yield Code(
            f"kerdock-{D}", D * (D + 2), D, cosine, KERDOCK, proof, (-1.0, -cosine, 0.0, cosine),
            partial(bases.kerdock, D), "Kerdock code",
        )  # fmt: skip
        yield _punctured("Kerdock", D, D**2 // 2, (-cosine, 0.0, cosine), KERDOCK, bases.punctured_kerdock)


def _gold(dim: int) -> Iterator[Code]:
    """D + 1 orthonormal bases in D = 2^m dimensions, m odd, with their negatives; one is the standard basis."""
    for D in (2**m for m in range(3, (dim + 1).bit_length(), 2)):
        cosine, flat = (2 / D) ** 0.5, D**-0.5  # the latter between a sign vector and a unit vector
        products = (-1.0, -cosine, -flat, 0.0, flat, cosine)
        yield Code(f"gold-{D}", 2 * D * (D + 1), D, cosine, GOLD, None, products, partial(bases.gold, D), "Gold code")
        yield _punctured("Gold", D, D**2, (-cosine, 0.0, cosine), GOLD, bases.punctured_gold)


def _punctured(
    family: str, D: int, K: int, products: Sequence[float], source: str, build: Callable[[int, int], Tensor]
) -> Code:
    """The sign vectors with equal entries in one of D coordinates, without that coordinate."""
    shifted = tuple((D * product - 1) / (D - 1) for product in products)
    name = f"{family.lower()}-{D - 1}"
    return Code(name, K, D - 1, shifted[-1], source, None, shifted, partial(build, D - 1), f"punctured {family} code")


def _bch(dim: int) -> Iterator[Code]:
    """Extended primitive binary BCH codes [D, k, d], D = 2^m, and their punctured halves in D - 1 dimensions."""
    for D, sizes in _BCH.items():
        for bits, weights in sizes.items() if dim + 1 >= D else ():
            cosine, name = 1 - 2 * weights[0] / D, f"[{D}, {bits}, {weights[0]}]"
            inner = tuple(1 - 2 * weight / D for weight in weights)  # a word and its complement: opposite products
            products = (-1.0, *sorted({*inner, *(0.0 - each for each in inner)})) if len(weights) > 1 else None
            title = f"extended BCH code {name}"
            build = partial(bch, D)
            yield Code(f"bch-{D}-{bits}", 2**bits, D, cosine, BCH, None, products, build, title)
            shifted = None if products is None else tuple((D * each - 1) / (D - 1) for each in products[1:])
            title, build = f"punctured BCH code {name}", partial(punctured_bch, D - 1)
            cosine = (D * cosine - 1) / (D - 1)
            yield Code(f"bch-{D - 1}-{bits - 1}", 2 ** (bits - 1), D - 1, cosine, BCH, None, shifted, build, title)


def _quadrangles(dim: int) -> Iterator[Code]:
    """The points of the quadrangles GQ(q, q^2), q a prime power above 2 (with 2, Schläfli's code): sharp codes."""
    q = 3
    while (D := q * (q * q - q + 1)) <= dim:
        prime = next(p for p in range(2, q + 1) if q % p == 0)
        degree = round(math.log(q, prime))
        if prime**degree == q:
            K, products, title = (q + 1) * (q**3 + 1), (-1 / q, 1 / q**2), f"generalised quadrangle GQ({q}, {q * q})"
            points = partial(quadrics.elliptic_quadric, prime, degree)
            build = _first_of(points) if q <= _LARGEST_QUADRANGLE else None
            yield Code(f"quadric-{q}", K, D, products[-1], CGS, SHARP, products, build, title)
        q += 1


FAMILIES: tuple[Callable[[int], Iterator[Code]], ...] = (_kerdock, _gold, _bch, _quadrangles)
"""Functions that yield the codes of an infinite family in at most a given number of dimensions, or one more."""


# ---------------------------------------------------------------------- tables


@cache
def published() -> tuple[Code, ...]:
    """Values that were published, or found by this package, without their vectors."""
    rows = _lines("published.csv")
    return tuple(_row(row, row["source"], proof=row["source"] if row["status"] == "optimal" else None) for row in rows)


@cache
def searched() -> tuple[Code, ...]:
    """Codes found by long searches of this package, with their vectors."""
    return tuple(
        _row(row, _by_search(row), build=partial(_stored, "searched", f"{row['num_vectors']} {row['dim']}"))
        for row in _lines("searched.csv")
    )


def _lines(file: str) -> list[dict[str, str]]:
    with resources.files("tightframe.codes").joinpath(file).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _row(row: dict[str, str], source: str, **facts: Any) -> Code:
    K, D = int(row["num_vectors"]), int(row["dim"])
    return Code(f"({K}, {D}) code", K, D, float(row["cosine"]), source, **facts)


def _by_search(row: dict[str, str]) -> str:
    return f"tightframe, found in {row['found']} of {row['searches']} searches of {row['seconds']} s"


CODES: dict[str, Code] = {
    code.name: code for code in (*EXACT, *(c for family in FAMILIES for c in family(2048))) if code.build
}
"""Every exact code that can be built, by name; of infinite families those in at most 2,048 dimensions. A code added
here is known to `certify`, `best` and the search."""


@cache
def _families(dim: int) -> tuple[Code, ...]:
    return tuple(code for family in FAMILIES for code in family(dim) if code.name not in CODES)


def _up_to(dim: int) -> list[Code]:
    """All rows in at most `dim` dimensions; exact ones first, which are taken from several equally good ones."""
    return [code for code in (*CODES.values(), *_families(dim), *published(), *searched()) if dim >= code.D]


def polytope(num_vectors: int, dim: int) -> Code | None:
    """The optimal code of K vectors if K <= 2D or D <= 2; else None."""
    K, D = num_vectors, dim
    if K <= D + 1:
        cosine, build = -1 / (K - 1), _first_of(partial(polytopes.simplex, K))
        return Code("simplex", K, D, cosine, "Rankin 1955", RANKIN, (cosine,), build, "simplex ETF")
    if D == 2:
        return _polygon(K)
    if D > 1 and K <= 2 * D:
        build = _first_of(partial(polytopes.orthoplex, K, D))
        return Code("orthoplex", K, D, 0.0, "Rankin 1955", RANKIN, (-1.0, 0.0), build)
    return None


def _polygon(K: int) -> Code:
    few = K <= _FEW
    products = tuple(math.cos(2 * math.pi * j / K) for j in range(K // 2, 0, -1)) if few else None
    cosine, build = math.cos(2 * math.pi / K), _first_of(partial(polytopes.polygon, K))
    return Code("polygon", K, 2, cosine, CIRCLE, CIRCLE, products, build, "regular polygon")


def _corners(num_vectors: int, dim: int) -> Iterator[Code]:
    """Corners of cubes for at least K vectors in at most D dimensions, for any K <= 2^D that isn't huge."""
    most, wide = _CORNERS
    for bits in range((num_vectors - 1).bit_length(), min(dim, most) + 1):
        _, distances = polytopes.parities(bits, wide)
        for D in range(bits, min(dim, wide) + 1):
            cosine = 1 - 2 * distances[D - 1] / D
            build = _first_of(partial(polytopes.hypercube, 2**bits, D))
            yield Code("hypercube", 2**bits, D, cosine, "Pernici et al. 2021", None, None, build, "corners of a cube")


def best_listed(num_vectors: int, dim: int) -> Code | None:
    """The code with the smallest largest cosine that provides K vectors in R^D; None for K > 2 with D = 1.

    A code with more vectors or fewer dimensions also counts, as a subset or by embedding; the result then has the
    code's own K and D, and its proof refers to those.
    Raises: DimensionError unless K >= 2 and D >= 1.

    >>> from tightframe.codes import best_listed
    >>> code = best_listed(11, 3)  # eleven of the twelve vertices of the icosahedron
    >>> code.name, code.optimal, round(code.cosine, 6)
    ('icosahedron-11', True, 0.447214)
    """
    return min(_providing(*require_sizes(num_vectors, dim)), key=_preference, default=None)


def has_rows(dim: int) -> bool:
    """Whether the table has codes in exactly this number of dimensions, apart from simplices and orthoplexes."""
    return any(dim == code.D for code in _up_to(dim))


def best_built(num_vectors: int, dim: int) -> Code:
    """As `best_listed`, of the codes that the package can build; without a better one, points on circles of latitude.

    Raises: DimensionError also for K > 2 with D = 1, where distinct vectors don't exist.

    >>> from tightframe.codes import best_built
    >>> best_built(24, 4).vectors().shape
    torch.Size([24, 4])
    """
    K, D = require_sizes(num_vectors, dim, distinct=True)
    return min((code for code in _providing(K, D) if code.build), key=_preference)


def _on_latitudes(num_vectors: int, dim: int) -> Iterator[Code]:
    """For each of a few dimensions, the code on circles of latitude with the largest angle of a fixed sequence."""
    for D in range(3, min(dim, _LATITUDES) + 1):
        step = 0
        number: int | None = 1
        while number is not None and number < num_vectors:
            step += 1
            angle = math.pi * 2 ** (-step / _STEPS)
            number = number_on_latitudes(D, angle)
        if number is not None:
            build = _first_of(partial(latitudes, D, angle))
            source = "tightframe, points on circles of latitude"
            yield Code(
                "latitudes", number, D, math.cos(angle), source, build=build, title="points on circles of latitude"
            )


def _providing(num_vectors: int, dim: int) -> Iterator[Code]:
    """The rows of at least K vectors in at most D dimensions; only the polytope if that is optimal."""
    if (code := polytope(num_vectors, dim)) is not None:
        yield code
        return
    yield from (code for code in _up_to(dim) if num_vectors <= code.K)
    if dim > 1:
        yield from _corners(num_vectors, dim)
        yield from _on_latitudes(num_vectors, dim)
        yield _polygon(num_vectors)


def codes_for(num_vectors: int, dim: int) -> list[Code]:
    """The exact codes of at least K vectors in at most D dimensions, sorted by largest cosine.

    >>> from tightframe.codes import codes_for
    >>> [code.name for code in codes_for(12, 3)][:1]
    ['icosahedron']
    """
    return sorted((code for code in CODES.values() if num_vectors <= code.K and dim >= code.D), key=_preference)


def _preference(code: Code) -> tuple[float, int, int]:
    """For equal cosines the size decides, so that a code of exactly K vectors in R^D is preferred."""
    return round(code.cosine, 10), code.K, -code.D
