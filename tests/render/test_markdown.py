"""Markdown: all of a document in words; nothing in it is taken for markup."""

import math
import re
from dataclasses import replace

import pytest

from tightframe.render import markdown
from tightframe.render.described import described
from tightframe.sections import Bars, Card, Curves, Document, Matrix, Section, Series, Table, written

NAN, INF = math.nan, math.inf


def cells(line: str) -> list[str]:
    """Cells of a row; a bar after a backslash is text."""
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])]


def plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text).strip("*`")


def tables(text: str) -> list[list[list[str]]]:
    blocks = [block.split("\n") for block in text.split("\n\n")]
    return [[cells(line) for line in block] for block in blocks if block[0].startswith("|")]


def test_order_and_texts(document: Document) -> None:
    text = markdown.render(document)
    parts = ("# CIFAR-10 · ResNet-18", "epoch 300 · 50,000 samples", "**Collapsed.** All five", "Stop training here.")
    parts = (
        *parts,
        "## What is odd",
        "- **Batch normalisation lags behind.** Run the data once in train mode. (`batch-norm`)",
    )
    parts = (*parts, "| **NC1** |", "- Features were sampled.", *(f"## {each.heading}" for each in document.sections))
    places = [text.index(part) for part in (*parts, "- command: tightframe measure --seed 0")]
    assert places == sorted(places)
    for section in document.sections:
        assert all(sentence in text for sentence in section.sentences)
        assert sum(f"- Figure. {figure.title} " in text for figure in section.figures) == len(section.figures)


def test_cards(document: Document) -> None:
    rows = tables(markdown.render(document))[0]
    assert len(rows) == 7
    assert rows[2] == [
        *("**NC1**", "Class means are far apart.", "0.0123", "0.00040", "0", "8.1", "650×", "0.31", "`key_1`")
    ]
    assert rows[1][2] == "---:" and rows[1][0] == "---"


@pytest.mark.parametrize(
    ("closeness", "remark", "text"),
    [
        (None, "no better than shuffled labels", "no"),
        (0.9, "no better than shuffled labels", "no"),
        (None, "shuffled labels do as well", "shuffled labels do as well"),
        (None, "undefined: two classes", "undefined: two classes"),
        (None, "", "–"),
        (650.3, "650× nearer", "650×"),
    ],
)
def test_closeness_or_why_there_is_none(closeness: float | None, remark: str, text: str) -> None:
    card = Card("NC1", "statement", "nc1", 0.5, closeness=closeness, remark=remark)
    (rows,) = tables(markdown.render(Document("t", cards=(card,))).strip())
    assert rows[2][6] == text


def test_the_state_is_below_the_verdict(document: Document) -> None:
    assert document.verdict is not None
    stated = replace(document, verdict=replace(document.verdict, state="training error 8.0 %"))
    blocks = markdown.render(stated).split("\n\n")
    place = blocks.index("**Collapsed.** All five phenomena are near their targets.")
    assert blocks[place + 1 : place + 3] == ["Stop training here.", "training error 8.0 %"]


def test_tables(document: Document) -> None:
    text = markdown.render(document)
    sections = [section for section in document.sections if section.table is not None]
    for rows, section in zip(tables(text)[1:], sections, strict=True):
        table = section.table
        assert table is not None
        assert rows[0] == [column.heading for column in table.columns]
        assert rows[1] == ["---:" if column.numeric else "---" for column in table.columns]
        groups = [row for row in rows[2:] if row[1:] == [""] * (len(table.columns) - 1)]
        assert [plain(row[0]) for row in groups] == list(table.groups.values())
        assert [[plain(cell) for cell in row] for row in rows[2:] if row not in groups] == [
            [written(cell, column.kind) for column, cell in zip(table.columns, row, strict=True)] for row in table.rows
        ]


def test_unusual_values(unusual: Document) -> None:
    text = markdown.render(unusual)
    for rows in tables(text):
        assert len({len(row) for row in rows}) == 1
    assert not re.search(r"(?<!\\)<", text.replace(f"`{unusual.title}`", ""))
    lines = [line for line in text.split("\n") if line.startswith("- Figure.")]
    assert len(lines) == len(unusual.sections[0].figures)


@pytest.mark.parametrize(
    "text", ["*a* _b_ `c` [d](e) <f> # g ~~h~~", "- item", "+ item", "12. item", r"back\slash", "a | b"]
)
def test_text_stays_text(text: str) -> None:
    shown = markdown.render(Document("t", sections=(Section("a", "A", (text,)),))).split("\n\n")[-1].strip()
    assert shown != text and re.sub(r"\\(.)", r"\1", shown) == text
    assert not re.search(r"(?<!\\)[*_`\[<|~]", shown)
    assert not re.match(r"[-+] |\d+\. ", shown)


def test_lines_are_joined() -> None:
    text = markdown.render(Document("two\nlines", sections=(Section("a", "A", table=Table((), ())),)))
    assert text.startswith("# two lines\n")


def test_an_empty_document() -> None:
    assert markdown.render(Document("Title")) == "# Title\n"


CURVES = Curves(
    "NC1",
    "epoch",
    (
        Series("train", (1.0, 2.0, 3.0), (9.0, NAN, 0.25)),
        Series("held out", (1.0, 2.0, 3.0), (9.0, 5.0, 0.5), "held-out"),
        Series("other", (1.0, 3.0), (1.0, 2.0), "variant"),
    ),
    target=0.0,
    shuffled=8.5,
    marks=((2.0, "drop"),),
)


@pytest.mark.parametrize("kind", [Bars("t", ("a",), (0.5,)), Matrix("t", ((1.0,),), ("a",), -1, 0, 1)])
def test_how_to_read_a_picture_is_not_said_in_words(kind: Bars | Matrix) -> None:
    assert described(replace(kind, note="White: none.")) == described(kind)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (
            CURVES,
            "NC1 (epoch 1 → 3) – train: 9 → 0.25; held out: 9 → 0.5; 1 variant; target: 0; shuffled labels: 8.5; "
            "drop, epoch 2.",
        ),
        (
            replace(CURVES, series=(*CURVES.series[:1], Series("best", (2.0,), (0.1,))), target=None, marks=()),
            "NC1 – train: 9 → 0.25 (epoch 1 → 3); best: 0.1 (epoch 2); shuffled labels: 8.5.",
        ),
        (
            Curves("t", "layer", (Series("a", (0.0, 1.0), (3.0, 3.0)),), categories=("x", "y")),
            "t (layer x → y) – a: 3.",
        ),
        (Curves("t", "x", (Series("a", (1.0,), (NAN,)),)), "t – a: no values."),
        (Curves("t", "x", ()), "t – no curves."),
        (Bars("t", ("a", "b", "c"), (0.5, 0.25, None)), "t – 2 bars, from 0.25 (b) to 0.5 (a); 1 missing."),
        (Bars("t", ("a",), (NAN,)), "t – no values."),
        (Bars("t", ("a",), (0.5,)), "t – 1 bar, from 0.5 (a) to 0.5 (a)."),
        (
            Matrix("t", ((1.0, 0.5), (0.5, 1.0)), ("a", "b"), -1, 0, 1, ((0, 1), (1, 0))),
            "t – 2 × 2 values, coloured from −1 to 1; outlined: a–b: 0.5000.",
        ),
        (
            Matrix("t", ((1.0, 0.5), (0.2, 1.0)), ("a", "b"), -1, 0, 1, ((0, 1), (1, 0))),
            "t – 2 × 2 values, coloured from −1 to 1; outlined: a–b: 0.5000, b–a: 0.2000.",
        ),
        (
            Matrix("t", ((1.0, 0.1 + 0.2), (0.3, 1.0)), ("6", "9"), -1, 0, 1, ((1, 0), (0, 1))),
            "t – 2 × 2 values, coloured from −1 to 1; outlined: 6–9: 0.3000.",
        ),
        (
            Matrix("t", ((1.0, NAN), (NAN, 1.0)), ("6", "9"), -1, 0, 1, ((0, 1), (1, 0))),
            "t – 2 × 2 values, coloured from −1 to 1; outlined: 6–9: –.",
        ),
        (
            Matrix("t", ((1.0, -1e-5), (-1e-5, 1.0)), ("6", "9"), -1, 0, 1, ((0, 1), (1, 0))),
            "t – 2 × 2 values, coloured from −1 to 1; outlined: 6–9: −1.000e-05.",
        ),
    ],
)
def test_figures_in_words(figure: Curves | Bars | Matrix, text: str) -> None:
    assert described(figure) == text
