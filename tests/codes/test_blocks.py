"""Blocks of constant-weight codes: none shares all but one coordinate with another, and their number is the largest."""

import itertools

import pytest

from tightframe.codes.exact import blocks


@pytest.mark.parametrize(("dim", "size"), blocks.BLOCKS)
def test_blocks_are_apart_and_as_many_as_can_be(dim: int, size: int) -> None:
    found = blocks._packing(dim, size)
    assert len(set(found)) == blocks.BLOCKS[dim, size]
    for block in found:
        assert len(set(block)) == size and set(block) <= set(range(dim))
    for one, two in itertools.combinations(found, 2):
        assert len(set(one) & set(two)) <= size - 2


@pytest.mark.parametrize(("dim", "size"), blocks.BLOCKS)
def test_as_many_blocks_as_johnsons_bound_allows(dim: int, size: int) -> None:
    """Johnson 1962: A(n, 4, w) <= n/w A(n-1, 4, w-1), from A(n, 4, 1) = 1, and A(n, 4, w) = A(n, 4, n - w).

    Triples are one fewer than that for n = 5 modulo 6 (Spencer 1968).
    """

    def bound(n: int, w: int) -> int:
        return 1 if w == 1 else n * bound(n - 1, w - 1) // w - (w == 3 and n % 6 == 5)

    assert blocks.BLOCKS[dim, size] == min(bound(dim, size), bound(dim, dim - size))


def test_the_cycles_cover_all_coordinates() -> None:
    assert set(blocks._CYCLES) == set(blocks.BLOCKS)
    for (dim, _), cycles in blocks._CYCLES.items():
        assert sum(cycles) == dim
