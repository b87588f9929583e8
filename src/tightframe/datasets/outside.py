"""Images from outside a data set: patches of two photographs that scikit-learn contains, and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tightframe.datasets.source import OutsideSource, with_channels
from tightframe.errors import MissingExtraError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_CROP = 8  # times the patch, on each side


def photograph_patches(count: int, image_shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """`count` random crops at random scales of a temple and of a flower, shrunk to `image_shape`.

    A crop is 1 to 8 times the patch on each side (log-uniform, no larger than the photograph), averaged down by area;
    one channel means BT.601 grey. Contrast is left as it is.
    Shape: (count, C, H, W) float32 in [0, 1]; the same for the same `seed`.
    Raises: ShapeError for a count or shape out of range; MissingExtraError without scikit-learn, or without Pillow,
    with which scikit-learn reads them.
    """
    import torch
    from torch.nn.functional import interpolate

    check_request(count, image_shape)
    _, height, width = image_shape
    photographs = _photographs()
    tallest = min(photograph.shape[-2] for photograph in photographs)
    widest = min(photograph.shape[-1] for photograph in photographs)
    largest = min(LARGEST_CROP, tallest / height, widest / width)
    if largest < 1:
        raise ShapeError(f"patches must be at most {tallest} high and {widest} wide; got {height} by {width}.")
    generator = torch.Generator().manual_seed(seed)
    patches = []
    for which, scale, down, across in torch.rand(count, 4, generator=generator, dtype=torch.float64).tolist():
        photograph = photographs[int(which * len(photographs))]
        ratio = math.exp(scale * math.log(largest))
        crop_height, crop_width = int(height * ratio), int(width * ratio)
        top = int(down * (photograph.shape[-2] - crop_height + 1))
        left = int(across * (photograph.shape[-1] - crop_width + 1))
        crop = photograph[:, top : top + crop_height, left : left + crop_width]
        patches.append(interpolate(crop.unsqueeze(0), size=(height, width), mode="area"))
    return with_channels(torch.cat(patches), image_shape[0]).clamp(max=1)  # rounding may pass 1


def check_request(count: int, image_shape: tuple[int, int, int]) -> None:
    """Raises ShapeError unless `count` >= 1 and `image_shape` is (1 or 3, H, W), nowhere empty."""
    if count < 1:
        raise ShapeError(f"count must be at least 1; got {count}.")
    if len(image_shape) != 3 or image_shape[0] not in (1, 3) or min(image_shape) < 1:
        raise ShapeError(f"image_shape must be (1 or 3, H, W) with H, W >= 1; got {image_shape}.")


def _photographs() -> list[Tensor]:
    import torch

    try:
        import PIL  # noqa: F401  # scikit-learn needs it to decode them but does not require it
    except ModuleNotFoundError as error:
        raise MissingExtraError("pillow", "demo") from error
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "demo") from error
    images = datasets.load_sample_images().images
    return [torch.tensor(image, dtype=torch.float32).permute(2, 0, 1) / 255 for image in images]


@dataclass(frozen=True, kw_only=True)
class Photographs(OutsideSource):
    """Patches of photographs; see `photograph_patches`."""

    def outside_images(self, image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
        return photograph_patches(count, image_shape, seed)


@dataclass(frozen=True, kw_only=True)
class Noise(OutsideSource):
    """Independent uniform pixels."""

    def outside_images(self, image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
        import torch

        return torch.rand((count, *image_shape), generator=torch.Generator().manual_seed(seed))


PHOTOGRAPHS = Photographs(name="photographs", description="patches of two photographs")
NOISE = Noise(name="noise", description="independent uniform pixels")
