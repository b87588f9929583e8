"""NC4 from the counts of decisions."""

import math

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, evidence_of, statistics_of, tensors
from oracle import ORACLE
from tightframe import DecisionCounts, metrics
from tightframe.errors import EmptyClassError, EvidenceError
from variants import VARIANTS

BOTH = [
    metrics.ncc_agreement,
    metrics.ncc_mismatch,
    VARIANTS["ncc_agreement_class_weighted"],
    VARIANTS["ncc_mismatch_class_weighted"],
    metrics.ncc_agreement_per_class,
    metrics.classifier_accuracy,
    metrics.balanced_accuracy,
]
CENTRE = [metrics.ncc_accuracy, VARIANTS["ncc_accuracy_class_weighted"]]


@pytest.mark.parametrize("name", SCENARIOS)
def test_agreement_of_each_class(name: str) -> None:
    sample = draw(SCENARIOS[name], spread=1.0)
    decisions = evidence_of(sample).decisions
    classifier, centre = decisions.decide(tensors(sample)[0])
    for k, value in enumerate(metrics.ncc_agreement_per_class(decisions)):
        mine = tensors(sample)[1] == k
        expected = (classifier[mine] == centre[mine]).double().mean()
        torch.testing.assert_close(value, expected, rtol=1e-15, atol=0, equal_nan=True)


def test_the_two_weightings_differ_where_classes_do() -> None:
    sample = draw(SCENARIOS["zipf"], spread=1.0)
    decisions = evidence_of(sample).decisions
    each = metrics.ncc_agreement_per_class(decisions)
    assert metrics.ncc_agreement(decisions) != metrics.ncc_agreement(decisions, weighting="class")
    torch.testing.assert_close(metrics.ncc_agreement(decisions, weighting="class"), each.mean())
    torch.testing.assert_close(metrics.ncc_mismatch(decisions, weighting="class"), (1 - each).mean())
    balanced = metrics.classifier_accuracy(decisions, weighting="class")
    assert torch.equal(metrics.balanced_accuracy(decisions), balanced)
    assert balanced != metrics.classifier_accuracy(decisions)
    torch.testing.assert_close(metrics.ncc_mismatch(decisions), 1 - metrics.ncc_agreement(decisions))


def test_totals_serve_as_decisions_do() -> None:
    sample = draw(SCENARIOS["balanced"], spread=1.0)
    decisions = evidence_of(sample).decisions
    for function in (*BOTH, *CENTRE):
        torch.testing.assert_close(function(decisions.totals), function(decisions), rtol=0, atol=0)
    some = decisions.totals.select([0, 4])
    both = metrics.ncc_agreement_per_class(decisions)[[0, 4]]
    torch.testing.assert_close(metrics.ncc_agreement(some), both.mean())  # ten samples each


def test_without_a_classifier() -> None:
    sample = draw(SCENARIOS["balanced"], spread=1.0)
    decisions = DecisionCounts(statistics_of(sample))
    decisions.update(*tensors(sample))
    assert abs(metrics.ncc_accuracy(decisions) - ORACLE["ncc_accuracy"](sample)) < 1e-15
    for function in BOTH:
        with pytest.raises(EvidenceError, match="needs the decisions of a classifier on labelled samples"):
            function(decisions)


def test_without_samples() -> None:
    sample = draw(SCENARIOS["empty classes"])
    decisions = evidence_of(sample).decisions
    for empty in (
        DecisionCounts(statistics_of(sample), torch.from_numpy(sample.weight)),
        decisions.totals.select([1, 4]),
    ):
        for function in (*BOTH, *CENTRE):
            if function is metrics.ncc_agreement_per_class:
                assert function(empty).isnan().all()
                continue
            with pytest.raises(EmptyClassError, match="no samples"):
                function(empty)


def test_binomial_error() -> None:
    decisions = evidence_of(draw(SCENARIOS["balanced"], spread=1.0)).decisions
    p = metrics.ncc_accuracy(decisions).item()
    assert 0 < p < 1
    assert abs(metrics.binomial_error(metrics.ncc_accuracy, decisions) - math.sqrt(p * (1 - p) / 60)) < 1e-15
    assert torch.equal(
        metrics.binomial_error(metrics.ncc_accuracy, decisions.totals),
        metrics.binomial_error(metrics.ncc_accuracy, decisions),
    )


def test_binomial_error_of_classes_weighted_equally() -> None:
    decisions = evidence_of(draw(SCENARIOS["zipf"], spread=1.0)).decisions
    counts, hits = decisions.totals.counts.tolist(), decisions.totals.classifier_correct.tolist()
    variance = sum(h / n * (1 - h / n) / n for h, n in zip(hits, counts, strict=True))
    error = metrics.binomial_error(metrics.balanced_accuracy, decisions)
    assert abs(error - math.sqrt(variance) / 8) < 1e-15
    assert error != metrics.binomial_error(metrics.classifier_accuracy, decisions)


def test_a_class_without_samples_has_no_error_to_add() -> None:
    decisions = evidence_of(draw(SCENARIOS["empty classes"], spread=1.0)).decisions
    assert metrics.binomial_error(metrics.balanced_accuracy, decisions) > 0
    single = evidence_of(draw(SCENARIOS["single samples"], spread=1.0)).decisions
    assert metrics.binomial_error(metrics.balanced_accuracy, single).isnan()
