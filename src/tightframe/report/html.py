"""A report as one self-contained page: curves, Gram matrices and the full table; opens offline."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from importlib.resources import files

from tightframe.errors import MissingExtraError
from tightframe.metrics import cosine_grid
from tightframe.metrics.geometry import classifier_rows
from tightframe.numerics import unit_rows
from tightframe.report.report import Entry, Report
from tightframe.report.wording import caption, name, number

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
    from plotly.subplots import make_subplots
except ImportError:
    raise MissingExtraError("plotly", "report") from None

_CURVES: dict[str, tuple[str, ...]] = {
    "NC1 · variability": ("nc1", "trace_ratio", "cdnv", "vci"),
    "NC2 · simplex ETF": ("equinorm", "equiangularity", "maximal_angle_deviation", "etf_error", "etf_distance"),
    "NC3 · self-duality": ("self_duality_distance", "self_duality_error", "classifier_equinorm", "bias_collapse"),
    "NC4 · nearest centre": ("ncc_mismatch", "test/ncc_mismatch"),
    "NC5 · OOD orthogonality": ("ood_orthogonality",),
    "accuracy": ("classifier_accuracy", "test/classifier_accuracy", "ncc_accuracy", "test/ncc_accuracy"),
}
"""Panels of the figure of curves; all but accuracy have a logarithmic axis."""

_COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed")
_LARGEST_GRAM = 200  # classes; more can't be told apart in a picture
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def page(report: Report) -> str:
    """The complete HTML text of a report's page."""
    title = str(report.context.get("title", "Neural collapse report"))
    figures = [curves(report)] if report.history else []
    figures += grams(report)
    body = "\n".join(
        f'<section><h2>{html.escape(heading)}</h2><p class="hint">{html.escape(hint)}</p>'
        + figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
        + "</section>"
        for heading, hint, figure in figures
    )
    style = files("tightframe.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f'<link rel="icon" href="data:,"><script>{get_plotlyjs()}</script></head><body><main>'
        f'<h1>{html.escape(title)}</h1><p class="facts">{html.escape(caption(report))}</p>'
        + "".join(f'<p class="note">{html.escape(note)}</p>' for note in report.notes)
        + _tiles(report)
        + body
        + _table(report.entries)
        + "</main></body></html>\n"
    )


def curves(report: Report) -> tuple[str, str, go.Figure]:
    """The series of each NC family over epochs, logarithmic, with null levels."""
    series = [*report.history, report]
    available = report.values
    panels = {title: [k for k in keys if k in available] for title, keys in _CURVES.items()}
    panels = {title: keys for title, keys in panels.items() if keys}
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = make_subplots(rows, columns, subplot_titles=list(panels), horizontal_spacing=0.07, vertical_spacing=0.2)
    for index, (title, keys) in enumerate(panels.items()):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        logarithmic = title != "accuracy"
        shown = {key: [r.values.get(key, math.nan) for r in series] for key in keys}
        positive = [v for values in shown.values() for v in values if v > 0]
        bottom = min(positive, default=1.0) / 3
        for colour, key in zip(_COLOURS, keys, strict=False):
            epochs = [r.context.get("epoch", i) for i, r in enumerate(series)]
            zero = [logarithmic and v == 0 for v in shown[key]]
            figure.add_trace(
                go.Scatter(
                    x=epochs,
                    y=[bottom if z else v for z, v in zip(zero, shown[key], strict=True)],
                    customdata=shown[key],
                    name=name(report[key]),
                    legend=f"legend{index + 1}" if index else "legend",
                    mode="lines+markers",
                    line={"color": colour, "width": 2},
                    marker={"size": 7, "symbol": ["triangle-down-open" if z else "circle" for z in zero]},
                    hovertemplate=f"{name(report[key])}<br>epoch %{{x}}: %{{customdata:.4g}}<extra></extra>",
                ),
                **place,
            )
            null = report[key].null
            if logarithmic and null is not None and null > 0 and len(keys) <= 2:
                figure.add_hline(y=null, line={"dash": "dot", "color": colour, "width": 1}, **place)
        figure.update_xaxes(title_text="epoch", showgrid=False, ticks="outside", **place)
        figure.update_yaxes(
            type="log" if logarithmic else "linear",
            gridcolor="#e5e7eb",
            dtick=1 if logarithmic else None,
            exponentformat="power",
            **place,
        )
        axis = figure.layout["xaxis" + (str(index + 1) if index else "")]
        vertical = figure.layout["yaxis" + (str(index + 1) if index else "")]
        figure.update_layout(
            {
                f"legend{index + 1}" if index else "legend": {
                    "x": axis.domain[1], "y": vertical.domain[1], "xanchor": "right", "yanchor": "top",
                    "bgcolor": "rgba(255,255,255,0.75)", "font": {"size": 11},
                }
            }
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white", font={"family": _FONT}, height=360 * rows, margin={"l": 50, "r": 20, "t": 40, "b": 50}
    )
    hint = "Logarithmic axes; open triangles are exact zeros; dotted lines are null levels, without class structure."
    return "Collapse over training", hint, figure


def grams(report: Report) -> list[tuple[str, str, go.Figure]]:
    """Cosines between class means, and between classifier rows, beside the simplex ETF's."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return []
    statistics = evidence.statistics.detach().populated()
    if statistics.num_classes > _LARGEST_GRAM or statistics.class_ids is None:
        return []
    ideal = -1 / (statistics.num_classes - 1)
    pictures = {"class means, centred": cosine_grid(statistics)}
    if evidence.weight is not None:
        rows = unit_rows(classifier_rows(statistics, evidence.weight.detach()))
        pictures["classifier rows"] = rows @ rows.mT
    eye = [[1.0 if i == j else ideal for j in range(len(statistics.counts))] for i in range(len(statistics.counts))]
    grids = {title: grid.cpu().tolist() for title, grid in pictures.items()} | {"simplex ETF (ideal)": eye}
    names = report.context.get("class_names") or [str(k) for k in statistics.class_ids.tolist()]
    names = [str(names[k]) if len(names) > k else str(k) for k in statistics.class_ids.tolist()]
    figure = make_subplots(1, len(grids), subplot_titles=list(grids), horizontal_spacing=0.06)
    for column, grid in enumerate(grids.values(), start=1):
        figure.add_trace(
            go.Heatmap(
                z=grid, x=names, y=names, coloraxis="coloraxis", hovertemplate="%{y} · %{x}: %{z:.4f}<extra></extra>"
            ),
            row=1,
            col=column,
        )
        anchor = "x" + (str(column) if column > 1 else "")
        figure.update_yaxes(
            autorange="reversed", scaleanchor=anchor, constrain="domain", type="category", row=1, col=column
        )
        figure.update_xaxes(constrain="domain", type="category", row=1, col=column)
    figure.update_layout(
        template="plotly_white",
        font={"family": _FONT},
        height=440,
        margin={"l": 40, "r": 20, "t": 40, "b": 40},
        coloraxis={
            "colorscale": "RdBu",
            "cmid": ideal,
            "cmin": ideal - 1.2,
            "cmax": 1.2 + ideal,
            "colorbar": {"title": "cos"},
        },
    )
    hint = f"Cosines. White is the ideal {ideal:.4f} = −1/(K−1); blue is larger, red is smaller."
    return [("Gram matrices", hint, figure)]


def _tiles(report: Report) -> str:
    """The few numbers that a reader looks for first."""
    keys = ("classifier_accuracy", "test/classifier_accuracy", "nc1", "equiangularity", "self_duality_distance",
            "ncc_mismatch", "ood_orthogonality")  # fmt: skip
    values = report.values
    tiles = "".join(
        f'<div class="tile"><b>{number(values[key])}</b><span>{html.escape(name(report[key]))}</span></div>'
        for key in keys
        if key in values
    )
    return f'<div class="tiles">{tiles}</div>'


def _table(entries: Sequence[Entry]) -> str:
    head = ("", "measure", "value", "± s.e.", "target", "floor", "null", "convention", "source")
    rows, family = [], None
    for entry in entries:
        cells = [
            entry.family if entry.family != family else "",
            name(entry),
            number(entry.value),
            *(number(v) for v in (entry.standard_error, entry.target, entry.floor, entry.null)),
            entry.convention,
            entry.source,
        ]
        start = ' class="first"' if entry.family != family else ""
        rows.append(f"<tr{start}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        family = entry.family
    return (
        '<section><h2>All measures</h2><p class="hint">Target: value at perfect collapse. Floor: best that this '
        "dimension allows, where that is not the target. Null: expected without class structure, at the same counts "
        "and dimension. A dash means that no value is known.</p><table><thead><tr>"
        + "".join(f"<th>{cell}</th>" for cell in head)
        + "</tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table></section>"
    )
