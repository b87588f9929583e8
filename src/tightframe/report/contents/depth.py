"""Collapse by depth: each measure over the layers, at several epochs."""

from __future__ import annotations

import math

from tightframe.metrics import equi_separation
from tightframe.report.findings import Findings
from tightframe.report.profile import Profile, depth_sentences
from tightframe.report.series import when
from tightframe.sections import Column, Curves, Role, Section, Series, Table

HEADING = "Collapse by depth"

_COLUMNS = {
    "nc1": "NC1",
    "vci": "VCI",
    "ncc_accuracy": "nearest-centre accuracy",
    "test/ncc_accuracy": "held out",
    "few_shot_accuracy": "m-shot accuracy",
    "few_shot_error": "m-shot error of pairs",
    "numerical_rank": "rank",
    "effective_rank": "effective rank",
    "rankme": "RankMe",
    "alpha_req": "α-ReQ",
    "principal_angle": "angle to weights °",
}
_FIGURES = {
    "NC1": ("nc1", True),
    "VCI": ("vci", False),
    "nearest-centre accuracy": ("ncc_accuracy", False),
    "m-shot accuracy among all classes": ("few_shot_accuracy", False),
    "m-shot error of pairs": ("few_shot_error", True),
    "numerical rank of Σ_T": ("numerical_rank", False),
    "effective rank of Σ_T": ("effective_rank", False),
    "ETF error": ("etf_error", True),
    "CDNV": ("cdnv", True),
    "angle of means to the next layer's weight (°)": ("principal_angle", False),
}
"""Title of each figure -> its measure and whether its axis is logarithmic. Figures without values are left out."""

_EARLIER = 4  # maximum number of earlier measurements drawn


def depth(report: Findings) -> Section | None:
    """One row and one point per layer; None for a report of one layer."""
    if not report.layers:
        return None
    profile = Profile.of(report)
    keys = [key for key in _COLUMNS if any(key in layer for layer in profile.reports)]
    columns = (Column("layer", "name"), Column("D", "count"), *(Column(_COLUMNS[key], "number") for key in keys))
    rows = tuple(
        (name, layer.facts.dimension, *(entry.value if (entry := layer.get(key)) else None for key in keys))
        for layer, name in zip(profile.reports, profile.names, strict=True)
    )
    hint = "Layers from input to output; the last is the classifier's input. In a collapsed network NC1 falls by layer."
    return Section("depth", HEADING, (hint, *depth_sentences(report)), Table(columns, rows), _figures(report))


def brief(report: Findings) -> str:
    """One line with the effective depth."""
    return " ".join(depth_sentences(report)[:1])


def _figures(report: Findings) -> tuple[Curves, ...]:
    series = [Profile.of(each) for each in report.series if len(each.layers) == len(report.layers)]
    last = len(series) - 1
    places = sorted({round(last * step / _EARLIER) for step in range(_EARLIER + 1)})
    shown = [series[place] for place in places]
    return tuple(
        _figure(title, key, log, shown)
        for title, (key, log) in _FIGURES.items()
        if not all(math.isnan(value) for value in shown[-1].values(key))
    )


def _figure(title: str, key: str, log: bool, shown: list[Profile]) -> Curves:
    final = shown[-1]
    curves = []
    for profile in reversed(shown):
        role: Role = "main" if profile is final else "reference"
        curves.append(_curve(when(profile.reports[-1]) or "now", profile.values(key), role))
    held_out = final.values(f"test/{key}")
    if not all(map(math.isnan, held_out)):
        curves.insert(1, _curve("held out", held_out, "held-out"))
    if key == "nc1" and (law := equi_separation(final.values(key))).worst is not None:
        curves.append(_curve("equi-separation", list(law.fitted), "reference"))
    entries = [entry for layer in final.reports if (entry := layer.get(key)) is not None]
    target = entries[-1].target if entries else None
    return Curves(title, "layer", tuple(curves), log_y=log, categories=tuple(final.names), target=target)


def _curve(name: str, values: list[float], role: Role) -> Series:
    return Series(name, tuple(map(float, range(len(values)))), tuple(values), role)
