"""Closeness: how many times nearer a value is to the best possible value than with shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tightframe.metrics.levels import Level
from tightframe.metrics.metric import Metric, Setting
from tightframe.metrics.metric import plain as unscaled
from tightframe.sections import times


@dataclass(frozen=True)
class Closeness:
    """How many times nearer a value is to the best possible value than with shuffled labels.

    Attributes:
        times: |shuffled - best| / |value - best| on the metric's scale; infinite at the best value, None if undefined.
        remark: in words: "650× nearer", "at target", "no better than shuffled labels", or the reason for None.
    """

    times: float | None
    remark: str


def closeness(metric: Metric[Any], value: float, level: Level | None, setting: Setting) -> Closeness:
    """Compare a value with the best possible value and with the metric's level, |level - best| / |value - best|.

    >>> import torch
    >>> from tightframe import metrics
    >>> level = metrics.Level(0.9, 0.05)
    >>> setting = metrics.Setting(torch.tensor([100, 100, 100]), 8, 3)  # counts, dimension, classes
    >>> metrics.closeness(metrics.trace_share, 0.009, level, setting).remark  # 0.9 / 0.009
    '100× nearer'
    """
    best = metric.best_in(setting)
    if best is None or level is None or math.isnan(value):
        return Closeness(None, "")
    scaled, ideal = metric.scaled(value, setting), metric.scaled(best, setting)
    draws = level.draws or (level.value - level.spread, level.value, level.value + level.spread)
    drawn = [metric.scaled(each, setting) for each in draws]
    on_scale = Level.of(drawn, level.kind)
    if on_scale is None:
        return Closeness(None, "")
    chance, gap = on_scale.value, abs(on_scale.value - ideal)
    noise = max(2 * on_scale.spread, 1e-9 * max(abs(chance), abs(ideal), 1e-6))
    whose = "shuffled labels" if level.kind != "random" else "random directions"
    off, beyond = abs(scaled - ideal), (scaled - chance) * (ideal - chance) <= 0
    if gap <= noise and not (beyond and abs(scaled - chance) > noise):
        return Closeness(None, f"{whose} do as well")
    if off <= 1e-12 * gap:
        return Closeness(math.inf, "at floor" if setting.crowded and metric.floor is not None else "at target")
    if beyond or _alike(metric, scaled, drawn, on_scale, noise):
        return Closeness(gap / off, f"no better than {whose}")
    return Closeness(gap / off, f"{times(gap / off)} nearer")


def _alike(metric: Metric[Any], value: float, drawn: Sequence[float], level: Level, noise: float) -> bool:
    """Whether a value is within two spreads of the draws.

    Shares are compared by their log-odds, the logarithms of the ratios: near 1 their differences are uninformative."""
    inner = [each for each in drawn if 0 < each < 1]
    if metric.scale is unscaled or not 0 < value < 1 or not inner:
        return abs(value - level.value) <= noise
    odds = Level.of([math.log(each / (1 - each)) for each in inner], level.kind)
    return odds is not None and abs(math.log(value / (1 - value)) - odds.value) <= 2 * odds.spread
