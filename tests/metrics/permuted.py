"""True permutations of the labels: the slow, obvious second implementation of the level with shuffled labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tightframe.decisions import DecisionCounts
from tightframe.metrics import METRICS, Evidence, available, evaluate, levels
from tightframe.metrics.levels import Level
from tightframe.statistics import ClassStatistics

OUTSIDE = 40
"""Out-of-distribution samples."""


def isotropic(samples: int, dim: int, generator: torch.Generator) -> Tensor:
    """Gaussian features about a mean that isn't the origin."""
    return torch.randn(samples, dim, dtype=torch.float64, generator=generator) + 0.5


def power_law(samples: int, dim: int, generator: torch.Generator) -> Tensor:
    """Gaussian features whose variances fall like 1 / index, along random directions."""
    scales = torch.arange(1, dim + 1, dtype=torch.float64) ** -0.5
    turn = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))[0]
    return (torch.randn(samples, dim, dtype=torch.float64, generator=generator) * scales) @ turn


def rectified(samples: int, dim: int, generator: torch.Generator) -> Tensor:
    """The positive parts of such features."""
    return power_law(samples, dim, generator).clamp(min=0)


def zipf(samples: int, classes: int) -> list[int]:
    """Counts that fall like 1 / rank; the rarest classes have a single sample."""
    total = sum(1 / rank for rank in range(1, classes + 1))
    counts = [max(1, int(samples / total / rank)) for rank in range(1, classes + 1)]
    return [counts[0] + samples - sum(counts), *counts[1:]]


@dataclass(frozen=True)
class Data:
    """Features, class sizes and a classifier that has nothing to do with them.

    Attributes:
        features: makes (N, D) of them.
        counts: (K,) samples of each class.
        scattered: whether the scatter of each class is kept.
    """

    features: Callable[[int, int, torch.Generator], Tensor]
    counts: Sequence[int]
    dim: int
    scattered: bool = True

    def drawn(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (N, D), labels (N,), weight (K, D) and bias (K,) of a classifier."""
        generator = torch.Generator().manual_seed(seed)
        features = self.features(sum(self.counts), self.dim, generator)
        labels = torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))
        scale = features.std(0)  # a trained classifier reads the wide directions, too
        weight = torch.randn(len(self.counts), self.dim, dtype=torch.float64, generator=generator) * scale
        return features, labels, weight, torch.randn(len(self.counts), dtype=torch.float64, generator=generator) / 10

    def evidence(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Evidence:
        """All that metrics may read, of these labels."""
        statistics = ClassStatistics.from_features(features, labels, len(self.counts), per_class=self.scattered)
        decisions = DecisionCounts(statistics, weight, bias)
        decisions.update(features, labels)
        beyond = ClassStatistics.from_features(outside, torch.zeros(len(outside), dtype=torch.int64), 1)
        return Evidence(statistics, weight, bias, decisions, beyond)


@dataclass(frozen=True)
class Comparison:
    """Levels by permutation and by drawing, of one metric."""

    permuted: Level
    drawn: Level | None
    error: float

    @classmethod
    def of(cls, values: list[float], drawn: Level | None, draws: int) -> Comparison:
        """The error of a median is told by the values next to it: those of a ratio may have two peaks about a gap."""
        permuted = Level.of(values, "shuffled") or Level(math.nan, math.nan)
        order, number = torch.tensor(values, dtype=torch.float64).sort().values, len(values)
        step = math.sqrt(number) / 2
        low, high = max(math.floor(number / 2 - step), 0), min(math.ceil(number / 2 + step), number - 1)
        error = max(float(order[high] - order[low]) / 2, permuted.spread * math.sqrt(math.pi / 2 / number))
        if 1 < len(distinct := order.unique()) < number / 4:  # shares of few samples: the median is one of few values
            error = max(error, float(distinct.diff().amin()) / 2)
        return cls(permuted, drawn, error * math.sqrt(1 + number / draws))

    @property
    def deviations(self) -> float:
        """Difference of the medians in standard errors of it."""
        assert self.drawn is not None
        gap = self.drawn.value - self.permuted.value
        return 0.0 if gap == 0 else gap / self.error if self.error else math.copysign(math.inf, gap)

    @property
    def agrees(self) -> bool:
        """Within 5 % or three standard errors; where there is no number, neither way has one."""
        if self.drawn is None:
            return math.isnan(self.permuted.value)
        near = math.isclose(self.drawn.value, self.permuted.value, rel_tol=0.05, abs_tol=1e-12)
        return near or abs(self.deviations) <= 3


def compared(data: Data, permutations: int, draws: int, seed: int = 0) -> dict[str, Comparison]:
    """For every metric whose level is one with shuffled labels, both ways."""
    features, labels, weight, bias = data.drawn(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    values: dict[str, list[float]] = {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        first = None
        for _ in range(permutations):
            order = torch.randperm(len(labels), generator=generator)
            outside = features[torch.randint(len(features), (OUTSIDE,), generator=generator)]
            evidence = data.evidence(features, labels[order], weight, bias, outside)
            first = first or evidence
            wanted = [m for m in available(evidence) if m.labelled and {"statistics", "decisions"} & {*m.reads}]
            for name, value in evaluate(evidence, wanted).items():
                values.setdefault(name, []).append(float(value))
        assert first is not None
        drawn = levels(first, list(values), draws=draws)
    return {
        name: Comparison.of(each, drawn.get(name), min(draws, 16) if METRICS[name].most_classes else draws)
        for name, each in values.items()
    }


def only_means(evidence: Evidence) -> Evidence:
    """The same where no scatter was kept."""
    assert evidence.statistics is not None
    return replace(evidence, statistics=replace(evidence.statistics, within=None, class_within=None))


SHAPES = {
    "balanced": Data(rectified, [20] * 5, 12),
    "single samples": Data(power_law, [1, 30, 2, 1, 9], 6),
    "fewer samples than dimensions": Data(rectified, [3, 2, 4], 16),
    "more classes than dimensions": Data(rectified, [4] * 12, 3),
    "one sample a class": Data(isotropic, [1] * 6, 9),
    "many classes, few dimensions left": Data(power_law, [2] * 9, 12),
    "fewer degrees than dimensions": Data(power_law, [2] * 9, 16),
}
"""Small data in which some degrees of freedom are missing."""


def statistics_of(data: Data, **options: Any) -> ClassStatistics:
    features, labels, *_ = data.drawn()
    return ClassStatistics.from_features(features, labels, len(data.counts), **options)
