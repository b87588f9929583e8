"""NCI: the feature's direction compared with the row of the predicted class, plus its length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from tightframe.checks import Array
from tightframe.errors import RangeError
from tightframe.numerics import norms
from tightframe.ood.detector import in_blocks
from tightframe.ood.logits import Logits
from tightframe.statistics import ClassStatistics

ALPHA = 1e-4
"""Weight of the feature's length in OpenOOD's NCI."""


@dataclass(frozen=True, eq=False)
class Nci:
    """<w_c, (x - mean) / |x - mean|> + alpha |x|_1, with c the predicted class and the mean of all training samples.

    The row w_c is not normalised. The second term filters features of small length; its weight alpha has the unit of
    the rows over the features, was selected on validation data in the paper, and is 1e-4 by default, as in OpenOOD. It
    is not tuned here.

    Attributes:
        mean: (D,), mean of all training samples.
        logits: the classifier.
        alpha: weight of the L1 length.

    Range of scores: (-inf, inf), in the unit of the rows; NaN for a feature equal to the mean.
    Invariant to a common scale of features only for alpha = 0.
    Source: Liu & Qin 2025, as in OpenOOD.

    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Nci
    >>> import torch
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]), 2)
    >>> weight = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    >>> Nci.fit(statistics, weight, alpha=0.5).scores(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([3.5000, 0.5000], dtype=torch.float64)
    """

    mean: Tensor
    logits: Logits
    alpha: float

    @classmethod
    def fit(
        cls, statistics: ClassStatistics, weight: Array | None, bias: Array | None = None, *, alpha: float = ALPHA
    ) -> Self:
        """Fit to the mean of the training features and to the classifier's weight (K, D) and bias (K,) or None.

        Raises: ClassifierError without a fitting classifier; RangeError for a negative alpha; EmptyClassError if fewer
        than two classes have samples.
        """
        return cls.on(statistics, Logits.of(weight, bias), alpha)

    @classmethod
    def on(cls, statistics: ClassStatistics, logits: Logits, alpha: float = ALPHA) -> Self:
        """Fit to a classifier that several detectors share. Raises: as `fit`."""
        if not 0 <= alpha < math.inf:
            raise RangeError(f"alpha must be in [0, inf); got {alpha}.")
        mean = statistics.detach().populated().global_mean("sample")
        logits.require_features(len(mean))
        return cls(mean.to(logits.weight), logits, float(alpha))

    @property
    def settings(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""

        def score(rows: Tensor) -> Tensor:
            row = self.logits.weight[self.logits(rows).argmax(1)]
            centred = rows - self.mean
            return (row * centred).sum(1) / norms(centred) + self.alpha * rows.abs().sum(1)

        return in_blocks(score, features, self.mean, len(self.logits.weight) + len(self.mean))
