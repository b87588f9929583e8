"""NC4: how often the classifier and the nearest class centre agree, and how often each is correct."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import EmptyClassError, EvidenceError
from tightframe.evidence import Decisions, totals_of
from tightframe.metrics.metric import Metric, metric
from tightframe.statistics import Weighting

__all__ = [
    "ncc_mismatch",
    "ncc_agreement",
    "ncc_accuracy",
    "classifier_accuracy",
    "balanced_accuracy",
    "ncc_agreement_per_class",
    "binomial_error",
]

_PAPYAN = "Papyan, Han & Donoho 2020"
_POOLED = "classifier with bias, pooled"


def _agreeing(totals: DecisionTotals) -> Tensor | None:
    return totals.agreement


def _differing(totals: DecisionTotals) -> Tensor | None:
    return None if totals.agreement is None else totals.counts - totals.agreement


def _centre_right(totals: DecisionTotals) -> Tensor | None:
    return totals.centre_correct


def _classifier_right(totals: DecisionTotals) -> Tensor | None:
    return totals.classifier_correct


@metric(
    "NCC mismatch", "NC4", source=_PAPYAN, convention=_POOLED, target=0.0, hits=_differing, headline=True, held_out=True
)
def ncc_mismatch(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples on which the classifier and the nearest class centre disagree, 1 - `ncc_agreement`.

    argmax_k (w_k h + b_k) differs from argmin_k |h - mu_k|; ties go to the lowest class index.

    Shape: scalar, float64. Range: [0, 1]; 0 = collapsed.
    Misleads: agreement is not correctness: both decisions may be wrong. A training sample is part of its own class
    mean, which few samples per class in many dimensions turn into agreement for any labels.

    Args:
        weighting: "sample" pools all samples; "class" takes the unweighted mean over classes with samples. Samples
            without labels are included in the pooled share only.

    Raises: EvidenceError without a classifier; EmptyClassError without samples.
    Source: Papyan, Han & Donoho 2020, NC4.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)  # the nearer mean changes at 6
    >>> weight, bias = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, -1.0])  # class 1 above 1
    >>> decisions = DecisionCounts(statistics, weight, bias)
    >>> decisions.update(features, labels)
    >>> metrics.ncc_mismatch(decisions).item()  # the second sample
    0.25
    """
    return _share(decisions, ncc_mismatch, weighting)


@metric("NCC agreement", "NC4", source="Wu & Papyan 2024", convention=_POOLED, target=1.0, hits=_agreeing)
def ncc_agreement(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples on which the classifier and the nearest class centre agree.

    Shape: scalar, float64. Range: [0, 1]; 1 = collapsed.
    Misleads: as `ncc_mismatch`.

    Args:
        weighting: as in `ncc_mismatch`.

    Raises: EvidenceError without a classifier; EmptyClassError without samples.
    Source: Wu & Papyan 2024, NC4.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)  # the nearer mean changes at 6
    >>> weight, bias = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, -1.0])  # class 1 above 1
    >>> decisions = DecisionCounts(statistics, weight, bias)
    >>> decisions.update(features, labels)
    >>> metrics.ncc_agreement(decisions).item()  # all but the second sample
    0.75
    """
    return _share(decisions, ncc_agreement, weighting)


def ncc_agreement_per_class(decisions: Decisions) -> Tensor:
    """`ncc_agreement` per class.

    Shape: (K,), float64. Range: [0, 1]; NaN for classes without samples.
    Raises: EvidenceError without a classifier.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)
    >>> decisions = DecisionCounts(statistics, torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, -1.0]))
    >>> decisions.update(features, labels)
    >>> metrics.ncc_agreement_per_class(decisions).tolist()
    [0.5, 1.0]
    """
    totals = totals_of(decisions)
    return _hits(totals, ncc_agreement).to(torch.float64) / totals.counts


@metric(
    "nearest-centre accuracy",
    "NC4",
    source=_PAPYAN,
    convention="pooled",
    target=1.0,
    hits=_centre_right,
    headline=True,
    held_out=True,
)
def ncc_accuracy(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples nearest to the centre of their own class, argmin_k |h - mu_k| = y.

    Shape: scalar, float64. Range: [0, 1]; 1 = all correct.
    Misleads: a training sample is part of its own class mean: for few samples per class in many dimensions the accuracy
    is near 1 for any labels.

    Args:
        weighting: as in `ncc_mismatch`.

    Raises: EmptyClassError without samples.
    Source: the nearest-centre decisions of Papyan, Han & Donoho 2020, NC4.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [9.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)  # means 4.5 and 11
    >>> decisions = DecisionCounts(statistics)
    >>> decisions.update(features, labels)
    >>> metrics.ncc_accuracy(decisions).item()  # 9 is nearer to 11
    0.75
    """
    return _share(decisions, ncc_accuracy, weighting)


@metric(
    "classifier accuracy",
    "accuracy",
    source="standard",
    convention="pooled",
    target=1.0,
    hits=_classifier_right,
    headline=True,
    held_out=True,
)
def classifier_accuracy(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples that the classifier labels correctly, argmax_k (w_k h + b_k) = y.

    Shape: scalar, float64. Range: [0, 1]; 1 = all correct.
    Misleads: pooled over samples, large classes decide: always answering the largest class is right on its share of
    samples. `balanced_accuracy` weights classes equally.

    Args:
        weighting: as in `ncc_mismatch`.

    Raises: EvidenceError without a classifier; EmptyClassError without samples.
    Source: standard; no paper.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0], [14.0]]), torch.tensor([0, 0, 1, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)
    >>> weight, bias = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, -1.0])  # class 1 above 1
    >>> decisions = DecisionCounts(statistics, weight, bias)
    >>> decisions.update(features, labels)
    >>> metrics.classifier_accuracy(decisions).item(), metrics.balanced_accuracy(decisions).item()  # 4 of 5; 1/2 and 1
    (0.8, 0.75)
    """
    return _share(decisions, classifier_accuracy, weighting)


balanced_accuracy = classifier_accuracy.having(
    "balanced_accuracy", weighting="class", label="balanced accuracy", convention="mean over classes"
)


def binomial_error(metric: Metric[Any], decisions: Decisions) -> Tensor:
    """Binomial standard error sqrt(p (1 - p) / N) of a share of samples.

    For classes weighted equally: sqrt(sum_k p_k (1 - p_k) / n_k) / K; NaN if a class has a single sample.

    Shape: scalar, float64. Range: [0, 0.5].
    Raises: EvidenceError if the metric needs a classifier that the decisions lack.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts, metrics
    >>> features, labels = torch.tensor([[0.0], [9.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> decisions = DecisionCounts(ClassStatistics.from_features(features, labels, 2))
    >>> decisions.update(features, labels)
    >>> error = metrics.binomial_error(metrics.ncc_accuracy, decisions)
    >>> round(error.item(), 4)  # sqrt(3/4 * 1/4 / 4)
    0.2165
    """
    totals = totals_of(decisions)
    if metric.options.get("weighting") != "class" or metric.hits is None:
        value = metric(decisions)
        samples = totals.counts.sum() + totals.unlabelled[0] * (metric.hits in (_agreeing, _differing))
        return (value * (1 - value) / samples).clamp(min=0).sqrt()
    counts = totals.counts
    shares = _hits(totals, metric).to(torch.float64) / counts
    variances = torch.where(counts > 1, shares * (1 - shares) / counts, torch.nan)[counts > 0]
    return variances.sum().sqrt() / len(variances)


def _hits(totals: DecisionTotals, metric: Metric[Any]) -> Tensor:
    hits = None if metric.hits is None else metric.hits(totals)
    if hits is None:
        raise EvidenceError(
            f"{metric.label} needs the decisions of a classifier on labelled samples. Pass a classifier and labels to "
            "DecisionCounts."
        )
    return hits


def _share(decisions: Decisions, metric: Metric[Any], weighting: Weighting) -> Tensor:
    totals = totals_of(decisions)
    hits, counts = _hits(totals, metric), totals.counts
    present = counts > 0
    samples, agreeing = totals.unlabelled if metric in (ncc_agreement, ncc_mismatch) else totals.unlabelled * 0
    if not present.any() and (weighting == "class" or samples == 0):
        raise EmptyClassError("no decisions were counted: the selected classes have no samples.")
    if weighting == "sample":
        more = agreeing if metric is ncc_agreement else samples - agreeing
        return (hits.sum() + more).to(torch.float64) / (counts.sum() + samples)
    return (hits[present].to(torch.float64) / counts[present]).mean()
