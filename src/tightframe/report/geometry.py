"""Measured Gram matrices beside those that theory predicts for the counts and weight decays, and what that says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.evidence import Evidence, classifier_rows
from tightframe.metrics import Metric, gram_distance, jackknife, levels, metric
from tightframe.numerics import centred_gram, gram_cosines
from tightframe.report.entry import Entry
from tightframe.report.wording import number
from tightframe.statistics import ClassStatistics
from tightframe.theory import Training, UnconstrainedOptimum, merging_classes, minority_collapse_threshold, seli

if TYPE_CHECKING:
    from tightframe.report.report import Report

LARGEST = 200  # classes; more can't be told apart in a picture
_UNEQUAL = 1.5  # ratio of the largest class to the smallest below which SELI is as good as the simplex ETF
MERGED = 0.99  # cosine of centred classifier rows from which on classes count as merged


@dataclass(frozen=True, eq=False)
class Geometry:
    """Gram matrices (K, K) of class means and classifier rows, up to scale; the classifier's None where unknown."""

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


def measured(report: Report) -> Geometry | None:
    """What was measured; None without statistics or with more than `LARGEST` classes."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics = evidence.statistics.detach().populated()
    if statistics.num_classes > LARGEST:
        return None
    centred = statistics.centred_means().cpu()
    rows = None if evidence.weight is None else classifier_rows(statistics, evidence.weight.detach()).cpu()
    return Geometry("measured", centred @ centred.mT, None if rows is None else rows @ rows.mT)


def predicted(report: Report) -> list[Geometry]:
    """What theory predicts for the classes with samples, the best informed last: see `predictions`."""
    return [] if report.evidence is None else predictions(report.evidence, report.context.get("training"))


def predictions(evidence: Evidence, training: Mapping[str, Any] | None) -> list[Geometry]:
    """The simplex ETF; where counts or the loss's options differ between classes enough to matter, SELI, for plain
    cross-entropy, and with known weight decays the optimum of unconstrained features. Nothing for more than `LARGEST`
    classes."""
    if evidence.statistics is None:
        return []
    counts = evidence.statistics.populated().counts
    if len(counts) > LARGEST:
        return []
    simplex = torch.eye(len(counts), dtype=torch.float64) - 1 / len(counts)
    found = [Geometry("the simplex ETF", simplex, simplex)]
    known = None if training is None else Training.from_dict(dict(training))
    unequal = known is not None and (known.class_weights is not None or known.logit_adjustment is not None)
    if counts.max() < _UNEQUAL * counts.min() and not unequal:
        return found
    if known is None or _plain(known):
        limit = seli(counts)
        found.append(Geometry("SELI", limit.means, limit.classifiers))
    if known is not None:
        optimum = optimum_of(known, counts, with_bias=evidence.bias is not None)
        if optimum.rank > 0:
            found.append(Geometry("the optimum at the weight decays", optimum.means, optimum.classifiers))
    return found


def _plain(training: Training) -> bool:
    """Whether SELI is the limit as weight decay vanishes: for cross-entropy without options."""
    options = (training.label_smoothing, training.class_weights, training.logit_adjustment)
    return training.loss == "cross-entropy" and not any(options)


def optimum_of(training: Training, counts: Tensor, *, with_bias: bool) -> UnconstrainedOptimum:
    """`Training.optimum`, solved once for all that show it."""
    return _solved(training, tuple(counts.tolist()), with_bias)


@lru_cache(maxsize=8)
def _solved(training: Training, counts: tuple[int, ...], with_bias: bool) -> UnconstrainedOptimum:
    return training.optimum(counts, with_bias=with_bias)


def optimum_entries(evidence: Evidence, training: Training) -> list[Entry]:
    """Distances of class means and classifier rows to the optimum of unconstrained features at the weight decays.

    Their standard errors are those of the features, for that optimum as it is.
    """
    statistics, weight = evidence.statistics, evidence.weight
    assert statistics is not None and weight is not None
    statistics = statistics.populated()
    optimum = optimum_of(training, statistics.counts, with_bias=evidence.bias is not None)
    if optimum.rank == 0:  # everything decays to zero: no geometry to be near to
        return []

    def error(value: ClassStatistics) -> Tensor:
        return gram_distance(value.centred_means(), optimum.means)

    folds = evidence.folds
    uncertain = None if folds is None else float(jackknife(error, folds.without_scatter).standard_error)
    rows = classifier_rows(statistics, weight.detach())
    found = {
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
        for name, (label, value, uncertainty) in found.items()
    ]


def distances_to_predictions(evidence: Evidence, training: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """How far the Gram matrices of class means and classifier rows are from the predicted ones, if there are several.

    For each a dict: `what` it is of, `distances` by prediction, the `nearest`; `margin`, how much farther the next one
    is, and its jackknife `error` (None where samples have no part in it, or without folds); the `level` of the least
    distance and its `spread` with shuffled labels, or for rows in random directions.
    """
    found = predictions(evidence, training)
    if len(found) < 2 or evidence.statistics is None or len(found[0].means) < 3:  # two have but one geometry
        return []
    statistics, said = evidence.statistics.populated(), []
    kinds = [("class means", statistics.centred_means(), [each.means for each in found])]
    if evidence.classifier is not None:
        grams = [each.classifiers for each in found if each.classifiers is not None]
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
        said.append(
            {
                "what": what,
                "distances": {each.name: distance for each, distance in zip(found, distances, strict=True)},
                "nearest": found[first].name,
                "next": found[second].name,
                "margin": distances[second] - distances[first],
                "error": None if error is None or math.isnan(error) else error,
                "level": level.value,
                "spread": level.spread,
            }
        )
    return said


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


def statements(report: Report) -> list[str]:
    """What the distances to the predicted geometries say, in sentences: where class sizes differ enough to matter, and
    where weight decays are known."""
    facts = report.context
    said = []
    least, most = facts.get("smallest_class", 1), facts.get("largest_class", 1)
    found = facts.get("distances_to_predictions", [])
    if any("SELI" in each["distances"] for each in found):
        said.append(
            f"Classes have {least:,} to {most:,} samples: if these are the training counts, cross-entropy tends to "
            "their SELI geometry as weight decay vanishes, not to the simplex ETF."
        )
    return said + [_statement(each) for each in found] + _merging(report)


def _statement(found: Mapping[str, Any]) -> str:
    what, nearest, distances = found["what"], found["nearest"], found["distances"]
    level = number(found["level"])
    listed_ = ", ".join(f"{number(value)} to {name}" for name, value in distances.items())
    chance = "with shuffled labels" if what == "class means" else "in random directions"
    if distances[nearest] >= found["level"]:
        return (
            f"The Gram matrix of the {what} is near none of what theory predicts: {listed_}; {chance} the least "
            f"distance is {level}."
        )
    error = found["error"]
    if error is not None and found["margin"] < 2 * error:
        return (
            f"The Gram matrix of the {what} is about as near to {nearest} as to {found['next']}: {listed_}; their "
            f"difference of {number(found['margin'])} has a standard error of {number(error)}."
        )
    by = f", nearer by {number(found['margin'])} ± {number(error)}" if error is not None else ""
    return f"The Gram matrix of the {what} is nearest to {nearest}{by}; distances: {listed_} ({chance} {level})."


def _merging(report: Report) -> list[str]:
    """Which classes are predicted to share a classifier row at the weight decays, and which do."""
    data, evidence = report.context.get("training"), report.evidence
    if data is None or evidence is None or evidence.statistics is None or data["loss"] != "cross-entropy":
        return []
    statistics = evidence.statistics.populated()
    labels = statistics.class_ids.tolist()
    training = Training.from_dict(data)
    decays = data["weight_decay"], data["feature_decay"]
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
    estimated = (
        f" (λ_W = {decays[0]:g}; λ_H = {decays[1]:.3g} is an estimate, λ_W‖W‖²/‖H‖², as features are not penalised)"
        if report.context.get("feature_decay_estimated")
        else ""
    )
    merged = [str(labels[k]) for group in groups for k in group]
    sets = "" if len(groups) < 2 else f" in {len(groups)} sets"
    until = f"up to {threshold:.3g} samples a class" if training.class_weights is None else "where these are few"
    said = f"Classifiers of classes of one size merge {until}{estimated}: " + (
        f"{len(merged)} are predicted to merge{sets}: {listed(merged)}." if groups else "none is predicted to merge."
    )
    geometry = measured(report)
    cosines = None if geometry is None else geometry.classifier_cosines
    if cosines is None:
        return [said]
    pairs = [(labels[i], labels[j]) for i, j in (cosines.triu(1) >= MERGED).nonzero().tolist()]
    shown = listed([f"{i}–{j}" for i, j in pairs])
    have = f"{len(pairs)} {'pair has' if len(pairs) == 1 else 'pairs have'} a cosine of at least {MERGED}: {shown}."
    return [f"{said} {have if pairs else f'No pair has a cosine of {MERGED} or more.'}"]
