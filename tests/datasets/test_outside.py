from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tightframe.datasets import DATASETS, OUTSIDE, load, load_outside
from tightframe.datasets.mnist import MNIST
from tightframe.errors import DatasetError, ShapeError


def test_the_table_holds_every_dataset() -> None:
    assert list(OUTSIDE) == ["photographs", "noise", *DATASETS]
    assert all(row.name == name for name, row in OUTSIDE.items())


def test_a_data_set_added_later_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mine", DATASETS["digits"])
    assert list(OUTSIDE)[-1] == "mine"
    assert load_outside("mine", (1, 8, 8), count=3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 28, 28), (1, 13, 6)])
def test_every_source_comes_in_the_shape_asked_for(name: str, image_shape: tuple[int, int, int]) -> None:
    if name in DATASETS and DATASETS[name].locate() is None:
        pytest.skip(f"{name} is not on this machine: {DATASETS[name].origin}")
    if name == "photographs":
        pytest.importorskip("PIL", reason="scikit-learn reads its photographs with Pillow")
    images = load_outside(name, image_shape, count=30, seed=5)
    assert images.shape == (30, *image_shape)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.all(images.flatten(1).amax(1) > images.flatten(1).amin(1))  # none is constant
    assert torch.equal(images, load_outside(name, image_shape, count=30, seed=5))
    assert not torch.equal(images, load_outside(name, image_shape, count=30, seed=6))


def test_noise_is_uniform_on_the_unit_interval() -> None:
    pixels = load_outside("noise", (3, 20, 20), count=100).double().flatten().sort().values
    N = len(pixels)
    distance = (pixels - (torch.arange(N) + 0.5) / N).abs().max()
    assert distance < 1.95 / N**0.5  # Kolmogorov-Smirnov, level 0.001


def test_a_dataset_gives_its_own_test_images_once_each() -> None:
    test_images = load("digits").test_images
    outside = load_outside("digits", (1, 8, 8), count=10_000, seed=1)
    assert len(outside) == len(test_images)
    order = torch.cdist(outside.flatten(1), test_images.flatten(1)).argmin(dim=1)
    torch.testing.assert_close(outside, test_images[order], rtol=0, atol=1e-6)
    assert set(order.tolist()) == set(range(len(test_images)))
    assert order.tolist() != list(range(len(test_images)))


def triangle_weights(size: int, wanted: int) -> list[list[float]]:
    """Row i weighs the pixels for output i: a triangle about its centre, wide enough to reach every pixel."""
    rows = []
    width = max(1.0, size / wanted)
    for i in range(wanted):
        centre = (i + 0.5) * size / wanted
        row = [max(0.0, 1 - abs(j + 0.5 - centre) / width) for j in range(size)]
        rows.append([weight / sum(row) for weight in row])
    return rows


@pytest.mark.parametrize("wanted", [(4, 3), (8, 8), (11, 5), (28, 28)])
def test_resizing_is_bilinear_with_antialiasing(wanted: tuple[int, int]) -> None:
    large = load_outside("digits", (1, 8, 8), count=20).double()
    resized = load_outside("digits", (3, *wanted), count=20).double()
    down, across = (torch.tensor(triangle_weights(8, size), dtype=torch.float64) for size in wanted)
    torch.testing.assert_close(resized, (down @ large @ across.T).expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


def test_folder_is_passed_on(write_mnist: Callable[..., Path], bare_machine: Path, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "tiny", MNIST.first_labels)
    assert load_outside("mnist", (1, 2, 3), count=3, data_folder=str(folder)).shape == (3, 1, 2, 3)
    with pytest.raises(DatasetError, match="mnist was not found"):
        load_outside("mnist", (1, 2, 3), count=3)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(DatasetError, match=r"one of photographs, noise, digits, .*; got 'svhn'"):
        load_outside("svhn", (1, 8, 8), count=1)


@pytest.mark.parametrize("name", ["noise", "digits"])
def test_what_cannot_be_had(name: str) -> None:
    with pytest.raises(ShapeError, match="count must be at least 1; got 0"):
        load_outside(name, (1, 8, 8), count=0)
    with pytest.raises(ShapeError, match=r"got \(2, 8, 8\)"):
        load_outside(name, (2, 8, 8), count=1)
