"""Detectors as rows, and NECO by its number of components as curves."""

import json
import math
from dataclasses import replace

import pytest

from tightframe import Report
from tightframe.errors import StateError
from tightframe.ood import ComponentCurve, DetectionRow, DetectionTable
from tightframe.report.contents.detection import detection_entries
from tightframe.sections import Curves, Section

CURVE = ComponentCurve(
    (1, 3, 9, 64), (0.6, 0.93, 0.9, 0.5), (0.02, 0.01, 0.015, 0.0), (0.9, 0.3, 0.4, 1.0), (0.03, 0.02, 0.02, 0.0), 9
)
SETTINGS = {"components": 9, "centred": True, "scaled": True, "max_logit": False, "rank": 60}
ROWS = (
    DetectionRow("max_softmax", "MSP", {}, "log of the probability", "A & B", 0.8, 0.01, 0.7, 0.02),
    DetectionRow("mahalanobis", "Maha", {"rank": 60}, "pooled", "Lee", 0.75, 0.01, 0.8, 0.02),
    DetectionRow("neco", "NECO", SETTINGS, "centred, scaled, p = K − 1", "C", 0.9, 0.015, 0.4, 0.02),
    DetectionRow("neco_raw", "NECO <raw>", SETTINGS, "raw, p = K − 1", "C", *[math.nan] * 4),
)
TABLE = DetectionTable(ROWS, CURVE, 1000, 200, ("NECO: a note.",))


def report_of(table: DetectionTable | None) -> Report:
    return Report((), detection=table)


def section_of(table: DetectionTable) -> Section:
    section = report_of(table).section("detection")
    assert section is not None and section.table is not None
    return section


def test_a_row_for_each_detector() -> None:
    table = section_of(TABLE).table
    assert [(column.heading, column.kind) for column in table.columns] == [
        ("detector", "name"), ("AUROC %", "percent"), ("± s.e.", "percent"), ("FPR95 %", "percent"),
        ("± s.e.", "percent"), ("settings", "source"), ("source", "source"),
    ]  # fmt: skip
    assert table.rows[:3] == (
        ("MSP", 0.8, 0.01, 0.7, 0.02, "log of the probability", "A & B"),
        ("Maha", 0.75, 0.01, 0.8, 0.02, "pooled, rank 60", "Lee"),
        ("NECO", 0.9, 0.015, 0.4, 0.02, "centred, scaled, p = 9 of 60", "C"),
    )
    assert all(math.isnan(cell) for cell in table.rows[3][1:5])


def test_what_is_written() -> None:
    """Shares in per cent, a dash for what is undefined, and no markup."""
    text = report_of(TABLE).to_html()
    for cell in ("80.00", "1.00", "70.00", "2.00", "NECO &lt;raw&gt;", "A &amp; B"):
        assert f">{cell}<" in text, cell
    assert "NECO <raw>" not in text


def test_the_sentences_say_that_the_best_is_optimistic() -> None:
    said = " ".join(section_of(TABLE).sentences)
    assert "1,000 held-out from 200 out-of-distribution (OOD) samples" in said
    assert "NECO uses 9 components, fixed in advance. On these samples 3 would be best, but that choice is" in said
    assert said.endswith("NECO: a note.")
    assert "components" not in " ".join(section_of(replace(TABLE, curve=None)).sentences)


def curves_of(table: DetectionTable) -> list[Curves]:
    return [figure for figure in section_of(table).figures if isinstance(figure, Curves)]


def test_curves() -> None:
    auroc, fpr95 = curves_of(TABLE)
    for figure, values, errors in ((auroc, CURVE.auroc, CURVE.auroc_error), (fpr95, CURVE.fpr95, CURVE.fpr95_error)):
        neco, *references = figure.series
        assert neco.x == (1, 3, 9, 64)
        assert neco.y == tuple(100 * value for value in values)
        assert neco.error == pytest.approx([100 * 1.96 * error for error in errors], abs=1e-12)
        assert [(each.name, each.role, each.x) for each in references] == [
            ("MSP", "reference", (1, 64)), ("Maha", "reference", (1, 64)),
        ]  # fmt: skip
        assert figure.marks == ((9, "p = 9"),)
        assert figure.log_x and not figure.log_y
    assert (auroc.title, auroc.target, auroc.series[1].y) == ("AUROC of NECO (%)", 100.0, (80.0, 80.0))
    assert (fpr95.title, fpr95.target, fpr95.series[1].y) == ("FPR95 of NECO (%)", 0.0, (70.0, 70.0))


def test_other_detectors_with_components_are_references() -> None:
    settings = {"components": 32, "rank": 60, "scale": 2.0}
    vim = DetectionRow("vim", "ViM", settings, "moments, p = half", "W", 0.7, 0.01, 0.5, 0.02)
    table = replace(TABLE, rows=(*ROWS, vim))
    assert [each.name for each in curves_of(table)[0].series[1:]] == ["MSP", "Maha", "ViM"]
    assert section_of(table).table.rows[-1][5] == "moments, p = 32 of 60"


def test_no_curve_no_figures() -> None:
    assert curves_of(replace(TABLE, curve=None)) == []


def test_an_undefined_curve_has_no_best() -> None:
    undefined = replace(CURVE, auroc=(math.nan,) * 4, fpr95=(math.nan,) * 4)
    assert len(curves_of(replace(TABLE, curve=undefined))) == 2
    assert "best" not in section_of(replace(TABLE, curve=undefined)).sentences[1]
    assert "NECO's number" not in " ".join(section_of(replace(TABLE, curve=undefined)).sentences)
    report_of(replace(TABLE, curve=undefined)).to_html()


def test_the_best_detector_in_a_line() -> None:
    lines = {section.key: section.brief for section in report_of(TABLE).document(()).sections}
    assert lines == {"detection": "Highest AUROC 90.00 ± 1.50 % (NECO)."}
    near = replace(TABLE, rows=(*ROWS[:-1], replace(ROWS[0], name="twin", label="twin", auroc=0.886)))
    assert " % (NECO); 1 of " in report_of(near).document(()).sections[0].brief
    sure = replace(TABLE, rows=(replace(ROWS[0], auroc_error=math.nan),))
    line = report_of(sure).document(()).sections[0].brief
    assert line == "Highest AUROC 80.00 % (MSP)."
    assert report_of(replace(TABLE, rows=ROWS[3:])).document(()).sections == ()
    assert report_of(None).document(()).sections == ()


def test_nothing_detected_is_no_section() -> None:
    assert report_of(None).section("detection") is None


def test_entries_hold_the_areas() -> None:
    entries = detection_entries(TABLE)
    assert [(entry.key, entry.value, entry.standard_error) for entry in entries[:3]] == [
        ("max_softmax_auroc", 0.8, 0.01), ("mahalanobis_auroc", 0.75, 0.01), ("neco_auroc", 0.9, 0.015),
    ]  # fmt: skip
    assert {(entry.family, entry.target, entry.shuffled, entry.headline) for entry in entries} == {
        ("OOD", 1.0, 0.5, False)
    }


def test_a_report_keeps_the_table() -> None:
    back = Report.from_dict(json.loads(report_of(TABLE).to_json()))
    assert repr(back.section("detection")) == repr(section_of(TABLE))


def test_what_is_no_table() -> None:
    data = report_of(TABLE).to_dict() | {"detection": {"rows": 3}}
    with pytest.raises(StateError):
        Report.from_dict(data)
