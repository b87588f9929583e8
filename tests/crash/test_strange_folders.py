"""Run folders as no run leaves them in peace: files missing, cut short, left over, or of another run."""

import json
import shutil
import signal
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
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

K, D = 3, 4
LINES = 4


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
    folder = filled(tmp_path / "run", seed=7)
    folder.save_model(model(1))
    folder.report_path.write_text("page", encoding="utf-8")
    return folder


def epochs_of(folder: RunFolder) -> list[int]:
    return [report.facts.epoch for report in folder.series()]


def files(folder: RunFolder) -> list[str]:
    return sorted(str(each.relative_to(folder.path)) for each in folder.path.rglob("*") if each.is_file())


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


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "half of run.json"])
def test_going_on_where_there_is_no_run_starts_one(run: RunFolder, left: str) -> None:
    shutil.rmtree(run.path)
    if left != "nothing":
        run.path.mkdir()
    if left == "half of run.json":
        (run.path / "run.json.new").write_text('{"seed"', encoding="utf-8")
    again = RunFolder.resume(run.path, {"seed": 8})
    assert again.description["seed"] == 8
    assert again.series() == []
    assert files(again) == ["run.json", "series.jsonl"]
    again.append(measurement(2))
    assert_last(again, 2, history=0)


@pytest.mark.parametrize("left", ["no run.json", "run.json.new"])
def test_measurements_whose_description_is_lost_are_not_removed(run: RunFolder, left: str) -> None:
    (run.path / "run.json").rename(run.path / "run.json.new")
    if left == "no run.json":
        (run.path / "run.json.new").unlink()
    before = {name: (run.path / name).read_bytes() for name in files(run)}
    with pytest.raises(StateError, match=r"its run.json is lost. Put it back, or write \{\} into it"):
        RunFolder.resume(run.path, {"seed": 8})
    assert {name: (run.path / name).read_bytes() for name in files(run)} == before
    (run.path / "run.json").write_text("{}", encoding="utf-8")  # as the message says
    assert epochs_of(RunFolder.resume(run.path, {"seed": 8})) == [1, 2, 3, 4]
    (run.path / "run.json").unlink()
    assert RunFolder.create(run.path, {"seed": 8}).series() == []  # as it says too
    assert files(run) == ["run.json", "series.jsonl"]


@pytest.mark.parametrize("text", ["", "{", '{"seed": 7'])
def test_a_run_whose_description_is_damaged_is_not_overwritten(run: RunFolder, text: str) -> None:
    (run.path / "run.json").write_text(text, encoding="utf-8")
    before = files(run)
    again = RunFolder.resume(run.path, {"seed": 8})
    with pytest.raises(StateError, match="not a run folder"):
        again.series()
    assert files(again) == before
    assert (run.path / "run.json").read_text(encoding="utf-8") == text


def test_going_on_without_the_series_file(run: RunFolder) -> None:
    """Nothing was measured, whatever statistics are there."""
    run.series_path.unlink()
    again = RunFolder.resume(run.path, {})
    assert again.series() == []
    with pytest.raises(StateError, match="holds no measurement"):
        again.report()
    again.append(measurement(9))
    assert epochs_of(again) == [9]
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


@pytest.mark.parametrize("size", [0, 100])
def test_statistics_cut_short_before_their_line_are_written_again(run: RunFolder, size: int) -> None:
    path = run.path / numbered(LINES)[0]
    path.write_bytes((run.path / numbered(0)[0]).read_bytes()[:size])
    again = RunFolder.resume(run.path, {})
    assert_last(again, 4, history=3)
    again.append(measurement(5))
    assert_last(again, 5, history=4)


def test_a_line_damaged_in_the_middle_is_named(run: RunFolder) -> None:
    lines = run.series_path.read_bytes().splitlines(keepends=True)
    run.series_path.write_bytes(b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]]))
    for read in (run.series, run.report):
        with pytest.raises(StateError, match=r"series.jsonl is damaged in line 2"):
            read()


def test_going_on_without_the_folder_of_the_statistics(run: RunFolder) -> None:
    """Not every way to copy a run copies a folder that is empty yet."""
    again = RunFolder.create(run.path, {})
    (again.path / "statistics").rmdir()
    RunFolder.resume(run.path, {}).append(measurement(3))
    assert_last(again, 3, history=0)


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
    for name in ("run.json", "series.jsonl", "model.safetensors", "report.html"):
        whole = (run.path / name).read_bytes()
        (run.path / f"{name}.new").write_bytes(whole[: len(whole) // 2])
    again = RunFolder.resume(run.path, {})
    assert epochs_of(again) == [1, 2, 3, 4]
    assert_last(again, 4, history=3)
    assert again.load_weights().keys() == model(1).state_dict().keys()
    again.replace_series(again.series()[:2])
    again.save_model(model(2))
    again.append(measurement(3))
    again.write_html()
    assert_last(again, 3, history=2)
    assert torch.equal(again.load_weights()["0.weight"], model(2)[0].weight)
    assert again.report_path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [name for name in files(again) if name.endswith(".new")] == ["run.json.new"]


def test_beginning_anew_over_leftovers(run: RunFolder) -> None:
    (run.path / "run.json.new").write_text("{", encoding="utf-8")
    (run.path / "notes.txt").write_text("mine", encoding="utf-8")
    again = RunFolder.create(run.path, {"seed": 8})
    assert files(again) == ["notes.txt", "run.json", "series.jsonl"]
    assert again.description["seed"] == 8


@pytest.mark.parametrize("start", [RunFolder.create, RunFolder.resume])
def test_a_run_in_a_folder_of_the_users_leaves_what_is_there(tmp_path: Path, start: Callable[..., RunFolder]) -> None:
    mine = {name: tmp_path / name for name in (".tmpAb12cd", "report.html", "deep/.tmpAb12cd", *numbered(0))}
    for path in mine.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder = start(tmp_path, {})
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {"run.json", "series.jsonl"}
    with pytest.raises(StateError, match=r"model.safetensors was not written by a run folder; move it"):
        folder.save_model(model(1))
    assert (tmp_path / "model.safetensors").read_bytes() == before[tmp_path / "model.safetensors"]


def test_weights_that_another_program_put_in_place_of_the_runs_stay(run: RunFolder) -> None:
    """A Trainer saves its model to the folder that is also the run's."""
    weights = {"weight": torch.ones(2)}
    save_file(weights, run.path / "model.safetensors", metadata={"format": "pt"})
    assert run.report().evidence.weight is None
    again = RunFolder.create(run.path, {})
    assert torch.equal(again.load_weights()["weight"], weights["weight"])
    assert files(again) == ["model.safetensors", "run.json", "series.jsonl"]


def test_only_files_of_a_saves_name_and_place_are_swept(run: RunFolder) -> None:
    kept = [run.path / ".tmp-notes", run.path / ".tmp12345", run.path / "deep" / ".tmpAb12cd"]
    for each in kept:
        each.parent.mkdir(exist_ok=True)
        each.write_text("mine", encoding="utf-8")
    for again in (RunFolder.resume, RunFolder.create):
        (run.path / ".tmpfolder").mkdir(exist_ok=True)
        (run.path / "statistics" / ".tmpAb12cd").write_text("half", encoding="utf-8")
        again(run.path, {})
        assert (run.path / ".tmpfolder").is_dir()
        assert all(each.exists() for each in kept)
        assert not (run.path / "statistics" / ".tmpAb12cd").exists()


def test_a_description_that_cannot_be_written_changes_nothing(run: RunFolder) -> None:
    before = {name: (run.path / name).read_bytes() for name in files(run)}
    with pytest.raises(TypeError, match="keys must be"):
        RunFolder.create(run.path, {("a", 1): 2})
    assert {name: (run.path / name).read_bytes() for name in files(run)} == before


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the library may run after it, nor catch it."""


def killed_at(operation: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From now on the n-th operation on files isn't done any more; returns how many were seen."""
    seen = [0]

    def count() -> None:
        seen[0] += 1
        if seen[0] == operation:
            raise Killed(signal.SIGKILL)

    for name in ("write_text", "mkdir", "unlink", "replace"):
        real = getattr(Path, name)

        def instead(path: Path, *arguments: Any, _real: Any = real, **options: Any) -> Any:
            count()
            return _real(path, *arguments, **options)

        monkeypatch.setattr(Path, name, instead)
    return lambda: seen[0]


def test_the_operations_of_beginning_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below kill at each of these: folder, series, statistics, model, page, description, its renaming."""
    seen = killed_at(-1, monkeypatch)
    RunFolder.create(run.path, {})
    assert seen() >= 4 + LINES + 2


def test_killed_while_beginning_anew_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was killed, what is then resumed is the new run, and nothing of the old one is in it."""
    operation, done = 0, False
    while not done:
        operation += 1
        run = filled(tmp_path / str(operation), seed="old")
        run.save_model(model(1))
        run.report_path.write_text("page", encoding="utf-8")
        with monkeypatch.context() as patch:
            seen = killed_at(operation, patch)
            with suppress(Killed):
                RunFolder.create(run.path, {"seed": "new"})
            done = seen() < operation
        if not (run.path / "run.json").exists():
            with pytest.raises(StateError, match="not a run folder"):
                run.series()
        elif run.series():
            assert_last(run, 4, history=3)  # the old run, untouched
            continue
        again = RunFolder.resume(run.path, {"seed": "new"})
        assert again.description["seed"] == "new", operation
        again.append(measurement(9))
        assert_last(again, 9, history=0)
        assert again.report().evidence.weight is None
        assert not again.report_path.exists()
    assert operation > 5


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
    assert operation == 2 + LINES - kept + 1


def test_killed_while_the_report_command_writes(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text

    def write_half(path: Path, text: str, **options: Any) -> int:
        real(path, text[: len(text) // 2], **options)
        raise Killed(signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_half)
        with pytest.raises(Killed):
            CliRunner().invoke(app, ["report", str(run.path)])
    assert run.report_path.read_text(encoding="utf-8") == "page"
    assert CliRunner().invoke(app, ["report", str(run.path)]).exit_code == 0
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
