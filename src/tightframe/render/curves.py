"""Curves as SVG: axes, lines, bands, levels at the right margin, and values under the pointer."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tightframe.render.axes import LARGEST, Axis, axis, category_axis, reading
from tightframe.render.described import described, position
from tightframe.render.names import cut, shortened, width
from tightframe.render.styles import Style, styles
from tightframe.render.svg import coordinate, drawing, element, text
from tightframe.sections import Curves, Series, error_text

WIDTH = 360.0
_HEIGHT = 172.0  # height of the area between the axes
_FONT = 11.0
_LINE = 12.5  # distance between lines of text
_MARKED = 40  # maximum points of a curve with markers
_NAME = 15  # maximum letters of a category's name
_RADIUS = 2.6

Point = tuple[float, float]


@dataclass(frozen=True)
class _Area:
    """The axes and the rectangle between them."""

    left: float
    top: float
    right: float
    bottom: float
    x: Axis
    y: Axis

    def place(self, x: float, y: float) -> Point:
        """Pixel position of a point; NaN if it can't be drawn."""
        return self.across(x), self.down(y)

    def across(self, x: float) -> float:
        return self.left + self.x.share(x) * (self.right - self.left)

    def down(self, y: float) -> float:
        return self.bottom - self.y.share(y) * (self.bottom - self.top)


def visible(figure: Curves) -> Curves:
    """The figure without variants, unless it has only variants."""
    shown = tuple(series for series in figure.series if series.role != "variant")
    return replace(figure, series=shown) if shown else figure


def axes_of(figure: Curves) -> tuple[Axis, Axis]:
    """The axes that show all curves and levels of a figure."""
    levels = [level for level in (figure.target, figure.shuffled) if level is not None]
    heights = [*levels]
    for series in figure.series:
        heights += series.y
        for y, error in zip(series.y, series.error or (), strict=False):
            heights += [y + error] if figure.log_y else [y + error, y - error]
    if figure.categories:
        return category_axis(len(figure.categories)), axis(heights, log=figure.log_y)
    places = [x for series in figure.series for x in series.x] + [x for x, _ in figure.marks]
    whole = all(x == round(x) for x in places if math.isfinite(x))
    return axis(places, log=figure.log_x, whole=whole), axis(heights, log=figure.log_y)


def curves_svg(figure: Curves) -> str:
    """A picture of all series of a figure, including variants."""
    x, y = axes_of(figure)
    labels = [(label, level) for label, level in (("target", figure.target), ("shuffled", figure.shuffled))
              if level is not None and not math.isnan(y.share(level))]  # fmt: skip
    left = 10 + max((width(label, _FONT) for _, label in y.ticks), default=20.0)
    right = WIDTH - (max(width(word, 10) for label, level in labels for word in (label, reading(level))) + 6
                     if labels else 10)  # fmt: skip
    names, rotated = _category_names(figure.categories, right - left)
    if rotated:
        left = max(left, 0.71 * max(width(name, _FONT) for name in names) - 4)
    rows = _mark_rows(figure, x, left, right)
    above = max(max(rows, default=-1) + 1 + bool(figure.y_label), 1)  # at least one line, so that panels align
    top = 8 + _LINE * above
    area = _Area(left, top, right, top + _HEIGHT, x, y)
    looks = styles(figure.series)
    parts = [*_grid(area), *_x_axis(figure, area, names, rotated)]
    if figure.y_label:
        parts.append(text(cut(figure.y_label, 50), 2, 11, class_="label"))
    parts += _levels(area, labels)
    parts += _marks(figure, area, rows)
    parts += [_band(area, series, look) for series, look in zip(figure.series, looks, strict=True) if series.error]
    drawn = [_series(area, series, look) for series, look in zip(figure.series, looks, strict=True)]
    parts += [svg for svg, _ in drawn]
    if not any(points for _, points in drawn):
        parts.append(text("no values", (left + right) / 2, top + _HEIGHT / 2, class_="label middle"))
    depth = max((width(name, _FONT) for name in names), default=0.0) * 0.71 + 8 if rotated else _LINE + 5
    label = figure.x_label
    if label:
        middle = (left + right) / 2
        parts.append(text(cut(label, 60), middle, area.bottom + depth + _LINE, class_="label middle", full=label))
    height = area.bottom + depth + (_LINE + 5 if label else 3)
    return drawing(
        parts,
        width=WIDTH,
        height=height,
        title=figure.title,
        description=described(figure),
        kind="curves",
        values=_readings(figure, area),
        x_label=figure.x_label,
    )


def legend(figure: Curves) -> str:
    """A list with a sample of each line and its name."""
    items = []
    for series, look in zip(figure.series, styles(figure.series), strict=True):
        single = sum(math.isfinite(y) for y in series.y) == 1
        line = "" if single else element("path", d="M1 6h26", **_stroke(look))
        marker = "" if series.role == "reference" and not single else _markers([(14.0, 6.0)], look)
        items.append(
            f'<li><svg class="sample {look.colour}" viewBox="0 0 28 12" aria-hidden="true">{line}{marker}</svg>'
            f"{html.escape(series.name)}</li>"
        )
    if _has_zeros(figure):
        triangle = '<path class="zero" d="M10 2.5h8l-4 7z"/>'
        items.append(f'<li><svg class="sample" viewBox="0 0 28 12" aria-hidden="true">{triangle}</svg>exactly 0</li>')
    return f'<ul class="legend">{"".join(items)}</ul>' if len(items) > 1 else ""


def undrawn(figure: Curves) -> str:
    """A sentence with the number of values outside the axes; "" if all are drawn."""
    infinite = sum(abs(y) > LARGEST for series in figure.series for y in series.y)
    negative = sum(y < 0 for series in figure.series for y in series.y if math.isfinite(y)) if figure.log_y else 0
    parts = [f"{infinite} infinite" if infinite else "", f"{negative} below 0" if negative else ""]
    shown = " and ".join(part for part in parts if part)
    return f"Not drawn: {shown} (logarithmic axis)." if negative else f"Not drawn: {shown}." if shown else ""


def sparkline(series: Sequence[Series], *, log: bool, title: str) -> str:
    """Curves without axes; a dot marks the last value of each."""
    wide, high, margin = 200.0, 44.0, 5.0
    figure = Curves(title, "", tuple(series), log_y=log)
    x, y = axes_of(figure)
    area = _Area(margin, margin, wide - margin, high - margin, x, y)
    parts = []
    looks = styles(series)
    for each, look in sorted(zip(series, looks, strict=True), key=lambda pair: pair[0].role == "main"):
        runs = _runs(area, each)
        parts.append(element("path", class_=f"line {look.colour}", d=_path(runs), **_stroke(look)) if runs else "")
        ends = [run[-1] for run in runs[-1:]]
        parts.append(f'<g class="{look.colour}">{_markers(ends, replace(look, marker="circle"))}</g>' if ends else "")
    description = html.escape(described(figure))
    return (
        f'<svg class="spark" viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{description}">'
        f"{''.join(parts)}</svg>"
    )


def _has_zeros(figure: Curves) -> bool:
    return figure.log_y and any(y == 0 for series in figure.series for y in series.y)


def _category_names(categories: Sequence[str], room: float) -> tuple[list[str], bool]:
    """Names for the axis, and whether they need rotation."""
    if not categories:
        return [], False
    step = room / len(categories)
    names = shortened(categories, _NAME)
    return names, any(width(name, _FONT) + 6 > step for name in names)


def _grid(area: _Area) -> Iterator[str]:
    for value, label in area.y.ticks:
        y = area.down(value)
        yield element("path", class_="grid", d=f"M{coordinate(area.left)} {coordinate(y)}H{coordinate(area.right)}")
        yield text(label, area.left - 5, y + 3.8, class_="tick end")


def _x_axis(figure: Curves, area: _Area, names: list[str], rotated: bool) -> Iterator[str]:
    bottom = coordinate(area.bottom)
    yield element("path", class_="axis", d=f"M{coordinate(area.left)} {bottom}H{coordinate(area.right)}")
    if not names:
        free = -math.inf
        for value, label in area.x.ticks:
            x = area.across(value)
            yield element("path", class_="axis", d=f"M{coordinate(x)} {bottom}v4")
            half = width(label, _FONT) / 2
            if x - half > free:
                yield text(label, x, area.bottom + _LINE + 3, class_="tick middle")
                free = x + half + 4
        return
    step = (area.right - area.left) / len(names)
    stride = math.ceil(15 / step)  # names at 45 degrees need 15 pixels each
    for place, name in enumerate(names):
        x = area.across(place)
        yield element("path", class_="axis", d=f"M{coordinate(x)} {bottom}v4")
        if not rotated:
            yield text(name, x, area.bottom + _LINE + 3, class_="tick middle", full=figure.categories[place])
        elif place % stride == 0:
            turn = f"translate({coordinate(x + 4)} {coordinate(area.bottom + 12)})rotate(-45)"
            yield text(name, 0, 0, class_="tick end", transform=turn, full=figure.categories[place])


def _levels(area: _Area, labels: list[tuple[str, float]]) -> Iterator[str]:
    """Horizontal lines, with names and values at the right margin that do not overlap."""
    heights = {label: area.down(level) for label, level in labels}
    centres = {label: min(max(y, area.top + 10), area.bottom - 8) for label, y in heights.items()}
    if len(labels) == 2:
        upper, lower = sorted(centres, key=lambda label: (centres[label], label))
        overlap = 24 - (centres[lower] - centres[upper])
        if overlap > 0:
            centres[upper] = max(centres[upper] - overlap / 2, area.top + 10)
            centres[lower] = centres[upper] + 24
            if centres[lower] > area.bottom - 8:
                centres[lower] = area.bottom - 8
                centres[upper] = centres[lower] - 24
    for label, level in labels:
        line = f"M{coordinate(area.left)} {coordinate(heights[label])}H{coordinate(area.right)}"
        yield element("path", class_=f"level {label}", d=line)
        for row, content in enumerate((label, reading(float(f"{level:.3g}")))):
            yield text(content, area.right + 4, centres[label] - 1.5 + 11 * row, class_="level-name")


def _mark_rows(figure: Curves, x: Axis, left: float, right: float) -> list[int]:
    """The row above the area in which each mark's label fits; -1 for marks outside the axis."""
    ends: list[float] = []
    rows = [-1] * len(figure.marks)
    for place in sorted(range(len(figure.marks)), key=lambda place: figure.marks[place][0]):
        value, label = figure.marks[place]
        share = x.share(value)
        if not 0 <= share <= 1:
            continue
        begin, end = _mark_span(left + share * (right - left), cut(label, 40), left)
        row = next((row for row, free in enumerate(ends) if begin > free + 4), len(ends))
        ends[row : row + 1] = [end]
        rows[place] = row
    return rows


def _mark_span(x: float, label: str, left: float) -> tuple[float, float]:
    long = width(label, 10)
    begin = min(max(x - long / 2, min(left, WIDTH - 2 - long)), WIDTH - 2 - long)
    return max(begin, 1.0), max(begin, 1.0) + long


def _marks(figure: Curves, area: _Area, rows: list[int]) -> Iterator[str]:
    names = []
    for (value, label), row in zip(figure.marks, rows, strict=True):
        if row < 0:
            continue
        x = area.across(value)
        short = cut(label, 40)
        begin, end = _mark_span(x, short, area.left)
        top = area.top - 3 - _LINE * row
        names.append(text(short, (begin + end) / 2, top - 2, class_="mark-name middle", full=label))
        yield element("path", class_="mark", d=f"M{coordinate(x)} {coordinate(top)}V{coordinate(area.bottom)}")
    yield from names  # drawn after the lines of other marks


def _points(area: _Area, series: Series) -> list[Point]:
    return [area.place(x, y) for x, y in zip(series.x, series.y, strict=True)]


def _runs(area: _Area, series: Series) -> list[list[Point]]:
    """Pixels of the connected points; a point that can't be drawn breaks the line."""
    runs: list[list[Point]] = [[]]
    for point in _points(area, series):
        if math.isnan(point[0]) or math.isnan(point[1]):
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _path(runs: list[list[Point]]) -> str:
    return "".join("M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in run) for run in runs)


def _band(area: _Area, series: Series, look: Style) -> str:
    """The error band of a curve, clipped at the edges of the area."""
    error = series.error or ()
    edges = []
    for sign in (1, -1):
        shifted = tuple(y + sign * e if math.isfinite(e) else y for y, e in zip(series.y, error, strict=True))
        low = area.y.low if area.y.zero is None else area.y.zero
        moved = [min(max(y, low), area.y.high) if math.isfinite(own) else math.nan
                 for y, own in zip(shifted, series.y, strict=True)]  # fmt: skip
        edges.append(_runs(area, replace(series, y=tuple(moved), error=None)))
    parts = [_path([upper + lower[::-1]]) + "z" for upper, lower in zip(*edges, strict=True) if len(upper) > 1]
    return element("path", class_=f"band {look.colour}", d="".join(parts)) if parts else ""


def _series(area: _Area, series: Series, look: Style) -> tuple[str, list[Point]]:
    runs = _runs(area, series)
    points = [point for run in runs for point in run]
    if not points:
        return "", []
    lines = [run for run in runs if len(run) > 1]
    parts = [element("path", class_="line", d=_path(lines), **_stroke(look))] if lines else []
    zero = None if area.y.zero is None else area.down(area.y.zero)
    plain = [point for point in points if point[1] != zero]
    single = [run[0] for run in runs if len(run) == 1 and run[0][1] != zero]
    if len(points) <= _MARKED and (series.role != "reference" or len(points) == 1):
        parts.append(_markers(plain, look))
    elif single:
        parts.append(_markers(single, look))
    triangles = "".join(f"M{coordinate(x - 4)} {coordinate(y - 6)}h8l-4 7z" for x, y in points if y == zero)
    parts += [element("path", class_="zero", d=triangles)] if triangles else []
    return f'<g class="{look.colour}">{"".join(parts)}</g>', points


def _stroke(look: Style) -> dict[str, Any]:
    dash = " ".join(f"{length:g}" for length in look.dash) or None
    return {"fill": "none", "stroke": "currentColor", "stroke_width": look.width, "stroke_dasharray": dash}


def _markers(points: list[Point], look: Style) -> str:
    """Markers as one path; circles and squares are caps of very short lines."""
    if not points:
        return ""
    r = _RADIUS
    # lines of length 0 have round caps, but no square caps in PDFs
    shape = {
        "circle": "h0",
        "square": "h.1",
        "triangle": f"m0 {-r - 0.8:g}l{r + 0.6:g} {2 * r:g}h{-2 * r - 1.2:g}z",
        "diamond": f"m0 {-r - 0.9:g}l{r + 0.9:g} {r + 0.9:g}l{-r - 0.9:g} {r + 0.9:g}l{-r - 0.9:g} {-r - 0.9:g}z",
    }[look.marker]
    path = "".join(f"M{coordinate(x)} {coordinate(y)}{shape}" for x, y in points)
    kind = {"circle": "dots", "square": "dots square"}.get(look.marker, "marks")
    return element("path", class_=kind, d=path)


def _readings(figure: Curves, area: _Area) -> list[list[Any]]:
    """Name, pixels and texts of the drawn points per series; x is None if equal to the previous series'."""
    readings: list[list[Any]] = []
    before: Any = None
    for series in figure.series:
        errors: Sequence[float] = series.error or [math.nan] * len(series.y)
        xs, ys, places, values = [], [], [], []
        for point, x, y, error in zip(_points(area, series), series.x, series.y, errors, strict=True):
            if math.isnan(point[0]) or math.isnan(point[1]):
                continue
            xs.append(round(point[0], 1))
            ys.append(round(point[1], 1))
            places.append(position(figure, x))
            values.append(reading(y) + ("" if math.isnan(error) else f" ± {error_text(error)}"))
        same = (xs, places) == before
        readings.append([series.name, None if same else xs, ys, None if same else places, values])
        before = (xs, places)
    return readings
