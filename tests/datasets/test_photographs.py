import sys

import pytest
import torch

from tightframe.datasets.outside import photograph_patches
from tightframe.datasets.source import with_channels
from tightframe.errors import MissingExtraError, ShapeError

pytest.importorskip("PIL", reason="scikit-learn reads its photographs with Pillow")


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 28, 28), (3, 5, 9)])
def test_patches(image_shape: tuple[int, int, int]) -> None:
    patches = photograph_patches(50, image_shape, seed=3)
    assert patches.shape == (50, *image_shape)
    assert patches.dtype == torch.float32
    assert patches.min() >= 0
    assert patches.max() <= 1
    assert torch.all(patches.flatten(1).amax(1) > patches.flatten(1).amin(1))  # none is constant
    assert len({tuple(patch.flatten().tolist()) for patch in patches}) == 50
    assert torch.equal(patches, photograph_patches(50, image_shape, seed=3))
    assert not torch.equal(patches, photograph_patches(50, image_shape, seed=4))


def test_more_patches_begin_with_the_same_ones() -> None:
    assert torch.equal(photograph_patches(20, (1, 8, 8))[:5], photograph_patches(5, (1, 8, 8)))


def test_the_global_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    photograph_patches(3, (1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_patch_of_the_whole_height_is_a_crop_of_a_photograph() -> None:
    from sklearn.datasets import load_sample_images

    (patch,) = photograph_patches(1, (3, 427, 640))  # no room for another place or scale
    assert any(torch.equal(patch, torch.tensor(image).permute(2, 0, 1) / 255) for image in load_sample_images().images)


def test_a_patch_is_the_mean_of_a_crop_of_one_to_eight_times_its_size() -> None:
    from sklearn.datasets import load_sample_images

    pixels = photograph_patches(12, (3, 1, 1)).view(12, 3, 1, 1)  # one pixel: one mean
    images = [torch.tensor(image).permute(2, 0, 1) / 255.0 for image in load_sample_images().images]
    blocks = [[torch.nn.functional.avg_pool2d(image, side, stride=1) for image in images] for side in range(1, 9)]
    sides = []
    for pixel in pixels:
        distances = [min(float((block - pixel).abs().amax(0).min()) for block in some) for some in blocks]
        assert min(distances) < 1e-6
        sides.append(distances.index(min(distances)) + 1)
    assert len(set(sides)) > 3  # at different scales


def test_grey_is_luma() -> None:
    colour, grey = photograph_patches(4, (3, 6, 6)).double(), photograph_patches(4, (1, 6, 6)).double()
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    torch.testing.assert_close(grey[:, 0], luma, rtol=1e-6, atol=0)


def test_grey_to_colour_repeats() -> None:
    grey = torch.rand(2, 1, 3, 3)
    assert torch.equal(with_channels(grey, 3), torch.cat([grey, grey, grey], dim=1))


@pytest.mark.parametrize(
    ("count", "image_shape", "message"),
    [
        (0, (1, 8, 8), "count must be at least 1; got 0"),
        (1, (2, 8, 8), r"\(1 or 3, H, W\) .* got \(2, 8, 8\)"),
        (1, (1, 0, 8), r"\(1 or 3, H, W\) .* got \(1, 0, 8\)"),
        (1, (8, 8), r"\(1 or 3, H, W\) .* got \(8, 8\)"),
        (1, (1, 428, 8), "at most 427 high and 640 wide; got 428 by 8"),
        (1, (1, 8, 641), "at most 427 high and 640 wide; got 8 by 641"),
    ],
)
def test_what_cannot_be_had(count: int, image_shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        photograph_patches(count, image_shape)


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("PIL", "pillow")])
def test_without_a_package(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"{package}.*demo"):
        photograph_patches(1, (1, 8, 8))
