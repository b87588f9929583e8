"""A document as Markdown, for an issue, a pull request or a paper's supplement."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tightframe.render.described import described
from tightframe.sections import Card, Document, Section, Table, error_text, number, written

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~]|^[-+](?=\s))")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s)")


def render(document: Document) -> str:
    """The whole document; one line of text replaces each figure."""
    return "\n\n".join(_blocks(document)) + "\n"


def _blocks(document: Document) -> Iterator[str]:
    yield f"# {_plain(document.title)}"
    if document.facts:
        yield _plain(" · ".join(document.facts))
    if document.verdict:
        verdict = document.verdict
        yield " ".join(part for part in (f"**{_plain(verdict.word)}.**", _plain(verdict.sentence)) if part)
        yield from (_plain(text) for text in (verdict.advice, verdict.state) if text)
    if document.remarks:
        yield "## What is odd"
        yield "\n".join(
            f"- **{_plain(remark.sentence)}** {_plain(remark.advice)}".rstrip() + f" (`{remark.name}`)"
            for remark in document.remarks
        )
    if document.cards:
        yield _cards(document.cards)
    if document.notes:
        yield "\n".join(f"- {_plain(note)}" for note in document.notes)
    for section in document.sections:
        yield from _section(section)
    if document.footer:
        yield "---"
        yield "\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in document.footer)


def _section(section: Section) -> Iterator[str]:
    yield f"## {_plain(section.heading)}"
    if section.sentences:
        yield "\n\n".join(_plain(sentence) for sentence in section.sentences)
    if section.figures:
        yield "\n".join(f"- Figure. {_plain(described(figure))}" for figure in section.figures)
    if section.table is not None:
        yield _table(section.table)


def _cards(cards: Sequence[Card]) -> str:
    heads = ("", "statement", "value", "± s.e.", "target", "shuffled", "closeness", "held out", "measure")
    rows = [
        (
            f"**{_plain(card.label)}**",
            _plain(card.statement),
            number(card.value),
            error_text(card.error),
            number(card.target),
            number(card.shuffled),
            _plain(card.remark) if card.closer == "–" and card.remark else card.closer,
            number(card.held_out),
            f"`{card.key}`",
        )
        for card in cards
    ]
    return _grid(heads, [2 <= place <= 7 for place in range(len(heads))], rows)


def _table(table: Table) -> str:
    """The table; headings of groups are separate rows in bold."""
    columns = table.columns
    rows = []
    for place, row in enumerate(table.rows):
        if place in table.groups:
            rows.append((f"**{_plain(table.groups[place])}**", *("" for _ in columns[1:])))
        rows.append(tuple(_plain(written(cell, column.kind)) for column, cell in zip(columns, row, strict=True)))
    return _grid([_plain(column.heading) for column in columns], [column.numeric for column in columns], rows)


def _grid(heads: Sequence[str], numeric: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---:" if right else "---" for right in numeric], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text on one line with Markdown's special characters escaped."""
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))
