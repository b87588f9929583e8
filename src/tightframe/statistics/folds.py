"""Folds: parts of the samples, balanced within each class, for a delete-a-fold jackknife."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tightframe import checks
from tightframe.errors import DtypeError, MergeError, RangeError, ShapeError
from tightframe.processes import require_same, world_size
from tightframe.statistics.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FOLDS = 16
"""Default number of folds; the standard error then has 15 degrees of freedom."""

_BY_CLASS = -1  # marks rows that `split` assigns by class


@dataclass(frozen=True, eq=False)
class FoldedStatistics:
    """`ClassStatistics` of all samples and of F folds, which share the samples of each class evenly.

    All rows of a sample, such as the pixels of an image or the tokens of a sequence, are in one fold: they are
    dependent, and standard errors for independent rows would be too small.

    Attributes:
        total: statistics of all samples.
        parts: statistics of each fold; they add up to the total, possibly without its scatter.

    >>> import torch
    >>> from tightframe.statistics import FoldedStatistics
    >>> features, labels = torch.randn(60, 5), torch.arange(60) % 3
    >>> folded = FoldedStatistics.from_features(features, labels, 3, folds=4)
    >>> folded.total.counts.tolist(), folded.without(0).counts.tolist()
    ([20, 20, 20], [15, 15, 15])
    """

    total: ClassStatistics
    parts: tuple[ClassStatistics, ...]

    @classmethod
    def from_features(
        cls,
        features: checks.Array,
        labels: checks.Array,
        num_classes: int,
        *,
        folds: int = FOLDS,
        samples: checks.Array | None = None,
        **options: Any,
    ) -> FoldedStatistics:
        """Folded statistics of features in memory.

        Args:
            features: (..., D). labels: (...). Both, and options, as in `ClassStatistics.from_features`.
            folds: F, number of folds, at least 2.
            samples: as in `StatisticsAccumulator.update`.

        Raises: as these functions; RangeError for fewer than two folds.
        """
        require_folds(folds)
        features, labels = checks.as_tensor(features, "features"), checks.as_tensor(labels, "labels")
        samples = None if samples is None else checks.as_tensor(samples, "samples")
        require_samples(samples, labels)
        total = ClassStatistics.from_features(features, labels, num_classes, **options)
        ignored = options.pop("ignore_index", None)
        dealer = Dealer(folds)
        numbers = dealer.folds_of(labels, samples)
        if ignored is not None:
            numbers = numbers[labels.flatten() != ignored]
        rows, flat = checks.as_rows(features, labels, class_dim=options.pop("class_dim", -1), ignore_index=ignored)
        nothing = ClassStatistics.empty(num_classes, total.num_features, **options, device=rows.device)
        parts = [nothing] * folds
        none_dealt = torch.zeros(num_classes, dtype=torch.int64, device=flat.device)
        for fold, where in dealer.split(flat, numbers, none_dealt):
            parts[fold] = ClassStatistics.from_features(rows[where], flat[where], num_classes, **options)
        return cls(total, tuple(parts))

    @classmethod
    def from_parts(cls, parts: Sequence[ClassStatistics]) -> FoldedStatistics:
        """Folds from their statistics. Raises: RangeError for fewer than two; MergeError if they do not fit."""
        require_folds(len(parts))
        return cls(ClassStatistics.merge_all(parts), tuple(parts))

    @property
    def folds(self) -> int:
        """F, the number of folds."""
        return len(self.parts)

    def without(self, fold: int) -> ClassStatistics:
        """The statistics without the samples of one fold; classes with all samples in that fold keep them.

        Without scatter per class, the scatter of these classes (`undivided`) is assumed proportional to the fold's; its
        trace is exact.
        """
        fold %= self.folds
        rest = ClassStatistics.merge_all([part for f, part in enumerate(self.parts) if f != fold])
        alone = (rest.counts == 0) & self.parts[fold].present
        return rest.merge(_only(self.parts[fold], alone)) if alone.any() else rest

    @property
    def without_scatter(self) -> FoldedStatistics:
        """The same folds without D x D matrices, for faster jackknives of functions of means and variances."""

        def lean(value: ClassStatistics) -> ClassStatistics:
            return replace(value, within=None, class_within=None)

        return FoldedStatistics(lean(self.total), tuple(map(lean, self.parts)))

    @property
    def undivided(self) -> Tensor:
        """(U,) labels of classes with all samples in one fold, for example a single sample; their error is unknown."""
        counts = torch.stack([part.counts for part in self.parts])
        return self.total.class_ids[(counts > 0).sum(0) == 1]

    @property
    def fixed(self) -> bool:
        """Whether every class lies in a single fold, so that there is no error."""
        return len(self.undivided) == int(self.total.present.sum())

    def merge(self, other: FoldedStatistics) -> FoldedStatistics:
        """Both sets of samples together, fold by fold.

        Raises: MergeError if the number of folds, classes, features or scatter differ.
        """
        if self.folds != other.folds:
            raise MergeError(f"both must have the same number of folds; got {self.folds} and {other.folds}.")
        both = [a.merge(b) for a, b in zip(self.parts, other.parts, strict=True)]
        return FoldedStatistics(self.total.merge(other.total), tuple(both))

    def all_reduce(self, group: ProcessGroup | None = None) -> FoldedStatistics:
        """The samples of all processes, fold by fold; a collective call, as `ClassStatistics.all_reduce`.

        Raises: as `ClassStatistics.all_reduce`; MergeError in every process if the numbers of folds differ.
        """
        if world_size(group) == 1:
            return self
        whole = self.total.within is not None and self.parts[0].within is None  # not the sum of the parts
        require_same("folded statistics", {"folds": self.folds, "scatter of the total alone": int(whole)}, group)
        parts = tuple(part.all_reduce(group) for part in self.parts)
        return FoldedStatistics(self.total.all_reduce(group), parts) if whole else FoldedStatistics.from_parts(parts)

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> FoldedStatistics:
        """A subset of the classes, by label and by total number of samples, as `ClassStatistics.select`."""
        total = self.total.select(classes, min_count=min_count, max_count=max_count)
        parts = [part.select(total.class_ids) for part in self.parts]
        if total.within is None:  # also in folds without samples of the removed classes
            parts = [replace(part, within=None) for part in parts]
        return FoldedStatistics(total, tuple(parts))

    def to(self, device: torch.device | str) -> FoldedStatistics:
        """The same value on another device (on the CPU where that device lacks float64)."""
        return FoldedStatistics(self.total.to(device), tuple(part.to(device) for part in self.parts))


def _only(value: ClassStatistics, classes: Tensor) -> ClassStatistics:
    """The statistics with samples only in `classes` (K,) bool; the pooled scatter is scaled to their trace."""
    spread = torch.where(classes, value.spread, 0.0)
    within, own = value.within, value.class_within
    if own is not None:
        own = torch.where(classes[:, None, None], own, 0.0)
        within = None if within is None else own.sum(0)
    elif within is not None:
        whole = value.spread.sum()
        within = within * torch.where(whole > 0, spread.sum() / whole, 0.0)
    counts, means = torch.where(classes, value.counts, 0), torch.where(classes[:, None], value.means, torch.nan)
    return replace(value, counts=counts, means=means, spread=spread, within=within, class_within=own)


def require_samples(samples: Tensor | None, labels: Tensor) -> None:
    """Raise DtypeError or ShapeError unless `samples` is None or integers in the shape of the labels."""
    if samples is None:
        return
    if not checks.is_integer(samples):
        raise DtypeError(f"samples must be integers, one number per sample; got {samples.dtype}.")
    if samples.shape not in (labels.shape, labels.shape[:1]):
        raise ShapeError(
            f"samples must have the labels' shape {tuple(labels.shape)}, or that of their first dimension, "
            f"{tuple(labels.shape[:1])}; got {tuple(samples.shape)}."
        )


def require_folds(folds: int) -> None:
    """Raise RangeError for fewer than two folds."""
    if folds < 2:
        raise RangeError(f"folds must be at least 2; got {folds}.")


class Dealer:
    """Assigns samples to folds, independent of the batches.

    * Numbered samples go to the fold (number mod F).
    * Otherwise, samples with several rows go to the folds in turn.
    * Otherwise, the i-th sample of class k goes to fold (i + k) mod F; different first folds keep the folds similar if
      classes have few samples. If labels can't be read, samples go to the folds in turn.

    Args:
        folds: F.
        start: first fold. Different starts per process avoid that single samples of a class all share a fold.
    """

    def __init__(self, folds: int, start: int = 0):
        self.folds, self._start = folds, start
        self.samples = 0  # assigned in turn so far

    def folds_of(self, labels: Tensor, samples: Tensor | None, *, in_turn: bool = False) -> Tensor:
        """(N,) folds, on the CPU, for labels (...); `_BY_CLASS` for rows that `split` assigns by class."""
        if samples is not None:
            numbers = samples.to("cpu", torch.int64) % self.folds
        elif labels.ndim > 1 or in_turn:
            numbers = (torch.arange(len(labels)) + self.samples + self._start) % self.folds
            self.samples += len(labels)
        else:
            return torch.full((len(labels),), _BY_CLASS)
        return numbers.reshape(*numbers.shape, *[1] * (labels.ndim - numbers.ndim)).expand(labels.shape).flatten()

    def split(self, labels: Tensor, folds: Tensor, dealt: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each fold with rows, and the indices of its rows.

        Args:
            labels: (N,) int64.
            folds: (N,), from `folds_of`.
            dealt: (K,) int64, number of earlier samples per class.
        """
        by_class = folds == _BY_CLASS
        if by_class.any():
            folds = torch.where(by_class, self._deal(labels, dealt).cpu(), folds)
        order, sizes = folds.argsort(stable=True), torch.bincount(folds, minlength=self.folds).tolist()
        order = order.to(labels.device, non_blocking=True)
        end = 0
        for fold, size in enumerate(sizes):
            start, end = end, end + size
            if size:
                yield fold, order[start:end]

    def _deal(self, labels: Tensor, dealt: Tensor) -> Tensor:
        """(N,) folds, assigned by class."""
        order = labels.argsort(stable=True)
        ordered = labels[order]
        counts = torch.bincount(labels, minlength=len(dealt))
        first = dealt + torch.arange(len(dealt), device=labels.device) - (counts.cumsum(0) - counts)
        folds = torch.empty_like(labels)
        folds[order] = torch.arange(len(labels), device=labels.device) + first[ordered] + self._start
        return folds % self.folds
