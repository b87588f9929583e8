"""`METRICS`: the metrics of all families by name; `evaluate`: the values of several metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from tightframe.choices import require_choice
from tightframe.errors import ChoiceError
from tightframe.evidence import Evidence
from tightframe.metrics import measures
from tightframe.metrics.metric import Metric
from tightframe.metrics.pairs import OverPairs, over_pairs
from tightframe.statistics import ClassStatistics

FAMILIES = ("NC1", "scale", "NC2", "GNC2", "NC3", "NC4", "accuracy", "transfer", "NC5")
"""The families of metrics in the order of tables; families of your own metrics come last."""

_ALL = [each for each in vars(measures).values() if isinstance(each, Metric) and not each.drawn]

METRICS: dict[str, Metric[Any]] = {each.name: each for family in FAMILIES for each in _ALL if each.family == family}
"""All metrics by name, with default options."""


def chosen(metrics: Iterable[str | Metric[Any]]) -> list[Metric[Any]]:
    """Metrics from names or `Metric`s.

    A metric that is given twice is taken once.
    Raises: ChoiceError for unknown names, and for two metrics of one name; TypeError for other types.
    """
    selected: list[Metric[Any]] = []
    for each in metrics:
        if isinstance(each, str):
            require_choice(each, METRICS, "metric", table="tightframe.metrics.METRICS")
            each = METRICS[each]
        if not isinstance(each, Metric):
            raise TypeError(f"metrics must be names in METRICS or made with @metric; got {each!r}.")
        if each in selected:
            continue
        if any(each.name == other.name for other in selected):
            raise ChoiceError(f"two measures are named {each.name!r}; rename one with {each.name}.having('...').")
        selected.append(each)
    return selected


def available(evidence: Evidence) -> list[Metric[Any]]:
    """The metrics in `METRICS` that are computed by default and that the evidence allows.

    >>> import torch
    >>> from tightframe import metrics
    >>> weight = torch.eye(3)
    >>> names = [each.name for each in metrics.available(metrics.Evidence(weight=weight))]
    >>> "nc1" in names  # it needs class statistics
    False
    """
    return [each for each in METRICS.values() if each.by_default and each.available(evidence)]


def evaluate(evidence: Evidence, metrics: Iterable[str | Metric[Any]] | None = None) -> dict[str, Tensor]:
    """Values by metric name. Default: `available(evidence)`. Pairwise metrics share one Gram matrix.

    Shape: scalars, float64.
    Raises: ChoiceError for unknown names; EvidenceError for missing data; the errors of the functions.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> values = metrics.evaluate(metrics.Evidence(statistics), ["nc1", "cdnv"])
    >>> {name: round(value.item(), 4) for name, value in values.items()}
    {'nc1': 0.02, 'cdnv': 0.01}
    """
    selected = available(evidence) if metrics is None else chosen(metrics)
    together = [each for each in selected if each.pairs is not None and evidence.statistics is not None]
    shared: dict[str, Tensor] = {}
    if together and evidence.statistics is not None:
        shared = dict(zip([each.name for each in together], pairwise(evidence.statistics, together), strict=True))
    return {each.name: shared[each.name] if each.name in shared else each.of(evidence) for each in selected}


def pairwise(
    statistics: ClassStatistics, metrics: Sequence[Metric[Any]], classes: Tensor | None = None
) -> list[Tensor]:
    """Values of several pairwise metrics from one pass over one tiled Gram matrix. `classes`: indices of a subset."""
    return over_pairs(statistics, *(reduction_of(each) for each in metrics), classes=classes)


def reduction_of(metric: Metric[Any]) -> OverPairs:
    """The reduction over all pairs of a pairwise metric, with its options."""
    assert metric.pairs is not None
    return metric.pairs(**metric.known_options(metric.pairs))
