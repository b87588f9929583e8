"""Groups of interchangeable classes: (K, K) matrices that are invariant under exchange have few free entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tightframe import checks
from tightframe.errors import EmptyClassError, NonFiniteError, RangeError, ShapeError

Array = npt.NDArray[np.float64]
PerClass = Sequence[float] | checks.Array
Counts = Sequence[int] | checks.Array


def as_vector(values: float | PerClass) -> Tensor:
    """Numbers, a tensor or a numpy array as a float64 tensor on the CPU, without a graph."""
    if isinstance(values, np.ndarray):
        values = checks.as_tensor(values)
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()


def require_counts(counts: Counts) -> Tensor:
    """Class counts as (K,) float64 on the CPU. Raises: EmptyClassError unless K >= 2 and all are positive."""
    sizes = as_vector(counts)
    if sizes.ndim != 1 or len(sizes) < 2 or not ((sizes > 0) & sizes.isfinite()).all():
        raise EmptyClassError(f"counts must be positive, for at least two classes; got {sizes.tolist()}.")
    return sizes


def require_class_weights(weights: PerClass, num_classes: int | None = None) -> Tensor:
    """Class weights as (K,) float64 on the CPU. Raises: ShapeError; RangeError unless all are finite and > 0."""
    values = _per_class(weights, "class weights", num_classes)
    if not ((values > 0) & values.isfinite()).all():
        raise RangeError(f"class weights must be finite and > 0; got {values.tolist()}.")
    return values


def require_logit_adjustment(adjustment: float | PerClass, num_classes: int | None = None) -> Tensor:
    """A strength, 0-d, or offsets of the logits, (K,), as float64 on the CPU. Raises: ShapeError, NonFiniteError."""
    values = as_vector(adjustment)
    if values.ndim > 0:
        values = _per_class(values, "offsets of the logits", num_classes)
    if not values.isfinite().all():
        raise NonFiniteError(f"the logit adjustment must be finite; got {values.tolist()}.")
    return values


def require_label_smoothing(smoothing: float) -> float:
    """The smoothing. Raises: RangeError unless it is in [0, 1)."""
    if not 0 <= smoothing < 1:
        raise RangeError(f"label smoothing must be in [0, 1); got {smoothing}.")
    return smoothing


def _per_class(values: PerClass, what: str, num_classes: int | None) -> Tensor:
    vector = as_vector(values)
    if vector.ndim != 1 or (num_classes is not None and len(vector) != num_classes):
        raise ShapeError(f"{what} must have shape ({num_classes or 'K'},), one per class; got {tuple(vector.shape)}.")
    return vector


@dataclass(frozen=True, eq=False)
class ClassGroups:
    """Classes grouped by size, weight and offset: G groups of m_g classes with n_g samples each, sizes ascending.

    A (K, K) matrix that is invariant under exchange of classes within groups is the sum of Q_gh u_g u_h^T, where u_g is
    the unit vector constant on group g, and of s_g times the projector onto the contrasts within g. Its singular values
    are those of Q, and |s_g| with multiplicity m_g - 1.

    Attributes:
        sizes, many: n_g and m_g, (G,).
        weights: w_g, (G,), weight of a sample's loss; the largest is 1.
        offsets: a_g, (G,), added to the logits in the loss.
        group: group index of each class, (K,).
    """

    sizes: Array
    many: Array
    weights: Array
    offsets: Array
    group: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        counts: Tensor,
        class_weights: PerClass | None = None,
        logit_adjustment: float | PerClass | None = None,
    ) -> ClassGroups:
        """Groups for counts (K,) float64. A logit adjustment of one number t means offsets t ln(n_k / N).

        Raises: ShapeError, RangeError or NonFiniteError for invalid weights and adjustments.
        """
        weights = require_class_weights(1 + 0 * counts if class_weights is None else class_weights, len(counts))
        offsets = require_logit_adjustment(0 * counts if logit_adjustment is None else logit_adjustment, len(counts))
        if offsets.ndim == 0:
            offsets = offsets * (counts / counts.sum()).log()
        facts = torch.stack([counts, weights / weights.max(), offsets]).numpy()
        (sizes, weight, offset), group, many = np.unique(facts, axis=1, return_inverse=True, return_counts=True)
        return cls(sizes, many.astype(np.float64), weight, offset, group.reshape(-1))

    @property
    def total_weight(self) -> float:
        """Sum of the weights of all samples; N for equal class weights."""
        return float(self.many @ (self.sizes * self.weights))

    def labels(self, group: int) -> list[int]:
        return np.flatnonzero(self.group == group).tolist()

    def expand(self, Q: Array, contrasts: Array) -> Tensor:
        """The (K, K) matrix for Q (G, G) and s (G,)."""
        blocks = Q / np.sqrt(np.outer(self.many, self.many)) - np.diag(contrasts / self.many)
        matrix = blocks[self.group][:, self.group]
        matrix[np.diag_indices(len(matrix))] += contrasts[self.group]
        return torch.from_numpy(matrix)
