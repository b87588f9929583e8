"""The mean of row maxima: its smoothing against loops, what the search reaches, and where the objective collapses."""

import math
import re
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fake_clock import Clock
from tightframe.codes.search.running import Progress
from tightframe.errors import DimensionError, GeometryWarning, RangeError
from tightframe.prototypes import Prototypes, best, equiangular, softmax_code
from tightframe.prototypes.hyperspherical import MeanRowMaximum, hyperspherical, mean_row_maximum

MODULE = sys.modules["tightframe.prototypes.hyperspherical"]  # the package offers the function of that name


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def mean_by_loops(points: Tensor) -> float:
    rows = points.tolist()
    maxima = [
        max(sum(a * b for a, b in zip(x, y, strict=True)) for j, y in enumerate(rows) if j != i)
        for i, x in enumerate(rows)
    ]
    return math.fsum(maxima) / len(maxima)


def smooth_by_loops(points: Tensor, p: float) -> Tensor:
    total = points.new_zeros(())
    for i in range(len(points)):
        others = [(points[i] @ points[j] * p).exp() for j in range(len(points)) if j != i]
        total = total + torch.stack(others).sum().log() / p
    return total / len(points)


@pytest.mark.parametrize("tile", [1 << 24, 2 * 7 * 3, 1])
def test_value_and_gradient_against_loops_in_any_tiling(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_TILE", tile)
    points = drawn(2, 7, 3)
    exponents = torch.tensor([1.5, 20.0], dtype=torch.float64)
    values, gradients = MeanRowMaximum(exponents)(points)
    for r, p in enumerate(exponents.tolist()):
        leaf = points[r].clone().requires_grad_()
        expected = smooth_by_loops(leaf, p)
        (gradient,) = torch.autograd.grad(expected, leaf)
        assert_close(values[r], expected.detach(), rtol=1e-12, atol=0)
        assert_close(gradients[r], gradient, rtol=1e-12, atol=1e-14)
        assert float(mean_row_maximum(points[r])) == pytest.approx(mean_by_loops(points[r]), abs=1e-14)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (3, 2), (4, 5), (10, 9), (100, 120)])
def test_simplex(num_classes: int, dim: int) -> None:
    prototypes = hyperspherical(num_classes, dim)
    assert prototypes.vectors.shape == (num_classes, dim)
    cosines = prototypes.vectors @ prototypes.vectors.mT
    expected = torch.full_like(cosines, -1 / (num_classes - 1)).fill_diagonal_(1)
    assert_close(cosines, expected, rtol=0, atol=1e-12)
    assert prototypes.provenance["mean_max_cosine"] == pytest.approx(-1 / (num_classes - 1), abs=1e-13)
    assert prototypes.provenance["rounds"] == 1


def test_five_in_space_do_better_than_the_orthoplex() -> None:
    # a pole and a square at latitude -t: (4 sin^2 t - sin t) / 5, least at sin t = 1/8
    prototypes = hyperspherical(5, 3, rounds=1)
    smoothing = math.log(4) / 1e5  # at the last exponent
    assert prototypes.provenance["mean_max_cosine"] == pytest.approx(-1 / 80, abs=smoothing)
    assert prototypes.provenance["mean_max_cosine"] == pytest.approx(mean_by_loops(prototypes.vectors), abs=1e-14)
    assert prototypes.certificate.mean_max_cosine == pytest.approx(-1 / 80, abs=smoothing)


def test_icosahedron() -> None:
    assert hyperspherical(12, 3, rounds=2).provenance["mean_max_cosine"] == pytest.approx(1 / math.sqrt(5), abs=1e-9)


def published(num_classes: int, dim: int, steps: int) -> float:
    """Gradient steps with momentum and renormalisation, as the authors do."""
    points = drawn(num_classes, dim).requires_grad_()
    optimiser = torch.optim.SGD([points], lr=0.1, momentum=0.9)
    twice = 2 * torch.eye(num_classes, dtype=torch.float64)
    for _ in range(steps):
        optimiser.zero_grad()
        (points @ points.mT - twice).amax(1).mean().backward()
        optimiser.step()
        with torch.no_grad():
            points.copy_(torch.nn.functional.normalize(points, dim=1))
    return mean_by_loops(points.detach())


@pytest.mark.parametrize(
    ("num_classes", "dim", "reached"), [(20, 5, 0.2995), pytest.param(100, 16, 0.2069, marks=pytest.mark.slow)]
)
def test_better_than_the_published_recipe(num_classes: int, dim: int, reached: float) -> None:
    ours = hyperspherical(num_classes, dim, rounds=1).provenance["mean_max_cosine"]
    assert ours < reached
    assert ours < published(num_classes, dim, 1000) - 0.01


def test_classes_coincide_on_the_circle() -> None:
    # three or four lone corners and the rest in one place: 4/7, less than cos(2 pi / 7) = .623
    with pytest.warns(GeometryWarning, match=r"for example \d and \d, .*use prototypes\.separated\(\d, 2\)") as record:
        prototypes = hyperspherical(7, 2, rounds=4, seed=0)
    assert record[0].filename == __file__
    assert prototypes.provenance["mean_max_cosine"] == pytest.approx(4 / 7, abs=1e-4)
    i, j = map(int, re.findall(r"for example (\d) and (\d)", str(record[0].message))[0])
    assert i != j
    assert float(prototypes.vectors[i] @ prototypes.vectors[j]) == pytest.approx(1, abs=1e-6)


def test_seed_and_rounds_decide() -> None:
    assert hyperspherical(9, 3, rounds=2, seed=5) == hyperspherical(9, 3, rounds=2, seed=5)
    assert not torch.equal(hyperspherical(9, 3, rounds=1, seed=5).vectors, hyperspherical(9, 3, rounds=1).vectors)


@pytest.mark.parametrize("construct", [hyperspherical, softmax_code, equiangular])
def test_a_warm_start_keeps_its_shape(construct: Callable[..., Prototypes], monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with the highest exponent; others melt first. Without descent the result is the best start itself."""
    given: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(
        sys.modules["tightframe.codes.search.anneal"],
        "descend",
        lambda points, energy, **_: given.append((energy.exponents, points)) or points,
    )
    start = best(9, 3, rounds=0).vectors
    made = construct(9, 3, rounds=1, warm_start=start)
    exponents, points = given[0]
    assert_close(points[exponents.argmax(), :9], start)
    assert made.provenance["start"] == "warm start or free"
    if construct is hyperspherical:
        assert_close(made.vectors, start)


def test_more_rounds_are_never_worse_and_time_ends_a_search(clock: Clock) -> None:
    values = [hyperspherical(11, 4, rounds=rounds).provenance["mean_max_cosine"] for rounds in (1, 3)]
    assert values[1] <= values[0]
    seen: list[Progress] = []
    clock.tick = 0.002
    late = hyperspherical(60, 8, time=0.3, progress=seen.append)
    assert late.provenance["rounds"] >= 1
    assert 0.3 < seen[-1].seconds < 0.4
    assert [step.score for step in seen] == sorted((step.score for step in seen), reverse=True)


def test_an_interrupted_search_returns_its_best() -> None:
    seen: list[Progress] = []

    def stop(step: Progress) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise KeyboardInterrupt

    prototypes = hyperspherical(9, 3, progress=stop)
    assert prototypes.provenance["interrupted"] is True
    assert prototypes.provenance["mean_max_cosine"] == seen[-1].score
    assert mean_by_loops(prototypes.vectors) == pytest.approx(seen[-1].score, abs=1e-14)


def test_unit_lengths() -> None:
    prototypes = hyperspherical(6, 3, rounds=1)
    assert_close(prototypes.vectors.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_what_it_refuses() -> None:
    with pytest.raises(DimensionError, match="num_classes must be at least 2; got 1"):
        hyperspherical(1, 3)
    with pytest.raises(DimensionError, match="dim must be at least 1; got 0"):
        hyperspherical(3, 0)
    with pytest.raises(DimensionError, match="at most two unit vectors on a line; got 3 with dim=1"):
        hyperspherical(3, 1)
    with pytest.raises(RangeError, match="time must be a positive number of seconds; got 0"):
        hyperspherical(9, 3, time=0)
    with pytest.raises(RangeError, match="rounds must be at least 1 for a search; got 0"):
        hyperspherical(9, 3, rounds=0)
