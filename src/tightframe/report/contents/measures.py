"""All measures with their targets and levels, by API name; and over the classes with enough samples."""

from __future__ import annotations

from collections.abc import Iterable

from tightframe.report.coverage import MEASURES
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.sections import Cell, Column, Section, Table

COLUMNS = (
    Column("measure", "name"),
    Column("report[…]"),
    Column("value", "number"),
    Column("± s.e.", "error", optional=True),
    Column("target", "number"),
    Column("floor", "number", optional=True),
    Column("shuffled", "number"),
    Column("±", "error", optional=True),
    Column("closer", "times"),
    Column("remark", optional=True),
    Column("convention", "source"),
    Column("source", "source"),
)


def cells(entry: Entry) -> tuple[Cell, ...]:
    """The cells of an entry, under `COLUMNS`."""
    remark = "" if entry.standing == "nearer" else entry.remark
    closer = "no" if entry.standing == "no better" else entry.closeness
    return (
        *(entry.title, entry.key, entry.value, entry.standard_error, entry.target, entry.floor),
        *(entry.shuffled, entry.shuffled_spread, closer, remark, entry.convention, entry.source),
    )


def grouped(families: Iterable[str]) -> dict[int, str]:
    """First row of each group -> its heading."""
    groups: dict[int, str] = {}
    before = None
    for row, family in enumerate(families):
        if family != before:
            groups[row] = before = family
    return groups


def measures(report: Findings) -> Section:
    """All entries."""
    hint = (
        'Every measure with its key for report["..."]. Target: the value at perfect collapse. Floor: the best value '
        "that the dimension allows, if not the target. Shuffled: the median over draws of shuffled labels for these "
        "features, or of random directions for classifier rows; ±: half the range of the central 68 % of draws. "
        'Closer: how many times nearer the target or floor than shuffled; "no": not nearer. A dash: no value.'
    )
    table = Table(COLUMNS, tuple(map(cells, report)), grouped(entry.family for entry in report))
    return Section("measures", "All measures", (hint,), table, folded=True, searchable=True)


def coverage(report: Findings) -> Section | None:
    """The measures over the classes with enough samples; None if all classes have enough."""
    if not report.coverage:
        return None
    names = [name for name in MEASURES if any(name in row.values for row in report.coverage)]
    columns = (
        Column("samples per class", "name"),
        *(Column(f"at least {row.min_count}", "number") for row in report.coverage),
    )
    rows = [
        ("classes", *(f"{row.classes:,}" for row in report.coverage)),
        ("samples", *(f"{row.samples:,}" for row in report.coverage)),
        *((MEASURES[name].label, *(row.values.get(name) for row in report.coverage)) for name in names),
    ]
    hint = "Measures over the classes with at least this many samples. Few samples per class bias most measures."
    return Section("coverage", "Classes with enough samples", (hint,), Table(columns, tuple(rows)))
