"""Groups of rotations: their laws, orbits of the right sizes, and starts that are what they say."""

import numpy as np
import pytest
import torch

from tightframe.codes.search import starts
from tightframe.codes.search.orbits import Group, GroupOrbits, groups, random_representation, random_shapes
from tightframe.codes.search.sphere import unit

GROUPS = [Group(2, 1), Group(5, 1), Group(5, 4), Group(7, 2), Group(8, 3), Group(9, 4), Group(13, 3)]


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_representations_multiply_like_the_group(group: Group) -> None:
    elements = group.elements
    place = {element: index for index, element in enumerate(elements)}
    for maps in group.irreducible():
        assert np.allclose(np.einsum("gab,gcb->gac", maps, maps), np.eye(maps.shape[1]), atol=1e-12)
        for g, (a, b) in enumerate(elements):
            for h, (c, d) in enumerate(elements):
                product = place[a * c % group.modulus, (a * d + b) % group.modulus]
                assert np.allclose(maps[g] @ maps[h], maps[product], atol=1e-12)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_irreducible_representations_are_all_there(group: Group) -> None:
    """The sum of d^2 / (dimension of the commutant), which is 1, 2 or 4 over the reals, is the group's order."""
    total = 0.0
    for maps in group.irreducible():
        characters = np.einsum("gaa->g", maps)
        total += maps.shape[1] ** 2 / float((characters**2).mean())
    assert total == pytest.approx(group.order, abs=1e-9)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_cosets_cover_the_group_once(group: Group) -> None:
    for shape in group.shapes():
        assert shape.transversal[0] == 0
        assert len(shape.stabiliser) * len(shape.transversal) == group.order
    sizes = [len(shape.transversal) for shape in group.shapes()]
    assert sizes[0] == group.order and min(sizes) == 1


@pytest.mark.parametrize(
    ("group", "num_points", "dim"), [(Group(7, 2), 30, 7), (Group(5, 4), 17, 4), (Group(4, 1), 9, 3)]
)
def test_orbits_are_invariant_and_of_the_right_size(group: Group, num_points: int, dim: int) -> None:
    chance = np.random.default_rng(1)
    shapes = random_shapes(group, num_points, chance)
    maps = random_representation(group, dim, chance)
    assert shapes is not None and maps is not None
    representations = torch.from_numpy(maps)[None]
    orbits = GroupOrbits(representations, shapes)
    draw = torch.randn(1, len(shapes), dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    representatives = orbits.project(draw)
    torch.testing.assert_close(orbits.project(representatives), representatives)  # a projection
    points = orbits.expand(representatives)[0]
    assert len(points) == num_points
    torch.testing.assert_close(points[orbits.own], representatives[0])
    for map_ in representations[0]:
        nearest = torch.cdist(points @ map_.T, points).amin(1)
        assert float(nearest.max()) < 1e-7  # every image is one of the points


def test_groups_are_distinct_and_within_the_limit() -> None:
    found = groups(24)
    assert all(2 <= group.order <= 24 for group in found)
    assert len({(group.modulus, frozenset(a for a, _ in group.elements)) for group in found}) == len(found)
    assert {"Z2", "Z5:2", "Z7:3", "Z5:4"} <= {str(group) for group in found}


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
        torch.testing.assert_close(unit(expanded), expanded)
        tell(0.5)
