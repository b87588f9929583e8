"""Folds: parts to which the samples of every class are dealt evenly, for a delete-a-fold jackknife."""

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
"""Folds unless the caller says otherwise: the standard error then has 15 degrees of freedom."""

_BY_CLASS = -1  # the fold of rows that are dealt by their class


@dataclass(frozen=True, eq=False)
class FoldedStatistics:
    """`ClassStatistics` of all samples and of each of F folds, to which the samples of every class were dealt evenly.

    A sample with several rows, such as the pixels of an image or the tokens of a sequence, is in one fold as a whole:
    its rows depend on each other, and errors that took them for independent would be too small.

    Attributes:
        total: of all samples.
        parts: of each fold's samples; together they are the total. They may lack the scatter that the total has.

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
        """Deal features held in memory.

        Args:
            features, labels, options: as in `ClassStatistics.from_features`.
            samples: as in `StatisticsAccumulator.update`.

        Raises: as these, and RangeError for fewer than two folds.
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
        """Folds given by their statistics. Raises: RangeError for fewer than two; MergeError if they don't fit."""
        require_folds(len(parts))
        return cls(ClassStatistics.merge_all(parts), tuple(parts))

    @property
    def folds(self) -> int:
        """F, the number of folds."""
        return len(self.parts)

    def without(self, fold: int) -> ClassStatistics:
        """The statistics of the samples of all folds but one, and of the classes whose samples are all in that one.

        The latter (`undivided`) stay as they are. Without the scatter of each class, theirs is taken to have the shape
        of the fold's; its trace is exact.
        """
        fold %= self.folds
        rest = ClassStatistics.merge_all([part for f, part in enumerate(self.parts) if f != fold])
        alone = (rest.counts == 0) & self.parts[fold].present
        return rest.merge(_only(self.parts[fold], alone)) if alone.any() else rest

    @property
    def without_scatter(self) -> FoldedStatistics:
        """The same without D x D matrices, which `without` needn't merge for functions of means and spreads alone."""

        def lean(value: ClassStatistics) -> ClassStatistics:
            return replace(value, within=None, class_within=None)

        return FoldedStatistics(lean(self.total), tuple(map(lean, self.parts)))

    @property
    def undivided(self) -> Tensor:
        """Labels of classes whose samples are all in one fold, as a single sample is: their own error is unknown."""
        counts = torch.stack([part.counts for part in self.parts])
        return self.total.class_ids[(counts > 0).sum(0) == 1]

    def merge(self, other: FoldedStatistics) -> FoldedStatistics:
        """Both sets of samples together, fold by fold.

        Raises: MergeError for another number of folds, other classes, features or kinds of scatter.
        """
        if self.folds != other.folds:
            raise MergeError(f"can't merge {other.folds} folds into {self.folds}; use the same folds= everywhere.")
        both = [mine.merge(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)]
        return FoldedStatistics(self.total.merge(other.total), tuple(both))

    def all_reduce(self, group: ProcessGroup | None = None) -> FoldedStatistics:
        """The samples of all processes together, fold by fold; a collective call, as `ClassStatistics.all_reduce`.

        Raises: as that, and MergeError in every process if they have different numbers of folds.
        """
        if world_size(group) == 1:
            return self
        whole = self.total.within is not None and self.parts[0].within is None  # which the parts don't add up to
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
        """Some classes only, by label and by their number of samples in total, as `ClassStatistics.select`."""
        total = self.total.select(classes, min_count=min_count, max_count=max_count)
        parts = [part.select(total.class_ids) for part in self.parts]
        if total.within is None:  # though a fold may happen to have no samples of the classes left out
            parts = [replace(part, within=None) for part in parts]
        return FoldedStatistics(total, tuple(parts))

    def to(self, device: torch.device | str) -> FoldedStatistics:
        """The same value on another device (on the CPU where that device lacks float64)."""
        return FoldedStatistics(self.total.to(device), tuple(part.to(device) for part in self.parts))


def _only(value: ClassStatistics, classes: Tensor) -> ClassStatistics:
    """The samples of (K,) chosen classes, in the same rows; of the pooled scatter, their share by trace."""
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
    """Raise DtypeError or ShapeError unless samples number the rows of labels (...), or are None."""
    if samples is None:
        return
    if not checks.is_integer(samples):
        raise DtypeError(f"samples must be integers, equal for rows of one sample; got {samples.dtype}.")
    if samples.shape not in (labels.shape, labels.shape[:1]):
        raise ShapeError(
            f"samples must have the labels' shape {tuple(labels.shape)}, or that of their first dimension, "
            f"{tuple(labels.shape[:1])}; got {tuple(samples.shape)}."
        )


def require_folds(folds: int) -> None:
    """Raise RangeError for fewer than two folds."""
    if folds < 2:
        raise RangeError(f"a standard error needs at least two folds; got {folds}.")


class Dealer:
    """Decides which fold each sample goes to, however the samples are batched.

    * Samples that are numbered go to the fold that is their number modulo F.
    * Otherwise, samples of several rows go to the folds in turn.
    * Otherwise, the i-th sample of class k goes to fold (i + k) mod F; starting each class at another fold keeps the
      folds alike where classes have few samples. Where labels can't be looked at, these go in turn too.

    Args:
        folds: F.
        start: the fold to start with; if each process starts with another, a class of which each has a single sample
            isn't in one fold.
    """

    def __init__(self, folds: int, start: int = 0):
        self.folds, self._start = folds, start
        self.samples = 0  # dealt in turn so far

    def folds_of(self, labels: Tensor, samples: Tensor | None, *, in_turn: bool = False) -> Tensor:
        """(N,) folds, on the CPU, of the rows of labels (...); `_BY_CLASS` for rows that `split` deals by class."""
        if samples is not None:
            numbers = samples.to("cpu", torch.int64) % self.folds
        elif labels.ndim > 1 or in_turn:
            numbers = (torch.arange(len(labels)) + self.samples + self._start) % self.folds
            self.samples += len(labels)
        else:
            return torch.full((len(labels),), _BY_CLASS)
        return numbers.reshape(*numbers.shape, *[1] * (labels.ndim - numbers.ndim)).expand(labels.shape).flatten()

    def split(self, labels: Tensor, folds: Tensor, dealt: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each fold that has some of the rows, and their indices.

        Args:
            labels: (N,) int64.
            folds: (N,) of `folds_of`.
            dealt: (K,) int64, how many samples of each class went before.
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
        """(N,) folds by class."""
        order = labels.argsort(stable=True)
        ordered = labels[order]
        counts = torch.bincount(labels, minlength=len(dealt))
        first = dealt + torch.arange(len(dealt), device=labels.device) - (counts.cumsum(0) - counts)
        folds = torch.empty_like(labels)
        folds[order] = torch.arange(len(labels), device=labels.device) + first[ordered] + self._start
        return folds % self.folds
