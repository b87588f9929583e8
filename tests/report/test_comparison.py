"""Runs side by side: which rows and in which order, what differs, what is nearest to its target."""

import csv
import io
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tightframe.errors import OptionError, StateError
from tightframe.report import Entry, Report, RunFolder
from tightframe.report.comparison import Comparison, nearest
from tightframe.report.side_by_side import print_comparison


def entry(name: str, family: str, value: float, target: float | None = 0.0, headline: bool = True) -> Entry:
    return Entry(name, "train", name.upper(), family, value, target, None, None, None, "", "", headline)


CONTEXT = {"samples": 10, "classes": 2, "dimension": 3, "coverage": {"1": 2}}
FIRST = Report((entry("a", "F", 0.3), entry("b", "F", 1.0, None), entry("c", "G", 2.0, 1.0)), CONTEXT, ("beware",))
SECOND = Report((entry("a", "F", 0.1), entry("x", "F", 5.0), entry("d", "H", 0.0, headline=False)), CONTEXT)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name, head, report in (("one", "linear", FIRST), ("two", "etf", SECOND)):
        folder = RunFolder.create(tmp_path / name, {"arguments": {"head": head, "seed": 0}})
        folder.append(report)
    return [tmp_path / "one", tmp_path / "two"]


def test_rows_are_the_first_run_s_with_what_others_have_after_their_family(folders: list[Path]) -> None:
    comparison = Comparison.of(folders)
    assert comparison.names == ("one", "two")
    assert comparison.differences == {"head": ("linear", "etf")}
    assert [row.key for row, _ in comparison.rows()] == ["a", "b", "x", "c"]
    assert [row.key for row, _ in comparison.rows(everything=True)] == ["a", "b", "x", "c", "d"]
    found = dict((row.key, values) for row, values in comparison.rows())
    assert [each.value for each in found["a"]] == [0.3, 0.1]
    assert found["c"][1] is None and found["x"][0] is None


def test_the_nearest_to_the_target_wins_on_either_side_of_it() -> None:
    both = [entry("a", "F", 0.3), entry("a", "F", -0.1)]
    assert nearest(both[0], both) == {1}
    assert nearest(both[0], [both[0], None, both[0]]) == set()  # all the same
    assert nearest(both[0], [both[0], None]) == set()  # alone
    assert nearest(entry("a", "F", 1.0, None), both) == set()  # no target
    assert nearest(both[0], [both[0], entry("a", "F", float("nan")), both[1]]) == {2}


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for path in paths:
        RunFolder.create(path, {}).append(FIRST)
    assert Comparison.of(paths).names == ("x/run", "y/run")
    assert len(set(Comparison.of([paths[0], paths[0]]).names)) == 2


def test_csv(folders: list[Path]) -> None:
    rows = list(csv.reader(io.StringIO(Comparison.of(folders).to_csv())))
    assert rows[0] == ["measure", "target", "one", "two"]
    assert rows[1] == ["a", "0.0", "0.3", "0.1"]
    assert ["b", "", "1.0", ""] in rows and ["d", "0.0", "", "0.0"] in rows


def test_the_table_shows_arguments_values_and_notes(folders: list[Path]) -> None:
    console = Console(record=True, width=100)
    print_comparison(Comparison.of(folders), console=console)
    text = console.export_text()
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["head"] == ["linear", "etf"]
    assert lines["A"] == ["0", "0.3", "0.1"]
    assert lines["C"] == ["1", "2", "–"]
    assert "D" not in lines
    assert "note: beware" in text


@pytest.mark.parametrize("odd", ["[/fc]", "[red]one", "[link=x]"])
def test_names_and_arguments_are_shown_as_they_are(tmp_path: Path, odd: str) -> None:
    paths = [tmp_path / f"run {odd.replace('/', ' ')}", tmp_path / "two"]
    for path, argument in zip(paths, (odd, "plain"), strict=True):
        RunFolder.create(path, {"arguments": {odd: argument}}).append(FIRST)
    console = Console(record=True, width=100)
    print_comparison(Comparison.of(paths), console=console)
    text = console.export_text()
    assert next(line for line in text.splitlines() if line.startswith(odd)).split() == [odd, odd, "plain"]
    assert paths[0].name in text.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "differences"),
    [
        ((None, ["a", "b"]), {"arguments": (None, ["a", "b"])}),
        (("Namespace(lr=1)", "Namespace(lr=2)"), {"arguments": ("Namespace(lr=1)", "Namespace(lr=2)")}),
        (({"lr": 1}, "--lr 1"), {"lr": (1, None), "arguments": (None, "--lr 1")}),
        ((Namespace(lr=1, seed=0), Namespace(lr=2, seed=0)), {"lr": (1, 2)}),
        ((3, 3), {}),
    ],
)
def test_arguments_of_any_kind(
    tmp_path: Path, arguments: tuple[Any, Any], differences: dict[str, tuple[Any, ...]]
) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path, mine in zip(paths, arguments, strict=True):
        RunFolder.create(path, {"arguments": mine}).append(FIRST)
    comparison = Comparison.of(paths)
    assert comparison.differences == differences
    print_comparison(comparison, console=Console(record=True, width=100))


def test_what_can_t_be_compared(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two or more runs to compare; got 1"):
        Comparison.of(folders[:1])
    RunFolder.create(tmp_path / "empty", {})
    with pytest.raises(StateError, match="holds no measurement"):
        Comparison.of([folders[0], tmp_path / "empty"])


def test_an_extended_report_keeps_families_together() -> None:
    more = FIRST.extended([entry("z", "F", 1.0), entry("y", "N", 1.0)], ["beware", "more"], {"epoch": 3})
    assert [row.key for row in more] == ["a", "b", "z", "c", "y"]
    assert more.notes == ("beware", "more")
    assert more.context == {**CONTEXT, "epoch": 3}
    assert replace(more, entries=FIRST.entries, notes=FIRST.notes, context=CONTEXT) == FIRST
