"""Figures of prototypes: what they show is computed again, slowly, and compared with what matplotlib holds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tightframe.codes import certify
from tightframe.prototypes.exact import code
from tightframe.prototypes.polytopes import orthoplex, polygon
from tightframe.prototypes.simplex import simplex
from tightframe.render.prototype_figures import principal_plane, prototype_figure, save_figure


def figure(vectors: torch.Tensor):  # type: ignore[no-untyped-def]
    return prototype_figure(vectors, certify(vectors, one_vs_rest=False))


def test_the_gram_matrix_holds_the_cosines() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(7, 4, dtype=torch.float64)
    image = figure(vectors).axes[0].images[0]
    shown = np.ma.filled(image.get_array(), np.nan)
    for i in range(7):
        for j in range(7):
            cosine = float(vectors[i] @ vectors[j] / vectors[i].norm() / vectors[j].norm())
            assert math.isnan(shown[i, j]) if i == j else shown[i, j] == pytest.approx(cosine, abs=1e-12)
    low, high = image.get_clim()
    assert low == -high  # white is a right angle
    assert high == pytest.approx(np.nanmax(np.abs(shown)))


def test_the_angles_have_lines_for_the_smallest_the_tables_and_the_bound() -> None:
    vectors = code("petersen").vectors.clone()
    vectors[0, 0] += 0.05
    certificate = certify(vectors)
    axes = prototype_figure(vectors, certificate).axes[1]
    assert sum(patch.get_height() for patch in axes.patches) == 45
    expected = [certificate.min_angle, math.degrees(math.acos(1 / 6)), math.degrees(math.acos(certificate.bound.value))]
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx(expected, abs=1e-9)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"smallest {expected[0]:.3f}°",
        "best in the table 80.406°",
        f"Levenshtein bound {expected[2]:.3f}°",
    ]
    low, high = axes.get_xlim()
    assert low < min(expected) and max(expected) < high


def test_a_circle_of_labelled_vectors() -> None:
    vectors = polygon(5).vectors
    axes = figure(3 * vectors).axes[2]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), vectors.numpy(), atol=1e-15)
    assert [text.get_text() for text in axes.texts] == list("01234")
    assert axes.get_title() == "Directions of 5 vectors"


def test_vectors_that_coincide_share_a_label() -> None:
    vectors = torch.tensor([[1.0, 0], [0, 1], [2, 0]])
    assert [text.get_text() for text in figure(vectors).axes[2].texts] == ["0, 2", "1"]


def test_a_sphere_with_its_contacts() -> None:
    axes = figure(code("icosahedron").vectors).axes[2]
    assert axes.name == "3d"
    assert axes.get_title() == "12 vectors and 30 contacts"  # the icosahedron's edges
    assert len(axes.lines) == 30
    for line in axes.lines:
        start, end = np.array(line.get_data_3d()).T
        assert start @ end == pytest.approx(5**-0.5, abs=1e-12)


def test_a_projection_says_so() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 6).double() * torch.tensor([5, 4, 1, 1, 1, 1]))
    axes = figure(vectors).axes[2]
    assert axes.get_title() == "40 vectors projected onto\nthe first two principal directions"
    values = torch.linalg.eigvalsh(vectors.mT @ vectors)
    share = (values[-2:].sum() / values.sum()).item()
    assert axes.texts[0].get_text().startswith(f"{share:.1%} of the squared lengths")


def test_the_simplex_is_projected_to_a_regular_polygon() -> None:
    for pose in ("canonical", "haar"):
        points, what = principal_plane(simplex(10, 12, pose=pose).vectors)
        assert what == "2 of 9 equal principal directions"
        expected = math.sqrt(2 / 9) * polygon(10).vectors  # two ninths of the squared lengths
        torch.testing.assert_close(points, expected, rtol=0, atol=1e-12)


def test_a_direction_that_is_better_than_its_ties_stays() -> None:
    scales = torch.tensor([2.0, 1, 1, 1]).double()
    vectors = orthoplex(8).vectors * scales
    points, what = principal_plane(vectors)
    assert what == "2 of 4 principal directions"
    assert points[:, 0].abs().tolist() == pytest.approx([2, 0, 0, 0, 2, 0, 0, 0])
    assert points[:, 1].square().sum().item() == pytest.approx(2)


def test_of_many_vectors_a_part_is_shown_and_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    drawn = figure(torch.randn(3000, 20))
    gram, angles, picture, _ = drawn.axes
    assert gram.images[0].get_array().shape == (512, 512)
    assert gram.get_title() == "Cosines of 512 of 3,000 vectors, without the diagonal"
    assert angles.get_title() == "Angles of 1,000,000 random pairs of 4,498,500"
    assert sum(patch.get_height() for patch in angles.patches) == 1_000_000
    assert picture.get_title().startswith("2,000 of 3,000 vectors projected onto")
    assert len(picture.collections[0].get_offsets()) == 2000


@pytest.mark.parametrize(("K", "D"), [(2, 1), (5, 1), (2, 2), (31, 2), (2, 3), (40, 3), (4, 4), (30, 5)])
def test_any_size_can_be_drawn_without_a_warning(tmp_path: Path, K: int, D: int) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(K, D)
    save_figure(vectors, certify(vectors), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
