"""Files that commands write besides what they print, and the standard output in place of a file."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.conftest import Arrays
from tightframe import ClassStatistics, Prototypes, Report
from tightframe.evidence import Evidence
from tightframe.report import Comparison, RunFolder

Command = Callable[..., Any]
METHODS = {"--html": "to_html", "--json": "to_json", "--csv": "to_csv", "--md": "to_markdown"}


@pytest.fixture
def runs(here: Path, arrays: Any) -> tuple[str, str]:
    """Two run folders, and features in a file."""
    np.savez("a.npz", features=arrays.features, labels=arrays.labels)
    labels = torch.from_numpy(arrays.labels)
    for name, shift in (("one", 0.0), ("two", 1.0)):
        features = torch.from_numpy(arrays.features) + shift * torch.eye(4, 6)[labels]
        evidence = Evidence(ClassStatistics.from_features(features, labels, 4))
        RunFolder.create(name, {"arguments": {"shift": shift}}).append(
            Report.from_evidence(evidence, context={"epoch": 3}, metrics=["nc1", "etf_error", "riesz_kernel"])
        )
    return "one", "two"


def expected(command: str, flag: str) -> str:
    what = RunFolder("one").report() if command == "report" else Comparison.of(["one", "two"])
    return str(getattr(what, METHODS[flag])())


@pytest.mark.parametrize("flag", METHODS)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_the_standard_output_holds_the_file_and_nothing_else(
    tightframe: Command, runs: tuple[str, str], command: str, flag: str
) -> None:
    folders = runs if command == "compare" else runs[:1]
    outcome = tightframe(command, *folders, flag, "-")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == expected(command, flag).rstrip("\n") + "\n"
    assert not Path("-").exists()


@pytest.mark.parametrize("flag", METHODS)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_files_are_written_and_named(tightframe: Command, runs: tuple[str, str], command: str, flag: str) -> None:
    name = f"file.{flag.removeprefix('--')}"
    folders = runs if command == "compare" else runs[:1]
    outcome = tightframe(command, *folders, flag, name)
    assert outcome.status == 0, outcome.err
    assert Path(name).read_bytes().decode("utf-8") == expected(command, flag)
    assert f"wrote {name}" in outcome.out.splitlines()


def test_measured_values_go_down_a_pipe(tightframe: Command, runs: tuple[str, str]) -> None:
    data = json.loads(tightframe("measure", "a.npz", "--json", "-").out)
    report = Report.from_dict(data)
    assert list(data)[:3] == ["verdict", "oddities", "facts"]
    assert data["verdict"]["word"] == report.verdict.word
    rows = list(csv.DictReader(io.StringIO(tightframe("measure", "a.npz", "--csv", "-").out)))
    assert [float(row["value"]) for row in rows] == [entry.value for entry in report]


def test_a_file_beside_the_standard_output(tightframe: Command, runs: tuple[str, str]) -> None:
    outcome = tightframe("measure", "a.npz", "--json", "-", "--csv", "a.csv")
    json.loads(outcome.out)
    assert Path("a.csv").read_text().startswith("name,split,")


@pytest.mark.parametrize("command", [("measure", "a.npz"), ("report", "one"), ("compare", "one", "two")])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--json", "-", "--csv", "-"), "only one of --json and --csv can be -, the standard output."),
        (("--html", "a.json"), "--html writes .html or .htm files; got a.json."),
        (("--json", "a"), "--json writes .json files; got a."),
        (("--csv", "a.tsv"), "--csv writes .csv files; got a.tsv."),
        (("--md", "a.txt"), "--md writes .md or .markdown files; got a.txt."),
        (("--html", "no/a.html"), "--html no/a.html: there is no folder no."),
    ],
)
def test_what_can_not_be_written_is_refused_at_once(
    tightframe: Command, runs: tuple[str, str], command: tuple[str, ...], options: tuple[str, ...], complaint: str
) -> None:
    before = sorted(Path().rglob("*"))
    outcome = tightframe(*command, *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.complaint == f"error: {complaint}"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("command", [("measure", "a.npz"), ("report", "one"), ("compare", "one", "two")])
def test_what_may_not_be_written_is_refused_at_once(
    tightframe: Command, runs: tuple[str, str], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and folders alike; root may write everything, so that rights are those of a user here."""
    Path("closed").mkdir()
    Path("closed.json").write_text("")
    Path("folder.json").mkdir()
    closed = {Path("closed").resolve(), Path("closed.json").resolve()}
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK or Path(path).resolve() not in closed)
    before = sorted(Path().rglob("*"))
    for name, complaint in (
        ("closed/a.json", "no permission to write to closed."),
        ("closed.json", "no permission to write to closed.json."),
        ("folder.json", "that is a folder."),
    ):
        outcome = tightframe(*command, "--json", name)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.complaint == f"error: --json {name}: {complaint}"
    assert sorted(Path().rglob("*")) == before


def test_a_folder_of_figures_is_checked_at_once(
    tightframe: Command, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("closed").mkdir()
    closed = {Path("closed").resolve()}
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK or Path(path).resolve() not in closed)
    before = sorted(Path().rglob("*"))
    for name, complaint in (
        ("a.npz", "a.npz is a file, not a folder."),
        ("a.npz/figures", "a.npz is a file, not a folder."),
        ("closed/deep/figures", "no permission to write to closed."),
        ("closed", "no permission to write to closed."),
    ):
        outcome = tightframe("report", "one", "--figures", name)
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.complaint == f"error: --figures {name}: {complaint}"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("flag", METHODS)
def test_a_pipe_leaves_the_run_folder_alone(tightframe: Command, runs: tuple[str, str], flag: str) -> None:
    assert tightframe("report", "one", flag, "-").status == 0
    assert not (Path("one") / "report.html").exists()


def test_a_report_is_printed_where_its_page_can_not_be_written(
    tightframe: Command, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: RunFolder, report: Report) -> Path:
        raise PermissionError(13, "Permission denied", "one/report.html.new")

    monkeypatch.setattr(RunFolder, "write_html", refuse)
    outcome = tightframe("report", "one", "--json", "a.json")
    assert outcome.status == 0
    assert outcome.err == "warning: could not write one/report.html: Permission denied\n"
    assert RunFolder("one").report().verdict.word in outcome.out
    assert "wrote a.json" in outcome.out and "report.html" not in outcome.out


@pytest.mark.parametrize("command", [("report", "digit"), ("compare", "one", "digit"), ("report", "one/report.html")])
def test_a_missing_run_folder_is_told_what_there_is(
    tightframe: Command, runs: tuple[str, str], command: tuple[str, ...]
) -> None:
    RunFolder.create("runs/digits", {})
    Path("other").mkdir()
    outcome = tightframe(*command)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.complaint == f"error: no run folder at {command[-1]!r}; runs here: one, two, runs/digits."


def test_of_many_run_folders_five_are_named(tightframe: Command, here: Path) -> None:
    for name in "abcdefg":
        RunFolder.create(f"elsewhere/{name}", {})
    outcome = tightframe("report", "elsewhere/x")
    named = ", ".join(f"elsewhere/{name}" for name in "abcde")
    assert outcome.complaint == f"error: no run folder at 'elsewhere/x'; runs here: {named} and 2 more."
    assert tightframe("report", "x").complaint == "error: no run folder at 'x'."


@pytest.mark.parametrize("name", ["A.HTML", "a.htm"])
def test_other_spellings_of_a_suffix(tightframe: Command, runs: tuple[str, str], name: str) -> None:
    assert tightframe("report", "one", "--html", name).status == 0
    assert Path(name).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_report_writes_its_page_into_its_folder(tightframe: Command, runs: tuple[str, str]) -> None:
    assert "wrote one/report.html" in tightframe("report", "one").out
    first, mark, page = (Path("one") / "report.html").read_text(encoding="utf-8").split("\n", 2)
    assert f"{first}\n{page}" == RunFolder("one").report().to_html()
    assert mark.startswith("<!-- tightframe run")
    assert "wrote one/report.html" in tightframe("report", "one").out  # in place of its own


def test_a_page_of_the_users_is_not_replaced(tightframe: Command, runs: tuple[str, str]) -> None:
    path = Path("one/report.html")
    path.write_text("mine", encoding="utf-8")
    outcome = tightframe("report", "one")
    assert outcome.status == 0
    for part in ("one/report.html was not written by this run", "Move it, or write the page elsewhere with --html"):
        assert part in outcome.complaint
    assert path.read_text(encoding="utf-8") == "mine"
    assert tightframe("report", "one", "--html", "page.html").status == 0


def test_no_output_replaces_what_is_read(tightframe: Command, here: Path, arrays: Arrays) -> None:
    np.savez("a.npz", features=arrays.features, labels=arrays.labels)
    content = Path("a.npz").read_bytes()
    os.symlink("a.npz", "link.json")
    outcome = tightframe("measure", "a.npz", "--json", "link.json")
    assert outcome.status == 2
    assert outcome.err == "error: --json link.json: that file belongs to a.npz; choose another.\n"
    os.link("a.npz", "hard.html")
    assert tightframe("measure", "a.npz", "--html", "hard.html").status == 2
    assert Path("a.npz").read_bytes() == content
    assert "must name different files" in tightframe("measure", "a.npz", "--json", "b.json", "--csv", "b.json").err


def test_no_output_replaces_a_file_of_a_run(tightframe: Command, here: Path) -> None:
    assert tightframe("demo", "--epochs", "1", "--out", "run").status == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    for command in (("report", "run"), ("compare", "run", "run")):
        outcome = tightframe(*command, "--json", "run/run.json")
        assert outcome.status == 2
        assert outcome.err == "error: --json run/run.json: that file belongs to run; choose another.\n"
    assert {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()} == before
    Path("own").mkdir()
    Path("own/geometry.pdf").write_text("mine")
    refused = tightframe("report", "run", "--figures", "own")
    assert refused.status == 2
    assert "geometry.pdf there is another file; move it, or name another folder." in refused.err
    assert [path.read_text() for path in Path("own").iterdir()] == ["mine"]
    for _ in range(2):  # its own figures may be drawn again
        assert tightframe("report", "run", "--figures", "figures").status == 0


def test_names_of_files_are_text(tightframe: Command, here: Path, arrays: Arrays) -> None:
    np.savez("a.npz", features=arrays.features, labels=arrays.labels)
    outcome = tightframe("measure", "a.npz", "--csv", "x\x1b[31m\nred.csv")
    assert outcome.status == 0
    assert "\x1b" not in outcome.out
    for name in ("bad\udcff.npz", "=1+1.npz", "[bold].npz"):
        Path(name).write_bytes(Path("a.npz").read_bytes())
        outputs = ("--json", "b.json", "--csv", "b.csv", "--md", "b.md", "--html", "b.html")
        outcome = tightframe("measure", name, *outputs)
        assert outcome.status == 0, outcome.err
        assert min(Path(each).stat().st_size for each in outputs[1::2]) > 100


def test_the_provenance_of_a_file_is_text(tightframe: Command, here: Path) -> None:
    hostile = {"constructor": "\x1b]52;c;aGk=\x07", "source": "\x1b[2J", "note": ["\x1b[31m"]}
    Prototypes(torch.eye(3), hostile).save("a\x1b[31m.safetensors")
    outcome = tightframe("prototypes", "--verify", "a\x1b[31m.safetensors")
    assert outcome.status == 0
    assert "constructor" in outcome.out
    assert not set("\x1b\x07") & set(outcome.out + outcome.err)
