"""The decisions of a trained model on held-out images, as entries of a report: accuracies, costs and their causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tightframe.datasets import Dataset
from tightframe.decisions import ConfusionCounts
from tightframe.evidence import Evidence
from tightframe.hooks import evaluation
from tightframe.numerics import gram_cosines
from tightframe.prototypes.distortions import scale_free_distortion
from tightframe.report import Entry
from tightframe.sections import signed
from tightframe.theory import seli

_ROWS = 512  # of a batch


def decisions(model: nn.Module, data: Dataset) -> ConfusionCounts:
    """The model's own decisions on the held-out images."""
    with evaluation(model):
        decided = torch.cat([model(part).argmax(1) for part in data.test_images.split(_ROWS)])
    return ConfusionCounts.from_predictions(decided, data.test_labels, data.num_classes)


def rows(model: nn.Module, data: Dataset, cost: Tensor | None, groups: Mapping[str, Sequence[int]]) -> list[Entry]:
    """Accuracies on the held-out images, also of groups of classes, and the average of the costs (K, K), if any."""
    counts = decisions(model, data)
    entries = [_entry("balanced_accuracy", "balanced accuracy", counts.balanced_accuracy(), 1.0, "mean over classes")]
    for name, classes in groups.items():
        share = counts.select(classes).balanced_accuracy()
        entries.append(_entry(f"accuracy_of_{name}", f"accuracy, {name}", share, 1.0, "mean over classes"))
    if cost is not None:
        average = counts.average_cost(cost)
        entries.append(_entry("average_cost", "cost of a decision", average, 0.0, "hops in the tree of classes"))
    return entries


def distortion_row(prototypes: Tensor, cost: Tensor) -> Entry:
    """The scale-free distortion of the distances between prototypes against the costs."""
    return _entry(
        "scale_free_distortion",
        "scale-free distortion",
        scale_free_distortion(prototypes.detach().double(), cost),
        0.0,
        "of prototypes, hops in the tree",
        family="prototypes",
        split="train",
        source="Sainte Fare Garnot & Landrieu 2021",
    )


def minority_row(evidence: Evidence, minority: Sequence[int], *, fixed: bool) -> tuple[Entry, str]:
    """The mean cosine between the classifier rows of rare classes, and a sentence with the values of theory.

    Args: evidence, statistics of the training features and the classifier; fixed, whether the classifier is untrained.
    """
    statistics, weight = evidence.statistics, evidence.weight
    assert statistics is not None and weight is not None
    centred = weight - weight.mean(0)
    cosine, ideal = _mean_cosine(centred @ centred.mT, minority), -1 / (len(weight) - 1)
    entry = _entry(
        "minority_classifier_cosine",
        "cos of minority classifiers",
        cosine,
        ideal,
        "mean over pairs, rows centred",
        family="NC2",
        split="train",
        source="Fang et al. 2021",
    )
    measured = f"The minority's classifiers have a mean cosine of {signed(f'{cosine:.3f}')}"
    if fixed:
        return entry, f"{measured}, as they were built."
    predicted = _mean_cosine(seli(statistics.counts).classifiers, minority)
    return entry, (
        f"{measured}: 1 is minority collapse, {signed(f'{ideal:.3f}')} the simplex ETF, and "
        f"{signed(f'{predicted:.3f}')} the SELI geometry, which cross-entropy on these counts tends to."
    )


def _mean_cosine(gram: Tensor, classes: Sequence[int]) -> float:
    """The mean cosine over pairs of some rows, from the Gram matrix of all."""
    cosines = gram_cosines(gram)[list(classes)][:, list(classes)]
    i, j = torch.triu_indices(len(cosines), len(cosines), offset=1)
    return float(cosines[i, j].mean())


def _entry(
    name: str,
    label: str,
    value: Tensor | float,
    target: float,
    convention: str,
    *,
    family: str = "accuracy",
    split: str = "test",
    source: str = "",
) -> Entry:
    return Entry(name, split, label, family, float(value), target, None, None, None, convention, source, headline=True)
