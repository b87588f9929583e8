"""The tiled pass against loops over pairs, its tiles, and angles where cosines lose digits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightframe.codes import cosines, largest_cosine
from tightframe.codes.cosines import Directions, extremes, gram_residual, smallest_angle
from tightframe.errors import DtypeError, NonFiniteError, ShapeError, ZeroVectorError


def uniform(K: int, D: int) -> Tensor:
    return torch.randn(K, D, dtype=torch.float64, generator=torch.Generator().manual_seed(K + D))


def shuffled_antipodal(K: int, D: int) -> Tensor:
    half = uniform(K // 2, D)
    vectors = torch.cat([half, -half, uniform(K % 2, D)])
    return vectors[torch.randperm(K, generator=torch.Generator().manual_seed(1))]


def gram_by_loops(vectors: Tensor) -> list[list[float]]:
    rows = vectors.double().tolist()
    lengths = [math.sqrt(math.fsum(x * x for x in row)) for row in rows]
    return [
        [math.fsum(x * y for x, y in zip(a, b, strict=True)) / (la * lb) for b, lb in zip(rows, lengths, strict=True)]
        for a, la in zip(rows, lengths, strict=True)
    ]


@pytest.fixture(params=[(2, 2), (2, 4), (5, 5), (3, 7), (2048, 4096)], ids=str)
def _tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosines, "TILE", request.param)


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("K", [2, 3, 11, 16, 21, 22])  # 11 and 21 leave one row over
@pytest.mark.parametrize("make", [uniform, shuffled_antipodal])
def test_extremes_against_loops(make: Callable[[int, int], Tensor], K: int) -> None:
    vectors = make(K, 3)
    gram = gram_by_loops(vectors)
    directions = Directions.of(vectors)
    assert (directions.pairs is not None) == (make is shuffled_antipodal and K % 2 == 0)
    found = extremes(directions)
    others = [[x for j, x in enumerate(row) if j != i] for i, row in enumerate(gram)]
    assert found.row_maxima.tolist() == pytest.approx([max(row) for row in others], abs=1e-14)
    assert found.smallest == pytest.approx(min(map(min, others)), abs=1e-14)
    assert found.coherence == pytest.approx(max(abs(x) for row in others for x in row), abs=1e-14)
    for products in ((-0.3,), (-1.0, -0.5, 0.0, 0.5), (0.1, 0.2)):
        residual = max(min(abs(x - product) for product in products) for row in others for x in row)
        assert gram_residual(directions, products) == pytest.approx(residual, abs=1e-14)


def test_antipodal_sets_are_halved_and_near_ones_are_not() -> None:
    vectors = shuffled_antipodal(20, 4)
    halved = Directions.of(vectors)
    assert halved.half.shape == (10, 4)
    assert halved.pairs is not None
    assert torch.equal(torch.cat(halved.pairs).sort().values, torch.arange(20))
    assert torch.equal(halved.unit[halved.pairs[0]], -halved.unit[halved.pairs[1]])
    vectors[3, 1] += 1e-9
    assert Directions.of(vectors).pairs is None


def test_antipodal_set_with_repeated_vectors() -> None:
    vectors = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]]
    found = extremes(Directions.of(torch.cat([vectors, -vectors])))
    assert found.row_maxima.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-13])
def test_small_angles_keep_their_digits(angle: float) -> None:
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [math.cos(angle), 0, math.sin(angle)]], dtype=torch.float64)
    directions = Directions.of(vectors)
    assert smallest_angle(directions, extremes(directions).row_maxima) == pytest.approx(angle, rel=1e-12)


def test_angle_of_near_opposites() -> None:
    vectors = torch.tensor([[1.0, 0], [-math.cos(1e-6), math.sin(1e-6)]], dtype=torch.float64)
    directions = Directions.of(vectors)
    assert math.pi - smallest_angle(directions, extremes(directions).row_maxima) == pytest.approx(1e-6, rel=1e-9)


def test_angle_shared_by_more_pairs_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = torch.arange(100, dtype=torch.float64) * (2 * math.pi / 100)
    directions = Directions.of(torch.stack([turns.cos(), turns.sin()], 1))
    monkeypatch.setattr(cosines, "_CANDIDATES", 50)
    assert smallest_angle(directions, extremes(directions).row_maxima) == pytest.approx(2 * math.pi / 100, rel=1e-11)


def test_lengths_do_not_matter_even_extreme_ones() -> None:
    vectors = uniform(6, 4)
    stretched = vectors * torch.tensor([1e-170, 1e130, 1.0, 1e-300, 5.0, 1e-3], dtype=torch.float64).unsqueeze(1)
    assert largest_cosine(stretched) == pytest.approx(largest_cosine(vectors), abs=1e-14)


def test_float32_is_read_exactly_and_left_alone() -> None:
    vectors = uniform(30, 5).float()
    before = vectors.clone()
    assert largest_cosine(vectors) == largest_cosine(vectors.double())
    assert torch.equal(vectors, before)


def test_progress_rises_to_one() -> None:
    seen: list[float] = []
    extremes(Directions.of(uniform(9000, 2)), seen.append)
    assert seen == sorted(seen)
    assert len(seen) == 5
    assert seen[-1] == 1


def test_an_interruption_gets_out() -> None:
    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extremes(Directions.of(uniform(10, 2)), stop)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (torch.ones(1, 3), ShapeError, r"\(1, 3\)"),
        (torch.ones(3), ShapeError, r"\(3,\)"),
        (torch.ones(3, 0), ShapeError, r"\(3, 0\)"),
        (torch.ones(3, 2, dtype=torch.int64), DtypeError, "int64"),
        (torch.tensor([[1.0, 0], [0, 1], [0, 0]]), ZeroVectorError, "row 2 is zero"),
        (torch.tensor([[1.0, 0], [math.nan, 1]]), NonFiniteError, "row 1 holds nan"),
        (torch.tensor([[1.0, 0], [0, 1], [0, -math.inf]]), NonFiniteError, "row 2 holds -inf"),
    ],
)
def test_bad_vectors(vectors: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        largest_cosine(vectors)
