"""What a series of measurements says: when the terminal phase began, and where a measure stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tightframe.errors import RangeError
from tightframe.report.findings import Findings


def terminal_phase(series: Sequence[Findings]) -> float | None:
    """The epoch of the first measurement with training error zero; None if there is none.

    Source: Papyan, Han & Donoho 2020, terminal phase of training.
    """
    return next((_epoch(report) for report in series if report.values.get("classifier_accuracy") == 1), None)


def plateau(
    series: Sequence[Findings], key: str = "nc1", *, factor: float = 1.1, measurements: int = 4
) -> float | None:
    """The epoch from which on a measure stays within a factor, over so many last measurements or more; None if it
    doesn't.

    Args:
        key: of an entry whose values are positive.
        factor: largest to smallest value of a plateau, at least 1.
        measurements: the fewest that make one, at least 1.

    Raises: RangeError for a factor or a number of measurements below 1.
    """
    for name, least in (("factor", factor), ("measurements", measurements)):
        if not least >= 1:
            raise RangeError(f"{name} must be at least 1; got {least}.")
    start, low, high = len(series), math.inf, 0.0
    for report in reversed(series):
        value = report.values.get(key, 0.0)
        low, high = min(low, value), max(high, value)
        if not (0 < value < math.inf and high <= factor * low):
            break
        start -= 1
    return _epoch(series[start]) if len(series) - start >= measurements else None


def when(report: Findings) -> str:
    """Where a measurement is in training, in words: its session, or else its epoch; "" where that isn't known."""
    facts = report.facts
    if facts.session is not None:
        return f"session {facts.session:g}"
    return "" if facts.epoch is None else f"epoch {facts.epoch:g}"


def training_error_gone(report: Findings) -> float | None:
    """The epoch of the first measurement without a training error, if the latest has none either; None otherwise, and
    where classes arrived in sessions."""
    if not report.history or report.facts.session is not None or report.value("classifier_accuracy") != 1:
        return None
    return terminal_phase(report.series)


def _epoch(report: Findings) -> float | None:
    return None if report.facts.epoch is None else float(report.facts.epoch)
