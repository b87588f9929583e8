"""The gallery: every example has a page, a figure and its places; short examples run, and their claims hold."""

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pages
from release import ROOT
from test_contributing import names_used, private
from tightframe import datasets

EXAMPLES, GALLERY = ROOT / "examples", ROOT / "docs" / "gallery"
SCRIPTS = {path.stem: path for path in sorted(EXAMPLES.glob("*.py")) if path.stem != "gallery"}
SECONDS = {"s": 1, "second": 1, "seconds": 1, "min": 60, "minute": 60, "minutes": 60}


def page_of(slug: str) -> str:
    return (GALLERY / f"{slug}.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """The cells (paper, claim, time) of the gallery's table by page."""
    lines = re.findall(r"^\| \[[^\]]+\]\((\w+)\.md\) \|(.*)\|$", page_of("index"), flags=re.M)
    return {slug: [cell.strip() for cell in rest.split("|")] for slug, rest in lines}


def stated_time(text: str, slug: str) -> float:
    """The time in seconds that a page states after the command; of a range the larger."""
    command = f"examples/{slug}.py"
    assert command in text, f"the page must show the command python {command}"
    found = re.search(r"(\d+(?:\.\d+)?) (s|seconds?|min|minutes?)\b", text[text.index(command) :])
    assert found, f"the page must state the time after {command}, as '40 seconds' or '3 minutes'"
    return float(found[1]) * SECONDS[found[2]]


def missing_files(source: str) -> list[str]:
    """The data sets that a script loads by name, but this machine lacks."""
    names = set(re.findall(r'"([\w-]+)"', source)) & set(datasets.DATASETS)
    return [name for name in names if hasattr(row := datasets.DATASETS[name], "locate") and row.locate() is None]


def test_every_script_has_a_page_a_figure_and_its_places() -> None:
    here = sorted(SCRIPTS)
    assert sorted(path.stem for path in GALLERY.glob("*.md") if path.stem != "index") == here
    assert {path.stem.partition("-")[0] for path in GALLERY.glob("*.svg")} == set(here)
    assert sorted(rows()) == here
    assert sorted(re.findall(r"gallery/(\w+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))) == sorted(
        [*here, "index"]
    )


@pytest.mark.parametrize("slug", SCRIPTS)
def test_a_page_shows_its_figure_numbers_and_time(slug: str) -> None:
    text = page_of(slug)
    assert f"]({slug}.svg)" in text and (GALLERY / f"{slug}.svg").stat().st_size < 300_000
    outputs = re.findall(r"^```text output\n(.*?)^```$", text, flags=re.M | re.S)
    assert len(outputs) == 1 and re.search(r"\d", outputs[0])
    assert "## What the paper shows, and where this differs" in text
    paper, claim, time = rows()[slug]
    assert re.search(r"\d{4}", paper) and claim
    assert stated_time(f"examples/{slug}.py {time}", slug) == stated_time(text, slug)


@pytest.mark.parametrize("slug", SCRIPTS)
def test_code_on_a_page_is_that_of_the_script(slug: str) -> None:
    """Line by line, in order; a page may leave lines out."""
    for block in pages.blocks(page_of(slug)):
        if block.reason == f"part of examples/{slug}.py":
            assert without(block.code, SCRIPTS[slug].read_text(encoding="utf-8")) == []


def without(part: str, source: str) -> list[str]:
    """The first line of a part that a source lacks after the lines before it, or nothing."""
    rest = iter([line.strip() for line in source.splitlines()])
    lines = [line.strip() for line in part.splitlines() if line.strip() not in ("", "...", "…")]
    return next(([line] for line in lines if line not in rest), [])


@pytest.mark.parametrize("slug", SCRIPTS)
def test_a_script_is_short_and_uses_public_names_only(slug: str) -> None:
    source = SCRIPTS[slug].read_text(encoding="utf-8")
    used = names_used(source, source)
    assert used and private(used) == []
    tree = ast.parse(source)
    hidden = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert hidden <= {"__init__"}  # of a module's base
    assert f"examples/{slug}.py" in (ast.get_docstring(tree) or "")
    assert sum(map(bool, source.splitlines())) <= 150, "lines that are not empty"
    assert re.search(r"^    +require\(", source, flags=re.M), "the claim must be able to fail"


def short(slug: str) -> bool:
    """Whether the page states a time under a minute."""
    return (GALLERY / f"{slug}.md").is_file() and stated_time(page_of(slug), slug) < 60


@pytest.mark.slow
@pytest.mark.parametrize("slug", [slug for slug in SCRIPTS if short(slug)])
def test_short_examples_run_and_their_claims_hold(slug: str, tmp_path: Path) -> None:
    if lacking := missing_files(SCRIPTS[slug].read_text(encoding="utf-8")):
        pytest.skip(f"the files of {lacking[0]} are not on this machine")
    done = subprocess.run(
        [sys.executable, SCRIPTS[slug], "--out", tmp_path / "figures", "--threads", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the claim holds\n")
    assert (tmp_path / "figures" / f"{slug}.svg").read_text(encoding="utf-8").startswith("<?xml")


# ---------------------------------------------------------------------- the frame

EXAMPLE = '''"""Doubles a number: python examples/double.py."""

import sys

sys.path.insert(0, {examples!r})
import gallery
from matplotlib.figure import Figure

gallery.DOCS = {pages!r} and gallery.Path({pages!r})


def compute():
    return {value}


def check(doubled):
    gallery.require(doubled == 4, "2 + 2 is 4")


gallery.run(compute, table=lambda doubled: f"double  {{doubled}}", figure=lambda _: Figure(), check=check)
'''


Example = Callable[..., tuple[Any, str]]


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run the example in this process, for a value and arguments; how it ended (None: well), and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "gallery", raising=False)

    def run(value: str, *arguments: str) -> tuple[Any, str]:
        script = tmp_path / "double.py"
        script.write_text(EXAMPLE.format(examples=str(EXAMPLES), pages=str(tmp_path), value=value))
        monkeypatch.setattr(sys, "argv", [str(script), "--threads", "1", *arguments])
        end = None
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            end = stop.code
        finally:
            sys.modules.pop("gallery", None)  # it writes to the folder of this test
        return end, capsys.readouterr().out

    return run


def test_an_example_renews_its_page(tmp_path: Path, run_example: Example) -> None:
    page = tmp_path / "double.md"
    page.write_text("# Double\n\n```text output\nold\nlines\n```\n\nend\n")
    end, printed = run_example("2 + 2", "--write")
    assert (end, printed.splitlines()[-1]) == (None, "the claim holds")
    assert page.read_text() == "# Double\n\n```text output\ndouble  4\n```\n\nend\n"
    figure = (tmp_path / "double.svg").read_bytes()
    assert run_example("2 + 2", "--out", "again")[0] is None
    assert (tmp_path / "again" / "double.svg").read_bytes() == figure


def test_a_claim_that_does_not_hold_is_an_error(run_example: Example) -> None:
    end, printed = run_example("2 + 3")
    assert end == "claim does not hold: 2 + 2 is 4"
    assert "the claim holds" not in printed


@pytest.mark.parametrize("blocks", [0, 2])
def test_a_page_has_one_output(tmp_path: Path, run_example: Example, blocks: int) -> None:
    page = tmp_path / "double.md"
    page.write_text("# Double\n\n" + "```text output\n```\n\n" * blocks)
    end, _ = run_example("2 + 2", "--write")
    assert end == f"{page} must have one text marked output; got {blocks}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("`python examples/a.py` takes 40 seconds", 40),
        ("in 2 seconds `examples/a.py`: 3 minutes", 180),
        ("examples/a.py takes 40 to 50 s", 50),
        ("examples/a.py, 1.5 min", 90),
    ],
)
def test_the_time_of_a_page_is_read(text: str, seconds: float) -> None:
    assert stated_time(text, "a") == seconds


@pytest.mark.parametrize("text", ["python a.py takes 3 seconds", "examples/a.py takes long", "3 s: examples/a.py"])
def test_a_page_without_a_time_is_seen(text: str) -> None:
    with pytest.raises(AssertionError, match="the page must"):
        stated_time(text, "a")


def test_a_line_that_the_script_lacks_is_seen() -> None:
    source = "a = 1\nb = 2\nc = 3\n"
    assert without("a = 1\n...\nc = 3", source) == []
    assert without("    b = 2", source) == []
    assert without("c = 3\na = 1", source) == ["a = 1"]
