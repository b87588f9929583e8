"""The matrix of similarities in every format."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from tightframe import Report
from tightframe.report import Entry
from tightframe.report.facts import Facts
from tightframe.sections import Matrix
from tightframe.similarity import LayerSimilarity

NAN = math.nan
VALUES = ((1.0, 0.71, -0.04), (0.71, 1.0, 0.25), (-0.04, 0.25, 1.0))
ERRORS = ((NAN, 0.01, 0.02), (0.01, NAN, 0.0312), (0.02, 0.0312, NAN))
SIMILARITY = LayerSimilarity(("conv", "block", "input of fc"), VALUES, ERRORS, samples=50, folds=8)
REPORT = Report((Entry("nc1", "train", "NC1", "NC1", 0.3, 0.0, None, None, None, "", "", True),), Facts(samples=50))
REPORT = replace(REPORT, similarity=SIMILARITY)


def test_a_row_and_a_column_for_each_layer_and_a_picture() -> None:
    section = REPORT.section("similarity")
    assert section is not None and section.table is not None
    assert [column.heading for column in section.table.columns] == ["layer", "1", "2", "3"]
    assert section.table.rows == (
        ("1 conv", "1.00", "0.71", "−0.04"),
        ("2 block", "0.71", "1.00", "0.25"),
        ("3 input of fc", "−0.04", "0.25", "1.00"),
    )
    (figure,) = section.figures
    assert isinstance(figure, Matrix) and figure.values == VALUES and figure.names == SIMILARITY.names
    assert (figure.low, figure.middle, figure.high) == (-1.0, 0.0, 1.0)
    assert section.sentences[1:] == (
        "The least similar neighbours are block and input of fc: CKA 0.25 ± 0.031.",
        "Standard errors, by a jackknife over 8 folds, are at most 0.0312.",
    )


def test_short_forms_have_one_line_and_reports_without_it_none(capsys: pytest.CaptureFixture[str]) -> None:
    REPORT.to_terminal()
    assert "The least similar neighbours are block and input of fc" in " ".join(capsys.readouterr().out.split())
    bare = replace(REPORT, similarity=None)
    assert bare.section("similarity") is None and "CKA" not in repr(bare.document().sections)
    bare.to_terminal()
    assert "similar" not in capsys.readouterr().out


def test_every_format_has_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    REPORT.to_terminal(everything=True)
    assert "3 input of fc" in capsys.readouterr().out
    page, markdown = REPORT.to_html(), REPORT.to_markdown()
    assert 'class="pixels"' in page and "debiased linear CKA" in page
    assert "| 1 conv | 1.00 | 0.71 | −0.04 |" in markdown
    data = json.loads(REPORT.to_json())["similarity"]
    assert data["values"] == [list(row) for row in VALUES] and data["errors"][0] == ["nan", 0.01, 0.02]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(REPORT.to_csv()))}
    assert set(rows) == {"nc1", "cka[conv, block]", "cka[conv, input of fc]", "cka[block, input of fc]"}
    row = rows["cka[block, input of fc]"]
    assert (float(row["value"]), float(row["standard_error"]), row["family"]) == (0.25, 0.0312, "similarity")


def test_undefined_values_and_no_errors() -> None:
    undefined = LayerSimilarity(("a", "b"), ((1.0, NAN), (NAN, NAN)), samples=3)
    report = replace(REPORT, similarity=undefined)
    section = report.section("similarity")
    assert section is not None and section.table is not None
    assert section.table.rows == (("1 a", "1.00", "–"), ("2 b", "–", "–")) and len(section.sentences) == 1
    row = next(row for row in csv.DictReader(io.StringIO(report.to_csv())) if row["name"] == "cka[a, b]")
    assert row["standard_error"] == "" and math.isnan(float(row["value"] or "nan"))
    assert Report.from_dict(json.loads(report.to_json())).section("similarity") == section


def test_very_many_layers_are_only_in_the_picture() -> None:
    names = tuple(map(str, range(40)))
    many = LayerSimilarity(names, tuple(tuple(1.0 if a == b else 0.5 for a in names) for b in names), samples=9)
    section = replace(REPORT, similarity=many).section("similarity")
    assert section is not None and section.table is None and len(section.figures) == 1
