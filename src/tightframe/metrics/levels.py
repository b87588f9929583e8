"""Levels: what a metric gives where labels carry no information about the features, and how much nearer a value is.

Evidence with shuffled labels is drawn from the moments that the pass kept, and the metric itself is evaluated on it. No
formula of a metric's own is needed, and none assumes isotropic features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.decisions import DecisionCounts
from tightframe.evidence import Evidence, totals_of
from tightframe.metrics.metric import Metric, Setting
from tightframe.metrics.metric import plain as unscaled
from tightframe.metrics.pairs import Smallest
from tightframe.metrics.shared import inverse_near_total
from tightframe.metrics.table import _over_pairs, available, chosen, evaluate, pairwise
from tightframe.sections import times
from tightframe.statistics import ClassStatistics

MANY = 2000
"""Classes above which measures over pairs are drawn for those of a random thousand, and the smallest has no level."""

DRAWS = ((1e5, 64), (5e5, 16), (math.inf, 4))
"""How many are drawn unless the caller says otherwise, up to so many numbers in the class means and a quarter of the
scatter."""

_SOME = 1000
_ROWS = 2000  # drawn samples that are decided on, at most
_ENTRIES = 1 << 22  # numbers in these samples, at most, as long as there are some
_COSTLY = 16  # draws at most of metrics that are left out where there are many classes
_FEWEST, _RANDOM_NUMBERS = 4, 1 << 28  # draws of random classifiers at least, and numbers in all of them at most

# ---------------------------------------------------------------------- drawing statistics


class Draw(NamedTuple):
    """Statistics with shuffled labels, and what their samples scatter like."""

    statistics: ClassStatistics
    factor: _Factor | _Sphere

    def samples(self, labels: Tensor, noise: _Noise, *, complete: bool = False) -> Tensor:
        """(n, D) float32 samples of classes given by row, each about the mean of its class, which it is a part of.

        Args:
            complete: whether these are all samples of the statistics, so that those of a class have its mean.
        """
        counts, samples = self.statistics.counts, int(self.statistics.num_samples)
        around = self.factor.scattered(noise, max(samples - len(counts), 1) ** -0.5)
        if complete:
            sums = around.new_zeros(len(counts), around.shape[1]).index_add_(0, labels, around)
            around -= (sums / counts[:, None])[labels]
        else:
            around *= (1 - 1 / counts).sqrt().float()[labels, None]
        return around.add_(self.statistics.means.float()[labels])


class _Noise(NamedTuple):
    """(n, r) Gaussian numbers, and these times the root of the total scatter; float32, the same for all draws."""

    plain: Tensor
    coloured: Tensor

    def some(self, number: int, generator: torch.Generator) -> _Noise:
        """Random rows of it: the rest of the draws get others."""
        if number == len(self.plain):
            return self
        chosen = torch.randperm(len(self.plain), generator=generator, device=self.plain.device)[:number]
        return _Noise(self.plain[chosen], self.coloured[chosen])


class _Factor(NamedTuple):
    """A square root of the drawn scatter within classes: (I - B^T P B) L^T, or R^T C^-1 L^T.

    Attributes:
        left, right: B and L^T, or R^T C^-1 and L^T; product: of both.
        inner: P.
    """

    left: Tensor
    right: Tensor
    product: Tensor
    inner: Tensor | None

    def scattered(self, noise: _Noise, scale: float) -> Tensor:
        """(n, D) float32 rows of this scatter times the square of `scale`."""
        product = self.product.float() * scale
        if self.inner is None:
            return noise.plain[:, : len(self.left)] @ product
        along = (self.left.mT @ self.inner).float()
        return torch.addmm(noise.coloured, noise.plain @ along, product, beta=scale, alpha=-1)

    def noise(self, number: int, generator: torch.Generator) -> _Noise:
        root = self.right.float()
        plain = _normal((number, len(root)), root, generator)
        return _Noise(plain, plain @ root)

    def around(self, generator: torch.Generator) -> Tensor:
        """(D,) a row of the total scatter."""
        return (_normal((1, len(self.right)), self.right, generator) @ self.right)[0]


class _Sphere(NamedTuple):
    """The drawn scatter within classes, and the total, the same along any direction.

    Attributes:
        within, total: scalars, along one direction; of the dtype and on the device of the statistics.
    """

    dim: int
    within: Tensor
    total: Tensor

    def scattered(self, noise: _Noise, scale: float) -> Tensor:
        return noise.plain * (scale * float(self.within) ** 0.5)

    def noise(self, number: int, generator: torch.Generator) -> _Noise:
        plain = _normal((number, self.dim), self.within.float(), generator)
        return _Noise(plain, plain)

    def around(self, generator: torch.Generator) -> Tensor:
        return _normal((1, self.dim), self.within, generator)[0] * self.total.sqrt()


def shuffled(statistics: ClassStatistics, draws: int, *, seed: int = 0, class_scatter: bool = False) -> Iterator[Draw]:
    """Statistics of the same samples with their labels shuffled, from these moments alone; classes with samples only.

    Exact for Gaussian features at any N, D, K and counts, where a random rotation of sample space is as good as a
    permutation; for others within sampling error of true permutations. Without scatter the features are taken to be
    isotropic about their mean. Statistics about given centres are drawn from the scatter about these.

    Args:
        class_scatter: whether the values have the scatter of each class, K x D x D.

    Source: the distribution of means and scatter given the total scatter (Wishart; Bartlett 1933).

    >>> features, labels = torch.randn(90, 4), torch.arange(90) % 3
    >>> drawn = next(shuffled(ClassStatistics.from_features(features, labels, 3), 1)).statistics
    >>> drawn.counts.tolist(), drawn.means.shape
    ([30, 30, 30], torch.Size([3, 4]))
    """
    shuffling = _Shuffling(statistics, class_scatter=class_scatter)
    generator = torch.Generator(statistics.means.device).manual_seed(seed)
    for _ in range(draws):
        yield shuffling.draw(generator)


class _Shuffling:
    """What all draws of some statistics have in common: the total scatter and its root."""

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
        """One draw; it moves the generator on."""
        statistics, counts, samples = self._statistics, self._counts, self._samples
        factor: _Factor | _Sphere
        if self._root is not None:
            between, factor = _between(counts, samples, self._root, generator)
        else:
            between, factor = _isotropic(counts, samples, self._gaps, self._trace, generator)
        left = max(self._trace - float(between.square().sum()), 0.0)
        shares = _shares(counts - 1, self._scattered, generator)
        within = class_within = None
        if self._total is not None and isinstance(factor, _Factor):
            within = _within(self._total, between, factor, samples - statistics.num_classes)
            class_within = shares[:, None, None] * within if self._class_scatter else None
        drawn = replace(
            statistics,
            means=self._mean + between / self._roots,
            spread=left * shares,
            within=within,
            class_within=class_within,
            product_epsilon=0.0,
        )
        inverse_near_total(drawn, lambda: self._inverse)
        return Draw(drawn, factor)

    @cached_property
    def _inverse(self) -> Tensor | None:
        """The inverse of the covariance of all samples; None where its root isn't a triangle."""
        if self._root is None or len(self._root) < self._root.shape[1] or self._root.tril(-1).any():
            return None
        return torch.cholesky_inverse(self._root, upper=True).mT * self._samples  # symmetric; .mT has rows together


def _shares(degrees: Tensor, dims: float, generator: torch.Generator) -> Tensor:
    """(K,) of the scatter by class, for so many degrees of freedom each: Dirichlet, exact for features that scatter
    alike in `dims` dimensions; 0 for single samples."""
    parts = torch._standard_gamma((degrees * dims / 2).clamp(min=1e-9), generator=generator)
    parts = torch.where(degrees > 0, parts, 0.0)
    return parts / parts.sum().clamp(min=torch.finfo(parts.dtype).tiny)


def _root(total: Tensor, most: int) -> Tensor:
    """(r, D) with R^T R the total scatter, r its rank, at most N - 1."""
    dim = len(total)
    if most >= dim and numerics.lowered_factor(total) is not None:
        return torch.linalg.cholesky(total).mT
    values, vectors = torch.linalg.eigh(total)
    kept = values > numerics.rank_tolerance(total) * values[-1]
    kept[: max(dim - most, 0)] = False
    return (vectors[:, kept] * values[kept].sqrt()).mT


def _isotropic(
    counts: Tensor, samples: int, like: Tensor, trace: float, generator: torch.Generator
) -> tuple[Tensor, _Sphere]:
    """As `_between`, of features from an isotropic population, where only the trace of their scatter is given.

    Their scatter itself isn't isotropic: N samples in D >= N dimensions span N - 1 only.
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
    """(K, D) drawn class means about the samples' mean, times the roots of the counts; and the scatter's factor."""
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
    """The drawn scatter within classes; as a product where the difference would have eigenvalues below 0."""
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
    """(size, m) with R R^T of the Wishart distribution: Bartlett's triangle, or Gaussian columns if these are fewer."""
    if degrees < size:
        return _normal((size, max(degrees, 0)), like, generator)
    freedom = degrees - torch.arange(size, dtype=like.dtype, device=like.device)
    triangle = _normal((size, size), like, generator).tril(-1)
    chi = (2 * torch._standard_gamma(freedom / 2, generator=generator)).sqrt()
    return triangle + torch.diag(chi)


def _normal(shape: tuple[int, int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)


# ---------------------------------------------------------------------- levels


@dataclass(frozen=True)
class Level:
    """What a metric gives where labels carry no information about the features.

    Attributes:
        value: median over the draws.
        spread: half of the range that holds 68 % of them.
        kind: "shuffled" labels on these features; on "isotropic" ones, where no scatter was kept; "random" directions
            for a classifier, which has no labels.
        draws: the values drawn.
    """

    value: float
    spread: float
    kind: Literal["shuffled", "isotropic", "random"] = "shuffled"
    draws: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, values: Sequence[float], kind: Literal["shuffled", "isotropic", "random"]) -> Level | None:
        """Of the values drawn; None where one is NaN."""
        drawn = torch.tensor(values, dtype=torch.float64)
        if drawn.isnan().any():
            return None
        low, middle, high = (float(drawn.quantile(share, interpolation="nearest")) for share in (0.16, 0.5, 0.84))
        if len(values) % 2 == 0 and math.isfinite(middle):
            middle = float(drawn.quantile(0.5))
        return cls(middle, (high - low) / 2 if math.isfinite(high - low) else math.inf, kind, tuple(values))


_CACHE: WeakKeyDictionary[ClassStatistics, dict[Any, tuple[Any, Level | None]]] = WeakKeyDictionary()
_RANDOM: WeakKeyDictionary[Metric[Any], dict[Any, Level | None]] = WeakKeyDictionary()


def levels(
    evidence: Evidence,
    metrics: Iterable[str | Metric[Any]] | None = None,
    *,
    trained: Evidence | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> dict[str, Level]:
    """The levels of metrics, or of all that the evidence allows, by name; those that have none are left out.

    A metric of the statistics gets shuffled labels; the classifier's rows are kept as they are. One of decisions gets
    samples of such classes, which sit in the mean of their own class, and one of outside samples others like those of
    the training. A metric of the classifier alone gets random directions. Where labels don't matter there is none.
    Levels are kept as long as the statistics are: the next call draws nothing for them.

    Args:
        trained: the training evidence, where this is of held-out samples, which aren't in the centres' means.
        draws: default: 64, 16 or 4, by the numbers in the class means.
    """
    wanted = available(evidence) if metrics is None else chosen(metrics)
    statistics, setting = evidence.statistics, Setting.of(evidence if evidence.statistics is not None else trained)
    if setting is None:
        return {}
    if draws is None:
        size = setting.K * setting.D + setting.D**2 / 4
        draws = next(number for most, number in DRAWS if most >= size)
    found: dict[str, Level | None] = {}
    beside, identity = _beside(evidence, trained)
    key = (draws, seed, identity)
    known = {} if statistics is None else _CACHE.setdefault(statistics, {})
    missing = []
    for each in wanted:
        if not each.labelled:
            continue
        if "statistics" not in each.reads and "decisions" not in each.reads:
            found[each.name] = _random_level(each, evidence, setting, draws, seed)
        elif (each, key) in known:
            found[each.name] = known[each, key][1]
        else:
            missing.append(each)
    if missing:
        fresh = _drawn_levels(evidence, missing, trained, draws, seed)
        known |= {(each, key): (beside, fresh.get(each.name)) for each in missing}
        found |= fresh
    return {each.name: level for each in wanted if (level := found.get(each.name)) is not None}


def _beside(evidence: Evidence, trained: Evidence | None) -> tuple[tuple[object, ...], tuple[Any, ...]]:
    """What levels depend on beside the statistics, and its identity, which holds as long as one has the former."""
    parts: list[object] = []
    for each in (evidence, trained):
        if each is not None:
            parts += [each.projected, each.weight, each.bias, each.consumer, each.outside]
    if trained is not None and trained.statistics is not evidence.statistics:  # which would keep themselves alive
        parts.append(trained.statistics)
    rows = 0 if evidence.decisions is None else int(totals_of(evidence.decisions).counts.sum())
    versions = tuple(each._version if isinstance(each, Tensor) and not each.is_inference() else 0 for each in parts)
    return tuple(parts), (tuple(map(id, parts)), versions, rows)


def _random_level(metric: Metric[Any], evidence: Evidence, setting: Setting, draws: int, seed: int) -> Level | None:
    """Of rows in random directions, for the same classes."""
    if evidence.weight is None or not {"weight", "classifier", "reader"} & set(metric.reads):
        return None
    evidence = _of_present(evidence)
    assert evidence.weight is not None
    key = (tuple(evidence.weight.shape), setting.counts.numpy().tobytes() if "counts" in metric.reads else setting.K)
    known = _RANDOM.setdefault(metric, {})
    key += (draws, seed)  # type: ignore[assignment]
    if key not in known:
        generator = torch.Generator().manual_seed(seed)
        number = draws if metric.most_classes is None else min(draws, _COSTLY)
        number = min(number, max(_FEWEST, _RANDOM_NUMBERS // evidence.weight.numel()))  # many numbers spread less
        values = []
        for _ in range(number):
            weight = torch.randn(evidence.weight.shape, dtype=torch.float64, generator=generator)
            with suppress(Exception):  # of a metric of one's own
                values.append(float(metric.of(replace(evidence, weight=weight.to(evidence.weight.device)))))
        known[key] = Level.of(values, "random") if len(values) == number else None
    return known[key]


def _of_present(evidence: Evidence) -> Evidence:
    """The evidence with the classifier's rows of the classes with samples alone: of a vocabulary those may be few."""
    statistics, weight = evidence.statistics, evidence.weight
    if statistics is None or weight is None or len(weight) == int(statistics.present.sum()):
        return evidence
    statistics = statistics.populated()
    rows = statistics.class_ids.to(weight.device)
    if len(weight) != statistics.num_labels:
        return evidence
    bias = None if evidence.bias is None else evidence.bias[rows]
    return replace(evidence, statistics=statistics, weight=weight[rows], bias=bias)


def _drawn_levels(
    evidence: Evidence, metrics: list[Metric[Any]], trained: Evidence | None, draws: int, seed: int
) -> dict[str, Level]:
    values: dict[str, list[float]] = {each.name: [] for each in metrics}
    of_span = [each for each in metrics if each.needed == "span scatter" and evidence.projected is not None]
    rest = [each for each in metrics if each not in of_span]
    kind: Literal["shuffled", "isotropic"] = "shuffled"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of geometry that is degenerate by chance
        if of_span and evidence.projected is not None:
            of_span = [each for each in of_span if each.family == "NC1"]  # others compare with what lies outside
            for draw in shuffled(evidence.projected, draws, seed=seed):
                _enter(values, replace(evidence, projected=draw.statistics, folds=None), of_span)
        source = evidence if trained is None else trained
        if rest and source.statistics is not None:
            statistics = source.statistics
            if statistics.within is None and statistics.class_within is None:
                kind = "isotropic"
            own = any(each.needed == "class scatter" for each in rest)
            generator = torch.Generator(statistics.means.device).manual_seed(seed + 1)
            noise = own_moments = None
            held_out = trained is not None
            if held_out and evidence.statistics is not None:
                own_scatter = own and kind == "shuffled" and evidence.statistics.class_within is not None
                own_moments = _Shuffling(evidence.statistics, class_scatter=own_scatter)
            for draw in shuffled(statistics, draws, seed=seed, class_scatter=own):
                if noise is None and any("decisions" in each.reads for each in rest):
                    noise = draw.factor.noise(_rows(statistics), generator)
                shown = _drawn_evidence(evidence, source, draw, rest, noise, own_moments, generator, held_out=held_out)
                _enter_drawn(values, shown, rest, generator)
    kinds = dict.fromkeys([each.name for each in of_span], "shuffled") | dict.fromkeys(
        [each.name for each in rest], kind
    )
    found = {}
    for each in metrics:
        drawn = values[each.name]
        complete = len(drawn) == (draws if each.most_classes is None else min(draws, _COSTLY))
        if complete and (level := Level.of(drawn, kinds[each.name])) is not None:  # type: ignore[arg-type]
            found[each.name] = level
    return found


def _drawn_evidence(
    evidence: Evidence,
    source: Evidence,
    draw: Draw,
    metrics: list[Metric[Any]],
    noise: _Noise | None,
    own_moments: _Shuffling | None,
    generator: torch.Generator,
    *,
    held_out: bool,
) -> Evidence:
    """Evidence with the moments, decisions and outside samples of a draw.

    Args:
        own_moments: of held-out samples, whose moments aren't those of the training.
    """
    drawn = replace(evidence, folds=None, outside_folds=None, decisions=None, projected=None, consumer=evidence.reader)
    original = source.statistics
    assert original is not None
    if evidence.statistics is not None:
        moments = draw.statistics
        if own_moments is not None:  # their labels are as little related to the features
            one = int(torch.randint(2**31, (), generator=generator, device=generator.device))
            moments = own_moments.draw(torch.Generator(generator.device).manual_seed(one)).statistics
        drawn = replace(drawn, statistics=moments, outside=None)
    if evidence.decisions is not None and noise is not None:
        drawn = replace(drawn, decisions=_decided(draw, evidence, source, noise, generator, held_out=held_out))
    if isinstance(evidence.outside, ClassStatistics) and any("outside" in each.reads for each in metrics):
        number = int(evidence.outside.num_samples) * (int(original.num_samples) - 1)
        mean = original.global_mean("sample") + draw.factor.around(generator) / math.sqrt(max(number, 1))
        together = evidence.outside.num_samples[None]
        drawn = replace(drawn, outside=ClassStatistics(together, mean[None], torch.zeros_like(mean[:1])))
    return drawn


def _enter_drawn(
    values: dict[str, list[float]], drawn: Evidence, metrics: list[Metric[Any]], generator: torch.Generator
) -> None:
    """Add a draw's values; of very many classes those over pairs are of some classes' pairs."""
    of_pairs: list[Metric[Any]] = []
    if drawn.statistics is not None and drawn.statistics.num_classes > MANY:
        of_pairs = [each for each in metrics if each.pairs is not None]
        some = torch.randperm(drawn.statistics.num_classes, generator=generator, device=generator.device)[:_SOME]
        of_some = [each for each in of_pairs if _over_pairs(each).kernel.reduction is not Smallest]  # not of a sample
        for each, value in zip(of_some, pairwise(drawn.statistics, of_some, some.sort().values), strict=True):
            values[each.name].append(float(value))
    _enter(values, drawn, [each for each in metrics if each not in of_pairs])


def _rows(statistics: ClassStatistics) -> int:
    """How many samples are drawn at most: fewer of wide features."""
    return max(_ROWS // 10, min(_ROWS, _ENTRIES // statistics.num_features))


def _decided(
    draw: Draw, evidence: Evidence, source: Evidence, noise: _Noise, generator: torch.Generator, *, held_out: bool
) -> DecisionCounts:
    """Decisions on samples drawn with their labels; held-out ones have labels of their own."""
    statistics = draw.statistics
    assert evidence.decisions is not None
    measured = int(totals_of(evidence.decisions).counts.sum())
    number = min(measured, _rows(statistics))  # as many as were decided on: it's in the spread
    noise = noise.some(number, generator)
    complete = number == int(statistics.num_samples) and not held_out
    shares = statistics.counts.to(torch.float64)
    if complete:
        rows = torch.arange(len(shares), device=shares.device).repeat_interleave(statistics.counts)
    else:
        rows = torch.multinomial(shares, number, replacement=True, generator=generator)
    features = draw.samples(rows, noise, complete=complete)
    labels = statistics.class_ids[rows]
    if held_out:
        sizes = totals_of(evidence.decisions).counts.to(shares)
        labels = torch.multinomial(sizes, number, replacement=True, generator=generator)
    counts = DecisionCounts(statistics, source.weight, source.bias)
    counts.update(features, labels)
    return counts


def _enter(values: dict[str, list[float]], evidence: Evidence, metrics: list[Metric[Any]]) -> None:
    """Add a draw's values; a metric that can't be had of it, or of so many, has no level."""
    usable = [each for each in metrics if each.available(evidence)]
    usable = [each for each in usable if each.most_classes is None or len(values[each.name]) < _COSTLY]
    try:
        found = evaluate(evidence, usable)
    except Exception:  # of a metric of one's own, too: the others keep their levels
        found = {}
        for each in usable:
            with suppress(Exception):
                found |= evaluate(evidence, [each])
    for name, value in found.items():
        values[name].append(float(value))


# ---------------------------------------------------------------------- closeness


@dataclass(frozen=True)
class Closeness:
    """How many times nearer a value is to the best one than with shuffled labels.

    Attributes:
        times: |shuffled - best| / |value - best| on the metric's scale; infinite at the best value, None where there is
            no such number.
        remark: in words: "650× nearer", "at target", "no better than shuffled labels", or why there is none.
    """

    times: float | None
    remark: str


def closeness(metric: Metric[Any], value: float, level: Level | None, setting: Setting) -> Closeness:
    """Compare a value with the best possible one and its level."""
    best = metric.best_in(setting)
    if best is None or level is None or math.isnan(value):
        return Closeness(None, "")
    found, ideal = metric.scaled(value, setting), metric.scaled(best, setting)
    draws = level.draws or (level.value - level.spread, level.value, level.value + level.spread)
    drawn = [metric.scaled(each, setting) for each in draws]
    on_scale = Level.of(drawn, level.kind)
    if on_scale is None:
        return Closeness(None, "")
    chance, gap = on_scale.value, abs(on_scale.value - ideal)
    noise = max(2 * on_scale.spread, 1e-9 * max(abs(chance), abs(ideal), 1e-6))
    whose = "shuffled labels" if level.kind != "random" else "random directions"
    off, beyond = abs(found - ideal), (found - chance) * (ideal - chance) <= 0
    if gap <= noise and not (beyond and abs(found - chance) > noise):
        return Closeness(None, f"{whose} do as well")
    if off <= 1e-12 * gap:
        return Closeness(math.inf, "at floor" if setting.crowded and metric.floor is not None else "at target")
    if beyond or _alike(metric, found, drawn, on_scale, noise):
        return Closeness(gap / off, f"no better than {whose}")
    return Closeness(gap / off, f"{times(gap / off)} nearer")


def _alike(metric: Metric[Any], found: float, drawn: Sequence[float], level: Level, noise: float) -> bool:
    """Whether a value is within two spreads of the draws. Those of a share are near 1, some very near, where their
    differences say little: they are compared by their log-odds, which are the logarithms of the ratios."""
    inner = [each for each in drawn if 0 < each < 1]
    if metric.scale is unscaled or not 0 < found < 1 or not inner:
        return abs(found - level.value) <= noise
    odds = Level.of([math.log(each / (1 - each)) for each in inner], level.kind)
    return odds is not None and abs(math.log(found / (1 - found)) - odds.value) <= 2 * odds.spread
