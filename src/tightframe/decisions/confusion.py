"""`ConfusionCounts`: a mergeable confusion matrix, with accuracies, IoU and average cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_integers, require_labels
from tightframe.errors import CostMatrixError, MergeError, ShapeError
from tightframe.hierarchy import Hierarchy, cost_of
from tightframe.memory import require_memory
from tightframe.processes import reduce_counts

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, eq=False)
class ConfusionCounts:
    """Counts (K, K) int64 of samples by true class (row) and predicted class (column); a mergeable value.

    Shares of classes without samples are NaN; means ignore them.

    >>> import torch
    >>> from tightframe import ConfusionCounts
    >>> counts = ConfusionCounts.from_predictions(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), 2)
    >>> counts.accuracy().item(), counts.class_accuracies().tolist(), counts.iou().tolist()
    (0.75, [0.5, 1.0], [0.5, 0.6666666666666666])
    """

    counts: Tensor

    @classmethod
    def empty(cls, num_classes: int) -> ConfusionCounts:
        """No samples: the identity of `merge`."""
        require_memory(8 * num_classes**2, f"a table of {num_classes:,} by {num_classes:,} classes")
        return cls(torch.zeros(num_classes, num_classes, dtype=torch.int64))

    @classmethod
    def from_predictions(
        cls, predictions: Array, labels: Array, num_classes: int, *, ignore_index: int | None = None
    ) -> ConfusionCounts:
        """Count predicted and true labels of the same shape, without rows labelled `ignore_index`.

        Raises: DtypeError, ShapeError, LabelError naming the label.
        """
        predictions, labels = as_tensor(predictions, "predictions"), as_tensor(labels, "labels")
        require_integers(labels)
        require_integers(predictions)
        if predictions.shape != labels.shape:
            raise ShapeError(
                f"predictions must have the labels' shape, {tuple(labels.shape)}; got {tuple(predictions.shape)}."
            )
        decided, true = predictions.flatten().to(torch.int64), labels.flatten().to(torch.int64)
        if ignore_index is not None:
            counted = true != ignore_index
            decided, true = decided[counted], true[counted]
        require_labels(true, num_classes)
        require_labels(decided, num_classes, "predictions")
        require_memory(8 * num_classes**2, f"a table of {num_classes:,} by {num_classes:,} classes", true.device)
        cells = torch.bincount(true * num_classes + decided, minlength=num_classes**2)
        return cls(cells.view(num_classes, num_classes))

    def merge(self, other: ConfusionCounts) -> ConfusionCounts:
        """Both sets of samples together. Raises: MergeError if the numbers of classes differ."""
        if self.counts.shape != other.counts.shape:
            raise MergeError(
                f"both counts must have the same number of classes; got {len(self.counts)} and {len(other.counts)}."
            )
        return ConfusionCounts(self.counts + other.counts.to(self.counts.device))

    def all_reduce(self, group: ProcessGroup | None = None) -> ConfusionCounts:
        """The counts over all processes of the group (default: all); a collective call.

        Raises: MergeError, in every process, if the numbers of classes differ; DistributedError.
        """
        return ConfusionCounts(reduce_counts(self.counts, "confusion counts", group))

    def select(self, classes: Sequence[int] | Tensor) -> ConfusionCounts:
        """Counts (K, K) of samples of some true classes only; K and predictions do not change. Raises: LabelError."""
        subset = torch.as_tensor(classes, dtype=torch.int64, device=self.counts.device)
        require_labels(subset, len(self.counts), "classes")
        mask = torch.zeros(len(self.counts), dtype=torch.bool, device=self.counts.device)
        mask[subset] = True
        return ConfusionCounts(torch.where(mask[:, None], self.counts, 0))

    def accuracy(self) -> Tensor:
        """0-d, share of correct samples."""
        return self.counts.diagonal().sum().to(torch.float64) / self.counts.sum()

    def class_accuracies(self) -> Tensor:
        """(K,) share of correct samples per class (recall)."""
        return self.counts.diagonal().to(torch.float64) / self.counts.sum(1)

    def balanced_accuracy(self) -> Tensor:
        """0-d, unweighted mean of `class_accuracies`."""
        return self.class_accuracies().nanmean()

    def iou(self) -> Tensor:
        """(K,) intersection over union per class: (true and predicted) / (true or predicted)."""
        hits = self.counts.diagonal().to(torch.float64)
        return hits / (self.counts.sum(0) + self.counts.sum(1) - hits)

    def average_cost(self, cost: Array | Hierarchy) -> Tensor:
        """0-d, mean of cost[true, predicted] over samples, for costs (K, K) or the distances in a tree.

        Raises: CostMatrixError for a wrong shape.
        """
        matrix = cost_of(cost)
        if matrix.shape != self.counts.shape:
            raise CostMatrixError(f"costs must be {tuple(self.counts.shape)}; got {tuple(matrix.shape)}.")
        return (self.counts * matrix.to(self.counts.device, torch.float64)).sum() / self.counts.sum()
