"""`Report`: the outcome of one measurement, every value beside its target, floor, null level and source."""

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

from tightframe.errors import EmptyClassError, GeometryWarning
from tightframe.metrics import METRICS, Evidence, Metric, binomial_error, evaluate
from tightframe.metrics.conventions import CONVENTIONS
from tightframe.statistics import ClassStatistics
from tightframe.theory import reference


@dataclass(frozen=True)
class Entry:
    """One value of a report.

    Attributes:
        name: the metric's name; label, family, convention and source are the metric's.
        split: the samples it was taken on: "train", "test", or "ood" where both are needed.
        value: NaN where it is undefined.
        target: value at perfect collapse; floor: best possible in this dimension, if not the target;
            null: expected without class structure; random: for class means, and classifier rows, in independent random
            directions. None where unknown.
        standard_error: of the samples drawn, for the trained network as it is. None where unknown.
        classes: how many classes it was taken over.
    """

    name: str
    split: str
    label: str
    family: str
    value: float
    target: float | None
    floor: float | None
    null: float | None
    standard_error: float | None
    convention: str
    source: str
    headline: bool
    random: float | None = None
    classes: int | None = None

    @property
    def position(self) -> float | None:
        """Where the value lies on the way from the null level, 0, to the best possible value, 1: the target, or the
        floor where the dimension forces one. Below 0 or above 1 beyond them; None unless both are known and differ."""
        best = self.target if self.floor is None else self.floor
        if best is None or self.null is None or best == self.null:
            return None
        return (self.null - self.value) / (self.null - best)

    @property
    def key(self) -> str:
        """The name, with "test/" or the like before it for splits other than "train" and "ood"."""
        return self.name if self.split in ("train", "ood") else f"{self.split}/{self.name}"


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
        test: Evidence | None = None,
        names: Sequence[str] | None = None,
        conventions: Mapping[str, Evidence] | None = None,
        context: dict[str, Any] | None = None,
    ) -> Report:
        """Evaluate metrics on evidence.

        Args:
            test: held-out evidence; of it, decisions (test NC4), variability and angles are reported.
            names: metrics to evaluate; default: all that the evidence allows.
            conventions: names in `CONVENTIONS` to report as well, each with evidence collected as it says.

        Raises: EmptyClassError where fewer than two classes have samples; KeyError for unknown names.
        """
        statistics = evidence.statistics
        if statistics is None:
            raise EmptyClassError("a report needs statistics.")
        statistics.populated()  # raises if there is nothing to report
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GeometryWarning)
            values = evaluate(evidence, names)
            entries = [
                _entry(
                    name,
                    METRICS[name],
                    _split(METRICS[name]),
                    float(value),
                    evidence,
                    statistics,
                )
                for name, value in values.items()
            ]
            for key, collected in (conventions or {}).items():
                convention = CONVENTIONS[key]
                split = _split(convention.row)
                row = _entry(
                    convention.metric, convention.row, split, float(convention(collected)), collected, statistics
                )
                entries.append(replace(row, name=key, label=f"{row.label} [{key}]", source=convention.source))
            if test is not None:
                for name, value in evaluate(test, _held_out(test)).items():
                    sizes = test.statistics if "statistics" in METRICS[name].arguments else None
                    row = _entry(name, METRICS[name], "test", float(value), test, sizes or statistics)
                    insert_by_family(entries, row)
        notes = [str(w.message) for w in caught if issubclass(w.category, GeometryWarning)]
        for other in caught:
            if not issubclass(other.category, GeometryWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        facts = _facts(evidence)
        notes += _coverage_notes(evidence)
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
        entries = tuple(Entry(**{k: _from_json(k, v) for k, v in entry.items()}) for entry in data["entries"])
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
        writer = csv.DictWriter(out, [*Entry.__dataclass_fields__, "position"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) | {"position": entry.position} for entry in self.entries)
        return _write(out.getvalue(), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page with the table, curves and Gram matrices; needs the extra "report"."""
        from tightframe.report.html import page

        return _write(page(self), path)

    def to_terminal(self, *, full: bool = False) -> None:
        """Print the table; headline rows only, unless `full`. Needs the extra "cli"."""
        from tightframe.report.terminal import print_report

        print_report(self, full=full)

    def __str__(self) -> str:
        return "\n".join(f"{entry.key:32s} {entry.value:.6g}" for entry in self.entries)


_HELD_OUT = (
    *("nc1", "trace_ratio", "cdnv", "equinorm", "equiangularity", "etf_error"),
    *("ncc_mismatch", "ncc_accuracy", "classifier_accuracy"),
)


def _held_out(test: Evidence) -> list[str]:
    """What is reported of held-out samples: what they allow, which is nothing between classes if they have one."""
    classes = 0 if test.statistics is None else int(test.statistics.present.sum())
    names = [name for name in _HELD_OUT if METRICS[name].available(test)]
    return [name for name in names if classes > 1 or METRICS[name].arguments == ("decisions",)]


def insert_by_family(entries: list[Entry], entry: Entry) -> None:
    """Put an entry after the last of its family, or at the end."""
    family = [place for place, other in enumerate(entries) if other.family == entry.family]
    entries.insert(family[-1] + 1 if family else len(entries), entry)


def _split(metric: Metric) -> str:
    return "ood" if "outside" in metric.arguments else "train"


def _entry(name: str, metric: Metric, split: str, value: float, evidence: Evidence, sizes: ClassStatistics) -> Entry:
    level = reference(name, sizes.counts, sizes.num_features)
    error = None
    if metric.arguments == ("decisions",) and "class_weighted" not in name and evidence.decisions is not None:
        error = float(binomial_error(METRICS[name](evidence), evidence.decisions))
    return Entry(
        name,
        split,
        metric.label,
        metric.family,
        value,
        level.target,
        level.floor,
        level.null,
        error,
        metric.convention,
        metric.source,
        metric.headline,
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


def _coverage_notes(evidence: Evidence) -> list[str]:
    statistics = evidence.statistics
    assert statistics is not None and statistics.class_ids is not None
    notes = []
    absent = statistics.class_ids[statistics.counts == 0]
    single = statistics.class_ids[statistics.counts == 1]
    if len(absent):
        notes.append(
            f"{len(absent)} of {statistics.num_classes} classes have no samples and are left out: {_some(absent)}."
        )
    if len(single):
        who = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        notes.append(f"{who} a single sample, whose zero variance is not collapse: {_some(single)}.")
    if statistics.within is None and statistics.class_within is None:
        notes.append(
            "no covariance was kept, so NC1, VCI, the rank and the share in the span of the means are left out."
            if evidence.projected is None
            else "the D x D scatter was beyond the memory budget: NC1 was taken in the span of the class means, where "
            "it is the same; VCI and the rank are left out."
        )
    if int(statistics.present.sum()) - 1 > statistics.num_features:
        notes.append(
            f"{int(statistics.present.sum())} classes don't fit a simplex ETF in {statistics.num_features} dimensions; "
            "floors say what is possible."
        )
    return notes


def _some(labels: Any) -> str:
    shown = ", ".join(map(str, labels[:10].tolist()))
    return shown + (", ..." if len(labels) > 10 else "")


def _jsonable(value: Any) -> Any:
    """The value with NaN and infinities as strings, in mappings and sequences too."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(key: str, value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") and key != "name" else value


def _write(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
