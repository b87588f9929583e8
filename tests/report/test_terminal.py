"""The table in the terminal: every number whole, no line too long, whatever the width."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tightframe import Report
from tightframe.report import Entry
from tightframe.report.terminal import print_report
from tightframe.report.wording import caption, name, number

WIDTHS = (80, 100, 149, 150, 160, 200)
REPORTS = ("full_report", "crowded_report", "awkward_report")


def printed(report: Report, width: int, *, full: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, full=full, console=console)
    return console.file.getvalue().splitlines()


def numbers_of(report: Report, entry: Entry) -> list[str]:
    """The numbers of an entry's line, in order; the standard error apart."""
    with_floor = any(e.floor is not None for e in report)
    columns = ("value", "target", "floor", "shuffled") if with_floor else ("value", "target", "shuffled")
    return [number(getattr(entry, column)) for column in columns]


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    return request.getfixturevalue(request.param)


def missing_names(report: Report, lines: list[str]) -> list[str]:
    return [entry.key for entry in report if not any(name(entry) in line for line in lines)]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_exceeds_the_width(report: Report, width: int) -> None:
    assert [line for line in printed(report, width) if cell_len(line) > width] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_measure_is_named_in_full(report: Report, width: int) -> None:
    assert missing_names(report, printed(report, width)) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_is_cut(report: Report, width: int) -> None:
    """After every measure's name come its numbers, apart from each other and in the columns' order."""
    text = "\n".join(printed(report, width))
    with_error = "± s.e." in text.splitlines()[0]
    cut = []
    for entry in report:
        wanted = numbers_of(report, entry)
        if with_error:
            wanted.insert(1, number(entry.standard_error))
        found = [after.split()[: len(wanted)] for after in text.split(name(entry))[1:]]
        if wanted not in found:
            cut.append((entry.key, wanted))
    assert cut == []


@pytest.mark.parametrize("width", WIDTHS)
def test_standard_errors_are_shown(full_report: Report, width: int) -> None:
    words = " ".join(printed(full_report, width)).split()
    errors = [number(entry.standard_error) for entry in full_report if entry.standard_error is not None]
    assert len(errors) == 9
    assert [error for error in errors if error not in words] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_family_has_its_heading(full_report: Report, width: int) -> None:
    first_words = {line.split()[0] for line in printed(full_report, width) if line.strip()}
    assert {entry.family for entry in full_report} <= first_words


@pytest.mark.parametrize("width", [80, 160])
def test_numbers_end_in_their_columns(full_report: Report, width: int) -> None:
    """Counted in cells: an accent over a letter takes none."""
    lines = printed(full_report, width)
    lines = lines[: next(place for place, line in enumerate(lines) if line.startswith("samples a class"))]
    heading = next(line for line in lines if "target" in line)
    ends = {cell_len(heading[: heading.index(word) + len(word)]) for word in ("value", "target", "shuffled")}
    astray = []
    for entry in full_report:
        for line in lines:
            if name(entry) in line and number(entry.value) in line.split():
                after = line.index(name(entry)) + len(name(entry))
                start = line.index(f" {number(entry.value)}", after)
                if cell_len(line[: start + 1 + len(number(entry.value))]) not in ends:
                    astray.append(line)
    assert astray == []


def test_convention_and_source_where_there_is_room(full_report: Report) -> None:
    text = "\n".join(printed(full_report, 200))
    narrow = "\n".join(printed(full_report, 100))
    for entry in full_report:
        assert entry.convention in text
        assert entry.source in text
        assert entry.convention in narrow
        assert entry.source in narrow


@pytest.mark.parametrize("width", [80, 160])
def test_only_the_headline_unless_full(full_report: Report, width: int) -> None:
    short = "\n".join(printed(full_report, width, full=False))
    for entry in full_report:
        if entry.headline:
            assert name(entry) in short
    hidden = [entry for entry in full_report if not entry.headline]
    assert hidden
    assert "Riesz kernel, s = 1" not in short
    assert "Riesz kernel, s = 1" in "\n".join(printed(full_report, width))


@pytest.mark.parametrize("width", [80, 160])
def test_the_caption_and_every_note_are_shown_whole(crowded_report: Report, width: int) -> None:
    markup = replace(crowded_report, notes=(*crowded_report.notes, "classes [a] and [/b] coincide"))
    text = " ".join(" ".join(printed(markup, width)).split())
    assert caption(crowded_report) in text
    assert len(crowded_report.notes) == 1
    for note in markup.notes:
        assert f"note: {note}" in text


@pytest.mark.parametrize("width", [80, 160])
def test_the_convention_behind_a_row_is_named(crowded_report: Report, width: int) -> None:
    text = "\n".join(printed(crowded_report, width))
    assert "haframe-2023/nc3" in text
    assert "wu-papyan-2024/nc2-equiangularity" in text


@pytest.mark.parametrize("width", [80, 160])
def test_a_floor_column_only_where_there_are_floors(full_report: Report, crowded_report: Report, width: int) -> None:
    assert not any("floor" in line.split() for line in printed(full_report, width))
    assert any("floor" in line.split() for line in printed(crowded_report, width))
