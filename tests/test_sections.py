"""Sections: how numbers are written, and sections that come back from JSON."""

import json
import math
import subprocess
import sys

import pytest

from tightframe.errors import ChoiceError, MissingExtraError
from tightframe.plain import json_text, restored
from tightframe.sections import (
    Bars,
    Cell,
    Column,
    Curves,
    Document,
    Kind,
    Matrix,
    Section,
    Series,
    Table,
    number,
    short,
    times,
    written,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (23.16234, "23.16"),
        (-0.39641, "−0.3964"),
        (0.001, "0.001"),
        (0.00099996, "1.000e-03"),
        (-1.23456e-05, "−1.235e-05"),
        (99999.0, "1e+05"),
        (1234567.0, "1.235e+06"),
        (math.nan, "–"),
        (math.inf, "inf"),
        (-math.inf, "−inf"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("exponent", range(-12, 13))
def test_numbers_keep_four_digits(exponent: int) -> None:
    for mantissa in (1.0004, 3.14159, 9.9994):
        value = mantissa * 10.0**exponent
        assert float(number(value)) == pytest.approx(value, rel=5e-4)
        assert number(-value) == "−" + number(value)
        assert len(number(-value)) <= 10


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.123456, "0.123"),
        (-0.0001234, "−0.000123"),
        (0.00001234, "1.2e-05"),
        (123.456, "123"),
        (12345.6, "12346"),
        (123456.0, "1.2e+05"),
        (math.inf, "inf"),
    ],
)
def test_short_numbers(value: float | None, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize("exponent", range(-12, 13))
def test_short_numbers_keep_two_digits(exponent: int) -> None:
    for mantissa in (1.04, 3.14159, 9.94):
        value = mantissa * 10.0**exponent
        assert float(short(value)) == pytest.approx(value, rel=0.05)
        assert short(-value) == "−" + short(value)
        assert len(short(-value)) <= 10


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "exact"),
        (0.84, "0.8×"),
        (1.0, "1.0×"),
        (9.94, "9.9×"),
        (46.4, "46×"),
        (653.0, "650×"),
        (1234567.0, "1,200,000×"),
    ],
)
def test_closeness(value: float | None, text: str) -> None:
    assert times(value) == text


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (None, "text", "–"),
        (None, "count", "–"),
        (math.nan, "count", "–"),
        (math.nan, "percent", "–"),
        (math.nan, "cosine", "–"),
        ("<b>", "text", "<b>"),
        ("", "number", ""),
        (60_000, "count", "60,000"),
        (math.inf, "count", "inf"),
        (0.98765, "percent", "98.77"),
        (-1 / 3, "cosine", "−0.3333"),
        (-1e-9, "cosine", "0.0000"),
        (-1e-9, "percent", "0.00"),
        (653.0, "times", "650×"),
        (0.00012345, "number", "1.234e-04"),
        (7, "name", "7"),
    ],
)
def test_cells(cell: Cell, kind: Kind, text: str) -> None:
    assert written(cell, kind) == text


NAN, INF = math.nan, math.inf
SECTION = Section(
    "mine",
    "A <heading> | of mine",
    ("What is shown.", "What is found."),
    Table(
        (Column("name", "name"), Column("value", "number"), Column("n", "count")),
        (("nan", NAN, 3), ("inf", -INF, None), ("b", 0.1, 0)),
        {0: "one", 2: "two"},
    ),
    (
        Curves(
            "inf", "epoch", (Series("nan", (1.0, 2.0), (NAN, INF), "held-out", error=(0.5, NAN)),), log_x=True,
            categories=("nan",), target=0.0, shuffled=INF, marks=((2.0, "nan"),),
        ),
        Bars("bars", ("nan", "b"), (NAN, None), ("inf", "–"), most=2.0),
        Matrix("matrix", ((1.0, NAN), (-0.5, 1.0)), ("nan", "b"), -1.5, -0.5, 1.5, ((0, 1),)),
    ),
    brief="a line",
    shown=False,
    folded=True,
    searchable=True,
)  # fmt: skip


@pytest.mark.parametrize("name", ["nonsense", "axes", "page.nonsense", "nonsense.page", "", "html"])
def test_a_format_that_there_is_not(name: str) -> None:
    with pytest.raises(ChoiceError) as caught:
        Document("t").to(name)
    assert str(caught.value) == f"the format must be one of figures, markdown, page, terminal; got {name!r}."


def test_formats_are_named_without_their_packages() -> None:
    program = (
        "import sys\nfrom tightframe.sections import Document\n"
        "try:\n    Document('t').to('nonsense')\nexcept LookupError:\n"
        "    assert not [m for m in sys.modules if m.startswith(('matplotlib', 'rich', 'tightframe.render.'))]\n"
        "else:\n    raise SystemExit(1)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_a_format_lacks_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tightframe.render.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        Document("t").to("figures")


def test_a_section_comes_back_from_json() -> None:
    """Compared as text, as NaN is not equal to itself; names that read as numbers stay text."""
    back = restored(Section, json.loads(json_text(SECTION.to_dict())))
    assert repr(back) == repr(SECTION)
    assert repr(restored(Section, json.loads(json_text(Section("a", "b").to_dict())))) == repr(Section("a", "b"))


def test_text_that_looks_like_a_number_stays_text_whatever_was_read_before() -> None:
    assert restored(float | str | None, "nan") == "nan"
    assert restored(str | float | None, "inf") == "inf"
    assert math.isnan(restored(float | None, "nan"))
