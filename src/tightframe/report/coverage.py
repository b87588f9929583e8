"""How many classes have enough samples, and what the measures are over those alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tightframe.errors import RangeError
from tightframe.evidence import Evidence
from tightframe.metrics import METRICS, Metric, cdnv, evaluate
from tightframe.report.findings import CoverageRow

THRESHOLDS = (1, 2, 10, 50)
"""Samples a class must have, in the rows of the table."""

MEASURES: dict[str, Metric[Any]] = {
    **{name: METRICS[name] for name in ("nc1", "cdnv")},
    "cdnv_debiased": cdnv.having("cdnv_debiased", debiased=True, label="CDNV, debiased"),
    **{name: METRICS[name] for name in ("equinorm", "equiangularity", "etf_error", "self_duality_error")},
}
"""What is given for each row, where the evidence allows it."""


def with_at_least(evidence: Evidence, samples: int) -> Evidence:
    """The evidence on the classes that have so many samples; decisions stay those among all classes.

    NC1 then needs the scatter of each class, if classes are left out. Raises: RangeError unless samples >= 1.
    """
    if samples < 1:
        raise RangeError(f"min_count must be at least 1; got {samples}.")
    statistics = evidence.statistics
    if statistics is None or not (statistics.counts[statistics.present] < samples).any():
        return evidence
    chosen = statistics.with_at_least(samples)
    folds = evidence.folds
    return replace(
        evidence,
        statistics=chosen,
        projected=None,
        folds=None if folds is None else folds.select(chosen.class_ids),
    )


def coverage_rows(evidence: Evidence, known: Mapping[str, float] | None = None) -> tuple[CoverageRow, ...]:
    """A row for every threshold that some class misses and some two meet, the first for all classes with samples.

    Empty where every class meets all thresholds. A measure that a part of the classes doesn't allow is missing there.
    `known` are values for all classes, which needn't be computed again.
    """
    statistics = evidence.statistics
    if statistics is None:
        return ()
    counts = statistics.counts[statistics.present]
    least: dict[int, int] = {}  # by the number of classes that meet it, the lowest threshold
    for threshold in THRESHOLDS:
        least.setdefault(int((counts >= threshold).sum()), threshold)
    thresholds = {threshold: classes for classes, threshold in least.items() if classes > 1}
    if len(thresholds) < 2:
        return ()
    rows: list[CoverageRow] = []
    for threshold, classes in thresholds.items():
        part = replace(with_at_least(evidence, threshold), folds=None)
        names = [name for name, metric in MEASURES.items() if metric.available(part)]
        values = {name: known[name] for name in names if known and name in known} if not rows else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said of all classes already
            fresh = evaluate(part, [MEASURES[name] for name in names if name not in values])
        values |= {name: float(value) for name, value in fresh.items()}
        samples = int(counts[counts >= threshold].sum())
        rows.append(CoverageRow(threshold, classes, samples, values))
    return tuple(rows)
