"""`Tile`: cosines and distances of the pairs of two blocks of class means, from one block of their Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from tightframe.numerics import norms

_NEAR = 1e-3  # squared distances below this share of the squared lengths are recomputed from differences
_BLOCK_ENTRIES = 1 << 20  # numbers in one block of recomputed differences


class Tile:
    """The pairs (i, j) of two blocks of centred class means, read by kernels. All values are flat vectors.

    Attributes:
        classes: K, the number of classes with samples.
    """

    def __init__(
        self, left: Tensor, right: Tensor, left_moments: Tensor, right_moments: Tensor, diagonal: bool, classes: int
    ):
        self.classes = classes
        self._left, self._right, self._moments = left, right, (left_moments, right_moments)
        self._upper: tuple[Tensor, Tensor] | None = None
        if diagonal:
            i, j = torch.triu_indices(len(left), len(right), 1, device=left.device)
            self._upper = i, j
        self._gram = self._pick(left @ right.mT)
        self._squares = norms(left).square(), norms(right).square()

    def _pick(self, grid: Tensor) -> Tensor:
        return grid.flatten() if self._upper is None else grid[self._upper]

    def _pairwise(self, left: Tensor, right: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        if self._upper is None:
            return combine(left[:, None], right[None, :]).flatten()
        return combine(left[self._upper[0]], right[self._upper[1]])

    @cached_property
    def mean_variance(self) -> Tensor:
        """Mean of the two classes' variances."""
        left, right = self._moments
        return self._pairwise(left[0] / 2, right[0] / 2, torch.add)

    @cached_property
    def mean_error(self) -> Tensor:
        """Mean of the two classes' `mean_errors`, half of the sampling bias of the squared distance."""
        left, right = self._moments
        return self._pairwise(left[1] / 2, right[1] / 2, torch.add)

    @cached_property
    def squared_distance(self) -> Tensor:
        """|mu_i - mu_j|^2; 0 below the rounding of the features."""
        total = self._pairwise(*self._squares, torch.add)
        return self._mend(torch.sub(total, self._gram, alpha=2), total, None)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine between the centred means; NaN if one has length zero."""
        left, right = self._lengths
        cosines = self._gram * self._pairwise(1 / left, 1 / right, torch.mul)
        one, other = (square.detach() > 0 for square in self._squares)
        if bool(one.all()) and bool(other.all()):
            return cosines
        return torch.where(self._pairwise(one, other, torch.logical_and), cosines, math.nan)

    @cached_property
    def _lengths(self) -> tuple[Tensor, Tensor]:
        """Lengths of the centred means; 1 for length zero, to avoid a gradient 0/0."""
        left, right = (torch.where(square > 0, square, 1.0).sqrt() for square in self._squares)
        return left, right

    @cached_property
    def squared_chord(self) -> Tensor:
        """|u_i - u_j|^2 for the unit vectors of the centred means; 0 below the rounding of the features."""
        two = self._left.new_full((1,), 2.0)
        return self._mend(torch.sub(two, self.cosine, alpha=2), two, self._lengths)

    @cached_property
    def log_squared_chord(self) -> Tensor:
        """Logarithm of `squared_chord`."""
        return self.squared_chord.log()

    @property
    def smallest_angle(self) -> Tensor:
        """(1,) smallest angle in radians; exact everywhere in [0, pi]."""
        chords = self.squared_chord
        nearest = chords.argmin()[None]
        if bool(chords[nearest].isnan()):  # argmin returns a pair without a direction
            nearest = torch.where(chords.isnan(), math.inf, chords).argmin()[None]
        i, j = self._classes(nearest)
        one, other = self._left[i] / self._lengths[0][i, None], self._right[j] / self._lengths[1][j, None]
        angles = 2 * torch.atan2(norms(one - other), norms(one + other))
        angles = torch.where(chords[nearest] == 0, 0.0, angles)
        return torch.where(chords[nearest].isnan(), math.nan, angles)

    def _classes(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Row indices in the two blocks, for indices into the flat values."""
        width = len(self._right)
        if self._upper is None:
            return pairs // width, pairs % width
        return self._upper[0][pairs], self._upper[1][pairs]

    def _mend(self, values: Tensor, scale: Tensor, lengths: tuple[Tensor, ...] | None) -> Tensor:
        """Recompute squared distances far below `scale` from differences, where the Gram form cancels.

        Of the centred means or, if `lengths` are passed, of their unit vectors."""
        if values.detach().amin() >= _NEAR * scale.detach().amax():
            return values
        near = (values.detach() < _NEAR * scale).nonzero().flatten()
        if len(near) == 0:
            return values
        i, j = self._classes(near)
        left, right = self._left, self._right
        rounding = torch.maximum(self._moments[0][2][i], self._moments[1][2][j])
        if lengths is not None:
            left, right = left / lengths[0][:, None], right / lengths[1][:, None]
            shares = self._moments[0][2] / lengths[0], self._moments[1][2] / lengths[1]
            rounding = torch.maximum(shares[0][i], shares[1][j])
        block = max(1, _BLOCK_ENTRIES // left.shape[1])
        blocks = zip(i.split(block), j.split(block), strict=True)
        exact = torch.cat([(left[a] - right[b]).square().sum(1) for a, b in blocks])
        return values.index_put((near,), torch.where(exact > rounding.detach().square(), exact, 0.0))
