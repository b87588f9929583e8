"""The number of classes with enough samples, and the measures over those classes."""

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
"""Minimum samples per class, one row of the table each."""

MEASURES: dict[str, Metric[Any]] = {
    **{name: METRICS[name] for name in ("nc1", "cdnv")},
    "cdnv_debiased": cdnv.having("cdnv_debiased", debiased=True, label="CDNV, debiased"),
    **{name: METRICS[name] for name in ("equinorm", "equiangularity", "etf_error", "self_duality_error")},
}
"""The measures of each row; those that the evidence does not allow are left out."""


def with_at_least(evidence: Evidence, samples: int) -> Evidence:
    """The evidence on the classes with at least this many samples; decisions stay those among all classes.

    If classes are left out, NC1 needs the scatter of each class. Raises: RangeError unless samples >= 1.
    """
    if samples < 1:
        raise RangeError(f"min_count must be at least 1; got {samples}.")
    statistics = evidence.statistics
    if statistics is None or not (statistics.counts[statistics.present] < samples).any():
        return evidence
    selected = statistics.with_at_least(samples)
    folds = evidence.folds
    return replace(
        evidence,
        statistics=selected,
        projected=None,
        folds=None if folds is None else folds.select(selected.class_ids),
    )


def coverage_rows(evidence: Evidence, known: Mapping[str, float] | None = None) -> tuple[CoverageRow, ...]:
    """One row per threshold that at least two classes meet; the first row holds all classes with samples.

    Thresholds that the same classes meet share a row; empty if all do. Measures undefined on a subset are left out.
    `known` holds values over all classes, which are not computed again.
    """
    statistics = evidence.statistics
    if statistics is None:
        return ()
    counts = statistics.counts[statistics.present]
    least: dict[int, int] = {}  # number of classes that meet it -> lowest threshold
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
            warnings.simplefilter("ignore")  # the measures of all classes already warned
            fresh = evaluate(part, [MEASURES[name] for name in names if name not in values])
        values |= {name: float(value) for name, value in fresh.items()}
        samples = int(counts[counts >= threshold].sum())
        rows.append(CoverageRow(threshold, classes, samples, values))
    return tuple(rows)
