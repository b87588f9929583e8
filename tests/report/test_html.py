"""The page: complete in itself, every entry on it, figures that show the values."""

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from plotly.offline import get_plotlyjs

from tightframe import ClassStatistics, Report
from tightframe.metrics import Evidence
from tightframe.report.html import curves, grams, page
from tightframe.report.wording import caption, name, number

Make = Callable[..., Evidence]


class Reader(HTMLParser):
    """Every start tag with its attributes, and the text of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def own(text: str) -> str:
    """The page without plotly's library, which must be in it whole."""
    before, library, after = text.partition(get_plotlyjs())
    assert library
    return before + after


@pytest.fixture
def series(make_evidence: Make) -> Report:
    """Four measurements; zeros, an undefined value and a missing one among the first three."""
    reports = [Report.from_evidence(make_evidence(seed=e), context={"epoch": e}) for e in (1, 2, 5, 9)]

    def change(report: Report, key: str, value: float | None) -> Report:
        entries = [replace(e, value=value) if e.key == key and value is not None else e for e in report]
        return replace(report, entries=tuple(e for e in entries if value is not None or e.key != key))

    reports[0] = change(reports[0], "cdnv", math.nan)
    reports[1] = change(change(reports[1], "ncc_mismatch", 0.0), "vci", None)
    return replace(reports[-1], history=tuple(reports[:-1]))


# ---------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize("kind", ["full_report", "crowded_report", "awkward_report", "series"])
def test_the_page_needs_nothing_from_outside(kind: str, request: pytest.FixtureRequest) -> None:
    text = own(page(request.getfixturevalue(kind)))
    for tag, attributes in read(text).tags:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        for attribute in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(attribute) or "data:").startswith("data:"), (tag, attributes)
    assert re.findall(r"@import|url\((?!data:)|\bimport\(|\bfetch\(", text) == []
    assert re.findall(r"https?://[^\s\"'<]*", text) == []


@pytest.mark.parametrize("kind", ["full_report", "crowded_report", "awkward_report", "series"])
def test_every_entry_is_in_the_table(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    cells = read(own(page(report))).cells
    rows = [cells[i : i + 11] for i in range(0, 11 * len(report.entries), 11)]
    assert [row[1:] for row in rows] == [
        [
            name(entry),
            number(entry.value),
            number(entry.standard_error),
            number(entry.target),
            number(entry.floor),
            number(entry.shuffled),
            number(entry.shuffled_spread),
            entry.remark,
            entry.convention,
            entry.source,
        ]
        for entry in report
    ]
    headings = [row[0] for row in rows if row[0]]
    assert headings[0] == report.entries[0].family
    assert set(headings) == {entry.family for entry in report}


def test_cells_are_text_and_no_markup(full_report: Report) -> None:
    odd = replace(full_report.entries[0], label="a <i>b</i> & c", convention="<k", source="<script>d</script>")
    text = own(page(replace(full_report, entries=(odd, *full_report.entries[1:]))))
    cells = read(text).cells
    assert [cells[1], *cells[9:11]] == ["a <i>b</i> & c", "<k", "<script>d</script>"]
    assert text.count("<script") == text.count("</script>") == own(page(full_report)).count("<script")


def test_title_caption_and_notes(crowded_report: Report) -> None:
    context = {**crowded_report.context, "title": "A <b>title</b> & more"}
    report = replace(crowded_report, context=context, notes=(*crowded_report.notes, "classes <a> & b coincide"))
    text = own(page(report))
    assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in text
    assert "<b>title</b>" not in text
    assert html.escape(caption(report)) in text
    assert len(report.notes) == 2
    for note in report.notes:
        assert html.escape(note) in text


def test_names_of_classes_can_not_break_out_of_the_script(full_report: Report) -> None:
    names = ["</script><img src=x>", "b", "c", "d"]
    text = own(page(replace(full_report, context={**full_report.context, "class_names": names})))
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>")


def test_gram_matrices_are_on_the_page(full_report: Report) -> None:
    text = own(page(full_report))
    for title in ("class means", "classifier rows", "predicted means", "predicted classifier", "Predicted: SELI."):
        assert title in text
    assert text.count("Plotly.newPlot(") == 1
    assert "Collapse over training" not in text  # no history


def test_curves_are_on_the_page_with_history(series: Report) -> None:
    text = own(page(series))
    assert "Collapse over training" in text
    assert text.count("Plotly.newPlot(") == 1 + len(curves(series))


def test_no_empty_section_where_nothing_has_a_curve(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence(), metrics=["mean_cosine"], context={"epoch": 2})
    text = own(page(replace(report, history=(report,))))
    assert "Collapse over training" not in text


def test_a_report_without_evidence_has_a_table_alone(full_report: Report) -> None:
    text = own(page(Report.from_dict(json.loads(full_report.to_json()))))
    assert "Plotly.newPlot(" not in text
    assert html.escape(full_report["nc1"].label) in text


# ---------------------------------------------------------------------------------------------- Gram matrices


def cosines(rows: torch.Tensor) -> list[list[float]]:
    n = len(rows)
    return [[float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm())) for j in range(n)] for i in range(n)]


def test_gram_matrices_hold_cosines(make_evidence: Make) -> None:
    evidence = make_evidence((9, 0, 8, 7), 6)
    report = Report.from_evidence(evidence, context={"class_names": ["cat", "dog", "eel", "fox"]})
    ((_, _, figure),) = grams(report)
    assert evidence.statistics is not None and evidence.weight is not None
    kept = [0, 2, 3]
    means, rows = evidence.statistics.means[kept], evidence.weight[kept]
    expected = [
        cosines(means - means.mean(0)),
        cosines(rows - rows.mean(0)),
        [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]],
    ]
    assert len(figure.data) == 3
    for trace, grid in zip(figure.data, expected, strict=True):
        np.testing.assert_allclose(np.array(trace.z, dtype=float), grid, atol=1e-12)
        assert list(trace.x) == list(trace.y) == ["cat", "eel", "fox"]


def test_classes_without_names_are_called_by_their_labels(make_evidence: Make) -> None:
    ((_, _, figure),) = grams(Report.from_evidence(make_evidence((9, 0, 8, 7), 6)))
    for trace in figure.data:
        assert list(trace.x) == list(trace.y) == ["0", "2", "3"]


def test_without_classifier_the_means_alone(make_evidence: Make) -> None:
    report = Report.from_evidence(Evidence(make_evidence((12, 9, 13, 10)).statistics))
    ((_, _, figure),) = grams(report)
    assert [note.text for note in figure.layout.annotations] == ["class means", "predicted: simplex ETF"]
    assert list(figure.data[0].x) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("classes", "pictures"), [(200, 1), (201, 0)])
def test_more_than_two_hundred_classes_have_no_picture(classes: int, pictures: int) -> None:
    """Fixed statistics, for speed: a simplex with one sample more than needed in every class."""
    means = torch.eye(classes, dtype=torch.float64)
    spread = torch.ones(classes, dtype=torch.float64)
    statistics = ClassStatistics(torch.full((classes,), 2), means, spread)
    report = Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"])
    assert len(grams(report)) == pictures
    text = own(page(report))
    assert ("Gram matrices" in text) is bool(pictures)
    assert html.escape(report["trace_ratio"].label) in text


def test_two_hundred_classes_with_samples_of_more_have_a_picture() -> None:
    counts = torch.full((250,), 2)
    counts[10:60] = 0
    means = torch.where(counts[:, None] > 0, torch.eye(250, dtype=torch.float64), torch.nan)
    statistics = ClassStatistics(counts, means, torch.ones(250, dtype=torch.float64))
    ((_, _, figure),) = grams(Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"]))
    assert [len(trace.z) for trace in figure.data] == [200, 200]


# ---------------------------------------------------------------------------------------------- curves


def traces(report: Report) -> dict[str, object]:
    return {trace.name: (figure, trace) for figure in curves(report) for trace in figure.data}


def test_curves_show_the_series(series: Report) -> None:
    shown = traces(series)
    reports = [*series.history, series]
    compared = 0
    for entry in series:
        if name(entry) in shown:
            _, trace = shown[name(entry)]
            assert list(trace.x) == [1, 2, 5, 9]
            values = [report.values.get(entry.key, math.nan) for report in reports]
            np.testing.assert_array_equal(np.array(trace.customdata, dtype=float), values)
            positive = [value > 0 for value in values]
            np.testing.assert_array_equal(np.array(trace.y, dtype=float)[positive], np.array(values)[positive])
            compared += 1
    assert compared == len(shown) >= 10


def test_every_panel_has_a_title_of_its_own(series: Report) -> None:
    titles = [figure.layout.title.text for figure in curves(series)]
    assert len(set(titles)) == len(titles) == 6
    assert [figure.layout.yaxis.type for figure in curves(series)] == ["log"] * 5 + [None]


def test_an_exact_zero_is_marked_below_all_others(series: Report) -> None:
    figure, trace = traces(series)["NCC mismatch"]
    others = [value for t in figure.data for value in t.customdata if value > 0]
    assert trace.customdata[1] == 0
    assert trace.marker.symbol[1] == "triangle-down-open"
    assert 0 < trace.y[1] < min(others)
    assert [symbol for i, symbol in enumerate(trace.marker.symbol) if i != 1] == ["circle"] * 3


def test_undefined_and_missing_values_are_gaps(series: Report) -> None:
    shown = traces(series)
    for label, index in (("CDNV", 0), ("VCI", 1)):
        _, trace = shown[label]
        assert math.isnan(trace.y[index])
        assert trace.marker.symbol[index] == "circle"
        assert sum(math.isfinite(value) for value in trace.y) == 3


def test_measurements_without_epoch_are_numbered(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence())
    figure, *_ = curves(replace(report, history=(report, report)))
    assert list(figure.data[0].x) == [1, 2, 3]


def test_an_epoch_zero_is_shown(make_evidence: Make) -> None:
    """No logarithm has a place for it."""
    first, second = (Report.from_evidence(make_evidence(seed=e), context={"epoch": e}) for e in (0, 1))
    for figure in curves(replace(second, history=(first,))):
        assert figure.layout.xaxis.type != "log"
        assert list(figure.data[0].x) == [0, 1]
