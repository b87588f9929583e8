"""A report as one self-contained page: curves, Gram matrices and the full table; opens offline."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from tightframe.errors import MissingExtraError
from tightframe.report import geometry
from tightframe.report.coverage import coverage_cells
from tightframe.report.detection import detection_caption, detection_html, detection_panels
from tightframe.report.drilldown import class_cells, class_names, pair_cells
from tightframe.report.figure_style import COLOURS, FONT, GRID, MARK_COLOUR, panel_layout
from tightframe.report.profile import findings
from tightframe.report.series import course, terminal_phase
from tightframe.report.tables import html_table
from tightframe.report.wording import caption, name, number

if TYPE_CHECKING:
    from tightframe.report.entry import Entry
    from tightframe.report.report import Report

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
    from plotly.subplots import make_subplots

    from tightframe.report.depth import depth_panels
except ImportError:
    raise MissingExtraError("plotly", "report") from None

_CURVES: dict[str, tuple[str, ...]] = {
    "NC1 · variability": ("nc1", "test/nc1", "trace_ratio", "cdnv", "vci"),
    "NC2 · simplex ETF": ("equinorm", "equiangularity", "maximal_angle_deviation", "etf_error", "etf_distance"),
    "NC3 · self-duality": ("self_duality_distance", "self_duality_error", "classifier_equinorm", "bias_collapse"),
    "NC4 · nearest centre": ("ncc_mismatch", "test/ncc_mismatch"),
    "NC5 · OOD orthogonality": ("ood_orthogonality",),
    "accuracy": ("classifier_accuracy", "test/classifier_accuracy", "ncc_accuracy", "test/ncc_accuracy"),
}
"""Panels of the figure of curves; all but those of accuracy have a logarithmic axis."""

_GROUPS = "accuracy by group, held out"


def page(report: Report) -> str:
    """The complete HTML text of a report's page."""
    title = str(report.context.get("title", "Neural collapse report"))
    sections = []
    if panels := _panels(curves(report)):
        hint = "Logarithmic axes; open triangles are exact zeros; dotted lines are levels with shuffled labels"
        begun = "." if terminal_phase([*report.history, report]) is None else ", and the start of the terminal phase."
        sections.append(_section("Collapse over training", " ".join([hint + begun, *course(report)]), panels))
    if panels := _panels(depth_panels(report)):
        hint = " ".join(
            ["From the first layer measured to the classifier; dotted lines are targets.", *findings(report)]
        )
        sections.append(_section("Collapse by depth", hint, panels))
    sections += [_section(heading, hint, _div(figure)) for heading, hint, figure in grams(report)]
    if data := report.context.get("detection"):
        content = detection_html(data) + _panels(detection_panels(data))
        sections.append(_section("Out-of-distribution detection", detection_caption(data), content))
    if report.context.get("class_accuracies"):
        hint = "Held-out accuracy of each class; below its name the number of its training samples."
        sections.append(_section("Accuracy by class", hint, _div(class_bars(report))))
    style = files("tightframe.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f'<link rel="icon" href="data:,"><script>{get_plotlyjs()}</script></head><body><main>'
        f'<h1>{html.escape(title)}</h1><p class="facts">{html.escape(caption(report))}</p>'
        + "".join(f'<p class="note">{html.escape(note)}</p>' for note in report.notes)
        + _tiles(report)
        + "".join(sections)
        + _table(report.entries)
        + "".join(_details(report))
        + "</main></body></html>\n"
    )


def _details(report: Report) -> Iterator[str]:
    """What lies behind the measures."""
    if table := report.context.get("coverage_table"):
        head, rows = coverage_cells(table)
        hint = "The measures over classes with at least so many samples: few samples a class bias most of them."
        yield _section("Coverage", hint, html_table(head, rows, numbers=range(1, len(head)), bold=(0,)))
    for heading, cells in (("Classes", class_cells(report)), ("Nearest classes", pair_cells(report))):
        if cells is not None:
            hint, head, rows = cells
            yield _section(heading, hint, html_table(head, rows, numbers=range(1, len(head)), bold=(0,)))


def _section(heading: str, hint: str, content: str) -> str:
    return f'<section><h2>{html.escape(heading)}</h2><p class="hint">{html.escape(hint)}</p>{content}</section>\n'


def _panels(figures: Sequence[go.Figure]) -> str:
    panels = "".join(f'<div class="panel">{_div(figure)}</div>' for figure in figures)
    return f'<div class="panels">{panels}</div>' if panels else ""


def _div(figure: go.Figure) -> str:
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def curves(report: Report) -> list[go.Figure]:
    """One figure per NC family: its measures over epochs, both axes logarithmic, or over sessions, with the levels of
    shuffled labels; none without a history."""
    if not report.history:
        return []
    series = [*report.history, report]
    unit = "session" if all("session" in r.context for r in series) else "epoch"
    times = [r.context.get(unit, i + 1) for i, r in enumerate(series)]
    values = report.values
    groups = [key for key in values if key.startswith("test/accuracy_of_")]
    wanted = {**_CURVES, _GROUPS: ("test/balanced_accuracy", *groups[: len(COLOURS) - 1])} if groups else _CURVES
    panels = {title: [key for key in keys if key in values] for title, keys in wanted.items()}
    begun = terminal_phase(series) if unit == "epoch" else None
    return [_curve(title, report, series, unit, times, keys, begun) for title, keys in panels.items() if keys]


def _curve(
    title: str,
    report: Report,
    series: list[Report],
    unit: str,
    times: list[float],
    keys: list[str],
    begun: float | None,
) -> go.Figure:
    logarithmic = title not in ("accuracy", _GROUPS)
    shown = {key: [r.values.get(key, math.nan) for r in series] for key in keys}
    bottom = min((v for values in shown.values() for v in values if v > 0), default=1.0) / 3
    figure = go.Figure()
    for colour, (key, values) in zip(COLOURS, shown.items(), strict=False):
        zero = [logarithmic and v == 0 for v in values]
        figure.add_trace(
            go.Scatter(
                x=times,
                y=[bottom if z else v for z, v in zip(zero, values, strict=True)],
                customdata=values,
                name=name(report[key]),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 6, "symbol": ["triangle-down-open" if z else "circle" for z in zero]},
                hovertemplate=f"{name(report[key])}<br>{unit} %{{x}}: %{{customdata:.4g}}<extra></extra>",
            )
        )
        level = report[key].shuffled
        if logarithmic and level is not None and level > 0 and len(keys) <= 2:
            figure.add_hline(y=level, line={"dash": "dot", "color": colour, "width": 1})
    if begun is not None:
        figure.add_vline(x=begun, line={"dash": "dot", "color": MARK_COLOUR, "width": 1})
    span = "log" if unit == "epoch" and min(times) > 0 else "linear"
    figure.update_xaxes(title_text=unit, type=span, showgrid=False, ticks="outside", nticks=6)
    figure.update_yaxes(gridcolor=GRID)
    if logarithmic:
        figure.update_yaxes(type="log", exponentformat="power", minor={"showgrid": False}, nticks=6)
    figure.update_layout(**panel_layout(title))
    return figure


def class_bars(report: Report) -> go.Figure:
    """The accuracy of each class as a bar, with the number of its training samples."""
    accuracies = report.context["class_accuracies"]
    counts = report.context.get("class_counts") or [None] * len(accuracies)
    names = class_names(report, range(len(accuracies)))
    labels = [name if count is None else f"{name}<br>{count:,}" for name, count in zip(names, counts, strict=True)]
    figure = go.Figure(
        go.Bar(
            x=labels,
            y=accuracies,
            marker={"color": COLOURS[0]},
            customdata=names,
            hovertemplate="%{customdata}: %{y:.4f}<extra></extra>",
        )
    )
    figure.update_yaxes(range=[0, 1], gridcolor=GRID, title_text="accuracy")
    figure.update_xaxes(type="category")
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 12},
        height=300,
        margin={"l": 55, "r": 15, "t": 15, "b": 50},
        bargap=0.35,
    )
    return figure


def grams(report: Report) -> list[tuple[str, str, go.Figure]]:
    """Cosines between class means, and between classifier rows, above those that theory predicts for both."""
    found, theory = geometry.measured(report), geometry.predicted(report)
    if found is None or report.evidence is None or report.evidence.statistics is None:
        return []
    expected = theory[-1]
    classes = report.evidence.statistics.populated().class_ids
    assert classes is not None
    names = class_names(report, classes.tolist())
    ideal = -1 / (len(names) - 1)
    grids = {"class means": found.mean_cosines}
    if found.classifier_cosines is not None:
        grids["classifier rows"] = found.classifier_cosines
    if len(theory) == 1:
        grids["predicted: simplex ETF"] = expected.mean_cosines
    else:
        grids["predicted means"] = expected.mean_cosines
        if expected.classifier_cosines is not None:
            grids["predicted classifier"] = expected.classifier_cosines
    figure = make_subplots(1, len(grids), subplot_titles=list(grids), horizontal_spacing=0.05)
    for column, grid in enumerate(grids.values(), start=1):
        figure.add_trace(
            go.Heatmap(
                z=grid.tolist(),
                x=names,
                y=names,
                coloraxis="coloraxis",
                hovertemplate="%{y} · %{x}: %{z:.4f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        anchor = "x" + (str(column) if column > 1 else "")
        figure.update_yaxes(
            autorange="reversed",
            scaleanchor=anchor,
            constrain="domain",
            type="category",
            showticklabels=column == 1,  # long names would run into the picture before
            row=1,
            col=column,
        )
        figure.update_xaxes(constrain="domain", type="category", row=1, col=column)
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT},
        height=440 if len(grids) < 4 else 360,
        margin={"l": 40, "r": 20, "t": 40, "b": 40},
        coloraxis={
            "colorscale": "RdBu",
            "cmid": ideal,
            "cmin": ideal - 1.2,
            "cmax": 1.2 + ideal,
            "colorbar": {"title": "cos"},
        },
    )
    hint = (
        f"Cosines of centred vectors. White is the simplex ETF's {ideal:.4f} = −1/(K−1); blue is larger, red smaller."
    )
    if len(theory) > 1:
        hint += f" Predicted: {expected.name}."
    return [("Gram matrices", " ".join([hint, *geometry.statements(report)]), figure)]


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
    head = ("", "measure", "value", "± s.e.", "target", "floor", "shuffled", "±", "closeness", "convention", "source")
    rows, parts, family = [], [], None
    for place, entry in enumerate(entries):
        rows.append(
            [
                entry.family if entry.family != family else "",
                name(entry),
                number(entry.value),
                *(number(v) for v in (entry.standard_error, entry.target, entry.floor, entry.shuffled)),
                number(entry.shuffled_spread),
                entry.remark,
                entry.convention,
                entry.source,
            ]
        )
        parts += [place] if entry.family != family else []
        family = entry.family
    hint = (
        "Target: value at perfect collapse. Floor: best that this dimension allows, where that is not the target. "
        "Shuffled: what the measure is if the labels are shuffled on these features (for a classifier alone: with rows "
        "in random directions), the median of draws, and half of the range of 68 % of them. Closeness: how many times "
        "nearer the target, or the floor, the value is than that. Standard errors are those of the samples drawn. A "
        "dash means that no value is known."
    )
    table = html_table(head, rows, numbers=range(2, 8), origin=(9, 10), bold=(2,), parts=parts)
    return _section("All measures", hint, table)
