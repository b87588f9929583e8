"""What a series of measurements says: when the terminal phase began, and where a measure stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightframe.report.report import Report


def terminal_phase(series: Sequence[Report]) -> float | None:
    """The epoch of the first measurement with training error zero; None if there is none.

    Source: Papyan, Han & Donoho 2020, terminal phase of training.
    """
    return next((_epoch(report) for report in series if report.values.get("classifier_accuracy") == 1), None)


def plateau(series: Sequence[Report], key: str = "nc1", *, factor: float = 1.1, measurements: int = 4) -> float | None:
    """The epoch from which on a measure stays within a factor, over so many last measurements or more; None if it
    doesn't.

    Args:
        key: of an entry whose values are positive.
        factor: largest to smallest value of a plateau.
        measurements: the fewest that make one.
    """
    values = [report.values.get(key, 0.0) for report in series]
    start = len(values)
    while start > 0 and min(values[start - 1 :]) > 0 and max(values[start - 1 :]) <= factor * min(values[start - 1 :]):
        start -= 1
    return _epoch(series[start]) if len(values) - start >= measurements else None


def course(report: Report) -> list[str]:
    """What the series that a report ends says, in sentences; none for a report without a history."""
    series = [*report.history, report]
    if not report.history or any(_epoch(each) is None for each in series):
        return []
    begun, still = terminal_phase(series), plateau(series)
    found = []
    if begun is not None:
        found.append(f"Terminal phase from epoch {begun:g} on, the first measurement without a training error.")
    if still is not None:
        found.append(f"NC1 has stayed within a factor of 1.1 since epoch {still:g}.")
    return found


def _epoch(report: Report) -> float | None:
    epoch = report.context.get("epoch")
    return None if epoch is None else float(epoch)
