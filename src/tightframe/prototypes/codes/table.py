"""The exact codes as a table: what each one is, and how to build its first n vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.prototypes.codes import bases, golden, lattices, quadrics
from tightframe.prototypes.codes.blocks import BLOCKS, signed_blocks
from tightframe.prototypes.embedding import embedded, require_room
from tightframe.prototypes.value import Prototypes


@dataclass(frozen=True)
class Code:
    """K unit vectors in exactly D dimensions, the largest cosine known in closed form."""

    name: str
    K: int
    D: int
    cosine: float
    build: Callable[[int], Tensor]
    """The first n vectors, (n, D) float64, for n <= K."""
    source: str
    antipodal: bool
    """Whether -x is in the code with every x."""


CGS = "Cameron, Goethals & Seidel 1978, Strongly regular graphs having strongly regular subconstituents"
DGS = "Delsarte, Goethals & Seidel 1977, Spherical codes and designs"
LEECH = "Conway & Sloane 1999, Sphere packings, lattices and groups"
KERDOCK = (
    "Calderbank, Cameron, Kantor & Seidel 1997, Z4-Kerdock codes, orthogonal spreads and extremal Euclidean line-sets"
)
CONSTANT_WEIGHT = "Brouwer, Shearer, Sloane & Smith 1990, A new table of constant weight codes, with all signs"
GOLD = "Gold 1968, Maximal recursive sequences with 3-valued recursive cross-correlation functions"


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


def _whole(points: Callable[[], Tensor]) -> Callable[[int], Tensor]:
    return lambda n: points()[:n].clone()  # a clone, lest a few vectors keep all of them in memory


def _e8(
    name: str, K: int, cosine: float, poles: list[list[int]], products: list[int], source: str, antipodal: bool = False
) -> Code:
    points = _whole(lambda: lattices.e8_layer(poles, products))
    return Code(name, K, 8 - len(products), cosine, points, source, antipodal)


def _leech(
    name: str,
    K: int,
    cosine: float,
    poles: list[list[int]],
    products: list[int],
    source: str = LEECH,
    antipodal: bool = False,
    long: bool = False,
) -> Code:
    points = _whole(lambda: lattices.leech_layer(poles, products, long=long))
    return Code(name, K, 24 - len(products), cosine, points, source, antipodal)


def _quadric(q: int, prime: int, degree: int) -> Code:
    points = _whole(lambda: quadrics.elliptic_quadric(prime, degree))
    return Code(f"quadric-{q}", (q + 1) * (q**3 + 1), q * (q**2 - q + 1), 1 / q**2, points, CGS, False)


def _blocks(dim: int, size: int) -> Code:
    name = {4: "quadruples", 5: "quintuples"}[size]
    number = 2 * dim + 2**size * BLOCKS[dim, size]
    points = _whole(lambda: signed_blocks(dim, size))
    return Code(f"{name}-{dim}", number, dim, (size - 2) / size, points, CONSTANT_WEIGHT, True)


def _kerdock(dim: int) -> tuple[Code, Code]:
    root = math.isqrt(dim)
    return (
        Code(f"kerdock-{dim}", dim * (dim + 2), dim, 1 / root, lambda n: bases.kerdock(dim, n), KERDOCK, True),
        Code(
            f"kerdock-{dim - 1}", dim**2 // 2, dim - 1, 1 / (root + 1),
            lambda n: bases.punctured_kerdock(dim - 1, n), KERDOCK, False,
        ),
    )  # fmt: skip


def _gold(dim: int) -> tuple[Code, Code]:
    root = math.isqrt(2 * dim)
    return (
        Code(f"gold-{dim}", 2 * dim * (dim + 1), dim, 2 / root, lambda n: bases.gold(dim, n), GOLD, True),
        Code(
            f"gold-{dim - 1}", dim**2, dim - 1, (root - 1) / (dim - 1),
            lambda n: bases.punctured_gold(dim - 1, n), GOLD, False,
        ),
    )  # fmt: skip


CODES: dict[str, Code] = {
    code.name: code
    for code in (
        Code("icosahedron", 12, 3, 5**-0.5, _whole(golden.icosahedron), "Fejes Tóth 1943", True),
        Code("24-cell", 24, 4, 0.5, _whole(golden.cell_24), "Schläfli 1852", True),
        Code("600-cell", 120, 4, golden.COS_36, _whole(golden.cell_600), "Böröczky 1978", True),
        # one pole after the other, at 60 degrees from all before; the points at 60 degrees from every pole
        Code("e8", 240, 8, 1 / 2, _whole(lambda: lattices.e8() / 2**0.5), "Levenshtein 1979", True),
        _e8("gosset", 56, 1 / 3, [], [1], DGS, antipodal=True),
        _e8("schlafli", 27, 1 / 4, [[1]], [1, 1], DGS),
        _e8("hemicube", 16, 1 / 5, [[1], [1, 1]], [1, 1, 1], DGS),
        _e8("petersen", 10, 1 / 6, [[1], [1, 1], [1, 1, 1]], [1, 1, 1, 1], "Bachoc & Vallentin 2009"),
        # the points at 90 degrees: kissing configurations
        _e8("e7", 126, 1 / 2, [], [0], LEECH, antipodal=True),
        _e8("e6", 72, 1 / 2, [[1]], [0, 0], LEECH, antipodal=True),
        Code("d5", 40, 5, 1 / 2, _whole(lambda: lattices.roots(5) / 2**0.5), LEECH, True),
        *(_blocks(dim, size) for dim, size in BLOCKS),
        Code("leech", 196_560, 24, 1 / 2, _whole(lambda: lattices.leech() / 2), "Levenshtein 1979", True),
        _leech("leech-4600", 4600, 1 / 3, [], [2], DGS, antipodal=True),
        _leech("leech-891", 891, 1 / 4, [[2]], [2, 2], DGS),
        _leech("leech-93150", 93_150, 1 / 2, [], [0], antipodal=True),
        _leech("leech-49896", 49_896, 1 / 2, [[2]], [0, 0], antipodal=True),
        _leech("leech-27720", 27_720, 1 / 2, [[2], [2, 2]], [0, 0, 0], antipodal=True),
        _leech("leech-17400", 17_400, 1 / 2, [[2], [2, 0], [2, 0, 0]], [0, 0, 0, 0], antipodal=True),
        _leech("barnes-wall", 4320, 1 / 2, _diagram("E", 8), [0] * 8, antipodal=True),
        # with poles that make a root lattice, times the root of 2: vectors as far from it as a short one of its dual
        _leech("barnes-wall-512", 512, 1 / 3, _diagram("E", 8), _at(8, 6), antipodal=True),
        _leech("leech-1024", 1024, 5 / 13, _diagram("E", 7), _at(7, 5)),
        _leech("leech-576", 576, 1 / 3, _diagram("E", 7), _at(7, 0), antipodal=True),
        _leech("leech-2048", 2048, 3 / 7, _diagram("D", 6), _at(6, 0)),
        _leech("leech-1632", 1632, 2 / 5, _diagram("E", 6), _at(6, 0)),
        _leech("leech-704", 704, 1 / 3, _diagram("E", 6), _at(6, 5), antipodal=True),
        _leech("leech-3328", 3328, 3 / 7, _diagram("D", 5), _at(5, 0)),
        _leech("leech-2432", 2432, 11 / 27, _diagram("D", 5), _at(5, 4)),
        _leech("leech-896", 896, 1 / 3, _diagram("D", 5), _at(5, 1), antipodal=True),
        _leech("leech-5120", 5120, 3 / 7, _diagram("D", 4), _at(4, 0)),
        _leech("leech-1280", 1280, 1 / 3, _diagram("D", 4), _at(4, 1), antipodal=True),
        _leech("leech-10752", 10_752, 13 / 29, _diagram("A", 3), _at(3, 0)),
        _leech("leech-7680", 7680, 3 / 7, _diagram("A", 3), _at(3, 1)),
        _leech("leech-20736", 20_736, 5 / 11, _diagram("A", 2), _at(2, 0)),
        _leech("leech-47104", 47_104, 7 / 15, [], _at(1, 0)),
        # about a vector of squared length 6: the 276 equiangular lines, and in them McLaughlin's graph...
        _leech("leech-552", 552, 1 / 5, [], [3], DGS, antipodal=True, long=True),
        _leech("mclaughlin", 275, 1 / 6, [[3]], [3, 2], DGS, long=True),
        _leech("mclaughlin-162", 162, 1 / 7, [[3], [3, 2]], [3, 2, 2], CGS, long=True),
        # ... and Higman's and Sims', with the graphs that it contains
        _leech("higman-sims", 100, 1 / 11, [[2]], [3, 2], DGS, long=True),
        _leech("m22", 77, 1 / 12, [[2], [3, 2]], [3, 2, 2], CGS, long=True),
        _leech("gewirtz", 56, 1 / 15, [[2], [3, 2], [3, 2, 1]], [3, 2, 2, 2], CGS, long=True),
        _leech("hoffman-singleton", 50, 1 / 21, [[2], [3, 1]], [3, 2, 2], CGS, long=True),
        *(_quadric(*parameters) for parameters in ((3, 3, 1), (4, 2, 2), (5, 5, 1), (7, 7, 1))),
        *(code for dim in (16, 64, 256, 1024) for code in _kerdock(dim)),
        *(code for dim in (32, 128, 512, 2048) for code in _gold(dim)),
    )
}  # fmt: skip
"""Every exact code by name. `codes_for` looks for those of use for some K and D."""


def code(
    name: str,
    num_classes: int | None = None,
    *,
    dim: int | None = None,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """An exact code, or its first K vectors, times `scale`, padded with zeros to `dim` columns.

    Kerdock and Gold codes come one orthonormal basis (or, punctured, simplex) after the other, so that few vectors are
    as far apart as can be; the order of the others promises nothing, and `cap` cuts better.
    Raises: ChoiceError for a name that isn't in `CODES`, DimensionError unless 2 <= num_classes <= the code's K and
    dim >= its D, RangeError unless scale is positive and finite.

    >>> from tightframe.prototypes.codes import code
    >>> code("petersen").vectors.shape
    torch.Size([10, 4])
    """
    require_choice(name, CODES, "code", table="tightframe.prototypes.CODES")
    chosen = CODES[name]
    num_classes = chosen.K if num_classes is None else num_classes
    dim = chosen.D if dim is None else dim
    require_room(f"the code {name!r}", num_classes, dim, chosen.K, "K")
    vectors = embedded(chosen.build(num_classes), dim, scale=scale, device=device, dtype=dtype)
    provenance = {"constructor": "code", "name": name, "num_classes": num_classes, "dim": dim, "scale": scale}
    return Prototypes(vectors, {**provenance, "source": chosen.source})


def codes_for(num_classes: int, dim: int) -> list[Code]:
    """The exact codes that hold K vectors and fit in D dimensions, the smallest largest cosine first."""
    fitting = [code for code in CODES.values() if num_classes <= code.K and dim >= code.D]
    return sorted(fitting, key=lambda code: (code.cosine, code.K, code.D))
