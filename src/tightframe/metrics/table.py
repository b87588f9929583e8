"""`METRICS`: the quantities of all families by name, and the evaluation of many of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from tightframe.errors import ChoiceError
from tightframe.evidence import Evidence
from tightframe.metrics import agreement, duality, geometry, layers, orthogonality, predicted, variability
from tightframe.metrics.metric import Metric
from tightframe.metrics.pairs import OverPairs, over_pairs
from tightframe.statistics import ClassStatistics

FAMILIES = ("NC1", "scale", "NC2", "GNC2", "NC3", "NC4", "accuracy", "NC5")
"""The phenomena that metrics measure, in the order of tables; those of metrics of one's own come last."""

_FILES = (variability, geometry, predicted, duality, layers, agreement, orthogonality)
_ALL: list[Metric[Any]] = [each for file in _FILES for each in file.METRICS]

METRICS: dict[str, Metric[Any]] = {each.name: each for family in FAMILIES for each in _ALL if each.family == family}
"""Every quantity, with the options that are usual, by name."""


def chosen(metrics: Iterable[str | Metric[Any]]) -> list[Metric[Any]]:
    """The metrics, given by name or themselves.

    Raises: ChoiceError for other names and for two of one name, TypeError for other things.
    """
    found: list[Metric[Any]] = []
    for each in metrics:
        if isinstance(each, str):
            if each not in METRICS:
                raise ChoiceError(f"no measure is called {each!r}; there are: {', '.join(METRICS)}.")
            each = METRICS[each]
        if not isinstance(each, Metric):
            raise TypeError(f"metrics are names in METRICS, or made with @metric; got {each!r}.")
        if any(each.name == other.name for other in found):
            raise ChoiceError(
                f"two measures are called {each.name!r}; give one another name: {each.name}.having('...')."
            )
        found.append(each)
    return found


def available(evidence: Evidence) -> list[Metric[Any]]:
    """Those of `METRICS` that the evidence allows."""
    return [each for each in METRICS.values() if each.available(evidence)]


def evaluate(evidence: Evidence, metrics: Iterable[str | Metric[Any]] | None = None) -> dict[str, Tensor]:
    """The metrics, or all that the evidence allows, by name, with one Gram matrix for all pairwise ones.

    Raises: ChoiceError, EvidenceError; the errors of the functions.
    """
    wanted = available(evidence) if metrics is None else chosen(metrics)
    together = [each for each in wanted if each.pairs is not None and evidence.statistics is not None]
    shared: dict[str, Tensor] = {}
    if together and evidence.statistics is not None:
        shared = dict(zip([each.name for each in together], pairwise(evidence.statistics, together), strict=True))
    return {each.name: shared[each.name] if each.name in shared else each.of(evidence) for each in wanted}


def pairwise(
    statistics: ClassStatistics, metrics: Sequence[Metric[Any]], classes: Tensor | None = None
) -> list[Tensor]:
    """Values of several pairwise metrics from one pass over one tiled Gram matrix; of some classes' pairs, by index."""
    return over_pairs(statistics, *(_over_pairs(each) for each in metrics), classes=classes)


def _over_pairs(metric: Metric[Any]) -> OverPairs:
    assert metric.pairs is not None
    return metric.pairs(**metric.known_options(metric.pairs))
