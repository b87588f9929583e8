"""How numbers and facts are written, the same in the terminal and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightframe.report.entry import Entry
    from tightframe.report.report import Report


def number(value: float | None) -> str:
    """Four significant digits, or a dash where there is no value."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.3e}" if not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def caption(report: Report) -> str:
    """What was measured, in one line."""
    facts = report.context
    coverage = ", ".join(f"≥{k}: {v}" for k, v in facts.get("coverage", {}).items())
    parts = [
        f"epoch {facts['epoch']}" if "epoch" in facts else "",
        f"{facts['samples']:,} samples" if "samples" in facts else "",
        f"{facts['classes']} classes" + (f" (samples {coverage})" if coverage else "") if "classes" in facts else "",
        f"{facts['dimension']} dimensions" if "dimension" in facts else "",
        str(facts.get("layer", "")),
        f"{facts['mode']} mode" if "mode" in facts else "",
    ]
    return " · ".join(part for part in parts if part)


def name(entry: Entry) -> str:
    """The measure's name, with the samples it was taken on where these aren't the training samples."""
    return entry.label + (", held out" if entry.split == "test" else "")
