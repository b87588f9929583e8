"""`DATASETS` and `OUTSIDE`, the sources of images by name, and the functions that read them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tightframe.choices import require_choice
from tightframe.datasets.digits import DIGITS
from tightframe.datasets.mnist import FASHION_MNIST, MNIST
from tightframe.datasets.outside import NOISE, PHOTOGRAPHS, check_request
from tightframe.datasets.source import DatasetSource, OutsideSource
from tightframe.errors import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

    from tightframe.datasets.dataset import Dataset
    from tightframe.hierarchy import Hierarchy

DATASETS: dict[str, DatasetSource] = {row.name: row for row in (DIGITS, MNIST, FASHION_MNIST)}
"""Every data set by name; add a row of your own to use it in the demo."""

OUTSIDE: Mapping[str, OutsideSource] = ChainMap(
    cast(dict[str, OutsideSource], DATASETS), {row.name: row for row in (PHOTOGRAPHS, NOISE)}
)
"""Every source of out-of-distribution images by name: photographs, noise, and the data sets."""


def load(name: str, data_folder: Path | str | None = None) -> Dataset:
    """Read the data set called `name`, looking in `data_folder` before the usual places.

    Nothing is ever downloaded.
    Raises: DatasetError for an unknown name, for a folder that doesn't exist, for files that are missing or damaged;
    MissingExtraError.

    >>> from tightframe.datasets import load
    >>> load("digits").image_shape
    (1, 8, 8)
    """
    return _row(name).load(_folder(data_folder))


def load_outside(
    name: str, image_shape: tuple[int, int, int], count: int, seed: int = 0, data_folder: Path | str | None = None
) -> Tensor:
    """Images of the source called `name`, brought to `image_shape` = (C, H, W), where C is 1 or 3.

    A data set gives a random choice of its test images, resized bilinearly with antialiasing; M is `count`, or all its
    test images if they are fewer.
    Shape: (M, C, H, W) float32 in [0, 1]; the same for the same `seed`.
    Raises: as `load`; ShapeError for a count or shape out of range.

    >>> from tightframe.datasets import load_outside
    >>> load_outside("digits", (3, 28, 28), count=5).shape
    torch.Size([5, 3, 28, 28])
    """
    require_choice(name, OUTSIDE, "the out-of-distribution images", error=DatasetError)
    check_request(count, image_shape)
    return OUTSIDE[name].outside_images(image_shape, count, seed, _folder(data_folder))


def hierarchy_of(name: str) -> Hierarchy:
    """The tree over a data set's classes, in class order.

    Raises: DatasetError for an unknown name, and for a data set without a tree.

    >>> from tightframe.datasets import hierarchy_of
    >>> hierarchy_of("digits").distances()[0].int().tolist()
    [0, 6, 6, 4, 6, 6, 2, 6, 4, 2]
    """
    return _row(name).hierarchy()


def _row(name: str) -> DatasetSource:
    require_choice(name, DATASETS, "the data set", error=DatasetError)
    return DATASETS[name]


def _folder(path: Path | str | None) -> Path | None:
    if path is not None and not Path(path).is_dir():
        raise DatasetError(f"data_folder= must be a folder; there is none at {path}.")
    return None if path is None else Path(path)
