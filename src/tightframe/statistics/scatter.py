"""Sums of squares about class means or other centres, and the parallel-axis theorem, which is written here only.

n samples with mean m scatter about a centre c by n (m - c)(m - c)^T more than about m. Merging is every part about the
common means, then add; an all-reduce is the same addition across processes; an accumulator's anchors are centres too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.numerics import EPS

_BLOCK_ROWS = 512  # rows at a time: they stay in cache, and memory beside the result is O(rows * D)
_BAND = 128  # rows of a product computed at a time: narrower ones save more work but run slower
_SAME = 4 * EPS  # share of a centre's entry by which rounding alone may move a mean from it


@dataclass
class Scatter:
    """Sums over the samples of K classes about one centre a class; they are changed in place.

    Attributes:
        spread: (K,) of squared distances.
        within: (D, D) of outer products, all classes together, or None where they aren't kept.
        class_within: (K, D, D) of outer products, or None.
    """

    spread: Tensor
    within: Tensor | None = None
    class_within: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Scatter:
        """Every sum that is kept, changed by a function."""
        return Scatter(*(None if each is None else function(each) for each in self._sums()))  # type: ignore[arg-type]

    def add(self, other: Scatter, sign: int = 1) -> None:
        """Add (or, with sign -1, take away) sums about the same centres."""
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            if mine is not None and theirs is not None:
                mine.add_(theirs, alpha=sign)

    def recentre(self, counts: Tensor, means: Sequence[Tensor], centres: Tensor | None = None, sign: int = 1) -> None:
        """Turn sums of several parts, each about its class means, into sums about common centres.

        `within` is read from its upper triangle and left complete.

        Args:
            counts: (P, K), samples of each class in each part; a class without samples in a part counts for nothing.
            means: P tensors (K, D).
            centres: (K, D), or None for the origin.
            sign: -1 turns sums about the centres into those about the means.
        """
        block = max(1, _BLOCK_ROWS // len(means))
        roots = counts.to(self.spread.dtype).sqrt()
        for start in range(0, counts.shape[1], block):
            rows = slice(start, start + block)
            gaps = means[0][None, rows] if len(means) == 1 else torch.stack([each[rows] for each in means])
            if centres is not None:
                gaps = gaps_between(gaps, centres[rows])
            gaps = torch.where(counts[:, rows, None] > 0, gaps * roots[:, rows, None], 0.0)
            self.spread[rows] += sign * gaps.square().sum((0, 2))
            if self.within is not None:
                add_products(self.within, gaps.flatten(0, 1), sign, complete=start + block >= counts.shape[1])
            if self.class_within is not None:
                for k, of_class in enumerate(gaps.unbind(1), start):
                    self.class_within[k].addmm_(of_class.mT, of_class, alpha=sign)

    def settle(self, counts: Tensor) -> None:
        """Make sums about the means zero where there is nothing to sum: rounding left something there."""
        several = counts > 1
        self.spread = torch.where(several, self.spread.clamp(min=0), 0.0)
        if self.class_within is not None:
            self.class_within.masked_fill_(~several[:, None, None], 0.0)
        if self.within is not None and not bool((self.spread > 0).any()):
            self.within = torch.zeros_like(self.within)

    def _sums(self) -> Iterator[Tensor | None]:
        yield from (self.spread, self.within, self.class_within)


def add_products(matrix: Tensor, rows: Tensor, sign: int = 1, *, complete: bool = False) -> None:
    """Add rows^T rows, or take it away, in the upper triangle of a symmetric (D, D) matrix; then fill the lower one."""
    for start in range(0, matrix.shape[0], _BAND):
        end = start + _BAND
        band = matrix[start:end, start:]
        band.addmm_(rows[:, start:end].mT, rows[:, start:], alpha=sign)
        if complete:
            corner = band[:, :_BAND].triu_()
            corner.add_(corner.triu(1).mT)
            matrix[end:, start:end] = band[:, _BAND:].mT


def gaps_between(means: Tensor, centres: Tensor) -> Tensor:
    """Means less centres; 0 where rounding alone may have moved a mean from its centre."""
    gaps = means - centres
    return torch.where(gaps.abs() <= _SAME * centres.abs(), 0.0, gaps)


def common_means(counts: Tensor, means: Sequence[Tensor]) -> Tensor:
    """(K, D) means of several parts together; NaN for classes without samples.

    Summed about the first mean of each class: exact where all means of a class are equal.
    """
    first = means[0]
    for each in means[1:]:
        if (missing := first[:, :1].isnan()).any():
            first = torch.where(missing, each, first)
    shares = counts.to(first.dtype) / counts.sum(0)
    total = first
    for share, each in zip(shares[1:], means[1:], strict=True):
        step = (each - first).mul_(share[:, None]).masked_fill_(~(share > 0)[:, None], 0.0)
        total = step.add_(total)
    return total
