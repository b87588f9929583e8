"""Lower bounds on losses."""

from __future__ import annotations

import math

from tightframe.checks import require_positive
from tightframe.errors import RangeError


def cross_entropy_floor(num_classes: int, scale: float) -> float:
    """ln(1 + (K - 1) e^(-s K / (K - 1))): minimum of the mean cross-entropy of logits s <z, p_k> for unit vectors.

    For balanced classes; attained if embeddings equal their prototypes and these form a simplex ETF. With simplex
    prototypes it holds for any class counts.

    Range: (0, ln K), in nats.
    Raises: RangeError unless K >= 2 and the scale is finite and > 0.
    Source: Lu & Steinerberger 2020 (Neural collapse with cross-entropy loss).

    >>> from tightframe.theory import cross_entropy_floor
    >>> round(cross_entropy_floor(10, 1.0), 6)  # ln(1 + 9 exp(-10/9))
    1.376935
    """
    if num_classes < 2:
        raise RangeError(f"cross-entropy needs at least two classes; got {num_classes}.")
    require_positive(scale, "the scale")
    return math.log1p((num_classes - 1) * math.exp(-scale * num_classes / (num_classes - 1)))
