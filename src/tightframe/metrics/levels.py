"""Levels: the value of a metric when labels carry no information about the features, and a value's closeness.

Evidence with shuffled labels is drawn from the collected moments, and the metric is evaluated on it. This needs no
formula per metric and does not assume isotropic features.
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
from tightframe.metrics.reductions import Smallest
from tightframe.metrics.table import _over_pairs, available, chosen, evaluate, pairwise
from tightframe.metrics.total_scatter import inverse_near_total
from tightframe.sections import times
from tightframe.statistics import ClassStatistics

MANY = 2000
"""Above this number of classes, levels over pairs use 1000 random classes, and minima over pairs have no level."""

DRAWS = ((1e5, 64), (5e5, 16), (math.inf, 4))
"""(size, draws): default number of draws up to a size of K D + D^2 / 4."""

_SOME = 1000
_ROWS = 2000  # maximum number of drawn samples for decisions
_ENTRIES = 1 << 22  # maximum number of entries in these samples
_COSTLY = 16  # maximum number of draws for metrics with `most_classes`
_FEWEST, _RANDOM_NUMBERS = 4, 1 << 28  # minimum draws of random classifiers, and maximum entries in all of them

# ---------------------------------------------------------------------- drawing statistics


class Draw(NamedTuple):
    """Statistics with shuffled labels, and a factor of the scatter of their samples."""

    statistics: ClassStatistics
    factor: _Factor | _Sphere

    def samples(self, labels: Tensor, noise: _Noise, *, complete: bool = False) -> Tensor:
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


class _Noise(NamedTuple):
    """(n, r) Gaussian numbers, and their product with the root of the total scatter; float32, shared by all draws."""

    plain: Tensor
    coloured: Tensor

    def some(self, number: int, generator: torch.Generator) -> _Noise:
        """A random subset of `number` rows."""
        if number == len(self.plain):
            return self
        subset = torch.randperm(len(self.plain), generator=generator, device=self.plain.device)[:number]
        return _Noise(self.plain[subset], self.coloured[subset])


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

    def scattered(self, noise: _Noise, scale: float) -> Tensor:
        """(n, D) float32 rows with this scatter times the square of `scale`."""
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

    def scattered(self, noise: _Noise, scale: float) -> Tensor:
        return noise.plain * (scale * float(self.within) ** 0.5)

    def noise(self, number: int, generator: torch.Generator) -> _Noise:
        plain = _normal((number, self.dim), self.within.float(), generator)
        return _Noise(plain, plain)

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
    shuffling = _Shuffling(statistics, class_scatter=class_scatter)
    generator = torch.Generator(statistics.means.device).manual_seed(seed)
    for _ in range(draws):
        yield shuffling.draw(generator)


class _Shuffling:
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


# ---------------------------------------------------------------------- levels


@dataclass(frozen=True)
class Level:
    """The value of a metric when labels carry no information about the features.

    Attributes:
        value: median over the draws.
        spread: half the width of the central 68 % of the draws.
        kind: "shuffled": shuffled labels on these features; "isotropic": shuffled labels on isotropic features, used
            if no scatter was kept; "random": random directions, used for a classifier alone.
        draws: the values of the draws.

    >>> from tightframe.metrics import Level
    >>> Level.of([1.0, 2.0, 3.0], "shuffled").value  # the median
    2.0
    """

    value: float
    spread: float
    kind: Literal["shuffled", "isotropic", "random"] = "shuffled"
    draws: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, values: Sequence[float], kind: Literal["shuffled", "isotropic", "random"]) -> Level | None:
        """The level from the values of the draws; None if one is NaN.

        >>> from tightframe.metrics import Level
        >>> Level.of([1.0, 2.0, 6.0], "shuffled")
        Level(value=2.0, spread=2.5, kind='shuffled')
        """
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
    """Levels by metric name. Default: of all metrics that the evidence allows. Metrics without a level are left out.

    Metrics of the statistics are evaluated with shuffled labels; the classifier is not changed. Metrics of decisions
    use samples drawn with shuffled labels, which are part of their own class means. Metrics of outside samples use
    samples drawn like the training samples. Metrics of the classifier alone use random directions. Metrics that do not
    depend on labels have no level. Levels are cached for the lifetime of the statistics.

    Args:
        trained: training evidence, if `evidence` is of held-out samples, which are not part of the class means.
        draws: number of draws. Default: 64, 16 or 4, depending on K and D.
        seed: seed for the random number generator.

    Raises: ChoiceError for unknown names.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> labels = torch.arange(100) % 2
    >>> features = 10.0 * labels[:, None] + torch.arange(100)[:, None] // 2 % 2  # two points per class
    >>> statistics = ClassStatistics.from_features(features, labels, 2)
    >>> level = metrics.levels(metrics.Evidence(statistics), ["trace_share"])["trace_share"]
    >>> level.kind, level.value > 0.9, round(metrics.trace_share(statistics).item(), 4)  # shuffled: 1 - 1/99 on average
    ('shuffled', True, 0.0099)
    """
    selected = available(evidence) if metrics is None else chosen(metrics)
    statistics, setting = evidence.statistics, Setting.of(evidence if evidence.statistics is not None else trained)
    if setting is None:
        return {}
    if draws is None:
        size = setting.K * setting.D + setting.D**2 / 4
        draws = next(number for most, number in DRAWS if most >= size)
    result: dict[str, Level | None] = {}
    inputs, identity = _other_inputs(evidence, trained)
    key = (draws, seed, identity)
    cache = {} if statistics is None else _CACHE.setdefault(statistics, {})
    missing = []
    for each in selected:
        if not each.labelled:
            continue
        if "statistics" not in each.reads and "decisions" not in each.reads:
            result[each.name] = _random_level(each, evidence, setting, draws, seed)
        elif (each, key) in cache:
            result[each.name] = cache[each, key][1]
        else:
            missing.append(each)
    if missing:
        fresh = _drawn_levels(evidence, missing, trained, draws, seed)
        cache |= {(each, key): (inputs, fresh.get(each.name)) for each in missing}
        result |= fresh
    return {each.name: level for each in selected if (level := result.get(each.name)) is not None}


def _other_inputs(evidence: Evidence, trained: Evidence | None) -> tuple[tuple[object, ...], tuple[Any, ...]]:
    """Inputs of levels other than the statistics, and their identity, valid while a reference to the inputs exists."""
    parts: list[object] = []
    for each in (evidence, trained):
        if each is not None:
            parts += [each.projected, each.weight, each.bias, each.consumer, each.outside]
    if trained is not None and trained.statistics is not evidence.statistics:  # else the cache keeps its own key alive
        parts.append(trained.statistics)
    rows = 0 if evidence.decisions is None else int(totals_of(evidence.decisions).counts.sum())
    versions = tuple(each._version if isinstance(each, Tensor) and not each.is_inference() else 0 for each in parts)
    return tuple(parts), (tuple(map(id, parts)), versions, rows)


def _random_level(metric: Metric[Any], evidence: Evidence, setting: Setting, draws: int, seed: int) -> Level | None:
    """The level of a classifier with random directions, for the same classes."""
    if evidence.weight is None or not {"weight", "classifier", "reader"} & set(metric.reads):
        return None
    evidence = _of_present(evidence)
    assert evidence.weight is not None
    key = (tuple(evidence.weight.shape), setting.counts.numpy().tobytes() if "counts" in metric.reads else setting.K)
    cache = _RANDOM.setdefault(metric, {})
    key += (draws, seed)  # type: ignore[assignment]
    if key not in cache:
        generator = torch.Generator().manual_seed(seed)
        number = draws if metric.most_classes is None else min(draws, _COSTLY)
        number = min(number, max(_FEWEST, _RANDOM_NUMBERS // evidence.weight.numel()))  # larger weights vary less
        values = []
        for _ in range(number):
            weight = torch.randn(evidence.weight.shape, dtype=torch.float64, generator=generator)
            with suppress(Exception):  # a user's metric may fail
                values.append(float(metric.of(replace(evidence, weight=weight.to(evidence.weight.device)))))
        cache[key] = Level.of(values, "random") if len(values) == number else None
    return cache[key]


def _of_present(evidence: Evidence) -> Evidence:
    """The evidence restricted to the classes with samples, which may be a small part of a vocabulary."""
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
        warnings.simplefilter("ignore")  # draws may be degenerate by chance
        if of_span and evidence.projected is not None:
            of_span = [each for each in of_span if each.family == "NC1"]  # others also read scatter outside the span
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
    result = {}
    for each in metrics:
        drawn = values[each.name]
        complete = len(drawn) == (draws if each.most_classes is None else min(draws, _COSTLY))
        if complete and (level := Level.of(drawn, kinds[each.name])) is not None:  # type: ignore[arg-type]
            result[each.name] = level
    return result


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
        own_moments: draws the moments of held-out samples, which differ from the training moments.
    """
    drawn = replace(evidence, folds=None, outside_folds=None, decisions=None, projected=None, consumer=evidence.reader)
    original = source.statistics
    assert original is not None
    if evidence.statistics is not None:
        moments = draw.statistics
        if own_moments is not None:  # held-out labels are shuffled as well
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
    """Add the values of a draw; above `MANY` classes, values over pairs are of a random subset of classes."""
    of_pairs: list[Metric[Any]] = []
    if drawn.statistics is not None and drawn.statistics.num_classes > MANY:
        of_pairs = [each for each in metrics if each.pairs is not None]
        some = torch.randperm(drawn.statistics.num_classes, generator=generator, device=generator.device)[:_SOME]
        of_some = [each for each in of_pairs if _over_pairs(each).kernel.reduction is not Smallest]  # minima: all pairs
        for each, value in zip(of_some, pairwise(drawn.statistics, of_some, some.sort().values), strict=True):
            values[each.name].append(float(value))
    _enter(values, drawn, [each for each in metrics if each not in of_pairs])


def _rows(statistics: ClassStatistics) -> int:
    """Maximum number of drawn samples; fewer for wide features."""
    return max(_ROWS // 10, min(_ROWS, _ENTRIES // statistics.num_features))


def _decided(
    draw: Draw, evidence: Evidence, source: Evidence, noise: _Noise, generator: torch.Generator, *, held_out: bool
) -> DecisionCounts:
    """Decisions on drawn samples; held-out samples get independent labels."""
    statistics = draw.statistics
    assert evidence.decisions is not None
    measured = int(totals_of(evidence.decisions).counts.sum())
    number = min(measured, _rows(statistics))  # the sample size determines the spread
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
    """Add the values of a draw; a metric that fails or is unavailable has no level."""
    usable = [each for each in metrics if each.available(evidence)]
    usable = [each for each in usable if each.most_classes is None or len(values[each.name]) < _COSTLY]
    try:
        result = evaluate(evidence, usable)
    except Exception:  # a user's metric may fail: the others keep their levels
        result = {}
        for each in usable:
            with suppress(Exception):
                result |= evaluate(evidence, [each])
    for name, value in result.items():
        values[name].append(float(value))


# ---------------------------------------------------------------------- closeness


@dataclass(frozen=True)
class Closeness:
    """How many times nearer a value is to the best possible value than with shuffled labels.

    Attributes:
        times: |shuffled - best| / |value - best| on the metric's scale; infinite at the best value, None if undefined.
        remark: in words: "650× nearer", "at target", "no better than shuffled labels", or the reason for None.
    """

    times: float | None
    remark: str


def closeness(metric: Metric[Any], value: float, level: Level | None, setting: Setting) -> Closeness:
    """Compare a value with the best possible value and with the metric's level, |level - best| / |value - best|.

    >>> import torch
    >>> from tightframe import metrics
    >>> level = metrics.Level(0.9, 0.05)
    >>> setting = metrics.Setting(torch.tensor([100, 100, 100]), 8, 3)  # counts, dimension, classes
    >>> metrics.closeness(metrics.trace_share, 0.009, level, setting).remark  # 0.9 / 0.009
    '100× nearer'
    """
    best = metric.best_in(setting)
    if best is None or level is None or math.isnan(value):
        return Closeness(None, "")
    scaled, ideal = metric.scaled(value, setting), metric.scaled(best, setting)
    draws = level.draws or (level.value - level.spread, level.value, level.value + level.spread)
    drawn = [metric.scaled(each, setting) for each in draws]
    on_scale = Level.of(drawn, level.kind)
    if on_scale is None:
        return Closeness(None, "")
    chance, gap = on_scale.value, abs(on_scale.value - ideal)
    noise = max(2 * on_scale.spread, 1e-9 * max(abs(chance), abs(ideal), 1e-6))
    whose = "shuffled labels" if level.kind != "random" else "random directions"
    off, beyond = abs(scaled - ideal), (scaled - chance) * (ideal - chance) <= 0
    if gap <= noise and not (beyond and abs(scaled - chance) > noise):
        return Closeness(None, f"{whose} do as well")
    if off <= 1e-12 * gap:
        return Closeness(math.inf, "at floor" if setting.crowded and metric.floor is not None else "at target")
    if beyond or _alike(metric, scaled, drawn, on_scale, noise):
        return Closeness(gap / off, f"no better than {whose}")
    return Closeness(gap / off, f"{times(gap / off)} nearer")


def _alike(metric: Metric[Any], value: float, drawn: Sequence[float], level: Level, noise: float) -> bool:
    """Whether a value is within two spreads of the draws.

    Shares are compared by their log-odds, the logarithms of the ratios: near 1 their differences are uninformative."""
    inner = [each for each in drawn if 0 < each < 1]
    if metric.scale is unscaled or not 0 < value < 1 or not inner:
        return abs(value - level.value) <= noise
    odds = Level.of([math.log(each / (1 - each)) for each in inner], level.kind)
    return odds is not None and abs(math.log(value / (1 - value)) - odds.value) <= 2 * odds.spread
