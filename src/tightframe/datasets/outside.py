"""Images from outside a dataset, brought to its shape: what a detector should call unfamiliar."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tightframe.datasets.photographs import check_request, photograph_patches, with_channels
from tightframe.datasets.sources import DATASETS, load
from tightframe.errors import DatasetError


@dataclass(frozen=True)
class OutsideSource:
    """One row of the table; `load` takes (image_shape, count, seed, folder)."""

    name: str
    description: str
    load: Callable[[tuple[int, int, int], int, int, Path | None], Tensor]


def _photographs(image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
    return photograph_patches(count, image_shape, seed)


def _noise(image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
    return torch.rand((count, *image_shape), generator=torch.Generator().manual_seed(seed))


def _test_images(name: str, image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
    images = load(name, folder).test_images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    images = with_channels(images[chosen], image_shape[0])
    resized = F.interpolate(images, size=image_shape[1:], mode="bilinear", antialias=True)
    return resized.clamp(0, 1)  # the weights sum to 1 only up to rounding


OUTSIDE: dict[str, OutsideSource] = {
    "photographs": OutsideSource("photographs", "patches of two photographs", _photographs),
    "noise": OutsideSource("noise", "independent uniform pixels", _noise),
    **{
        name: OutsideSource(name, f"test images: {source.description}", partial(_test_images, name))
        for name, source in DATASETS.items()
    },
}


def load_outside(
    name: str, image_shape: tuple[int, int, int], count: int, seed: int = 0, folder: Path | str | None = None
) -> Tensor:
    """Images of the source called `name`, brought to `image_shape` = (C, H, W), C being 1 or 3.

    A dataset gives a random choice of its test images, resized bilinearly with antialiasing; M is
    `count`, or all its test images if they are fewer.
    Shape: (M, C, H, W) float32 in [0, 1]; the same for the same `seed`.
    Raises: DatasetError for an unknown name or files not found; ShapeError for a count or shape that
    cannot be had; MissingExtraError.

    >>> load_outside("digits", (3, 28, 28), count=5).shape
    torch.Size([5, 3, 28, 28])
    """
    if name not in OUTSIDE:
        raise DatasetError(f"outside images must be one of {', '.join(OUTSIDE)}; got {name!r}.")
    check_request(count, image_shape)
    return OUTSIDE[name].load(image_shape, count, seed, None if folder is None else Path(folder))
