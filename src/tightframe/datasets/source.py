"""`OutsideSource` and `DatasetSource`: everything about a source of images in one value; torch is imported on use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightframe.errors import DatasetError

if TYPE_CHECKING:  # `tightframe datasets` lists the sources without torch
    from torch import Tensor

    from tightframe.datasets.dataset import Dataset
    from tightframe.hierarchy import Hierarchy

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class OutsideSource(ABC):
    """Images from outside a data set, which a detector should call unfamiliar.

    Attributes:
        name: the key in `OUTSIDE`.
        description: the images, in a few words.
    """

    name: str
    description: str

    @abstractmethod
    def outside_images(self, image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
        """At most `count` images (M, C, H, W) of shape `image_shape`; see `load_outside`."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource(OutsideSource):
    """A data set of images: a subclass that reads it, and a row of `DATASETS`, are all that it needs.

    Attributes:
        train_size, test_size: number of images.
        class_names: a name for each class.
        origin: how to get the files, in a line.
        tree: the classes as nested names, as `Hierarchy.from_nested` takes them; None for a data set without a tree.
        normalisation: mean and standard deviation of the pixels; the demo's network subtracts the one and divides by
            the other. None leaves pixels in [0, 1].
        epochs, session_epochs, weight_decay: of the demo by default; the epochs of one session of several apart.
    """

    train_size: int
    test_size: int
    class_names: tuple[str, ...]
    origin: str
    tree: Mapping[str, Any] | None = None
    normalisation: tuple[float, float] | None = None
    epochs: int = 10
    session_epochs: int = 2
    weight_decay: float = 5e-4

    @abstractmethod
    def read(self, folder: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        """Training images (N, C, H, W) and labels (N,), the same for test images, as `Dataset` takes them, and their
        origin.

        Args: folder, where to look first.
        Raises: DatasetError for files that are missing or damaged.
        """

    @abstractmethod
    def locate(self) -> Path | None:
        """Where the data set is on this machine; None if it isn't."""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def load(self, folder: Path | None = None) -> Dataset:
        """Read the data set, looking in `folder` first. Raises: as `read`; as `Dataset`."""
        from tightframe.datasets.dataset import Dataset

        train_images, train_labels, test_images, test_labels, source = self.read(folder)
        return Dataset(self.name, train_images, train_labels, test_images, test_labels, self.class_names, source)

    def hierarchy(self) -> Hierarchy:
        """The tree over the classes, in class order. Raises: DatasetError for a data set without one."""
        from tightframe.hierarchy import Hierarchy

        if self.tree is None:
            raise DatasetError(f"the data set {self.name!r} has no tree of classes.")
        return Hierarchy.from_nested(self.tree, classes=self.class_names)

    def outside_images(self, image_shape: tuple[int, int, int], count: int, seed: int, folder: Path | None) -> Tensor:
        """A random choice of the test images, (M, C, H, W), resized bilinearly with antialiasing."""
        import torch
        from torch.nn.functional import interpolate

        images = self.load(folder).test_images
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
        images = with_channels(images[chosen], image_shape[0])
        resized = interpolate(images, size=image_shape[1:], mode="bilinear", antialias=True)
        return resized.clamp(0, 1)  # the weights sum to 1 only up to rounding


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) as grey (`channels` 1, BT.601 luma) or as red, green, blue (3)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
