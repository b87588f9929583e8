"""A Monitor and its folder: one run at a time, nothing overwritten unasked, nothing lost where it can't be written."""

import copy
import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tightframe import Monitor, measure
from tightframe.errors import FolderWarning, OptionError, StateError
from tightframe.monitor import UNWRITTEN_STATISTICS
from tightframe.report import Report, RunFolder, run_folder
from tightframe.writing import WriteLock, write_tensors

CLASSES = 3
Loader = list[tuple[Tensor, Tensor]]
QUICK: dict[str, Any] = {"folds": None, "metrics": ["nc1"], "progress": False}
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, CLASSES))


@pytest.fixture
def loader() -> Loader:
    labels = torch.arange(30) % CLASSES
    return [(torch.randn(30, 4) + 2 * torch.eye(4)[labels], labels)]


def measured(monitor: Monitor, loader: Loader, *epochs: int) -> Monitor:
    for epoch in epochs:
        with torch.no_grad():
            monitor.model[0].weight.mul_(1.1)
        monitor.measure(loader, epoch=epoch)
    return monitor


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(folder: Path, monitor: Monitor, statistics: int | None = None) -> None:
    """The folder has every measurement of the monitor, in order, and the statistics of the latest ones, or of all."""
    stored = RunFolder(folder)
    assert [report.to_dict() for report in stored.series()] == [report.to_dict() for report in monitor.series]
    count = len(monitor.series)
    there = [stored.statistics(number) is not None for number in range(count)]
    assert there == [count - number <= (count if statistics is None else statistics) for number in range(count)]
    latest = monitor.report().evidence
    assert latest is not None and latest.statistics is not None
    if count:
        assert torch.equal(stored.statistics(count - 1).means, latest.statistics.means)  # type: ignore[union-attr]
    assert not list(folder.rglob("*partial"))


# ---------------------------------------------------------------------- one run at a time


def test_two_monitors_in_one_process(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    first = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    before = contents(tmp_path)
    with pytest.raises(StateError, match=rf"another run writes to {tmp_path} from this process: call close\(\) of its"):
        Monitor(model, folder=tmp_path, **QUICK)
    assert contents(tmp_path) == before
    assert_whole(tmp_path, measured(first, loader, 2))


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_a_cell_of_a_notebook_runs_again(
    model: nn.Module, loader: Loader, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The old Monitor still exists while the new one is made, which takes the folder from it."""
    first = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    second = measured(Monitor(model, folder=tmp_path, **options, **QUICK), loader, 2)
    epochs = [report.facts.epoch for report in second.series]
    assert epochs == ([1, 2] if "resume" in options else [2])
    with pytest.raises(StateError, match=r"another run writes to .* from this process"):
        measured(first, loader, 3)
    assert [report.facts.epoch for report in first.series] == [1]
    second.close()
    with pytest.warns(FolderWarning, match="now holds another run|holds 2 measurements, but this run wrote 1"):
        measured(first, loader, 3)
    assert_whole(tmp_path, measured(second, loader, 4))  # the first holds nothing


def test_a_refused_start_leaves_the_folder_to_the_first(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    first = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    (tmp_path / "model.safetensors").write_text("mine", encoding="utf-8")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(StateError, match=r"model.safetensors was not written by this run"):
            Monitor(model, folder=tmp_path, **options, **QUICK)
    with pytest.raises(StateError, match="another run writes to"):
        Monitor(model, folder=tmp_path, **QUICK)
    assert_whole(tmp_path, measured(first, loader, 2))


def test_a_resumed_series_is_read_once(
    model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1, 2)
    real, seen = Report.from_dict, []
    monkeypatch.setattr(Report, "from_dict", lambda data: seen.append(data) or real(data))
    assert [report.facts.epoch for report in Monitor(model, folder=tmp_path, resume=True, **QUICK).series] == [1, 2]
    assert len(seen) == 2


TRAINS = """
import sys, torch
from torch import nn
from tightframe import Monitor, measure
labels = torch.arange(30) % 3
loader = [(torch.randn(30, 4) + 2 * torch.eye(4)[labels], labels)]
monitor = Monitor(nn.Linear(4, 3), folder=sys.argv[1], resume=True, folds=None, metrics=["nc1"], progress=False)
print("ready", flush=True)
for line in sys.stdin:
    monitor.measure(loader, epoch=int(line))
    print(line, end="", flush=True)
"""


def test_two_processes(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    """The second is refused while the first measures, and can read; when the first is killed, it goes on at once."""
    command = [sys.executable, "-c", TRAINS, str(tmp_path)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for epoch in (1, 2, 3):
            print(epoch, file=process.stdin, flush=True)
            assert process.stdout.readline() == f"{epoch}\n"
            with pytest.raises(StateError, match=f"another run writes to {tmp_path}: wait for its end"):
                Monitor(model, folder=tmp_path, resume=True, **QUICK)
            assert RunFolder(tmp_path).report().facts.epoch == epoch
            RunFolder(tmp_path).write_html()
        process.send_signal(signal.SIGKILL)
    assert_whole(tmp_path, measured(Monitor(model, folder=tmp_path, resume=True, **QUICK), loader, 4))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))])
def test_a_copy_measures_only_once_the_first_is_closed(
    model: nn.Module, loader: Loader, tmp_path: Path, copied: Callable[[Monitor], Monitor]
) -> None:
    first = measured(Monitor(model, folder=tmp_path, folds=None, progress=False), loader, 1)
    second = copied(first)
    with pytest.raises(StateError, match=rf"another run writes to {tmp_path} from this process"):
        measured(second, loader, 2)
    assert [report.facts.epoch for report in second.series] == [1]
    assert_whole(tmp_path, measured(first, loader, 3))
    first.close()
    with pytest.warns(FolderWarning, match="holds 2 measurements, but this run wrote 1: something else changed it"):
        measured(second, loader, 4)
    assert_whole(tmp_path, measured(first, loader, 5))  # the copy let it go


def attempt(monitor: Monitor, outcome: Path) -> None:
    """Record a measurement in another process, and write down the error."""
    try:
        monitor.record(monitor.series[0].extended(facts={"epoch": 2}))
    except StateError as error:
        outcome.write_text(f"{error} {len(monitor.series)}", encoding="utf-8")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_may_not_measure_with_this_ones_monitor(
    model: nn.Module, loader: Loader, tmp_path: Path, method: str
) -> None:
    monitor = measured(Monitor(model, folder=tmp_path / "run", folds=None, progress=False), loader, 1)
    child = multiprocessing.get_context(method).Process(target=attempt, args=(monitor, tmp_path / "outcome"))
    child.start()
    child.join()
    assert (tmp_path / "outcome").read_text(encoding="utf-8") == (
        f"another run writes to {tmp_path / 'run'}: make the Monitor in the process that measures, or choose another "
        "folder. 1"
    )
    assert_whole(tmp_path / "run", measured(monitor, loader, 3))


def test_a_stale_monitor_lets_the_folder_go(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    first = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    first.close()
    second = measured(Monitor(model, folder=tmp_path, overwrite=True, **QUICK), loader, 1)
    second.close()
    with pytest.warns(FolderWarning, match="now holds another run"):
        measured(first, loader, 2)
    assert_whole(tmp_path, measured(second, loader, 2))


def test_a_failed_start_holds_no_lock(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    """Even while its traceback is alive."""
    measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    with pytest.raises(StateError, match="holds 1 measurement of"):
        Monitor(model, folder=tmp_path, **QUICK)
    whole = (tmp_path / "series.jsonl").read_bytes()
    (tmp_path / "series.jsonl").write_bytes(b"{}\n")
    with pytest.raises(StateError, match="damaged in line 1"):
        Monitor(model, folder=tmp_path, resume=True, **QUICK)
    (tmp_path / "series.jsonl").write_bytes(whole)
    assert_whole(tmp_path, measured(Monitor(model, folder=tmp_path, resume=True, **QUICK), loader, 2))


# ---------------------------------------------------------------------- an earlier run


def test_an_earlier_run_is_overwritten_only_if_asked(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1, 2)
    before = contents(tmp_path)
    message = (
        f"{tmp_path} holds 2 measurements of an earlier run. Pass overwrite=True to delete them, resume=True to "
        "continue that run, or another folder."
    )
    with pytest.raises(StateError) as refused:
        Monitor(model, folder=tmp_path, **QUICK)
    assert str(refused.value) == message
    with pytest.raises(OptionError, match="pass one of them"):
        Monitor(model, folder=tmp_path, overwrite=True, resume=True, **QUICK)
    assert contents(tmp_path) == before
    resumed = measured(Monitor(model, folder=tmp_path, resume=True, **QUICK), loader, 3)
    assert [report.facts.epoch for report in resumed.series] == [1, 2, 3]
    assert_whole(tmp_path, resumed)
    resumed.close()
    anew = Monitor(model, folder=tmp_path, overwrite=True, **QUICK)
    assert RunFolder(tmp_path).series() == []
    assert_whole(tmp_path, measured(anew, loader, 9))


def test_a_run_without_measurements_is_replaced(model: nn.Module, tmp_path: Path) -> None:
    for name in "ab":
        Monitor(model, folder=tmp_path, description={"name": name}, **QUICK)
    assert RunFolder(tmp_path).description["name"] == "b"


def test_a_folder_of_an_earlier_version_is_resumed_to_the_end(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    """Its tensors and its page bear no identity."""
    shutil.copy(Path(__file__).parent / "report/data/series_of_version_0_1.jsonl", tmp_path / "series.jsonl")
    (tmp_path / "run.json").write_text('{"seed": 0}', encoding="utf-8")
    (tmp_path / "statistics").mkdir()
    report = measure(model, loader, **QUICK)
    report.to_html(tmp_path / "report.html")
    report.evidence.statistics.save(tmp_path / "statistics/000001.safetensors")  # type: ignore[union-attr]
    write_tensors(tmp_path / "model.safetensors", dict(model.state_dict()), {"measurement": "1"})
    before = contents(tmp_path)
    with pytest.raises(StateError) as refused:
        Monitor(model, folder=tmp_path, **QUICK)
    assert str(refused.value) == (
        f"{tmp_path} holds 2 measurements of an earlier run. Pass resume=True to continue that run, or another folder."
    )
    with pytest.raises(StateError, match=r"run.json was not written by this run"):
        Monitor(model, folder=tmp_path, overwrite=True, **QUICK)
    assert contents(tmp_path) == before
    monitor = Monitor(model, folder=tmp_path, resume=True, **QUICK)
    monitor.record(report.extended(facts={"epoch": 99}))
    assert monitor.folder is not None
    monitor.folder.save_model(model)
    monitor.folder.write_html()
    assert [each.facts.epoch for each in RunFolder(tmp_path).series()][2:] == [99]
    assert RunFolder(tmp_path).description == {"seed": 0}
    assert RunFolder(tmp_path).report().evidence.statistics is not None  # type: ignore[union-attr]
    del monitor
    assert Monitor(model, folder=tmp_path, overwrite=True, **QUICK).series == []  # it is a run of this version now
    assert {path.name for path in contents(tmp_path)} == {"run.json", "run.lock"}


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "statistics/000000.safetensors"])
def test_a_file_of_another_origin_in_a_run_of_an_earlier_version(model: nn.Module, tmp_path: Path, name: str) -> None:
    """It is refused before training."""
    shutil.copy(Path(__file__).parent / "report/data/series_of_version_0_1.jsonl", tmp_path / "series.jsonl")
    (tmp_path / "run.json").write_text('{"seed": 0}', encoding="utf-8")
    (tmp_path / "statistics").mkdir()
    write_tensors(tmp_path / name, dict(model.state_dict()), {"format": "pt"})
    before = contents(tmp_path)
    with pytest.raises(StateError, match=f"{name} was not written by this run, and is in its way. Move it"):
        Monitor(model, folder=tmp_path, resume=True, **QUICK)
    assert contents(tmp_path) == before


# ---------------------------------------------------------------------- a folder that can't be written


def failing_at(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on writing statistics fails, or that of a line after its first half, or its syncing."""
    if place == "statistics":
        monkeypatch.setattr(run_folder.ClassStatistics, "save", raising)
    elif place == "sync":
        monkeypatch.setattr(os, "fsync", raising)
    else:
        real = Path.open

        class Half:
            def __init__(self, file: Any):
                self.file = file
                self.truncate, self.fileno, self.left = file.truncate, file.fileno, 1

            def __enter__(self) -> "Half":
                return self

            def __exit__(self, *_: Any) -> None:
                self.file.close()

            def write(self, data: bytes) -> int:
                if not self.left:
                    raise FULL
                self.left -= 1
                return self.file.write(data[: len(data) // 2])  # type: ignore[no-any-return]

        def half_open(path: Path, *arguments: Any, **options: Any) -> Any:
            file = real(path, *arguments, **options)
            return Half(file) if path.name == "series.jsonl" and "ab" in arguments else file

        monkeypatch.setattr(Path, "open", half_open)


def raising(*_: Any) -> None:
    raise FULL


@pytest.mark.parametrize("place", ["statistics", "line", "sync"])
def test_a_full_disk_loses_nothing(
    model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tracked: list[float] = []
    monitor = Monitor(model, folder=tmp_path, trackers=[lambda values, epoch: tracked.append(epoch)], **QUICK)
    measured(monitor, loader, 1)
    line = (tmp_path / "series.jsonl").read_bytes()
    with monkeypatch.context() as full:
        failing_at(place, full)
        with pytest.warns(FolderWarning) as seen:
            measured(monitor, loader, 2, 3, 4)
        assert [str(each.message) for each in seen] == [
            f"{tmp_path} can't be written (No space left on device); the series stays in memory and is written with a "
            "later measurement: make the folder writable, or write the series to another with save(folder)."
        ]
        assert tracked == [report.facts.epoch for report in monitor.series] == [1, 2, 3, 4]
        assert monitor.report().facts.epoch == 4
        assert (tmp_path / "series.jsonl").read_bytes() == line
        assert not list(tmp_path.rglob("*partial"))
    assert_whole(tmp_path, measured(monitor, loader, 5))
    assert [report.evidence is None for report in monitor.series] == [True] * 4 + [False]
    with monkeypatch.context() as full:
        failing_at(place, full)
        with pytest.warns(FolderWarning, match="No space left"):  # another time
            measured(monitor, loader, 6)
    assert_whole(tmp_path, measured(monitor, loader, 7))


def test_few_statistics_wait_in_memory(
    model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = Monitor(model, folder=tmp_path, **QUICK)
    count = UNWRITTEN_STATISTICS + 3
    with monkeypatch.context() as full:
        failing_at("statistics", full)
        with pytest.warns(FolderWarning):
            measured(monitor, loader, *range(count))
    assert_whole(tmp_path, measured(monitor, loader, count), UNWRITTEN_STATISTICS + 1)


def test_taken_back_on_a_full_disk(
    model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1, 2, 3, 4)
    state = monitor.state_dict()
    with monkeypatch.context() as full:
        failing_at("sync", full)
        with pytest.warns(FolderWarning):
            measured(monitor, loader, 3)
    assert [report.facts.epoch for report in RunFolder(tmp_path).series()] == [1, 2, 3, 4]
    assert_whole(tmp_path, measured(monitor, loader, 4))
    with monkeypatch.context() as full:
        failing_at("sync", full)
        with pytest.warns(FolderWarning):
            monitor.load_state_dict(state)
    measured(monitor, loader, 5)
    assert [report.to_dict() for report in RunFolder(tmp_path).series()] == [r.to_dict() for r in monitor.series]


def test_a_folder_deleted_during_training(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    path = tmp_path / "run"
    monitor = measured(Monitor(model, folder=path, description={"seed": 3}, **QUICK), loader, 1)
    shutil.rmtree(path)
    with pytest.warns(FolderWarning, match=f"{path} can't be written .*run.json doesn't exist") as seen:
        measured(monitor, loader, 2, 3)
    assert len(seen) == 1
    assert not path.exists()
    assert monitor.report().run["seed"] == 3
    monitor.save(path)
    assert_whole(path, monitor, 2)
    assert RunFolder(path).description["seed"] == 3


def test_a_folder_moved_away_and_back(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    path = tmp_path / "run"
    monitor = measured(Monitor(model, folder=path, **QUICK), loader, 1)
    path.rename(tmp_path / "away")
    with pytest.warns(FolderWarning):
        measured(monitor, loader, 2)
    (tmp_path / "away").rename(path)
    assert_whole(path, measured(monitor, loader, 3))


def test_another_run_in_a_folder_that_was_deleted(model: nn.Module, loader: Loader, tmp_path: Path) -> None:
    first = measured(Monitor(model, folder=tmp_path / "run", **QUICK), loader, 1)
    shutil.rmtree(tmp_path / "run")
    second = measured(Monitor(model, folder=tmp_path / "run", **QUICK), loader, 1)
    with pytest.warns(FolderWarning, match="run now holds another run; choose another folder"):
        measured(first, loader, 2)
    assert_whole(tmp_path / "run", measured(second, loader, 2))


def test_a_file_of_the_users_in_the_way_of_the_next_measurement(
    model: nn.Module, loader: Loader, tmp_path: Path
) -> None:
    monitor = measured(Monitor(model, folder=tmp_path, **QUICK), loader, 1)
    mine = tmp_path / "statistics/000001.safetensors"
    mine.write_text("mine", encoding="utf-8")
    with pytest.warns(FolderWarning, match=r"000001.safetensors was not written by this run"):
        measured(monitor, loader, 2)
    assert mine.read_text(encoding="utf-8") == "mine"
    mine.unlink()
    assert_whole(tmp_path, measured(monitor, loader, 3))


def test_saved_elsewhere(model: nn.Module, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the statistics in the folder, and those that wait in memory; and of a Monitor without a folder."""
    monitor = measured(Monitor(model, folder=tmp_path / "a", description={"seed": 3}, **QUICK), loader, 1, 2)
    with monkeypatch.context() as full:
        failing_at("statistics", full)
        with pytest.warns(FolderWarning):
            measured(monitor, loader, 3, 4)
    monitor.save(tmp_path / "b")
    assert_whole(tmp_path / "b", monitor)
    assert RunFolder(tmp_path / "b").description == RunFolder(tmp_path / "a").description
    with pytest.raises(StateError, match="holds 4 measurements"):
        monitor.save(tmp_path / "b")
    with pytest.raises(StateError, match="a is the Monitor's own folder; choose another"):
        monitor.save(tmp_path / "a", overwrite=True)
    assert_whole(tmp_path / "a", measured(monitor, loader, 5))
    monitor.save(tmp_path / "b", overwrite=True)
    assert_whole(tmp_path / "b", monitor)
    alone = measured(Monitor(model, description={"seed": 4}, **QUICK), loader, 1, 2)
    alone.save(tmp_path / "c")
    assert_whole(tmp_path / "c", alone, 1)
    assert RunFolder(tmp_path / "c").description["seed"] == 4


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("place", ["mkdir", "lock", "run.json"])
@pytest.mark.parametrize("resume", [False, True])
def test_an_unwritable_folder_is_refused_at_once(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str, resume: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), "somewhere")

    owner, name = {"mkdir": (Path, "mkdir"), "lock": (WriteLock, "acquire"), "run.json": (run_folder, "write_whole")}[
        place
    ]
    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(StateError) as refused:
        Monitor(model, folder=tmp_path / "run", resume=resume, **QUICK)
    assert str(refused.value) == (
        f"{tmp_path / 'run'} can't be written: {os.strerror(code)}. Make it writable, or choose another folder."
    )


# ---------------------------------------------------------------------- real file systems


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("file systems can't be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_full(model: nn.Module, loader: Loader, small_disk: Path) -> None:
    path = small_disk / "run"
    monitor = measured(Monitor(model, folder=path, **QUICK), loader, 1)
    filling = small_disk / "filling"
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.warns(FolderWarning, match="No space left") as seen:
        measured(monitor, loader, *range(2, 8))
    assert len(seen) == 1
    stored = RunFolder(path).series()
    assert [report.to_dict() for report in stored] == [report.to_dict() for report in monitor.series[: len(stored)]]
    assert not list(path.rglob("*partial"))
    with pytest.raises(StateError, match=f"{small_disk / 'new'} can't be written: No space left"):
        Monitor(model, folder=small_disk / "new", **QUICK)
    filling.unlink()
    assert_whole(path, measured(monitor, loader, 8))


def test_a_folder_that_becomes_read_only(model: nn.Module, loader: Loader, small_disk: Path) -> None:
    path = small_disk / "run"
    monitor = measured(Monitor(model, folder=path, **QUICK), loader, 1)
    remount = ["mount", "-o", "remount,{}", str(small_disk)]
    monitor.close()  # a disk on which files are open for writing can't be made read-only
    subprocess.run([each.format("ro") for each in remount], check=True)
    with pytest.warns(FolderWarning, match=f"{path} can't be written .Read-only file system"):
        measured(monitor, loader, 2)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(StateError, match=f"{path} can't be written: {path} is read-only. Make it writable"):
            Monitor(model, folder=path, **options, **QUICK)
    assert RunFolder(path).report().facts.epoch == 1
    subprocess.run([each.format("rw") for each in remount], check=True)
    assert_whole(path, measured(monitor, loader, 3))


# ---------------------------------------------------------------------- a hundred of each


@pytest.mark.slow
def test_four_processes_on_one_folder(tmp_path: Path) -> None:
    """One of them measures, the others are refused; killed and started again, they lose nothing."""
    command = [sys.executable, "-c", TRAINS, str(tmp_path)]
    epoch = 0
    for _ in range(4):
        processes = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(4)]
        ready = [process.stdout.readline() == "ready\n" for process in processes]  # type: ignore[union-attr]
        assert sorted(ready) == [False] * 3 + [True]
        first = processes[ready.index(True)]
        assert first.stdin is not None and first.stdout is not None
        for _ in range(30):
            epoch += 1
            print(epoch, file=first.stdin, flush=True)
            assert first.stdout.readline() == f"{epoch}\n"
        first.kill()
        for process in processes:
            message = process.communicate()[1]
            assert process is first or f"another run writes to {tmp_path}" in message
    stored = RunFolder(tmp_path)
    assert [report.facts.epoch for report in stored.series()] == list(range(1, epoch + 1))
    assert all(stored.statistics(number) is not None for number in range(epoch))
