"""Out-of-distribution detection on the page and in the terminal, from the plain data of a `DetectionTable`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tightframe.errors import MissingExtraError
from tightframe.ood import DetectionTable
from tightframe.report.entry import Entry
from tightframe.report.figure_style import COLOURS, GRID, MARK_COLOUR, panel_layout
from tightframe.report.tables import html_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from tightframe.report.report import Report

COLUMNS = ("detector", "settings", "AUROC %", "± s.e.", "FPR95 %", "± s.e.", "source")
"""Headings of `detection_cells`; the four numbers are aligned to the right."""

_SURE = 1.96  # standard errors to either side of a 95 % interval
_REFERENCES = {
    "max_softmax": COLOURS[1],
    "max_logit": COLOURS[2],
    "energy": COLOURS[4],
    "nearest_centre": COLOURS[7],
    "mahalanobis": COLOURS[8],
}
"""Detectors shown as horizontal lines, and their colours."""

_MEASURES = {"auroc": "AUROC of NECO by components (%)", "fpr95": "FPR95 of NECO by components (%)"}


def with_detection(report: Report, table: DetectionTable) -> Report:
    """The report with the AUROC of each detector as an entry, and the whole table in its context."""
    entries = [
        Entry(
            *(f"{row.name}_auroc", "ood", f"AUROC, {row.label}", "OOD", row.auroc, 1.0, None, 0.5, row.auroc_error),
            *(_wording(row.convention, row.settings), row.source),
            headline=False,  # the table of detectors says it all
        )
        for row in table.rows
    ]
    return report.extended(entries, table.notes, {"detection": table.to_dict()})


def detection_cells(data: Mapping[str, Any]) -> list[list[str]]:
    """One line of cells per detector, under `COLUMNS`; a dash where there is no value. Raises: StateError."""
    table = DetectionTable.from_dict(data)
    return [
        [
            row.label,
            _wording(row.convention, row.settings),
            *(percent(value) for value in (row.auroc, row.auroc_error, row.fpr95, row.fpr95_error)),
            row.source,
        ]
        for row in table.rows
    ]


def detection_caption(data: Mapping[str, Any]) -> str:
    """What the numbers mean and on how many samples they were taken, in words. Raises: StateError."""
    table = DetectionTable.from_dict(data)
    sentences = [
        f"{table.inside:,} held-out samples against {table.outside:,} from elsewhere; scores are higher for samples "
        "like the training samples. AUROC: share of pairs in the right order, ties half. FPR95: share of the foreign "
        "samples that pass the threshold which 95 % of the held-out samples pass. Errors: DeLong, exact bootstrap."
    ]
    curve = table.curve
    if curve is not None and any(value == value for value in curve.auroc):
        sentences.append(
            f"NECO's number of components is a hyper-parameter, settled at {curve.default} beforehand. {curve.best} "
            "would be best on these samples, which is optimistic: choose it on others."
        )
    return " ".join([*sentences, *(f"{note.rstrip('.')}." for note in table.notes)])


def percent(share: float) -> str:
    """A share in per cent with two decimals, or a dash where there is no value."""
    return f"{100 * share:.2f}" if share == share else "–"


def detection_html(data: Mapping[str, Any]) -> str:
    """The table as HTML, in the page's style. Raises: StateError."""
    return html_table(COLUMNS, detection_cells(data), numbers=range(2, 6), origin=(1, 6), bold=(2, 4))


def detection_panels(data: Mapping[str, Any]) -> list[go.Figure]:
    """AUROC and FPR95 of NECO against its number of components, with 95 % intervals; none without a curve.

    A vertical line marks the number settled beforehand, a ring the one that is best on these samples; horizontal lines
    are the detectors that have no components.

    Raises: StateError; MissingExtraError without plotly.
    """
    table = DetectionTable.from_dict(data)
    return [] if table.curve is None else [_panel(table, measure) for measure in _MEASURES]


def _panel(table: DetectionTable, measure: str) -> go.Figure:
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise MissingExtraError("plotly", "report") from None
    curve = table.curve
    assert curve is not None
    components = list(curve.components)
    values = [100 * value for value in getattr(curve, measure)]
    errors = [100 * _SURE * error for error in getattr(curve, f"{measure}_error")]
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=components + components[::-1],
            y=high + low[::-1],
            fill="toself",
            fillcolor="rgba(37, 99, 235, 0.15)",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_trace(
        go.Scatter(
            x=components,
            y=values,
            name="NECO, 95 % interval",
            mode="lines+markers",
            line={"color": COLOURS[0], "width": 2},
            marker={"size": 5},
            customdata=errors,
            hovertemplate="p = %{x}<br>%{y:.2f} ± %{customdata:.2f} (95 %)<extra></extra>",
        )
    )
    if any(value == value for value in values):
        best = components.index(curve.best)
        figure.add_trace(
            go.Scatter(
                x=[curve.best],
                y=[values[best]],
                name="highest AUROC on these samples",
                mode="markers",
                marker={"size": 13, "symbol": "circle-open", "color": COLOURS[3], "line": {"width": 2}},
                hovertemplate=f"p = {curve.best}: %{{y:.2f}}<extra></extra>",
            )
        )
    figure.add_vline(x=curve.default, line={"dash": "dash", "color": MARK_COLOUR, "width": 1})
    figure.add_annotation(
        x=math.log10(curve.default),  # annotations, unlike lines, are placed by the logarithm
        y=1,
        yref="paper",
        yanchor="bottom",
        text=f"p = {curve.default}",
        showarrow=False,
        font={"size": 11},
    )
    for row in table.rows:
        if row.name not in _REFERENCES:
            continue
        height = 100 * getattr(row, measure)
        figure.add_trace(
            go.Scatter(
                x=[components[0], components[-1]],
                y=[height, height],
                name=row.label,
                mode="lines",
                line={"dash": "dot", "color": _REFERENCES[row.name], "width": 1.5},
                hovertemplate=f"{row.label}: %{{y:.2f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="components p", type="log", showgrid=False, ticks="outside", dtick=1)
    figure.update_yaxes(gridcolor=GRID)
    figure.update_layout(**panel_layout(_MEASURES[measure], height=480))  # the legend takes seven lines
    return figure


def _wording(convention: str, settings: Mapping[str, Any]) -> str:
    """The convention with the numbers that were used in place of their rule."""
    if "components" in settings:
        kept = convention.partition(", p = ")[0]
        return f"{kept}, p = {settings['components']} of {settings['rank']}"
    return convention if "rank" not in settings else f"{convention}, rank {settings['rank']}"
