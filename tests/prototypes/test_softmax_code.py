"""Softmax codes: the saddle function against loops and the exact distances, and the check values of known codes."""

import math
import sys

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fake_clock import Clock
from tightframe.codes import smallest_one_vs_rest
from tightframe.codes.search.running import Progress
from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes.softmax_code import OneVsRestMargin, proven_distance, softmax_code

MODULE = sys.modules["tightframe.prototypes.softmax_code"]  # the package offers the function of that name


def unit_points(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def excesses(points: Tensor) -> list[Tensor]:
    vectors, normals = points.chunk(2)
    num = len(vectors)
    return [(vectors[j] - vectors[k]) @ normals[k] for k in range(num) for j in range(num) if j != k]


def test_value_and_gradient_against_loops() -> None:
    points = unit_points(2, 10, 3)
    exponents = torch.tensor([2.0, 30.0], dtype=torch.float64)
    values, gradients = OneVsRestMargin(exponents)(points)
    for r, p in enumerate(exponents.tolist()):
        leaf = points[r].clone().requires_grad_()
        expected = torch.stack([(p * excess).exp() for excess in excesses(leaf)]).sum().log() / p
        (gradient,) = torch.autograd.grad(expected, leaf)
        assert_close(values[r], expected.detach(), rtol=1e-12, atol=0)
        assert_close(gradients[r], gradient, rtol=1e-12, atol=1e-14)
        assert proven_distance(points[r]) == pytest.approx(-max(map(float, excesses(points[r]))), abs=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_normals_never_prove_more_than_the_distance_and_the_best_prove_all(seed: int) -> None:
    vectors = unit_points(8, 4, seed=seed)
    distance = float(smallest_one_vs_rest(vectors))
    points = torch.cat([vectors, unit_points(8, 4, seed=100 + seed)])
    assert proven_distance(points) <= distance + 1e-12
    assert proven_distance(torch.cat([vectors, vectors])) <= distance + 1e-12


@pytest.mark.parametrize(
    ("num_classes", "dim", "distance"),
    [
        *((k, d, k / (k - 1)) for k, d in [(2, 1), (3, 2), (7, 6), (5, 9)]),
        *((k, d, 1.0) for k, d in [(4, 2), (5, 3), (6, 3), (9, 5)]),
        *((k, 2, 1 - math.cos(2 * math.pi / k)) for k in (5, 8, 13)),
    ],
)
def test_known_optima(num_classes: int, dim: int, distance: float) -> None:
    prototypes = softmax_code(num_classes, dim)
    assert prototypes.vectors.shape == (num_classes, dim)
    assert float(smallest_one_vs_rest(prototypes.vectors)) == pytest.approx(distance, abs=1e-12)
    assert prototypes.provenance["one_vs_rest"] == pytest.approx(distance, abs=1e-12)
    assert prototypes.provenance["rounds"] == 1 and prototypes.provenance["exact"] is True


@pytest.mark.parametrize(
    ("num_classes", "dim", "rounds", "distance"),
    [(12, 3, 1, 1 - 1 / math.sqrt(5)), (16, 5, 2, 0.8), (27, 6, 1, 0.75)],  # 1 - the largest cosine of sharp codes
)
def test_the_search_finds_sharp_codes(num_classes: int, dim: int, rounds: int, distance: float) -> None:
    prototypes = softmax_code(num_classes, dim, rounds=rounds)
    assert prototypes.provenance["one_vs_rest"] == pytest.approx(distance, abs=1e-9)
    assert float(smallest_one_vs_rest(prototypes.vectors)) == pytest.approx(distance, abs=1e-9)


@pytest.mark.parametrize(
    ("num_classes", "dim", "distance"), [(4, 3, 4 / 3), (6, 3, 1.0), (5, 3, 1.0), (8, 2, 1 - math.sqrt(0.5))]
)
def test_the_search_alone_finds_what_is_known(
    num_classes: int, dim: int, distance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "polytope", lambda K, D: None)
    prototypes = softmax_code(num_classes, dim, rounds=1)
    assert prototypes.provenance["start"] == "free"
    assert prototypes.provenance["one_vs_rest"] == pytest.approx(distance, abs=2e-5)


def test_seven_in_space_beat_other_codes() -> None:
    found = softmax_code(7, 3, rounds=1).provenance["one_vs_rest"]
    assert found == pytest.approx(0.789859, abs=1e-5)  # 1 - cos 77.8695 degrees, the best angle of seven
    assert max(float(smallest_one_vs_rest(unit_points(7, 3, seed=seed))) for seed in range(50)) < found


def test_without_the_exact_distance_the_normals_prove_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LIMIT_SECONDS", 0.0)
    prototypes = softmax_code(9, 3, rounds=1)
    assert prototypes.provenance["exact"] is False
    exact = float(smallest_one_vs_rest(prototypes.vectors))
    assert exact - 1e-4 < prototypes.provenance["one_vs_rest"] <= exact + 1e-12


def test_the_exact_distance_is_part_of_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.tick = 1e-3
    monkeypatch.setattr(MODULE, "one_vs_rest_seconds", lambda K, D: 0.4)
    assert softmax_code(9, 3, time=1).provenance["exact"] is True
    assert 0.6 < clock.now < 0.7
    assert softmax_code(9, 3, time=0.7).provenance["exact"] is False  # it would take more than half of the time


def test_seed_and_rounds_decide() -> None:
    assert softmax_code(9, 3, rounds=2, seed=5) == softmax_code(9, 3, rounds=2, seed=5)
    assert not torch.equal(softmax_code(9, 3, rounds=1, seed=5).vectors, softmax_code(9, 3, rounds=1).vectors)


def test_an_interrupted_search_returns_its_best() -> None:
    seen: list[Progress] = []

    def stop(step: Progress) -> None:
        seen.append(step)
        if len(seen) == 4:
            raise KeyboardInterrupt

    prototypes = softmax_code(9, 3, progress=stop)
    assert prototypes.provenance["interrupted"] is True and prototypes.vectors.shape == (9, 3)
    assert prototypes.provenance["one_vs_rest"] >= -seen[-1].score - 1e-12


def test_what_it_refuses() -> None:
    with pytest.raises(DimensionError, match="num_classes must be at least 2; got 1"):
        softmax_code(1, 3)
    with pytest.raises(DimensionError, match="on a line; got 3 with dim=1"):
        softmax_code(3, 1)
    with pytest.raises(RangeError, match="rounds must be at least 1 for a search; got 0"):
        softmax_code(3, 2, rounds=0)
