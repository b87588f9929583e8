"""The cards: each phenomenon in plain words, with the measure that shows it best."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.sections import Card, Series


@dataclass(frozen=True)
class Phenomenon:
    """A phenomenon that a card shows.

    Attributes:
        label: the papers' name; statement: in plain words; crowded: the statement if K > D + 1.
        keys: report keys; the card shows the first that was measured and is defined.
        log: whether the curve has a logarithmic axis.
    """

    label: str
    statement: str
    keys: tuple[str, ...]
    crowded: str = ""
    log: bool = True


PHENOMENA = (
    Phenomenon("NC1", "samples sit at their class mean", ("nc1", "trace_ratio", "cdnv")),
    Phenomenon(
        "NC2",
        "class means form a simplex ETF",
        ("etf_error",),
        "means are as far apart as fits",
    ),
    Phenomenon("NC3", "classifier rows = class means", ("nc3_cosine", "self_duality_error"), log=False),
    Phenomenon("NC4", "decides like the nearest centre", ("ncc_mismatch",)),
    Phenomenon("NC5", "OOD data are orthogonal", ("ood_orthogonality",)),
    Phenomenon("tags", "tag sets' means are sums", ("tagwise_average_error",)),
    Phenomenon("NRC1", "features span n directions", ("nrc1",)),
    Phenomenon("NRC2", "features lie in the weight's span", ("nrc2",)),
    Phenomenon("NRC3", "weight follows the targets", ("nrc3",)),
)
"""In the order of tables."""


def entry_of(report: Findings, label: str) -> Entry | None:
    """The entry that a phenomenon's card shows; None if none was measured."""
    (phenomenon,) = (each for each in PHENOMENA if each.label == label)
    return _entry(report, phenomenon)


def _entry(report: Findings, phenomenon: Phenomenon) -> Entry | None:
    entries = [entry for key in phenomenon.keys if (entry := report.get(key)) is not None]
    return next((entry for entry in entries if not math.isnan(entry.value)), entries[0] if entries else None)


def cards(report: Findings) -> tuple[Card, ...]:
    """One card for each phenomenon with a measured entry."""
    shown = []
    for phenomenon in PHENOMENA:
        if (entry := _entry(report, phenomenon)) is not None:
            shown.append(_card(report, phenomenon, entry))
    return tuple(shown)


def _card(report: Findings, phenomenon: Phenomenon, entry: Entry) -> Card:
    held_out = report.get(f"test/{entry.name}")
    crowded = phenomenon.crowded and entry.floor is not None
    return Card(
        phenomenon.label,
        phenomenon.crowded if crowded else phenomenon.statement,
        entry.key,
        entry.value,
        entry.standard_error,
        entry.best,
        entry.shuffled,
        entry.closeness,
        entry.remark,
        None if held_out is None else held_out.value,
        curves(report, entry.key),
        phenomenon.log,
    )


def curves(report: Findings, key: str) -> tuple[Series, ...]:
    """Curves of a measure over training, also on held-out data; empty without a history."""
    if not report.history:
        return ()
    times = times_of(report)
    shown = [Series("training", times, tuple(each.value(key) for each in report.series))]
    held_out = tuple(each.value(f"test/{key}") for each in report.series)
    if not all(map(math.isnan, held_out)):
        shown.append(Series("held out", times, held_out, "held-out"))
    return tuple(shown)


def unit_of(report: Findings) -> str:
    """Unit of the series: "session" or "epoch" if every report has one, else "measurement"."""
    for unit in ("session", "epoch"):
        if all(getattr(each.facts, unit) is not None for each in report.series):
            return unit
    return "measurement"


def times_of(report: Findings) -> tuple[float, ...]:
    """The time of each measurement of the series, in `unit_of`; its position from 1 if unknown."""
    unit = unit_of(report)
    if unit == "measurement":
        return tuple(float(place + 1) for place in range(len(report.series)))
    return tuple(float(getattr(each.facts, unit)) for each in report.series)
