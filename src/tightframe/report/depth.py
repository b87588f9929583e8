"""The layers of a measurement as figures: each measure by depth, and how it came about over the epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from tightframe.report.figure_style import COLOURS, GRID, MARK_COLOUR, panel_layout
from tightframe.report.profile import Profile

if TYPE_CHECKING:
    from tightframe.report.report import Report

_PANELS = {
    "NC1 by depth": ("nc1", True),
    "nearest-centre accuracy by depth": ("ncc_accuracy", False),
    "numerical rank by depth": ("numerical_rank", False),
    "ETF error by depth": ("etf_error", True),
    "CDNV by depth": ("cdnv", True),
    "angle of means to the next layer's weight (°)": ("principal_angle", False),
}
"""Panels: the measure and whether its axis is logarithmic; those that no layer has are left out."""

_EPOCHS = 5  # at most so many measurements in a panel


def depth_panels(report: Report) -> list[go.Figure]:
    """One figure per measure over the layers; none for a report of one layer."""
    if not report.layers:
        return []
    series = [Profile.of(each) for each in (*report.history, report) if len(each.layers) == len(report.layers)]
    last = len(series) - 1
    shown = [series[place] for place in sorted({round(last * step / (_EPOCHS - 1)) for step in range(_EPOCHS)})]
    figures = []
    for title, (key, logarithmic) in _PANELS.items():
        if not all(math.isnan(value) for value in shown[-1].values(key)):
            figures.append(_panel(title, key, logarithmic, shown))
    return figures


def _panel(title: str, key: str, logarithmic: bool, shown: list[Profile]) -> go.Figure:
    final = shown[-1]
    figure = go.Figure()
    shades = sample_colorscale([[0, "#bfdbfe"], [1, COLOURS[0]]], max(len(shown), 2))
    for profile, shade in zip(shown, shades[-len(shown) :], strict=True):
        epoch = profile.reports[-1].context.get("epoch")
        figure.add_trace(_line(final, profile.values(key), f"epoch {epoch}" if epoch is not None else "now", shade))
    held_out = final.values(f"test/{key}")
    if not all(math.isnan(value) for value in held_out):
        figure.add_trace(_line(final, held_out, "held out", COLOURS[1], dash="dash"))
    target = next((report[key].target for report in final.reports if key in report.values), None)
    if target is not None and (target > 0 or not logarithmic):
        figure.add_hline(y=target, line={"dash": "dot", "color": MARK_COLOUR, "width": 1})
    figure.update_xaxes(showgrid=False, ticks="outside", type="category")
    figure.update_yaxes(gridcolor=GRID)
    if logarithmic:
        figure.update_yaxes(type="log", minor={"showgrid": False}, nticks=6, exponentformat="power")
    figure.update_layout(**panel_layout(title))
    return figure


def _line(profile: Profile, values: list[float], label: str, colour: str, dash: str = "solid") -> go.Scatter:
    return go.Scatter(
        x=short_names(profile.names),
        y=values,
        name=label,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        customdata=profile.names,
        hovertemplate=f"%{{customdata}}<br>{label}: %{{y:.4g}}<extra></extra>",
    )


def short_names(names: list[str], longest: int = 24) -> list[str]:
    """Layer names that fit under an axis: the ends of long ones, numbered where that makes them equal."""
    short = [each if len(each) <= longest else "…" + each[-longest + 1 :] for each in names]
    short = [each.replace("input of ", "input of<br>") for each in short]
    return [f"{each} ({place})" if short.count(each) > 1 else each for place, each in enumerate(short, start=1)]
