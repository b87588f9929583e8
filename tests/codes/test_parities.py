"""Polytopes as codes: the Walsh transform by loops, parities of words, and the distances of the chosen checks."""

import torch
from torch.testing import assert_close

from tightframe.codes.exact.polytopes import _parity_signs, _walsh, hypercube, parities


def test_walsh_transform_by_loops() -> None:
    values = torch.arange(16, dtype=torch.float64).square() - 3
    slow = [sum(values[x] * (-1) ** (x & y).bit_count() for x in range(16)) for y in range(16)]
    assert_close(_walsh(values), torch.stack(slow))


def test_parity_of_large_words() -> None:
    words = [0, 1, 2**40 + 1, 2**62 + 2**33 + 2**5, 2**63 - 1]
    assert _parity_signs(torch.tensor(words)).tolist() == [(-1.0) ** word.bit_count() for word in words]


def test_distances_are_those_of_the_corners() -> None:
    masks, distances = parities(4, 9)
    assert len(masks) == 9
    for dim in range(4, 10):
        corners = hypercube(16, dim).sign()
        apart = (corners[:, None] != corners).sum(2).fill_diagonal_(dim)
        assert int(apart.min()) == distances[dim - 1]
