"""Groups of rotations: their laws, orbits of the right sizes, and starts that are what they say."""

import numpy as np
import pytest
import torch

from tightframe.codes.search import starts
from tightframe.codes.search.orbits import (
    Group,
    GroupOrbits,
    fitting_shapes,
    groups,
    random_representation,
    random_shapes,
)
from tightframe.numerics import unit_rows

BY_NAME = {group.name: group for family in groups(168) for group in family}
NAMES = ("Z2", "Z5", "Z5:2", "Z7:3", "Z8:2", "Z13:3", "A4", "A5", "Z2xA5", "2^3:7", "3^2:8", "A4xZ5:2")
GROUPS = [BY_NAME[name] for name in NAMES]


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_table_multiplies_permutations(group: Group) -> None:
    elements = [tuple(element) for element in group.elements.tolist()]
    assert len(set(elements)) == len(elements) == group.order and elements[0] == tuple(range(len(elements[0])))
    for g, left in enumerate(elements[:30]):
        for h, right in enumerate(elements):
            assert elements[group.table[g, h]] == tuple(left[image] for image in right)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_representations_multiply_like_the_group(group: Group) -> None:
    for maps in group.irreducible(16):
        assert np.allclose(np.einsum("gab,gcb->gac", maps, maps), np.eye(maps.shape[1]), atol=1e-12)
        for g in range(min(group.order, 30)):
            assert np.allclose(maps[g] @ maps, maps[group.table[g]], atol=1e-12)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_irreducible_representations_are_all_there(group: Group) -> None:
    """The sum of d^2 / (dimension of the commutant), which is 1, 2 or 4 over the reals, is the group's order."""
    total = 0.0
    for maps in group.irreducible(group.order):
        characters = np.einsum("gaa->g", maps)
        total += maps.shape[1] ** 2 / float((characters**2).mean())
    assert total == pytest.approx(group.order, abs=1e-9)
    assert all(maps.shape[1] <= 3 for maps in group.irreducible(3))


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_cosets_cover_the_group_once(group: Group) -> None:
    for shape in group.shapes():
        assert shape.transversal[0] == 0
        assert len(shape.stabiliser) * len(shape.transversal) == group.order
    sizes = [len(shape.transversal) for shape in group.shapes()]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == group.order


@pytest.mark.parametrize(
    ("name", "num_points", "dim"),
    [("Z7:3", 30, 7), ("Z5:2", 17, 4), ("Z4", 9, 3), ("A4", 24, 3), ("A5", 72, 6), ("2^3:7", 70, 7)],
)
def test_orbits_are_invariant_and_of_the_right_size(name: str, num_points: int, dim: int) -> None:
    chance = np.random.default_rng(0)
    maps, shapes = None, None
    while maps is None or shapes is None:
        maps = random_representation(BY_NAME[name], dim, chance)
        if maps is not None:
            shapes = random_shapes(fitting_shapes(BY_NAME[name], maps), num_points, chance)
    assert shapes is not None and maps is not None
    orbits = GroupOrbits(torch.from_numpy(maps), shapes)
    draw = torch.randn(1, len(shapes), dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    representatives = orbits.project(draw)
    torch.testing.assert_close(orbits.project(representatives), representatives)  # a projection
    points = orbits.expand(representatives)[0]
    assert len(points) == num_points
    torch.testing.assert_close(points[orbits.own], representatives[0])
    for map_ in torch.from_numpy(maps):
        nearest = torch.cdist(points @ map_.T, points).amin(1)
        assert float(nearest.max()) < 1e-7  # every image is one of the points


def test_groups_are_within_the_limit() -> None:
    found = [group for family in groups(24) for group in family]
    assert all(2 <= group.order == len(group.elements) <= 24 for group in found)
    assert {"Z2", "Z5:2", "Z7:3", "Z5:4", "A4", "S4", "Z2xA4"} <= {str(group) for group in found}


def test_orbits_of_an_unfaithful_representation_are_left_out() -> None:
    """Their points would coincide."""
    trivial = np.ones((60, 1, 1))
    assert fitting_shapes(BY_NAME["A5"], trivial) == []
    assert random_shapes([], 5, np.random.default_rng(0)) is None


def test_stabilisers_of_orbits_fix_a_direction() -> None:
    """The rotations of the icosahedron have orbits of 12 corners, 20 faces, 30 edges and 60 other points."""
    turned = next(maps for maps in BY_NAME["A5"].irreducible(3) if maps.shape[1] == 3)
    assert {len(shape.transversal) for shape in fitting_shapes(BY_NAME["A5"], turned)} == {12, 20, 30, 60}


def test_starts_have_the_points_they_promise() -> None:
    generator = torch.Generator().manual_seed(0)
    assert starts.free(7, 3, generator).representatives.shape[1:] == (7, 3)
    start = starts.antipodal(8, 3, generator)
    points = start.orbits.expand(start.representatives)
    assert points.shape[1:] == (8, 3)
    torch.testing.assert_close(points[:, :4], -points[:, 4:])
    symmetric = starts.Symmetric(22, 6, generator)
    for _ in range(10):
        drawn = symmetric.draw()
        assert drawn is not None
        start, tell = drawn
        expanded = start.orbits.expand(start.representatives)
        assert expanded.shape[1:] == (22, 6)
        torch.testing.assert_close(unit_rows(expanded), expanded)
        tell(0.5)
