"""`Evidence`: the data that a measurement collected, which metrics read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.decisions import DecisionCounts
from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import ShapeError
from tightframe.statistics import ClassStatistics, FoldedStatistics

Decisions = DecisionCounts | DecisionTotals


def totals_of(decisions: Decisions) -> DecisionTotals:
    """The decisions as `DecisionTotals`."""
    return decisions.totals if isinstance(decisions, DecisionCounts) else decisions


@dataclass(frozen=True)
class Evidence:
    """The data that a measurement collected; an attribute is None if it was not collected.

    Attributes:
        statistics: moments of the training features.
        weight, bias: the linear classifier on these features, (K, D) and (K,).
        decisions: the decisions of the classifier and of the nearest class centre.
        outside: statistics, or the mean (D,), of out-of-distribution features.
        consumer: weight (M, D) of the layer that reads the features, if it is not the classifier.
        projected: moments of the features in an orthonormal basis of the span of the centred class means, with the
            spread of the full features. NC1 reads it if `statistics` has no scatter or does not resolve it.
        folds: `statistics` per fold of the samples, for standard errors.
        outside_folds: `outside` per fold of the samples, for standard errors.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)
    >>> evidence = metrics.Evidence(statistics, weight=torch.tensor([[-1.0], [1.0]]))
    >>> round(metrics.nc3_cosine.of(evidence).item(), 6)  # reads statistics and weight
    1.0
    """

    statistics: ClassStatistics | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    decisions: Decisions | None = None
    outside: ClassStatistics | Tensor | None = None
    consumer: Tensor | None = None
    projected: ClassStatistics | None = None
    folds: FoldedStatistics | None = None
    outside_folds: FoldedStatistics | None = None

    def __post_init__(self) -> None:
        for name in ("weight", "bias", "outside", "consumer"):
            if isinstance(array := getattr(self, name), np.ndarray):
                object.__setattr__(self, name, as_tensor(array, name))

    @property
    def spanning(self) -> ClassStatistics | None:
        """Moments with the scatter in the span of the centred class means: `projected`, else `statistics`."""
        return self.statistics if self.projected is None else self.projected

    @cached_property
    def classifier(self) -> Tensor | None:
        """(K present, D) the classifier's rows for the classes with samples."""
        if self.weight is None or self.statistics is None:
            return None
        return classifier_rows(self.statistics, self.weight)

    @cached_property
    def counts(self) -> Tensor | None:
        """(K present,) number of samples per class, for the classes with samples."""
        return None if self.statistics is None else self.statistics.counts[self.statistics.present]

    @cached_property
    def reader(self) -> Tensor | None:
        """(M, D) `consumer`, else (K present - 1, D) orthonormal contrasts of the classifier's rows of classes with
        samples.

        They have the singular values and right singular vectors of the centred rows. Rows are centred like the class
        means; softmax does not depend on the mean row, which would only displace a singular vector.
        """
        if self.consumer is not None or self.classifier is None:
            return self.consumer
        return numerics.contrasts(self.classifier - self.classifier.mean(0))


def require_classifier(classifier: Tensor) -> Tensor:
    """The classifier's rows, (K, D), in float64. Raises: ShapeError for fewer than two rows."""
    if classifier.ndim != 2 or len(classifier) < 2:
        raise ShapeError(f"the classifier must be (K, D) with K >= 2 rows; got {tuple(classifier.shape)}.")
    return classifier if classifier.dtype is torch.float64 else classifier.to(torch.float64)


def _in_order(labels: Tensor) -> bool:
    return bool((labels == torch.arange(len(labels), device=labels.device)).all())


def classifier_rows(statistics: ClassStatistics, weight: Array) -> Tensor:
    """The classifier's rows for the classes with samples, (K present, D), in the statistics' dtype and device.

    `weight` has one row per class of the statistics or, after `select`, per original label.
    """
    weight = as_tensor(weight, "the classifier's weight")
    populated = statistics.populated()
    allowed = {statistics.num_classes, statistics.num_labels}
    if weight.ndim != 2 or weight.shape[0] not in allowed or weight.shape[1] != statistics.num_features:
        raise ShapeError(
            f"the classifier's weight must have shape (K, D) = ({statistics.num_classes}, "
            f"{statistics.num_features}); got {tuple(weight.shape)}."
        )
    rows = populated.class_ids if weight.shape[0] == statistics.num_labels else statistics.present
    if len(weight) == populated.num_classes and (rows.dtype is torch.bool or _in_order(rows)):
        return weight.to(statistics.means)
    return weight[rows.to(weight.device)].to(statistics.means)  # few rows of a vocabulary
