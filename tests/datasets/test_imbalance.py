"""Imbalanced training sets: how many images of which class, drawn how; the trees over the classes."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tightframe import datasets
from tightframe.datasets import exponential_counts, hierarchy_of, step_counts, subsample
from tightframe.errors import DatasetError, RangeError, ShapeError

COSTS = Path(__file__).parents[1] / "prototypes" / "mnist_visual_costs.csv"


def test_step() -> None:
    assert step_counts(130, 10, 65) == [130] * 5 + [2] * 5
    assert step_counts(7, 3, 100) == [7, 7, 1]


def test_exponential_counts_fall_by_one_factor() -> None:
    counts = exponential_counts(5000, 10, 100)
    assert counts[0] == 5000 and counts[-1] == 50
    assert all(a / b == pytest.approx(100 ** (1 / 9), rel=0.01) for a, b in pairwise(counts))


@pytest.mark.parametrize("counts", [step_counts, exponential_counts])
def test_ratios_below_one_are_refused(counts: object) -> None:
    with pytest.raises(RangeError, match=r"at least 1; got 10, 0\.5"):
        counts(10, 4, 0.5)  # type: ignore[operator]


def test_subsample_draws_without_replacement_from_each_class() -> None:
    data = datasets.load("digits")
    counts = [3, 0, 50, *[10] * 7]
    few = subsample(data, counts, seed=1)
    assert torch.bincount(few.train_labels, minlength=10).tolist() == counts
    assert len(few.train_images.flatten(1).unique(dim=0)) == sum(counts)
    assert torch.equal(few.test_images, data.test_images)
    for image, label in zip(few.train_images[:20], few.train_labels[:20], strict=True):
        same = (data.train_images == image).flatten(1).all(1)
        assert data.train_labels[same].tolist() == [int(label)]
    again, other = subsample(data, counts, seed=1), subsample(data, counts, seed=2)
    assert torch.equal(few.train_images, again.train_images)
    assert not torch.equal(few.train_images, other.train_images)
    assert few.train_labels[:20].unique().numel() > 2  # in random order


def test_too_many_images_are_refused_by_name() -> None:
    data = datasets.load("digits")
    with pytest.raises(RangeError, match=r"class '2' has \d+ training images; got a count of 1000"):
        subsample(data, [1, 1, 1000, *[1] * 7])
    with pytest.raises(ShapeError, match="a count for each of 10 classes; got 2"):
        subsample(data, [1, 1])


def test_the_digits_tree_has_the_published_costs() -> None:
    with COSTS.open() as file:
        published = torch.tensor([[float(cell) for cell in row] for row in csv.reader(file)], dtype=torch.float64)
    assert torch.equal(hierarchy_of("digits").distances(), published)
    assert torch.equal(hierarchy_of("mnist").distances(), published)
    assert len(hierarchy_of("mnist")) == 19


def test_the_tree_of_fashion_is_in_class_order() -> None:
    tree = hierarchy_of("fashion-mnist")
    assert tree.class_names[:3] == ("T-shirt/top", "Trouser", "Pullover")
    assert tree.distances()[7].argsort(stable=True)[:2].tolist() == [7, 9]  # a sneaker is nearest to a boot


def test_other_data_have_no_tree() -> None:
    with pytest.raises(DatasetError, match="'photographs'"):
        hierarchy_of("photographs")
