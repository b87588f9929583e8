"""A report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tightframe.errors import MissingExtraError
from tightframe.report.coverage import coverage_cells
from tightframe.report.detection import COLUMNS, detection_caption, detection_cells
from tightframe.report.drilldown import class_cells, pair_cells
from tightframe.report.geometry import statements
from tightframe.report.profile import Profile, findings
from tightframe.report.series import course
from tightframe.report.wording import caption, name, number

if TYPE_CHECKING:
    from tightframe.report.entry import Entry
    from tightframe.report.report import Report

try:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise MissingExtraError("rich", "cli") from None

_UNBOUNDED = 10_000  # a width at which every table shows its natural one
_ROOMY = 120  # columns from which on tables say where numbers come from
_NAME, _NUMBER = 33, 11  # columns of a narrow terminal; longer names get a line of their own


def print_report(report: Report, *, full: bool = False, classes: bool = False, console: Console | None = None) -> None:
    """Print the table of headline entries (all, if `full`), the coverage and the notes; with `classes` a row for every
    class and for the nearest pairs too."""
    console = console or Console()
    entries = [entry for entry in report if full or entry.headline]
    columns = (
        ["value", "target", "floor", "shuffled"]
        if any(e.floor is not None for e in entries)
        else ["value", "target", "shuffled"]
    )
    table = _wide_table(entries, columns)
    if Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum <= console.width:
        console.print(table)
    else:
        for line in _narrow_lines(entries, columns, console.width):
            console.print(line, no_wrap=True, overflow="ellipsis")
    if report.layers:
        console.print(_layer_table(report))
        for sentence in findings(report):
            console.print(Text(sentence))
    for sentence in course(report):
        console.print(Text(sentence))
    if data := report.context.get("detection"):
        shown = len(COLUMNS) if console.width >= _ROOMY else len(COLUMNS) - 1  # the source is the first to go
        cells = [line[:shown] for line in detection_cells(data)]
        console.print(_plain_table(COLUMNS[:shown], cells, numbers=range(2, 6)))
        console.print(Text(detection_caption(data), style="dim"))
    if rows := report.context.get("coverage_table"):
        head, lines = coverage_cells(rows)
        console.print(_plain_table(head, lines, numbers=range(1, len(head))))
    for found in (class_cells(report), pair_cells(report)) if classes else ():
        if found is not None:
            console.print(Text(found[0], style="dim"))
            console.print(_first_columns(found[1], found[2], console.width))
    for sentence in statements(report):
        console.print(Text(sentence))
    console.print(Text(caption(report), style="dim"))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))


_BY_DEPTH = {
    "nc1": "NC1",
    "ncc_accuracy": "NCC acc.",
    "test/ncc_accuracy": "held out",
    "numerical_rank": "rank",
    "principal_angle": "angle °",
}


def _layer_table(report: Report) -> Table:
    """One line per layer, from the first measured to the classifier."""
    profile = Profile.of(report)
    keys = [key for key in _BY_DEPTH if any(key in layer.values for layer in profile.reports)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("by depth", overflow="fold", min_width=10)
    for heading in ("D", *(_BY_DEPTH[key] for key in keys)):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer, title in zip(profile.reports, profile.names, strict=True):
        values = [number(layer.values.get(key)) for key in keys]
        table.add_row(Text(title), str(layer.context["dimension"]), *values)
    return table


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: range) -> Table:
    """Cells under headings, numbers to the right; what has no room is folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, heading in enumerate(head):
        if column in numbers:
            table.add_column(heading, justify="right", overflow="fold", min_width=6)
        else:
            table.add_column(heading, overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    return table


def _first_columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """As many columns, numbers but for the first, as a terminal has room for."""
    kept = 0
    for column, heading in enumerate(head):
        width -= max(map(cell_len, (heading, *(cells[column] for cells in rows)))) + (3 if column else 0)
        if width < 0:
            break
        kept += 1
    return _plain_table(head[:kept], [cells[:kept] for cells in rows], numbers=range(1, kept))


def _wide_table(entries: list[Entry], columns: list[str]) -> Table:
    """One line per measure, a rule between families."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    table.add_column("measure", no_wrap=True)
    for column in [*columns[:1], "± s.e.", *columns[1:], "±"]:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("closeness", no_wrap=True)
    table.add_column("convention", style="dim", no_wrap=True)
    table.add_column("source", style="dim", no_wrap=True)
    for family, group in groupby(entries, lambda entry: entry.family):
        members = list(group)
        for entry in members:
            cells = [number(getattr(entry, column)) for column in columns]
            table.add_row(
                Text(family if entry is members[0] else "", "bold cyan"),
                Text(name(entry)),
                Text(cells[0], "bold"),
                number(entry.standard_error),
                *cells[1:],
                number(entry.shuffled_spread),
                entry.remark,
                Text(entry.convention),
                Text(entry.source),
                end_section=entry is members[-1],
            )
    return table


def _narrow_lines(entries: list[Entry], columns: list[str], width: int) -> list[Text]:
    """Two lines or more per measure: the numbers, and below them what is known of them and where they come from."""
    lines = [Text(" " * (_NAME + 2) + "".join(f"{column:>{_NUMBER}}" for column in columns), "bold")]
    for family, group in groupby(entries, lambda entry: entry.family):
        lines.append(Text(family, "bold cyan"))
        for entry in group:
            cells = [number(getattr(entry, column)) for column in columns]
            title = name(entry)
            if cell_len(title) > _NAME:
                lines.append(Text(f"  {title}"))
                title = ""
            line = Text(f"  {title}" + " " * (_NAME - cell_len(title)))
            line.append(f"{cells[0]:>{_NUMBER}}", "bold")
            line.append("".join(f"{cell:>{_NUMBER}}" for cell in cells[1:]))
            lines.append(line)
            facts = [
                "" if entry.standard_error is None else f"± {number(entry.standard_error)}",
                entry.remark,
                entry.convention,
                entry.source,
            ]
            lines += [Text(f"    {line}", "dim") for line in _packed([fact for fact in facts if fact], width - 4)]
    return lines


def _packed(parts: list[str], width: int) -> list[str]:
    """The parts, separated, in as few lines as hold them."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(f"{lines[-1]} · {part}") <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines
