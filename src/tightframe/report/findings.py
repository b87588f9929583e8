"""`Findings`: the result of a measurement, as named plain values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from tightframe.errors import ChoiceError
from tightframe.evidence import Evidence
from tightframe.ood import DetectionTable
from tightframe.plain import plain, restored
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.facts import NAMES, Facts
from tightframe.sections import Section
from tightframe.similarity import LayerSimilarity


@dataclass(frozen=True)
class CoverageRow:
    """The measures over the classes with at least `min_count` samples: {measure: value}."""

    min_count: int
    classes: int
    samples: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Distances:
    """Distances of a measured Gram matrix to the predicted ones.

    Attributes:
        what: "class means" or "classifier rows".
        distances: by prediction; nearest, next: the nearest prediction and the second.
        margin: the difference of their distances; error: its standard error, None if it does not depend on samples.
        level, spread: the least distance with shuffled labels, or for rows in random directions.
    """

    what: str
    distances: Mapping[str, float]
    nearest: str
    next: str
    margin: float
    error: float | None
    level: float
    spread: float


@dataclass(frozen=True)
class Findings:
    """The entries of one measurement, and its subject.

    Attributes:
        entries: values in the order of tables.
        facts: the subject of the measurement.
        notes: sentences that qualify the numbers.
        context: further values from the caller.
        evidence: statistics, classifier and decisions behind the entries; not written to JSON.
        history: earlier measurements of the same run, oldest first.
        layers: the layers before this one, in order of depth.
        detection: results of out-of-distribution detectors.
        coverage: measures over the classes with enough samples; empty if all classes have enough.
        class_errors: standard errors of each class's "norm" and "variance", for the classes with samples.
        class_accuracies: accuracy on held-out samples by label; NaN for classes without samples.
        distances: distances to the predicted geometries, if there are several.
        similarity: similarity of all pairs of layers, if it was measured.
        sections: the caller's own sections, shown after the built-in ones.
        run: how the run was started, as in run.json.
    """

    entries: tuple[Entry, ...]
    facts: Facts = field(default_factory=Facts)
    notes: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None
    history: tuple[Self, ...] = ()
    layers: tuple[Self, ...] = ()
    detection: DetectionTable | None = None
    coverage: tuple[CoverageRow, ...] = ()
    class_errors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    class_accuracies: Mapping[str, float] = field(default_factory=dict)
    distances: tuple[Distances, ...] = ()
    similarity: LayerSimilarity | None = None
    sections: tuple[Section, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ entries by name

    def __getitem__(self, key: str) -> Entry:
        """The entry with this key. Raises: KeyError that names similar keys."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        like = difflib.get_close_matches(str(key), self.keys(), n=3)
        hint = f"did you mean {' or '.join(map(repr, like))}?" if like else f"there are: {', '.join(self.keys())}"
        raise KeyError(f"no measure {key!r}; {hint}")

    def __contains__(self, key: object) -> bool:
        return any(entry.key == key for entry in self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def keys(self) -> list[str]:
        """The keys of all entries in the order of tables, so that `dict(report)` is {key: entry}."""
        return [entry.key for entry in self.entries]

    def _ipython_key_completions_(self) -> list[str]:
        return self.keys()

    def get(self, key: str) -> Entry | None:
        """The entry with this key, or None."""
        return next((entry for entry in self.entries if entry.key == key), None)

    @property
    def values(self) -> dict[str, float]:
        """{key: value} of all entries."""
        return {entry.key: entry.value for entry in self.entries}

    def value(self, key: str) -> float:
        """The value of an entry; NaN if there is none."""
        entry = self.get(key)
        return math.nan if entry is None else entry.value

    @property
    def series(self) -> tuple[Self, ...]:
        """The history followed by this measurement."""
        return (*self.history, self)

    # ------------------------------------------------------------------ extended copies

    def extended(
        self, entries: Sequence[Entry] = (), notes: Sequence[str] = (), facts: Mapping[str, Any] | None = None
    ) -> Self:
        """A copy with further entries, each after the last of its family, and further notes and facts."""
        rows = list(self.entries)
        for entry in entries:
            insert_by_family(rows, entry)
        return replace(
            self,
            entries=tuple(rows),
            notes=tuple(dict.fromkeys([*self.notes, *notes])),
            facts=replace(self.facts, **(facts or {})),
        )

    def with_sections(self, *sections: Section) -> Self:
        """A copy with additional sections, which every format shows.

        Raises: ChoiceError if two sections have the same key.
        """
        keys = [section.key for section in (*self.sections, *sections)]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise ChoiceError(f"section keys must be unique; {repeated[0]!r} is used twice. Rename one of them.")
        return replace(self, sections=(*self.sections, *sections))

    def without_evidence(self) -> Self:
        """A copy with the numbers only, without the tensors behind them."""
        return replace(self, evidence=None, layers=tuple(layer.without_evidence() for layer in self.layers))

    # ------------------------------------------------------------------ plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: see `plain`. Evidence and history are left out."""
        data: dict[str, Any] = {
            "facts": self.facts.to_dict(),
            "context": dict(self.context),
            "notes": list(self.notes),
            "entries": [asdict(entry) for entry in self.entries],
            "layers": [layer.to_dict() for layer in self.layers],
            "detection": None if self.detection is None else self.detection.to_dict(),
            "coverage": [asdict(row) for row in self.coverage],
            "class_errors": dict(self.class_errors),
            "class_accuracies": dict(self.class_accuracies),
            "distances": [asdict(each) for each in self.distances],
            "similarity": None if self.similarity is None else asdict(self.similarity),
            "sections": [section.to_dict() for section in self.sections],
        }
        needed = ("facts", "context", "notes", "entries")
        return {key: plain(value) for key, value in data.items() if value or key in needed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; reads what earlier versions wrote, too."""
        restored(Mapping[str, Any], data, "a measurement")
        if "facts" not in data:
            data = _from_context(data)

        def value(name: str, kind: Any, default: Any) -> Any:
            return restored(kind, data.get(name, default), name)

        return cls(
            value("entries", tuple[Entry, ...], None),
            value("facts", Facts, None),
            value("notes", tuple[str, ...], None),
            value("context", Mapping[str, Any], {}),
            layers=value("layers", tuple[cls, ...], ()),  # type: ignore[valid-type]
            detection=value("detection", DetectionTable | None, None),
            coverage=value("coverage", tuple[CoverageRow, ...], ()),
            class_errors=value("class_errors", Mapping[str, Sequence[float]], {}),
            class_accuracies=value("class_accuracies", Mapping[str, float], {}),
            distances=value("distances", tuple[Distances, ...], ()),
            similarity=value("similarity", LayerSimilarity | None, None),
            sections=value("sections", tuple[Section, ...], ()),
        )


_OF_CONTEXT = {"detection": "detection", "coverage_table": "coverage", "distances_to_predictions": "distances"}
_OF_CLASSES = {"‖μ − μ_G‖": "norm", "variance": "variance"}


def _from_context(data: Mapping[str, Any]) -> dict[str, Any]:
    """What versions before facts had types wrote, which kept all in one context."""
    context = dict(restored(Mapping[str, Any], data.get("context"), "context"))
    parts: dict[str, Any] = {"facts": {name: context.pop(name) for name in NAMES & context.keys()}}
    for old, new in _OF_CONTEXT.items():
        if old in context:
            parts[new] = context.pop(old)
    errors = restored(Mapping[str, Any], context.pop("class_errors", {}), "class_errors")
    parts["class_errors"] = {_OF_CLASSES.get(name, name): values for name, values in errors.items()}
    accuracies = restored(tuple[float, ...], context.pop("class_accuracies", []), "class_accuracies")
    parts["class_accuracies"] = {str(label): value for label, value in enumerate(accuracies)}
    return {**data, **parts, "context": context}
