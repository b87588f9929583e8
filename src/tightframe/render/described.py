"""A figure in words: what is drawn, and from where to where it goes."""

from __future__ import annotations

import math

from tightframe.render.axes import reading
from tightframe.sections import Bars, Curves, Figure, Matrix, Series

_OUTLINED = 5  # pairs that are named


def described(figure: Figure) -> str:
    """One line: a curve's first and last values, the lowest and highest bars, or a matrix's outlined values."""
    if isinstance(figure, Curves):
        return _curves(figure)
    if isinstance(figure, Bars):
        return _bars(figure)
    return _matrix(figure)


def position(figure: Curves, x: float) -> str:
    """A place on the x axis: the name of a category, or a number."""
    if figure.categories:
        place = round(x) if math.isfinite(x) else -1
        return figure.categories[place] if 0 <= place < len(figure.categories) else reading(x)
    return reading(x)


def _curves(figure: Curves) -> str:
    parts = [_curve(figure, series) for series in figure.series if series.role != "variant"]
    variants = sum(series.role == "variant" for series in figure.series)
    if variants:
        parts.append(f"{variants} variant{'s' if variants > 1 else ''}")
    if figure.target is not None:
        parts.append(f"target {reading(figure.target)}")
    if figure.shuffled is not None:
        parts.append(f"shuffled labels {reading(figure.shuffled)}")
    parts += [f"{label} at {figure.x_label} {position(figure, x)}" for x, label in figure.marks]
    return f"{figure.title}: {'; '.join(parts) or 'no curves'}."


def _curve(figure: Curves, series: Series) -> str:
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if not math.isnan(y)]
    if not points:
        return f"{series.name}, no values"
    (begin, first), (end, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{series.name} {reading(first)} ({figure.x_label} {position(figure, begin)})"
    span = f"{figure.x_label} {position(figure, begin)} → {position(figure, end)}"
    return f"{series.name} {reading(first)} → {reading(last)} ({span})"


def _bars(figure: Bars) -> str:
    values = [
        (value, name)
        for name, value in zip(figure.names, figure.values, strict=True)
        if value is not None and not math.isnan(value)
    ]
    if not values:
        return f"{figure.title}: no values."
    (least, low), (most, high) = min(values), max(values)
    missing = len(figure.names) - len(values)
    tail = f"; {missing} missing" if missing else ""
    return f"{figure.title}: {len(values)} bars, from {reading(least)} ({low}) to {reading(most)} ({high}){tail}."


def _matrix(figure: Matrix) -> str:
    count = len(figure.values)
    parts = [f"{count} × {count} values, coloured from {reading(figure.low)} to {reading(figure.high)}"]
    shown = figure.outlined[:_OUTLINED]
    if shown:
        pairs = [
            f"{named(figure, row)} and {named(figure, column)} {reading(figure.values[row][column])}"
            for row, column in shown
        ]
        more = len(figure.outlined) - len(shown)
        parts.append("outlined: " + ", ".join(pairs) + (f" and {more} more" if more else ""))
    return f"{figure.title}: {'; '.join(parts)}."


def named(figure: Matrix, place: int) -> str:
    """The name of a row or column, or its number."""
    return figure.names[place] if place < len(figure.names) else str(place)
