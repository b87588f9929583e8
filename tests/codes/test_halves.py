"""Even and odd sign vectors: their halves, numbers and cosines; and the kissing configuration that is stored."""

import itertools
import math

import pytest
import torch

from tightframe.codes import CODES, certify
from tightframe.codes.exact import halves

SHELLS = {  # by the number of coordinates that are not zero
    "halves-264": {12: 128, 4: 8, 5: 128},
    "halves-304": {13: 256, 5: 48},
    "halves-458": {13: 256, 5: 48, 6: 128, 1: 26},
    "halves-764": {14: 512, 6: 224, 1: 28},
    "halves-960": {14: 512, 6: 224, 3: 224},
    "halves-2014": {15: 1024, 7: 960, 1: 30},
}


def test_halves_are_the_affine_functions() -> None:
    words = {tuple(word) for word in halves.halves().tolist()}
    assert len(words) == 32
    assert sorted(map(sum, words)) == [0, *[8] * 30, 16]
    for one, two in itertools.combinations(words, 2):  # linear
        assert tuple((a + b) % 2 for a, b in zip(one, two, strict=True)) in words


@pytest.mark.parametrize("name", SHELLS)
def test_vectors_have_equal_entries_and_the_cosine_of_the_table(name: str) -> None:
    """So every cosine is an integer over sqrt(w v), for w and v coordinates that are not zero."""
    code = CODES[name]
    vectors = code.vectors()
    assert vectors.shape == (code.K, code.D) and len(vectors.unique(dim=0)) == code.K
    sizes = (vectors != 0).sum(dim=1)
    values, counts = sizes.unique(return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == SHELLS[name]
    entries = vectors.abs() * sizes[:, None].to(vectors).sqrt()
    torch.testing.assert_close(entries, (vectors != 0).to(entries), rtol=0, atol=1e-14)
    assert certify(vectors, one_vs_rest=False).max_cosine == pytest.approx(code.cosine, abs=1e-14)


@pytest.mark.parametrize(("dim", "largest"), [(12, 5), (14, 6)])
def test_signs_are_even_on_all_halves_and_odd_on_their_own(dim: int, largest: int) -> None:
    words = halves.halves()[:, 16 - dim :].tolist()
    vectors = halves.even_and_odd(dim, largest).sign().to(torch.int64).tolist()
    even = [row for row in vectors if 0 not in row]
    assert len(even) == 2 ** (dim - 5)
    for row in even:
        assert all(math.prod(sign for sign, inside in zip(row, word, strict=True) if inside) == 1 for word in words)
    for row in vectors[len(even) :]:
        assert [abs(sign) for sign in row] in words and math.prod(sign for sign in row if sign) == -1


def test_the_stored_configuration_is_exact() -> None:
    certificate = certify(CODES["kissing-593"].vectors(), one_vs_rest=False)
    assert (certificate.num_vectors, certificate.dim) == (593, 11)
    assert 0.5 - 1e-12 < certificate.max_cosine <= 0.5
    assert certificate.min_norm == pytest.approx(1, abs=1e-14) == certificate.max_norm
