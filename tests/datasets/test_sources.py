import subprocess
import sys

import pytest

from tightframe.datasets import DATASETS, load
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
    with pytest.raises(DatasetError, match="one of digits, mnist, fashion-mnist; got 'cifar'"):
        load("cifar")


def test_importing_does_not_import_scikit_learn() -> None:
    code = "import sys, tightframe.datasets; print([m for m in ('sklearn', 'PIL') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
