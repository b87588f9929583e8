"""Running class means, used by `DeepNCM` and `GuidedHead`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from tightframe.checks import can_look, require_finite
from tightframe.errors import RangeError, ShapeError
from tightframe.fixed import FixedTensors
from tightframe.layout import labelled_rows
from tightframe.processes import all_reduce, world_size
from tightframe.statistics import ClassStatistics


class ClassMeans(FixedTensors, ABC):
    """Mean embedding per class over batches, always in float64, also after `.half()` on the model.

    Under `torch.distributed`, `update` sums over all processes, so that each has the means of all samples.

    Args:
        num_classes, num_features: K and D.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_features: int, *, device: torch.device | str | None = None):
        super().__init__()
        self.num_classes, self.num_features = num_classes, num_features
        zero = torch.zeros((), dtype=torch.float64, device="cpu")  # takes no memory when expanded
        self.hold("sums", zero.expand(num_classes, num_features), saved=True, device=device)
        self.hold("counts", zero.expand(num_classes), saved=True, device=device)

    @property
    def means(self) -> Tensor:
        """(K, D) float64; NaN for classes without samples."""
        return self.sums / self.counts[:, None]

    @property
    def seen(self) -> Tensor:
        """(K,) bool, the classes with samples."""
        return self.counts > 0

    def update(self, embeddings: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Add a batch of embeddings (N, D), (N, T, D) or (N, D, H, W). Returns the new means (K, D) with a graph.

        The stored means have no graph. Raises: ShapeError, LabelError, NonFiniteError; the means do not change then.
        """
        rows, flat, kept = labelled_rows(embeddings, labels, self.num_features, self.num_classes, ignore_index)
        if can_look(rows):
            require_finite(rows[kept].detach(), "embeddings")
        values = torch.where(kept[:, None], rows.to(torch.float64), 0.0)
        sums = torch.zeros_like(self.sums).index_add(0, flat, values)
        counts = torch.zeros_like(self.counts).index_add(0, flat, kept.to(torch.float64))
        if world_size() > 1:
            sums, counts = _SumOverProcesses.apply(sums), _SumOverProcesses.apply(counts)
        new_sums, new_counts = self._take_in(sums, counts)
        self.sums, self.counts = new_sums.detach(), new_counts.detach()
        return new_sums / new_counts[:, None]

    def set(self, statistics: ClassStatistics) -> None:
        """Replace the means and counts by exact ones, for example of the whole training set after an epoch.

        Raises: ShapeError if the number of classes or features differs.
        """
        if statistics.means.shape != self.sums.shape:
            raise ShapeError(
                f"statistics must have means of shape {tuple(self.sums.shape)}; got {tuple(statistics.means.shape)}."
            )
        counts = statistics.counts.to(self.counts)
        self.sums = torch.where(counts[:, None] > 0, statistics.means.detach().to(self.sums) * counts[:, None], 0.0)
        self.counts = counts

    def reset(self) -> None:
        """Remove all samples."""
        self.reset_parameters()

    @abstractmethod
    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The sums (K, D) and counts (K,) after a batch with the sums and counts given."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # sums over an epoch need float64 in a half-precision model
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)

    def extra_repr(self) -> str:
        return f"{self.num_classes} classes, {self.num_features} features"


class OnlineMeans(ClassMeans):
    """The mean of all samples since the last `reset`, with equal weight; exact if the network does not change.

    Call `reset` after each epoch to remove embeddings of earlier weights. Source: Guerriero et al. 2018, online means.

    >>> import torch
    >>> from tightframe.heads import OnlineMeans
    >>> means = OnlineMeans(2, 1)
    >>> _ = means.update(torch.tensor([[1.0], [2.0], [7.0]]), torch.tensor([0, 0, 1]))
    >>> means.update(torch.tensor([[6.0]]), torch.tensor([0])).tolist()
    [[3.0], [7.0]]
    """

    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        return self.sums + sums, self.counts + counts


class CondensedMeans(ClassMeans):
    """The online mean; after every `every` batches, the samples of each class are condensed to one sample.

    Args:
        num_classes, num_features: K and D.
        every: number of batches, at least 1.

    Raises: RangeError for `every` below 1.
    Source: Guerriero et al. 2018, mean condensation. The released code has a period of 100, and counts a zero mean as
    one sample for classes not seen by then.

    >>> import torch
    >>> from tightframe.heads import CondensedMeans
    >>> means = CondensedMeans(1, 1, every=1)
    >>> _ = means.update(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]))  # now one sample, 2
    >>> means.update(torch.tensor([[6.0]]), torch.tensor([0])).tolist()  # (2 + 6) / 2
    [[4.0]]
    """

    batches: Tensor

    def __init__(
        self, num_classes: int, num_features: int, every: int = 100, *, device: torch.device | str | None = None
    ):
        super().__init__(num_classes, num_features, device=device)
        if every < 1:
            raise RangeError(f"every must be at least 1; got {every}.")
        self.every = every
        self.hold("batches", torch.zeros((), dtype=torch.int64, device="cpu"), saved=True, device=device)

    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        sums, counts = self.sums + sums, self.counts + counts
        self.batches = self.batches + 1
        condensed = torch.where((self.batches % self.every == 0) & (counts > 0), counts, 1.0)
        return sums / condensed[:, None], counts / condensed

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, every={self.every}"


class DecayedMeans(ClassMeans):
    """mean <- decay mean + (1 - decay) batch mean, for the classes in the batch; the first batch sets the mean.

    Args:
        num_classes, num_features: K and D.
        decay: in [0, 1).

    Raises: RangeError for a decay outside [0, 1).
    Source: Guerriero et al. 2018, mean decay; the released code starts from zero means.

    >>> import torch
    >>> from tightframe.heads import DecayedMeans
    >>> means = DecayedMeans(1, 1, decay=0.75)
    >>> _ = means.update(torch.tensor([[4.0]]), torch.tensor([0]))
    >>> means.update(torch.tensor([[8.0]]), torch.tensor([0])).tolist()  # 0.75 * 4 + 0.25 * 8
    [[5.0]]
    """

    def __init__(
        self, num_classes: int, num_features: int, decay: float = 0.9, *, device: torch.device | str | None = None
    ):
        super().__init__(num_classes, num_features, device=device)
        if not 0 <= decay < 1 or math.isnan(decay):
            raise RangeError(f"decay must be in [0, 1); got {decay}.")
        self.decay = decay

    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        present = (counts > 0)[:, None]
        batch = sums / torch.where(counts > 0, counts, 1.0)[:, None]
        decay = self.decay * self.seen[:, None].to(self.sums)
        mean = self.sums * decay + batch * (1 - decay)
        return torch.where(present, mean, self.sums), torch.where(counts > 0, 1.0, self.counts)

    def set(self, statistics: ClassStatistics) -> None:
        """Replace the means by exact ones; each then has the weight of one batch."""
        super().set(statistics)
        weight = torch.where(self.seen, self.counts, 1.0)
        self.sums, self.counts = self.sums / weight[:, None], self.counts / weight

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, decay={self.decay}"


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes. The gradient is summed too: the loss of each process depends on the rows of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        all_reduce(total, "sums of embeddings")
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        all_reduce(total, "gradients of sums of embeddings")
        return total
