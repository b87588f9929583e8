"""`tightframe metrics` and `tightframe codes`: the tables of what can be measured and of exact codes."""

from __future__ import annotations

from tightframe.codes import CODES
from tightframe.codes.table import searched
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


def code_table() -> Document:
    """Every exact code with its size and its largest cosine."""
    counts = Column("vectors", "count"), Column("dimensions", "count")
    columns = (Column("name"), *counts, Column("cosine", "cosine"), Column("optimal"))
    rows = tuple(
        (name, each.K, each.D, float(each.cosine), "proven" if each.proof else "") for name, each in CODES.items()
    )
    found = f"`prototypes -k K -d D --rounds 0` also knows {len(searched())} codes found by long searches."
    section = Section("codes", "Codes", ("Names for --code.", found), Table(columns, rows))
    return Document("Exact codes", sections=(section,))
