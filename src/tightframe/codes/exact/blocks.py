"""Signed blocks: vectors (±1, ..., ±1) on w coordinates, for a largest family of sets that share at most w - 2.

Two vectors on one block, or on blocks that share w - 2 coordinates, have cosine (w - 2)/w at most; the unit vectors
±e_i are added. For w = 4 these are kissing configurations: in 9 to 12 dimensions few known arrangements of spheres
touch a central one in more places. The blocks are orbits of a permutation of the coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from tightframe.codes.exact.lattices import signs

Block = tuple[int, ...]

BLOCKS = {(9, 4): 18, (10, 4): 30, (11, 4): 35, (12, 4): 51, (9, 5): 18, (10, 5): 36, (11, 5): 66}
"""{(D, w): largest number of blocks A(D, 4, w)}: Johnson's bound of 1962.

Source: Brouwer, Shearer, Sloane & Smith 1990, A new table of constant weight codes.
"""
_CYCLES = {(9, 4): (3, 3, 3), (10, 4): (10,), (11, 4): (6, 3, 2), (12, 4): (6, 6),
           (9, 5): (8, 1), (10, 5): (8, 2), (11, 5): (11,)}  # fmt: skip
"""Cycles of a permutation of the coordinates that leaves some largest family of blocks invariant."""


def signed_blocks(dim: int, size: int) -> Tensor:
    """The 2 D vectors ±e_i, then 2^w on each block of w = `size` coordinates: (2 D + 2^w A(D, 4, w), D).

    Source: for w = 4 Conway & Sloane 1999, Sphere packings, lattices and groups, chapter 5 (construction A).
    """
    axes = torch.eye(dim, dtype=torch.float64)
    blocks = [signs(size) / size**0.5 @ axes[list(block)] for block in _packing(dim, size)]
    return torch.cat([axes, -axes, *blocks])


def _packing(dim: int, size: int) -> list[Block]:
    """A(D, 4, w) blocks; no two share w - 1 coordinates."""
    total = BLOCKS[dim, size]
    orbits = [orbit for orbit in _orbits(dim, size) if _apart(orbit[:1], orbit[1:])]
    orbits.sort(key=len, reverse=True)
    friends = [{j for j, other in enumerate(orbits) if _apart(orbit[:1], other)} for orbit in orbits]

    def complete(packing: list[int], number: int, candidates: list[int]) -> list[int] | None:
        """A packing of `total` blocks: the orbits and some of the candidates, by depth-first search; None without."""
        if number == total:
            return packing
        for place, orbit in enumerate(candidates):
            if number + sum(len(orbits[j]) for j in candidates[place:]) < total:
                return None
            later = [j for j in candidates[place + 1 :] if j in friends[orbit]]
            if (whole := complete([*packing, orbit], number + len(orbits[orbit]), later)) is not None:
                return whole
        return None

    whole = complete([], 0, list(range(len(orbits))))
    assert whole is not None, "the permutations were chosen for that"
    return [block for orbit in whole for block in orbits[orbit]]


def _orbits(dim: int, size: int) -> Iterator[list[Block]]:
    image: list[int] = []
    for length in _CYCLES[dim, size]:
        image += [len(image) + (step + 1) % length for step in range(length)]
    visited: set[Block] = set()
    for block in combinations(range(dim), size):
        orbit: list[Block] = []
        while block not in visited:
            visited.add(block)
            orbit.append(block)
            block = tuple(sorted(image[i] for i in block))
        if orbit:
            yield orbit


def _apart(some: list[Block], others: list[Block]) -> bool:
    """Whether no two blocks share all but one coordinate; one block of an orbit represents the orbit."""
    return all(len(set(left) & set(right)) <= len(left) - 2 for left in some for right in others)
