"""`Comparison`: the last measurements of several runs side by side."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from tightframe.errors import EmptyClassError, GeometryWarning, OptionError
from tightframe.plain import csv_text, json_text, written_to
from tightframe.report.cards import PHENOMENA, curves, entry_of, unit_of
from tightframe.report.contents.measures import grouped
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.report import Report
from tightframe.report.run_folder import RunFolder
from tightframe.sections import Cell, Column, Curves, Document, Matrix, Section, Table, as_text
from tightframe.similarity import ClassMeanSimilarity
from tightframe.statistics import ClassStatistics


@dataclass(frozen=True)
class Comparison:
    """The last reports of several runs, and the arguments in which the runs differ.

    Attributes:
        names: one per run, as short as possible but distinct.
        reports: the last report of each run.
        differences: argument -> its value in each run.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from tightframe.report import Comparison, Entry, Facts, Report, RunFolder
    >>> def run(folder: Path, rate: float, nc1: float) -> Path:
    ...     entry = Entry("nc1", "train", "NC1", "NC1", nc1, 0.0, None, None, None, "", "", True)
    ...     run = RunFolder.create(folder, {"arguments": {"rate": rate}})
    ...     run.append(Report((entry,), Facts(epoch=1)))
    ...     run.close()
    ...     return folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     comparison = Comparison.of([run(Path(root, "slow"), 0.01, 0.5), run(Path(root, "fast"), 0.1, 0.02)])
    >>> comparison.names, comparison.differences
    (('slow', 'fast'), {'rate': (0.01, 0.1)})
    """

    names: tuple[str, ...]
    reports: tuple[Report, ...]
    differences: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, folders: Sequence[str | os.PathLike[str]]) -> Comparison:
        """Read run folders. Raises: OptionError for fewer than two, StateError for a folder without a measurement."""
        if len(folders) < 2:
            raise OptionError(f"a comparison needs at least two runs; got {len(folders)}.")
        runs = [RunFolder(folder) for folder in folders]
        arguments = [_arguments(run.description) for run in runs]
        names = dict.fromkeys(name for one in arguments for name in one)
        differences = {name: tuple(one.get(name) for one in arguments) for name in names}
        return cls(
            _names([Path(folder) for folder in folders]),
            tuple(run.report() for run in runs),
            {name: values for name, values in differences.items() if len(set(map(repr, values))) > 1},
        )

    def rows(self, *, full: bool = False) -> list[tuple[Entry, tuple[Entry | None, ...]]]:
        """For each measure of any run (with `full`; otherwise only those of cards and accuracies): an entry that
        describes it, and the entry of each run or None.

        The order is that of the first run's table; measures of other runs follow the last of their family.
        """
        order: list[Entry] = []
        keys: set[str] = set()
        cards = {card.key for report in self.reports for card in report.cards}
        for report in self.reports:
            for entry in report:
                short = entry.headline and (entry.name in cards or entry.family == "accuracy")
                if (full or short) and entry.key not in keys:
                    keys.add(entry.key)
                    insert_by_family(order, entry)
        tables = [{entry.key: entry for entry in report} for report in self.reports]
        return [(entry, tuple(entries.get(entry.key) for entries in tables)) for entry in order]

    def document(self, *, full: bool = False) -> Document:
        """The comparison as a document for any renderer: verdicts, arguments, measures and curves. `full` includes all
        measures, not only those of cards and accuracies."""
        sections = [self._verdicts(), *self._arguments(), self._measures(full), *self._similarity(), *self._curves()]
        downloads = {"comparison.json": self.to_json, "comparison.csv": self.to_csv}
        notes = [
            f"{name}: {note}"
            for name, report in zip(self.names, self.reports, strict=True)
            for note in report.notes
            if full
        ]
        return Document(
            " · ".join(self.names),
            (f"{len(self.names)} runs",),
            sections=tuple(sections),
            notes=tuple(notes),
            downloads=downloads,
        )

    def _verdicts(self) -> Section:
        reported = {card.label for report in self.reports for card in report.cards}
        labels = [phenomenon.label for phenomenon in PHENOMENA if phenomenon.label in reported]
        closer = [Column(label, "times") for label in labels]
        columns = (Column("run", "name"), Column("verdict"), Column("samples", "count"), *closer)
        rows = []
        for name, report in zip(self.names, self.reports, strict=True):
            cells: dict[str, Cell] = {
                card.label: "no" if card.closer == "no" else card.closeness for card in report.cards
            }
            rows.append((name, report.verdict.word, report.facts.samples, *map(cells.get, labels)))
        hint = (
            "The verdict on each run. For each phenomenon: how many times nearer the best value it is than with "
            'shuffled labels; "no": not nearer.'
        )
        return Section("verdicts", "Verdicts", (hint,), Table(columns, tuple(rows)))

    def _arguments(self) -> list[Section]:
        if not self.differences:
            return []
        columns = (Column("argument", "name"), *(Column(name) for name in self.names))
        rows = tuple(
            (argument, *(None if value is None else str(value) for value in values))
            for argument, values in self.differences.items()
        )
        return [Section("arguments", "Arguments that differ", table=Table(columns, rows))]

    def _measures(self, full: bool) -> Section:
        rows = self.rows(full=full)
        two = len(self.names) == 2
        numbers = [Column(name, "number") for name in self.names]
        changes = [Column("difference", "number"), Column("± s.e.", "error", optional=True)] if two else []
        columns = (
            Column("measure", "name"),
            Column("report[…]", optional=True),
            Column("target", "number"),
            *numbers,
            *changes,
        )
        cells = []
        for entry, entries in rows:
            values = [None if each is None else each.value for each in entries]
            change = _difference(entries) if two else ()
            cells.append((entry.title, entry.key, entry.target, *values, *change))
        hint = "The last measurement of each run."
        if two:
            hint += " Difference: second minus first, with the standard error of independent samples."
        groups = grouped(entry.family for entry, _ in rows)
        return Section("measures", "Measures", (hint,), Table(columns, tuple(cells), groups), searchable=True)

    @cached_property
    def similarities(self) -> tuple[ClassMeanSimilarity, ...]:
        """Similarity of the class means of each two runs on the same classes with stored statistics."""
        pairs = []
        for first, second in combinations(zip(self.names, self.reports, strict=True), 2):
            a, b = _statistics(first[1]), _statistics(second[1])
            if a is None or b is None or not _same_classes(first[1], second[1]):
                continue
            with suppress(EmptyClassError), warnings.catch_warnings():
                warnings.simplefilter("ignore", GeometryWarning)  # each report has it
                pairs.append(ClassMeanSimilarity.of(a, b, (first[0], second[0])))
        return tuple(pairs)

    def _similarity(self) -> list[Section]:
        if not self.similarities:
            return []
        angles = any(each.angle is not None for each in self.similarities)
        columns = [
            Column("runs", "name"),
            Column("classes", "count", optional=True),
            Column("CKA", "cosine"),
            Column("shuffled", "cosine"),
            Column("Procrustes", "number"),
            *([Column("angle °", "number")] if angles else []),
        ]
        rows = [
            (f"{each.first} – {each.second}", each.classes, each.cka, each.shuffled, each.distance)
            + ((each.angle,) if angles else ())
            for each in self.similarities
        ]
        hint = (
            "How similarly two runs arrange the class means. CKA: 1 if equal up to rotation and scale. Shuffled: its "
            "mean if the classes of one run are shuffled; in a simplex ETF all orders are equal, and both are 1. "
            "Procrustes: distance after the best rotation, from 0 to 1.414."
        )
        if angles:
            hint += (
                " Angle: mean principal angle between the spans of the class means; large for runs from different "
                "initial weights, whose features have unrelated axes."
            )
        figures = (self._similarity_figure(),) if len(self.names) > 2 else ()
        return [
            Section("similarity", "Similarity of class means", (hint,), Table(tuple(columns), tuple(rows)), figures)
        ]

    def _similarity_figure(self) -> Matrix:
        values = [[1.0 if row == column else math.nan for column in self.names] for row in self.names]
        for each in self.similarities:
            a, b = self.names.index(each.first), self.names.index(each.second)
            values[a][b] = values[b][a] = each.cka
        return Matrix("CKA of class means", tuple(map(tuple, values)), self.names, -1.0, 0.0, 1.0)

    def _curves(self) -> list[Section]:
        figures = []
        units = {unit_of(report) for report in self.reports if report.history}
        unit = units.pop() if len(units) == 1 else "measurement, epoch or session"
        for phenomenon in PHENOMENA:
            series = []
            for name, report in zip(self.names, self.reports, strict=True):
                entry = entry_of(report, phenomenon.label)
                for curve in () if entry is None else curves(report, entry.key):
                    label = name if curve.role == "main" else f"{name}, held out"
                    series.append(replace(curve, name=label))
            if series:
                log = unit == "epoch" and all(time > 0 for each in series for time in each.x)
                figures.append(Curves(phenomenon.label, unit, tuple(series), log_x=log, log_y=phenomenon.log))
        if not figures:
            return []
        hint = "Each phenomenon over training, one curve for each run."
        return [Section("training", "Collapse over training", (hint,), figures=tuple(figures), shown=False)]

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """All measures as CSV text: key, target, then one column per run; empty if a run lacks the measure."""
        rows = [
            [entry.key, entry.target, *(None if each is None else each.value for each in entries)]
            for entry, entries in self.rows(full=True)
        ]
        return written_to(csv_text(as_text((("measure", "target", *self.names), *map(tuple, rows)))), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The arguments that differ, {run: report}, and the similarity of each two runs, as JSON text."""
        reports = {name: report.to_dict() for name, report in zip(self.names, self.reports, strict=True)}
        similarities = [asdict(each) for each in self.similarities]
        content = {"differences": self.differences, "reports": reports, "similarities": similarities}
        return written_to(json_text(content, indent=1), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page that overlays the runs."""
        return written_to(self.document(full=True).to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The comparison as Markdown."""
        return written_to(self.document().to("markdown"), path)

    def to_terminal(self, *, everything: bool = False) -> None:
        """Print the comparison: the measures of cards and accuracies, or with `everything` all."""
        self.document(full=everything).to("terminal", printed=True)


def _difference(entries: Sequence[Entry | None]) -> tuple[float | None, float | None]:
    """The second value minus the first, and its standard error if both have one."""
    first, second = entries
    if first is None or second is None:
        return None, None
    errors = (first.standard_error, second.standard_error)
    error = None if None in errors else math.hypot(*(each or 0.0 for each in errors))
    return second.value - first.value, error


def _statistics(report: Report) -> ClassStatistics | None:
    return None if report.evidence is None else report.evidence.statistics


def _same_classes(first: Report, second: Report) -> bool:
    """Whether labels mean the same in two reports, as far as names of classes or of the data tell."""
    a, b = (report.facts.class_names for report in (first, second))
    if a and b:
        return all(a[label] == b[label] for label in a.keys() & b.keys())
    return None in (first.facts.data, second.facts.data) or first.facts.data == second.facts.data


def _arguments(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run's arguments by name; a value that is not a mapping counts as one argument."""
    arguments = description.get("arguments", {})
    return arguments if isinstance(arguments, Mapping) else {"arguments": arguments}


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The shortest distinct ends of the paths; a repeated folder gets a number."""
    paths = [folder.resolve() for folder in folders]
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        names = [Path(*path.parts[-length:]).as_posix() for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return tuple(
        name if names.count(name) == 1 else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    )
