"""Classes of one size are interchangeable: matrices over K classes that respect this have few free entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tightframe.errors import EmptyClassError

Array = npt.NDArray[np.float64]


def require_counts(counts: Sequence[int] | Tensor) -> Tensor:
    """Class counts as (K,) float64 on the CPU, or EmptyClassError unless all of at least two are positive."""
    sizes = torch.as_tensor(counts).detach().to("cpu", torch.float64)
    if sizes.ndim != 1 or len(sizes) < 2 or not ((sizes > 0) & sizes.isfinite()).all():
        raise EmptyClassError(f"a geometry of classes needs at least two, all with samples; got {sizes.tolist()}.")
    return sizes


@dataclass(frozen=True, eq=False)
class ClassGroups:
    """Classes grouped by size, G groups of m_g classes with n_g samples each, sizes ascending.

    A (K, K) matrix that no exchange of classes of one size changes is the sum of Q_gh u_g u_h^T, where u_g is the unit
    vector constant on group g, and of s_g times the projector onto the contrasts within g. Its singular values are
    those of Q and, m_g - 1 times each, |s_g|.

    Attributes:
        sizes, many: n_g and m_g, (G,).
        group: the group of every class, (K,).
    """

    sizes: Array
    many: Array
    group: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: Tensor) -> ClassGroups:
        sizes, group, many = np.unique(counts.numpy(), return_inverse=True, return_counts=True)
        return cls(sizes, many.astype(np.float64), group)

    @property
    def num_samples(self) -> float:
        return float(self.many @ self.sizes)

    def labels(self, group: int) -> list[int]:
        return np.flatnonzero(self.group == group).tolist()

    def expand(self, Q: Array, contrasts: Array) -> Tensor:
        """The (K, K) matrix of Q (G, G) and s (G,)."""
        blocks = Q / np.sqrt(np.outer(self.many, self.many)) - np.diag(contrasts / self.many)
        matrix = blocks[self.group][:, self.group]
        matrix[np.diag_indices(len(matrix))] += contrasts[self.group]
        return torch.from_numpy(matrix)
