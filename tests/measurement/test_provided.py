"""A named metric or convention whose data are not passed fails before the pass, and names the argument."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tightframe import measure
from tightframe.errors import EvidenceError
from tightframe.sources import FeatureSource, LinearClassifier

UNPROVIDED: dict[str, tuple[dict[str, Any], str]] = {
    "ood_orthogonality": ({}, "out-of-distribution samples. Pass ood=..."),
    "ammar-2024/nc5": ({}, "out-of-distribution samples. Pass ood=..."),
    "nc3_cosine": ({}, "a linear classifier. Pass classifier=..."),
    "principal_angle": ({}, "a linear classifier. Pass classifier=..."),
    "one_vs_rest_distance": ({}, "a linear classifier. Pass classifier=..."),
    "classifier_accuracy": ({}, "a linear classifier. Pass classifier=..."),
    "wu-papyan-2024/nc4": ({}, "a linear classifier. Pass classifier=..."),
    "ncc_accuracy": ({"decisions": None}, 'decisions. Pass decisions="all"'),
    "papyan-2020/nc4": ({"decisions": None, "classifier": torch.eye(3)}, 'decisions. Pass decisions="all"'),
    "nc1": ({"covariance": False}, "the scatter within classes. Pass covariance=True"),
    "vci": ({"covariance_bytes": 0}, "the scatter within classes. Pass covariance=True, and raise covariance_bytes"),
    "directional_cdnv": ({}, "the scatter per class. Pass per_class=True"),
}


class Counting(FeatureSource):
    """Three batches; counts the batches that were read."""

    num_classes, read = 3, 0

    def batches(self, split: str) -> Iterator[Any]:
        for _ in range(3):
            self.read += 1
            yield torch.randn(12, 3), torch.arange(12) % 3


class Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.body(inputs) ** 3


@pytest.mark.parametrize("name", UNPROVIDED)
def test_a_named_measure_without_its_data_fails_before_the_pass(name: str) -> None:
    options, what = UNPROVIDED[name]
    source = Counting()
    source.classifier = LinearClassifier.of(options.get("classifier"))
    named = {"conventions": [name]} if "/" in name else {"metrics": [name]}
    with pytest.raises(EvidenceError, match=re.escape(f"{name} needs {what}")):
        measure(source, progress=False, **options, **named)
    assert source.read == 1  # the first batch tells what the source provides


def test_named_measures_of_means_need_no_classifier() -> None:
    report = measure(Counting(), metrics=["ncc_accuracy", "equinorm"], conventions=["galanti-2022/cdnv"])
    assert {"ncc_accuracy", "equinorm", "galanti-2022/cdnv"} <= {entry.name for entry in report.entries}


def test_decisions_of_a_model_without_a_linear_classifier_are_enough() -> None:
    """Its argmax decides; only a convention without the bias needs the classifier's weight."""
    model, options = Cubed(), {"features": "body", "classifier": lambda features: features**3, "progress": False}
    inputs, labels = torch.randn(30, 4), torch.arange(30) % 3
    data = [(inputs, labels)]
    report = measure(model, data, metrics=["classifier_accuracy"], **options)
    assert report["classifier_accuracy"].value == (model(inputs).argmax(1) == labels).double().mean().item()
    with pytest.raises(EvidenceError, match="wu-papyan-2024/nc4 needs a linear classifier"):
        measure(model, data, conventions=["wu-papyan-2024/nc4"], **options)
