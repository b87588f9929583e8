"""Out-of-distribution detection: one row per detector, and NECO by number of components."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tightframe.ood import DetectionTable
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.sections import Column, Curves, Section, Series, Table

HEADING = "Out-of-distribution detection"

_SURE = 1.96  # standard errors in half a 95 % interval
_MEASURES = {"auroc": "AUROC of NECO (%)", "fpr95": "FPR95 of NECO (%)"}


def detection_entries(table: DetectionTable) -> list[Entry]:
    """The AUROC of each detector."""
    return [
        Entry(
            *(f"{row.name}_auroc", "ood", f"AUROC, {row.label}", "OOD", row.auroc, 1.0, None, 0.5, row.auroc_error),
            *(_convention(row.convention, row.settings), row.source),
            headline=False,  # the table of detectors shows it
        )
        for row in table.rows
    ]


def detection(report: Findings) -> Section | None:
    """One row per detector; None if no detector was evaluated."""
    table = report.detection
    if table is None:
        return None
    columns = (
        Column("detector", "name"),
        Column("AUROC %", "percent"),
        Column("± s.e.", "percent"),
        Column("FPR95 %", "percent"),
        Column("± s.e.", "percent"),
        Column("settings", "source"),
        Column("source", "source"),
    )
    rows = tuple(
        (
            *(row.label, row.auroc, row.auroc_error, row.fpr95, row.fpr95_error),
            *(_convention(row.convention, row.settings), row.source),
        )
        for row in table.rows
    )
    figures = () if table.curve is None else tuple(_figure(table, measure) for measure in _MEASURES)
    return Section("detection", HEADING, tuple(_sentences(table)), Table(columns, rows), figures)


def brief(report: Findings) -> str:
    """One line with the highest AUROC and the number of detectors within its error."""
    rows = [] if report.detection is None else [row for row in report.detection.rows if not math.isnan(row.auroc)]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row.auroc)
    if math.isnan(best.auroc_error):
        return f"Highest AUROC {100 * best.auroc:.2f} % ({best.label})."
    near = sum(row.auroc >= best.auroc - best.auroc_error for row in rows) - 1
    others = f"; {near} of {len(rows) - 1} others are within this error" if near else ""
    return f"Highest AUROC {100 * best.auroc:.2f} ± {100 * best.auroc_error:.2f} % ({best.label}){others}."


def _sentences(table: DetectionTable) -> list[str]:
    sentences = [
        f"Detectors separate {table.inside:,} held-out from {table.outside:,} out-of-distribution (OOD) samples. AUROC "
        "is the share of pairs in the right order; 100 % is best. FPR95 is the share of OOD samples above the "
        "threshold that 95 % of held-out samples pass; 0 % is best. Errors: DeLong, exact bootstrap."
    ]
    curve = table.curve
    if curve is not None and any(value == value for value in curve.auroc):
        sentences.append(
            f"NECO uses {curve.default} components, fixed in advance. On these samples {curve.best} would be best, but "
            "that choice is optimistic: choose the number on different samples."
        )
    return [*sentences, *(f"{note.rstrip('.')}." for note in table.notes)]


def _figure(table: DetectionTable, measure: str) -> Curves:
    curve = table.curve
    assert curve is not None
    components = tuple(map(float, curve.components))
    values = tuple(100 * value for value in getattr(curve, measure))
    errors = tuple(100 * _SURE * error for error in getattr(curve, f"{measure}_error"))
    series = [Series("NECO, 95 % interval", components, values, error=errors)]
    for row in table.rows:
        if "max_logit" not in row.settings:  # NECO itself
            height = 100 * getattr(row, measure)
            ends = (components[0], components[-1])
            series.append(Series(row.label, ends, (height, height), "reference"))
    best = 100.0 if measure == "auroc" else 0.0
    marks = ((float(curve.default), f"p = {curve.default}"),)
    return Curves(_MEASURES[measure], "components p", tuple(series), log_x=True, target=best, marks=marks)


def _convention(convention: str, settings: Mapping[str, Any]) -> str:
    """The convention with the numbers used, not the rule that set them."""
    if "components" in settings:
        name = convention.partition(", p = ")[0]
        return f"{name}, p = {settings['components']} of {settings['rank']}"
    return convention if "rank" not in settings else f"{convention}, rank {settings['rank']}"
