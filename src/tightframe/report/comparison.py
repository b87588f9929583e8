"""`Comparison`: the last measurements of several runs side by side."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightframe.errors import OptionError
from tightframe.report.entry import Entry, insert_by_family
from tightframe.report.report import Report
from tightframe.report.run_folder import RunFolder


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
        """For each measure that a run has (headline ones, unless `full`): an entry that describes it, and each run's.

        In the order of the first run's table, what only others have after the last of its family.
        """
        order: list[Entry] = []
        known: set[str] = set()
        for report in self.reports:
            for entry in report:
                if (full or entry.headline) and entry.key not in known:
                    known.add(entry.key)
                    insert_by_family(order, entry)
        found = [{entry.key: entry for entry in report} for report in self.reports]
        return [(entry, tuple(entries.get(entry.key) for entries in found)) for entry in order]

    def to_csv(self) -> str:
        """All measures as CSV text: key, target, then one column a run; empty where a run lacks it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["measure", "target", *self.names])
        for entry, found in self.rows(full=True):
            values = ["" if each is None else each.value for each in found]
            writer.writerow([entry.key, "" if entry.target is None else entry.target, *values])
        return out.getvalue()


def nearest(entry: Entry, found: Sequence[Entry | None]) -> set[int]:
    """The runs whose value is nearest to the target, where there is one and they differ."""
    if entry.target is None:
        return set()
    gaps = {place: abs(each.value - entry.target) for place, each in enumerate(found) if each is not None}
    gaps = {place: gap for place, gap in gaps.items() if gap == gap}
    if len(set(gaps.values())) < 2:
        return set()
    return {place for place, gap in gaps.items() if gap == min(gaps.values())}


def _arguments(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run's arguments by name; what isn't a mapping is one argument."""
    arguments = description.get("arguments", {})
    return arguments if isinstance(arguments, Mapping) else {"arguments": arguments}


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(part[-length:]) for part in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{name} ({place + 1})" for place, name in enumerate(names))
