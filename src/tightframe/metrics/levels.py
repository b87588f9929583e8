"""Levels: the value of a metric when labels carry no information about the features.

Evidence with shuffled labels is drawn from the collected moments, and the metric is evaluated on it. This needs no
formula per metric and does not assume isotropic features.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tightframe.decisions import DecisionCounts
from tightframe.evidence import Evidence, totals_of
from tightframe.metrics.metric import Metric, Setting
from tightframe.metrics.reductions import Smallest
from tightframe.metrics.shuffling import Draw, Noise, Shuffling, shuffled
from tightframe.metrics.table import available, chosen, evaluate, pairwise, reduction_of
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
                own_moments = Shuffling(evidence.statistics, class_scatter=own_scatter)
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
    noise: Noise | None,
    own_moments: Shuffling | None,
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
        minima = [each for each in of_pairs if reduction_of(each).kernel.reduction is Smallest]  # need all pairs
        of_some = [each for each in of_pairs if each not in minima]
        for each, value in zip(of_some, pairwise(drawn.statistics, of_some, some.sort().values), strict=True):
            values[each.name].append(float(value))
    _enter(values, drawn, [each for each in metrics if each not in of_pairs])


def _rows(statistics: ClassStatistics) -> int:
    """Maximum number of drawn samples; fewer for wide features."""
    return max(_ROWS // 10, min(_ROWS, _ENTRIES // statistics.num_features))


def _decided(
    draw: Draw, evidence: Evidence, source: Evidence, noise: Noise, generator: torch.Generator, *, held_out: bool
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
