"""`Comparison`: the last measurements of several runs side by side."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tightframe.errors import OptionError
from tightframe.plain import json_text, written_to
from tightframe.report.cards import PHENOMENA, curves, entry_of, unit_of
from tightframe.report.contents.measures import grouped
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.report import Report
from tightframe.report.run_folder import RunFolder
from tightframe.sections import Cell, Column, Curves, Document, Section, Table


@dataclass(frozen=True)
class Comparison:
    """Reports under the names of their runs, and the arguments in which the runs differ.

    Attributes:
        names: one a run, as short as tells them apart.
        reports: the last of each.
        differences: argument -> its value in each run.
    """

    names: tuple[str, ...]
    reports: tuple[Report, ...]
    differences: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, folders: Sequence[str | os.PathLike[str]]) -> Comparison:
        """Read run folders. Raises: OptionError for fewer than two, StateError for a folder without a measurement."""
        if len(folders) < 2:
            raise OptionError(f"there must be two or more runs to compare; got {len(folders)}.")
        runs = [RunFolder(folder) for folder in folders]
        arguments = [_arguments(run.description) for run in runs]
        known = dict.fromkeys(name for one in arguments for name in one)
        differences = {name: tuple(one.get(name) for one in arguments) for name in known}
        return cls(
            _names([Path(folder) for folder in folders]),
            tuple(run.report() for run in runs),
            {name: values for name, values in differences.items() if len(set(map(repr, values))) > 1},
        )

    def rows(self, *, full: bool = False) -> list[tuple[Entry, tuple[Entry | None, ...]]]:
        """For each measure that a run has (those of cards and accuracies, unless `full`): an entry that describes it,
        and each run's.

        In the order of the first run's table, what only others have after the last of its family.
        """
        order: list[Entry] = []
        known: set[str] = set()
        cards = {card.key for report in self.reports for card in report.cards}
        for report in self.reports:
            for entry in report:
                short = entry.headline and (entry.name in cards or entry.family == "accuracy")
                if (full or short) and entry.key not in known:
                    known.add(entry.key)
                    insert_by_family(order, entry)
        found = [{entry.key: entry for entry in report} for report in self.reports]
        return [(entry, tuple(entries.get(entry.key) for entries in found)) for entry in order]

    def document(self, *, full: bool = False) -> Document:
        """The comparison as any renderer takes it: words, arguments, measures and curves; of the measures those of
        cards and accuracies, unless `full`."""
        sections = [self._verdicts(), *self._arguments(), self._measures(full), *self._curves()]
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
            "The verdict on each run, and how many times nearer its best each phenomenon is than with shuffled labels; "
            "no, if it is not nearer."
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
        changes = [Column("difference", "number"), Column("± s.e.", "number", optional=True)] if two else []
        columns = (
            Column("measure", "name"),
            Column("report[…]", optional=True),
            Column("target", "number"),
            *numbers,
            *changes,
        )
        cells = []
        for entry, found in rows:
            values = [None if each is None else each.value for each in found]
            change = _difference(found) if two else ()
            cells.append((entry.title, entry.key, entry.target, *values, *change))
        hint = "The last measurement of each run."
        if two:
            hint += " Difference: the second less the first, with the standard error of independent samples."
        groups = grouped(entry.family for entry, _ in rows)
        return Section("measures", "Measures", (hint,), Table(columns, tuple(cells), groups), searchable=True)

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
        """All measures as CSV text: key, target, then one column for each run; empty where a run lacks it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["measure", "target", *map(_literal, self.names)])
        for entry, found in self.rows(full=True):
            values = ["" if each is None else each.value for each in found]
            writer.writerow([entry.key, "" if entry.target is None else entry.target, *values])
        return written_to(out.getvalue(), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The differing arguments, and {run: report} as JSON text."""
        reports = {name: report.to_dict() for name, report in zip(self.names, self.reports, strict=True)}
        return written_to(json_text({"differences": self.differences, "reports": reports}, indent=1), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page that overlays the runs."""
        return written_to(self.document(full=True).to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The comparison as Markdown."""
        return written_to(self.document().to("markdown"), path)

    def to_terminal(self, *, everything: bool = False) -> None:
        """Print it: the measures of cards and accuracies, or all."""
        self.document(full=everything).to("terminal", printed=True)


def _difference(found: Sequence[Entry | None]) -> tuple[float | None, float | None]:
    """The second value less the first, and its standard error where both have one."""
    first, second = found
    if first is None or second is None:
        return None, None
    errors = (first.standard_error, second.standard_error)
    error = None if None in errors else math.hypot(*(each or 0.0 for each in errors))
    return second.value - first.value, error


def _arguments(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run's arguments by name; what isn't a mapping is one argument."""
    arguments = description.get("arguments", {})
    return arguments if isinstance(arguments, Mapping) else {"arguments": arguments}


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as many as tell them apart; the same folder again has a number."""
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


def _literal(cell: str) -> str:
    """Text that a spreadsheet takes for no formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
