from typing import Any

import pytest
import torch

from tightframe.datasets import Dataset
from tightframe.errors import DatasetError, DtypeError, LabelError, ShapeError


def parts(**changes: Any) -> dict[str, Any]:
    images, labels = torch.linspace(0, 1, 48).view(4, 1, 3, 4), torch.tensor([0, 1, 2, 1])
    whole = {
        "name": "tiny",
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:2],
        "test_labels": labels[:2],
        "class_names": ("a", "b", "c"),
        "source": "this test",
    }
    return whole | changes


def test_properties() -> None:
    dataset = Dataset(**parts())
    assert dataset.num_classes == 3
    assert dataset.image_shape == (1, 3, 4)
    assert "tensor" not in repr(dataset)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_images": torch.zeros(4, 3, 4)}, ShapeError, r"train split: images .*got \(4, 3, 4\)"),
        ({"test_images": torch.zeros(0, 1, 3, 4)}, ShapeError, r"test split: images .*got \(0, 1, 3, 4\)"),
        ({"train_labels": torch.zeros(3).long()}, ShapeError, r"labels must be \(4,\); got \(3,\)"),
        (
            {"test_images": torch.zeros(2, 1, 3, 5)},
            ShapeError,
            r"\(1, 3, 4\) but test images are \(1, 3, 5\)",
        ),
        ({"train_labels": torch.zeros(4)}, DtypeError, "labels int64; got torch.float32 and torch.float32"),
        (
            {"train_images": torch.zeros(4, 1, 3, 4).double()},
            DtypeError,
            "must be float32.*got torch.float64",
        ),
        ({"train_images": torch.full((4, 1, 3, 4), 1.5)}, DatasetError, r"in \[0, 1\]; got \[1.5, 1.5\]"),
        ({"train_images": torch.full((4, 1, 3, 4), -0.5)}, DatasetError, r"in \[0, 1\]; got \[-0.5, -0.5\]"),
        ({"train_images": torch.full((4, 1, 3, 4), torch.nan)}, DatasetError, r"got \[nan, nan\]"),
        ({"train_labels": torch.tensor([0, 1, 3, 1])}, LabelError, r"lie in \[0, 3\); got \[0, 3\]"),
        ({"test_labels": torch.tensor([-1, 1])}, LabelError, r"test split: .*got \[-1, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"tiny.*{message}"):
        Dataset(**parts(**changes))
