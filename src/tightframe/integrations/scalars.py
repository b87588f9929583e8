"""Names of values in logs."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from tightframe.report import Report

EPOCH = "tightframe/epoch"


def scalars(values: Mapping[str, float]) -> dict[str, float]:
    """The values by log name, such as "tightframe/nc1"; undefined and infinite values are left out."""
    return {f"tightframe/{key}": value for key, value in values.items() if isfinite(value)}


def headline(report: Report) -> dict[str, float]:
    """The headline values of a report by name, as `scalars`."""
    return scalars({entry.key: entry.value for entry in report.entries if entry.headline})
