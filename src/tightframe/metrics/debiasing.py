"""Sampling errors of class means, which measures with `debiased` subtract."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.errors import GeometryWarning
from tightframe.statistics import ClassStatistics


def mean_errors(statistics: ClassStatistics) -> Tensor:
    """(K,) expected squared error of each class mean, s^2 / n with s^2 = spread / (n - 1); NaN for one sample.

    Zero about given centres (`ClassStatistics.about`), whose error is unknown.
    """
    if statistics.recentred:
        return torch.zeros_like(statistics.spread)
    counts = statistics.counts
    several = counts > 1
    return torch.where(several, statistics.spread / torch.where(several, counts * (counts - 1), 1), math.nan)


def warn_of_single_samples(statistics: ClassStatistics) -> None:
    """Warn about classes with one sample: they have no variance, so debiased measures leave them out."""
    single = statistics.class_ids[statistics.counts == 1]
    if len(single) and not statistics.recentred:
        warnings.warn(
            f"debiased measures leave out {len(single)} of {statistics.num_classes} classes, because a single sample "
            f"has no variance: {listed(single.tolist())}.",
            GeometryWarning,
            stacklevel=4,
        )
