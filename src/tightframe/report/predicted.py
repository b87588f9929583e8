"""Measured Gram matrices, those that theory predicts for the counts and weight decays, and their comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.evidence import Evidence, classifier_rows
from tightframe.metrics import Metric, gram_distance, jackknife, levels, metric
from tightframe.numerics import centred_gram, gram_cosines
from tightframe.report.entry import Entry
from tightframe.report.findings import Distances, Findings
from tightframe.sections import error_text, number
from tightframe.statistics import ClassStatistics
from tightframe.theory import Training, UnconstrainedOptimum, merging_classes, minority_collapse_threshold, seli

LARGEST = 200  # maximum number of classes; a picture cannot show more
_UNEQUAL = 1.5  # ratio of largest to smallest class below which SELI and the simplex ETF hardly differ
MERGED = 0.99  # least cosine of centred classifier rows at which classes count as merged


@dataclass(frozen=True, eq=False)
class Geometry:
    """Gram matrices (K, K) of class means and classifier rows, up to scale; `classifiers` is None if unknown."""

    name: str
    means: Tensor
    classifiers: Tensor | None

    @property
    def mean_cosines(self) -> Tensor:
        """(K, K) cosines between the centred class means."""
        return gram_cosines(centred_gram(self.means))

    @property
    def classifier_cosines(self) -> Tensor | None:
        """(K, K) cosines between the centred classifier rows."""
        return None if self.classifiers is None else gram_cosines(centred_gram(self.classifiers))


def measured(found: Findings) -> Geometry | None:
    """The measured Gram matrices; None without statistics or with more than `LARGEST` classes."""
    evidence = found.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics = evidence.statistics.detach().populated()
    if statistics.num_classes > LARGEST:
        return None
    centred = statistics.centred_means().cpu()
    rows = None if evidence.weight is None else classifier_rows(statistics, evidence.weight.detach()).cpu()
    return Geometry("measured", centred @ centred.mT, None if rows is None else rows @ rows.mT)


def predicted(found: Findings) -> list[Geometry]:
    """Predictions of theory for the classes with samples, the most specific last: see `predictions`."""
    return [] if found.evidence is None else predictions(found.evidence, found.facts.training)


def predictions(evidence: Evidence, training: Training | None) -> list[Geometry]:
    """The simplex ETF. If counts or loss options differ enough between classes: also SELI, for plain cross-entropy,
    and, with known weight decays, the optimum of unconstrained features. Empty for more than `LARGEST` classes."""
    if evidence.statistics is None:
        return []
    counts = evidence.statistics.populated().counts
    if len(counts) > LARGEST:
        return []
    simplex = torch.eye(len(counts), dtype=torch.float64) - 1 / len(counts)
    geometries = [Geometry("the simplex ETF", simplex, simplex)]
    unequal = training is not None and (training.class_weights is not None or training.logit_adjustment is not None)
    if counts.max() < _UNEQUAL * counts.min() and not unequal:
        return geometries
    if training is None or _plain(training):
        limit = seli(counts)
        geometries.append(Geometry("SELI", limit.means, limit.classifiers))
    if training is not None:
        optimum = optimum_of(training, counts, with_bias=evidence.bias is not None)
        if optimum.rank > 0:
            geometries.append(Geometry("the optimum at the weight decays", optimum.means, optimum.classifiers))
    return geometries


def _plain(training: Training) -> bool:
    """Whether SELI is the limit as weight decay vanishes: true for cross-entropy without options."""
    options = (training.label_smoothing, training.class_weights, training.logit_adjustment)
    return training.loss == "cross-entropy" and not any(options)


def optimum_of(training: Training, counts: Tensor, *, with_bias: bool) -> UnconstrainedOptimum:
    """`Training.optimum`, solved once and cached."""
    return _solved(training, tuple(counts.tolist()), with_bias)


@lru_cache(maxsize=8)
def _solved(training: Training, counts: tuple[int, ...], with_bias: bool) -> UnconstrainedOptimum:
    return training.optimum(counts, with_bias=with_bias)


def optimum_entries(evidence: Evidence, training: Training) -> list[Entry]:
    """Distances of class means and classifier rows to the optimum of unconstrained features at the weight decays.

    Standard errors include the sampling of features, not the optimum, which is fixed.
    """
    statistics, weight = evidence.statistics, evidence.weight
    assert statistics is not None and weight is not None
    statistics = statistics.populated()
    optimum = optimum_of(training, statistics.counts, with_bias=evidence.bias is not None)
    if optimum.rank == 0:  # everything decays to zero: there is no geometry
        return []

    def error(value: ClassStatistics) -> Tensor:
        return gram_distance(value.centred_means(), optimum.means)

    folds = evidence.folds
    uncertain = None if folds is None else float(jackknife(error, folds.without_scatter).standard_error)
    rows = classifier_rows(statistics, weight.detach())
    measures = {
        "optimum_error": ("distance to the optimum, means", error(statistics), uncertain),
        "classifier_optimum_error": (
            "distance to the optimum, classifier",
            gram_distance(rows, optimum.classifiers),
            None,
        ),
    }
    convention = "Gram matrices, Frobenius, at the weight decays"
    return [
        Entry(
            *(name, "train", label, "NC2", float(value), 0.0, None, None, uncertainty, convention, "Hong & Ling 2024"),
            headline=False,
            classes=statistics.num_classes,
        )
        for name, (label, value, uncertainty) in measures.items()
    ]


def distances_to_predictions(evidence: Evidence, training: Training | None) -> tuple[Distances, ...]:
    """Distances of the Gram matrices of class means and classifier rows to the predicted ones, if there are several;
    errors of margins are jackknife errors."""
    geometries = predictions(evidence, training)
    if (
        len(geometries) < 2 or evidence.statistics is None or len(geometries[0].means) < 3
    ):  # two classes have one geometry
        return ()
    statistics, results = evidence.statistics.populated(), list[Distances]()
    kinds = [("class means", statistics.centred_means(), [each.means for each in geometries])]
    if evidence.classifier is not None:
        grams = [each.classifiers for each in geometries if each.classifiers is not None]
        kinds.append(("classifier rows", evidence.classifier.detach(), grams))
    for what, rows, grams in kinds:
        distances = [float(gram_distance(rows, gram)) for gram in grams]
        if any(map(math.isnan, distances)):
            continue
        first, second = sorted(range(len(grams)), key=lambda place: distances[place])[:2]

        def least(rows: Tensor, grams: list[Tensor] = grams) -> Tensor:
            return torch.stack([gram_distance(rows, gram) for gram in grams]).amin()

        nearness = _nearness(least) if what == "class means" else _nearness_of_rows(least)
        level = levels(evidence, [nearness]).get("nearness")
        if level is None:
            continue
        error = None
        if what == "class means" and evidence.folds is not None:

            def margin(value: ClassStatistics, a: Tensor = grams[second], b: Tensor = grams[first]) -> Tensor:
                means = value.populated().centred_means()
                return gram_distance(means, a) - gram_distance(means, b)

            error = float(jackknife(margin, evidence.folds.without_scatter).standard_error)
        results.append(
            Distances(
                what,
                {each.name: distance for each, distance in zip(geometries, distances, strict=True)},
                geometries[first].name,
                geometries[second].name,
                distances[second] - distances[first],
                None if error is None or math.isnan(error) else error,
                level.value,
                level.spread,
            )
        )
    return tuple(results)


def _nearness(least: Callable[[Tensor], Tensor]) -> Metric[Any]:
    @metric("nearness", "NC2")
    def nearness(statistics: ClassStatistics) -> Tensor:
        return least(statistics.centred_means())

    return nearness


def _nearness_of_rows(least: Callable[[Tensor], Tensor]) -> Metric[Any]:
    @metric("nearness", "NC2")
    def nearness(classifier: Tensor) -> Tensor:
        return least(classifier)

    return nearness


def statements(found: Findings) -> list[str]:
    """Sentences on the distances to the predicted geometries, if class sizes differ enough, and on merging, if weight
    decays are known."""
    facts, sentences = found.facts, []
    if any("SELI" in each.distances for each in found.distances):
        sentences.append(
            f"Classes have {facts.smallest_class or 1:,} to {facts.largest_class or 1:,} samples. If these are the "
            "training counts, cross-entropy tends to the SELI geometry as weight decay vanishes, not to the simplex "
            "ETF."
        )
    return sentences + [_statement(each) for each in found.distances] + _merging(found)


def _statement(found: Distances) -> str:
    what, nearest, error = found.what, found.nearest, found.error
    listed_ = ", ".join(f"{number(value)} to {name}" for name, value in found.distances.items())
    chance = "with shuffled labels" if what == "class means" else "for rows in random directions"
    level = f"{chance} the least distance is {number(found.level)}"
    if found.distances[nearest] >= found.level:
        return f"The Gram matrix of the {what} is not near any prediction. Distances: {listed_}; {level}."
    if error is not None and found.margin < 2 * error:
        return (
            f"The Gram matrix of the {what} is about as near to {nearest} as to {found.next}. Distances: {listed_}; "
            f"the difference of {number(found.margin)} has a standard error of {error_text(error)}."
        )
    by = f", by {number(found.margin)} ± {error_text(error)}" if error is not None else ""
    return f"The Gram matrix of the {what} is nearest to {nearest}{by}. Distances: {listed_}; {level}."


@dataclass(frozen=True)
class Merging:
    """Predicted merging of classes: those that share a classifier row at the weight decays.

    Attributes:
        threshold: classes of equal size merge up to this many samples per class; groups: labels that merge.
    """

    threshold: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def labels(self) -> set[int]:
        """Labels of all classes that merge."""
        return {label for group in self.groups for label in group}


def predicted_merging(found: Findings) -> Merging | None:
    """The merging of classifier rows that theory predicts for cross-entropy; None if weight decays are unknown."""
    training, evidence = found.facts.training, found.evidence
    if training is None or evidence is None or evidence.statistics is None or training.loss != "cross-entropy":
        return None
    assert training.feature_decay is not None
    statistics = evidence.statistics.populated()
    labels = statistics.class_ids.tolist()
    decays = training.weight_decay, training.feature_decay
    smoothing = training.label_smoothing
    threshold = minority_collapse_threshold(int(statistics.num_samples), *decays, label_smoothing=smoothing)
    if len(labels) <= LARGEST:
        groups = optimum_of(training, statistics.counts, with_bias=evidence.bias is not None).merged
    else:
        groups = merging_classes(
            statistics.counts,
            *decays,
            label_smoothing=smoothing,
            class_weights=training.class_weights,
            logit_adjustment=training.logit_adjustment,
        )
    return Merging(float(threshold), tuple(tuple(labels[k] for k in group) for group in groups))


def merged_pairs(found: Findings) -> list[tuple[int, int]]:
    """Labels of the classes whose centred classifier rows have a cosine of at least `MERGED`."""
    geometry = measured(found)
    cosines = None if geometry is None else geometry.classifier_cosines
    if cosines is None:
        return []
    labels = found.evidence.statistics.populated().class_ids.tolist()  # type: ignore[union-attr]
    return [(labels[i], labels[j]) for i, j in (cosines.triu(1) >= MERGED).nonzero().tolist()]


def _merging(found: Findings) -> list[str]:
    """Sentences on the classes predicted to share a classifier row at the weight decays, and on those that do."""
    merging, training = predicted_merging(found), found.facts.training
    if merging is None or training is None:
        return []
    merged = found.facts.names_of([label for group in merging.groups for label in group])
    sets = "" if len(merging.groups) < 2 else f", in {len(merging.groups)} sets"
    threshold = f"{merging.threshold:.3g}"
    few = (
        f"at most {threshold} sample{'' if threshold == '1' else 's'}"
        if training.class_weights is None
        else "few samples"
    )
    sentences = [
        f"At these weight decays, theory predicts that the classifier rows of equal-size classes with {few} merge: "
        + (f"{len(merged)} here{sets} ({listed(merged)})." if merged else "none here.")
    ]
    if found.facts.feature_decay_estimated:
        sentences.append(
            f"(λ_W = {training.weight_decay:g}; λ_H = {training.feature_decay:.3g}, estimated as λ_W‖W‖²/‖H‖².)"
        )
    geometry = measured(found)
    if geometry is not None and geometry.classifiers is not None:
        pairs = ["–".join(found.facts.names_of(pair)) for pair in merged_pairs(found)]
        have = "1 pair of rows has" if len(pairs) == 1 else f"{len(pairs)} pairs of rows have"
        named = f"{have} a cosine of at least {MERGED}: {listed(pairs)}."
        sentences.append(named if pairs else f"No pair of rows has a cosine of {MERGED} or more.")
    return [" ".join(sentences)]
