"""Figures for papers, with matplotlib: one panel each, one column wide, in the colours of the page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.errors import MissingExtraError
from tightframe.render.axes import reading
from tightframe.render.curves import axes_of, visible
from tightframe.render.matrices import LEVELS, levels, palette
from tightframe.render.names import cut, shortened, width
from tightframe.render.styles import LIGHT, Style, styles
from tightframe.sections import Bars, Curves, Document, Matrix, Series
from tightframe.sections import Figure as FigureData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tightframe.render.axes import Axis

try:
    import matplotlib
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError:
    raise MissingExtraError("matplotlib", "figures") from None

_SIZE = (3.3, 2.4)  # inches: one column of a two-column paper
_SQUARE = (3.3, 3.0)
_STYLE: Any = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6.5,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.1,
    "pdf.fonttype": 42,  # text that stays text
    "svg.fonttype": "none",
}
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
_MARKED = 40  # maximum points of a curve with markers
_NAMED = 30  # maximum number of names below an axis
_NAME = 15  # maximum letters of a name
_TITLE, _LABEL = 46, 40  # maximum letters per line of a title, and of other text
_BESIDE = 4  # maximum curves with the legend inside the panel
_LEGEND_ROW = 0.13  # inches
_HANDLE = 32  # points: width of a line sample in a legend with its gaps
_MARK_FONT, _PANEL = 5.5, 175.0  # points: font size of mark labels and notes, width of a panel
_NOTE = 55  # maximum letters per line of a note
_THIN = 0.7  # line width on paper relative to the page


def render(document: Document, *, variants: bool = False) -> dict[str, Figure]:
    """{key: matplotlib figure}; the key is the section's, numbered from the second figure: "depth", "depth-2".

    Args:
        variants: whether to draw curves of other definitions.
    """
    drawn = {}
    for section in document.sections:
        for place, figure in enumerate(section.figures, start=1):
            key = section.key if place == 1 else f"{section.key}-{place}"
            with matplotlib.rc_context(_STYLE):
                drawn[key] = _figure(figure, variants)
    return drawn


def save(document: Document, folder: Path, *, suffix: str = ".pdf", variants: bool = False) -> list[Path]:
    """Write each figure to a file named by its key in a folder; text stays text in .pdf and .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for key, figure in render(document, variants=variants).items():
        path = folder / f"{key}{suffix}"
        with matplotlib.rc_context(_STYLE):
            figure.savefig(path, dpi=300)
        paths.append(path)
    return paths


def _figure(data: FigureData, variants: bool) -> Figure:
    figure = Figure(figsize=_SQUARE if isinstance(data, Matrix) else _SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_literal(textwrap.fill(data.title, _TITLE)), loc="left")
    if isinstance(data, Curves):
        _draw_curves(figure, axes, data if variants else visible(data))
    elif isinstance(data, Bars):
        _draw_bars(axes, data)
    else:
        _draw_matrix(figure, axes, data)
    if not isinstance(data, Curves) and data.note:
        _draw_note(axes, data.note)
    return figure


def _draw_note(axes: Axes, note: str) -> None:
    """Write a note between title and panel."""
    lines = textwrap.wrap(note, _NOTE)
    axes.annotate(
        _literal("\n".join(lines)), (0, 1), xycoords="axes fraction", xytext=(0, 2), textcoords="offset points",
        ha="left", va="bottom", fontsize=_MARK_FONT, color=LIGHT["soft"],
    )  # fmt: skip
    _raise_title(axes, 8 * len(lines))


def _raise_title(axes: Axes, points: int) -> None:
    """Make room for small text below the title."""
    axes.set_title(axes.get_title(loc="left"), loc="left", pad=4 + points)


def _literal(text: str) -> str:
    """Text with escaped dollar signs, which would start a formula."""
    return text.replace("$", r"\$")


def _draw_curves(figure: Figure, axes: Axes, data: Curves) -> None:
    x, y = axes_of(data)
    for direction, scale, log in (("x", x, data.log_x), ("y", y, data.log_y)):
        _set_scale(axes, direction, scale, log)
    if data.categories:
        _name_places(axes, shortened(data.categories, _NAME))
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.6)
    _draw_levels(axes, data, y)
    _draw_marks(axes, data, x)
    for series, look in zip(data.series, styles(data.series), strict=True):
        _draw_series(axes, series, look, x, y)
    axes.set_xlabel(_literal(cut(data.x_label, _LABEL)))
    if data.y_label:
        axes.set_ylabel(_literal(cut(data.y_label, _LABEL)))
    if len(data.series) > _BESIDE:
        widest = max(width(series.name, _STYLE["legend.fontsize"]) for series in data.series)
        columns = 2 if 2 * (widest + _HANDLE) < 72 * _SIZE[0] else 1
        figure.set_size_inches(_SIZE[0], _SIZE[1] + _LEGEND_ROW * math.ceil(len(data.series) / columns))
        figure.legend(loc="outside lower center", ncols=columns, handlelength=3.2, labelspacing=0.25, columnspacing=1.2)
    elif len(data.series) > 1:
        axes.legend(handlelength=3.2, labelspacing=0.25, borderaxespad=0.2)


def _draw_marks(axes: Axes, data: Curves, x: Axis) -> None:
    """Draw vertical lines with labels above the panel that do not overlap."""
    ends: list[float] = []
    for place, label in sorted((place, cut(label, _LABEL)) for place, label in data.marks):
        at, share = x.drawn(place), x.share(place)
        if not 0 <= share <= 1:
            continue
        half = width(label, _MARK_FONT) / _PANEL / 2
        middle = min(max(share, half), max(1 - half, half))
        row = next((row for row, free in enumerate(ends) if middle - half > free), len(ends))
        ends[row : row + 1] = [middle + half]
        axes.axvline(at, color=LIGHT["soft"], linewidth=0.7, linestyle=(0, (4, 3)))
        axes.annotate(
            _literal(label), (middle, 1), xycoords="axes fraction", xytext=(0, 1 + 7 * row),
            textcoords="offset points", ha="center", va="bottom", fontsize=_MARK_FONT, color=LIGHT["soft"],
        )  # fmt: skip
    _raise_title(axes, 7 * len(ends))


def _set_scale(axes: Axes, direction: str, scale: Axis, log: bool) -> None:
    which = axes.xaxis if direction == "x" else axes.yaxis
    (axes.set_xscale if direction == "x" else axes.set_yscale)("log" if log else "linear")
    (axes.set_xlim if direction == "x" else axes.set_ylim)(scale.low, scale.high)
    which.set_ticks([value for value, _ in scale.ticks], [label for _, label in scale.ticks])
    which.set_ticks([], minor=True)


def _name_places(axes: Axes, names: Sequence[str]) -> None:
    """Write names below positions 0, 1, ...; with many names, only every second or third."""
    stride = math.ceil(max(len(names), 1) / _NAMED)
    short = [_literal(name) for name in names]
    flat = sum(map(len, short)) + 2 * len(short) < 45
    kwargs: dict[str, Any] = {} if flat else {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "fontsize": 6}
    axes.set_xticks(range(0, len(names), stride), short[::stride], **kwargs)


def _draw_levels(axes: Axes, data: Curves, y: Axis) -> None:
    levels = [("target", data.target, (0, (8, 2))), ("shuffled", data.shuffled, (0, (1, 2)))]
    shown = [
        (name, value, dash) for name, value, dash in levels if value is not None and not math.isnan(y.share(value))
    ]
    heights = [y.share(value) for _, value, _ in shown]
    if len(heights) == 2 and abs(heights[0] - heights[1]) < 0.16:  # two labels with two lines each
        middle, sign = sum(heights) / 2, 1 if heights[0] >= heights[1] else -1
        heights = [middle + sign * 0.08, middle - sign * 0.08]
    for (name, value, dash), height in zip(shown, heights, strict=True):
        axes.axhline(y.drawn(value), color=LIGHT["soft"], linewidth=0.8, linestyle=dash, zorder=1.5)
        axes.text(
            1.02, height, f"{name}\n{reading(value)}", transform=axes.transAxes, va="center", fontsize=6,
            color=LIGHT["soft"],
        )  # fmt: skip


def _draw_series(axes: Axes, series: Series, look: Style, x: Axis, y: Axis) -> None:
    colour = LIGHT[look.colour]
    across = np.array([x.drawn(value) for value in series.x])
    heights = np.array([y.drawn(value) for value in series.y])
    single = np.isfinite(heights).sum() == 1
    dash: Any = "" if single else (0, look.dash) if look.dash else "-"
    marked = len(across) <= _MARKED and (series.role != "reference" or single)
    zeros = np.array([y.log and value == 0 for value in series.y], dtype=bool)
    if series.error:
        errors = np.nan_to_num(np.array(series.error))
        low, high = np.clip([heights - errors, heights + errors], y.low, y.high)
        axes.fill_between(across, low, high, color=colour, alpha=0.16, linewidth=0)
    alone = _alone(heights) & ~zeros
    axes.plot(
        across,
        heights,
        color=colour,
        linewidth=look.width * _THIN,
        linestyle=dash,
        marker=_MARKERS[look.marker] if marked or alone.any() else None,
        markersize=2.6,
        markevery=list(np.flatnonzero(~zeros if marked else alone)),
        label=_literal(series.name),
    )
    if zeros.any():
        axes.plot(
            across[zeros], heights[zeros], linestyle="", marker="v", markersize=4, markerfacecolor="white",
            markeredgecolor=colour, markeredgewidth=0.8, clip_on=False, zorder=3,
        )  # fmt: skip


def _alone(heights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Isolated points, whose neighbours are missing."""
    finite = np.isfinite(heights)
    padded = np.concatenate([[False], finite, [False]])
    return np.asarray(finite & ~padded[:-2] & ~padded[2:])


def _draw_bars(axes: Axes, data: Bars) -> None:
    values = [math.nan if value is None or not math.isfinite(value) else value for value in data.values]
    axes.bar(range(len(values)), values, width=0.72, color=LIGHT["curve-0"])
    axes.set_ylim(0, data.most if math.isfinite(data.most) and data.most > 0 else 1)
    axes.set_xlim(-0.6, max(len(values), 1) - 0.4)
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.6)
    for place, value in enumerate(values):
        if math.isnan(value):
            axes.text(place, 0, "–", ha="center", va="bottom", fontsize=6)
    notes = data.notes or [""] * len(data.names)
    short = shortened(data.names, _NAME, beginnings=True)
    _name_places(axes, [f"{name} · {note}" if note else name for name, note in zip(short, notes, strict=True)])


def _draw_matrix(figure: Figure, axes: Axes, data: Matrix) -> None:
    count = len(data.values)
    if not count:
        axes.axis("off")
        return
    colours = ListedColormap([tuple(channel / 255 for channel in colour) for colour in palette()[1:]])
    shades = levels(data)
    image = axes.imshow(
        np.ma.masked_equal(shades, 0),
        cmap=colours.with_extremes(bad=LIGHT["line"]),
        vmin=0.5,
        vmax=2 * LEVELS + 1.5,
        extent=(-0.5, count - 0.5, count - 0.5, -0.5),
        interpolation="nearest",
    )
    if count <= _NAMED:
        names = [_literal(name) for name in shortened(data.names, _NAME, beginnings=True)]
        size = 6.0 if count <= 15 else 4.5
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    for row, column in data.outlined:
        place = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="white", linewidth=2.0))
        axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="black", linewidth=1.0))
    bar = figure.colorbar(image, ax=axes, shrink=0.85, aspect=28, pad=0.02)
    values = (data.low, data.middle, data.high)
    bar.set_ticks([1, 1 + LEVELS, 1 + 2 * LEVELS], labels=[reading(value) for value in values])
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=6, width=0.5)
