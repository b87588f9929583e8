"""Measured Gram matrices beside those that theory predicts for the counts and weight decays, and what that says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.metrics import Evidence, jackknife
from tightframe.metrics.geometry import classifier_rows
from tightframe.metrics.predicted import gram_distance
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

_DISTANCES = {
    "the simplex ETF": ("etf_error", "classifier_etf_error_centred"),
    "SELI": ("seli_error", "classifier_seli_error"),
    "the optimum at the weight decays": ("optimum_error", "classifier_optimum_error"),
}
"""Predictions, in the order of what they take into account, and the entries that are distances to them: of class means,
of classifier rows."""


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
    """What theory predicts for the classes with samples, the best informed last: the simplex ETF, and where counts
    differ enough to matter SELI and, with known weight decays, the optimum of unconstrained features. Nothing for more
    than `LARGEST` classes."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return []
    counts = evidence.statistics.populated().counts
    if len(counts) > LARGEST:
        return []
    simplex = torch.eye(len(counts), dtype=torch.float64) - 1 / len(counts)
    found = [Geometry("simplex ETF", simplex, simplex)]
    if counts.max() < _UNEQUAL * counts.min():
        return found
    limit = seli(counts)
    found.append(Geometry("SELI", limit.means, limit.classifiers))
    data = report.context.get("training")
    if data is not None:
        optimum = optimum_of(Training.from_dict(data), counts, with_bias=evidence.bias is not None)
        if optimum.rank > 0:
            found.append(Geometry("optimum at the weight decays", optimum.means, optimum.classifiers))
    return found


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


def statements(report: Report) -> list[str]:
    """What the distances to the predicted geometries say, in sentences: where class sizes differ enough to matter, and
    where weight decays are known."""
    facts, values = report.context, report.values
    said = []
    least, most = facts.get("smallest_class", 1), facts.get("largest_class", 1)
    if most >= _UNEQUAL * least and "seli_error" in values:
        said.append(
            f"Classes have {least:,} to {most:,} samples: as weight decay vanishes, cross-entropy tends to the SELI "
            "geometry of these counts, not to the simplex ETF."
        )
        for what, place in (("classifier rows", 1), ("class means", 0)):
            known = {name: values.get(keys[place], math.nan) for name, keys in _DISTANCES.items()}
            known = {name: value for name, value in known.items() if math.isfinite(value)}
            if len(known) > 1:
                nearest = min(known, key=lambda name: known[name])
                distances = ", ".join(f"{number(value)} to {name}" for name, value in known.items())
                said.append(f"The Gram matrix of the {what} is nearest to {nearest}; distances: {distances}.")
    return said + _merging(report)


def _merging(report: Report) -> list[str]:
    """Which classes are predicted to share a classifier row at the weight decays, and which do."""
    data, evidence = report.context.get("training"), report.evidence
    if data is None or evidence is None or evidence.statistics is None or data["loss"] != "cross-entropy":
        return []
    statistics = evidence.statistics.populated()
    labels = statistics.class_ids.tolist()
    decays = data["weight_decay"], data["feature_decay"]
    threshold = minority_collapse_threshold(int(statistics.num_samples), *decays)
    if len(labels) <= LARGEST:
        groups = optimum_of(Training.from_dict(data), statistics.counts, with_bias=evidence.bias is not None).merged
    else:
        groups = merging_classes(statistics.counts, *decays)
    estimated = (
        f" (λ_W = {decays[0]:g}; λ_H = {decays[1]:.3g} is an estimate, λ_W‖W‖²/‖H‖², as features are not penalised)"
        if report.context.get("feature_decay_estimated")
        else ""
    )
    named = "; ".join(", ".join(str(labels[k]) for k in group) for group in groups)
    said = f"Classifiers of classes of one size merge up to N²λ_Wλ_H = {threshold:.3g} samples a class{estimated}: " + (
        f"predicted to merge are {named}." if groups else "none is predicted to merge."
    )
    geometry = measured(report)
    cosines = None if geometry is None else geometry.classifier_cosines
    if cosines is None:
        return [said]
    pairs = [(labels[i], labels[j]) for i, j in (cosines.triu(1) >= MERGED).nonzero().tolist()]
    shown = listed([f"{i}–{j}" for i, j in pairs])
    have = f"{len(pairs)} {'pair has' if len(pairs) == 1 else 'pairs have'} a cosine of at least {MERGED}: {shown}."
    return [f"{said} {have if pairs else f'No pair has a cosine of {MERGED} or more.'}"]
