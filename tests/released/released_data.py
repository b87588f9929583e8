"""The data on which the released code was run: features, labels, a classifier and samples of another distribution."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """In float64: features (N, D), labels (N,), weight (K, D), bias (K,), and features of outside samples."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    outside: Tensor

    @property
    def counts(self) -> list[int]:
        return torch.bincount(self.labels).tolist()


def make(counts: tuple[int, ...], dim: int, seed: int) -> Data:
    """Numpy's `RandomState` never changes its stream; four decimals, and a mean far from the origin."""
    stream = np.random.RandomState(seed)

    def normal(*shape: int) -> np.ndarray:
        return stream.standard_normal(shape).round(4)

    labels = np.repeat(np.arange(len(counts)), counts)
    means = 2 * normal(len(counts), dim) + 1
    features = means[labels] + normal(len(labels), dim)
    weight = means - 1 + normal(len(counts), dim)
    bias = normal(len(counts))
    outside = normal(20, dim) + 0.5
    order = stream.permutation(len(labels))
    return Data(*(torch.from_numpy(each) for each in (features[order], labels[order], weight, bias, outside)))


DATA = {
    "uneven": make((9, 14, 7, 12, 16, 5), 8, 1),
    "even": make((8,) * 6, 8, 2),
    "crowded": make((6, 9, 5, 7, 8, 6, 10, 7, 5), 4, 3),
}

# ---------------------------------------------------------------------- for torch_prototypes

STREAM = np.random.RandomState(4)
PROTOTYPES = torch.from_numpy(STREAM.standard_normal((5, 4)).round(4))
EMBEDDINGS = torch.from_numpy(STREAM.standard_normal((7, 4)).round(4))
SCORES = torch.from_numpy(STREAM.standard_normal((7, 5)).round(4))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 2])
COST = torch.tensor(
    [[0, 1, 2, 2, 3], [1, 0, 2, 2, 3], [2, 2, 0, 1.5, 2.5], [2, 2, 1.5, 0, 2.5], [3, 3, 2.5, 2.5, 0]],
    dtype=torch.float64,
)
_OFFSETS = torch.tensor([0.0, 0.01, 0.03, 0.07, 0.13], dtype=torch.float64)
UNTIED = COST + _OFFSETS + _OFFSETS[:, None]
UNTIED.fill_diagonal_(0)
PATHS = [[0, 0, 0, 0, 0], [1, 1, 2, 2, 2], [3, 4, 5, 5, 6]]
"""For HierarchicalCrossEntropy: the inner nodes above each class, from the root on; all classes have the same depth."""
TRIPLETS = torch.tensor([[i, j, k] for i in range(5) for j in range(5) for k in range(5) if len({i, j, k}) == 3])
