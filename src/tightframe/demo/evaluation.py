"""What a trained model decides on held-out images: accuracies, costs and what explains them, as rows of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tightframe.decisions import ConfusionCounts
from tightframe.evidence import Evidence
from tightframe.hooks import evaluation
from tightframe.numerics import gram_cosines
from tightframe.prototypes.metric_guided import scale_free_distortion
from tightframe.report import Entry
from tightframe.theory import seli

_ROWS = 512  # of a batch


@dataclass(frozen=True)
class Held:
    """Held-out images and labels, costs (K, K) between the classes, and groups of classes by name."""

    images: Tensor
    labels: Tensor
    cost: Tensor
    groups: Mapping[str, Sequence[int]]


def decisions(model: nn.Module, held: Held) -> ConfusionCounts:
    """The model's own decisions on the held-out images."""
    num_classes = len(held.cost)
    with evaluation(model):
        decided = torch.cat([model(part).argmax(1) for part in held.images.split(_ROWS)])
    return ConfusionCounts.from_predictions(decided, held.labels, num_classes)


def rows(model: nn.Module, held: Held) -> list[Entry]:
    """Entries on the held-out images."""
    counts = decisions(model, held)
    entries = [_entry("balanced_accuracy", "balanced accuracy", counts.balanced_accuracy(), 1.0, "mean over classes")]
    for name, classes in held.groups.items():
        share = counts.select(classes).balanced_accuracy()
        entries.append(_entry(f"accuracy_of_{name}", f"accuracy, {name}", share, 1.0, "mean over classes"))
    entries.append(
        _entry("average_cost", "cost of a decision", counts.average_cost(held.cost), 0.0, "hops in the tree of classes")
    )
    return entries


def distortion_row(prototypes: Tensor, cost: Tensor) -> Entry:
    """How well learnt or fixed prototypes follow the costs."""
    value = scale_free_distortion(prototypes.detach().double(), cost)
    return _entry(
        "scale_free_distortion",
        "scale-free distortion",
        value,
        0.0,
        "of prototypes, hops in the tree",
        family="prototypes",
        split="train",
        source="Sainte Fare Garnot & Landrieu 2021",
    )


def minority_rows(evidence: Evidence, minority: Sequence[int], *, fixed: bool) -> tuple[list[Entry], str]:
    """The mean cosine between the classifier rows of rare classes, and a sentence that says what it could be.

    Args: evidence, statistics of the training features and the classifier; fixed, whether that wasn't trained.
    """
    statistics, weight = evidence.statistics, evidence.weight
    assert statistics is not None and weight is not None
    centred = weight - weight.mean(0)
    cosine, ideal = _mean_cosine(centred @ centred.mT, minority), -1 / (len(weight) - 1)
    predicted = _mean_cosine(seli(statistics.counts).classifiers, minority)
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
    if fixed:
        return [entry], f"The minority's classifiers have a mean cosine of {cosine:.3f}, as they were built."
    return [entry], (
        f"The minority's classifiers have a mean cosine of {cosine:.3f}: 1 is minority collapse, {ideal:.3f} the "
        f"simplex ETF, and {predicted:.3f} the SELI geometry, which cross-entropy on these counts tends to."
    )


def _mean_cosine(gram: Tensor, classes: Sequence[int]) -> float:
    """The mean cosine over pairs of some rows, from the Gram matrix of all."""
    chosen = gram_cosines(gram)[list(classes)][:, list(classes)]
    i, j = torch.triu_indices(len(chosen), len(chosen), offset=1)
    return float(chosen[i, j].mean())


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
