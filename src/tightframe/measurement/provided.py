"""What a measurement provides for its named measures, known before the pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import EvidenceError
from tightframe.metrics import CONVENTIONS, Metric
from tightframe.metrics.table import chosen
from tightframe.options import Measuring
from tightframe.sources import LinearClassifier
from tightframe.sources.source import OOD

Lack = Literal["outside", "classifier", "decisions", "scatter", "class scatter"]

MENDED: dict[Lack, str] = {
    "outside": 'out-of-distribution samples. Pass ood=..., or a source with the split "ood"',
    "classifier": "a linear classifier. Pass classifier=..., or a source with a classifier",
    "decisions": 'decisions. Pass decisions="all"',
    "scatter": "the scatter within classes. Pass covariance=True, and raise covariance_bytes if it is too small",
    "class scatter": "the scatter per class. Pass per_class=True, and raise covariance_bytes if it is too small",
}
"""What a measure lacks, and the argument that provides it."""


@dataclass(frozen=True)
class Provided:
    """What a measurement provides.

    Attributes:
        outside: out-of-distribution samples.
        classifier: the weight of the classifier. linear: whether it decides without the model.
        decided: decisions of the model itself.
        decisions: whether decisions are counted.
        span_scatter, scatter, class_scatter: the scatter in the span of the means; the pooled one; one per class.
    """

    outside: bool
    classifier: bool
    linear: bool
    decided: bool
    decisions: bool
    span_scatter: bool
    scatter: bool
    class_scatter: bool

    @classmethod
    def of(
        cls, options: Measuring, splits: Collection[str], classifier: LinearClassifier | None, *, decided: bool
    ) -> Provided:
        """What the options and a source provide, unless memory is too small for the scatter."""
        return cls(
            OOD in splits,
            classifier is not None,
            classifier is not None and classifier.decides,
            decided,
            options.decisions is not None,
            options.covariance,
            options.covariance,
            options.per_class,
        )

    def lack(self, metric: Metric[Any], *, without_bias: bool = False) -> Lack | None:
        """What a metric reads that is not provided, or None; `without_bias` as in `Convention`."""
        reads = set(metric.reads)
        if "outside" in reads and not self.outside:
            return "outside"
        if reads & {"weight", "classifier", "reader"} and not self.classifier:
            return "classifier"
        if "decisions" in reads:
            if not self.decisions:
                return "decisions"
            if not (self.linear or (self.decided and not without_bias)) and _of_classifier(metric):
                return "classifier"
        if "statistics" in reads and not self.class_scatter:
            if metric.needed == "class scatter":
                return "class scatter"
            if not {"means": True, "span scatter": self.span_scatter}.get(metric.needed, self.scatter):
                return "scatter"
        return None

    def lacks(self, options: Measuring) -> Iterator[tuple[str, str, Lack]]:
        """(argument, name, lack) of each measure named in `options` that lacks something."""
        named = [("metrics", each.name, each, False) for each in chosen(options.metrics or ())]
        conventions = ((name, CONVENTIONS[name]) for name in options.conventions)
        named += [("conventions", name, each.metric, each.without_bias) for name, each in conventions]
        for argument, name, metric, without_bias in named:
            if (lack := self.lack(metric, without_bias=without_bias)) is not None:
                yield argument, name, lack

    def require(self, options: Measuring) -> None:
        """Raise EvidenceError for the first measure named in `options` that lacks something."""
        for _, name, lack in self.lacks(options):
            raise EvidenceError(f"{name} needs {MENDED[lack]}.")


def _of_classifier(metric: Metric[Any]) -> bool:
    """Whether the metric counts decisions of the classifier."""
    none = torch.zeros(1, dtype=torch.int64)
    return metric.hits is not None and metric.hits(DecisionTotals(none, None, none, None)) is None
