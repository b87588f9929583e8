"""Data sets of images in folders: by class, with masks of class indices, or without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from tightframe import reading
from tightframe.checks import listed
from tightframe.errors import DatasetError, LoaderError, MissingExtraError, StateError, TightframeError
from tightframe.processes import world_size
from tightframe.reading import failures_of
from tightframe.sources.named_models import failure_in

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
IMAGE_SIZE = 224
GREY, COLOUR = "L", "RGB"

Sample = tuple[Path | Tensor, int | Path | None]
"""An image (a file, or (C, H, W) in [0, 1]) with its class, the file of its mask, or None."""


def by_class(folder: Path, classes: Sequence[str] | None = None) -> tuple[list[Sample], list[str]]:
    """Images of a folder with one subfolder per class, and the class names.

    Args:
        classes: class names in order. Default: the sorted subfolders. Classes without a subfolder have no images.

    Raises: DatasetError without subfolders, for a subfolder that is not a class, and for one without images.
    """
    folders = class_folders(folder)
    classes = [each.name for each in folders] if classes is None else list(classes)
    if strange := [each.name for each in folders if each.name not in classes]:
        raise DatasetError(f"the subfolders of {folder} must be classes ({listed(classes)}); got {strange[0]!r}.")
    places = {name: place for place, name in enumerate(classes)}
    return [(path, places[each.name]) for each in folders for path in images_below(each)], classes


def class_folders(folder: Path) -> list[Path]:
    """The subfolders of a folder, sorted. Raises: DatasetError if there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder.")
    folders = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not folders:
        raise DatasetError(
            f"{folder} must have one subfolder of images per class; it has none. For masks, pass their folder."
        )
    return folders


def images_below(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, sorted. Raises: DatasetError if there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    if strange := [path for path in paths if not path.is_file()]:
        what = "a pipe or device" if strange[0].exists() else "a link to a file that doesn't exist"
        raise DatasetError(f"{strange[0]} is {what}, not an image. Delete it.")
    if not paths:
        raise DatasetError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}).")
    return paths


def with_masks(folder: Path, masks: Path) -> list[Sample]:
    """Images of a folder, each with the mask of the same stem. Raises: DatasetError for an image without a mask."""
    by_stem = {path.relative_to(masks).with_suffix(""): path for path in images_below(masks)}
    samples: list[Sample] = []
    for path in images_below(folder):
        stem = path.relative_to(folder).with_suffix("")
        if stem not in by_stem:
            raise DatasetError(f"{path} has no mask: {masks} has no image called {stem}.")
        samples.append((path, by_stem[stem]))
    return samples


def mode_of(model: nn.Module) -> str:
    """The image mode of a model: grey if its first convolution has one input channel, else colour."""
    channels = (each.in_channels for each in model.modules() if isinstance(each, nn.Conv2d))
    return GREY if next(channels, 3) == 1 else COLOUR


@dataclass(frozen=True)
class PlainTransform:
    """Default transform of images, for models without one: a square with values in [-1, 1]."""

    size: int = IMAGE_SIZE

    def __call__(self, image: Any) -> Tensor:
        """A PIL image as (C, size, size)."""
        return 2 * _tensor(image.resize((self.size, self.size), resample=2)) - 1  # 2: bilinear, with antialiasing

    def __str__(self) -> str:
        return f"resized to {self.size}x{self.size}, mean 0.5 and standard deviation 0.5"


class Images(Dataset[Any]):
    """Images with class or mask, opened and transformed on access.

    An unreadable image yields its error, which `refuse_errors` raises in the measuring process; raised in a worker, it
    would be hidden in a long traceback.

    Args:
        samples: images with classes or masks.
        transform: converts a PIL image to a tensor or a mapping of tensors; None if images are tensors.
        mode: mode of the PIL image. classes: class names.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Any], Any] | None,
        mode: str = COLOUR,
        classes: Sequence[str] | None = None,
    ):
        self._samples, self._transform, self._mode = samples, transform, mode
        self.classes = None if classes is None else list(classes)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        image, target = self._samples[index]
        try:
            opened_image = self._opened(image)
            try:
                return self._with_target(opened_image, target)
            except (TightframeError, MemoryError):
                raise
            except (Exception, SystemExit) as error:
                name = image if isinstance(image, Path) else f"image {index} of the data set"
                return failure_in("the transform", error, on=name)
        except TightframeError as error:
            return error

    def _opened(self, image: Path | Tensor) -> Any:
        if isinstance(image, Path):
            return opened(image, self._mode)
        return image if self._transform is None else _picture(image).convert(self._mode)

    def _with_target(self, image: Any, target: int | Path | None) -> Any:
        joint = getattr(self._transform, "with_mask", None)
        if isinstance(target, Path) and joint is not None:
            return joint(image, opened(target))
        inputs = image if self._transform is None else self._transform(image)
        if not isinstance(inputs, Tensor | Mapping):
            raise LoaderError(f"the transform must return a tensor or a mapping; got {type(inputs).__name__}.")
        if isinstance(target, Path):
            shown = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
            target = _mask(target, shown.shape[-2:])  # type: ignore[assignment]
        if target is None:
            return inputs
        return {**inputs, "labels": target} if isinstance(inputs, Mapping) else (inputs, target)


def opened(path: Path, mode: str | None = None) -> Any:
    """The PIL image of a file, in a mode or unchanged. Raises: DatasetError that names an unreadable file."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "data") from None
    try:
        with failures_of(path, "as an image"), reading.opened(path) as file, Image.open(file) as image:
            image.load()
            return image if mode is None else image.convert(mode)
    except StateError as error:
        raise DatasetError(str(error)) from None


def _mask(path: Path, size: Sequence[int]) -> Tensor:
    """(H, W) class indices of a mask at the positions of a transformed image of this size, nearest neighbour."""
    indices = torch.from_numpy(np.array(opened(path)))
    if indices.ndim != 2 or indices.is_floating_point():
        raise DatasetError(f"{path} must hold one class index for each pixel; got {tuple(indices.shape)} values.")
    indices = indices.to(torch.int64)
    if tuple(indices.shape) == tuple(size):
        return indices
    return F.interpolate(indices[None, None].double(), tuple(size), mode="nearest-exact")[0, 0].to(torch.int64)


def _tensor(image: Any) -> Tensor:
    """A PIL image as (C, H, W) in [0, 1]."""
    values = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def _picture(image: Tensor) -> Any:
    """(C, H, W) in [0, 1] as a PIL image."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "data") from None
    values = (255 * image).round().to(torch.uint8)
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).contiguous().numpy())


def image_loader(images: Images, batch_size: int, workers: int = 0) -> DataLoader[Any]:
    """Batches of images in order; under `torch.distributed` only this process's part."""
    sampler: DistributedSampler[Any] | None = DistributedSampler(images, shuffle=False) if world_size() > 1 else None
    return DataLoader(images, batch_size, sampler=sampler, num_workers=workers, collate_fn=_collated)


def _collated(samples: list[Any]) -> Any:
    if wrong := [each for each in samples if isinstance(each, TightframeError)]:
        return wrong[0]
    sizes = {tuple(tensor.shape) for each in samples for tensor in _tensors(each)[:1]}
    if len(sizes) > 1:
        return LoaderError(
            f"transformed images must have one size; got {' and '.join(map(str, sorted(sizes)[:2]))}. Resize them in "
            "the transform, or measure one at a time (batch size 1)."
        )
    return default_collate(samples)


def _tensors(sample: Any) -> list[Tensor]:
    whole = sample if isinstance(sample, tuple) else [sample]
    values: Iterable[Any] = sample.values() if isinstance(sample, Mapping) else whole
    return [each for each in values if isinstance(each, Tensor)]


def refuse_errors(item: Any) -> Any:
    """The batch unchanged; raises the error that a data set yielded instead of a batch. For `Measuring.unpack`."""
    if isinstance(item, TightframeError):
        raise item
    return item
