"""`Report`: the outcome of one measurement, every value beside its target, level with shuffled labels and source."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.errors import EmptyClassError, GeometryWarning
from tightframe.evidence import Evidence
from tightframe.metrics import (
    CONVENTIONS,
    METRICS,
    Level,
    Metric,
    Setting,
    closeness,
    evaluate,
    levels,
    standard_errors,
)
from tightframe.metrics.jackknife import MANY_PAIRED
from tightframe.metrics.levels import MANY
from tightframe.metrics.table import available, chosen
from tightframe.report.coverage import coverage_table, with_at_least
from tightframe.report.drilldown import class_errors
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.geometry import LARGEST, distances_to_predictions, optimum_entries
from tightframe.sharing import forget
from tightframe.statistics import ClassStatistics
from tightframe.theory import Training


@dataclass(frozen=True)
class Report:
    """The entries of one measurement and what they were measured on.

    Attributes:
        entries: in the order of the table.
        context: what was measured: epoch, layer, mode, samples, classes, dimension, coverage and the like.
        notes: sentences that a reader of the numbers must know.
        evidence: statistics, classifier and decisions behind the entries; not written to JSON.
        history: earlier reports of the same run, oldest first.
        layers: reports of the layers before this one's, in order of depth; see `Profile`.
    """

    entries: tuple[Entry, ...]
    context: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    history: tuple[Report, ...] = ()
    layers: tuple[Report, ...] = ()

    @classmethod
    def from_evidence(
        cls,
        evidence: Evidence,
        *,
        selected: Evidence | None = None,
        test: Evidence | None = None,
        metrics: Sequence[str | Metric[Any]] | None = None,
        conventions: Mapping[str, Evidence] | None = None,
        min_count: int = 1,
        training: Training | None = None,
        context: dict[str, Any] | None = None,
    ) -> Report:
        """Evaluate metrics on evidence.

        Args:
            selected: the same on the classes with `min_count` samples alone, where that was collected; otherwise they
                are selected here, without their pooled scatter.
            test: held-out evidence; of it, decisions (test NC4), variability and angles are reported.
            metrics: what to evaluate, names in `METRICS` or metrics; default: all that the evidence allows.
            conventions: names in `CONVENTIONS` to report as well, each with evidence collected as it says.
            min_count: leave out classes with fewer samples; decisions stay those among all classes.
            training: how the classifier was trained, for what theory predicts at these weight decays.

        Raises: EmptyClassError where fewer than two classes have so many samples; ChoiceError for unknown names.
        """
        if evidence.statistics is None:
            raise EmptyClassError("a report needs statistics.")
        whole, evidence = evidence, with_at_least(evidence, min_count) if selected is None else selected
        statistics = evidence.statistics
        assert statistics is not None
        statistics.populated()  # raises if there is nothing to report
        facts, notes = _facts(evidence), _coverage_notes(evidence, whole)
        if evidence.folds is not None and len(undivided := evidence.folds.undivided):
            notes.append(
                f"standard errors leave out the sampling of {len(undivided)} classes, whose samples are all in one "
                f"fold: {listed(undivided.tolist())}."
            )
        left_out = int(whole.statistics.present.sum()) - int(statistics.present.sum())  # type: ignore[union-attr]
        if left_out:
            facts["min_count"] = min_count
            notes.append(f"{left_out} classes with fewer than {min_count} samples are left out.")
        predicted: list[Entry] = []
        if training is not None and evidence.weight is not None:
            known = training.with_feature_decay(statistics, evidence.weight)
            facts |= {"training": known.to_dict(), "feature_decay_estimated": training.feature_decay is None}
            if int(statistics.present.sum()) <= LARGEST:
                predicted = optimum_entries(evidence, known)
        if errors := class_errors(evidence):
            facts["class_errors"] = errors
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GeometryWarning)
            wanted = None if metrics is None else chosen(metrics)
            entries = _entries(evidence, wanted, whole)
            usual = {each.name for each in wanted or METRICS.values() if METRICS.get(each.name) is each}
            known_values = {entry.name: entry.value for entry in entries if entry.name in usual}
            if table := coverage_table(evidence, known_values):
                facts["coverage_table"] = table
            for row in predicted:
                insert_by_family(entries, row)
            for key, collected in (conventions or {}).items():
                convention = CONVENTIONS[key]
                (row,) = _entries(with_at_least(collected, min_count), [convention.metric], collected)
                entries.append(replace(row, name=key, label=f"{row.label} [{key}]", source=convention.source))
            if test is not None:
                same = _of_classes(test, statistics) if left_out else test
                held = with_at_least(same, min_count)
                if held is not same and same.counts is not None and (few := int((same.counts < min_count).sum())):
                    notes.append(
                        f"{few} classes with fewer than {min_count} held-out samples are left out of held-out rows."
                    )
                for row in _entries(held, _held_out(held, wanted), test, trained=evidence, all_trained=whole):
                    insert_by_family(entries, replace(row, split="test"))
            if said := distances_to_predictions(evidence, facts.get("training")):
                facts["distances_to_predictions"] = said
        for each in (evidence, test, *(conventions or {}).values()):
            forget(None if each is None else each.statistics)
        notes = [str(w.message) for w in caught if issubclass(w.category, GeometryWarning)] + notes
        for other in caught:
            if not issubclass(other.category, GeometryWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return cls(tuple(entries), {**facts, **(context or {})}, tuple(dict.fromkeys(notes)), evidence)

    def extended(
        self, entries: Sequence[Entry], notes: Sequence[str] = (), context: Mapping[str, Any] | None = None
    ) -> Report:
        """The report with further entries, each after the last of its family, and further notes and facts."""
        rows = list(self.entries)
        for entry in entries:
            insert_by_family(rows, entry)
        return replace(
            self,
            entries=tuple(rows),
            notes=tuple(dict.fromkeys([*self.notes, *notes])),
            context={**self.context, **(context or {})},
        )

    def __getitem__(self, key: str) -> Entry:
        """The entry of that key; KeyError names those there are."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        raise KeyError(f"no entry {key!r}; there are: {', '.join(entry.key for entry in self.entries)}")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    @property
    def values(self) -> dict[str, float]:
        """{key: value} of all entries."""
        return {entry.key: entry.value for entry in self.entries}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN and infinities become strings, as JSON has none."""
        data: dict[str, Any] = {
            "context": _jsonable(self.context),
            "notes": list(self.notes),
            "entries": [_jsonable(asdict(entry)) for entry in self.entries],
        }
        return data | ({"layers": [layer.to_dict() for layer in self.layers]} if self.layers else {})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Inverse of `to_dict`, without evidence."""
        entries = tuple(Entry.from_dict({k: _from_json(k, v) for k, v in entry.items()}) for entry in data["entries"])
        layers = tuple(cls.from_dict(layer) for layer in data.get("layers", ()))
        return cls(entries, data["context"], tuple(data["notes"]), layers=layers)

    def without_evidence(self) -> Report:
        """The numbers alone, without the tensors behind them."""
        return replace(self, evidence=None, layers=tuple(layer.without_evidence() for layer in self.layers))

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text, also written to `path` if given."""
        return _write(json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1), path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The entries as CSV text with a header, also written to `path` if given."""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(Entry.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in self.entries)
        return _write(out.getvalue(), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page with the table, curves and Gram matrices; needs the extra "report"."""
        from tightframe.report.html import page

        return _write(page(self), path)

    def to_terminal(self, *, full: bool = False, classes: bool = False) -> None:
        """Print the table; headline rows only, unless `full`; with `classes`, what lies behind them. Needs the extra
        "cli"."""
        from tightframe.report.terminal import print_report

        print_report(self, full=full, classes=classes)

    def __str__(self) -> str:
        return "\n".join(f"{entry.key:32s} {entry.value:.6g}" for entry in self.entries)


def _held_out(test: Evidence, metrics: Sequence[Metric[Any]] | None) -> list[Metric[Any]]:
    """What is reported of held-out samples: what they allow, which is nothing between classes if they have one."""
    classes = 0 if test.counts is None else len(test.counts)
    wanted = METRICS.values() if metrics is None else metrics
    able = [each for each in wanted if each.held_out and each.available(test)]
    return [each for each in able if classes > 1 or each.reads == ("decisions",)]


def _of_classes(test: Evidence, training: ClassStatistics) -> Evidence:
    """Held-out evidence on the classes that are reported on; decisions stay those among all classes."""
    if test.statistics is None:
        return test
    kept = training.class_ids[training.present]
    there = torch.isin(kept.cpu(), test.statistics.class_ids.cpu())
    return replace(test, statistics=test.statistics.select(kept.cpu()[there].to(test.statistics.counts.device)))


def _entries(
    evidence: Evidence,
    metrics: Sequence[Metric[Any]] | None,
    whole: Evidence,
    *,
    trained: Evidence | None = None,
    all_trained: Evidence | None = None,
) -> list[Entry]:
    """The metrics of some evidence with their standard errors and levels.

    Args:
        whole: the evidence on all classes, among which decisions are.
        trained, all_trained: the training evidence and that on all classes, where this is of held-out samples.
    """
    metrics = available(evidence) if metrics is None else metrics
    values, errors = evaluate(evidence, metrics), standard_errors(evidence, metrics)
    of_decisions = [each for each in metrics if each.reads == ("decisions",) and whole is not evidence]
    known = levels(evidence, [each for each in metrics if each not in of_decisions], trained=trained)
    known |= levels(whole, of_decisions, trained=all_trained)
    found = []
    for each in metrics:
        value, error = float(torch.as_tensor(values[each.name]).detach()), errors.get(each.name)
        found.append(_entry(each, value, error, known.get(each.name), evidence, trained))
    return found


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
    if setting is not None and everything is not None:  # held-out samples may be of fewer of the model's classes
        setting = replace(setting, classes=max(setting.classes, everything.classes))
    found = None if setting is None else closeness(metric, value, level, setting)
    return Entry(
        metric.name,
        "ood" if "outside" in metric.reads else "train",
        metric.label,
        metric.family,
        value,
        None if setting is None else metric.target_in(setting),
        None if setting is None else metric.floor_in(setting),
        None if level is None else level.value,
        None if error is None or error.isnan() else float(error),
        metric.convention,
        metric.source,
        metric.headline,
        shuffled_spread=None if level is None else level.spread,
        level="" if level is None else level.kind,
        closeness=None if found is None else found.times,
        remark="" if found is None else found.remark,
        classes=None if setting is None else setting.K,
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


def _coverage_notes(evidence: Evidence, whole: Evidence) -> list[str]:
    statistics = evidence.statistics
    assert statistics is not None
    notes = []
    absent = statistics.class_ids[statistics.counts == 0].tolist()
    single = statistics.class_ids[statistics.counts == 1].tolist()
    if absent:
        notes.append(
            f"{len(absent)} of {statistics.num_classes} classes have no samples and are left out: {listed(absent)}."
        )
    if single:
        who = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        notes.append(f"{who} a single sample, whose zero variance is not collapse: {listed(single)}.")
    if statistics.within is None and statistics.class_within is None:
        selected = whole.statistics is not None and whole.statistics.within is not None
        notes.append(
            "the scatter of the selected classes alone wasn't kept, so NC1, VCI, the rank and the share in the span of "
            "the means are left out: keep it with per_class=True, or pass data that can be read again."
            if selected
            else "no covariance was kept, so NC1, VCI, the rank and the share in the span of the means are left out."
            if evidence.projected is None
            else "the D x D scatter was beyond the memory budget: NC1 was taken in the span of the class means, where "
            "it is the same; VCI and the rank are left out."
        )
    if int(statistics.present.sum()) > MANY:
        notes.append("levels with shuffled labels of measures over pairs are from a random 1,000 of the classes.")
    if evidence.folds is not None and int(statistics.present.sum()) > MANY_PAIRED:
        notes.append(f"measures over pairs of more than {MANY_PAIRED:,} classes have no standard errors.")
    if int(statistics.present.sum()) - 1 > statistics.num_features:
        notes.append(
            f"{int(statistics.present.sum())} classes don't fit a simplex ETF in {statistics.num_features} dimensions; "
            "floors say what is possible."
        )
    return notes


def _jsonable(value: Any) -> Any:
    """The value with NaN and infinities as strings, in mappings and sequences too; of arrays, their numbers."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return _jsonable(value.tolist())
    if isinstance(value, set | frozenset):
        return [_jsonable(each) for each in sorted(value, key=str)]
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return repr(value) if isinstance(value, float) else str(value)  # a path, a date, a dtype


def _from_json(key: str, value: Any) -> Any:
    return (
        float(value)
        if isinstance(value, str) and value in ("nan", "inf", "-inf") and key not in ("name", "label")
        else value
    )


def _write(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
