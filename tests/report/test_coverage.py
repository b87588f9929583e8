"""Classes with enough samples: the table, and reports on them alone."""

import json
import math

import pytest
import torch

from tightframe import ClassStatistics, Report
from tightframe.errors import EmptyClassError, RangeError
from tightframe.metrics import Evidence, evaluate
from tightframe.report.coverage import MEASURES, coverage_rows, with_at_least

COUNTS = (60, 55, 12, 11, 3, 1, 0)


def evidence(counts: tuple[int, ...] = COUNTS, *, per_class: bool = True) -> Evidence:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    features = torch.randn(len(counts), 5, generator=generator)[labels] + torch.randn(
        len(labels), 5, generator=generator
    )
    weight = torch.randn(len(counts), 5, generator=generator).double()
    return Evidence(ClassStatistics.from_features(features.double(), labels, len(counts), per_class=per_class), weight)


@pytest.mark.filterwarnings("ignore:debiased measures leave out 1 of 6 classes:tightframe.errors.GeometryWarning")
def test_a_row_for_every_threshold_that_tells_classes_apart() -> None:
    rows = coverage_rows(evidence())
    assert [(row.min_count, row.classes, row.samples) for row in rows] == [
        (1, 6, 142), (2, 5, 141), (10, 4, 138), (50, 2, 115),
    ]  # fmt: skip
    for row in rows:
        chosen = evidence().statistics.select(min_count=row.min_count)  # type: ignore[union-attr]
        expected = evaluate(Evidence(chosen, evidence().weight), [MEASURES[name] for name in row.values])
        for name, value in row.values.items():
            assert value == pytest.approx(float(expected[name]), rel=1e-12, nan_ok=True)
        assert {"nc1", "cdnv", "cdnv_debiased", "etf_error", "self_duality_error"} <= row.values.keys()


@pytest.mark.parametrize("counts", [(50, 60, 70), (60, 60, 0)])
def test_no_table_where_all_classes_have_enough(counts: tuple[int, ...]) -> None:
    assert coverage_rows(evidence(counts)) == ()
    report = Report.from_evidence(evidence(counts))
    assert report.coverage == () and report.section("coverage") is None
    assert "coverage" not in report.to_dict()


def test_thresholds_that_one_class_meets_are_left_out() -> None:
    rows = coverage_rows(evidence((60, 5, 1)))
    assert [row.min_count for row in rows] == [1, 2]


def test_without_the_scatter_of_each_class_nc1_is_of_all_classes_only() -> None:
    report = Report.from_evidence(evidence(per_class=False))
    first, *others = report.coverage
    assert first.values["nc1"] == report["nc1"].value
    assert all("nc1" not in row.values for row in others)
    table = report.section("coverage").table  # type: ignore[union-attr]
    nc1 = next(line for line in table.rows if str(line[0]).startswith("NC1"))
    assert nc1[1:] == (report["nc1"].value, None, None, None)
    assert [column.heading for column in table.columns] == [
        "samples per class", "at least 1", "at least 2", "at least 10", "at least 50",
    ]  # fmt: skip
    assert all(len(line) == len(table.columns) for line in table.rows)


def test_the_report_holds_the_table_and_reads_it_back() -> None:
    report = Report.from_evidence(evidence())
    again = Report.from_dict(json.loads(report.to_json()))
    assert repr(again.coverage) == repr(report.coverage)  # debiased CDNV of a class with one sample is NaN
    assert repr(again.section("coverage")) == repr(report.section("coverage"))
    rows = report.section("coverage").table.rows  # type: ignore[union-attr]
    assert rows[:2] == (("classes", "6", "5", "4", "2"), ("samples", "142", "141", "138", "115"))
    assert [row[1:] for row in rows[2:]] == [
        tuple(row.values.get(name) for row in report.coverage) for name in MEASURES
    ]  # fmt: skip


def test_a_report_on_classes_with_enough_samples() -> None:
    report = Report.from_evidence(evidence(), min_count=10)
    chosen = evidence().statistics.select([0, 1, 2, 3])  # type: ignore[union-attr]
    expected = evaluate(Evidence(chosen, evidence().weight))
    assert report.values == pytest.approx({name: float(value) for name, value in expected.items()}, nan_ok=True)
    assert "the measures leave out 2 classes with fewer than 10 samples." in report.notes
    assert report.facts.min_count == 10
    assert report["cdnv"].classes == 4
    assert not any("single sample" in note for note in report.notes)


def test_single_samples_are_named() -> None:
    assert any("a single sample (5)" in note for note in Report.from_evidence(evidence()).notes)


def test_enough_samples_for_all_is_no_restriction() -> None:
    whole = evidence((60, 55, 70))
    assert with_at_least(whole, 55) is whole
    assert math.isfinite(Report.from_evidence(whole, min_count=55)["nc1"].value)


def test_too_much_is_asked() -> None:
    whole = evidence((60, 55, 70))
    for least, have in ((100, "0 of 3 have"), (61, "1 of 3 has")):
        complaint = f"at least two classes must have min_count={least} samples; {have}, and the largest class has 70."
        with pytest.raises(EmptyClassError, match=f"^{complaint}$"):
            Report.from_evidence(whole, min_count=least)
    with pytest.raises(RangeError, match="at least 1; got 0"):
        Report.from_evidence(evidence(), min_count=0)
