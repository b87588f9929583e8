"""A whole report in the terminal and on the page: every entry, every digit, nothing from outside, nothing as markup."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.cells import cell_len

from tightframe import Report
from tightframe.report.run_folder import RunFolder
from tightframe.sections import Column, Section, Table, error_text, number, times, written

KINDS = ("full_report", "crowded_report", "awkward_report", "series")
WIDTHS = (40, 60, 80, 100, 149, 200, 320)


@pytest.fixture(params=KINDS)
def report(request: pytest.FixtureRequest) -> Report:
    return request.getfixturevalue(request.param)


def printed(report: Report, width: int) -> list[str]:
    return report.document().to("terminal", width=width).splitlines()


def words(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_exceeds_the_width(report: Report, width: int) -> None:
    assert [line for line in printed(report, width) if cell_len(line) > width] == []


def entries_lines(report: Report, width: int) -> list[str]:
    lines = printed(report, width)
    return lines[lines.index("All measures") :]


def entries_part(report: Report, width: int) -> str:
    return words("\n".join(entries_lines(report, width)))


def _shown(heading: str, value: float | None) -> str:
    return error_text(value) if heading.startswith("±") else number(value)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_of_every_measure_is_whole(report: Report, width: int) -> None:
    """After a measure's key its numbers, as cells of the columns that there is room for, or each behind its heading."""
    lines = entries_lines(report, width)
    heading = next((line for line in lines if line.split()[:2] == ["measure", "report[…]"]), "")
    columns = [part.strip() for part in heading.split("  ") if part.strip()]
    if columns:
        assert {"value", "target", "shuffled", "closer"} <= set(columns)
    assert width > 60 or not columns
    assert width < 320 or {"± s.e.", "floor", "±", "remark", "convention", "source"} <= set(columns)
    text = words("\n".join(lines))
    for entry in report:
        numbers = {
            "value": entry.value, "± s.e.": entry.standard_error, "target": entry.target, "floor": entry.floor,
            "shuffled": entry.shuffled, "±": entry.shuffled_spread,
        }  # fmt: skip
        if columns:
            row = [_shown(heading, value) for heading, value in numbers.items() if heading in columns]
            row.append("no" if entry.standing == "no better" else times(entry.closeness))
            assert f" {entry.key} {' '.join(row)} " in f"{text} ", entry.key
        else:
            cells = {heading: _shown(heading, value) for heading, value in numbers.items()}
            block = [f"{heading} {cell}" for heading, cell in cells.items() if cell != "–"]
            assert " · ".join([f"{words(entry.title)} report[…] {entry.key}", *block]) in text, entry.key


@pytest.mark.parametrize("width", WIDTHS)
def test_every_measure_is_named_in_full(report: Report, width: int) -> None:
    """Also where names are folded."""
    lines = entries_lines(report, width)
    heading = next((line for line in lines if line.split()[:2] == ["measure", "report[…]"]), "")
    first = heading.index("report[…]") if heading else None
    text = "".join("".join(line[:first].split()) for line in lines)
    assert [entry.key for entry in report if "".join(entry.title.split()) not in text] == []


def test_convention_and_source_where_there_is_room_or_a_block(full_report: Report) -> None:
    for width in (60, 300):
        text = entries_part(full_report, width)
        for entry in full_report:
            assert words(entry.convention) in text and words(entry.source) in text, (width, entry.key)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_every_note_is_shown_whole(crowded_report: Report, width: int) -> None:
    markup = replace(crowded_report, notes=("half of the samples are missing.", "classes [a] and [/b] coincide"))
    text = words("\n".join(printed(markup, width)))
    for note in markup.notes:
        assert note[:1].upper() + note[1:] in text


def test_names_of_classes_are_no_markup(full_report: Report) -> None:
    names = {"0": "[red]ant[/red]", "1": "[/]", "2": "[link=x]", "3": "<b>dog</b>"}
    named = replace(full_report, facts=replace(full_report.facts, class_names=names, title="[/x]"))
    lines = printed(named, 200)
    assert lines[0].startswith("[/x] · ")
    for name in names.values():
        assert any(line.startswith(f"{name} ") for line in lines), name


def test_a_section_of_ones_own_is_shown_everywhere(full_report: Report) -> None:
    table = Table((Column("lamp", "name"), Column("light", "number")), (("[red]", 0.125),))
    mine = full_report.with_sections(Section("lamps", "My lamps", ("What <they> show.",), table))
    assert mine.section("lamps") is mine.sections[0]
    for text in (mine.document(()).to("terminal"), mine.to_html(), mine.to_markdown()):
        assert "My lamps" in text and "0.125" in text
    assert Report.from_dict(json.loads(mine.to_json())).sections == mine.sections


# ---------------------------------------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Every start tag with its attributes, and the cells of the table of all measures, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.groups: list[str] = []
        self._section, self._cell = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "section":
            self._section = attributes.get("id") or ""
        if self._section == "measures":
            if tag == "tr":
                self.rows.append([])
            if tag in ("td", "th"):
                self.rows[-1].append("")
                self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_page_needs_nothing_from_outside(report: Report) -> None:
    text = report.to_html()
    for tag, attributes in read(text).tags:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        for attribute in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(attribute) or "data:").startswith(("data:", "#")), (tag, attributes)
    assert re.findall(r"@import|url\((?!data:)|\bimport\(|\bfetch\(", text) == []
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= {"http://www.w3.org/2000/svg"}


def test_every_entry_is_in_the_table(report: Report) -> None:
    table = report.section("measures").table  # type: ignore[union-attr]
    heading, *rows = read(report.to_html()).rows
    assert heading == [column.heading for column in table.columns]
    entries = [row for row in rows if len(row) == len(heading)]
    assert [row[0] for row in rows if len(row) == 1] == list(table.groups.values())
    assert entries == [
        [written(cell, column.kind) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    assert [row[1] for row in entries] == report.keys()


def test_texts_are_no_markup(full_report: Report) -> None:
    odd = replace(full_report.entries[0], label="a <i>b</i> & c", convention="<k", source="</script><script>d</script>")
    facts = replace(
        full_report.facts,
        title="A <b>title</b> & more",
        class_names={"0": "</script><img src=x>", "1": '"><svg onload=x>', "2": "c", "3": "d"},
    )
    report = replace(
        full_report,
        entries=(odd, *full_report.entries[1:]),
        facts=facts,
        notes=("classes <a> & b coincide",),
        context={"lr": "<u>"},
    )
    text = report.to_html()
    reader, plain = read(text), read(full_report.to_html())
    assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in text
    assert html.escape("classes <a> & b coincide") in text
    first = next(row for row in reader.rows[1:] if len(row) > 1)
    assert (first[0], *first[-2:]) == ("a <i>b</i> & c", "<k", "</script><script>d</script>")
    tags = {tag for tag, _ in reader.tags}
    assert tags - {tag for tag, _ in plain.tags} <= {"ul", "li"}  # of the note
    assert not tags & {"img", "i", "u"}
    assert not any("onload" in attributes for _, attributes in reader.tags)
    assert text.count("<script") == text.count("</script>") == full_report.to_html().count("<script")


def test_what_the_page_shows(full_report: Report, series: Report) -> None:
    """Gram matrices; curves with a history alone."""
    text = full_report.to_html()
    for title in ("class means", "classifier rows", "predicted, class means", "Predicted: SELI."):
        assert title in text
    assert "Collapse over training" not in text
    assert "Collapse over training" in series.to_html()


def test_a_report_without_evidence_has_its_tables(full_report: Report) -> None:
    text = Report.from_dict(json.loads(full_report.to_json())).to_html()
    sections = {attributes["id"] for tag, attributes in read(text).tags if tag == "section" and "id" in attributes}
    assert sections == {"accuracies", "coverage", "measures"}
    assert html.escape(full_report["nc1"].label) in text
    assert full_report.verdict.word in text


def test_downloads_are_the_report(full_report: Report) -> None:
    text = full_report.to_html()
    (content,) = re.findall(r'<script type="application/json" id="_files">(.*?)</script>', text, re.DOTALL)
    files = json.loads(content)
    assert files == {"report.json": full_report.to_json(), "report.csv": full_report.to_csv()}


def test_the_command_of_a_run_is_on_its_page(full_report: Report, tmp_path: object) -> None:
    folder = RunFolder.create(f"{tmp_path}/run", {"command": "train.py <x>", "arguments": {"seed": 77}})
    folder.append(full_report)
    text = folder.write_html().read_text(encoding="utf-8")
    assert "<dt>command</dt><dd>train.py &lt;x&gt;</dd>" in text
    assert "<dt>seed</dt><dd>77</dd>" in text
