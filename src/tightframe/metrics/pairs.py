"""Pairwise measures of the class means, all from one tiled Gram matrix over the upper triangle.

Values of pairs are reduced tile by tile: memory is O(tile^2), never O(K^2). With gradients, tiles are recomputed in the
backward pass instead of stored.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tightframe.checks import listed
from tightframe.errors import GeometryWarning
from tightframe.numerics import keep_freed_memory, norms
from tightframe.statistics import ClassStatistics

TILE_SIZE = 512  # a float64 tile of 2 MiB stays in cache
_NEAR = 1e-3  # squared distances below this share of the squared lengths are recomputed from differences
_BLOCK_ENTRIES = 1 << 20  # numbers in one block of recomputed differences
_CLOSE = 100  # means within 100 roundings: the error of their distance may exceed 1 %
_NAMED = 10  # maximum number of sets of coincident classes in a warning


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


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of the finite values over pairs; population variance.

    `left_out` is the number of values that are not finite, and `rest` their sum: infinity or NaN.
    """

    number: Tensor
    mean: Tensor
    deviations: Tensor
    left_out: Tensor
    rest: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        none = values.new_zeros(())
        mean = values.mean()
        left_out, rest = none, none
        if not mean.isfinite():
            finite = values.isfinite()
            left_out, rest = (~finite).sum().to(values), values.detach()[~finite].sum()
            values = values[finite]
            mean = values.mean() if len(values) else values.sum()
        deviations = values - mean
        return cls(values.new_full((), values.numel()), mean, deviations @ deviations, left_out, rest)

    def merge(self, other: Moments) -> Moments:
        number = self.number + other.number
        gap, share = other.mean - self.mean, other.number / number.clamp(min=1)
        return Moments(
            number,
            self.mean + gap * share,
            self.deviations + other.deviations + gap.square() * (self.number * share),
            self.left_out + other.left_out,
            self.rest + other.rest,
        )

    @property
    def result(self) -> Moments:
        """The moments; NaN if no pair has a value."""
        return self._replace(mean=torch.where(self.number > 0, self.mean, math.nan))

    @property
    def exact(self) -> Moments:
        """The moments of all pairs; infinite or NaN if one value is."""
        several = torch.where(self.left_out > 0, math.nan, 0.0)
        mean = torch.where(self.number > 0, self.mean, 0.0)
        return self._replace(mean=mean + self.rest, deviations=self.deviations + several)

    def standard_deviation(self, ddof: int) -> Tensor:
        """sqrt(deviations / (number - ddof)); its gradient is 0, not NaN, if all values are equal."""
        flat = self.deviations == 0
        root = torch.where(flat, 1.0, self.deviations).sqrt()
        free = self.number - ddof
        return torch.where(free > 0, torch.where(flat, 0.0, root) / free.clamp(min=1).sqrt(), math.nan)

    @property
    def variance(self) -> Tensor:
        return self.deviations / self.number

    @property
    def cv(self) -> Tensor:
        """Population standard deviation over the absolute mean; NaN for a mean of 0."""
        return self.standard_deviation(0) / torch.where(self.mean == 0, math.nan, self.mean.abs())


class LogMoments(NamedTuple):
    """Moments of values from their logarithms, in units of exp(scale), without overflow for any exponent."""

    scale: Tensor
    moments: Moments

    @classmethod
    def of(cls, values: Tensor) -> LogMoments:
        scale = values.detach().amax()
        if not scale.isfinite():
            finite = values.detach()[values.detach().isfinite()]
            if not len(finite):
                return cls(torch.full_like(scale, -math.inf), Moments.of(values.exp()))
            scale = finite.amax()
        return cls(scale, Moments.of((values - scale).exp()))

    def merge(self, other: LogMoments) -> LogMoments:
        scale = torch.maximum(self.scale, other.scale)
        return LogMoments(scale, self._in(scale).merge(other._in(scale)))

    def _in(self, scale: Tensor) -> Moments:
        factor = torch.where(self.moments.number > 0, (self.scale - scale).exp(), 1.0)
        return self.moments._replace(
            mean=self.moments.mean * factor, deviations=self.moments.deviations * factor.square()
        )

    @property
    def result(self) -> LogMoments:
        """The moments; NaN if no pair has a value."""
        scale = torch.where(self.moments.number > 0, self.scale, 0.0)
        return LogMoments(scale, self.moments.result)

    @property
    def exact(self) -> LogMoments:
        """The moments of all pairs; infinite or NaN if one value is."""
        return self._replace(moments=self.moments.exact)

    @property
    def log_mean(self) -> Tensor:
        return self.scale + self.moments.mean.log()

    @property
    def mean(self) -> Tensor:
        """The mean, which may overflow to infinity although its logarithm is finite."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.moments.variance * (2 * self.scale).exp()

    @property
    def cv(self) -> Tensor:
        """Population standard deviation over the mean."""
        return self.moments.cv


class Smallest(NamedTuple):
    """The smallest value over pairs; NaN values are ignored."""

    value: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Smallest:
        least = values.amin()
        return cls(torch.where(values.isnan(), math.inf, values).amin() if least.isnan() else least)

    def merge(self, other: Smallest) -> Smallest:
        return Smallest(torch.minimum(self.value, other.value))

    @property
    def result(self) -> Smallest:
        """The smallest value; NaN if no pair has a value."""
        return Smallest(torch.where(self.value.isfinite(), self.value, math.nan))


Reduction = Moments | LogMoments | Smallest


@dataclass(frozen=True)
class Kernel:
    """A function of pairs of classes, and the reduction over all pairs; `directed` if it reads directions."""

    value: Callable[[Tile], Tensor]
    reduction: type[Moments] | type[LogMoments] | type[Smallest] = Moments
    debiased: bool = False
    directed: bool = False


class OverPairs(NamedTuple):
    """A scalar over all pairs: a kernel, and a function of its reduction."""

    kernel: Kernel
    read: Callable[[Any], Tensor]


def cdnv_kernel(distance_exponent: float) -> Kernel:
    """(v_i + v_j) / (2 |mu_i - mu_j|^distance_exponent)."""
    if distance_exponent == 2:
        return Kernel(lambda tile: quotient(tile.mean_variance, tile.squared_distance))
    return Kernel(lambda tile: quotient(tile.mean_variance, tile.squared_distance ** (distance_exponent / 2)))


def quotient(variance: Tensor, power: Tensor) -> Tensor:
    """variance / power; infinity or NaN, without a gradient, where the power is 0."""
    if bool(power.detach().amin() > 0):
        return variance / power
    apart = power.detach() > 0
    return torch.where(apart, variance / torch.where(apart, power, 1.0), variance.detach() / 0)


def debiased_ratio(variance: Tensor, squared_distance: Tensor, error: Tensor) -> Tensor:
    """s^2 / (squared distance - 2 error), with the unbiased variance s^2; flat vectors, means over a pair's classes.

    NaN if the corrected distance is not positive, or a class has no variance (one sample).
    """
    corrected = squared_distance - 2 * error
    defined = corrected > 0
    ratio = torch.where(defined, variance + error, 0.0) / torch.where(defined, corrected, 1.0)
    return torch.where(defined, ratio, math.nan)


def riesz(exponent: float) -> Kernel:
    """Logarithm of |u_i - u_j|^-exponent."""
    return Kernel(lambda tile: tile.log_squared_chord * (-exponent / 2), LogMoments, directed=True)


CDNV_DEBIASED = Kernel(lambda t: debiased_ratio(t.mean_variance, t.squared_distance, t.mean_error), debiased=True)
COSINE = Kernel(lambda tile: tile.cosine, directed=True)
ANGLE_DEVIATION = Kernel(lambda tile: (tile.cosine + 1 / (tile.classes - 1)).abs(), directed=True)
DISTANCE = Kernel(lambda tile: tile.squared_chord.sqrt(), directed=True)
LOG = Kernel(lambda tile: tile.log_squared_chord / -2, directed=True)
NEAREST = Kernel(lambda tile: tile.smallest_angle, Smallest, directed=True)


def over_pairs(
    statistics: ClassStatistics, *measures: OverPairs, tile_size: int = TILE_SIZE, classes: Tensor | None = None
) -> list[Tensor]:
    """Scalars over all pairs i < j of classes with samples, from one Gram matrix; undefined pairs are left out.

    GeometryWarnings list classes with coincident means and the number of pairs left out.

    Args:
        classes: indices among the classes with samples; only their pairs count. Means are centred by the mean of all.

    Raises: EmptyClassError if fewer than two classes have samples.
    """
    statistics = statistics.populated()
    warn_of_close_means(statistics)
    kernels = {str(id(each.kernel)): each.kernel for each in measures}  # one reduction per kernel
    debiased = any(kernel.debiased for kernel in kernels.values())
    if debiased:
        warn_of_single_samples(statistics)
    moments = class_moments(statistics, debiased=debiased)
    vectors = statistics.centred_means()
    if classes is not None:
        vectors, moments = vectors[classes], moments[:, classes]
    reduced = reduce_vectors(vectors, kernels, tile_size, moments)
    for name, kernel in kernels.items():
        if kernel.debiased and classes is None:
            _warn_of_undefined(statistics, reduced[name])
    directed = [reduced[name] for name, kernel in kernels.items() if kernel.directed]
    if directed:
        _warn_of_directions(statistics, directed)
    return [each.read(reduced[str(id(each.kernel))]) for each in measures]


def _warn_of_undefined(statistics: ClassStatistics, reduced: Reduction) -> None:
    """Warn about pairs of classes whose debiased squared distance is not positive."""
    assert isinstance(reduced, Moments)
    several = int((statistics.counts > 1).sum()) if not statistics.recentred else statistics.num_classes
    undefined = several * (several - 1) // 2 - int(reduced.number)
    if undefined > 0:
        warnings.warn(
            f"{undefined} of {undefined + int(reduced.number)} pairs of class means are not further apart than two "
            "means of one class are by chance; the debiased CDNV leaves out these pairs. Collect more samples per "
            "class to distinguish them.",
            GeometryWarning,
            stacklevel=4,
        )


def _warn_of_directions(statistics: ClassStatistics, directed: list[Reduction]) -> None:
    """Warn about class means without a direction, and about pairs in one direction with infinite kernels."""
    lost = norms(statistics.centred_means().detach()) == 0
    nowhere, classes = statistics.class_ids[lost].tolist(), statistics.num_classes
    if len(nowhere) == classes:
        return  # all means coincide: `warn_of_close_means` says so
    pairs = len(nowhere) * (2 * classes - len(nowhere) - 1) // 2
    if nowhere:
        warnings.warn(
            f"some class means equal the mean of class means and have no direction; measures of directions leave out "
            f"{pairs} pairs. Classes: {listed(nowhere)}.",
            GeometryWarning,
            stacklevel=4,
        )
    moments = [each.moments if isinstance(each, LogMoments) else each for each in directed]
    infinite = max((int(each.left_out) for each in moments if isinstance(each, Moments)), default=0) - pairs
    if infinite <= 0:
        return
    equal = [[label for label in each if label not in nowhere] for each in statistics.coincident()]
    if (together := infinite - _pairs(equal)) > 0:
        warnings.warn(
            f"{together} pairs of distinct class means have equal directions from the mean of class means; measures "
            "that are infinite there leave out these pairs.",
            GeometryWarning,
            stacklevel=4,
        )


def class_moments(statistics: ClassStatistics, *, debiased: bool = False) -> Tensor:
    """(3, K): variance, `mean_errors` (0 unless debiased) and rounding of each class, read by `Tile`."""
    errors = mean_errors(statistics) if debiased else torch.zeros_like(statistics.spread)
    return torch.stack([statistics.variances, errors, statistics.rounding])


def mean_errors(statistics: ClassStatistics) -> Tensor:
    """(K,) expected squared error of each class mean, s^2 / n with s^2 = spread / (n - 1); NaN for one sample.

    Zero about given centres (`ClassStatistics.about`), whose error is unknown.
    """
    if statistics.recentred:
        return torch.zeros_like(statistics.spread)
    counts = statistics.counts
    several = counts > 1
    return torch.where(several, statistics.spread / torch.where(several, counts * (counts - 1), 1), math.nan)


def warn_of_single_samples(statistics: ClassStatistics) -> None:
    """Warn about classes with one sample: they have no variance, so debiased measures leave them out."""
    single = statistics.class_ids[statistics.counts == 1]
    if len(single) and not statistics.recentred:
        warnings.warn(
            f"debiased measures leave out {len(single)} of {statistics.num_classes} classes, because a single sample "
            f"has no variance: {listed(single.tolist())}.",
            GeometryWarning,
            stacklevel=4,
        )


def warn_of_close_means(statistics: ClassStatistics) -> None:
    """Warn about classes whose means coincide, or are so close that rounding of the features affects distances."""
    if not len(close := statistics.coincident(_CLOSE)):
        return
    equal = statistics.coincident()
    near = [each for each in close if each not in equal]
    for classes, what in (
        (equal, f"coincide up to rounding of the features; measures over pairs leave out {_pairs(equal)} pairs"),
        (near, f"lie within {_CLOSE} times the features' rounding of each other; their distances are inexact"),
    ):
        if classes:
            named = "; ".join(listed(each) for each in classes[:_NAMED]) + ("; ..." if len(classes) > _NAMED else "")
            warnings.warn(f"the means of these classes {what}: {named}.", GeometryWarning, stacklevel=5)


def _pairs(sets: list[list[int]]) -> int:
    return sum(len(each) * (len(each) - 1) // 2 for each in sets)


def gaps_to(statistics: ClassStatistics, row: int) -> Tensor:
    """(K, D) class means minus the mean of class `row`; 0 below the rounding of the features."""
    gaps = statistics.means - statistics.means[row]
    rounding = torch.maximum(statistics.rounding, statistics.rounding[row])
    return torch.where((norms(gaps.detach()) <= rounding)[:, None], 0.0, gaps)


def reduce_vectors(
    vectors: Tensor,
    kernels: Mapping[str, Kernel],
    tile_size: int = TILE_SIZE,
    moments_of_classes: Tensor | None = None,
) -> dict[str, Reduction]:
    """Reduce each kernel over all pairs of (K, D) vectors; `moments_of_classes` are their `class_moments`."""
    if len(vectors) > tile_size:
        keep_freed_memory()
    spreads = vectors.new_zeros(3, len(vectors)) if moments_of_classes is None else moments_of_classes
    tracked = torch.is_grad_enabled() and (vectors.requires_grad or spreads.requires_grad)
    classes = len(vectors)

    def tile(left: Tensor, right: Tensor, left_moments: Tensor, right_moments: Tensor, diag: bool) -> list[Reduction]:
        pairs = Tile(left, right, left_moments, right_moments, diag, classes)
        return [kernel.reduction.of(kernel.value(pairs)) for kernel in kernels.values()]

    total: list[Reduction] | None = None
    for start in range(0, classes, tile_size):
        for other in range(start, classes, tile_size):
            if other == start and min(tile_size, classes - start) == 1:
                continue  # one class has no pairs
            rows, columns = slice(start, start + tile_size), slice(other, other + tile_size)
            arguments = vectors[rows], vectors[columns], spreads[:, rows], spreads[:, columns], start == other
            part = checkpoint(tile, *arguments, use_reentrant=False) if tracked else tile(*arguments)
            total = part if total is None else [a.merge(b) for a, b in zip(total, part, strict=True)]
    assert total is not None
    return dict(zip(kernels, (each.result for each in total), strict=True))
