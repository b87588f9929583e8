"""A table as HTML, in a box that scrolls."""

from __future__ import annotations

import html

from tightframe.sections import Cell, Column, Table, written

_LONG = 40  # maximum rows of a box without limited height

_CLASSES = {"name": "name", "source": "source", "text": ""}


def html_table(table: Table, label: str) -> str:
    """All rows, with headings above groups of rows; cells of the first name column are row headings."""
    leading = next((place for place, column in enumerate(table.columns) if column.kind == "name"), None)
    head = "".join(f'<th{_class(column)} scope="col">{html.escape(column.heading)}</th>' for column in table.columns)
    body = []
    for place, row in enumerate(table.rows):
        if place in table.groups:
            group = html.escape(table.groups[place])
            body.append(f'<tr class="group"><th colspan="{len(table.columns)}" scope="rowgroup">{group}</th></tr>')
        cells = zip(table.columns, row, strict=True)
        body.append(
            f"<tr>{''.join(_cell(column, cell, at == leading) for at, (column, cell) in enumerate(cells))}</tr>"
        )
    if not table.rows:
        body.append(f'<tr><td colspan="{max(len(table.columns), 1)}">no rows</td></tr>')
    long = " long" if len(table.rows) > _LONG else ""
    return (
        f'<div class="scroll{long}" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
    )


def _class(column: Column) -> str:
    name = "n" if column.numeric else _CLASSES[column.kind]
    return f' class="{name}"' if name else ""


def _cell(column: Column, cell: Cell, leads: bool) -> str:
    content = html.escape(written(cell, column.kind))
    if leads:
        return f'<th scope="row">{content}</th>'
    return f"<td{_class(column)}>{content}</td>"
