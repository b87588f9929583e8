"""Metrics of one's own that misbehave, classes left out, and data that have no geometry: no statement is false."""

import pytest
import torch
from torch import Tensor

import tightframe as tf
from tightframe import ClassStatistics, DecisionCounts, Report, metrics
from tightframe.errors import GeometryWarning
from tightframe.metrics import Evidence
from tightframe.report.predicted import statements


def clusters(counts: list[int], dim: int, noise: float = 0.7) -> tuple[Tensor, Tensor, ClassStatistics]:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    means = torch.randn(len(counts), dim, dtype=torch.float64)
    features = means[labels] + noise * torch.randn(len(labels), dim, dtype=torch.float64)
    return features, labels, ClassStatistics.from_features(features, labels, len(counts))


def test_classes_left_out_change_no_level_of_decisions_among_all() -> None:
    features, labels, statistics = clusters([60, 60] + [19] * 28, 4)
    decisions = DecisionCounts(statistics)
    decisions.update(features, labels)
    evidence = Evidence(statistics, decisions=decisions)
    every, some = (Report.from_evidence(evidence, min_count=least)["ncc_accuracy"] for least in (1, 20))
    assert (some.value, some.shuffled, some.remark) == (every.value, every.shuffled, every.remark)


def test_held_out_classes_are_those_reported_on() -> None:
    _, _, training = clusters([30, 30, 5, 30], 4)
    _, _, test = clusters([16, 14, 16, 15], 4)
    wanted = ["equinorm", "etf_error"]
    report = Report.from_evidence(Evidence(training), test=Evidence(test), min_count=10, metrics=wanted)
    kept = test.select([0, 1, 3])
    assert report["test/etf_error"].value == pytest.approx(metrics.etf_error(kept).item(), rel=1e-12)
    _, _, small = clusters([6, 14, 16, 15], 4)
    report = Report.from_evidence(Evidence(training), test=Evidence(small), min_count=10, metrics=wanted)
    assert "held-out rows leave out 1 class with fewer than 10 held-out samples." in report.notes
    assert report["test/etf_error"].value == pytest.approx(metrics.etf_error(small.select([1, 3])).item(), rel=1e-12)


def test_held_out_samples_of_some_of_the_models_classes() -> None:
    _, _, training = clusters([20] * 20, 4)
    _, _, test = clusters([20] * 15, 4)
    weight = torch.randn(20, 4, dtype=torch.float64)
    entry = Report.from_evidence(Evidence(training, weight), test=Evidence(test))["test/equiangularity"]
    assert (entry.floor, entry.remark) == (None, "")


def test_a_metric_that_raises_costs_no_other_its_level() -> None:
    @metrics.metric("picky", "NC1", target=0.0)
    def picky(statistics: ClassStatistics) -> Tensor:
        if not torch.equal(statistics.spread, known.spread):
            raise ValueError("only these")
        return statistics.spread.sum()

    _, _, known = clusters([20] * 4, 5)
    report = Report.from_evidence(Evidence(known), metrics=["nc1", picky])
    assert report["nc1"].shuffled is not None
    assert report["picky"].shuffled is None


def test_metrics_that_give_plain_numbers_and_counts() -> None:
    @metrics.metric("total", "NC1", target=0.0)
    def total(statistics: ClassStatistics) -> Tensor:
        return float(statistics.spread.sum())  # type: ignore[return-value]

    @metrics.metric("wide", "NC1", target=0.0)
    def wide(statistics: ClassStatistics) -> Tensor:
        return (statistics.spread > 3).sum()

    features, labels, _ = clusters([30] * 4, 5)
    batches = [(features.float(), labels)]
    report = tf.measure(torch.nn.Linear(5, 4), batches, metrics=[total, wide], progress=False)
    assert report["total"].standard_error > 0 and report["wide"].standard_error is not None


def test_what_is_no_evidence_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"must be evidence, .* got 'ddof'\. Put options after a \*"):

        @metrics.metric("odd", "NC1")
        def odd(statistics: ClassStatistics, ddof: int = 1) -> Tensor:
            return statistics.spread.sum() / ddof


def test_two_classes_have_one_geometry_only() -> None:
    _, _, statistics = clusters([100, 30], 4)
    report = Report.from_evidence(Evidence(statistics, torch.randn(2, 4, dtype=torch.float64)))
    assert statements(report) == []


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
def test_no_geometry_at_all() -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([30, 10, 20]))
    flat = ClassStatistics.from_features(torch.ones(60, 3), labels, 3)
    assert statements(Report.from_evidence(Evidence(flat, torch.zeros(3, 3)))) == []
    with pytest.warns(GeometryWarning):
        metrics.cdnv(flat)


def test_worst_class_accuracy_has_no_error_of_a_pooled_share() -> None:
    @metrics.metric("worst class", "accuracy", target=1.0)
    def worst(decisions: DecisionCounts) -> Tensor:
        totals = decisions.totals
        return (totals.centre_correct.double() / totals.counts).amin()

    features, labels, statistics = clusters([30] * 4, 5)
    decisions = DecisionCounts(statistics)
    decisions.update(features, labels)
    entry = Report.from_evidence(Evidence(statistics, decisions=decisions), metrics=[worst])["worst"]
    assert entry.standard_error is None and entry.shuffled is not None
