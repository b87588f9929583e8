"""`Metric`: a scalar function of evidence with its declaration; `metric`: the decorator that makes one."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, wraps
from typing import Any, Generic, Literal, ParamSpec, Self

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
"""Part of the statistics that a metric reads: means and variances; also the scatter in the span of the centred class
means; the full pooled scatter; the scatter per class."""


@dataclass(frozen=True, eq=False)
class Setting:
    """The quantities that targets and floors depend on.

    Attributes:
        counts: (K,) number of samples per class, for the classes with samples.
        D: dimension of the features.
        classes: number of classes of the model; some may have no samples.

    >>> import torch
    >>> from tightframe import metrics
    >>> setting = metrics.Setting(torch.tensor([100, 100, 100]), 8, 3)
    >>> round(metrics.minimum_angle.target_in(setting), 4)  # arccos(-1/2), of a triangle
    120.0
    """

    counts: Tensor
    D: int
    classes: int

    @classmethod
    def of(cls, evidence: Evidence | None) -> Setting | None:
        """The setting of `evidence`; None without statistics or with fewer than two classes."""
        statistics = None if evidence is None else evidence.statistics
        if evidence is None or statistics is None or evidence.counts is None or len(evidence.counts) < 2:
            return None
        classes = len(evidence.counts) if evidence.weight is None else len(evidence.weight)
        return cls(evidence.counts.cpu(), statistics.num_features, max(classes, len(evidence.counts)))

    @cached_property
    def K(self) -> int:
        """Number of classes with samples."""
        return len(self.counts)

    @property
    def N(self) -> int:
        """Number of samples."""
        return int(self.counts.sum())

    @property
    def crowded(self) -> bool:
        """Whether the model has too many classes for a simplex in D dimensions."""
        return self.classes - 1 > self.D

    @property
    def partial(self) -> bool:
        """Whether some classes of the model have no samples."""
        return self.classes > self.K


Level = float | Callable[..., float | None] | None
"""A number, or a function of the setting and of the metric's options that its keyword parameters name; None if
unknown."""


def of_all_classes(bound: Callable[..., float | None]) -> Callable[..., float | None]:
    """The bound if all classes of the model have samples, else None: it does not hold for a subset of classes.

    None also for an infinite bound (D = 1): there some vectors must coincide, and the metric leaves out such pairs.
    """

    @wraps(bound)
    def floor(setting: Setting, **options: Any) -> float | None:
        value = None if setting.partial else bound(setting, **options)
        return None if value is None or math.isinf(value) else value

    return floor


def plain(value: float, setting: Setting) -> float:
    """The value unchanged: the scale of metrics whose values are compared as they are.

    >>> import torch
    >>> from tightframe import metrics
    >>> metrics.plain(3.0, metrics.Setting(torch.tensor([10, 10]), 4, 2))
    3.0
    """
    return value


def share(value: float, setting: Setting) -> float:
    """r / (1 + r) for a ratio r of within-class to between-class scatter; it does not grow with the sample size.

    Range: [0, 1]; 1 for an infinite ratio.

    >>> import torch
    >>> from tightframe import metrics
    >>> metrics.share(3.0, metrics.Setting(torch.tensor([10, 10]), 4, 2))
    0.75
    """
    return 1.0 if math.isinf(value) else value / (1 + value)


@dataclass(frozen=True, eq=False, repr=False)
class Metric(Generic[P]):
    """A scalar function of evidence with its declaration. Calling the metric calls the function.

    Metrics are pickled like functions, by module and name; variants as their difference from a metric of a module.

    Positional parameters name the evidence that the function reads: `statistics`, `weight` (K, D), `bias` (K,),
    `classifier` (the weight's rows for the classes with samples), `counts` (of these classes), `decisions`, `outside`,
    `reader`. Keyword-only parameters are options.

    Attributes:
        function: returns a 0-d tensor.
        label: short name for tables.
        family: the phenomenon, NC1 ... NC5 or GNC2, or "scale" or "accuracy".
        source: the paper.
        convention: the difference from its variants, in a few words.
        target: value at perfect collapse onto a simplex ETF; None if there is no ideal value.
        floor: best value possible in D dimensions if the model has too many classes for a simplex ETF.
        attainable: whether good class means can reach the floor; if not, values are not compared with it.
        scale: maps a value to the scale of its closeness (`plain`, `share`).
        needs: the part of the statistics that it reads, or a function from the options to that part.
        pairs: maps the options to a reduction over all pairs of classes, for pairwise metrics; `evaluate` computes
            their Gram matrix once.
        hits: maps decisions to the number of hits per class (K,), for metrics that are shares of samples.
        headline: whether short tables show it; held_out: whether it is also reported for held-out samples.
        smooth: whether it is a smooth function of the moments, as the jackknife requires.
        labelled: whether it depends on the labels.
        most_classes: largest number of classes for which it is computed by default; above it takes too long.
        by_default: whether it is computed without being named.
        drawn: whether its value depends on random draws; `METRICS` leaves it out.
        options: values of the function's keyword-only parameters.
        name: name of the function, or of this variant.
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
    by_default: bool = True
    drawn: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if clash := inspect.signature(self.function).parameters.keys() & self.__dataclass_fields__.keys():
            raise TypeError(
                f"{self.function.__name__}: rename the parameter {min(clash)!r}; Metric has an attribute of that name."
            )
        object.__setattr__(self, "name", self.name or self.function.__name__)
        object.__setattr__(self, "__doc__", self.function.__doc__)
        object.__setattr__(self, "__wrapped__", self.function)
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__module__", self.function.__module__)
        if unknown := set(self.reads) - COLLECTED.keys():
            raise TypeError(
                f"{self.name}: positional parameters must be evidence, one of {', '.join(COLLECTED)}; got "
                f"{min(unknown)!r}. Put options after a *."
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        positional = (as_tensor(each) if isinstance(each, np.ndarray) else each for each in args)
        named = {name: as_tensor(each) if isinstance(each, np.ndarray) else each for name, each in kwargs.items()}
        return self.function(*positional, **{**self.options, **named})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"<metric {self.function.__name__}{options}: {self.label}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # immutable, and told apart by identity, like a function

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name if its module holds it under its name, as functions are pickled; else as a variant of the metric that
        the module holds under the function's name; else by its parts, which fails for functions that have no place in
        a module."""
        for name in (self.name, self.function.__qualname__):
            if self._in_module(name) is self:
                return name
        base = self._in_module(self.function.__qualname__)
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        if not isinstance(base, Metric) or base.function is not self.function:
            return type(self), tuple(own.values())
        return _variant, (base, {name: value for name, value in own.items() if value is not getattr(base, name)})

    def _in_module(self, path: str) -> Any:
        """The object under a dotted path in the function's module, or None."""
        place: Any = sys.modules.get(self.function.__module__)
        for part in path.split("."):
            place = getattr(place, part, None)
        return place

    def having(self, name: str = "", **options: Any) -> Metric[P]:
        """A variant with a new name, changed options of the function, and changed attributes of the declaration.

        A keyword that names both an option and an attribute sets the option.

        >>> from tightframe import metrics
        >>> metrics.cdnv.having(distance_exponent=4)
        <metric cdnv, distance_exponent=4: CDNV>
        """
        own = inspect.signature(self.function).parameters.keys() - set(self.reads)
        facts = {key: options.pop(key) for key in options.keys() - own if key in self.__dataclass_fields__}
        unknown = options.keys() - own
        if unknown:
            raise TypeError(
                f"{self.name} has no option {min(unknown)!r}; choose from {', '.join(sorted(own)) or 'none'}."
            )
        return replace(self, options={**self.options, **options}, name=name or self.name, **facts)

    # ------------------------------------------------------------------ evidence

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of the evidence that it reads, in the order of the function's parameters."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)

    @cached_property
    def needed(self) -> Needs:
        """The part of the statistics that it reads, with these options."""
        return self.needs(**self.known_options(self.needs)) if callable(self.needs) else self.needs

    def of(self, evidence: Evidence) -> Tensor:
        """The value for `evidence`, a 0-d tensor.

        Raises: EvidenceError if the evidence lacks required data; the errors of the function.

        >>> import torch
        >>> from tightframe import ClassStatistics, metrics
        >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
        >>> round(metrics.nc1.of(metrics.Evidence(statistics)).item(), 4)
        0.02
        """
        if missing := self._missing(evidence):
            raise EvidenceError(f"{self.label} needs {missing}; the evidence has none.")
        return self(*(self._read(evidence, name) for name in self.reads))  # type: ignore[call-arg]

    def available(self, evidence: Evidence) -> bool:
        """Whether the evidence has all required data and at most `most_classes` classes."""
        few = self.most_classes is None or evidence.counts is None or len(evidence.counts) <= self.most_classes
        return few and self._missing(evidence) is None

    def _read(self, evidence: Evidence, name: str) -> Any:
        if name == "statistics" and self.needed == "span scatter":
            name = "spanning"
        return getattr(evidence, name)

    def _missing(self, evidence: Evidence) -> str | None:
        for name in self.reads:
            if name != "bias" and self._read(evidence, name) is None:  # a missing bias is zero
                return COLLECTED[name]
        if "statistics" in self.reads:
            statistics: ClassStatistics = self._read(evidence, "statistics")
            if self.needed == "class scatter" and statistics.class_within is None:
                return "the scatter per class (per_class=True)"
            if self.needed != "means" and statistics.within is None and statistics.class_within is None:
                return "the within-class scatter (covariance=True; for a subset of the classes, per_class=True)"
        if self.hits is not None and evidence.decisions is not None:
            hits = self.hits(totals_of(evidence.decisions))
            return "the decisions of a classifier on labelled samples" if hits is None else None
        return None

    # ------------------------------------------------------------------ targets

    def target_in(self, setting: Setting) -> float | None:
        """The value at perfect collapse, in a setting."""
        return self._level(self.target, setting)

    def floor_in(self, setting: Setting) -> float | None:
        """The best value possible in D dimensions if the target is out of reach, else None."""
        return self._level(self.floor, setting) if setting.crowded else None

    def best_in(self, setting: Setting) -> float | None:
        """The best possible value: the floor if the dimension forces one, else the target; None if unknown."""
        if not setting.crowded or self.floor is None:
            return self.target_in(setting)
        return self.floor_in(setting) if self.attainable else None

    def scaled(self, value: float, setting: Setting) -> float:
        """A value on the scale of its closeness."""
        return float(self.scale(value, setting, **self.known_options(self.scale)))

    def _level(self, level: Level, setting: Setting) -> float | None:
        value = level(setting, **self.known_options(level)) if callable(level) else level
        return None if value is None else float(value)  # plain floats can be saved

    def known_options(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The options that are parameters of `function`."""
        if not self.options:
            return {}
        parameters = inspect.signature(function).parameters
        return {name: value for name, value in self.options.items() if name in parameters}


def _variant(base: Metric[P], changes: Mapping[str, Any]) -> Metric[P]:
    """The variant of a metric with changed attributes, when it is unpickled."""
    return replace(base, **changes)


COLLECTED = {
    "statistics": "class statistics",
    "weight": "the classifier's weight",
    "bias": "the classifier's bias",
    "classifier": "the classifier's weight",
    "counts": "class statistics",
    "decisions": "decisions (DecisionCounts)",
    "outside": "out-of-distribution data (ood=)",
    "reader": "the weight of the layer that reads the features",
}
"""The evidence that metrics may read, in words."""


def metric(label: str, family: str, **facts: Any) -> Callable[[Callable[P, Tensor]], Metric[P]]:
    """Decorator that makes a `Metric` of a function; `facts` are attributes of `Metric`.

    Shape: the function returns a scalar.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> @metrics.metric("mean variance", "scale", target=0.0)
    ... def mean_variance(statistics: ClassStatistics) -> torch.Tensor:
    ...     return statistics.populated().variances.mean()
    >>> mean_variance.reads, mean_variance.target
    (('statistics',), 0.0)
    """
    return lambda function: Metric(function, label, family, **facts)
