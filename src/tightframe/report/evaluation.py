"""From evidence to findings: metrics with their errors and levels, facts and notes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.errors import EmptyClassError, GeometryWarning
from tightframe.evidence import Evidence, totals_of
from tightframe.metrics import (
    CONVENTIONS,
    METRICS,
    Level,
    Metric,
    Setting,
    closeness,
    evaluate,
    jackknife,
    levels,
    mean_norms,
    standard_errors,
)
from tightframe.metrics.jackknife import MANY_PAIRED
from tightframe.metrics.levels import MANY
from tightframe.metrics.table import available, chosen
from tightframe.report.coverage import coverage_rows, with_at_least
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.facts import CALLERS, NAMES, Facts
from tightframe.report.findings import Findings
from tightframe.report.predicted import LARGEST, distances_to_predictions, optimum_entries
from tightframe.sharing import forget
from tightframe.statistics import ClassStatistics
from tightframe.theory import Training


def findings(
    evidence: Evidence,
    *,
    selected: Evidence | None = None,
    test: Evidence | None = None,
    metrics: Sequence[str | Metric[Any]] | None = None,
    conventions: Mapping[str, Evidence] | None = None,
    min_count: int = 1,
    training: Training | None = None,
    facts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Findings:
    """Evaluate metrics on evidence; arguments and errors as in `Report.from_evidence`."""
    if evidence.statistics is None:
        raise EmptyClassError("the evidence of a report must have statistics; got none. Collect or pass statistics.")
    whole, evidence = evidence, with_at_least(evidence, min_count) if selected is None else selected
    statistics = evidence.statistics
    assert statistics is not None
    statistics.populated()  # raises if no class has samples
    values, notes = _facts(evidence), _coverage_notes(evidence, whole)
    left_out = int(whole.statistics.present.sum()) - int(statistics.present.sum())  # type: ignore[union-attr]
    if left_out:
        values["min_count"] = min_count
        notes.append(f"the measures leave out {_classes(left_out)} with fewer than {min_count} samples.")
    if training is not None and evidence.weight is not None:
        estimated = training.feature_decay is None
        training = training.with_feature_decay(statistics, evidence.weight)
        values |= {"training": training, "feature_decay_estimated": estimated}
    else:
        training = None
    with _geometry_notes() as remarks:
        wanted = None if metrics is None else chosen(metrics)
        entries = _entries(evidence, wanted, whole)
        usual = {each.name for each in wanted or METRICS.values() if METRICS.get(each.name) is each}
        coverage = coverage_rows(evidence, {entry.name: entry.value for entry in entries if entry.name in usual})
        if training is not None and int(statistics.present.sum()) <= LARGEST:
            for row in optimum_entries(evidence, training):
                insert_by_family(entries, row)
        for key, collected in (conventions or {}).items():
            convention = CONVENTIONS[key]
            (row,) = _entries(with_at_least(collected, min_count), [convention.metric], collected)
            entries.append(replace(row, name=key, label=f"{row.label} [{key}]", source=convention.source))
        if test is not None:
            same = _of_classes(test, statistics) if left_out else test
            held = with_at_least(same, min_count)
            if held is not same and same.counts is not None and (few := int((same.counts < min_count).sum())):
                notes.append(f"held-out rows leave out {_classes(few)} with fewer than {min_count} held-out samples.")
            for row in _entries(held, _held_out(held, wanted), test, trained=evidence, all_trained=whole):
                insert_by_family(entries, replace(row, split="test"))
        distances = distances_to_predictions(evidence, training)
    for each in (evidence, test, *(conventions or {}).values()):
        forget(None if each is None else each.statistics)
    extra = {**(facts or {}), **(context or {})}
    callers = CALLERS | (facts or {}).keys()
    named = Facts.of({**values, **{name: value for name, value in extra.items() if name in callers}})
    return Findings(
        tuple(entries),
        named,
        tuple(dict.fromkeys(remarks + notes)),
        {name: value for name, value in extra.items() if name not in callers & NAMES},
        evidence,
        coverage=coverage,
        class_errors=class_errors(evidence),
        class_accuracies=_class_accuracies(test),
        distances=distances,
    )


@contextmanager
def _geometry_notes() -> Iterator[list[str]]:
    """A list that holds the geometry warnings on exit; other warnings go on to the caller."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GeometryWarning)
        yield notes
    for each in caught:
        if issubclass(each.category, GeometryWarning):
            notes.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def class_errors(evidence: Evidence) -> dict[str, list[float]]:
    """Standard errors of each class's "norm" (distance of its mean to the mean of means) and "variance", for the
    classes with samples; NaN for a class with all samples in one fold. Empty without folds or for more than `LARGEST`
    classes."""
    folds = evidence.folds
    if folds is None or int(folds.total.present.sum()) > LARGEST:
        return {}
    errors = jackknife(_norms_and_variances, folds.without_scatter).standard_error
    errors[:, torch.isin(folds.total.class_ids[folds.total.present], folds.undivided)] = torch.nan
    norms, variances = errors.tolist()
    return {"norm": norms, "variance": variances}


def _norms_and_variances(statistics: ClassStatistics) -> Tensor:
    return torch.stack([mean_norms(statistics), statistics.populated().variances])


def _class_accuracies(test: Evidence | None) -> dict[str, float]:
    """The classifier's accuracy on held-out samples of each class, by label; for at most `LARGEST` classes."""
    if test is None or test.decisions is None:
        return {}
    totals = totals_of(test.decisions)
    if totals.classifier_correct is None or len(totals.counts) > LARGEST or not totals.counts.any():
        return {}
    shares = totals.classifier_correct.double() / totals.counts
    return {str(label): share for label, share in enumerate(shares.tolist())}


def _held_out(test: Evidence, metrics: Sequence[Metric[Any]] | None) -> list[Metric[Any]]:
    """Metrics that held-out samples allow; with one class, none that compare classes."""
    classes = 0 if test.counts is None else len(test.counts)
    wanted = METRICS.values() if metrics is None else metrics
    feasible = [each for each in wanted if each.held_out and each.available(test)]
    return [each for each in feasible if classes > 1 or each.reads == ("decisions",)]


def _of_classes(test: Evidence, training: ClassStatistics) -> Evidence:
    """Held-out evidence on the reported classes; decisions stay those among all classes."""
    if test.statistics is None:
        return test
    labels = training.class_ids[training.present].cpu()
    shared = labels[torch.isin(labels, test.statistics.class_ids.cpu())]
    return replace(test, statistics=test.statistics.select(shared.to(test.statistics.counts.device)))


def _entries(
    evidence: Evidence,
    metrics: Sequence[Metric[Any]] | None,
    whole: Evidence,
    *,
    trained: Evidence | None = None,
    all_trained: Evidence | None = None,
) -> list[Entry]:
    """The metrics of evidence, with standard errors and levels.

    Args:
        whole: the evidence on all classes, for metrics of decisions.
        trained, all_trained: the training evidence, selected and on all classes, if `evidence` is held out.
    """
    metrics = available(evidence) if metrics is None else metrics
    values, errors = evaluate(evidence, metrics), standard_errors(evidence, metrics)
    of_decisions = [each for each in metrics if each.reads == ("decisions",) and whole is not evidence]
    drawn = levels(evidence, [each for each in metrics if each not in of_decisions], trained=trained)
    drawn |= levels(whole, of_decisions, trained=all_trained)
    entries = []
    for each in metrics:
        value, error = float(torch.as_tensor(values[each.name]).detach()), errors.get(each.name)
        entries.append(_entry(each, value, error, drawn.get(each.name), evidence, trained))
    return entries


def _entry(
    metric: Metric[Any],
    value: float,
    error: Tensor | None,
    level: Level | None,
    evidence: Evidence,
    trained: Evidence | None,
) -> Entry:
    setting = Setting.of(
        trained if evidence.statistics is None or ("decisions" in metric.reads and trained) else evidence
    )
    everything = Setting.of(trained)
    if setting is not None and everything is not None:  # held-out samples may lack some of the model's classes
        setting = replace(setting, classes=max(setting.classes, everything.classes))
    nearness = None if setting is None else closeness(metric, value, level, setting)
    number = None if error is None or error.isnan() else float(error)
    least = nearness
    if setting is not None and number is not None and (best := metric.best_in(setting)) is not None:
        least = closeness(metric, value + math.copysign(2 * number, value - best), level, setting)
    return Entry(
        metric.name,
        "ood" if "outside" in metric.reads else "train",
        metric.label,
        metric.family,
        value,
        None if setting is None else metric.target_in(setting),
        None if setting is None else metric.floor_in(setting),
        None if level is None else level.value,
        number,
        metric.convention,
        metric.source,
        metric.headline,
        shuffled_spread=None if level is None else level.spread,
        level="" if level is None else level.kind,
        closeness=None if nearness is None else nearness.times,
        remark="" if nearness is None else nearness.remark,
        classes=None if setting is None else setting.K,
        least_closeness=None if least is None else least.times,
    )


def _facts(evidence: Evidence) -> dict[str, Any]:
    statistics = evidence.statistics
    assert statistics is not None
    return {
        "samples": int(statistics.num_samples),
        "classes": statistics.num_classes,
        "dimension": statistics.num_features,
        "coverage": {str(k): v for k, v in statistics.coverage().items()},
        "smallest_class": int(statistics.counts[statistics.present].min()),
        "largest_class": int(statistics.counts.max()),
    }


def _classes(number: int) -> str:
    return "1 class" if number == 1 else f"{number:,} classes"


def _coverage_notes(evidence: Evidence, whole: Evidence) -> list[str]:
    statistics = evidence.statistics
    assert statistics is not None
    notes = []
    if evidence.folds is not None and len(undivided := evidence.folds.undivided):
        notes.append(
            f"standard errors leave out the sampling of {_classes(len(undivided))}, whose samples are all in one fold: "
            f"{listed(undivided.tolist())}."
        )
    absent = statistics.class_ids[statistics.counts == 0].tolist()
    single = statistics.class_ids[statistics.counts == 1].tolist()
    if absent:
        notes.append(
            f"{len(absent)} of {statistics.num_classes} classes have no samples and are left out: {listed(absent)}."
        )
    if single:
        have = "has" if len(single) == 1 else "have"
        sizes = f"{_classes(len(single))} {have} a single sample ({listed(single)})"
        notes.append(f"{sizes}; zero variance there is not collapse.")
    if statistics.within is None and statistics.class_within is None:
        selected = whole.statistics is not None and whole.statistics.within is not None
        notes.append(
            "NC1, VCI, the rank and the share in the span of the means are left out: they need the scatter of the "
            "selected classes. Pass per_class=True, or data that can be read twice."
            if selected
            else "NC1, VCI, the rank and the share in the span of the means are left out: there is no covariance."
            if evidence.projected is None
            else "the D x D scatter exceeds the memory budget: NC1 was computed in the span of the class means, where "
            "it is the same; VCI and the rank are left out."
        )
    if int(statistics.present.sum()) > MANY:
        notes.append("shuffled levels of measures over pairs come from 1,000 random classes.")
    if evidence.folds is not None and int(statistics.present.sum()) > MANY_PAIRED:
        notes.append(f"measures over pairs of more than {MANY_PAIRED:,} classes have no standard errors.")
    return notes
