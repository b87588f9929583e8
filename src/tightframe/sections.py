"""The parts of a document: a verdict, cards, and sections with sentences, a table and figures.

They are plain values without colours or column widths. Reports, comparisons and certificates make documents; each
renderer of `tightframe.render` writes any document in one format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from decimal import Decimal
from importlib import import_module
from importlib.resources import files
from typing import Any, Literal, TypeVar

from tightframe.errors import ChoiceError, StateError
from tightframe.plain import restored

PAGE_START = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    '<meta http-equiv="Content-Security-Policy" content="'
)
"""The beginning of every HTML page, by which a run folder recognises one."""

Cell = str | int | float | None
"""A value of a table; None if missing."""

Kind = Literal["text", "name", "number", "count", "percent", "cosine", "times", "error", "source"]
"""Format of a column's cells: text; name, the subject of a row; number, four significant digits; count, a whole
number; percent, a share in per cent; cosine, four decimals; times, as 650×; source, the origin of a number."""

Role = Literal["main", "held-out", "variant", "reference"]
"""Role of a curve: the measure of the figure; the same on held-out data; another definition of it; a reference for
comparison."""

Tone = Literal["good", "near", "bad", "unknown"]

Standing = Literal["", "nearer", "best", "no better", "undecided"]
"""Place of a value between its level with shuffled labels and the best: nearer the best, at the best, no better than
shuffled labels, or undecided if shuffled labels are as good; empty if unknown."""


def standing_of(remark: str) -> Standing:
    """The standing that a remark expresses. Reports store the remark, so files of any version can be read.

    >>> from tightframe.sections import standing_of
    >>> standing_of("650× nearer"), standing_of("at target"), standing_of("no better than shuffled labels")
    ('nearer', 'best', 'no better')
    """
    if remark.startswith("at "):
        return "best"
    if remark.startswith("no better"):
        return "no better"
    return "undecided" if remark.endswith("do as well") else "nearer" if remark.endswith("nearer") else ""


def signed(text: str) -> str:
    """A number's text for readers, with a minus sign instead of a leading hyphen. JSON and CSV keep the hyphen.

    >>> from tightframe.sections import signed
    >>> signed("-0.5"), signed("0.5")
    ('−0.5', '0.5')
    """
    return "−" + text[1:] if text.startswith("-") else text


def number(value: float | None) -> str:
    """Four significant digits, or a dash without a value.

    >>> from tightframe.sections import number
    >>> number(0.0123456), number(-1234567.0), number(None)
    ('0.01235', '−1.235e+06', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return signed(f"{value:.3e}" if not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}")


def short(value: float | None) -> str:
    """Three significant digits, for values read at a glance; or a dash without a value.

    >>> from tightframe.sections import short
    >>> short(0.0123456), short(12345.6), short(None)
    ('0.0123', '12346', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e5:
        return signed(f"{value:.1e}")
    return signed(f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}")


def error_text(value: float | None) -> str:
    """A standard error in two significant digits, with an exponent below 1e-6 and from 1e5; a dash without a value.

    >>> from tightframe.sections import error_text
    >>> error_text(8.793e-05), error_text(1234.5), error_text(None)
    ('0.000088', '1200', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    rounded = f"{value:.1e}"
    return f"{Decimal(rounded):f}" if 1e-6 <= value < 1e5 else rounded


def times(value: float | None) -> str:
    """A closeness as text in two significant digits, such as "650×"; "exact" if infinite, a dash if undefined.

    >>> from tightframe.sections import times
    >>> times(3.14159), times(647.0), times(float("inf"))
    ('3.1×', '650×', 'exact')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "exact"
    if value < 9.95:
        return f"{value:.1f}×"
    digits = 10 ** max(math.floor(math.log10(value)) - 1, 0)
    return f"{int(round(value / digits) * digits):,}×"


def written(cell: Cell, kind: Kind) -> str:
    """A cell as text, the same in every format.

    >>> from tightframe.sections import written
    >>> written(0.25, "percent"), written(-0.25, "cosine"), written(12345, "count")
    ('25.00', '−0.2500', '12,345')
    """
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if math.isnan(cell):
        return "–"
    match kind:
        case "count" if math.isfinite(cell):
            return signed(f"{int(cell):,}")
        case "percent":
            return signed(f"{100 * cell:z.2f}")
        case "cosine":
            return signed(f"{cell:z.4f}")
        case "times":
            return times(cell)
        case "error":
            return error_text(cell)
    return number(cell)


@dataclass(frozen=True)
class Column:
    """A heading, the format of the cells below it, and whether narrow output may omit the column.

    Attributes:
        spare: narrow output omits optional columns that are spare before others.
    """

    heading: str
    kind: Kind = "text"
    optional: bool = False
    spare: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the cells are numbers, which are aligned to the right."""
        return self.kind in ("number", "count", "percent", "cosine", "times", "error")


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns.

    Attributes:
        groups: first row of each group -> its heading.

    >>> from tightframe.sections import Column, Table
    >>> table = Table((Column("class"), Column("samples", "count")), (("cat", 12), ("dog", 30)))
    >>> [column.numeric for column in table.columns]
    [False, True]
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
        x: positions of the points: numbers, or indices of the figure's `categories`.
        y: values; NaN for a missing point.
        error: half-width of the error band, or None.
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
        log_x, log_y: whether the axes are logarithmic; zeros are then marked at the lower edge.
        categories: names of the positions 0, 1, ... on the x axis; empty for a numeric axis.
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
    """One bar per name, from 0 to `most`; None for a missing value.

    Attributes:
        notes: text below each name; note: how to read the picture, shown only with the picture.
    """

    title: str
    names: tuple[str, ...]
    values: tuple[float | None, ...]
    notes: tuple[str, ...] = ()
    most: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """A square matrix of values, coloured from `low` through neutral `middle` to `high`.

    Attributes:
        outlined: cells (row, column) that deserve attention.
        note: how to read the picture, shown only with the picture.
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
        sentences: the first explains the content and what good values look like; the others state results.
        brief: one line that short forms print instead of the section, or "".
        shown: whether short forms print the whole section.
        folded: whether the page shows only the heading until the reader opens it.
        searchable: whether the reader of the page can filter rows.

    >>> from tightframe.sections import Section
    >>> Section("note", "A note", "One sentence.").sentences
    ('One sentence.',)
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

    def __post_init__(self) -> None:
        if isinstance(self.sentences, str):
            object.__setattr__(self, "sentences", (self.sentences,))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; each figure includes the name of its kind."""
        figures = [{"kind": type(figure).__name__, **asdict(figure)} for figure in self.figures]
        return {**asdict(self), "figures": figures}


@dataclass(frozen=True)
class Verdict:
    """One word, a sentence that says what it means here, and advice, if any.

    Attributes:
        state: state of training, in a few words.
    """

    word: str
    sentence: str
    tone: Tone
    advice: str = ""
    state: str = ""


@dataclass(frozen=True)
class Remark:
    """An oddity: the name of its rule, a sentence, and advice."""

    name: str
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Card:
    """One phenomenon with the measure that shows it best.

    Attributes:
        label: "NC1"; statement: the phenomenon in plain words; key: the measure's name in the report.
        value, error, target, shuffled, closeness: as in `Entry`; target is the floor if there is one.
        remark: the closeness in words.
        held_out: the value on held-out data, or None.
        history: curves over training, also on held-out data; empty without a history.
        log: whether the curve has a logarithmic axis.

    >>> from tightframe.sections import Card
    >>> card = Card("NC1", "Samples of a class coincide.", "nc1", 0.02, closeness=50.0, remark="50× nearer")
    >>> card.standing, card.closer
    ('nearer', '50×')
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
        """The value's place between its level with shuffled labels and the best."""
        return standing_of(self.remark)

    @property
    def closer(self) -> str:
        """The closeness as text; "no" if the value is no better than with shuffled labels."""
        return "no" if self.standing == "no better" else times(self.closeness)


@dataclass(frozen=True)
class Document:
    """A report, comparison or certificate in the form that renderers read.

    Attributes:
        title, facts: the subject; facts are short phrases.
        remarks: oddities; notes: sentences that qualify the numbers.
        footer: pairs (name, value) such as command, versions, seed and date.
        downloads: {file name: function that returns the text} for the files that the page offers.

    >>> from tightframe.sections import Document, Section
    >>> document = Document("A run", sections=(Section("note", "A note", "One sentence."),))
    >>> print(document.to("markdown").splitlines()[0])
    # A run
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
        """The document in the format of a module of `tightframe.render`, with its options.

        Raises: ChoiceError for an unknown format.
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
    for code in (
        *(*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        *range(0xD800, 0xE000),  # halves of characters, which UTF-8 can't hold
    )
    if chr(code) not in "\n\t"
}
"""Characters that a terminal or browser may execute: escapes, bells, changes of writing direction."""

Value = TypeVar("Value")


def as_text(value: Value) -> Value:
    """A copy of a text, table or document with every control character replaced, since names are untrusted.

    >>> from tightframe.sections import as_text
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
    """Modules of `tightframe.render` with a function `render`; read as text, since some need optional packages."""
    modules = (each for each in files("tightframe.render").iterdir() if each.name.endswith(".py"))
    return sorted(
        each.name.removesuffix(".py") for each in modules if "\ndef render(" in each.read_text(encoding="utf-8")
    )
