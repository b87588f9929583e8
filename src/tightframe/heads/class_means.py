"""Running class means: what `DeepNCM` and `GuidedHead` compare with or follow."""

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
    """The mean embedding of each class over batches, in float64, whatever `.half()` does to the model around it.

    Where `torch.distributed` runs, `update` sums over all processes, so each has the means of all samples.

    Args:
        num_classes, num_features: K and D.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_features: int, *, device: torch.device | str | None = None):
        super().__init__()
        self.num_classes, self.num_features = num_classes, num_features
        zero = torch.zeros((), dtype=torch.float64, device="cpu")  # expanded, it takes no memory
        self.hold("sums", zero.expand(num_classes, num_features), saved=True, device=device)
        self.hold("counts", zero.expand(num_classes), saved=True, device=device)

    @property
    def means(self) -> Tensor:
        """(K, D) float64; NaN for classes not seen."""
        return self.sums / self.counts[:, None]

    @property
    def seen(self) -> Tensor:
        """(K,) bool."""
        return self.counts > 0

    def update(self, embeddings: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
        """Take a batch in, embeddings (N, D), (N, T, D) or (N, D, H, W). Returns the new means (K, D) with its graph.

        What is kept has no graph. Raises: ShapeError, LabelError, NonFiniteError; the means are then as before.
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
        """Take over exact means and counts, for instance of the whole training set after an epoch.

        Raises: ShapeError for other classes or features.
        """
        if statistics.means.shape != self.sums.shape:
            raise ShapeError(f"statistics must be {tuple(self.sums.shape)}; got {tuple(statistics.means.shape)}.")
        counts = statistics.counts.to(self.counts)
        self.sums = torch.where(counts[:, None] > 0, statistics.means.detach().to(self.sums) * counts[:, None], 0.0)
        self.counts = counts

    def reset(self) -> None:
        """Forget all samples."""
        self.reset_parameters()

    @abstractmethod
    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The sums (K, D) and counts (K,) after a batch with these."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # a model's .half() isn't meant for sums over an epoch
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)

    def extra_repr(self) -> str:
        return f"{self.num_classes} classes, {self.num_features} features"


class OnlineMeans(ClassMeans):
    """The mean of all samples since the last `reset`, each counting once: exact, if embeddings stay where they were.

    `reset` it at each epoch's end to forget embeddings of earlier weights. Source: Guerriero et al. 2018, online means.

    >>> means = OnlineMeans(2, 1)
    >>> _ = means.update(torch.tensor([[1.0], [2.0], [7.0]]), torch.tensor([0, 0, 1]))
    >>> means.update(torch.tensor([[6.0]]), torch.tensor([0])).tolist()
    [[3.0], [7.0]]
    """

    def _take_in(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        return self.sums + sums, self.counts + counts


class CondensedMeans(ClassMeans):
    """The online mean, but after every `every` batches all that a class had counts as one sample.

    Source: Guerriero et al. 2018, mean condensation; the released code's period is 100, and a class not seen by then
    has a mean at zero that counts as one sample.
    """

    batches: Tensor

    def __init__(
        self, num_classes: int, num_features: int, every: int = 100, *, device: torch.device | str | None = None
    ):
        super().__init__(num_classes, num_features, device=device)
        if every < 1:
            raise RangeError(f"means are condensed after every 1 or more batches; got {every}.")
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
    """mean <- decay mean + (1 - decay) batch mean, for the classes in the batch; the first batch sets it.

    Source: Guerriero et al. 2018, mean decay (the released code starts from zero, also for classes not seen).
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
        kept = self.decay * self.seen[:, None].to(self.sums)
        mean = self.sums * kept + batch * (1 - kept)
        return torch.where(present, mean, self.sums), torch.where(counts > 0, 1.0, self.counts)

    def set(self, statistics: ClassStatistics) -> None:
        """Take over exact means; each then weighs like one batch."""
        super().set(statistics)
        weight = torch.where(self.seen, self.counts, 1.0)
        self.sums, self.counts = self.sums / weight[:, None], self.counts / weight

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, decay={self.decay}"


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; so is its gradient's, as every process's loss depends on every process's rows."""

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
