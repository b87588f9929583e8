"""Starts from exact codes: unit vectors of the right number, the best first, and again those that did best."""

import itertools
import sys

import pytest
import torch
from torch import Tensor

from tightframe.codes import CODES
from tightframe.codes.search.caps import Layers
from tightframe.codes.search.energy import largest_cosines
from tightframe.codes.search.from_codes import FilledLayers, cap_batches, thinned_code


@pytest.fixture
def few_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["tightframe.codes.search.from_codes"], "_LAYER_CODES", 3)


def are_unit(points: Tensor) -> bool:
    return torch.allclose(points.norm(dim=-1), torch.ones(points.shape[:-1], dtype=points.dtype), atol=1e-6)


def test_caps_come_in_turn_from_the_codes_around() -> None:
    drawn = cap_batches(100, 16, seed=0)
    starts = [next(drawn) for _ in range(4)]
    assert [start.name for start in starts[:2]] == ["cap of the kerdock-16", "cap of the barnes-wall-512"]
    for start in starts:
        assert start.representatives.shape == (8, 100, 16) and are_unit(start.representatives)


def test_caps_of_far_larger_codes_come_last() -> None:
    """Sections of 512 vectors in 16 dimensions, before caps of 2,014 in 15."""
    drawn = cap_batches(491, 15, seed=0)
    names = [next(drawn).name for _ in range(4)]
    assert names[0] == "section of the barnes-wall-512" and names[3] == "cap of the halves-2014"


def test_no_codes_no_starts() -> None:
    assert next(cap_batches(3000, 3, seed=0), None) is None
    assert FilledLayers(3000, 3, 2.0, seed=0).draw() is None


@pytest.mark.usefixtures("few_codes")
def test_filled_layers_are_sets_of_k_unit_vectors() -> None:
    layers = FilledLayers(100, 14, unit=1.2, seed=0, seconds=1.0)
    start = layers.draw()
    assert start is not None
    assert start.representatives.shape[1:] == (100, 14) and are_unit(start.representatives)
    assert len(start.names) == len(start.representatives) and start.names[0] == start.name


@pytest.mark.usefixtures("few_codes")
def test_the_most_promising_layers_come_first() -> None:
    layers = FilledLayers(1000, 16, unit=1.4, seed=0, seconds=1e-3)  # so little time that starts come one by one
    given = itertools.count(0, -1)
    layers._energies = lambda points, stop: torch.tensor([float(next(given)) for _ in points])  # type: ignore[method-assign]
    layers._look()
    cosines = [some.cosine for some in layers._queue]
    assert len(cosines) > 1 and cosines == sorted(cosines)  # given the least energy: the last, with fewest points


def test_a_code_with_its_holes_filled_stays_in_front() -> None:
    """296 = 288 + 8: Kerdock's code with its deepest holes filled beats whatever layers there are."""
    layers = FilledLayers(296, 16, unit=1.3, seed=0, seconds=0.1)
    start = layers.draw()
    assert start is not None
    assert "filled kerdock-16" in start.names
    member = start.representatives[start.names.index("filled kerdock-16")]
    kept = largest_cosines(member[None, :288])
    assert abs(float(kept) - 0.25) < 1e-6


def test_a_code_of_a_few_more_points_starts_without_its_crowded_ones() -> None:
    """The 512 even and 224 odd sign vectors have neighbours at the largest cosine; the odd ones have more."""
    start = thinned_code(642, 14)
    assert start is not None and start.name == "thinned halves-764"
    (points,) = start.representatives
    sizes = (points != 0).sum(dim=1)
    assert [int((sizes == size).sum()) for size in (14, 6, 1)] == [512, 224 - 122, 28]
    assert thinned_code(500, 14) is None  # 764 are too many
    assert thinned_code(240, 8) is None  # the roots of E8 need no thinning


def test_layers_are_looked_for_until_none_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    module = sys.modules["tightframe.codes.search.from_codes"]
    monkeypatch.setattr(
        module, "complete_layers", lambda code, *rest: looked.append(code.name) or [Layers(code.build(240), 0.5, "all")]
    )
    layers = FilledLayers(240, 8, unit=2.0, seed=0)
    monkeypatch.setattr(layers, "_codes", [CODES["e8"]])
    assert layers.draw() is not None
    assert [layers.draw() for _ in range(3)] == [None] * 3
    assert looked == ["e8", "e8"]


def test_a_look_for_layers_ends_in_time() -> None:
    """The clock moves with every draw and step, so that the first code takes all the time for drawing."""
    clock = itertools.count(0, 0.1)
    layers = FilledLayers(100, 14, unit=1.2, seed=0, seconds=40, clock=lambda: float(next(clock)), limit=30)
    start = layers.draw()
    assert start is not None and next(clock) < 32  # half of the time to look, then at most 10 seconds to fill holes
    assert {name.removeprefix("filled layers of the ") for name in start.names} == {layers._codes[0].name}
