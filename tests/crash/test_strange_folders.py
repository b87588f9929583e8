"""Run folders as no run leaves them in peace: files missing, cut short, left over, or of another run."""

import errno
import json
import os
import re
import shutil
import signal
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from tightframe import ClassStatistics, Report
from tightframe.cli.app import app
from tightframe.errors import StateError
from tightframe.metrics import Evidence
from tightframe.report import RunFolder
from tightframe.report.facts import Facts
from tightframe.writing import WriteLock

K, D = 3, 4
LINES = 4


@cache
def measurement(epoch: int, *, with_statistics: bool = True) -> Report:
    generator = torch.Generator().manual_seed(epoch)
    labels = torch.arange(30) % K
    features = torch.randn(30, D, generator=generator, dtype=torch.float64) + 2 * torch.eye(D)[labels]
    evidence = Evidence(ClassStatistics.from_features(features, labels, K))
    report = Report.from_evidence(evidence, metrics=["nc1", "cdnv"], facts={"epoch": epoch, "classifier": "1"})
    return report if with_statistics else report.without_evidence()


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, D), nn.Linear(D, K))


def filled(path: Path, *, epochs: range = range(1, LINES + 1), **description: Any) -> RunFolder:
    folder = RunFolder.create(path, description)
    for epoch in epochs:
        folder.append(measurement(epoch))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Four measurements, their statistics, a model and a page."""
    return finished(tmp_path / "run", seed=7)


def finished(path: Path, **description: Any) -> RunFolder:
    folder = filled(path, **description)
    folder.save_model(model(1))
    folder.write_html(Report((), Facts(epoch=LINES)))
    folder.close()
    return folder


def overwritten(path: Path, description: dict[str, Any]) -> RunFolder:
    return RunFolder.create(path, description, overwrite=True)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def epochs_of(folder: RunFolder) -> list[int]:
    return [report.facts.epoch for report in folder.series()]


def files(folder: RunFolder) -> list[str]:
    """All but the lock."""
    names = (str(each.relative_to(folder.path)) for each in folder.path.rglob("*") if each.is_file())
    return sorted(name for name in names if name != "run.lock")


def numbered(*numbers: int) -> list[str]:
    return [f"statistics/{number:06d}.safetensors" for number in numbers]


def assert_last(folder: RunFolder, epoch: int, history: int) -> None:
    """The last measurement is that of an epoch, with its own statistics."""
    last = folder.report()
    expected = measurement(epoch)
    assert (last.facts.epoch, last.values, len(last.history)) == (epoch, expected.values, history)
    assert last.evidence is not None and last.evidence.statistics is not None
    assert torch.equal(last.evidence.statistics.means, expected.evidence.statistics.means)


# ---------------------------------------------------------------------- going on


def test_going_on_changes_nothing(run: RunFolder) -> None:
    before = {name: (run.path / name).read_bytes() for name in files(run)}
    again = RunFolder.resume(run.path, {"seed": 8})
    assert {name: (run.path / name).read_bytes() for name in files(again)} == before
    again.append(measurement(5))
    assert epochs_of(again) == [1, 2, 3, 4, 5]
    assert_last(again, 5, history=4)
    assert again.description["seed"] == 7


PARTIAL = ".0123456789abcdef.tightframe-partial"


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "half of run.json"])
def test_going_on_where_there_is_no_run_starts_one(run: RunFolder, left: str) -> None:
    shutil.rmtree(run.path)
    if left != "nothing":
        run.path.mkdir()
    if left == "half of run.json":
        (run.path / PARTIAL).write_text('{"seed"', encoding="utf-8")
    again = RunFolder.resume(run.path, {"seed": 8})
    assert again.description["seed"] == 8
    assert again.series() == []
    assert files(again) == ["run.json"]
    again.append(measurement(2))
    assert_last(again, 2, history=0)


def test_measurements_whose_description_is_lost_are_not_removed(run: RunFolder) -> None:
    (run.path / "run.json").unlink()
    before = contents(run.path)
    with pytest.raises(StateError, match=r"its run.json is lost. Put it back, or write \{\} into it"):
        RunFolder.resume(run.path, {"seed": 8})
    with pytest.raises(StateError, match=r"series.jsonl was not written by this run"):
        overwritten(run.path, {"seed": 8})
    assert contents(run.path) == before
    (run.path / "run.json").write_text("{}", encoding="utf-8")  # as the message says
    again = RunFolder.resume(run.path, {"seed": 8})
    again.append(measurement(5))
    assert epochs_of(again) == [1, 2, 3, 4, 5]
    again.replace_series(again.series()[:4])
    again.save_model(model(2))
    again.write_html()
    again.close()
    assert overwritten(run.path, {"seed": 8}).series() == []
    assert files(run) == ["run.json"]


@pytest.mark.parametrize("text", ["", "{", '{"seed": 7', "[]"])
@pytest.mark.parametrize("start", [RunFolder.resume, overwritten])
def test_a_run_whose_description_is_damaged_is_not_overwritten(
    run: RunFolder, start: Callable[..., RunFolder], text: str
) -> None:
    (run.path / "run.json").write_text(text, encoding="utf-8")
    before = contents(run.path)
    with pytest.raises(StateError, match=r"not a run folder|run.json was not written by this run"):
        start(run.path, {"seed": 8})
    assert contents(run.path) == before


@pytest.mark.parametrize("start", [RunFolder.resume, RunFolder.create])
def test_statistics_whose_series_is_lost_are_not_replaced(run: RunFolder, start: Callable[..., RunFolder]) -> None:
    run.series_path.unlink()
    before = contents(run.path)
    with pytest.raises(StateError, match=r"its series.jsonl is lost. Put it back|holds 3 measurements"):
        start(run.path, {})
    assert contents(run.path) == before
    assert overwritten(run.path, {}).series() == []


def test_killed_between_the_first_statistics_and_the_first_line(tmp_path: Path) -> None:
    folder = filled(tmp_path, epochs=range(1, 2))
    folder.series_path.unlink()
    folder.close()
    again = RunFolder.resume(tmp_path, {})
    assert again.series() == []
    again.append(measurement(9))
    assert_last(again, 9, history=0)


@pytest.mark.parametrize("kept", [1, 0.5, -2])
def test_going_on_after_a_line_cut_short(run: RunFolder, kept: float) -> None:
    """After its first byte, in the middle, and before its newline."""
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    stop = int(kept * len(lines[-1])) if kept == 0.5 else int(kept) % len(lines[-1])
    run.series_path.write_bytes(b"".join(lines[:-1]) + lines[-1][:stop])
    again = RunFolder.resume(run.path, {})
    assert epochs_of(again) == [1, 2, 3]
    assert_last(again, 3, history=2)
    again.append(measurement(8))
    assert epochs_of(again) == [1, 2, 3, 8]
    assert_last(again, 8, history=3)


def test_the_first_line_cut_short(tmp_path: Path) -> None:
    folder = filled(tmp_path, epochs=range(1, 2))
    folder.series_path.write_bytes(folder.series_path.read_bytes()[:40])
    assert folder.series() == []
    folder.append(measurement(1))
    assert epochs_of(folder) == [1]
    assert_last(folder, 1, history=0)


def test_going_on_with_more_statistics_than_lines(run: RunFolder) -> None:
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    run.series_path.write_bytes(b"".join(lines[:2]))
    again = RunFolder.resume(run.path, {})
    assert epochs_of(again) == [1, 2]
    assert_last(again, 2, history=1)
    again.append(measurement(7))
    assert_last(again, 7, history=2)


def test_a_line_damaged_in_the_middle_is_named(run: RunFolder) -> None:
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    run.series_path.write_bytes(b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]]))
    for read in (run.series, run.report):
        with pytest.raises(StateError, match=r"series.jsonl is damaged in line 2"):
            read()


def test_a_measurement_without_statistics_doesnt_take_those_of_one_that_was_lost(run: RunFolder) -> None:
    """The process was killed between statistics and line; what is measured next keeps none."""
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    run.series_path.write_bytes(b"".join(lines[:-1]))
    run.append(measurement(9, with_statistics=False))
    last = run.report()
    assert last.facts.epoch == 9
    assert last.evidence is None


def test_a_model_saved_before_the_last_measurement_isnt_its_classifier(run: RunFolder) -> None:
    """The process was killed between a measurement and saving the model."""
    assert run.report().evidence.weight is not None
    run.append(measurement(5))
    assert run.report().evidence.weight is None
    run.save_model(model(2))
    assert torch.equal(run.report().evidence.weight, model(2)[1].weight.detach().double())


# ---------------------------------------------------------------------- taking back


@pytest.mark.parametrize("kept", range(LINES + 1))
def test_taking_back_keeps_the_first(run: RunFolder, kept: int) -> None:
    run.replace_series(run.series()[:kept])
    assert epochs_of(run) == list(range(1, kept + 1))
    assert [name for name in files(run) if "statistics" in name] == numbered(*range(kept))
    if kept:
        assert_last(run, kept, history=kept - 1)
    run.append(measurement(9))
    assert_last(run, 9, history=kept)


def test_taking_back_after_a_kill_between_lines_and_statistics(run: RunFolder) -> None:
    """The series was replaced and statistics were left; the next replacement finds them."""
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    run.series_path.write_bytes(b"".join(lines[:1]))
    run.replace_series(run.series())
    assert [name for name in files(run) if "statistics" in name] == numbered(0)
    assert_last(run, 1, history=0)


def test_taking_back_mends_a_line_cut_short(run: RunFolder) -> None:
    run.series_path.write_bytes(run.series_path.read_bytes()[:-100])
    run.replace_series(run.series())
    assert run.series_path.read_bytes().count(b"\n") == LINES - 1
    assert run.series_path.read_bytes().endswith(b"\n")
    assert [name for name in files(run) if "statistics" in name] == numbered(0, 1, 2)


def test_taking_back_without_the_series_file(run: RunFolder) -> None:
    """Nothing says which lines the statistics were of."""
    reports = run.series()[:2]
    run.series_path.unlink()
    run.replace_series(reports)
    assert epochs_of(run) == [1, 2]
    assert run.report().evidence is None
    assert [name for name in files(run) if "statistics" in name] == []


def test_taking_back_to_more_than_there_was(run: RunFolder) -> None:
    """A checkpoint knows of a measurement whose line was lost with its statistics: its numbers are kept."""
    run.replace_series([*run.series(), measurement(5)])
    assert epochs_of(run) == [1, 2, 3, 4, 5]
    assert run.report().evidence is None
    assert run.report().values == measurement(5).values


def test_taking_back_a_series_in_which_some_have_no_statistics(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, {})
    for epoch in range(1, 5):
        folder.append(measurement(epoch, with_statistics=epoch > 2))
    assert files(folder) == ["run.json", "series.jsonl", *numbered(2, 3)]
    folder.replace_series(folder.series()[:3])
    assert files(folder) == ["run.json", "series.jsonl", *numbered(2)]
    assert_last(folder, 3, history=2)


def branches(path: Path) -> tuple[RunFolder, list[Report]]:
    """A folder that holds the measurements 1, 2, 13, 14, 15, and a series 1, 2, 3, 4 of another branch."""
    folder = filled(path)
    other = folder.series()
    folder.replace_series(other[:2])
    for epoch in (13, 14, 15):
        folder.append(measurement(epoch))
    return folder, other


def test_a_series_of_another_branch_keeps_the_statistics_of_what_they_share(tmp_path: Path) -> None:
    run, other = branches(tmp_path)
    run.replace_series(other)
    assert epochs_of(run) == [1, 2, 3, 4]
    assert [name for name in files(run) if "statistics" in name] == numbered(0, 1)
    assert run.report().evidence is None
    run.append(measurement(5))
    assert_last(run, 5, history=4)
    run.replace_series(other[:2])
    assert_last(run, 2, history=1)


def test_a_series_with_one_measurement_replaced(run: RunFolder) -> None:
    series = run.series()
    run.replace_series([series[0], measurement(12), *series[2:]])
    assert [name for name in files(run) if "statistics" in name] == numbered(0)
    assert run.report().evidence is None


def test_the_same_measurement_keeps_its_statistics_however_its_line_is_written(run: RunFolder) -> None:
    """Checkpoints may sort keys, as transformers' do; the line stays, and the weights of its model are its own."""
    before = run.series_path.read_bytes()
    ordered = [Report.from_dict(json.loads(json.dumps(each.to_dict(), sort_keys=True))) for each in run.series()]
    run.replace_series(ordered)
    assert run.series_path.read_bytes() == before
    assert_last(run, 4, history=3)
    assert run.report().evidence.weight is not None


def test_killed_while_another_branch_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was killed: the one series or the other, the last of either with statistics of its own or none."""
    operation, done, found = 0, False, set()
    while not done:
        operation += 1
        run, other = branches(tmp_path / str(operation))
        with monkeypatch.context() as patch:
            seen = killed_at(operation, patch)
            with suppress(Killed):
                run.replace_series(other)
            done = seen() < operation
        epochs = tuple(epochs_of(run))
        found.add(epochs)
        if epochs == (1, 2, 13, 14, 15):
            assert_last(run, 15, history=4)
        else:
            assert run.report().evidence is None
        run.append(measurement(9))
        assert_last(run, 9, history=len(epochs))
    assert found == {(1, 2, 13, 14, 15), (1, 2, 3, 4)}
    assert operation == 6  # two statistics, lines, their renaming, a statistics left over


# ---------------------------------------------------------------------- leftovers, and beginning anew


def test_leftovers_disturb_nothing(run: RunFolder) -> None:
    """Whatever was being written when a process was killed, half of it."""
    for number, name in enumerate(["run.json", "series.jsonl", "model.safetensors", "report.html", *numbered(3)]):
        whole = (run.path / name).read_bytes()
        (run.path / name).with_name(PARTIAL.replace("0", str(number))).write_bytes(whole[: len(whole) // 2])
    assert_last(run, 4, history=3)
    again = RunFolder.resume(run.path, {})
    assert not [name for name in files(run) if name.endswith("partial")]
    assert_last(again, 4, history=3)
    assert again.load_weights().keys() == model(1).state_dict().keys()


@pytest.mark.parametrize("start", [overwritten, RunFolder.resume, RunFolder.create])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_beside_files_of_the_users_leaves_them(
    tmp_path: Path, start: Callable[..., RunFolder], earlier: bool
) -> None:
    if earlier:
        folder = finished(tmp_path) if start != RunFolder.create else RunFolder.create(tmp_path, {})
        folder.close()
    names = ("notes.txt", ".tmpAb12cd", "run.json.new", "series.jsonl.partial", f"deep/{PARTIAL}", "statistics/my.csv",
             "statistics/.tmpAb12cd", "statistics/notes.safetensors", "statistics/7.safetensors")  # fmt: skip
    for path in (mine := [tmp_path / name for name in names]):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    begun = start(tmp_path, {})
    begun.append(measurement(8))
    begun.replace_series([])
    begun.append(measurement(9))
    begun.save_model(model(1))
    begun.write_html()
    assert [path.read_text(encoding="utf-8") for path in mine] == ["mine"] * len(mine)
    assert len(files(begun)) == len(mine) + 5


WRITTEN = ["run.json", "series.jsonl", "model.safetensors", "report.html", *numbered(0)]
STARTS = [RunFolder.create, overwritten, RunFolder.resume]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", [*WRITTEN, "statistics"])
def test_a_file_of_the_users_in_the_way(tmp_path: Path, start: Callable[..., RunFolder], name: str) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}', encoding="utf-8")
    with pytest.raises(StateError, match=f"{name} was not written by this run, and is in its way. Move it, or choose"):
        start(tmp_path / "run", {})
    assert contents(tmp_path / "run") == {path: b'{"mine": 1}'}


@pytest.mark.parametrize("kind", ["file", "broken", "folder"])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", [*WRITTEN, "statistics", "run.lock"])
def test_no_link_is_followed(tmp_path: Path, start: Callable[..., RunFolder], name: str, kind: str) -> None:
    target, path = tmp_path / "mine", tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    if kind == "file":
        target.write_text('{"run_folder": ["ab"]}', encoding="utf-8")
    elif kind == "folder":
        target.mkdir()
    path.symlink_to(target)
    before = contents(tmp_path)
    with pytest.raises(StateError, match=re.escape(f"{path} ")):
        start(tmp_path / "run", {})
    assert contents(tmp_path) == before
    assert target.exists() == (kind != "broken") and path.is_symlink()


@pytest.mark.parametrize("name", [*WRITTEN, "statistics"])
def test_what_a_run_wrote_and_a_link_replaced(run: RunFolder, tmp_path: Path, name: str) -> None:
    (run.path / name).rename(tmp_path / "moved")
    (run.path / name).symlink_to(tmp_path / "moved")
    before = contents(tmp_path)
    with pytest.raises(StateError, match=f"{name} is a symbolic link"):
        overwritten(run.path, {})
    assert contents(tmp_path) == before
    assert_last(run, 4, history=3)  # it is read all the same


def test_the_run_folder_itself_may_be_a_link(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    again = RunFolder.resume(tmp_path / "link", {})
    again.append(measurement(5))
    assert_last(run, 5, history=4)


def test_files_that_another_program_put_in_place_of_the_runs_stay(run: RunFolder) -> None:
    """A Trainer saves its model to the folder that is also the run's; a page was written by hand."""
    weights = {"weight": torch.ones(2)}
    save_file(weights, run.path / "model.safetensors", metadata={"format": "pt"})
    run.report_path.write_text("<!doctype html>mine", encoding="utf-8")
    before = contents(run.path)
    assert run.report().evidence.weight is None
    with pytest.raises(StateError, match=r"report.html was not written by this run.*--html .*report.to_html\(path\)"):
        run.write_html()
    with pytest.raises(StateError, match=r"model.safetensors was not written by this run"):
        overwritten(run.path, {})
    for change in (lambda: RunFolder.resume(run.path, {}), lambda: run.save_model(model(1))):
        with pytest.raises(StateError, match=r"model.safetensors was not written by this run"):
            change()
    (run.path / "model.safetensors").unlink()
    with pytest.raises(StateError, match=r"report.html was not written by this run"):
        RunFolder.resume(run.path, {})
    assert contents(run.path) == {path: text for path, text in before.items() if path.name != "model.safetensors"}


def test_a_page_that_a_report_wrote_into_the_folder_is_replaced(run: RunFolder) -> None:
    run.report().to_html(run.report_path)
    page = run.report_path.read_text(encoding="utf-8")
    assert "tightframe run" not in page
    run.write_html()
    assert run.report_path.read_text(encoding="utf-8").count("<!-- tightframe run ") == 1


@pytest.mark.parametrize("failure", [StateError, OSError])
def test_a_change_that_fails_leaves_the_lock_as_it_was(
    run: RunFolder, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run can write."""

    def refuse(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failure is OSError:
        monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(failure, match=r"holds 4 measurements, but this run wrote 3|No space left"):
        run.append(measurement(5), 3 if failure is StateError else 4)
    lock = WriteLock(run.path / "run.lock")
    lock.acquire()
    lock.release()


def test_tensors_of_another_run_in_a_run_without_identity(run: RunFolder, tmp_path: Path) -> None:
    other = finished(tmp_path / "other")
    (run.path / "run.json").write_text("{}", encoding="utf-8")
    shutil.copy(other.path / "model.safetensors", run.path / "model.safetensors")
    with pytest.raises(StateError, match=r"model.safetensors was not written by this run"):
        RunFolder.resume(run.path, {})
    assert (run.path / "run.json").read_text(encoding="utf-8") == "{}"


def test_files_of_another_run_are_not_this_runs(run: RunFolder, tmp_path: Path) -> None:
    """Weights, and a page, of an earlier run, copied here to start from."""
    other = RunFolder.create(tmp_path / "other", {})
    for name in ("model.safetensors", "report.html"):
        shutil.copy(run.path / name, other.path / name)
    with pytest.raises(StateError, match=r"model.safetensors was not written by this run"):
        other.save_model(model(2))
    with pytest.raises(StateError, match=r"report.html was not written by this run"):
        other.write_html(measurement(1))


def test_a_file_put_in_the_way_of_the_next_statistics(run: RunFolder) -> None:
    path = run.path / numbered(LINES)[0]
    path.write_text("mine", encoding="utf-8")
    for write in (lambda: run.append(measurement(5)), lambda: RunFolder.resume(run.path, {})):
        with pytest.raises(StateError, match=r"000004.safetensors was not written by this run"):
            write()
        run.close()
    assert path.read_text(encoding="utf-8") == "mine"
    assert epochs_of(run) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["run.json", "series.jsonl", "model.safetensors", "statistics/000003.safetensors"])
def test_pipes_are_not_waited_for(run: RunFolder, name: str) -> None:
    (run.path / name).unlink()
    os.mkfifo(run.path / name)
    for read in (run.series, run.report, run.load_weights, lambda: overwritten(run.path, {})):
        with suppress(StateError):
            read()
    with pytest.raises(StateError, match=Path(name).name):
        overwritten(run.path, {})


@pytest.mark.parametrize("kind", ["file", "pipe", "below a file"])
def test_a_path_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine"
    os.mkfifo(path) if kind == "pipe" else path.write_text("mine")
    if kind == "below a file":
        path = path / "run"
    for start in (*STARTS, lambda path, _: RunFolder(path).series(), lambda path, _: RunFolder(path).report()):
        with pytest.raises(StateError, match=f"{path} (is not a (run )?folder|can't be written: Not a directory)"):
            start(path, {})


def test_a_description_that_cannot_be_written_changes_nothing(run: RunFolder, tmp_path: Path) -> None:
    before = contents(run.path)
    for path in (run.path, tmp_path / "new"):
        with pytest.raises(TypeError, match="keys must be"):
            overwritten(path, {("a", 1): 2})
    assert contents(run.path) == before
    assert not (tmp_path / "new").exists()


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the library may run after it, nor catch it."""


def killed_at(operation: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From now on the n-th operation on files isn't done any more; returns how many were seen."""
    seen = [0]

    def count() -> None:
        seen[0] += 1
        if seen[0] == operation:
            raise Killed(signal.SIGKILL)

    for name in ("open", "mkdir", "unlink", "replace"):
        real = getattr(Path, name)

        def instead(path: Path, *arguments: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            reads = _name == "open" and (arguments or ("r",))[0] in ("r", "rb")
            if not reads and seen[0] != operation:  # nothing happens after the death
                count()
            return None if seen[0] == operation else _real(path, *arguments, **options)

        monkeypatch.setattr(Path, name, instead)
    return lambda: seen[0]


def test_the_operations_of_beginning_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below kill at each of these: folder, first description, series, statistics, model and page, second."""
    seen = killed_at(-1, monkeypatch)
    overwritten(run.path, {})
    assert seen() == 1 + 2 + 1 + LINES + 2 + 2


def test_killed_while_beginning_anew_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was killed, what is then resumed is the new run, and nothing of the old one is in it; or the old one
    is untouched."""
    operation, done, outcomes = 0, False, set()
    while not done:
        operation += 1
        run = finished(tmp_path / str(operation), seed="old")
        before = contents(run.path)
        with monkeypatch.context() as patch:
            seen = killed_at(operation, patch)
            with suppress(Killed):
                overwritten(run.path, {"seed": "new"})
            done = seen() < operation
        seed = run.description["seed"]
        outcomes.add(seed)
        if seed == "old":
            after = contents(run.path)
            assert {path: after[path] for path in before} == before
            assert_last(run, 4, history=3)
            continue
        assert run.series() == []
        again = RunFolder.resume(run.path, {})
        again.append(measurement(9))
        assert_last(again, 9, history=0)
        assert again.report().evidence.weight is None
        assert files(again) == ["run.json", "series.jsonl", *numbered(0)]
        assert len(json.loads((run.path / "run.json").read_text())["run_folder"]) == 1
    assert outcomes == {"old", "new"}


@pytest.mark.parametrize("kept", [1, 3])
def test_killed_while_taking_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Wherever it was killed, the series is the old one or the new one, with statistics that are its own."""
    operation, done, found = 0, False, set()
    while not done:
        operation += 1
        run = filled(tmp_path / str(operation))
        with monkeypatch.context() as patch:
            seen = killed_at(operation, patch)
            with suppress(Killed):
                run.replace_series(run.series()[:kept])
            done = seen() < operation
        count = len(epochs_of(run))
        found.add(count)
        assert_last(run, count, history=count - 1)
        run.append(measurement(9))
        assert_last(run, 9, history=count)
    assert found == {LINES, kept}
    assert operation == 2 + LINES - kept + 1  # the lines, their renaming, statistics left over


def test_killed_while_the_report_command_writes(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.report_path.read_bytes()
    for operation in (1, 2):
        with monkeypatch.context() as patch:
            killed_at(operation, patch)
            with pytest.raises(Killed):
                CliRunner().invoke(app, ["report", str(run.path)])
        assert run.report_path.read_bytes() == before
    assert CliRunner().invoke(app, ["report", str(run.path)]).exit_code == 0
    assert run.report_path.read_bytes() != before
    assert run.report_path.read_text(encoding="utf-8").endswith("</html>\n")


def test_the_description_is_valid_json_at_any_time(tmp_path: Path) -> None:
    """Whatever is described: what JSON lacks becomes text."""
    folder = RunFolder.create(tmp_path, {"where": tmp_path, "device": torch.device("cpu")})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["device"] == "cpu"
    assert folder.description["where"] == str(tmp_path)


@dataclass
class Arguments:
    rate: float
    where: Path
    token: str = field(default="secret", repr=False)


class Guarded(Arguments):
    def to_dict(self) -> dict[str, Any]:
        return {"rate": self.rate}


def test_arguments_are_described_by_name(tmp_path: Path) -> None:
    arguments = {
        "parsed": Namespace(lr=0.1, inner=Namespace(where=tmp_path)),
        "plain": Arguments(0.1, tmp_path),
        "guarded": Guarded(0.1, tmp_path),
        "type": Arguments,
    }
    described = RunFolder.create(tmp_path, arguments).description
    assert described["parsed"] == {"lr": 0.1, "inner": {"where": str(tmp_path)}}
    assert described["plain"] == {"rate": 0.1, "where": str(tmp_path)}
    assert described["guarded"] == {"rate": 0.1}
    assert described["type"] == str(Arguments)
