"""Runs side by side: which rows and in which order, what differs, and what is said of each."""

import csv
import html
import io
import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tightframe import measure, similarity
from tightframe.errors import OptionError, StateError
from tightframe.report import Comparison, Entry, Report, RunFolder
from tightframe.report.comparison import _names
from tightframe.report.facts import Facts
from tightframe.sections import Cell, Curves, Matrix, Section


def entry(
    name: str,
    family: str,
    value: float,
    target: float | None = 0.0,
    headline: bool = True,
    error: float | None = None,
    split: str = "train",
) -> Entry:
    return Entry(name, split, name.upper(), family, value, target, None, None, error, "", "", headline)


FACTS = Facts(samples=10, classes=2, dimension=3, coverage={"1": 2})
FIRST = Report(
    (entry("nc1", "NC1", 0.3), entry("a", "accuracy", 1.0, None), entry("nc3_cosine", "NC3", 2.0, 1.0)),
    FACTS,
    ("beware",),
)
SECOND = Report(
    (
        *(entry("nc1", "NC1", 0.1), entry("vci", "NC1", 0.7), entry("nc1", "NC1", 5.0, split="test")),
        entry("d", "accuracy", 0.0, headline=False),
    ),
    FACTS,
)
"""Both with a card's measure and others; of these, accuracies are shown unasked."""


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
    assert [row.key for row, _ in comparison.rows()] == ["nc1", "test/nc1", "a", "nc3_cosine"]
    everything = [row.key for row, _ in comparison.rows(full=True)]
    assert everything == ["nc1", "vci", "test/nc1", "a", "d", "nc3_cosine"]
    found = dict((row.key, values) for row, values in comparison.rows())
    assert [each.value for each in found["nc1"]] == [0.3, 0.1]
    assert found["nc3_cosine"][1] is None and found["test/nc1"][0] is None


def section_of(comparison: Comparison, key: str, **options: bool) -> Section:
    (section,) = [section for section in comparison.document(**options).sections if section.key == key]
    return section


def cells(section: Section) -> dict[Cell, tuple[Cell, ...]]:
    assert section.table is not None
    return {row[0]: row[1:] for row in section.table.rows}


def test_the_table_of_measures(folders: list[Path]) -> None:
    comparison = Comparison.of(folders)
    section = section_of(comparison, "measures")
    assert section.table is not None
    assert [column.heading for column in section.table.columns] == [
        "measure", "report[…]", "target", "one", "two", "difference", "± s.e.",
    ]  # fmt: skip
    assert cells(section) == {
        "NC1": ("nc1", 0.0, 0.3, 0.1, pytest.approx(-0.2), None),
        "NC1, held out": ("test/nc1", 0.0, None, 5.0, None, None),
        "A": ("a", None, 1.0, None, None, None),
        "NC3_COSINE": ("nc3_cosine", 1.0, 2.0, None, None, None),
    }
    assert section.table.groups == {0: "NC1", 2: "accuracy", 3: "NC3"}
    assert {"D", "VCI"} <= cells(section_of(comparison, "measures", full=True)).keys()


@pytest.mark.parametrize(
    ("errors", "expected"), [((0.3, 0.4), 0.5), ((0.3, None), None), ((None, None), None), ((0.0, 0.4), 0.4)]
)
def test_the_error_of_a_difference(
    tmp_path: Path, errors: tuple[float | None, float | None], expected: float | None
) -> None:
    for name, value, error in zip(("one", "two"), (1.0, 3.0), errors, strict=True):
        RunFolder.create(tmp_path / name, {}).append(Report((entry("nc1", "NC1", value, error=error),), FACTS))
    table = section_of(Comparison.of([tmp_path / "one", tmp_path / "two"]), "measures").table
    assert table is not None
    assert table.rows[0][-2:] == (2.0, None if expected is None else pytest.approx(expected))


def test_three_runs_have_no_difference(folders: list[Path], tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "three", {}).append(Report((entry("nc1", "NC1", math.nan),), FACTS))
    section = section_of(Comparison.of([*folders, tmp_path / "three"]), "measures")
    assert section.table is not None
    assert [column.heading for column in section.table.columns][3:] == ["one", "two", "three"]
    *known, undefined = cells(section)["NC1"]
    assert known == ["nc1", 0.0, 0.3, 0.1] and math.isnan(undefined)  # type: ignore[arg-type]
    assert cells(section)["NC3_COSINE"][2:] == (2.0, None, None)
    assert "Difference" not in section.sentences[0]


def test_verdicts_side_by_side(tmp_path: Path, full_report: Report, crowded_report: Report) -> None:
    for name, report in (("one", full_report), ("two", crowded_report), ("bare", FIRST)):
        RunFolder.create(tmp_path / name, {}).append(report)
    comparison = Comparison.of([tmp_path / name for name in ("one", "two", "bare")])
    rows = cells(section_of(comparison, "verdicts"))
    for name, report in (("one", full_report), ("two", crowded_report)):
        times = tuple("no" if card.closer == "no" else card.closeness for card in report.cards)
        assert rows[name] == (report.verdict.word, report.facts.samples, *times)
    assert rows["bare"] == (FIRST.verdict.word, 10, *[None] * 5)


def test_verdicts_have_a_column_for_each_card_that_a_run_has(tmp_path: Path) -> None:
    """Of regressions and of classes; what is no nearer than with shuffled labels reads no, and not a dash."""
    far = replace(entry("nc1", "NC1", 0.9), remark="no better than shuffled labels")
    regression = Report(tuple(replace(entry(f"nrc{n}", "NRC", 0.5), closeness=float(n)) for n in (3, 1, 2)), FACTS)
    for name, report in (("one", regression), ("two", regression), ("bad", Report((far,), FACTS))):
        RunFolder.create(tmp_path / name, {}).append(report)

    def verdicts(*names: str) -> Section:
        return section_of(Comparison.of([tmp_path / name for name in names]), "verdicts")

    two, both = verdicts("one", "two"), verdicts("one", "bad")
    assert two.table is not None and both.table is not None
    assert [column.heading for column in two.table.columns][3:] == ["NRC1", "NRC2", "NRC3"]
    assert cells(two)["two"][2:] == (1.0, 2.0, 3.0)
    assert [column.heading for column in both.table.columns][3:] == ["NC1", "NRC1", "NRC2", "NRC3"]
    assert cells(both)["bad"][2:] == ("no", None, None, None)


def test_curves_of_the_runs_over_each_other(tmp_path: Path) -> None:
    runs = {"one": {1: 0.5, 2: 0.0}, "two": {1: 0.75, 3: math.nan}}
    for name, values in runs.items():
        folder = RunFolder.create(tmp_path / name, {})
        for epoch, value in values.items():
            entries = (entry("nc1", "NC1", value), entry("nc1", "NC1", 2.0, split="test"))[: 1 + (name == "one")]
            folder.append(Report(entries, Facts(epoch=epoch)))
    comparison = Comparison.of([tmp_path / name for name in runs])
    (figure,) = section_of(comparison, "training").figures
    assert isinstance(figure, Curves)
    assert (figure.title, figure.x_label, figure.log_x, figure.log_y) == ("NC1", "epoch", True, True)
    assert [(each.name, each.role, each.x) for each in figure.series] == [
        ("one", "main", (1.0, 2.0)), ("one, held out", "held-out", (1.0, 2.0)), ("two", "main", (1.0, 3.0)),
    ]  # fmt: skip
    assert figure.series[0].y == (0.5, 0.0) and figure.series[1].y == (2.0, 2.0)
    assert figure.series[2].y[0] == 0.75 and math.isnan(figure.series[2].y[1])
    assert "held out" in comparison.to_html()


def test_sessions_beside_epochs_are_named_as_both(tmp_path: Path) -> None:
    for name, fact in (("one", "epoch"), ("two", "session")):
        folder = RunFolder.create(tmp_path / name, {})
        for time in (1, 2):
            folder.append(Report((entry("nc1", "NC1", 0.5),), Facts.of({fact: time})))
    (figure,) = section_of(Comparison.of([tmp_path / "one", tmp_path / "two"]), "training").figures
    assert isinstance(figure, Curves)
    assert (figure.x_label, figure.log_x) == ("measurement, epoch or session", False)


def test_without_a_history_there_are_no_curves(folders: list[Path]) -> None:
    assert [section.key for section in Comparison.of(folders).document().sections] == [
        "verdicts", "arguments", "measures",
    ]  # fmt: skip


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for path in paths:
        RunFolder.create(path, {}).append(FIRST)
    assert Comparison.of(paths).names == ("x/run", "y/run")
    assert Comparison.of([paths[0], paths[0]]).names == ("run (1)", "run (2)")
    assert Comparison.of([*paths, paths[0]]).names == ("x/run (1)", "y/run", "x/run (2)")
    assert _names([Path("/"), Path("/x")]) == ("/", "x")
    assert _names([Path("/x"), Path("/y/x")]) == ("/x", "y/x")


def test_csv(folders: list[Path]) -> None:
    rows = list(csv.reader(io.StringIO(Comparison.of(folders).to_csv())))
    assert rows[0] == ["measure", "target", "one", "two"]
    assert rows[1] == ["nc1", "0.0", "0.3", "0.1"]
    assert ["a", "", "1.0", ""] in rows and ["d", "0.0", "", "0.0"] in rows


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "  =1"])
def test_names_are_no_formulas_in_a_spreadsheet(folders: list[Path], name: str) -> None:
    comparison = replace(Comparison.of(folders), names=("one", name))
    assert next(csv.reader(io.StringIO(comparison.to_csv()))) == ["measure", "target", "one", f"'{name}"]


def test_json(folders: list[Path]) -> None:
    comparison = Comparison.of(folders)
    data = json.loads(comparison.to_json())
    assert data["differences"] == {"head": ["linear", "etf"]}
    assert list(data["reports"]) == ["one", "two"]
    assert Report.from_dict(data["reports"]["two"]).entries == SECOND.entries
    assert {name: text() for name, text in comparison.document().downloads.items()} == {
        "comparison.json": comparison.to_json(), "comparison.csv": comparison.to_csv(),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["json", "csv", "html", "markdown"])
def test_files_hold_the_text_returned(folders: list[Path], tmp_path: Path, form: str) -> None:
    comparison = Comparison.of(folders)
    text = getattr(comparison, f"to_{form}")(tmp_path / "file")
    assert (tmp_path / "file").read_bytes().decode("utf-8") == text == getattr(comparison, f"to_{form}")()


def test_what_is_printed(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison.of(folders)
    comparison.to_terminal()
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["head"] == ["linear", "etf"]
    assert lines["A"] == ["a", "–", "1", "–", "–", "–"]
    assert lines["NC3_COSINE"] == ["nc3_cosine", "1", "2", "–", "–", "–"]
    assert "NC1 nc1 0 0.3 0.1 −0.2 –" in [" ".join(line.split()) for line in text.splitlines()]
    assert "D" not in lines
    comparison.to_terminal(everything=True)
    assert any(line.split()[:1] == ["D"] for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("form", ["terminal", "page", "markdown"])
def test_notes_are_shown_with_their_run(folders: list[Path], form: str) -> None:
    """In full."""
    assert Comparison.of(folders).document().notes == ()
    document = Comparison.of(folders).document(full=True)
    assert document.notes == ("one: beware",)
    assert "ne: beware" in document.to(form)


ODD = ["[/fc]", "[red]one", "[link=x]", "<b>one</b>", "a | b"]


@pytest.mark.parametrize("odd", ODD)
def test_names_and_arguments_are_shown_as_they_are(tmp_path: Path, odd: str) -> None:
    paths = [tmp_path / f"run {odd.replace('/', ' ')}", tmp_path / "two"]
    for path, argument in zip(paths, (odd, "plain"), strict=True):
        RunFolder.create(path, {"arguments": {odd: argument}}).append(FIRST)
    text = Comparison.of(paths).document(full=True).to("terminal", width=150)
    line = next(line for line in text.splitlines() if line.startswith(odd))
    assert line.split() == [*odd.split(), *odd.split(), "plain"]
    assert paths[0].name in text.splitlines()[0]
    assert sum(paths[0].name in line for line in text.splitlines()) >= 4  # title, verdict, and headings of columns
    page = Comparison.of(paths).to_html()
    assert "<b>one" not in page and html.escape(odd) in page
    assert all(line.count(" | ") in (0, 2, 4, 6) for line in Comparison.of(paths).to_markdown().splitlines())


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
    assert ("arguments" in [section.key for section in comparison.document().sections]) is bool(differences)
    shown = cells(section_of(comparison, "arguments")) if differences else {}
    assert shown == {
        name: tuple(None if value is None else str(value) for value in values) for name, values in differences.items()
    }


def test_what_can_t_be_compared(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a comparison needs at least two runs; got 1"):
        Comparison.of(folders[:1])
    RunFolder.create(tmp_path / "empty", {})
    with pytest.raises(StateError, match="holds no measurement"):
        Comparison.of([folders[0], tmp_path / "empty"])


def test_an_extended_report_keeps_families_together() -> None:
    more = FIRST.extended([entry("z", "NC1", 1.0), entry("y", "N", 1.0)], ["beware", "more"], {"epoch": 3})
    assert [row.key for row in more] == ["nc1", "z", "a", "nc3_cosine", "y"]
    assert more.notes == ("beware", "more")
    assert more.facts == replace(FACTS, epoch=3)
    assert replace(more, entries=FIRST.entries, notes=FIRST.notes, facts=FACTS) == FIRST


# ---------------------------------------------------------------------- class means


def run_of(path: Path, seed: int, classes: int = 6, dim: int = 9, **context: Any) -> Path:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(60) % classes
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    features = means[labels] + 0.1 * torch.randn(60, dim, generator=generator, dtype=torch.float64)
    report = measure(features, labels, folds=0, metrics=["cdnv"], decisions=None, progress=False, context=context)
    RunFolder.create(path, {}).append(report)
    return path


def test_class_means_of_runs_are_compared(tmp_path: Path) -> None:
    paths = [run_of(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 1))]
    paths.append(run_of(tmp_path / "wide", 2, dim=12))
    comparison = Comparison.of(paths)
    statistics = [report.evidence.statistics for report in comparison.reports if report.evidence is not None]
    one, two, wide = (each for each in statistics if each is not None)
    section = section_of(comparison, "similarity")
    rows = cells(section)
    assert list(rows) == ["one – two", "one – wide", "two – wide"]
    level = float(similarity.shuffled_cka(similarity.class_mean_moments(one, two))[0, 1])
    angle = float(torch.rad2deg(similarity.class_mean_angles(one, two).mean()))
    value, distance = similarity.class_mean_cka(one, two), similarity.procrustes_distance(one, two)
    assert rows["one – two"] == pytest.approx((6, float(value), level, float(distance), angle))
    assert rows["two – wide"][:2] == pytest.approx((6, float(similarity.class_mean_cka(two, wide))))
    assert rows["two – wide"][-1] is None
    (figure,) = section.figures
    assert isinstance(figure, Matrix) and figure.values[0][1] == figure.values[1][0] == pytest.approx(float(value))
    data = json.loads(comparison.to_json())["similarities"]
    assert [each["first"] + each["second"] for each in data] == ["onetwo", "onewide", "twowide"]
    assert data[0]["cka"] == pytest.approx(float(value)) and data[1]["angle"] is None
    assert "Similarity of class means" in comparison.to_html()


def test_runs_on_other_classes_are_not_compared(tmp_path: Path) -> None:
    cats, dogs = ({"class_names": [f"{kind} {label}" for label in range(6)]} for kind in ("cat", "dog"))
    runs = {
        "cats": run_of(tmp_path / "cats", 0, **cats),
        "more cats": run_of(tmp_path / "more cats", 1, **cats),
        "dogs": run_of(tmp_path / "dogs", 2, **dogs),
        "a": run_of(tmp_path / "a", 3, data="a"),
        "b": run_of(tmp_path / "b", 4, data="b"),
    }

    def compared(*names: str) -> list[str]:
        return [each.second for each in Comparison.of([runs[name] for name in names]).similarities]

    assert compared("cats", "more cats") == ["more cats"]
    assert compared("cats", "dogs") == [] and compared("a", "b") == []
    assert compared("cats", "a") == ["a"]  # nothing says that they differ
    sections = Comparison.of([runs["a"], runs["b"]]).document().sections
    assert "similarity" not in [section.key for section in sections]


def test_class_means_that_span_the_whole_space_have_no_angle(tmp_path: Path) -> None:
    paths = [run_of(tmp_path / name, seed, dim=4) for name, seed in (("one", 0), ("two", 1))]
    section = section_of(Comparison.of(paths), "similarity")
    assert section.table is not None and section.figures == ()
    assert [column.heading for column in section.table.columns][-1] == "Procrustes"
