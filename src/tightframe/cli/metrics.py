"""`tightframe metrics`: what can be measured, and the papers' conventions."""

from __future__ import annotations

from tightframe.metrics import CONVENTIONS, METRICS
from tightframe.sections import Column, Document, Section, Table


def metric_tables() -> Document:
    """Every metric and every convention with its name, what it is and its source."""
    columns = tuple(Column(heading) for heading in ("name", "quantity", "source"))
    metrics = Table(
        (columns[0], Column("family"), *columns[1:]),
        tuple((each.name, each.family, each.label, each.source) for each in METRICS.values()),
    )
    conventions = Table(columns, tuple((name, each.quantity, each.source) for name, each in CONVENTIONS.items()))
    return Document(
        "Metrics and conventions",
        sections=(
            Section("metrics", "Metrics", ("Names for --metric.",), metrics),
            Section("conventions", "Conventions", ("Names for --convention: a paper's variant.",), conventions),
        ),
    )
