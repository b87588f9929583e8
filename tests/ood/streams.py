"""Features of a few classes, streamed and stored, and scores by loops."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe import ClassStatistics, StatisticsAccumulator

K, D = 5, 12


def features(count: int, seed: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Gaussian classes with a common, skewed covariance, away from the origin, entries of different scales."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    means = 2 * torch.randn(K, D, generator=fixed, dtype=torch.float64) + 1
    mix = torch.randn(D, D, generator=fixed, dtype=torch.float64) / D**0.5
    scales = 10 ** torch.linspace(-1, 1, D, dtype=torch.float64)
    labels = torch.randint(0, K, (count,), generator=generator)
    rows = (means[labels] + torch.randn(count, D, generator=generator, dtype=torch.float64) @ mix) * scales
    return rows.to(dtype), labels


def streamed(rows: Tensor, labels: Tensor, num_classes: int = K) -> ClassStatistics:
    """Statistics of one pass over batches."""
    accumulator = StatisticsAccumulator(num_classes, rows.shape[1])
    for some, of in zip(rows.split(37), labels.split(37), strict=True):
        accumulator.update(some, of)
    return accumulator.compute()
