"""`Dataset`: labelled images, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tightframe.errors import DatasetError, DtypeError, LabelError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in two splits, checked on construction.

    Shapes: images (N, C, H, W) float32 in [0, 1]; labels (N,) int64 in [0, K). `source` says where the
    images were read from. Both splits hold at least one image, of the same (C, H, W).
    Raises: ShapeError, DtypeError, LabelError or (range) DatasetError, naming data set and split.

    >>> import torch
    >>> from tightframe.datasets import Dataset
    >>> images, labels = torch.zeros(8, 1, 2, 2), torch.arange(8) % 2
    >>> data = Dataset("dots", images, labels, images, labels, ("even", "odd"), "made here")
    >>> data.num_classes, data.image_shape
    (2, (1, 2, 2))
    """

    name: str
    train_images: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test_images: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        self._check("train", self.train_images, self.train_labels)
        self._check("test", self.test_images, self.test_labels)
        train, test = tuple(self.train_images.shape[1:]), tuple(self.test_images.shape[1:])
        if train != test:
            raise ShapeError(f"{self.name}: train images are {train} but test images are {test}.")

    @property
    def num_classes(self) -> int:
        """K, the number of class names."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def _check(self, split: str, images: Tensor, labels: Tensor) -> None:
        import torch

        where, K = f"{self.name}, {split} split:", self.num_classes
        if images.ndim != 4 or images.numel() == 0:
            raise ShapeError(f"{where} images must be (N, C, H, W), no size 0; got {tuple(images.shape)}.")
        if labels.shape != images.shape[:1]:
            raise ShapeError(f"{where} labels must be ({len(images)},); got {tuple(labels.shape)}.")
        if images.dtype != torch.float32 or labels.dtype != torch.int64:
            raise DtypeError(f"{where} images must be float32 and labels int64; got {images.dtype} and {labels.dtype}.")
        low, high = images.min().item(), images.max().item()
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise DatasetError(f"{where} images must lie in [0, 1]; got [{low:g}, {high:g}].")
        first, last = int(labels.min()), int(labels.max())
        if first < 0 or last >= K:
            raise LabelError(f"{where} labels must lie in [0, {K}); got [{first}, {last}].")
