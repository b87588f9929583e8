"""NC4: how often the classifier decides like the nearest class centre."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.decisions import DecisionCounts
from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import ClassifierError, EmptyClassError

Decisions = DecisionCounts | DecisionTotals


def ncc_agreement(decisions: Decisions) -> Tensor:
    """Share of samples for which the classifier and the nearest class centre decide alike.

    Ties of either go to the lowest class index. Shape: scalar. Range: [0, 1]; 1 = collapsed.
    Raises: ClassifierError without a classifier; EmptyClassError without samples.
    Source: Papyan, Han & Donoho 2020, NC4; as agreement, Wu & Papyan 2024.
    """
    return _pooled(decisions, _agreement(decisions))


def ncc_mismatch(decisions: Decisions) -> Tensor:
    """Share of samples for which the classifier and the nearest class centre differ: 1 - `ncc_agreement`.

    Range: [0, 1]; 0 = collapsed. Source: Papyan, Han & Donoho 2020, NC4.
    """
    totals = _totals(decisions)
    return _pooled(totals, totals.counts - _agreement(totals))


def ncc_agreement_per_class(decisions: Decisions) -> Tensor:
    """(K,) `ncc_agreement` within each class; NaN for classes without samples."""
    return _agreement(decisions).to(torch.float64) / _totals(decisions).counts


def ncc_agreement_class_weighted(decisions: Decisions) -> Tensor:
    """Mean over classes with samples of their agreement, each class counting once."""
    return _by_class(decisions, _agreement(decisions))


def ncc_mismatch_class_weighted(decisions: Decisions) -> Tensor:
    """Mean over classes with samples of their mismatch, each class counting once."""
    totals = _totals(decisions)
    return _by_class(totals, totals.counts - _agreement(totals))


def ncc_accuracy(decisions: Decisions) -> Tensor:
    """Share of samples whose nearest class centre is their label's. Range: [0, 1]."""
    totals = _totals(decisions)
    return _pooled(totals, totals.centre_correct)


def classifier_accuracy(decisions: Decisions) -> Tensor:
    """Share of samples that the classifier gets right. Range: [0, 1]."""
    totals = _totals(decisions)
    if totals.classifier_correct is None:
        raise _no_classifier()
    return _pooled(totals, totals.classifier_correct)


def binomial_error(share: Tensor, decisions: Decisions) -> Tensor:
    """Standard error of a share of samples, sqrt(p (1 - p) / N)."""
    return (share * (1 - share) / _totals(decisions).counts.sum()).sqrt()


def binomial_error_class_weighted(decisions: Decisions) -> Tensor:
    """Standard error of the class-weighted agreement or mismatch, sqrt(sum_k p_k (1 - p_k) / n_k) / K.

    NaN if a class has a single sample, which doesn't tell its error.
    """
    shares = ncc_agreement_per_class(decisions)
    counts = _totals(decisions).counts
    variances = torch.where(counts > 1, shares * (1 - shares) / counts, torch.nan)[counts > 0]
    return variances.sum().sqrt() / len(variances)


def has_classifier(decisions: Decisions) -> bool:
    """Whether a classifier's decisions were counted beside the nearest centre's."""
    return _totals(decisions).agreement is not None


def _totals(decisions: Decisions) -> DecisionTotals:
    return decisions.totals if isinstance(decisions, DecisionCounts) else decisions


def _agreement(decisions: Decisions) -> Tensor:
    agreement = _totals(decisions).agreement
    if agreement is None:
        raise _no_classifier()
    return agreement


def _no_classifier() -> ClassifierError:
    return ClassifierError("these decisions were counted without a classifier; pass weight to DecisionCounts.")


def _pooled(decisions: Decisions, hits: Tensor) -> Tensor:
    samples = _totals(decisions).counts.sum()
    if samples == 0:
        raise EmptyClassError("no decisions were counted: the classes chosen have no samples.")
    return hits.sum().to(torch.float64) / samples


def _by_class(decisions: Decisions, hits: Tensor) -> Tensor:
    counts = _totals(decisions).counts
    present = counts > 0
    if not present.any():
        raise EmptyClassError("no decisions were counted: the classes chosen have no samples.")
    return (hits[present].to(torch.float64) / counts[present]).mean()
