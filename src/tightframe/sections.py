"""What a document consists of: a verdict, cards, and sections of sentences, a table and figures.

Plain values, which know no colour and no column width. Reports, comparisons and certificates make documents; each
renderer of `tightframe.render` turns any document into one format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from importlib.resources import files
from typing import Any, Literal, TypeVar

from tightframe.errors import ChoiceError, StateError
from tightframe.plain import restored

Cell = str | int | float | None
"""A value of a table; None where there is none."""

Kind = Literal["text", "name", "number", "count", "percent", "cosine", "times", "source"]
"""How a column's cells are written: text; name, what a row is about; number, four significant digits; count, a whole
number; percent, a share in per cent; cosine, four decimals; times, as 650×; source, where a number comes from."""

Role = Literal["main", "held-out", "variant", "reference"]
"""What a curve is: what the figure is about; the same on held-out data; another definition of it; something else to
compare with."""

Tone = Literal["good", "near", "bad", "unknown"]

Standing = Literal["", "nearer", "best", "no better", "undecided"]
"""Where a value stands between its level with shuffled labels and the best: nearer the best, at it, no better than
shuffled labels, or undecided, where shuffled labels do as well; empty where that isn't known."""


def standing_of(remark: str) -> Standing:
    """What a closeness in words says. Reports keep the words, so that files of any version can be read."""
    if remark.startswith("at "):
        return "best"
    if remark.startswith("no better"):
        return "no better"
    return "undecided" if remark.endswith("do as well") else "nearer" if remark.endswith("nearer") else ""


def number(value: float | None) -> str:
    """Four significant digits, or a dash where there is no value."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.3e}" if not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def short(value: float | None) -> str:
    """Three significant digits, for what is read at a glance; or a dash."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"


def times(value: float | None) -> str:
    """How many times nearer its target than with shuffled labels, in two significant digits."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "exact"
    if value < 9.95:
        return f"{value:.1f}×"
    digits = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return f"{int(round(value / digits) * digits):,}×"


def written(cell: Cell, kind: Kind) -> str:
    """A cell as text, the same in every format."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if math.isnan(cell):
        return "–"
    match kind:
        case "count" if math.isfinite(cell):
            return f"{int(cell):,}"
        case "percent":
            return f"{100 * cell:.2f}"
        case "cosine":
            return f"{cell:.4f}"
        case "times":
            return times(cell)
    return number(cell)


@dataclass(frozen=True)
class Column:
    """A heading, and how the cells below it are written; whether a narrow form may leave it out."""

    heading: str
    kind: Kind = "text"
    optional: bool = False

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers, aligned to the right."""
        return self.kind in ("number", "count", "percent", "cosine", "times")


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns.

    Attributes:
        groups: headings of groups of rows, by the row that each begins with.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Table:
        """Inverse of `asdict`, also after JSON. Raises: StateError."""
        columns = restored(tuple[Column, ...], data.get("columns"), "table.columns")
        rows = restored(tuple[tuple[Cell, ...], ...], data.get("rows"), "table.rows")
        if any(len(row) != len(columns) for row in rows):
            raise StateError(f"every row of a table must have {len(columns)} cells.")
        cells = tuple(tuple(map(_cell, row, columns)) for row in rows)
        groups = restored(Mapping[str, str], data.get("groups", {}), "table.groups")
        if not all(row.isdecimal() for row in groups):
            raise StateError("table.groups must have the numbers of rows as keys.")
        return cls(columns, cells, {int(row): heading for row, heading in groups.items()})


def _cell(cell: Cell, column: Column) -> Cell:
    """A cell after JSON: numbers that JSON lacks were written as text."""
    return restored(float | None, cell, "a cell") if column.numeric else cell


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        x: where its points are, numbers, or places among the figure's `categories`.
        y: NaN where a point is missing.
        error: half of the width of a band about it, or None.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    role: Role = "main"
    error: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Curves:
    """Curves over epochs, layers or settings.

    Attributes:
        log_x, log_y: whether the axes are logarithmic; zeros are then marked as zeros at the lower edge.
        categories: names of the places 0, 1, ... on the x axis; none for a numeric axis.
        target, shuffled: horizontal lines: the best value and the level with shuffled labels.
        marks: vertical lines (x, label).
    """

    title: str
    x_label: str
    series: tuple[Series, ...]
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    categories: tuple[str, ...] = ()
    target: float | None = None
    shuffled: float | None = None
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Bars:
    """A bar for each name, from 0 to `most`; None for a value that is missing.

    Attributes:
        notes: what is below each name; note: how to read the picture, which only pictures say.
    """

    title: str
    names: tuple[str, ...]
    values: tuple[float | None, ...]
    notes: tuple[str, ...] = ()
    most: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """A square of values, coloured from `low` through `middle`, which is neutral, to `high`.

    Attributes:
        outlined: places (row, column) that the reader should look at.
        note: how to read the picture, which only pictures say.
    """

    title: str
    values: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]
    low: float
    middle: float
    high: float
    outlined: tuple[tuple[int, int], ...] = ()
    note: str = ""


Figure = Curves | Bars | Matrix


@dataclass(frozen=True)
class Section:
    """A part of a document.

    Attributes:
        key: a short name, of letters, digits and dashes.
        sentences: the first says what is shown and what good looks like; the others say what is found.
        brief: what a short form prints in place of the section: one line, or nothing.
        shown: whether short forms print all of it.
        folded: whether the page shows only its heading, until it is opened.
        searchable: whether the page lets the reader filter its rows.
    """

    key: str
    heading: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    figures: tuple[Figure, ...] = ()
    brief: str = ""
    shown: bool = True
    folded: bool = False
    searchable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data; each figure with the name of its kind."""
        figures = [{"kind": type(figure).__name__, **asdict(figure)} for figure in self.figures]
        return {**asdict(self), "figures": figures}


@dataclass(frozen=True)
class Verdict:
    """One word, one sentence of what it means here, and what to do about it, if anything.

    Attributes:
        state: where training is, in a few words.
    """

    word: str
    sentence: str
    tone: Tone
    advice: str = ""
    state: str = ""


@dataclass(frozen=True)
class Remark:
    """Something odd: the rule that found it, a sentence, and what to do about it."""

    name: str
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Card:
    """One of the phenomena, by the one measure that tells it best.

    Attributes:
        label: "NC1"; statement: what it says, in plain words; key: the measure's name in the report.
        value, error, target, shuffled, closeness: as in `Entry`; target is the floor where that is higher.
        remark: the closeness in words.
        held_out: the same on held-out data; None where there are none.
        history: its curve over training, and that of held-out data; empty without a history.
        log: whether the curve has a logarithmic axis.
    """

    label: str
    statement: str
    key: str
    value: float
    error: float | None = None
    target: float | None = None
    shuffled: float | None = None
    closeness: float | None = None
    remark: str = ""
    held_out: float | None = None
    history: tuple[Series, ...] = ()
    log: bool = True

    @property
    def standing(self) -> Standing:
        """Where the value stands between its level with shuffled labels and the best."""
        return standing_of(self.remark)

    @property
    def closer(self) -> str:
        """The closeness as text: "no" where the value is no better than with shuffled labels."""
        return "no" if self.standing == "no better" else times(self.closeness)


@dataclass(frozen=True)
class Document:
    """A report, a comparison or a certificate, as any renderer takes it.

    Attributes:
        title, facts: what this is about; facts are short phrases.
        remarks: what is odd; notes: what a reader of the numbers must know.
        footer: (name, value): command, versions, seed, date.
        downloads: {file name: function that gives its text} of the files that the page offers.
    """

    title: str
    facts: tuple[str, ...] = ()
    verdict: Verdict | None = None
    remarks: tuple[Remark, ...] = ()
    cards: tuple[Card, ...] = ()
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
    footer: tuple[tuple[str, str], ...] = ()
    downloads: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    def to(self, renderer: str, **options: Any) -> Any:
        """The document in a format: the name of a module of `tightframe.render`, and its options.

        Raises: ChoiceError for the name of no such module.
        """
        path = f"tightframe.render.{renderer}"
        try:
            render = getattr(import_module(path), "render", None)
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
            render = None
        if render is None:
            raise ChoiceError(f"the format must be one of {', '.join(_formats())}; got {renderer!r}.")
        return render(as_text(self), **options)


_CONTROL = {
    code: "\N{REPLACEMENT CHARACTER}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""Characters that a terminal or a browser may take for commands: escapes, bells, changes of the writing's direction."""

Value = TypeVar("Value")


def as_text(value: Value) -> Value:
    """The same text, table or document with every control character replaced: names come from anywhere.

    >>> as_text(("class \x1b[2J", 0.5))
    ('class �[2J', 0.5)
    """
    cleaned: Any = value
    if isinstance(value, str):
        cleaned = value.translate(_CONTROL)
    elif isinstance(value, tuple) and not all(isinstance(each, float) for each in value):
        cleaned = tuple(as_text(each) for each in value)
    elif isinstance(value, Mapping):
        cleaned = {as_text(key): as_text(each) for key, each in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        cleaned = replace(value, **{each.name: as_text(getattr(value, each.name)) for each in fields(value)})
    return cleaned


def _formats() -> list[str]:
    """Modules of `tightframe.render` with a function `render`; their text is read, as some need optional packages."""
    modules = (each for each in files("tightframe.render").iterdir() if each.name.endswith(".py"))
    return sorted(
        each.name.removesuffix(".py") for each in modules if "\ndef render(" in each.read_text(encoding="utf-8")
    )
