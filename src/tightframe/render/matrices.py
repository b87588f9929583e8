"""Matrices as images: orange below the neutral value, white at it, blue above it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tightframe.render.axes import reading
from tightframe.render.described import described
from tightframe.render.names import shortened, width
from tightframe.render.png import data_uri, png
from tightframe.render.svg import coordinate, drawing, element, text
from tightframe.sections import Matrix

ORANGE, WHITE, BLUE = (179, 80, 0), (255, 255, 255), (0, 84, 150)
LEVELS = 63  # levels of colour on each side of neutral

_WIDTH = 360.0
_PIXELS = 400  # maximum rows of an image; larger matrices show the means of blocks
_NAMED = 30  # maximum number of classes with names on the axes
_READ = 100  # maximum number of classes with values under the pointer
_NAME = 14


def palette() -> list[tuple[int, int, int]]:
    """Colours by level: 0 is missing, 1 the lowest, 1 + LEVELS neutral, 1 + 2 LEVELS the highest."""
    return [WHITE, *(colour(level / LEVELS) for level in range(-LEVELS, LEVELS + 1))]


def colour(place: float) -> tuple[int, int, int]:
    """The colour of a place from -1 (lowest value) through 0 (neutral) to 1 (highest value)."""
    end = BLUE if place > 0 else ORANGE
    strength = abs(place) ** 0.8  # makes small differences from neutral visible
    red, green, blue = (round(white + (other - white) * strength) for white, other in zip(WHITE, end, strict=True))
    return red, green, blue


def levels(figure: Matrix) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The level of each cell, or of each block if the matrix is larger than an image."""
    values = np.asarray(figure.values, dtype=np.float64)
    block = block_size(figure)
    if block > 1:
        starts = np.arange(0, len(values), block)
        finite = np.isfinite(values)
        sums, counts = np.where(finite, values, 0.0), finite.astype(np.float64)
        for way in (0, 1):
            sums, counts = np.add.reduceat(sums, starts, axis=way), np.add.reduceat(counts, starts, axis=way)
        with np.errstate(invalid="ignore"):
            values = np.where(counts > 0, sums / counts, np.nan)
    away = values - figure.middle
    reach = np.where(away > 0, figure.high - figure.middle, figure.middle - figure.low)
    with np.errstate(invalid="ignore", divide="ignore"):
        places = np.where(away == 0, 0.0, away / reach)
    places = np.clip(np.nan_to_num(places, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1)
    return np.where(np.isnan(values), 0, 1 + LEVELS + np.rint(LEVELS * places)).astype(np.uint8)


def block_size(figure: Matrix) -> int:
    """Side of the square block whose mean is one pixel."""
    return max(math.ceil(len(figure.values) / _PIXELS), 1)


def matrix_svg(figure: Matrix) -> str:
    """The image, names if there is room, outlined cells, and the colour scale."""
    count = len(figure.values)
    if not count:
        empty = [text("no values", _WIDTH / 2, 40, class_="label middle")]
        return drawing(empty, width=_WIDTH, height=80, title=figure.title, description=described(figure),
                       kind="matrix", values=[])  # fmt: skip
    names = shortened(figure.names, _NAME, beginnings=True) if count <= _NAMED else []
    font = 11.0
    margin = max((width(name, font) for name in names), default=0.0) + 8
    side = min(_WIDTH - margin - 8, 290.0)
    font = min(font, side / count * 0.98)
    margin = max((width(name, font) for name in names), default=0.0) + 8
    cell = side / count
    left, top = margin, 6.0
    across = any(width(name, font) + 4 > cell for name in names)
    image = data_uri(png([row.tobytes() for row in levels(figure)], palette()))
    parts = [
        element("rect", class_="missing", x=left, y=top, width=side, height=side),
        element(
            "image", class_="pixels", x=left, y=top, width=side, height=side, href=image, preserveAspectRatio="none"
        ),
    ]
    parts.append(element("rect", class_="frame", x=left, y=top, width=side, height=side))
    full = figure.names
    for place, name in enumerate(names):
        middle = (place + 0.5) * cell
        size = f"font-size:{font:.1f}px"
        parts.append(text(name, left - 4, top + middle + font * 0.35, class_="tick end", style=size, full=full[place]))
        if across:
            turn = f"translate({coordinate(left + middle + font * 0.35)} {coordinate(top + side + 5)})rotate(-90)"
            parts.append(text(name, 0, 0, class_="tick end", style=size, transform=turn, full=full[place]))
        else:
            parts.append(text(name, left + middle, top + side + 13, class_="tick middle", style=size, full=full[place]))
    outlines = "".join(
        f"M{coordinate(left + column * cell)} {coordinate(top + row * cell)}"
        f"h{coordinate(cell)}v{coordinate(cell)}h{coordinate(-cell)}z"
        for row, column in figure.outlined
    )
    if outlines:
        parts += [element("path", class_=layer, d=outlines) for layer in ("halo", "outline")]
    depth = (margin if across else 18.0) if names else 6.0
    parts += _scale(figure, left, top + side + depth + 6, side)
    values = (
        [[coordinate(left), coordinate(top), coordinate(side)], list(full), _cells(figure)] if count <= _READ else []
    )
    return drawing(
        parts,
        width=max(_WIDTH, left + side),
        height=top + side + depth + 36,
        title=figure.title,
        description=described(figure),
        kind="matrix",
        values=values,
    )


def _cells(figure: Matrix) -> list[list[float | None]]:
    """Values to three decimals, or to three significant digits if all are small."""
    largest = max((abs(value) for row in figure.values for value in row if math.isfinite(value)), default=0.0)
    return [
        [
            None if not math.isfinite(value) else round(value, 3) if largest >= 0.1 else float(f"{value:.3g}")
            for value in row
        ]
        for row in figure.values
    ]


def _scale(figure: Matrix, left: float, top: float, side: float) -> list[str]:
    """The colour scale with its lowest, middle and highest value."""
    image = data_uri(png([bytes(range(1, 2 * LEVELS + 2))], palette()))
    parts = [
        element("image", class_="pixels", x=left, y=top, width=side, height=9, href=image, preserveAspectRatio="none"),
        element("rect", class_="frame", x=left, y=top, width=side, height=9),
    ]
    for share, value, anchor in ((0.0, figure.low, ""), (0.5, figure.middle, " middle"), (1.0, figure.high, " end")):
        parts.append(text(reading(value), left + share * side, top + 21, class_=f"tick{anchor}"))
    return parts
