"""Pairwise measures of the class means, all from one tiled Gram matrix over the upper triangle.

Values of pairs are reduced tile by tile: memory is O(tile^2), never O(K^2). With gradients, tiles are recomputed in the
backward pass instead of stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tightframe.checks import listed
from tightframe.errors import GeometryWarning
from tightframe.metrics.debiasing import mean_errors, warn_of_single_samples
from tightframe.metrics.reductions import LogMoments, Moments, Reduction, Smallest
from tightframe.metrics.tile import Tile
from tightframe.numerics import keep_freed_memory, norms
from tightframe.statistics import ClassStatistics

TILE_SIZE = 512  # a float64 tile of 2 MiB stays in cache
_CLOSE = 100  # means within 100 roundings: the error of their distance may exceed 1 %
_NAMED = 10  # maximum number of sets of coincident classes in a warning


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
