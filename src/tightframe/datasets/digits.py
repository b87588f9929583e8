"""The 8x8 handwritten digits that scikit-learn carries inside its wheel."""

from importlib.util import find_spec
from pathlib import Path

import torch

from tightframe.datasets.dataset import Dataset
from tightframe.errors import MissingExtraError

TRAIN_SIZE = 1400
SPLIT_SEED = 0


def load_digits(folder: Path | None = None) -> Dataset:
    """1,797 grey 8x8 digits: 1,400 to train on and 397 to test on.

    The split is one permutation by a `torch.Generator` seeded with 0, the same on every call. It is
    not stratified, and the same writers appear on both sides. `folder` is not used.
    Range: the stored 0..16 divided by 16.
    Raises: MissingExtraError without scikit-learn.
    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "demo") from error
    bunch = datasets.load_digits()
    images = (torch.from_numpy(bunch.images) / 16).to(torch.float32).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = order[:TRAIN_SIZE], order[TRAIN_SIZE:]
    return Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple("0123456789"),
        source="scikit-learn's load_digits",
    )


def locate_digits() -> Path | None:
    """The folder of the installed scikit-learn, found without importing it; None if it is absent."""
    spec = find_spec("sklearn")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
