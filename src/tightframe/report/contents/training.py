"""Collapse over training: one figure per phenomenon, with its other measures as variants."""

from __future__ import annotations

import math

from tightframe.report.cards import PHENOMENA, curves, entry_of, times_of, unit_of
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.report.series import plateau, training_error_gone
from tightframe.sections import Curves, Section, Series

HEADING = "Collapse over training"


def training(report: Findings) -> Section | None:
    """One figure per phenomenon; None without a history or without curves."""
    if not report.history:
        return None
    figures = [figure for each in PHENOMENA if (figure := _figure(report, each.label, each.log)) is not None]
    figures += [figure for figure in (_accuracies(report),) if figure is not None]
    if not figures:
        return None
    hint = "Each phenomenon over training. Collapse means that NC1, NC2, NC4 and NC5 fall and NC3 rises to 1."
    return Section("training", HEADING, (hint, *sentences(report)), figures=tuple(figures))


def sentences(report: Findings) -> list[str]:
    """Sentences on the terminal phase and plateaus; empty if epochs are unknown."""
    if not report.history or any(each.facts.epoch is None for each in report.series):
        return []
    begun, still = training_error_gone(report), plateau(report.series)
    lines = []
    if begun is not None:
        lines.append(f"The terminal phase began at epoch {begun:g}, the first measurement with zero training error.")
    if still is not None:
        lines.append(f"NC1 has stayed within a factor of 1.1 since epoch {still:g}.")
    return lines


def _figure(report: Findings, label: str, log: bool) -> Curves | None:
    main = entry_of(report, label)
    if main is None:
        return None
    series = list(curves(report, main.key))
    series[0] = Series(main.label, series[0].x, series[0].y)
    for entry in report:
        if entry.family == main.family and entry.split == main.split and entry.key != main.key and _like(entry, main):
            series.append(_variant(report, entry))
    return _drawn(
        report,
        f"{label}: {main.label.removeprefix(label).strip()}",
        series,
        log_y=log,
        target=main.best,
        shuffled=main.shuffled,
    )


def _like(entry: Entry, main: Entry) -> bool:
    """Whether a measure can share an axis with `main`: a headline measure with the same kind of target."""
    return entry.headline and (entry.target == 0) == (main.target == 0)


def _variant(report: Findings, entry: Entry) -> Series:
    return Series(entry.title, times_of(report), tuple(each.value(entry.key) for each in report.series), "variant")


def _accuracies(report: Findings) -> Curves | None:
    """Every accuracy: shares of correct decisions. The caller's own families are left out."""
    shares = [
        entry
        for entry in report
        if (entry.family == "accuracy" or entry.name == "ncc_accuracy") and entry.target == 1 and entry.headline
    ]
    if not shares:
        return None
    names = [entry.name for entry in shares]
    first = "classifier_accuracy" if "classifier_accuracy" in names else names[0]
    series = []
    for entry in shares:
        role = "variant" if entry.name != first else "held-out" if entry.split == "test" else "main"
        values = tuple(each.value(entry.key) for each in report.series)
        series.append(Series(entry.title, times_of(report), values, role))  # type: ignore[arg-type]
    return _drawn(report, "accuracy", series, log_y=False, target=1.0, shuffled=None)


def _drawn(
    report: Findings, title: str, series: list[Series], *, log_y: bool, target: float | None, shuffled: float | None
) -> Curves:
    unit = unit_of(report)
    begun = training_error_gone(report) if unit == "epoch" else None
    shown = [each for each in series if not all(map(math.isnan, each.y))]
    return Curves(
        title,
        unit,
        tuple(shown),
        log_x=unit == "epoch" and min(times_of(report)) > 0,
        log_y=log_y,
        target=target,
        shuffled=shuffled,
        marks=() if begun is None else ((begun, "terminal phase"),),
    )
