"""A document in the terminal: verdict, oddities and cards in about twenty lines; sections on demand."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from tightframe.sections import (
    Bars,
    Card,
    Cell,
    Column,
    Curves,
    Document,
    Section,
    Table,
    Tone,
    as_text,
    error_text,
    number,
    short,
    written,
)

_WIDTH = 100
_TONES: dict[Tone, str] = {"good": "bold green", "near": "bold yellow", "bad": "bold red", "unknown": "bold magenta"}
_BETWEEN = 3  # blanks between two columns of a table
_FOLDED = 18  # minimum width of a folded column
_ODD = 4  # maximum number of oddities shown; the rest are counted
_LOWEST = 5  # number of lowest bars shown
_NOTE = 170  # maximum characters of a note in a short form


def render(document: Document, *, width: int = _WIDTH, more: str = "", printed: bool = False) -> str:
    """The document as lines of text.

    Args:
        width: number of columns; a printed document uses the terminal's.
        more: a line that says how to see the rest.
        printed: print the text, in colour if the terminal supports it.
    """
    out = io.StringIO()
    console = Console() if printed else Console(file=out, width=width, color_system=None, legacy_windows=False)
    show(document, console, more=more)
    return out.getvalue()


def show(document: Document, console: Console, *, more: str = "") -> None:
    """Print a document on a console."""
    document = as_text(document)
    for line in _lines(document, console.width):
        console.print(line, soft_wrap=False)
    if more:
        console.print(Text(as_text(more), "dim"))


def _lines(document: Document, width: int) -> Iterator[RenderableType]:
    if document.title:
        yield Text(" · ".join((document.title, *document.facts)), "bold")
    if (verdict := document.verdict) is not None:
        text = " ".join(filter(None, (verdict.sentence, verdict.advice)))
        text = "\n".join(filter(None, (text, verdict.state)))
        yield _hanging(verdict.word, _TONES[verdict.tone], text, width)
    if document.cards:
        yield ""
        yield _cards(document.cards, width)
    if document.cards and (document.remarks or document.notes or any(each.brief for each in document.sections)):
        yield ""
    labels = [(remark.sentence, "odd", "yellow") for remark in document.remarks[:_ODD]]
    if (rest := len(document.remarks) - _ODD) > 0:
        labels.append((f"and {rest} more.", "", ""))
    full = any(section.shown for section in document.sections)
    notes = document.notes
    if not full and (len(notes) > 1 or any(len(note) > _NOTE for note in notes)):
        those = "1 note qualifies" if len(notes) == 1 else f"{len(notes)} notes qualify"
        notes = (f"{those} these numbers: --all on the command line, report.notes in Python.",)
    labels += [
        (section.brief, section.key, "cyan") for section in document.sections if section.brief and not section.shown
    ]
    labels += [(f"{note[:1].upper()}{note[1:]}", "note", "dim") for note in notes]
    before = None
    for sentence, label, style in labels:
        yield _hanging(label if label != before else "", style, sentence, width, indent=10)
        before = label
    for section in document.sections:
        if section.shown:
            yield ""
            yield from _section(section, width)


def _hanging(label: str, style: str, text: str, width: int, indent: int | None = None) -> RenderableType:
    """A label and indented text beside it."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=0 if indent is None else indent - 2)
    grid.add_column(overflow="fold", max_width=max(20, width - (indent or cell_len(label) + 2)))
    grid.add_row(Text(label, style), Text(text))
    return grid


# ---------------------------------------------------------------------- cards


def _cards(cards: Sequence[Card], width: int) -> Grid:
    """One line per phenomenon; a narrow terminal shows fewer columns."""
    held_out = any(card.held_out is not None for card in cards)
    columns: list[tuple[str, Any]] = [
        ("", lambda card: Text.assemble((card.label, "bold cyan"), f" {card.statement}")),
        ("measure", lambda card: Text(card.key, "dim")),
        ("now", lambda card: Text(short(card.value), "bold")),
        ("± s.e.", lambda card: error_text(card.error)),
        ("target", lambda card: short(card.target)),
        ("shuffled", lambda card: short(card.shuffled)),
        ("closer", lambda card: Text(card.closer, "bold")),
    ]
    if held_out:
        columns.append(("held out", lambda card: Text(short(card.held_out), "dim")))
    for dropped in ("± s.e.", "measure", "held out", "target", "shuffled"):
        if _natural(columns, cards) <= width:
            break
        columns = [column for column in columns if column[0] != dropped]
    grid = Grid(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, (heading, _) in enumerate(columns):
        text = place == 0 or heading == "measure"
        grid.add_column(heading, justify="left" if text else "right", no_wrap=place > 0, overflow="fold")
    for card in cards:
        grid.add_row(*(make(card) for _, make in columns))
    return grid


def _natural(columns: Sequence[tuple[str, Any]], cards: Sequence[Card]) -> int:
    """The width of the cards in terminal columns."""
    total = 0
    for heading, make in columns:
        cells = [made.plain if isinstance(made := make(card), Text) else made for card in cards]
        total += max(map(cell_len, (heading, *cells))) + 2
    return total - 2


# ---------------------------------------------------------------------- sections


def _section(section: Section, width: int) -> Iterator[RenderableType]:
    yield Text(section.heading, "bold cyan")
    for sentence in section.sentences:
        yield Text(sentence, "dim")
    if section.table is not None and section.table.rows:
        yield from _table(section.table, width)
    else:
        yield from (Text(line) for figure in section.figures if (line := _summary(figure)))


def _summary(figure: object) -> str:
    """One line about a figure of a section without a table."""
    if isinstance(figure, Bars):
        pairs = list(zip(figure.names, figure.values, strict=True))
        if len(pairs) <= _LOWEST:
            return " · ".join(f"{name} {number(value)}" for name, value in pairs)
        values = [(value, name) for name, value in pairs if value is not None and not math.isnan(value)]
        lowest = sorted(values, key=lambda pair: pair[0])[:_LOWEST]
        return "lowest: " + " · ".join(f"{name} {number(value)}" for value, name in lowest) if lowest else ""
    if isinstance(figure, Curves) and figure.series and figure.series[0].y:
        first, *_ = figure.series
        return f"{figure.title}: {number(first.y[0])} → {number(first.y[-1])}"
    return ""


def _table(table: Table, width: int) -> Iterator[RenderableType]:
    """The table. If it is too wide: without optional columns, spare ones before others and the last before the first;
    then with the first column folded, and the last one if it is text; then one block per row."""
    places, dropped = list(range(len(table.columns))), []
    optional = [place for place in places if table.columns[place].optional or table.columns[place].kind == "source"]
    optional.sort(key=lambda place: (table.columns[place].spare, place))
    while (excess := sum(widths := _widths(table, places)) + _BETWEEN * (len(places) - 1) - width) > 0 and optional:
        dropped.append(optional.pop())
        places.remove(dropped[-1])
    folded = {0: widths[0]} | ({len(places) - 1: widths[-1]} if table.columns[places[-1]].kind == "text" else {})
    for place in folded:
        cut = max(min(excess, folded[place] - _FOLDED), 0)
        folded[place], excess = folded[place] - cut, excess - cut
    if excess > 0:
        yield from _blocks(table, width)
        return
    yield _grid(table, places, folded)
    if dropped:
        names = ", ".join(dict.fromkeys(table.columns[place].heading for place in sorted(dropped)))
        yield Text(f"A wider terminal shows more columns: {names.rstrip('.')}.", "dim")


def _widths(table: Table, places: Sequence[int]) -> list[int]:
    cells = [[written(row[place], table.columns[place].kind) for row in table.rows] for place in places]
    return [
        max(map(cell_len, (table.columns[place].heading, *column))) for place, column in zip(places, cells, strict=True)
    ]


def _grid(table: Table, places: Sequence[int], folded: Mapping[int, int]) -> Grid:
    """The columns at `places`; `folded` gives the maximum widths of those whose text may continue on the next line."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for index, place in enumerate(places):
        column = table.columns[place]
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        fold = {"max_width": folded[index], "overflow": "fold"} if index in folded else {"no_wrap": True}
        grid.add_column(Text(column.heading), justify=justify, **fold)
    for line, row in enumerate(table.rows):
        if line in table.groups:
            grid.add_row(Text(table.groups[line], "bold cyan"))
        grid.add_row(*(_cell(row[place], table.columns[place]) for place in places))
    return grid


def _blocks(table: Table, width: int) -> Iterator[RenderableType]:
    """Each row's name on one line, and below it every cell with its heading."""
    for line, row in enumerate(table.rows):
        if line in table.groups:
            yield Text(table.groups[line], "bold cyan")
        yield Text(written(row[0], table.columns[0].kind), "bold")
        parts = [
            f"{column.heading} {text}".strip()
            for cell, column in zip(row[1:], table.columns[1:], strict=True)
            if (text := written(cell, column.kind)) not in ("", "–")
        ]
        grid = Grid.grid(padding=(0, 0, 0, 2))
        grid.add_column(overflow="fold", max_width=width - 2)
        grid.add_row(Text(" · ".join(parts), "dim"))
        yield grid


def _cell(cell: Cell, column: Column) -> Text:
    style = {"name": "bold", "source": "dim"}.get(column.kind, "")
    return Text(written(cell, column.kind), style)
