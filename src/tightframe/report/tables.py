"""Tables on a page, all made alike."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Collection[int],
    origin: Collection[int] = (),
    bold: Collection[int] = (),
    parts: Collection[int] = (),
) -> str:
    """A table of text cells.

    Args:
        head: a heading for each column; rows: as many cells each.
        numbers: columns of numbers, aligned to the right; origin: columns that say where numbers come from, in grey;
            bold: columns of what the table is about.
        parts: rows that begin a part of the table, under a rule.
    """

    kinds = {"n": numbers, "o": origin, "b": bold}
    classes = [" ".join(kind for kind, columns in kinds.items() if column in columns) for column in range(len(head))]

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{kind}">{html.escape(text)}</{tag}>' if kind else f"<{tag}>{html.escape(text)}</{tag}>"
            for kind, text in zip(classes, texts, strict=True)
        )

    body = "".join(
        f'<tr class="first">{cells("td", row)}</tr>' if place in parts else f"<tr>{cells('td', row)}</tr>"
        for place, row in enumerate(rows)
    )
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
