"""Equiangular basis vectors: known systems of lines, alphas that are and aren't reached, and impossible ones."""

import math
import re

import pytest
import torch
from torch.testing import assert_close

from fake_clock import Clock
from tightframe.codes.bounds import coherence_bound
from tightframe.codes.search.running import Progress
from tightframe.errors import DimensionError, RangeError, SearchWarning
from tightframe.prototypes.equiangular import coherence, equiangular
from tightframe.prototypes.value import Prototypes


def coherence_by_loops(prototypes: Prototypes) -> float:
    rows = torch.nn.functional.normalize(prototypes.vectors.double(), dim=1)
    return max(abs(float(rows[i] @ rows[j])) for i in range(len(rows)) for j in range(i))


@pytest.mark.parametrize(
    ("num_classes", "dim", "expected"),
    [(3, 2, 1 / 2), (6, 3, 1 / math.sqrt(5)), (10, 5, 1 / 3), (16, 6, 1 / 3), (28, 7, 1 / 3)],
)
def test_equiangular_lines(num_classes: int, dim: int, expected: float) -> None:
    prototypes = equiangular(num_classes, dim, rounds=4)
    assert prototypes.vectors.shape == (num_classes, dim)
    assert coherence_by_loops(prototypes) == pytest.approx(expected, abs=1e-12)
    assert prototypes.provenance["coherence"] == pytest.approx(expected, abs=1e-12)
    assert prototypes.provenance["reached"] is True  # all meet their bounds
    assert prototypes.certificate.coherence == pytest.approx(expected, abs=1e-12)
    cosines = (prototypes.vectors @ prototypes.vectors.mT).fill_diagonal_(expected)
    assert_close(cosines.abs(), torch.full_like(cosines, expected), rtol=0, atol=1e-9)  # every pair


@pytest.mark.parametrize("alpha", [None, 0.0, 0.3])
def test_as_many_dimensions_as_classes(alpha: float | None) -> None:
    prototypes = equiangular(4, 6, alpha)
    assert torch.equal(prototypes.vectors, torch.eye(4, 6, dtype=torch.float64))
    assert prototypes.provenance["coherence"] == 0 and prototypes.provenance["reached"] is True


def test_the_first_vectors_within_alpha_end_the_search() -> None:
    prototypes = equiangular(30, 8, 0.5, rounds=5)
    assert coherence_by_loops(prototypes) <= 0.5 + 1e-12
    assert prototypes.provenance["reached"] is True and prototypes.provenance["rounds"] == 1
    assert prototypes.provenance["alpha"] == 0.5


def test_alpha_that_is_not_reached() -> None:
    # five lines in space come no closer than six, 1/sqrt(5), though the bound is lower
    assert coherence_bound(5, 3).value < 0.42
    message = r"ended at a largest \|cosine\| of 0\.447214, above alpha=0\.42.*with time= or rounds=, or raise alpha"
    with pytest.warns(SearchWarning, match=message) as record:
        prototypes = equiangular(5, 3, 0.42, rounds=1)
    assert record[0].filename == __file__
    assert prototypes.provenance["reached"] is False
    assert coherence_by_loops(prototypes) == pytest.approx(1 / math.sqrt(5), abs=1e-9)
    assert equiangular(5, 3, rounds=1).provenance["reached"] is False  # silent: nothing was asked for


def test_large_sizes_go_without_polishing(clock: Clock) -> None:
    clock.tick = 0.005
    prototypes = equiangular(64, 24, rounds=1, time=1.0)
    assert 2 * 64 * 24 > 3000
    assert coherence_bound(64, 24).value <= coherence_by_loops(prototypes) < 0.25
    assert prototypes.provenance["coherence"] == pytest.approx(coherence_by_loops(prototypes), abs=1e-12)


def test_coherence() -> None:
    points = torch.nn.functional.normalize(
        torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert coherence(points) == pytest.approx(coherence_by_loops(Prototypes(points)), abs=1e-14)
    assert coherence(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == 1


def test_seed_and_rounds_decide() -> None:
    assert equiangular(9, 3, rounds=2, seed=5) == equiangular(9, 3, rounds=2, seed=5)
    assert not torch.equal(equiangular(9, 3, rounds=1, seed=5).vectors, equiangular(9, 3, rounds=1).vectors)


def test_an_interrupted_search_returns_its_best() -> None:
    seen: list[Progress] = []

    def stop(step: Progress) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise KeyboardInterrupt

    prototypes = equiangular(9, 4, progress=stop)
    assert prototypes.provenance["interrupted"] is True
    assert coherence_by_loops(prototypes) == pytest.approx(seen[-1].score, abs=1e-12)


def test_impossible_alphas_name_the_bound() -> None:
    message = (
        r"^alpha must be at least 0\.333333 for 28 vectors in 7 dimensions, by the .* bound \(.*\); got 0\.33\. "
        r"Raise alpha, increase dim, or reduce num_classes\.$"
    )
    with pytest.raises(DimensionError, match=message):
        equiangular(28, 7, 0.33)
    bound = coherence_bound(40, 4)
    message = rf"at least {bound.value:.6f} for .* by the {bound.name} bound \({re.escape(bound.source)}\)"
    with pytest.raises(DimensionError, match=message):
        equiangular(40, 4, bound.value - 1e-3)
    for alpha in (-0.1, 1.0, math.nan):
        with pytest.raises(RangeError, match=r"alpha must be a largest \|cosine\| in \[0, 1\); got"):
            equiangular(4, 3, alpha)


def test_what_it_refuses() -> None:
    with pytest.raises(DimensionError, match="num_classes must be at least 2; got 1"):
        equiangular(1, 3)
    with pytest.raises(DimensionError, match="on a line; got 3 with dim=1"):
        equiangular(3, 1)
    with pytest.raises(RangeError, match="time must be a positive number of seconds; got -1"):
        equiangular(3, 2, time=-1)
