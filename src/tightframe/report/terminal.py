"""A report as a table in the terminal."""

from __future__ import annotations

from tightframe.errors import MissingExtraError
from tightframe.report.report import Entry, Report
from tightframe.report.wording import caption, number

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table
except ImportError:
    raise MissingExtraError("rich", "cli") from None


def print_report(report: Report, *, full: bool = False, console: Console | None = None) -> None:
    """Print the table of headline entries (all, if `full`), the coverage and the notes."""
    console = console or Console()
    entries = [entry for entry in report if full or entry.headline]
    console.print(report_table(entries, [column for column in _OPTIONAL if any(map(_OPTIONAL[column], entries))]))
    console.print(caption(report), style="dim", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False)


_OPTIONAL = {
    "floor": lambda entry: entry.floor is not None,
    "± s.e.": lambda entry: entry.standard_error is not None,
}


def report_table(entries: list[Entry], optional: list[str]) -> Table:
    """The entries as a rich table, a rule between families."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("measure", no_wrap=True)
    table.add_column("value", justify="right", style="bold cyan", no_wrap=True)
    for column in ("± s.e.", "target", "floor", "null"):
        if column in optional or column not in _OPTIONAL:
            table.add_column(column, justify="right", no_wrap=True)
    table.add_column("convention", style="dim")
    table.add_column("source", style="dim")
    family = None
    for index, entry in enumerate(entries):
        cells = {
            "± s.e.": entry.standard_error,
            "target": entry.target,
            "floor": entry.floor,
            "null": entry.null,
        }
        shown = [number(v) for c, v in cells.items() if c in optional or c not in _OPTIONAL]
        label = entry.label + (" (held out)" if entry.split == "test" else "")
        following = entries[index + 1].family if index + 1 < len(entries) else entry.family
        table.add_row(
            entry.family if entry.family != family else "",
            label,
            number(entry.value),
            *shown,
            entry.convention,
            entry.source,
            end_section=following != entry.family,
        )
        family = entry.family
    return table
