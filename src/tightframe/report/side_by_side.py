"""Several runs as one table in the terminal."""

from __future__ import annotations

from itertools import groupby

from tightframe.errors import MissingExtraError
from tightframe.report.comparison import Comparison, nearest
from tightframe.report.wording import caption, name, number

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise MissingExtraError("rich", "cli") from None


def print_comparison(comparison: Comparison, *, full: bool = False, console: Console | None = None) -> None:
    """Print runs side by side: where their arguments differ, then each measure; the nearest to its target is bold."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    for run in comparison.names:
        table.add_column(Text(run), justify="right", overflow="fold")
    for argument, values in comparison.differences.items():
        table.add_row(Text(argument, "dim"), "", *(Text("–" if value is None else str(value)) for value in values))
    table.add_section()
    for family, group in groupby(comparison.rows(full=full), lambda row: row[0].family):
        table.add_row(Text(family, "bold cyan"))
        for entry, found in group:
            best = nearest(entry, found)
            cells = [
                Text(number(None if each is None else each.value), "bold" if place in best else "")
                for place, each in enumerate(found)
            ]
            table.add_row(Text(f"  {name(entry)}"), number(entry.target), *cells)
    console.print(table)
    for run, report in zip(comparison.names, comparison.reports, strict=True):
        console.print(Text(f"{run}: {caption(report)}", style="dim"))
        for note in report.notes:
            console.print(Text(f"note: {note}", style="yellow"))
