import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tightframe.cli.datasets import print_datasets
from tightframe.datasets import DATASETS, DatasetSource, hierarchy_of, load
from tightframe.errors import DatasetError


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_what_its_row_says(name: str) -> None:
    row = DATASETS[name]
    if row.locate() is None:
        pytest.skip(f"{name} is not on this machine: {row.origin}")
    dataset = load(name)
    assert dataset.name == row.name == name
    assert dataset.num_classes == row.num_classes
    for labels, size in ((dataset.train_labels, row.train_size), (dataset.test_labels, row.test_size)):
        assert len(labels) == size
        assert set(labels.tolist()) == set(range(row.num_classes))
    assert dataset.train_images.min() == dataset.test_images.min() == 0
    assert dataset.train_images.max() == dataset.test_images.max() == 1
    channels, height, width = dataset.image_shape
    assert channels == 1
    assert f"{height}x{width}" in row.description


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(DatasetError, match=r"one of digits, mnist, fashion-mnist; got 'minst'\. Did you mean 'mnist"):
        load("minst")


def test_importing_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from tightframe.datasets import *; from tightframe.cli.datasets import print_datasets\n"
        "print_datasets(); print([m for m in ('torch', 'numpy', 'sklearn', 'PIL') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"


class Brackets(DatasetSource):
    """A data set whose every text is markup and a command to a terminal."""

    def read(self, folder: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        images, labels = torch.zeros(4, 1, 2, 2), torch.arange(4) % 2
        return images, labels, images, labels, "[/nope]"

    def locate(self) -> Path | None:
        return Path("[/nope]") if self.tree is None else None


def test_texts_of_a_row_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {"description": "[/nope] \x1b[2J", "origin": "[bold]ask[/]", "class_names": ("[/a]", "b")}
    for name, tree in (("[red]here", None), ("[/]elsewhere", {"root": ["[/a]", "b"]})):
        row = Brackets(name=name, train_size=4, test_size=4, tree=tree, **texts)  # type: ignore[arg-type]
        monkeypatch.setitem(DATASETS, name, row)
        assert load(name).class_names == ("[/a]", "b")
    print_datasets()
    printed = capsys.readouterr().out
    for text in ("[red]here", "[/]elsewhere", "[/nope]", "not here: [bold]ask[/]"):
        assert text in printed
    assert "\x1b" not in printed
    with pytest.raises(DatasetError, match=r"'\[red\]here' has no tree of classes"):
        hierarchy_of("[red]here")
    assert hierarchy_of("[/]elsewhere").class_names == ("[/a]", "b")
