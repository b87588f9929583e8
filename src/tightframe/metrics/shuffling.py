"""Statistics with shuffled labels, drawn from the collected moments alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.metrics.total_scatter import inverse_near_total
from tightframe.statistics import ClassStatistics


class Draw(NamedTuple):
    """Statistics with shuffled labels, and a factor of the scatter of their samples."""

    statistics: ClassStatistics
    factor: _Factor | _Sphere

    def samples(self, labels: Tensor, noise: Noise, *, complete: bool = False) -> Tensor:
        """(n, D) float32 samples about their class means; `labels` are row indices of the classes.

        Each sample is part of its class mean.

        Args:
            complete: whether these are all samples of the statistics; the samples of a class then average to its mean.
        """
        counts, samples = self.statistics.counts, int(self.statistics.num_samples)
        around = self.factor.scattered(noise, max(samples - len(counts), 1) ** -0.5)
        if complete:
            sums = around.new_zeros(len(counts), around.shape[1]).index_add_(0, labels, around)
            around -= (sums / counts[:, None])[labels]
        else:
            around *= (1 - 1 / counts).sqrt().float()[labels, None]
        return around.add_(self.statistics.means.float()[labels])


class Noise(NamedTuple):
    """(n, r) Gaussian numbers, and their product with the root of the total scatter; float32, shared by all draws."""

    plain: Tensor
    coloured: Tensor

    def some(self, number: int, generator: torch.Generator) -> Noise:
        """A random subset of `number` rows."""
        if number == len(self.plain):
            return self
        subset = torch.randperm(len(self.plain), generator=generator, device=self.plain.device)[:number]
        return Noise(self.plain[subset], self.coloured[subset])


class _Factor(NamedTuple):
    """A square root of the drawn within-class scatter: (I - B^T P B) L^T, or R^T C^-1 L^T.

    Attributes:
        left, right: B and L^T, or R^T C^-1 and L^T; product: left @ right.
        inner: P.
    """

    left: Tensor
    right: Tensor
    product: Tensor
    inner: Tensor | None

    def scattered(self, noise: Noise, scale: float) -> Tensor:
        """(n, D) float32 rows with this scatter times the square of `scale`."""
        product = self.product.float() * scale
        if self.inner is None:
            return noise.plain[:, : len(self.left)] @ product
        along = (self.left.mT @ self.inner).float()
        return torch.addmm(noise.coloured, noise.plain @ along, product, beta=scale, alpha=-1)

    def noise(self, number: int, generator: torch.Generator) -> Noise:
        root = self.right.float()
        plain = _normal((number, len(root)), root, generator)
        return Noise(plain, plain @ root)

    def around(self, generator: torch.Generator) -> Tensor:
        """(D,) a random row with the total scatter."""
        return (_normal((1, len(self.right)), self.right, generator) @ self.right)[0]


class _Sphere(NamedTuple):
    """Isotropic within-class and total scatter of a draw.

    Attributes:
        within, total: scatter along one direction, 0-d, in the dtype and on the device of the statistics.
    """

    dim: int
    within: Tensor
    total: Tensor

    def scattered(self, noise: Noise, scale: float) -> Tensor:
        return noise.plain * (scale * float(self.within) ** 0.5)

    def noise(self, number: int, generator: torch.Generator) -> Noise:
        plain = _normal((number, self.dim), self.within.float(), generator)
        return Noise(plain, plain)

    def around(self, generator: torch.Generator) -> Tensor:
        return _normal((1, self.dim), self.within, generator)[0] * self.total.sqrt()


def shuffled(statistics: ClassStatistics, draws: int, *, seed: int = 0, class_scatter: bool = False) -> Iterator[Draw]:
    """Random statistics of the same samples with shuffled labels, drawn from the moments alone; classes with samples.

    Exact for Gaussian features at any N, D, K and counts, where a random rotation of sample space has the same effect
    as a permutation; for other features within sampling error of true permutations. Without scatter the features are
    assumed isotropic about their mean. Statistics about given centres are drawn from the scatter about these centres.

    Args:
        class_scatter: whether to draw the scatter per class, K x D x D.

    Source: distribution of means and scatter for a fixed total scatter (Wishart; Bartlett 1933).

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.metrics import shuffled
    >>> features, labels = torch.randn(90, 4), torch.arange(90) % 3
    >>> drawn = next(shuffled(ClassStatistics.from_features(features, labels, 3), 1)).statistics
    >>> drawn.counts.tolist(), drawn.means.shape
    ([30, 30, 30], torch.Size([3, 4]))
    """
    shuffling = Shuffling(statistics, class_scatter=class_scatter)
    generator = torch.Generator(statistics.means.device).manual_seed(seed)
    for _ in range(draws):
        yield shuffling.draw(generator)


class Shuffling:
    """The quantities shared by all draws: the total scatter and its root."""

    def __init__(self, statistics: ClassStatistics, *, class_scatter: bool):
        statistics = statistics.detach().populated()
        self._statistics, self._class_scatter = statistics, class_scatter
        self._counts, self._samples = statistics.counts.to(torch.float64), int(statistics.num_samples)
        self._roots = self._counts.sqrt()[:, None]
        self._mean = statistics.global_mean("sample")
        self._gaps = (statistics.means - self._mean) * self._roots
        self._total: Tensor | None = None
        self._root: Tensor | None = None
        if statistics.within is not None or statistics.class_within is not None:
            self._total = statistics.require_within("shuffling") + self._gaps.mT @ self._gaps
            self._root = _root(self._total, self._samples - 1)
            self._trace = float(self._root.square().sum())
        else:
            self._trace = float(statistics.spread.sum() + self._gaps.square().sum())
        self._scattered = float(statistics.num_features)
        if self._total is not None and self._trace > 0:
            self._scattered = self._trace**2 / float(self._total.square().sum())

    def draw(self, generator: torch.Generator) -> Draw:
        """One draw; advances the generator."""
        statistics, counts, samples = self._statistics, self._counts, self._samples
        factor: _Factor | _Sphere
        if self._root is not None:
            between, factor = _between(counts, samples, self._root, generator)
        else:
            between, factor = _isotropic(counts, samples, self._gaps, self._trace, generator)
        spread = max(self._trace - float(between.square().sum()), 0.0)
        shares = _shares(counts - 1, self._scattered, generator)
        within = class_within = None
        if self._total is not None and isinstance(factor, _Factor):
            within = _within(self._total, between, factor, samples - statistics.num_classes)
            class_within = shares[:, None, None] * within if self._class_scatter else None
        drawn = replace(
            statistics,
            means=self._mean + between / self._roots,
            spread=spread * shares,
            within=within,
            class_within=class_within,
            product_epsilon=0.0,
        )
        inverse_near_total(drawn, lambda: self._inverse)
        return Draw(drawn, factor)

    @cached_property
    def _inverse(self) -> Tensor | None:
        """The inverse of the covariance of all samples; None if its root is not triangular."""
        if self._root is None or len(self._root) < self._root.shape[1] or self._root.tril(-1).any():
            return None
        return torch.cholesky_inverse(self._root, upper=True).mT * self._samples  # symmetric; .mT is row-contiguous


def _shares(degrees: Tensor, dims: float, generator: torch.Generator) -> Tensor:
    """(K,) random share of each class in the scatter, from its degrees of freedom; 0 for single samples.

    Dirichlet distributed; exact for features with equal scatter in `dims` dimensions."""
    parts = torch._standard_gamma((degrees * dims / 2).clamp(min=1e-9), generator=generator)
    parts = torch.where(degrees > 0, parts, 0.0)
    return parts / parts.sum().clamp(min=torch.finfo(parts.dtype).tiny)


def _root(total: Tensor, most: int) -> Tensor:
    """(r, D) matrix R with R^T R = `total`; r is its rank, limited to `most` = N - 1."""
    dim = len(total)
    if most >= dim and numerics.lowered_factor(total) is not None:
        return torch.linalg.cholesky(total).mT
    values, vectors = torch.linalg.eigh(total)
    positive = values > numerics.rank_tolerance(total) * values[-1]
    positive[: max(dim - most, 0)] = False
    return (vectors[:, positive] * values[positive].sqrt()).mT


def _isotropic(
    counts: Tensor, samples: int, like: Tensor, trace: float, generator: torch.Generator
) -> tuple[Tensor, _Sphere]:
    """`_between` for features from an isotropic population, with the trace of their total scatter.

    The sample's scatter itself is not isotropic: N samples in D >= N dimensions span only N - 1.
    """
    classes, dim = like.shape
    axis = (counts / samples).sqrt()
    rows = _normal((classes, dim), like, generator)
    rows = rows - torch.outer(axis, axis @ rows)
    between = rows.square().sum()
    within = 2 * torch._standard_gamma(between.new_full((), (samples - classes) * dim / 2), generator=generator)
    size = trace / (between + within)
    return rows * size.sqrt(), _Sphere(dim, size * within / dim, size.new_tensor(trace / dim))


def _between(counts: Tensor, samples: int, root: Tensor, generator: torch.Generator) -> tuple[Tensor, _Factor]:
    """(K, D) drawn class means, centred by the samples' mean and times sqrt(counts); and the scatter's factor."""
    classes, rank = len(counts), len(root)
    axis = (counts / samples).sqrt()
    if classes - 1 <= rank:
        rows = _normal((classes - 1, rank), root, generator)
        gram = rows @ rows.mT + _wishart(classes - 1, samples - 1 - rank, root, generator)
        lower = torch.linalg.cholesky(gram)
        rows = torch.linalg.solve_triangular(lower, rows, upper=False)
        squares, vectors = torch.linalg.eigh(rows @ rows.mT)
        inner = (vectors / (1 + (1 - squares).clamp(min=0).sqrt())) @ vectors.mT
        product = rows @ root
        return numerics.from_contrasts(product, axis), _Factor(rows, root, product, inner)
    rows = _normal((classes, rank), root, generator)
    rows = rows - torch.outer(axis, axis @ rows)
    inside = _wishart_root(rank, samples - classes, root, generator)
    lower = torch.linalg.cholesky(rows.mT @ rows + inside @ inside.mT)
    means = torch.linalg.solve_triangular(lower, rows.mT, upper=False).mT @ root
    inside = torch.linalg.solve_triangular(lower, inside, upper=False).mT
    return means, _Factor(inside, root, inside @ root, None)


def _within(total: Tensor, between: Tensor, factor: _Factor, degrees: int) -> Tensor:
    """The drawn within-class scatter; as a product if the difference could have negative eigenvalues."""
    if degrees == 0:
        return torch.zeros_like(total)
    if factor.inner is None:
        rows = factor.product
    elif degrees >= len(factor.right):
        return total - between.mT @ between
    else:
        rows = factor.right - factor.left.mT @ (factor.inner @ factor.product)
    return rows.mT @ rows


def _wishart(size: int, degrees: int, like: Tensor, generator: torch.Generator) -> Tensor:
    root = _wishart_root(size, degrees, like, generator)
    return root @ root.mT


def _wishart_root(size: int, degrees: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """(size, m) matrix R with R R^T Wishart distributed: Bartlett's triangle, or Gaussian columns for few degrees."""
    if degrees < size:
        return _normal((size, max(degrees, 0)), like, generator)
    freedom = degrees - torch.arange(size, dtype=like.dtype, device=like.device)
    triangle = _normal((size, size), like, generator).tril(-1)
    chi = (2 * torch._standard_gamma(freedom / 2, generator=generator)).sqrt()
    return triangle + torch.diag(chi)


def _normal(shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
