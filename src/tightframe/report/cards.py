"""The cards: each phenomenon in plain words, with the one measure that tells it best."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.sections import Card, Series


@dataclass(frozen=True)
class Phenomenon:
    """What a card is about.

    Attributes:
        label: as papers call it; statement: in plain words; crowded: the statement where K > D + 1.
        keys: measures of the report, the first that is there and defined is shown.
        log: whether its curve has a logarithmic axis.
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
    Phenomenon("NC4", "decides like the nearest mean", ("ncc_mismatch",)),
    Phenomenon("NC5", "foreign data are orthogonal", ("ood_orthogonality",)),
    Phenomenon("tags", "tag sets' means are sums", ("tagwise_average_error",)),
    Phenomenon("NRC1", "features span n directions", ("nrc1",)),
    Phenomenon("NRC2", "features lie in the weight's span", ("nrc2",)),
    Phenomenon("NRC3", "weight follows the targets", ("nrc3",)),
)
"""In the order of tables."""


def entry_of(report: Findings, label: str) -> Entry | None:
    """The entry that the card of a phenomenon shows; None where nothing tells it."""
    (phenomenon,) = (each for each in PHENOMENA if each.label == label)
    return _entry(report, phenomenon)


def _entry(report: Findings, phenomenon: Phenomenon) -> Entry | None:
    there = [entry for key in phenomenon.keys if (entry := report.get(key)) is not None]
    return next((entry for entry in there if not math.isnan(entry.value)), there[0] if there else None)


def cards(report: Findings) -> tuple[Card, ...]:
    """A card for each phenomenon that something was measured of."""
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
    """A measure over training, and on held-out data; none without a history."""
    if not report.history:
        return ()
    times = times_of(report)
    shown = [Series("training", times, tuple(each.value(key) for each in report.series))]
    held_out = tuple(each.value(f"test/{key}") for each in report.series)
    if not all(map(math.isnan, held_out)):
        shown.append(Series("held out", times, held_out, "held-out"))
    return tuple(shown)


def unit_of(report: Findings) -> str:
    """What the series is over: "session" or "epoch" where all of it say theirs, else "measurement"."""
    for unit in ("session", "epoch"):
        if all(getattr(each.facts, unit) is not None for each in report.series):
            return unit
    return "measurement"


def times_of(report: Findings) -> tuple[float, ...]:
    """Where each measurement of the series is in training, in `unit_of`; their numbers where that isn't known."""
    unit = unit_of(report)
    if unit == "measurement":
        return tuple(float(place + 1) for place in range(len(report.series)))
    return tuple(float(getattr(each.facts, unit)) for each in report.series)
