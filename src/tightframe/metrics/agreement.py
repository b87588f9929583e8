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
    "balanced_accuracy",
    "binomial_error",
    "classifier_accuracy",
    "ncc_accuracy",
    "ncc_agreement",
    "ncc_agreement_per_class",
    "ncc_mismatch",
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

    Ties go to the lowest class index. Shape: scalar. Range: [0, 1]; 0 = collapsed.

    Args:
        weighting: "sample" pools all samples; "class" takes the unweighted mean over classes with samples. Samples
            without labels are included in the pooled share only.

    Raises: EvidenceError without a classifier; EmptyClassError without samples.
    Source: Papyan, Han & Donoho 2020, NC4.
    """
    return _share(decisions, ncc_mismatch, weighting)


@metric("NCC agreement", "NC4", source="Wu & Papyan 2024", convention=_POOLED, target=1.0, hits=_agreeing)
def ncc_agreement(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples on which the classifier and the nearest class centre agree.

    Options and errors as in `ncc_mismatch`. Range: [0, 1]; 1 = collapsed. Source: Wu & Papyan 2024, NC4.
    """
    return _share(decisions, ncc_agreement, weighting)


def ncc_agreement_per_class(decisions: Decisions) -> Tensor:
    """(K,) `ncc_agreement` per class; NaN for classes without samples."""
    totals = totals_of(decisions)
    return _hits(totals, ncc_agreement).to(torch.float64) / totals.counts


@metric(
    "nearest-centre accuracy", "NC4", convention="pooled", target=1.0, hits=_centre_right, headline=True, held_out=True
)
def ncc_accuracy(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples nearest to the centre of their own class. Range: [0, 1]. Options as in `ncc_mismatch`."""
    return _share(decisions, ncc_accuracy, weighting)


@metric(
    "classifier accuracy",
    "accuracy",
    convention="pooled",
    target=1.0,
    hits=_classifier_right,
    headline=True,
    held_out=True,
)
def classifier_accuracy(decisions: Decisions, *, weighting: Weighting = "sample") -> Tensor:
    """Share of samples that the classifier labels correctly. Range: [0, 1]. Options as in `ncc_mismatch`."""
    return _share(decisions, classifier_accuracy, weighting)


balanced_accuracy = classifier_accuracy.having(
    "balanced_accuracy", weighting="class", label="balanced accuracy", convention="mean over classes"
)


def binomial_error(metric: Metric[Any], decisions: Decisions) -> Tensor:
    """Binomial standard error sqrt(p (1 - p) / N) of a share of samples.

    For classes weighted equally: sqrt(sum_k p_k (1 - p_k) / n_k) / K; NaN if a class has a single sample."""
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


METRICS = (ncc_mismatch, ncc_agreement, ncc_accuracy, classifier_accuracy, balanced_accuracy)
