"""Runs that are killed at any moment: what they leave can be read, and gone on with to the very same end."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_worker import DEATHS, EPOCHS, start
from typer.testing import CliRunner, Result

from tightframe import ClassStatistics
from tightframe.cli.app import app
from tightframe.errors import StateError
from tightframe.report import Report, RunFolder
from tightframe.writing import partials_in

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("training_worker.py")
SECONDS = 60  # for a process that hangs
NO_RUN = -1

# death, at which call of the place, and how many measurements can then be read; each process goes on from the last
CHAIN = [
    ("half of run.json", 1, NO_RUN),
    ("before run.json", 1, NO_RUN),
    ("after run.json", 1, 0),
    ("while measuring", 5, 0),
    ("half of the statistics", 1, 0),
    ("between statistics and line", 2, 1),
    ("half of a line", 1, 1),
    ("half of the weights", 1, 2),
    ("half of a series taken back", 1, 2),
    ("before a series taken back", 1, 2),
    ("between a series taken back and its statistics", 1, 1),
    ("before the weights", 2, 3),
    ("half of the page", 1, 3),
    ("before the page", 1, 3),
    ("half of the checkpoint", 2, 4),
    ("before the checkpoint", 1, 4),
    ("while measuring", 10, 3),
]
PARTIAL = {f"half of {what}" for what in ("run.json", "the statistics", "the weights", "the page")} | {
    *("before run.json", "before the weights", "before the page"),
    *("half of a series taken back", "before a series taken back"),
}
"""Deaths in the middle of writing a whole file of the folder; the next process deletes what they leave."""


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its folder, its series, and the seconds of an epoch.

    Attributes:
        shown: the numbers of measurements of which a page was made; it depends on nothing but what is read.
    """

    path: Path
    series: list[dict[str, Any]]
    seconds: float
    shown: set[int] = field(default_factory=set)


def values(report: Report) -> dict[str, Any]:
    """All that a report says but for the time that it took."""
    data = report.to_dict()
    assert data["facts"].pop("measuring_seconds") > 0
    return data


def script(folder: Path) -> None:
    """The training script in an interpreter of its own, to the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    begun = time.monotonic()
    script(path)
    written = path / "series.jsonl"
    folder = RunFolder(path)
    ends = [each.stat().st_mtime for each in (path / "run.json", written)]
    assert time.monotonic() - begun > ends[1] - ends[0] > 0
    return Reference(path, [values(report) for report in folder.series()], (ends[1] - ends[0]) / EPOCHS)


class Process:
    """A training process, forked where everything is imported already, so that it starts at once."""

    def __init__(self, folder: Path, death: str | None = None, call: int = 1):
        context = torch.multiprocessing.get_context("forkserver")
        ready = context.Event()
        self._process = context.Process(target=start, args=(folder, ready, death, call))
        self._process.start()
        assert ready.wait(SECONDS)

    def kill(self, after: float) -> int:
        """Kill it after so many seconds, if it isn't done by then; its exit code."""
        self._process.join(after)
        self._process.kill()
        return self.join()

    def join(self) -> int:
        """Its exit code when it is done."""
        self._process.join(SECONDS)
        if self._process.is_alive():
            self._process.kill()
            pytest.fail(f"a process wasn't done after {SECONDS} s")
        assert self._process.exitcode is not None
        return self._process.exitcode


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_readable(path: Path, reference: Reference) -> int:
    """Everything that opens a run folder opens this one, and finds what the uninterrupted run had at that time; how
    many measurements that is."""
    folder = RunFolder(path)
    page = path.with_name("page.html")
    show = lambda: command("report", path, "--html", page)  # noqa: E731
    compare = lambda: command("compare", path, reference.path)  # noqa: E731
    if not (path / "run.json").exists():
        for read in (folder.series, folder.report):
            with pytest.raises(StateError, match="not a run folder"):
                read()
        assert all("no run folder at" in str(run().exception) for run in (show, compare))
        return NO_RUN
    assert folder.description["data"] == RunFolder(reference.path).description["data"]
    series = folder.series()
    assert [values(report) for report in series] == reference.series[: len(series)]
    if folder.report_path.exists():
        assert folder.report_path.read_text(encoding="utf-8").endswith("</html>\n")
    if not series:
        with pytest.raises(StateError, match="holds no measurement"):
            folder.report()
        assert all("holds no measurement" in str(run().exception) for run in (show, compare))
        return 0
    last = folder.report()
    assert values(last) == values(series[-1])
    assert len(last.history) == len(series) - 1
    assert last.evidence is not None and last.evidence.statistics is not None
    assert_same(last.evidence.statistics, number=len(series) - 1, reference=reference)
    new = len(series) not in reference.shown
    for run in (show, compare) if new else (compare,):
        outcome = run()
        assert outcome.exit_code == 0, outcome.output
        assert "NC1" in outcome.output
    if new:
        assert page.read_text(encoding="utf-8").endswith("</html>\n")
        reference.shown.add(len(series))
    return len(series)


def assert_same(statistics: ClassStatistics, number: int, reference: Reference) -> None:
    expected = ClassStatistics.load(reference.path / "statistics" / f"{number:06d}.safetensors")
    for name in ("counts", "means", "spread", "within"):
        assert torch.equal(getattr(statistics, name), getattr(expected, name)), name


def assert_same_end(path: Path, reference: Reference) -> None:
    """To the last bit: every value of every epoch, the statistics, the weights; and nothing besides."""
    series = RunFolder(path).series()
    assert [report.facts.epoch for report in series] == list(range(1, EPOCHS + 1))
    assert [values(report) for report in series] == reference.series
    files = sorted(each.relative_to(path) for each in path.rglob("*") if each.is_file())
    expected = sorted(each.relative_to(reference.path) for each in reference.path.rglob("*") if each.is_file())
    assert files == expected
    for each in files:
        if each.suffix == ".safetensors":
            mine, theirs = load_file(path / each), load_file(reference.path / each)
            assert mine.keys() == theirs.keys()
            for name, tensor in mine.items():
                assert tensor.dtype == theirs[name].dtype
                assert torch.equal(tensor, theirs[name]), (each, name)


def test_the_uninterrupted_run(reference: Reference) -> None:
    """There is something to lose: six measurements of several layers, all different, with a page."""
    assert [report["facts"]["epoch"] for report in reference.series] == list(range(1, EPOCHS + 1))
    assert len({json.dumps(report["entries"]) for report in reference.series}) == EPOCHS
    assert all(len(report["layers"]) >= 1 for report in reference.series)
    assert_readable(reference.path, reference)
    assert (reference.path / "report.html").exists()


@pytest.mark.parametrize("kills", [3, 15])
def test_a_run_killed_at_random_moments(reference: Reference, tmp_path: Path, kills: int) -> None:
    """From the start of a process on, within about the time of an epoch or, where it doesn't get on, of some more."""
    path = tmp_path / "0" / "run"
    path.parent.mkdir()
    moments = random.Random(0)
    read: list[int] = []
    furthest, patience = NO_RUN, reference.seconds
    while len(read) < kills or len(set(read)) == 1:  # until it got on between its deaths
        status = Process(path).kill(after=moments.uniform(0, patience))
        if status == 0:  # it came to its end between two deaths: another one
            assert_same_end(path, reference)
            path = Path(tempfile.mkdtemp(dir=tmp_path)) / "run"
            furthest, patience = NO_RUN, reference.seconds
        else:
            assert status == -signal.SIGKILL
            read.append(assert_readable(path, reference))
            patience = reference.seconds if read[-1] > furthest else 2 * patience
            furthest = max(furthest, read[-1])
    print("measurements after each kill:", read)
    assert Process(path).join() == 0
    assert_same_end(path, reference)


def test_a_run_killed_at_every_kind_of_write(reference: Reference, tmp_path: Path) -> None:
    """One process after the other, each killed by itself at another place and going on from what the last one left."""
    assert {death for death, _, _ in CHAIN} == DEATHS.keys()
    path, died = tmp_path / "run", tmp_path / "died"
    for death, call, expected in CHAIN:
        assert Process(path, death, call).join() == -signal.SIGKILL
        assert died.read_text(encoding="utf-8") == death
        died.unlink()
        assert assert_readable(path, reference) == expected, death
        partials = [each for folder in (path, path / "statistics") for each in partials_in(folder)]
        assert len(partials) == (death in PARTIAL), death
    assert Process(path).join() == 0
    assert_same_end(path, reference)


def test_a_run_that_lost_its_checkpoint_begins_again(reference: Reference, tmp_path: Path) -> None:
    """The folder is ahead of the training; what was measured from there on is measured again."""
    path = tmp_path / "run"
    shutil.copytree(reference.path, path)
    lines = (path / "series.jsonl").read_bytes().splitlines(keepends=True)
    (path / "series.jsonl").write_bytes(b"".join(lines[:4]))  # its statistics go on to the end
    assert Process(path).join() == 0
    assert_same_end(path, reference)
