"""Resolution of the scatter: values computed from a very small part of it, below the precision of its products."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.errors import ResolutionWarning
from tightframe.metrics.span import means_rounding, spanning_rows
from tightframe.statistics import ClassStatistics

_POOR = 20  # values below 20 times their resolution get a warning: the error may be 5 %
_CERTAIN = 1000  # values below 1000 times their resolution are recomputed in float64 in the second pass
_ENTRIES = 16  # maximum error of a scatter's entries, in machine epsilons


def resolved(statistics: ClassStatistics, value: Tensor, size: Tensor, what: str, least: float = 0.0) -> Tensor:
    """A value computed from the scatter; NaN, with a warning, below the resolution of the scatter's products.

    Args:
        size: the value for the diagonal of the scatter; times `product_epsilon` it bounds the error of the products.
        least: resolution of the further computation.
    """
    if statistics.product_epsilon == 0:
        return value
    resolution = _ENTRIES * statistics.product_epsilon * size.detach() + least
    poor = value.detach() < _POOR * resolution
    if poor.any():
        largest = float(resolution[poor].max())
        warnings.warn(
            f"{what} is below {_POOR * largest:.1g}, near its resolution of {largest:.1g} (NaN below the resolution): "
            "the scatter in the span of the class means is a very small part of the whole scatter. measure() computes "
            "this part in float64 in its second pass; pass float64 features to an accumulator.",
            ResolutionWarning,
            stacklevel=4,
        )
    if value.requires_grad:
        return value  # in training, a value below the resolution serves as zero
    return torch.where(value < resolution, math.nan, value)


def is_resolved(statistics: ClassStatistics) -> bool:
    """Whether the pooled scatter in the span of the class means is far above the resolution of its products."""
    statistics = statistics.detach().populated()
    if statistics.product_epsilon == 0:
        return True
    inverse, rank = numerics.pinv(spanning_rows(statistics), means_rounding(statistics), statistics.num_classes - 1)
    within = statistics.require_within("the scatter in the span of the class means")
    size = within.diagonal() @ inverse.square().sum(1)
    resolution = _ENTRIES * statistics.product_epsilon * size
    return rank == 0 or bool(((within @ inverse) * inverse).sum() >= _CERTAIN * resolution)
