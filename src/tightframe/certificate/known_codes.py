"""The best known spherical codes: families, exact codes and published tables, with proofs of optimality."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from tightframe.errors import DimensionError


@dataclass(frozen=True)
class KnownCode:
    """A known code of K unit vectors in R^D, and the largest cosine between two of them."""

    num_vectors: int
    dim: int
    cosine: float
    name: str
    optimal: bool
    """Whether a published proof shows that no K vectors in R^D have a smaller largest cosine."""
    source: str
    """Source of the proof if optimal, else of the code."""
    inner_products: tuple[float, ...] | None = None
    """All cosines between two distinct vectors; None if the code has no algebraic description."""


_SHARP = "attains Levenshtein's bound"
_KERDOCK_PROOF = (
    "Cohn, de Laat & Leijenhorst 2024, Optimality of spherical codes via exact semidefinite programming bounds"
)
_KISSING = "Conway & Sloane 1999, Sphere packings, lattices and groups"
_LAYERS = "tightframe, a layer of the Leech lattice's minimal vectors"
_BLOCKS = "tightframe, all signs on the blocks of a constant-weight code"
_ADDED = re.compile("kissing|tightframe")  # in sources
_FIFTHS = (-1, -0.6, -(5**-0.5), -0.4, -0.2, 0, 0.2, 0.4, 5**-0.5, 0.6)
_QUARTERS = (-1, -0.5, -0.25, 0, 0.25, 0.5)
_GOLDEN = (1 + math.sqrt(5)) / 4  # cos 36°


def _layer(num_vectors: int, dim: int, cosine: float, products: tuple[float, ...]) -> KnownCode:
    """Minimal vectors of the Leech lattice with given inner products with the roots of a sublattice."""
    return KnownCode(num_vectors, dim, cosine, f"{num_vectors} points of the Leech lattice", False, _LAYERS, products)


_EXACT = (
    KnownCode(40, 5, 0.5, "D5 roots", False, _KISSING, (-1, -0.5, 0, 0.5)),
    KnownCode(306, 9, 0.5, "kissing configuration P9a", False, _KISSING, _QUARTERS),
    KnownCode(594, 9, 0.6, "signed quintuples", False, _BLOCKS, _FIFTHS),
    KnownCode(1172, 10, 0.6, "signed quintuples", False, _BLOCKS, _FIFTHS),
    KnownCode(2134, 11, 0.6, "signed quintuples", False, _BLOCKS, _FIFTHS),
    KnownCode(840, 12, 0.5, "kissing configuration P12a", False, _KISSING, _QUARTERS),
    KnownCode(11, 3, 5**-0.5, "icosahedron without a vertex", True, "Danzer 1986", (-1, -(5**-0.5), 5**-0.5)),
    KnownCode(12, 3, 5**-0.5, "icosahedron", True, "Fejes Tóth 1943", (-1, -(5**-0.5), 5**-0.5)),
    KnownCode(
        10, 4, 1 / 6, "Petersen code", True,
        "Bachoc & Vallentin 2009, Optimality and uniqueness of the (4,10,1/6) spherical code", (-2 / 3, 1 / 6),
    ),
    KnownCode(
        24, 4, 0.5, "24-cell", True,
        "de Laat, Leijenhorst & de Muinck Keizer 2024, Optimality and uniqueness of the D4 root system",
        (-1, -0.5, 0, 0.5),
    ),
    KnownCode(
        120, 4, _GOLDEN, "600-cell", True, "Böröczky 1978, Packing of spheres in spaces of constant curvature",
        (-1, -_GOLDEN, -0.5, 0.5 - _GOLDEN, 0, _GOLDEN - 0.5, 0.5, _GOLDEN),
    ),
    KnownCode(16, 5, 1 / 5, "hemicube", True, _SHARP, (-3 / 5, 1 / 5)),
    KnownCode(72, 6, 0.5, "E6 roots", False, _KISSING, (-1, -0.5, 0, 0.5)),
    KnownCode(56, 7, 1 / 3, "Gosset polytope", True, _SHARP, (-1, -1 / 3, 1 / 3)),
    KnownCode(126, 7, 0.5, "E7 roots", False, _KISSING, (-1, -0.5, 0, 0.5)),
    KnownCode(240, 8, 0.5, "E8 roots", True, _SHARP, (-1, -0.5, 0, 0.5)),
    KnownCode(4320, 16, 0.5, "Barnes–Wall lattice, minimal vectors", False, _KISSING, _QUARTERS),
    KnownCode(17400, 20, 0.5, "17400 points of the Leech lattice", False, _KISSING, _QUARTERS),
    KnownCode(56, 20, 1 / 15, "Gewirtz graph", True, _KERDOCK_PROOF, (-2 / 5, 1 / 15)),
    KnownCode(27720, 21, 0.5, "27720 points of the Leech lattice", False, _KISSING, _QUARTERS),
    KnownCode(50, 21, 1 / 21, "Hoffman–Singleton graph", True, _KERDOCK_PROOF, (-3 / 7, 1 / 21)),
    KnownCode(77, 21, 1 / 12, "M22 graph", True, _KERDOCK_PROOF, (-3 / 8, 1 / 12)),
    KnownCode(162, 21, 1 / 7, "second subconstituent of the McLaughlin graph", True, _SHARP, (-2 / 7, 1 / 7)),
    KnownCode(49896, 22, 0.5, "49896 points of the Leech lattice", False, _KISSING, _QUARTERS),
    KnownCode(100, 22, 1 / 11, "Higman–Sims graph", True, _SHARP, (-4 / 11, 1 / 11)),
    KnownCode(275, 22, 1 / 6, "McLaughlin graph", True, _SHARP, (-1 / 4, 1 / 6)),
    KnownCode(891, 22, 1 / 4, "891 points of the Leech lattice", True, _SHARP, (-1 / 2, -1 / 8, 1 / 4)),
    KnownCode(93150, 23, 0.5, "93150 points of the Leech lattice", False, _KISSING, _QUARTERS),
    KnownCode(552, 23, 1 / 5, "276 equiangular lines", True, _SHARP, (-1, -1 / 5, 1 / 5)),
    KnownCode(4600, 23, 1 / 3, "4600 points of the Leech lattice", True, _SHARP, (-1, -1 / 3, 0, 1 / 3)),
    KnownCode(196560, 24, 0.5, "Leech lattice, minimal vectors", True, _SHARP, _QUARTERS),
    _layer(512, 16, 1 / 3, (-1, -1 / 3, 0, 1 / 3)),
    _layer(576, 17, 1 / 3, (-1, -1 / 3, 0, 1 / 3)),
    _layer(1024, 17, 5 / 13, (-11 / 13, -7 / 13, -3 / 13, 1 / 13, 5 / 13)),
    _layer(704, 18, 1 / 3, (-1, -1 / 3, 0, 1 / 3)),
    _layer(1632, 18, 2 / 5, (-4 / 5, -1 / 2, -1 / 5, 1 / 10, 2 / 5)),
    _layer(2048, 18, 3 / 7, (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7)),
    _layer(896, 19, 1 / 3, (-1, -1 / 3, 0, 1 / 3)),
    _layer(2432, 19, 11 / 27, (-7 / 9, -13 / 27, -5 / 27, 1 / 9, 11 / 27)),
    _layer(3328, 19, 3 / 7, (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7)),
    _layer(1280, 20, 1 / 3, (-1, -1 / 3, 0, 1 / 3)),
    _layer(5120, 20, 3 / 7, (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7)),
    _layer(7680, 21, 3 / 7, (-5 / 7, -3 / 7, -1 / 7, 1 / 7, 3 / 7)),
    _layer(10752, 21, 13 / 29, (-19 / 29, -11 / 29, -3 / 29, 5 / 29, 13 / 29)),
    _layer(20736, 22, 5 / 11, (-7 / 11, -4 / 11, -1 / 11, 2 / 11, 5 / 11)),
    _layer(47104, 23, 7 / 15, (-3 / 5, -1 / 3, -1 / 15, 1 / 5, 7 / 15)),
)  # fmt: skip


def best_known(num_vectors: int, dim: int) -> KnownCode | None:
    """The known code with the smallest largest cosine that provides K vectors in R^D, or None.

    A code with more vectors or fewer dimensions also counts, as a subset or by embedding; the result then has the
    code's own K and D, and `optimal` refers to those.
    Raises: DimensionError unless K >= 2 and D >= 1.
    """
    if num_vectors < 2 or dim < 1:
        raise DimensionError(f"a code needs K >= 2 vectors in D >= 1 dimensions; got K={num_vectors}, D={dim}.")
    small = _small(num_vectors, dim)
    if small is not None:
        return small
    candidates = [code for code in _up_to(dim) if code.num_vectors >= num_vectors]
    # for equal cosines the size decides, so that a code of exactly K vectors in R^D is preferred
    return min(candidates, key=lambda code: (round(code.cosine, 12), code.num_vectors, -code.dim), default=None)


def _small(num_vectors: int, dim: int) -> KnownCode | None:
    """The code of exactly K vectors for K <= 2D or D <= 2; None otherwise."""
    if num_vectors <= dim + 1:
        cosine = -1 / (num_vectors - 1)
        return KnownCode(num_vectors, dim, cosine, "simplex ETF", True, "attains Rankin's bound", (cosine,))
    if dim == 1:
        return None
    if dim == 2:
        products = tuple(math.cos(2 * math.pi * j / num_vectors) for j in range(num_vectors // 2, 0, -1))
        return KnownCode(num_vectors, 2, products[-1], "regular polygon", True, "K arcs share a circle", products)
    if num_vectors <= 2 * dim:
        return KnownCode(num_vectors, dim, 0.0, "orthoplex", True, "attains Rankin's bound", (-1.0, 0.0))
    return None


def listed_codes() -> tuple[KnownCode, ...]:
    """Single codes: the exact ones, then the rows of published tables; families are not enumerated."""
    return (*_EXACT, *_table())


def tabulated_codes() -> tuple[KnownCode, ...]:
    """Codes in tables of spherical codes, without kissing configurations and tightframe's own codes."""
    return tuple(code for code in listed_codes() if not _ADDED.search(code.source))


@lru_cache(maxsize=64)
def _up_to(dim: int) -> tuple[KnownCode, ...]:
    families = (*_kerdock(dim), *_gold(dim), *_generalised_quadrangles(dim))
    return tuple(code for code in (*listed_codes(), *families) if code.dim <= dim)


@lru_cache(maxsize=1)
def _table() -> tuple[KnownCode, ...]:
    with resources.files("tightframe.certificate").joinpath("known_codes.csv").open(encoding="utf-8") as lines:
        return tuple(
            KnownCode(
                K := int(row["num_vectors"]), D := int(row["dim"]), float(row["cosine"]),
                f"({K}, {D}) code", row["status"] == "optimal", row["source"],
            )
            for row in csv.DictReader(lines)
        )  # fmt: skip


def _kerdock(dim: int) -> Iterator[KnownCode]:
    """D/2 + 1 orthonormal bases in D = 4^m dimensions, and the punctured code of their sign vectors."""
    m = 2
    while (D := 4**m) - 1 <= dim:
        cosine = 1 / 2**m
        proven = m <= 5  # the semidefinite bounds were computed up to D = 1024
        yield KnownCode(
            D * (D + 2), D, cosine, "Kerdock code", proven,
            _KERDOCK_PROOF if proven else "Kerdock 1972; Cameron & Seidel 1973", (-1.0, -cosine, 0.0, cosine),
        )  # fmt: skip
        yield _punctured(D, D**2 // 2, (-cosine, 0.0, cosine), "punctured Kerdock code", "Kerdock 1972")
        m += 1


def _gold(dim: int) -> Iterator[KnownCode]:
    """D + 1 orthonormal bases in D = 2^m dimensions, m odd, with their negatives; one is the standard basis."""
    m = 3
    while (D := 2**m) - 1 <= dim:
        cosine = 2.0 ** (-(m - 1) / 2)
        flat = D**-0.5  # between a sign vector and a unit vector
        yield KnownCode(
            2 * D * (D + 1), D, cosine, "Gold code", False, "Gold 1968", (-1.0, -cosine, -flat, 0.0, flat, cosine)
        )
        yield _punctured(D, D**2, (-cosine, 0.0, cosine), "punctured Gold code", "Gold 1968")
        m += 2


def _punctured(D: int, num_vectors: int, products: tuple[float, ...], name: str, source: str) -> KnownCode:
    """The sign vectors with equal entries in one of D coordinates, without that coordinate."""
    shifted = tuple((D * product - 1) / (D - 1) for product in products)
    return KnownCode(num_vectors, D - 1, shifted[-1], name, False, source, shifted)


def _generalised_quadrangles(dim: int) -> Iterator[KnownCode]:
    """The points of the quadrangles GQ(q, q^2), q a prime power: sharp codes; q = 2 is Schläfli's."""
    q = 2
    while (D := q * (q * q - q + 1)) <= dim:
        if _is_prime_power(q):
            yield KnownCode(
                (q + 1) * (q**3 + 1), D, 1 / q**2,
                "Schläfli code" if q == 2 else f"generalised quadrangle GQ({q}, {q**2})",
                True, _SHARP, (-1 / q, 1 / q**2),
            )  # fmt: skip
        q += 1


def _is_prime_power(q: int) -> bool:
    prime = next(p for p in range(2, q + 1) if q % p == 0)
    while q % prime == 0:
        q //= prime
    return q == 1
