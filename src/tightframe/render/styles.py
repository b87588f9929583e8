"""Colours, dashes and markers of curves, verdicts and values on the page and in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tightframe.sections import Role, Series

LIGHT = {
    "page": "#f4f6f9",
    "card": "#ffffff",
    "ink": "#17212f",
    "soft": "#566072",
    "line": "#cfd6df",
    "grid": "#e7eaef",
    "link": "#00639c",
    "good": "#00734f",
    "near": "#8f5b00",
    "bad": "#b93a00",
    "unknown": "#566072",
    "held-out": "#6b7484",
    "curve-0": "#0072b2",
    "curve-1": "#d55e00",
    "curve-2": "#008a64",
    "curve-3": "#b04a8f",
    "curve-4": "#8a6d00",
    "curve-5": "#3e8fc4",
    "curve-6": "#3b3f8f",
}
"""Colours on white: those of Okabe and Ito, darkened if their contrast was below 3."""

DARK = {
    "page": "#0e131b",
    "card": "#171e29",
    "ink": "#e8ecf2",
    "soft": "#a3adbc",
    "line": "#3a4556",
    "grid": "#273040",
    "link": "#6db9f0",
    "good": "#3fca9b",
    "near": "#e6b045",
    "bad": "#ff8f5c",
    "unknown": "#a3adbc",
    "held-out": "#98a2b3",
    "curve-0": "#56b0ef",
    "curve-1": "#f58b3c",
    "curve-2": "#2fc496",
    "curve-3": "#e291c6",
    "curve-4": "#e3c94a",
    "curve-5": "#9fd3f7",
    "curve-6": "#a9a6f5",
}
"""The same colours on a dark background."""

CURVE_COLOURS = tuple(name for name in LIGHT if name.startswith("curve-"))
MARKERS = ("circle", "square", "triangle", "diamond")

_SOLID: tuple[float, ...] = ()
_DASHES: dict[Role, tuple[tuple[float, ...], ...]] = {
    "main": (_SOLID, (9, 2), (4, 2, 1, 2)),
    "held-out": ((5, 3), (2, 2), (8, 3, 2, 3)),
    "variant": ((8, 2, 2, 2), (3, 2), (6, 2, 1, 2, 1, 2)),
    "reference": ((1, 2.5), (1, 4.5), (4, 2.5, 1, 2.5), (1, 2, 1, 5), (6, 3, 1, 3, 1, 3)),
}
_WIDTHS: dict[Role, float] = {"main": 2.0, "held-out": 1.6, "variant": 1.5, "reference": 1.3}


@dataclass(frozen=True)
class Style:
    """The look of a curve.

    Attributes:
        colour: a key of `LIGHT` and `DARK`.
        dash: lengths of dashes and gaps; empty for a solid line.
        marker: one of `MARKERS`.
    """

    colour: str
    dash: tuple[float, ...]
    marker: str
    width: float


def styles(series: Sequence[Series]) -> list[Style]:
    """One style per curve of a figure; no two differ in colour alone."""
    looks: list[Style] = []
    places: Counter[Role] = Counter()
    coloured = 0
    for each in series:
        place = places[each.role]
        places[each.role] += 1
        if each.role == "held-out":
            colour = "held-out"
            dash = _DASHES["held-out"][place % len(_DASHES["held-out"])]
        else:
            colour = CURVE_COLOURS[coloured % len(CURVE_COLOURS)]
            turn = place // len(MARKERS) if each.role == "main" else place
            dash = _DASHES[each.role][turn % len(_DASHES[each.role])]
            coloured += 1
        looks.append(Style(colour, dash, MARKERS[place % len(MARKERS)], _WIDTHS[each.role]))
    return looks
