"""A figure in words: its curves, bars or values, and their ranges."""

from __future__ import annotations

import math

from tightframe.render.axes import reading
from tightframe.sections import Bars, Curves, Figure, Matrix, Series, signed

_OUTLINED = 5  # maximum number of named pairs


def described(figure: Figure) -> str:
    """One line: a curve's first and last values, the lowest and highest bars, or a matrix's outlined values."""
    if isinstance(figure, Curves):
        return _curves(figure)
    if isinstance(figure, Bars):
        return _bars(figure)
    return _matrix(figure)


def position(figure: Curves, x: float) -> str:
    """A position on the x axis: the name of a category, or a number."""
    if figure.categories:
        place = round(x) if math.isfinite(x) else -1
        return figure.categories[place] if 0 <= place < len(figure.categories) else reading(x)
    return reading(x)


def _curves(figure: Curves) -> str:
    shown = [series for series in figure.series if series.role != "variant"]
    spans = [_span(figure, series) for series in shown]
    common = spans[0] if spans and len(set(spans)) == 1 else ""
    parts = [
        _range(series) + (f" ({span})" if span and not common else "")
        for series, span in zip(shown, spans, strict=True)
    ]
    variants = len(figure.series) - len(shown)
    if variants:
        parts.append(f"{variants} variant{'s' if variants > 1 else ''}")
    if figure.target is not None:
        parts.append(f"target: {reading(figure.target)}")
    if figure.shuffled is not None:
        parts.append(f"shuffled labels: {reading(figure.shuffled)}")
    parts += [f"{label}, {figure.x_label} {position(figure, x)}" for x, label in figure.marks]
    title = f"{figure.title} ({common})" if common else figure.title
    return f"{title} – {'; '.join(parts) or 'no curves'}."


def _defined(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(series.x, series.y, strict=True) if not math.isnan(y)]


def _span(figure: Curves, series: Series) -> str:
    """The range of a curve on the x axis."""
    points = _defined(series)
    if not points:
        return ""
    begin, end = (position(figure, x) for x in (points[0][0], points[-1][0]))
    return f"{figure.x_label} {begin}" + (f" → {end}" if len(points) > 1 else "")


def _range(series: Series) -> str:
    points = _defined(series)
    if not points:
        return f"{series.name}: no values"
    first, last = (reading(y) for y in (points[0][1], points[-1][1]))
    constant = len({y for _, y in points}) == 1
    return f"{series.name}: {first if constant else f'{first} → {last}'}"


def _bars(figure: Bars) -> str:
    values = [
        (value, name)
        for name, value in zip(figure.names, figure.values, strict=True)
        if value is not None and not math.isnan(value)
    ]
    if not values:
        return f"{figure.title} – no values."
    (least, low), (most, high) = min(values), max(values)
    missing = len(figure.names) - len(values)
    tail = f"; {missing} missing" if missing else ""
    bars = "1 bar" if len(values) == 1 else f"{len(values)} bars"
    return f"{figure.title} – {bars}, from {reading(least)} ({low}) to {reading(most)} ({high}){tail}."


def _matrix(figure: Matrix) -> str:
    count = len(figure.values)
    parts = [f"{count} × {count} values, coloured from {reading(figure.low)} to {reading(figure.high)}"]
    outlined = [(row, column) for row, column in figure.outlined if row <= column or not _mirrored(figure, row, column)]
    shown = outlined[:_OUTLINED]
    if shown:
        pairs = [
            f"{named(figure, row)}–{named(figure, column)}: {_decimals(figure.values[row][column])}"
            for row, column in shown
        ]
        more = len(outlined) - len(shown)
        parts.append("outlined: " + ", ".join(pairs) + (f" and {more} more" if more else ""))
    return f"{figure.title} – {'; '.join(parts)}."


def _mirrored(figure: Matrix, row: int, column: int) -> bool:
    """Whether the mirrored cell is also outlined and has the same value up to rounding."""
    value, other = figure.values[row][column], figure.values[column][row]
    same = math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(value) and math.isnan(other))
    return same and (column, row) in figure.outlined


def _decimals(value: float) -> str:
    """Four decimals, as for cosines; four significant digits for very small or large values."""
    return signed(f"{value:.4f}") if value == 0 or 1e-3 <= abs(value) < 1e3 else reading(value)


def named(figure: Matrix, place: int) -> str:
    """The name of a row or column, or its number."""
    return figure.names[place] if place < len(figure.names) else str(place)
