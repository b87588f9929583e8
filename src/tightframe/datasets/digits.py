"""The 8x8 handwritten digits that scikit-learn carries inside its wheel."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tightframe.datasets.source import DatasetSource
from tightframe.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor

SPLIT_SEED = 0
VISUAL_TREE = {
    "digit": {
        "round": {"ring": ["0", "6", "9"], "double": ["3", "8"]},
        "straight": {"stroke": ["1", "7"], "crossed": ["4"]},
        "curved": {"open": ["2", "5"]},
    }
}
"""Digits by looks, distances of 2, 4 and 6 hops. Source: Sainte Fare Garnot & Landrieu 2021."""


@dataclass(frozen=True, kw_only=True)
class Digits(DatasetSource):
    """1,797 grey 8x8 digits in a training and a test split.

    The split is one permutation by a `torch.Generator` seeded with 0, the same on every call. It is not stratified,
    and the same writers appear on both sides.
    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (its test part).
    """

    def read(self, folder: Path | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        """The splits, with pixels 0..16 divided by 16; `folder` is not used. Raises: MissingExtraError."""
        import torch

        try:
            from sklearn import datasets
        except ModuleNotFoundError as error:
            raise MissingExtraError("scikit-learn", "demo") from error
        bunch = datasets.load_digits()
        images = (torch.from_numpy(bunch.images) / 16).to(torch.float32).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).to(torch.int64)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SPLIT_SEED))
        train, test = order[: self.train_size], order[self.train_size :]
        return images[train], labels[train], images[test], labels[test], "scikit-learn's load_digits"

    def locate(self) -> Path | None:
        """The folder of the installed scikit-learn, found without importing it."""
        spec = find_spec("sklearn")
        return None if spec is None or spec.origin is None else Path(spec.origin).parent


DIGITS = Digits(
    name="digits",
    description="handwritten digits, grey 8x8",
    train_size=1400,
    test_size=397,
    class_names=tuple("0123456789"),
    origin="install scikit-learn, which contains them",
    tree=VISUAL_TREE,
    epochs=300,
    session_epochs=60,
    weight_decay=1e-2,
)
