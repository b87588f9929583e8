"""The commands, their help, their exit status, and errors as one clear line."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from tightframe import ClassStatistics, Report, __version__
from tightframe.cli.app import app
from tightframe.evidence import Evidence
from tightframe.report import RunFolder
from tightframe.sections import number, short, signed

Command = Callable[..., Any]
COMMANDS = tuple(typer.main.get_command(app).commands)


def shell(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m tightframe.cli` in a process of its own, its output not a terminal."""
    command = [sys.executable, "-m", "tightframe.cli", *arguments]
    variables = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    return subprocess.run(
        command, cwd=cwd, env=variables | environment, capture_output=True, encoding="utf-8", check=False
    )


# ---------------------------------------------------------------------------------------------- the program


def test_help_lists_the_commands() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for command in COMMANDS:
        assert f"  {command} " in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert f"tightframe {command}" in done.output or f"root {command}" in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_metavars_have_one_style(command: str) -> None:
    lines = CliRunner().invoke(app, [command, "--help"]).output.splitlines()
    option = re.compile(r"  (?:-\w, )?--[\w-]+( / --[\w-]+)?(?: (\S+))?(?:  |$)")
    starts = [match for line in lines if (match := option.match(line))]
    assert "--help" in starts[-1][0]
    assert {match[2] for match in starts} <= {None, "TEXT", "NUMBER", "PATH"}
    assert "<" not in "".join(line.split("  ")[1] for line in lines if line.startswith("  "))


def test_the_help_of_prototypes_says_what_decides(tightframe: Command) -> None:
    text = tightframe("prototypes", "--help").plain
    assert "Default: the only one that takes the given options (code for --code, semantic for --vectors," in text
    assert "best, simplex, orthonormal," in text
    assert "-k, --num-classes NUMBER" in text and "--cost PATH" in text


def test_without_arguments_help_is_shown(tightframe: Command) -> None:
    outcome = tightframe()
    assert outcome.status == 0
    assert "Commands" in outcome.out


def test_version_and_help_as_a_module() -> None:
    done = shell("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, __version__, "")
    done = shell("--help", COLUMNS="80")
    assert done.returncode == 0
    assert "Usage: tightframe [OPTIONS] COMMAND" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_program_starts_without_torch() -> None:
    program = "import sys, tightframe.cli; assert not {'torch', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("nothing",), ("measure",), ("measure", "a.npz", "--nothing"), ("demo", "--epochs", "x"), ("report",)],
)
def test_misuse_has_status_two(tightframe: Command, arguments: tuple[str, ...]) -> None:
    outcome = tightframe(*arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1


def test_data_sets_are_listed(tightframe: Command) -> None:
    outcome = tightframe("datasets")
    assert outcome.status == 0
    for name in ("digits", "mnist", "fashion-mnist", "photographs", "noise"):
        assert name in outcome.out
    assert "60,000 + 10,000" in outcome.out


# ---------------------------------------------------------------------------------------------- errors


def test_an_error_is_one_line_on_stderr_with_status_two(here: Path) -> None:
    name = "features-of-the-penultimate-layer-after-the-last-epoch-of-training.npz"
    done = shell("measure", name, cwd=here)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_long_error_stays_one_line_in_a_narrow_terminal(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--data", "nothing", width=40)
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert "--data must be one of digits, mnist, fashion-mnist; got 'nothing'." in outcome.err


@pytest.mark.parametrize("name", ["a[red].npz", "a[/].npz", "[bold]"])
def test_brackets_in_an_error_are_no_markup(tightframe: Command, here: Path, name: str) -> None:
    outcome = tightframe("measure", name)
    assert outcome.status == 2
    assert name in outcome.complaint


def test_a_missing_extra_names_the_extra(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch, arrays: Any
) -> None:
    labels = torch.from_numpy(arrays.labels)
    evidence = Evidence(ClassStatistics.from_features(torch.from_numpy(arrays.features), labels, 4))
    RunFolder.create("run", {}).append(Report.from_evidence(evidence, metrics=["nc1"]))
    monkeypatch.delitem(sys.modules, "tightframe.render.figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = tightframe("report", "run", "--figures", "figures")
    assert outcome.status == 2
    assert "matplotlib is not installed. Run: pip install 'tightframe[figures]'" in outcome.complaint


def test_a_page_that_can_not_be_written(tightframe: Command, here: Path, arrays: Any) -> None:
    np.savez("a.npz", features=arrays.features, labels=arrays.labels)
    outcome = tightframe("measure", "a.npz", "--json", "missing/a.json")
    assert outcome.status == 2
    assert "missing/a.json" in outcome.complaint
    assert "Traceback" not in outcome.err


# ---------------------------------------------------------------------------------------------- demo and report


def numbers(text: str) -> set[str]:
    return set(text.split())


def test_demo_then_report(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--epochs", "2", "--seed", "3", "--out", "run")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    assert {path.name for path in (here / "run").iterdir()} == {
        "run.json", "run.lock", "series.jsonl", "statistics", "model.safetensors", "report.html",
    }  # fmt: skip
    folder = RunFolder("run")
    assert folder.description["arguments"]["seed"] == 3
    report = folder.report()
    assert [r.facts.epoch for r in folder.series()] == [1, 2]
    assert [card.label for card in report.cards] == ["NC1", "NC2", "NC3", "NC4", "NC5"]
    for card in report.cards:
        assert short(card.value) in numbers(outcome.out), card.key
    assert report.verdict.word in outcome.plain
    assert "page run/report.html" in outcome.plain
    assert "more tightframe report run --all | --classes" in outcome.plain

    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    (here / "run" / "report.html").unlink()
    again = tightframe("report", "run", "--all")
    assert again.status == 0, again.err
    for entry in report:
        assert number(entry.value) in numbers(again.out), entry.key
    assert "wrote run/report.html" in again.plain
    rewritten = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert rewritten == page

    elsewhere = tightframe("report", "run", "--html", "page.html", "--figures", "figures")
    assert elsewhere.status == 0, elsewhere.err
    doctype, marker, content = page.split("\n", 2)
    assert marker.startswith("<!-- tightframe run ")
    assert (here / "page.html").read_text(encoding="utf-8") == f"{doctype}\n{content}"
    assert "wrote page.html" in elsewhere.plain and "wrote run/report.html" not in elsewhere.plain
    drawn = {path.name for path in (here / "figures").iterdir()}
    assert drawn == {f"{name}.pdf" for name in RunFolder("run").report().to_figures()} and len(drawn) >= 8
    assert f"wrote figures/{min(drawn)}" in elsewhere.plain


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("compare", "nowhere"), "a comparison needs at least two runs; got 1"),
        (("compare", "nowhere", "either"), "error: no run folder at 'nowhere'."),
    ],
)
def test_what_compare_refuses(
    tightframe: Command, here: Path, options: tuple[str, ...], complaint: str
) -> None:
    outcome = tightframe(*options)
    assert outcome.status == 2
    assert complaint in outcome.complaint
    assert list(here.iterdir()) == []


def test_report_of_something_else(tightframe: Command, here: Path) -> None:
    (here / "file").write_text("text")
    (here / "folder").mkdir()
    for name in ("file", "folder", "missing"):
        outcome = tightframe("report", name)
        assert outcome.status == 2
        assert f"error: no run folder at {name!r}." in outcome.complaint


def test_report_of_an_empty_run(tightframe: Command, here: Path) -> None:
    RunFolder.create("run", {})
    outcome = tightframe("report", "run")
    assert outcome.status == 2
    assert "error: run holds no measurement." in outcome.complaint


def test_a_console_without_the_minus_sign_keeps_the_sign_of_numbers() -> None:
    assert signed("-0.5 Σ").encode("ascii", "tightframe") == b"-0.5 ?"
