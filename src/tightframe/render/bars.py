"""Bars as SVG: one per name, from 0 to the maximum."""

from __future__ import annotations

import math

from tightframe.render.axes import axis, reading
from tightframe.render.described import described
from tightframe.render.names import cut, shortened, width
from tightframe.render.svg import coordinate, drawing, element, text
from tightframe.sections import Bars, signed

_WIDTH = 360.0
_TOP, _HEIGHT, _RIGHT = 18.0, 172.0, 10.0
_BOTTOM = _TOP + _HEIGHT
_STEP = 15.0  # least width of a bar and its gap such that names at 45 degrees do not touch
_FONT = 11.0
_NAME = 15  # maximum letters of a name
_VALUED = 14  # maximum number of bars with values above them


def wide(figure: Bars) -> bool:
    """Whether there are too many names for one panel."""
    return len(figure.names) * _STEP > _WIDTH - 50


def bars_svg(figure: Bars) -> str:
    """A picture as wide as one panel, or wider for many names."""
    most = figure.most if math.isfinite(figure.most) and figure.most > 0 else 1.0
    ticks = [(value, label) for value, label in axis([0.0, most]).ticks if 0 <= value <= most * (1 + 1e-9)]
    names, notes = shortened(figure.names, _NAME, beginnings=True), [cut(note, _NAME) for note in figure.notes]
    count = max(len(names), 1)
    left = 10 + max((width(label, _FONT) for _, label in ticks), default=20.0)
    step = max((_WIDTH - _RIGHT - left) / count, _STEP)
    rotated = any(width(line, _FONT) + 4 > step for line in [*names, *notes])
    if rotated:
        lines = [f"{name} · {note}" for name, note in zip(names, notes, strict=True)] if notes else names
        # rotated names extend to the left of their bars
        left = max(left, *(0.71 * width(line, _FONT) - (place + 0.5) * step for place, line in enumerate(lines)))
        depth = 0.71 * max(width(line, _FONT) for line in lines) + 14
    else:
        lines, depth = names, 34.0 if notes else 21.0
    whole = max(_WIDTH, left + _RIGHT + count * _STEP)
    step = (whole - _RIGHT - left) / count
    centres = [left + (place + 0.5) * step for place in range(len(names))]
    parts = []
    for value, label in ticks:
        y = _BOTTOM - _HEIGHT * value / most
        parts.append(element("path", class_="grid", d=f"M{coordinate(left)} {coordinate(y)}H{coordinate(whole - 10)}"))
        parts.append(text(label, left - 5, y + 3.8, class_="tick end"))
    path, tops, shown = "", [], []
    half = min(step * 0.36, 22)
    for centre, optional in zip(centres, figure.values, strict=True):
        value = math.nan if optional is None else optional
        share = min(max(value / most, 0.0), 1.0) if math.isfinite(value) else 0.0
        top = _BOTTOM - _HEIGHT * share
        brief = signed(f"{value:.3g}") if math.isfinite(value) else "–"
        if math.isfinite(value):
            path += (
                f"M{coordinate(centre - half)} {coordinate(_BOTTOM)}V{coordinate(top)}"
                f"h{coordinate(2 * half)}V{coordinate(_BOTTOM)}z"
            )
        if not math.isfinite(value) or (len(names) <= _VALUED and width(brief, 9) <= step):
            parts.append(text(brief, centre, top - 4, class_="value middle"))
        tops.append(round(top, 1))
        shown.append(reading(value))
    if path:
        parts.append(element("path", class_="bar curve-0", d=path))
    parts.append(
        element("path", class_="axis", d=f"M{coordinate(left)} {coordinate(_BOTTOM)}H{coordinate(whole - 10)}")
    )
    for place, (line, x) in enumerate(zip(lines, centres, strict=True)):
        full = figure.names[place]
        if rotated:
            turn = f"translate({coordinate(x + 4)} {coordinate(_BOTTOM + 11)})rotate(-45)"
            parts.append(text(line, 0, 0, class_="tick end", transform=turn, full=full))
            continue
        parts.append(text(line, x, _BOTTOM + 15, class_="tick middle", full=full))
        if notes:
            parts.append(text(notes[place], x, _BOTTOM + 28, class_="label middle"))
    if not names:
        parts.append(text("no values", (left + whole) / 2, _TOP + _HEIGHT / 2, class_="label middle"))
    labels = list(figure.names)
    if notes:
        labels = [f"{name} · {note}" for name, note in zip(figure.names, figure.notes, strict=True)]
    return drawing(
        parts,
        width=whole,
        height=_BOTTOM + depth,
        title=figure.title,
        description=described(figure),
        kind="bars",
        values=[["", [round(x, 1) for x in centres], tops, labels, shown]],
    )
