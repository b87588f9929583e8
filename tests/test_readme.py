"""The README's examples run as they stand; `test_workflows.py` has its commands."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import pages
import readme

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert 80 <= README.count("\n") <= 100


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for extra in ("sklearn", "scipy", "matplotlib", "PIL"):
        monkeypatch.setitem(sys.modules, extra, None)  # not in the core install
    blocks = pages.blocks(README)
    assert [block.code.count("\n") for block in blocks] == [5, 1, 3]
    assert not any(block.mark for block in blocks)
    namespace = pages.run(README, "README.md")
    assert namespace["model"][2] is namespace["head"]
    assert namespace["loss"].isfinite()
    assert namespace["prototypes"].best(24, 4).certificate.optimal is True


def test_first_screen_has_exactly_two_commands() -> None:
    """Before the picture; the clone that both need precedes them."""
    commands = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
    assert README.index(commands[1]) < README.index("![")
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    clone, demo, test = "".join(commands).splitlines()
    assert clone == f"git clone {repository} && cd {repository.rpartition('/')[2]}"
    assert re.fullmatch(r"python3 -m venv \.venv && .*tightframe demo", demo)
    assert re.fullmatch(r"python3 -m venv \.venv && .*pytest -n 2", test)


# ---------------------------------------------------------------------- the demo

PRINTED = """tightframe demo · digits
epoch 1/300 · loss 1.2
tightframe · digits · epoch 300 · 1,400 samples
COLLAPSED  Samples sit at their class means.

NC1  nc1  0.001   0
odd       NC1 is larger.
detection  Highest AUROC 99 %.
page   runs/digits/report.html
"""


def test_the_excerpt_starts_at_the_report_and_ends_before_the_detectors() -> None:
    lines = readme.excerpt(PRINTED).splitlines()
    assert lines == [*PRINTED.splitlines()[2:7], "…"]
    pages.require_same(PRINTED.partition("1.2\n")[2], "\n".join(lines))


def test_the_excerpt_is_written_between_its_marks() -> None:
    text = readme.with_excerpt(README, PRINTED)
    assert readme.shown(text).strip() == readme.excerpt(PRINTED)
    assert readme.with_excerpt(text, PRINTED) == text
    assert readme.MARKED.sub("", text) == readme.MARKED.sub("", README)
    with pytest.raises(ValueError, match="the two marks of the demo once; got 0"):
        readme.with_excerpt("no marks", PRINTED)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_excerpt_is_what_the_demo_prints() -> None:
    """Training differs between processors: equal words and counts; others within 60 %, or 0.01 (four samples)."""
    pytest.importorskip("sklearn")
    printed = readme.excerpt(readme.demo())
    pages.require_same(printed.removesuffix("…"), readme.shown(README), rel=0.6, absolute=0.01)
    assert printed.splitlines()[0] == readme.shown(README).splitlines()[0]
