"""The table of all measures: every entry, with its own numbers."""

import math

import pytest

from tightframe import Report
from tightframe.report import Entry
from tightframe.report.contents.measures import grouped
from tightframe.sections import Section

KINDS = ("full_report", "crowded_report", "awkward_report", "series")


@pytest.fixture(params=KINDS)
def report(request: pytest.FixtureRequest) -> Report:
    return request.getfixturevalue(request.param)


def section_of(report: Report) -> Section:
    section = report.section("measures")
    assert section is not None and section.table is not None
    return section


def test_every_entry_has_a_row(report: Report) -> None:
    table = section_of(report).table
    assert [column.heading for column in table.columns] == [
        *("measure", "report[…]", "value", "± s.e.", "target", "floor", "shuffled", "±", "closer", "remark"),
        *("convention", "source"),
    ]
    expected = [
        (
            *(entry.title, entry.key, entry.value, entry.standard_error, entry.target, entry.floor),
            *(entry.shuffled, entry.shuffled_spread, "no" if entry.standing == "no better" else entry.closeness),
            *(entry.convention, entry.source),
        )
        for entry in report
    ]
    assert [repr((*row[:9], *row[10:])) for row in table.rows] == [repr(row) for row in expected]  # NaN too


def test_what_a_row_is_found_by(report: Report) -> None:
    place = [column.heading for column in section_of(report).table.columns].index("report[…]")
    for row, entry in zip(section_of(report).table.rows, report, strict=True):
        assert report[row[place]] is entry


def entry(remark: str, closeness: float | None) -> Entry:
    return Entry(
        *("a", "train", "A", "NC1", 0.0, 0.0, None, 1.0, None, "", "", True), closeness=closeness, remark=remark
    )


@pytest.mark.parametrize(
    ("remark", "closeness", "shown"),
    [
        ("650× nearer", 650.0, ""),  # which the column beside it says
        ("at target", math.inf, "at target"),
        ("at floor", math.inf, "at floor"),
        ("no better than shuffled labels", 0.9, "no better than shuffled labels"),
        ("shuffled labels do as well", None, "shuffled labels do as well"),
        ("rows in random directions do as well", None, "rows in random directions do as well"),
        ("", None, ""),
    ],
)
def test_a_remark_is_shown_where_the_closeness_does_not_say_it(
    remark: str, closeness: float | None, shown: str
) -> None:
    (row,) = section_of(Report((entry(remark, closeness),))).table.rows
    assert (row[8], row[9]) == ("no" if remark.startswith("no better") else closeness, shown)


def test_every_family_has_its_heading(report: Report) -> None:
    groups, families = section_of(report).table.groups, [each.family for each in report]
    assert groups[0] == families[0]
    for row in range(1, len(families)):
        assert groups.get(row) == (families[row] if families[row] != families[row - 1] else None)
    assert set(groups.values()) == set(families)


def test_a_family_that_comes_twice_has_two_headings() -> None:
    assert grouped(["a", "a", "b", "a"]) == {0: "a", 2: "b", 3: "a"}
    assert grouped([]) == {}


def test_the_title_says_where_a_value_was_taken(full_report: Report) -> None:
    titles = {row[1]: row[0] for row in section_of(full_report).table.rows}
    assert titles["test/ncc_mismatch"] == "NCC mismatch, held out"
    assert titles["ncc_mismatch"] == "NCC mismatch"
    assert titles["ood_orthogonality"] == "OOD orthogonality"


def test_the_convention_behind_a_row_is_named(crowded_report: Report) -> None:
    titles = {row[1]: row[0] for row in section_of(crowded_report).table.rows}
    for key in ("haframe-2023/nc3", "wu-papyan-2024/nc2-equiangularity"):
        assert titles[key].endswith(f"[{key}]")


def test_floors_where_there_are_any(full_report: Report, crowded_report: Report) -> None:
    assert {row[5] for row in section_of(full_report).table.rows} == {None}
    floors = {row[1]: row[5] for row in section_of(crowded_report).table.rows}
    assert floors["etf_error"] == pytest.approx(math.sqrt(2 - math.sqrt(2)), rel=1e-12)
    assert floors["nc1"] is None


def test_it_is_folded_and_searchable(full_report: Report) -> None:
    section = section_of(full_report)
    assert (section.folded, section.searchable) == (True, True)
    assert 'report["..."]' in section.sentences[0]
