"""Axes: the range of values, a few ticks, and a position for zeros on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tightframe.sections import number, signed

LARGEST, SMALLEST = 1e200, 1e-200
"""Values of larger magnitude are not drawn; smaller ones are drawn as `SMALLEST` on a logarithmic axis."""

_LANE = 0.11  # share of a logarithmic axis reserved for zeros
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis.

    Attributes:
        low, high: ends of the axis.
        ticks: pairs (value, label).
        zero: value at which zeros are drawn on a logarithmic axis; None without zeros.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]
    zero: float | None = None

    def drawn(self, value: float) -> float:
        """The value at which another is drawn; NaN if it can't be drawn."""
        if not abs(value) <= LARGEST:
            return math.nan
        if not self.log or value == self.zero:
            return value
        if value <= 0:
            return math.nan if value < 0 or self.zero is None else self.zero
        return max(value, SMALLEST)

    def share(self, value: float) -> float:
        """Position of a value along the axis, from 0 to 1; NaN if it can't be drawn."""
        value = self.drawn(value)
        if self.log and value > 0:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def axis(values: Iterable[float], *, log: bool = False, ticks: int = 5, whole: bool = False) -> Axis:
    """The axis that shows all values that can be drawn.

    Args:
        ticks: approximate number of ticks.
        whole: whether a linear axis has ticks at whole numbers only, as for epochs.
    """
    values = [float(value) for value in values if abs(value) <= LARGEST]
    if not log:
        return _linear(min(values, default=0.0), max(values, default=1.0), ticks, whole)
    positive = [max(value, SMALLEST) for value in values if value > 0]
    return _logarithmic(min(positive, default=0.1), max(positive, default=1.0), ticks, zeros=0.0 in values)


def category_axis(number: int) -> Axis:
    """The axis of `number` categories; without ticks, since the caller fits the names to its length."""
    return Axis(-0.5, max(number, 1) - 0.5, False, ())


def _linear(low: float, high: float, ticks: int, whole: bool) -> Axis:
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        around = 0.1 * abs(high) or 1.0
        low, high = low - around, high + around
    margin = 0.05 * (high - low)
    wanted = (high - low) / ticks
    size = 10.0 ** math.floor(math.log10(wanted))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= wanted * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    low, high = low - margin, high + margin
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    return Axis(low, high, False, tuple((place * step, _plain(place * step, step)) for place in places))


def _logarithmic(low: float, high: float, ticks: int, *, zeros: bool) -> Axis:
    if high / low < 100:
        low, high = _round(low, down=True), _round(high, down=False)
        if low == high:
            low, high = _round(low / 1.5, down=True), _round(high * 1.5, down=False)
        steps = [size * 10.0**power for power in range(_power(low) - 1, _power(high) + 2) for size in (1, 2, 5)]
        marks = [(step, _short(step)) for step in steps if low * (1 - 1e-9) <= step <= high * (1 + 1e-9)]
        low, high = low / (high / low) ** 0.04, high * (high / low) ** 0.04
    else:
        below, above = math.log10(low), math.log10(high)
        margin = 0.04 * (above - below)
        low, high = 10.0 ** (below - margin), 10.0 ** (above + margin)
        powers = range(math.ceil(below - margin - 1e-9), math.floor(above + margin + 1e-9) + 1)
        stride = math.ceil(len(powers) / ticks)
        marks = [(10.0**power, _decade(power)) for power in powers if power % stride == 0]
    if not zeros:
        return Axis(low, high, True, tuple(marks))
    zero = 10.0 ** (math.log10(low) - (math.log10(high) - math.log10(low)) * _LANE / (1 - _LANE))
    return Axis(zero, high, True, ((zero, "0"), *marks), zero)


def _power(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)


def _round(value: float, *, down: bool) -> float:
    """The nearest of 1, 2, 5, 10, 20, ... below or above a value, or the value itself."""
    steps = [
        size * 10.0**power for power in (_power(value) - 1, _power(value), _power(value) + 1) for size in (1, 2, 5)
    ]
    if down:
        return max(step for step in steps if step <= value * (1 + 1e-9))
    return min(step for step in steps if step >= value * (1 - 1e-9))


def _decade(power: int) -> str:
    return "10" + str(power).translate(_SUPERSCRIPTS)


def _short(value: float) -> str:
    """A number in few digits, with a power of ten if it is very small or large."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return signed(f"{value:.10g}")
    power = math.floor(math.log10(abs(value)) + 1e-9)
    digits = f"{value / 10.0**power:.4g}"
    return _decade(power) if digits == "1" else signed(f"{digits}·{_decade(power)}")


def _plain(value: float, step: float) -> str:
    """A tick's label with as many decimals as the step."""
    if value == 0:
        return "0"
    if step >= 1e4 or step < 1e-4:
        return _short(value)
    return signed(f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}")


def reading(value: float) -> str:
    """A value as shown in a figure: four significant digits."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return number(value)
