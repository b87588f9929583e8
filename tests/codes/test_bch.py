"""Extended BCH codes: fields by loops, all weights of small codes, the smallest weight of large ones, and prefixes."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from tightframe.codes import CODES, Code, best_built, best_listed, certify, table
from tightframe.codes.exact.bch import bch, generators, punctured_bch
from tightframe.codes.table import _BCH
from tightframe.errors import RangeError

SIZES = [(D, bits) for D, sizes in _BCH.items() for bits in sizes]
COUNTED = [(D, bits) for D, bits in SIZES if len(_BCH[D][bits]) > 1]


def row(D: int, bits: int) -> Code:
    return CODES[f"bch-{D}-{bits}"]


def packed(D: int, bits: int) -> np.ndarray:
    """The generators as 64-bit words, (bits, D / 64)."""
    ones = (generators(D, bits) < 0).numpy().astype(np.uint8)
    return np.packbits(np.pad(ones, ((0, 0), (0, -D % 64))), axis=1).view(np.uint64)


def sums(words: np.ndarray) -> np.ndarray:
    """All sums of words, (2^bits, D / 64)."""
    total = np.zeros((1, words.shape[1]), dtype=np.uint64)
    for word in words:
        total = np.concatenate([total, total ^ word])
    return total


def weights(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1).sum(-1, dtype=np.int64)


def powers_of_x(degree: int) -> list[int]:
    """The powers of a primitive element of GF(2^m), by polynomials modulo each candidate."""
    for tail in range(1, 2**degree):
        powers = [1]
        while len(powers) < 2**degree:
            power = powers[-1] << 1
            power = power ^ (2**degree | tail) if power >> degree else power
            if power in (0, 1):
                break
            powers.append(power)
        if len(powers) == 2**degree - 1:
            return powers
    raise AssertionError


@pytest.mark.parametrize(("D", "bits"), SIZES)
def test_words_have_the_zeros_of_the_designed_distance(D: int, bits: int) -> None:
    """Sum of c(x) x^i over x != 0 vanishes for i = 1, ..., d - 2: at least d - 1 ones, and d with the parity x = 0."""
    powers, distance = powers_of_x(D.bit_length() - 1), _BCH[D][bits][0]
    words = (generators(D, bits) < 0).tolist()
    for word in words:
        assert sum(word) % 2 == 0
        logs = [log for log, x in enumerate(powers) if word[x]]
        for i in range(1, distance - 1):
            syndrome = 0
            for log in logs:
                syndrome ^= powers[log * i % (D - 1)]
            assert syndrome == 0
    leading: dict[int, int] = {}
    for word in words:
        rest = int("".join(str(int(bit)) for bit in word), 2)
        while rest and rest.bit_length() in leading:
            rest ^= leading[rest.bit_length()]
        assert rest, "the generators are independent"
        leading[rest.bit_length()] = rest


@pytest.mark.parametrize(
    ("D", "bits"), [pytest.param(*size, marks=pytest.mark.slow if size[1] > 18 else ()) for size in COUNTED]
)
def test_listed_weights_are_all_weights(D: int, bits: int) -> None:
    words = packed(D, bits)
    half, present = sums(words[: min(bits, 16)]), set()
    for shift in sums(words[16:]) if bits > 16 else [np.zeros(words.shape[1], dtype=np.uint64)]:
        present |= set(np.unique(weights(half ^ shift)).tolist())
    listed = _BCH[D][bits]
    assert present == {0, D, *listed, *(D - weight for weight in listed)}


def smallest_weight(D: int, bits: int, target: int) -> int:
    """The smallest weight of sums of few words among systematic generators, by elimination in random orders."""
    rows = [int("".join(map(str, word)), 2) for word in (generators(D, bits) < 0).int().tolist()]
    random, least = np.random.default_rng(0), D
    for attempt in range(30):
        pivot = 0
        for column in random.permutation(D).tolist():
            one = next((i for i in range(pivot, bits) if rows[i] >> column & 1), None)
            if one is None:
                continue
            rows[pivot], rows[one] = rows[one], rows[pivot]
            rows = [each ^ rows[pivot] if i != pivot and each >> column & 1 else each for i, each in enumerate(rows)]
            pivot += 1
        for count in (1, 2, 3) if attempt % 3 == 2 else (1, 2):
            for few in itertools.combinations(rows, count):
                total = 0
                for each in few:
                    total ^= each
                least = min(least, total.bit_count())
                if least <= target:
                    return least
    return least


@pytest.mark.parametrize(("D", "bits"), SIZES)
def test_the_designed_distance_is_attained(D: int, bits: int) -> None:
    distance = _BCH[D][bits][0]
    assert smallest_weight(D, bits, distance) == distance
    assert row(D, bits).cosine == 1 - 2 * distance / D
    assert row(D - 1, bits - 1).cosine == pytest.approx(1 - 2 * distance / (D - 1), abs=1e-15)


def gram_by_words(words: np.ndarray, D: int) -> Tensor:
    return torch.from_numpy(1 - 2 * weights(words[:, None] ^ words) / D)


@pytest.mark.parametrize("D", [32, 128])
def test_vectors_are_the_words(D: int) -> None:
    vectors = bch(D, 300)
    torch.testing.assert_close(vectors @ vectors.T, gram_by_words(sums(packed(D, 9))[:300], D), rtol=0, atol=1e-12)
    assert certify(vectors[: 2 * D], one_vs_rest=False).max_cosine == pytest.approx(0, abs=1e-12)
    shortened = punctured_bch(D - 1, 2000)
    full = torch.cat([shortened * (D - 1) ** 0.5, torch.ones(2000, 1)], dim=1) / D**0.5
    words = bch(D, 4000)
    assert float((full @ words.T).amax(1).min()) < 1 + 1e-12
    cosines = (shortened @ shortened.T).fill_diagonal_(-1)
    allowed = row(D - 1, {32: 20, 128: 21}[D]).inner_products
    assert allowed is not None
    apart = (cosines[..., None] - torch.tensor(allowed, dtype=torch.float64)).abs().amin(-1)
    assert float(apart.fill_diagonal_(0).max()) < 1e-12


@pytest.mark.parametrize("build", [bch, punctured_bch])
def test_fewer_vectors_are_the_first_ones(build: object) -> None:
    D = 64 if build is bch else 63
    assert callable(build)
    whole = build(D, 70_000)
    for n in (1, 2, 63, 64, 65, 128, 129, 40_000):
        assert torch.equal(build(D, n), whole[:n])


@pytest.mark.parametrize(("D", "bits"), SIZES)
def test_a_sample_has_the_cosine_at_most(D: int, bits: int) -> None:
    for entry in (row(D, bits), row(D - 1, bits - 1)):
        vectors = entry.vectors(2000)
        assert vectors.shape == (2000, entry.D) and float((vectors.square().sum(1) - 1).abs().max()) < 1e-12
        assert float((vectors @ vectors.T).fill_diagonal_(-1).max()) <= entry.cosine + 1e-12


def test_many_vectors_in_128_dimensions() -> None:
    for look in (best_listed, best_built):
        assert look(100_000, 128).name == "bch-127-21" and look(3_000_000, 128).name == "bch-128-22"
        assert look(100_000, 128).cosine == pytest.approx(31 / 127, abs=1e-15)
    assert best_built(100_000, 128).vectors(100_000).shape == (100_000, 127)


def test_whole_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RangeError, match=r"1,099,511,627,776 vectors in 512 dimensions needs .* GB of memory"):
        row(512, 40).vectors()


def test_no_other_row_is_as_good() -> None:
    rows = table._up_to(1024)
    for D, bits in SIZES:
        for entry in (row(D, bits), row(D - 1, bits - 1)):
            for other in rows:
                beaten = other.K >= entry.K and other.D <= entry.D and other.cosine <= entry.cosine + 1e-12
                assert other is entry or not beaten, (entry, other)
