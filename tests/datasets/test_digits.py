import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from tightframe.datasets import DATASETS, load
from tightframe.errors import MissingExtraError


def test_the_split_partitions_scikit_learns_digits() -> None:
    from sklearn.datasets import load_digits

    dataset = load("digits")
    assert len(dataset.train_images) == 1400
    assert len(dataset.test_images) == 397
    ours: Counter[tuple[object, ...]] = Counter()
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        ours.update((int(label), *image.flatten().tolist()) for image, label in zip(images, labels, strict=True))
    bunch = load_digits()
    theirs = Counter(
        (int(label), *(float(pixel) / 16 for pixel in image.flatten()))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    assert ours == theirs  # every image once, with its own label, on one side


def test_the_split_is_the_same_on_every_call() -> None:
    state = torch.random.get_rng_state()
    first, second = load("digits"), load("digits")
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_labels, second.test_labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.test_labels.bincount().tolist() == [34, 41, 31, 43, 41, 40, 41, 46, 42, 38]


def test_range() -> None:
    images = load("digits").train_images
    assert images.min() == 0
    assert images.max() == 1
    assert torch.equal(images * 16, (images * 16).round())


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*demo"):
        load("digits")
    assert DATASETS["digits"].locate() is None


def test_locate_finds_the_installed_package() -> None:
    import sklearn

    assert DATASETS["digits"].locate() == Path(sklearn.__file__).parent
