"""`Setting`: class sizes and dimension, and how centred means of Gaussian features lie to each other there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # one object for equal settings, see `_setting`
class Setting:
    """Counts and dimension of a data set, classes without samples left out: K classes, N samples, D dimensions.

    Attributes:
        sizes: the distinct class sizes; many: how many classes have each.
    """

    sizes: Array
    many: Array
    D: int

    @classmethod
    def of(cls, counts: Sequence[int] | Tensor, dim: int) -> Setting:
        values = np.asarray(counts.detach().cpu() if isinstance(counts, Tensor) else counts, dtype=np.float64)
        sizes, many = np.unique(values[values > 0], return_counts=True)
        return _setting(tuple(sizes.tolist()), tuple(many.tolist()), dim)

    @property
    def evened(self) -> Setting:
        """As many classes, all of one size."""
        return _setting((1.0,), (float(self.K),), self.D)

    @cached_property
    def K(self) -> int:
        return int(self.many.sum())

    @cached_property
    def N(self) -> int:
        return int(self.many @ self.sizes)

    @property
    def counts(self) -> Array:
        """(K,) the sizes of all classes, ascending."""
        return np.repeat(self.sizes, self.many.astype(np.int64))

    @property
    def balanced(self) -> bool:
        return len(self.sizes) == 1

    @property
    def rank(self) -> int:
        """Largest possible rank of the centred class means."""
        return min(self.K - 1, self.D)

    def inverse_sum(self, power: int) -> float:
        """Sum over classes of 1 / n_k^power: class means of unit Gaussians have variance 1 / n_k."""
        return float(self.many @ self.sizes**-power)

    def mean_of_pairs(self, value: Callable[[Array, Array], Array]) -> float:
        """Mean over pairs of classes of a symmetric function of their sizes, a row of sizes at a time."""
        total = 0.0
        for index, size in enumerate(self.sizes):
            weights = self.many * self.many[index]
            weights[index] -= self.many[index]
            total += float(weights @ value(np.full_like(self.sizes, size), self.sizes))
        return total / (self.K * (self.K - 1))

    @cached_property
    def correlations(self) -> tuple[Array, Array]:
        """Correlations between the coordinates of two centred Gaussian means, and the share of pairs that has each.

        Means of n samples have variance 1/n and are centred by the mean of all K. Unequal counts give many values; they
        are put onto a fixed grid, each split between its neighbours.
        """
        if self.balanced:
            return np.array([-1 / (self.K - 1)]), np.ones(1)
        first, second = self.inverse_sum(1) / self.K**2, 1 / self.K
        own = (1 - 2 * second) / self.sizes + first
        shares = np.zeros(_GRID + 1)
        for index, size in enumerate(self.sizes):
            weights = self.many * self.many[index]
            weights[index] -= self.many[index]
            values = (first - second / size - second / self.sizes) / np.sqrt(own[index] * own)
            places = (values.clip(-1, 1) + 1) * (_GRID / 2)
            lower = places.astype(np.int64).clip(0, _GRID - 1)
            shares += np.bincount(lower, weights * (lower + 1 - places), _GRID + 1)
            shares += np.bincount(lower + 1, weights * (places - lower), _GRID + 1)
        grid = np.linspace(-1, 1, _GRID + 1) * (1 - 1e-6)  # parallel vectors have no density
        return grid[shares > 0], shares[shares > 0] / shares.sum()

    @cached_property
    def angles(self) -> tuple[Array, Array]:
        """Angles between two centred Gaussian means, ascending, and the share of pairs that has each."""
        if self.K == 2:
            return np.array([math.pi]), np.ones(1)
        correlations, shares = self.correlations
        if self.D == 1:
            parallel = float(shares @ (0.5 + np.arcsin(correlations) / math.pi))
            return np.array([0, math.pi]), np.array([parallel, 1 - parallel])
        density = np.zeros(_NODES)
        for correlation, share in zip(correlations, shares, strict=True):
            density += share * _angle_law(float(correlation), self.D)
        return _ANGLES, density

    def mean_of_angles(self, value: Callable[[Array], Array], moment: int = 1) -> float:
        """Mean over pairs of a function of the angle between their centred Gaussian means; of its square for 2."""
        angles, shares = self.angles
        with np.errstate(all="ignore"):
            return float(shares @ value(angles) ** moment)


@lru_cache(maxsize=32)  # the metrics of one report share what is derived from their counts
def _setting(sizes: tuple[float, ...], many: tuple[float, ...], dim: int) -> Setting:
    return Setting(np.array(sizes), np.array(many), dim)


_GRID = 128  # steps between the correlations -1 and 1
_NODES = 4096
_STEPS = (np.arange(_NODES) + 0.5) / _NODES
_ANGLES = math.pi * _STEPS**2 * (3 - 2 * _STEPS)  # of the midpoint rule, densest where pairs are nearest


def _angle_law(correlation: float, dim: int) -> Array:
    """Probabilities of `_ANGLES` between two Gaussian vectors in D >= 2 dimensions with correlated coordinates.

    Hotelling's density of a correlation coefficient without means subtracted, up to the factor that makes it one:
    sin^(D-2) t (1 - rho r)^(1/2 - D) F(1/2, 1/2; D + 1/2; (1 + rho r)/2) with r = cos t.
    """
    cosines = np.cos(_ANGLES)
    argument = (1 + correlation * cosines) / 2
    term = series = np.ones(_NODES)
    for k in range(400):  # enough for a ten-thousandth at D = 2, and far fewer terms at larger D
        term = term * argument * ((k + 0.5) ** 2 / ((k + 1) * (k + dim + 0.5)))
        series = series + term
        if term.max() < 1e-12 * series.max():
            break
    logs = (dim - 2) * np.log(np.sin(_ANGLES)) - (dim - 0.5) * np.log1p(-correlation * cosines) + np.log(series)
    density = np.exp(logs - logs.max()) * _STEPS * (1 - _STEPS)
    return np.asarray(density / density.sum())
