"""`Metric`: a scalar function of evidence that is its own declaration, and `metric`, which makes one of a function."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec

import numpy as np
from torch import Tensor

from tightframe.checks import as_tensor
from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import EvidenceError
from tightframe.evidence import Evidence, totals_of
from tightframe.metrics.pairs import OverPairs
from tightframe.statistics import ClassStatistics

P = ParamSpec("P")

Needs = Literal["means", "span scatter", "scatter", "class scatter"]
"""How much of the statistics a metric reads: means and spreads; beside them the scatter in the span of the centred
class means; the whole pooled scatter; the scatter of each class."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What targets and floors depend on.

    Attributes:
        counts: (K,) samples of the classes with samples.
        D: dimension of the features.
        classes: how many classes the model tells apart; the data may hold samples of fewer.
    """

    counts: Tensor
    D: int
    classes: int

    @classmethod
    def of(cls, evidence: Evidence | None) -> Setting | None:
        """The setting of some evidence; None without statistics or with fewer than two classes."""
        statistics = None if evidence is None else evidence.statistics
        if evidence is None or statistics is None or evidence.counts is None or len(evidence.counts) < 2:
            return None
        classes = len(evidence.counts) if evidence.weight is None else len(evidence.weight)
        return cls(evidence.counts.cpu(), statistics.num_features, max(classes, len(evidence.counts)))

    @cached_property
    def K(self) -> int:
        """Classes with samples."""
        return len(self.counts)

    @property
    def N(self) -> int:
        """Samples."""
        return int(self.counts.sum())

    @property
    def crowded(self) -> bool:
        """Whether the model's classes are too many for a simplex in D dimensions."""
        return self.classes - 1 > self.D

    @property
    def partial(self) -> bool:
        """Whether the data lack samples of some of the model's classes."""
        return self.classes > self.K


Level = float | Callable[..., float | None] | None
"""A number, or how it follows from the setting and from the options that its keyword parameters name; None where it
isn't known."""


def plain(value: float, setting: Setting) -> float:
    """The value itself."""
    return value


def share(value: float, setting: Setting) -> float:
    """r / (1 + r) of a ratio r of scatter within classes to that between them: it doesn't grow with the samples."""
    return 1.0 if math.isinf(value) else value / (1 + value)


@dataclass(frozen=True, eq=False, repr=False)
class Metric(Generic[P]):
    """A scalar function of evidence, with all that is known of it. Called, it is the function.

    Its positional parameters name the evidence it reads: `statistics`, `weight` (K, D), `bias` (K,), `classifier` (the
    weight's rows of the classes with samples), `counts` (of these), `decisions`, `outside`, `reader`. Its keyword-only
    parameters are options.

    Attributes:
        function: gives a 0-d tensor.
        label: short name for tables, in the field's terms.
        family: the phenomenon it measures, NC1 ... NC5 or GNC2, or what explains it: "scale", "accuracy".
        source: the paper.
        convention: what distinguishes it from its variants, in a few words.
        target: value at perfect collapse onto a simplex ETF; None for numbers without an ideal.
        floor: best value that D dimensions allow the model's classes, where a simplex ETF doesn't fit.
        attainable: whether means at the floor would be good ones, too; else values aren't compared with it.
        scale: of a value, what its closeness is taken on (`plain`, `share`).
        needs: how much of the statistics it reads, or how that follows from the options.
        pairs: of the options, how it reduces values of all pairs of classes, if it does; `evaluate` then shares the
            Gram matrix with other such metrics.
        hits: of decisions, the samples (K,) of each class that count, if it is a share of samples.
        headline: whether short tables show it; held_out: whether it is reported of held-out samples, too.
        smooth: whether a small change of the moments changes it little, as the jackknife requires.
        labelled: whether it depends on the labels; if not, shuffling them changes nothing.
        most_classes: number of classes beyond which it is left out unless asked for by name, as it takes too long.
        options: what is given for the function's keyword-only parameters.
        name: of the function, or of this variant of it.
    """

    function: Callable[P, Tensor]
    label: str
    family: str
    source: str = ""
    convention: str = ""
    target: Level = None
    floor: Level = None
    attainable: bool = True
    scale: Callable[..., float] = plain
    needs: Needs | Callable[..., Needs] = "means"
    pairs: Callable[..., OverPairs] | None = None
    hits: Callable[[DecisionTotals], Tensor | None] | None = None
    headline: bool = False
    held_out: bool = False
    smooth: bool = True
    labelled: bool = True
    most_classes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if taken := inspect.signature(self.function).parameters.keys() & self.__dataclass_fields__.keys():
            raise TypeError(f"{self.function.__name__} needs another name for its {min(taken)!r}: metrics have one.")
        object.__setattr__(self, "name", self.name or self.function.__name__)
        object.__setattr__(self, "__doc__", self.function.__doc__)
        object.__setattr__(self, "__wrapped__", self.function)
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__module__", self.function.__module__)
        if unknown := set(self.reads) - _COLLECTED.keys():
            raise TypeError(
                f"{self.name}: {min(unknown)!r} is no evidence; that is {', '.join(_COLLECTED)}. Options follow a *."
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        given = (as_tensor(each) if isinstance(each, np.ndarray) else each for each in args)
        named = {name: as_tensor(each) if isinstance(each, np.ndarray) else each for name, each in kwargs.items()}
        return self.function(*given, **{**self.options, **named})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"<metric {self.function.__name__}{options}: {self.label}>"

    def having(self, name: str = "", **options: Any) -> Metric[P]:
        """The same with other options of the function, and facts that change with them, under another name.

        Where an option has the name of a fact, as `largest` of `principal_angle`, the option is meant.

        >>> from tightframe import metrics
        >>> metrics.cdnv.having(distance_exponent=4)
        <metric cdnv, distance_exponent=4: CDNV>
        """
        own = inspect.signature(self.function).parameters.keys() - set(self.reads)
        facts = {key: options.pop(key) for key in options.keys() - own if key in self.__dataclass_fields__}
        unknown = options.keys() - own
        if unknown:
            raise TypeError(f"{self.name} has no option {sorted(unknown)[0]!r}.")
        return replace(self, options={**self.options, **options}, name=name or self.name, **facts)

    # ------------------------------------------------------------------ what it reads

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the evidence it reads, in the function's order."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)

    @cached_property
    def needed(self) -> Needs:
        """How much of the statistics it reads, with these options."""
        return self.needs(**self.known_options(self.needs)) if callable(self.needs) else self.needs

    def of(self, evidence: Evidence) -> Tensor:
        """Its value for some evidence; errors are the function's own.

        Raises: EvidenceError if something it needs was not collected.
        """
        if missing := self._missing(evidence):
            raise EvidenceError(f"{self.label} needs {missing}, which wasn't given.")
        return self(*(self._read(evidence, name) for name in self.reads))  # type: ignore[call-arg]

    def available(self, evidence: Evidence) -> bool:
        """Whether the evidence has all that it needs, and few enough classes."""
        few = self.most_classes is None or evidence.counts is None or len(evidence.counts) <= self.most_classes
        return few and self._missing(evidence) is None

    def _read(self, evidence: Evidence, name: str) -> Any:
        if name == "statistics" and self.needed == "span scatter":
            name = "spanning"
        return getattr(evidence, name)

    def _missing(self, evidence: Evidence) -> str | None:
        for name in self.reads:
            if name != "bias" and self._read(evidence, name) is None:  # no bias counts as zero
                return _COLLECTED[name]
        if "statistics" in self.reads:
            statistics: ClassStatistics = self._read(evidence, "statistics")
            if self.needed == "class scatter" and statistics.class_within is None:
                return "the scatter of each class (per_class=True)"
            if self.needed != "means" and statistics.within is None and statistics.class_within is None:
                return "the within-class scatter (covariance=True; for a subset of the classes, per_class=True)"
        if self.hits is not None and evidence.decisions is not None:
            hits = self.hits(totals_of(evidence.decisions))
            return "the decisions of a classifier on labelled samples" if hits is None else None
        return None

    # ------------------------------------------------------------------ what it should be

    def target_in(self, setting: Setting) -> float | None:
        """Its value at perfect collapse, in a setting."""
        return self._level(self.target, setting)

    def floor_in(self, setting: Setting) -> float | None:
        """The best value that the dimension allows, where that isn't the target."""
        return self._level(self.floor, setting) if setting.crowded else None

    def best_in(self, setting: Setting) -> float | None:
        """The best possible value: the target, or the floor where the dimension forces one; None if it isn't known."""
        if not setting.crowded or self.floor is None:
            return self.target_in(setting)
        return self.floor_in(setting) if self.attainable else None

    def scaled(self, value: float, setting: Setting) -> float:
        """A value on the scale that its closeness is taken on."""
        return float(self.scale(value, setting, **self.known_options(self.scale)))

    def _level(self, level: Level, setting: Setting) -> float | None:
        value = level(setting, **self.known_options(level)) if callable(level) else level
        return None if value is None else float(value)  # no numpy scalar: they're saved

    def known_options(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The options that a function has parameters for."""
        if not self.options:
            return {}
        known = inspect.signature(function).parameters
        return {name: value for name, value in self.options.items() if name in known}


_COLLECTED = {
    "statistics": "class statistics",
    "weight": "the classifier's weight",
    "bias": "the classifier's bias",
    "classifier": "the classifier's weight",
    "counts": "class statistics",
    "decisions": "decisions (DecisionCounts)",
    "outside": "out-of-distribution data (ood=)",
    "reader": "the weight of the layer that reads the features",
}


def metric(label: str, family: str, **facts: Any) -> Callable[[Callable[P, Tensor]], Metric[P]]:
    """Make a `Metric` of the function below; `facts` are its attributes.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> @metrics.metric("mean variance", "scale", target=0.0)
    ... def mean_variance(statistics: ClassStatistics) -> torch.Tensor:
    ...     return statistics.populated().variances.mean()
    >>> mean_variance.reads, mean_variance.target
    (('statistics',), 0.0)
    """
    return lambda function: Metric(function, label, family, **facts)
