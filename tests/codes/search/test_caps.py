"""Caps of exact codes: the nearest points, by sorting in a loop, and reproducible starts."""

import itertools
from dataclasses import replace

import pytest
import torch

from tightframe.codes import CODES
from tightframe.codes.search import caps
from tightframe.codes.search.caps import Layers, cap, cap_starts, complete_layers, section_starts, undominated


def test_cap_holds_the_nearest_points() -> None:
    vectors = CODES["e8"].build(240)
    direction = torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0], dtype=torch.float64).sqrt()  # no ties
    found = cap(vectors, direction, 50)
    order = sorted(range(240), key=lambda k: (-float(vectors[k] @ direction), k))
    assert torch.equal(found, vectors[order[:50]])


def test_cap_about_a_point_is_its_kissing_layer() -> None:
    vectors = CODES["e8"].build(240)
    found = cap(vectors, vectors[17], 57)
    assert torch.equal(found[0], vectors[17])
    assert torch.allclose(found[1:] @ vectors[17], torch.full((56,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("name", ["kerdock-16", "petersen", "gold-127"])
def test_starts_are_varied_parts_of_the_code(name: str) -> None:
    code = CODES[name]
    K = min(9, code.K)
    starts = list(cap_starts(code, K, seed=5, count=9))
    points = {tuple(row) for row in code.build(min(code.K, caps.ENTRIES // code.D)).tolist()}
    assert len(starts) == 9
    for start in starts:
        rows = {tuple(row) for row in start.tolist()}
        assert start.shape == (K, code.D) and len(rows) == K and rows <= points
    assert len({tuple(sorted(map(tuple, start.tolist()))) for start in starts}) > 4


def test_starts_are_the_seeds() -> None:
    first, again, other = (list(cap_starts(CODES["e8"], 100, seed, 8)) for seed in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_starts_of_huge_codes_use_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "ENTRIES", 2**20)
    built = []
    code = CODES["kerdock-1024"]
    counting = replace(code, build=lambda n: built.append(n) or code.build(n))
    assert next(cap_starts(counting, 10, 0, 1)).shape == (10, 1024)
    assert next(cap_starts(counting, 1500, 0, 1)).shape == (1500, 1024)
    assert built == [1024, 1500]


@pytest.mark.parametrize(("name", "K", "D"), [("kerdock-16", 100, 14), ("e8", 40, 7), ("24-cell", 12, 3)])
def test_sections_are_unit_vectors_in_fewer_dimensions(name: str, K: int, D: int) -> None:
    starts = list(section_starts(CODES[name], K, D, seed=3, count=6))
    again = list(section_starts(CODES[name], K, D, seed=3, count=6))
    assert all(torch.equal(first, second) for first, second in zip(starts, again, strict=True))
    for vectors in starts:
        assert vectors.shape == (K, D)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(K, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_layer_of_a_section_is_a_code_of_its_own() -> None:
    """The 56 points of E8 at 60 degrees from a pole are Gosset's; the 126 orthogonal to one are the roots of E7."""
    equator = next(section_starts(CODES["e8"], 126, 7, seed=8, count=1))
    smallest = min(
        float((vectors @ vectors.T).fill_diagonal_(-1).max())
        for seed in range(20)
        for vectors in section_starts(CODES["e8"], 56, 7, seed, 2)
    )
    assert smallest == pytest.approx(1 / 3, abs=1e-4)  # they are shaken by as much
    assert equator.shape == (126, 7)


def largest_cosine(vectors: torch.Tensor) -> float:
    return float((vectors @ vectors.T).fill_diagonal_(-1).max())


def test_complete_layers_of_caps_are_whole_shells() -> None:
    """About a root of E8 lie itself, 56 others at 60 degrees, 126 at 90, 56 at 120, and its opposite."""
    found = complete_layers(CODES["e8"], 183, 8, seed=0, draws=40)
    sizes = {len(layers.points) for layers in found}
    assert max(sizes) == 183 and min(sizes) >= 46
    for layers in found:
        assert layers.cosine == pytest.approx(largest_cosine(layers.points), abs=1e-6)
        assert layers.name == "layers of the e8"


def test_complete_layers_of_sections_are_codes() -> None:
    """E8 holds Gosset's 56 points and the 126 roots of E7, each at one height above a plane of seven dimensions."""
    found = {len(layers.points): layers for layers in complete_layers(CODES["e8"], 130, 7, seed=0, draws=100)}
    assert found[56].cosine == pytest.approx(1 / 3, abs=1e-6)
    assert found[126].cosine == pytest.approx(1 / 2, abs=1e-6)
    assert all(layers.points.shape[1] == 7 for layers in found.values())


def test_no_layers_dominate_others() -> None:
    found = complete_layers(CODES["kerdock-16"], 250, 14, seed=1, draws=50)
    assert len(found) > 5
    for one, two in itertools.pairwise(found):
        assert one.cosine < two.cosine and len(one.points) < len(two.points)
    again = complete_layers(CODES["kerdock-16"], 250, 14, seed=1, draws=50)
    assert all(torch.equal(one.points, two.points) for one, two in zip(found, again, strict=True))


def test_a_small_code_is_one_whole_layer() -> None:
    (whole,) = complete_layers(CODES["e8"], 283, 8, seed=0, draws=5)
    assert torch.equal(whole.points, CODES["e8"].build(240)) and whole.name == "e8"


def test_undominated_prefers_more_vectors_at_equal_cosine() -> None:
    few, many, worse = (Layers(torch.ones(n, 3), cosine, "") for n, cosine in ((5, 0.5), (7, 0.5), (6, 0.6)))
    assert undominated([few, worse, many]) == [many]
