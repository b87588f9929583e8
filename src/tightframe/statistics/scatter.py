"""Sums of squares about class means or other centres, and the parallel-axis theorem, used only here.

The scatter of n samples with mean m about a centre c exceeds that about m by n (m - c)(m - c)^T. A merge expresses each
part about the common means and adds; an all-reduce adds across processes; anchors of an accumulator are centres too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.numerics import EPS

_BLOCK_ROWS = 512  # rows at a time, which stay in cache; additional memory is O(rows * D)
_BAND = 128  # rows of a product computed at a time; narrower bands save more work but run slower
_SAME = 4 * EPS  # largest relative difference of a mean and its centre by rounding alone


@dataclass
class Scatter:
    """Sums over the samples of K classes about one centre per class, modified in place.

    Attributes:
        spread: (K,), sums of squared distances.
        within: (D, D), sum of outer products over all classes, or None if not kept.
        class_within: (K, D, D), sums of outer products per class, or None if not kept.
    """

    spread: Tensor
    within: Tensor | None = None
    class_within: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Scatter:
        """A new `Scatter` with `function` applied to each sum."""
        return Scatter(*(None if each is None else function(each) for each in self._sums()))  # type: ignore[arg-type]

    def add(self, other: Scatter, sign: int = 1) -> None:
        """Add (with sign -1, subtract) sums about the same centres."""
        for a, b in zip(self._sums(), other._sums(), strict=True):
            if a is not None and b is not None:
                a.add_(b, alpha=sign)

    def recentre(self, counts: Tensor, means: Sequence[Tensor], centres: Tensor | None = None, sign: int = 1) -> None:
        """Convert sums of several parts, each about its class means, into sums about common centres.

        Reads the upper triangle of `within` and completes the matrix.

        Args:
            counts: (P, K), number of samples per part and class; parts without samples of a class are ignored.
            means: P tensors (K, D).
            centres: (K, D), or None for the origin.
            sign: -1 converts sums about the centres into sums about the means.
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
        """Set sums about the means to zero for classes with at most one sample, where only rounding is left."""
        several = counts > 1
        self.spread = torch.where(several, self.spread.clamp(min=0), 0.0)
        if self.class_within is not None:
            self.class_within.masked_fill_(~several[:, None, None], 0.0)
        if self.within is not None and not bool((self.spread > 0).any()):
            self.within = torch.zeros_like(self.within)

    def _sums(self) -> Iterator[Tensor | None]:
        yield from (self.spread, self.within, self.class_within)


def add_products(matrix: Tensor, rows: Tensor, sign: int = 1, *, complete: bool = False) -> None:
    """Add (or subtract) rows^T rows in the upper triangle of a symmetric (D, D) matrix; `complete` fills the lower."""
    for start in range(0, matrix.shape[0], _BAND):
        end = start + _BAND
        band = matrix[start:end, start:]
        band.addmm_(rows[:, start:end].mT, rows[:, start:], alpha=sign)
        if complete:
            corner = band[:, :_BAND].triu_()
            corner.add_(corner.triu(1).mT)
            matrix[end:, start:end] = band[:, _BAND:].mT


def gaps_between(means: Tensor, centres: Tensor) -> Tensor:
    """Means minus centres; 0 where rounding alone may have caused the difference."""
    gaps = means - centres
    return torch.where(gaps.abs() <= _SAME * centres.abs(), 0.0, gaps)


def common_means(counts: Tensor, means: Sequence[Tensor]) -> Tensor:
    """(K, D) means over several parts; NaN for classes without samples.

    Summed relative to the first mean of each class: exact if all means of a class are equal.
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
