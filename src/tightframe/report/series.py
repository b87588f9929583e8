"""A series of measurements: start of the terminal phase, and plateaus of a measure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tightframe.errors import RangeError
from tightframe.report.findings import Findings


def terminal_phase(series: Sequence[Findings]) -> float | None:
    """The epoch of the first measurement with training error zero; None if there is none.

    Source: Papyan, Han & Donoho 2020, terminal phase of training.

    >>> from tightframe.report import Entry, Facts, Report, terminal_phase
    >>> def report(epoch: int, accuracy: float) -> Report:
    ...     entry = Entry("classifier_accuracy", "train", "", "accuracy", accuracy, 1.0, None, None, None, "", "", True)
    ...     return Report((entry,), Facts(epoch=epoch))
    >>> terminal_phase([report(1, 0.9), report(2, 1.0), report(3, 1.0)])
    2.0
    """
    return next((_epoch(report) for report in series if report.values.get("classifier_accuracy") == 1), None)


def plateau(
    series: Sequence[Findings], key: str = "nc1", *, factor: float = 1.1, measurements: int = 4
) -> float | None:
    """The first epoch of a final plateau, in which a measure stays within a factor; None if there is no plateau.

    Args:
        key: key of an entry with positive values.
        factor: largest ratio of two values of a plateau, at least 1.
        measurements: minimum number of measurements in a plateau, at least 1.

    Raises: RangeError for a factor or a number of measurements below 1.

    >>> from tightframe.report import Entry, Facts, Report, plateau
    >>> def report(epoch: int, nc1: float) -> Report:
    ...     entry = Entry("nc1", "train", "", "NC1", nc1, 0.0, None, None, None, "", "", True)
    ...     return Report((entry,), Facts(epoch=epoch))
    >>> plateau([report(1, 0.5), report(2, 0.02), report(3, 0.021)], measurements=2)
    2.0
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
    """The time of a measurement in words: its session, else its epoch; "" if unknown."""
    facts = report.facts
    if facts.session is not None:
        return f"session {facts.session:g}"
    return "" if facts.epoch is None else f"epoch {facts.epoch:g}"


def training_error_gone(report: Findings) -> float | None:
    """The epoch of the first measurement with zero training error, if the latest has zero too; None otherwise, and if
    classes arrived in sessions."""
    if not report.history or report.facts.session is not None or report.value("classifier_accuracy") != 1:
        return None
    return terminal_phase(report.series)


def _epoch(report: Findings) -> float | None:
    return None if report.facts.epoch is None else float(report.facts.epoch)
