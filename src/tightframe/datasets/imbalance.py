"""Imbalanced versions of a data set's training images; the test images stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tightframe.errors import RangeError, ShapeError

if TYPE_CHECKING:
    from tightframe.datasets.dataset import Dataset


def step_counts(largest: int, num_classes: int, ratio: float) -> list[int]:
    """Counts: `largest` in the first half of the classes, largest / ratio (at least 1) in the others.

    Raises: RangeError for a ratio or size below 1. Source: Buda, Maki & Mazurowski 2018 (step imbalance).

    >>> from tightframe.datasets import step_counts
    >>> step_counts(130, 4, 65)
    [130, 130, 2, 2]
    """
    _require_ratio(largest, ratio)
    few = max(round(largest / ratio), 1)
    return [largest if k < (num_classes + 1) // 2 else few for k in range(num_classes)]


def exponential_counts(largest: int, num_classes: int, ratio: float) -> list[int]:
    """Counts largest ratio^(-k / (K - 1)) for class k, at least 1: the last class has largest / ratio.

    Raises: as `step_counts`. Source: Cui et al. 2019 (Class-balanced loss), long-tailed CIFAR.

    >>> from tightframe.datasets import exponential_counts
    >>> exponential_counts(100, 3, 100)
    [100, 10, 1]
    """
    _require_ratio(largest, ratio)
    return [max(round(largest * ratio ** (-k / max(num_classes - 1, 1))), 1) for k in range(num_classes)]


def subsample(data: Dataset, counts: Sequence[int], *, seed: int = 0) -> Dataset:
    """The data set with counts[k] training images of class k, drawn without replacement, in random order.

    Args:
        counts: one number per class.
        seed: seed for the random number generator.

    Raises: ShapeError unless each class has a count; RangeError naming a class with fewer images than its count.

    >>> import torch
    >>> from tightframe.datasets import Dataset, subsample
    >>> images, labels = torch.zeros(8, 1, 2, 2), torch.arange(8) % 2
    >>> data = Dataset("dots", images, labels, images, labels, ("even", "odd"), "made here")
    >>> subsample(data, [4, 1]).train_labels.bincount().tolist()
    [4, 1]
    """
    import torch

    if len(counts) != data.num_classes:
        raise ShapeError(f"there must be a count for each of {data.num_classes} classes; got {len(counts)}.")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label, count in enumerate(counts):
        members = (data.train_labels == label).nonzero().flatten()
        if not 0 <= count <= len(members):
            raise RangeError(
                f"class {data.class_names[label]!r} has {len(members)} training images; got a count of {count}."
            )
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    index = torch.cat(chosen)
    index = index[torch.randperm(len(index), generator=generator)]
    return replace(data, train_images=data.train_images[index], train_labels=data.train_labels[index])


def _require_ratio(largest: int, ratio: float) -> None:
    if largest < 1 or not 1 <= ratio < float("inf"):
        raise RangeError(
            f"the largest class must have at least 1 image, and the ratio must be at least 1; got {largest}, {ratio}."
        )
