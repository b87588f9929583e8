"""Polytopes as codes: the Walsh transform by loops, parities of words, and the distances of the chosen checks."""

import pytest
import torch
from torch.testing import assert_close

from tightframe.codes.exact import polytopes
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


def greedy_parities(bits: int, dim: int) -> tuple[list[int], list[int]]:
    """`parities` by loops over words and masks, without its repetition."""
    size = 2**bits
    weights, masks, distances = [0] * size, [], []
    for _ in range(dim):
        nearest = min(weights[1:])
        rate = 1 if nearest > 0 else bits
        urgency = [0.0] + [2.0 ** (-rate * (weight - nearest)) for weight in weights[1:]]
        gains = [sum(urgency[word] for word in range(size) if (word & mask).bit_count() % 2) for mask in range(size)]
        masks.append(next(mask for mask in range(size) if gains[mask] > max(gains) - 1e-9))
        weights = [weight + (word & masks[-1]).bit_count() % 2 for word, weight in enumerate(weights)]
        distances.append(min(weights[1:]))
    return masks, distances


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_parities_repeat_themselves(bits: int) -> None:
    assert parities(bits, 5 * 2**bits) == greedy_parities(bits, 5 * 2**bits)


def test_many_dimensions_cost_no_more_checks_than_two_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(polytopes, "_walsh", lambda values: calls.append(len(values)) or _walsh(values))
    corners = hypercube(3, 100_000)
    assert calls == 6 * [4]  # each of the three parities of two bits twice
    distances = [int((corners[i] != corners[j]).sum()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert max(distances) - min(distances) <= 1 and sum(distances) == 2 * 100_000
