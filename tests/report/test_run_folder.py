"""`RunFolder`: what is written, what comes back, and folders that are damaged or something else."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tightframe import ClassStatistics, Report, __version__
from tightframe.errors import StateError
from tightframe.metrics import Evidence, cosine_grid
from tightframe.report import RunFolder
from tightframe.report.facts import Facts

Make = Callable[..., Evidence]


@pytest.fixture
def reports(make_evidence: Make) -> list[Report]:
    """Three measurements of one run."""
    return [
        Report.from_evidence(
            make_evidence(seed=epoch), facts={"epoch": epoch, "classifier": "head"}, context={"lr": 0.1}
        )
        for epoch in (1, 2, 3)
    ]


@pytest.fixture
def run(tmp_path: Path, reports: list[Report]) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run", {"seed": 7})
    for report in reports:
        folder.append(report)
    folder.close()
    return folder


def model_of(report: Report) -> nn.Module:
    """A model that ends in the report's classifier."""
    head = nn.Linear(6, 4, dtype=torch.float64)
    assert report.evidence is not None
    with torch.no_grad():
        head.weight.copy_(report.evidence.weight)
    return nn.Sequential(OrderedDict(body=nn.Linear(3, 6), head=head))


def test_a_new_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "deep" / "run", {"command": "mine", "seed": 7, "where": tmp_path})
    described = json.loads((tmp_path / "deep" / "run" / "run.json").read_text(encoding="utf-8"))
    assert (described["command"], described["seed"], described["where"]) == ("mine", 7, str(tmp_path))
    assert described["versions"]["tightframe"] == __version__
    assert described["versions"]["torch"] == torch.__version__
    (_,) = described.pop("run_folder")
    assert folder.description == described
    assert folder.series() == []
    assert sorted(p.name for p in folder.path.iterdir()) == ["run.json", "run.lock"]


def test_the_series_comes_back(run: RunFolder, reports: list[Report]) -> None:
    series = RunFolder(run.path).series()
    assert [report.entries for report in series] == [report.entries for report in reports]
    assert [report.facts for report in series] == [report.facts for report in reports]
    assert [report.context for report in series] == [{"lr": 0.1}] * 3
    assert all(report.evidence is None for report in series)


def test_one_line_a_measurement(run: RunFolder, reports: list[Report]) -> None:
    lines = run.series_path.read_text(encoding="utf-8").splitlines()
    for line, report in zip(lines, reports, strict=True):
        whole = json.loads(report.to_json())
        judged = {name: whole.pop(name) for name in ("verdict", "oddities")}
        assert json.loads(line) == whole  # words follow from numbers, and rules may change
        assert judged["verdict"]["word"] == report.verdict.word


def test_undefined_values_come_back(tmp_path: Path, awkward_report: Report) -> None:
    folder = RunFolder.create(tmp_path, {})
    folder.append(awkward_report)
    (back,) = folder.series()
    assert [repr(entry.value) for entry in back] == [repr(entry.value) for entry in awkward_report]


def test_a_folder_that_an_earlier_version_wrote_opens(run: RunFolder, reports: list[Report], tmp_path: Path) -> None:
    """With null levels and positions, names that are gone, and nothing of what came since."""
    path, new = run.path / "series.jsonl", ("shuffled", "shuffled_spread", "level", "closeness", "remark", "classes")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        for name in ("distances", "coverage"):
            data.pop(name, None)
        for entry in data["entries"]:
            entry |= {"null": 1.5, "random": None}
            for name in new:
                del entry[name]
        data["entries"].append(data["entries"][0] | {"name": "log_kernel_mean"})
        lines.append(json.dumps(data))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = RunFolder(run.path).report()
    assert again.values == {**reports[-1].values, "log_kernel_mean": reports[-1].entries[0].value}
    assert len(again.history) == 2 and again.evidence is not None
    assert again["nc1"].shuffled is None and again["nc1"].remark == ""
    again.to_html(tmp_path / "page.html")
    again.to_terminal(everything=True)
    RunFolder(run.path).append(reports[0])  # and goes on
    assert RunFolder(run.path).series()[-1]["nc1"].shuffled == reports[0]["nc1"].shuffled


def test_statistics_of_every_measurement_come_back(run: RunFolder, reports: list[Report]) -> None:
    files = sorted((run.path / "statistics").iterdir())
    assert [path.name for path in files] == ["000000.safetensors", "000001.safetensors", "000002.safetensors"]
    for path, report in zip(files, reports, strict=True):
        loaded = ClassStatistics.load(path)
        assert report.evidence is not None and report.evidence.statistics is not None
        for field in ("counts", "means", "spread", "within"):
            assert torch.equal(getattr(loaded, field), getattr(report.evidence.statistics, field)), field


def test_the_report_of_a_run(run: RunFolder, reports: list[Report]) -> None:
    last = RunFolder(run.path).report()
    assert last.entries == reports[-1].entries
    assert [report.facts.epoch for report in last.history] == [1, 2]
    assert last.evidence is not None and last.evidence.statistics is not None
    assert torch.equal(last.evidence.statistics.means, reports[-1].evidence.statistics.means)
    assert last.evidence.weight is None  # no model was saved


def test_a_measurement_without_evidence(tmp_path: Path, full_report: Report) -> None:
    folder = RunFolder.create(tmp_path, {})
    folder.append(replace(full_report, evidence=None))
    assert folder.report().evidence is None
    assert folder.report().values == full_report.values


def test_the_model_and_the_gram_matrix_of_its_classifier_come_back(run: RunFolder, reports: list[Report]) -> None:
    model = model_of(reports[-1])
    run.save_model(model)
    weights = run.load_weights()
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor)
    last = RunFolder(run.path).report()
    assert last.evidence is not None
    assert torch.equal(last.evidence.weight, reports[-1].evidence.weight)
    before, after = reports[-1].section("geometry"), last.section("geometry")
    assert after == before and len(after.figures) == 6
    grid = cosine_grid(last.evidence.statistics)
    torch.testing.assert_close(torch.tensor(after.figures[0].values, dtype=torch.float64), grid, rtol=0, atol=1e-14)


def test_a_pointwise_convolution_comes_back_as_rows(tmp_path: Path, make_evidence: Make) -> None:
    model = nn.Sequential(OrderedDict(head=nn.Conv2d(6, 4, 1)))
    folder = RunFolder.create(tmp_path, {})
    folder.append(Report.from_evidence(make_evidence(), facts={"classifier": "head"}))
    folder.save_model(model)
    weight = folder.report().evidence.weight
    assert torch.equal(weight, model.head.weight.detach().reshape(4, 6).double())


def test_a_model_that_is_its_own_classifier(tmp_path: Path, make_evidence: Make) -> None:
    model = nn.Linear(6, 4)
    folder = RunFolder.create(tmp_path, {})
    folder.append(Report.from_evidence(make_evidence(), facts={"classifier": ""}))
    folder.save_model(model)
    assert torch.equal(folder.report().evidence.weight, model.weight.detach().double())


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(embeddings=nn.Embedding(4, 6), head=nn.Linear(6, 4, bias=False)))
    model.head.weight = model.embeddings.weight
    folder = RunFolder.create(tmp_path, {})
    folder.save_model(model)
    assert torch.equal(folder.load_weights()["head.weight"], model.embeddings.weight)


def test_weights_in_another_memory_format_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).to(memory_format=torch.channels_last)
    folder = RunFolder.create(tmp_path, {})
    folder.save_model(model)
    assert torch.equal(folder.load_weights()["0.weight"], model[0].weight)


def test_extra_state_that_is_no_tensor_isnt_saved(tmp_path: Path) -> None:
    class Stateful(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    folder = RunFolder.create(tmp_path, {})
    folder.save_model(Stateful(2, 3))
    assert folder.load_weights().keys() == {"weight", "bias"}


def test_the_page_is_written(run: RunFolder, reports: list[Report]) -> None:
    path = run.write_html()
    assert path == run.report_path == run.path / "report.html"
    assert reports[-1]["nc1"].label in path.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------- a run begun anew


def test_an_overwritten_run_is_forgotten(run: RunFolder, reports: list[Report]) -> None:
    again = RunFolder.create(run.path, {"seed": 8}, overwrite=True)
    assert again.description["seed"] == 8
    assert again.series() == []
    assert list((run.path / "statistics").iterdir()) == []
    again.append(reports[1])
    assert again.report().values == reports[1].values
    assert again.report().history == ()
    assert torch.equal(again.report().evidence.statistics.means, reports[1].evidence.statistics.means)


def test_measurements_are_not_overwritten_unasked(run: RunFolder) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    message = r"run holds 3 measurements of an earlier run. Pass overwrite=True .* resume=True .* or another folder"
    with pytest.raises(StateError, match=message):
        RunFolder.create(run.path, {"seed": 8})
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_run_without_measurements_is_replaced(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = RunFolder.create(tmp_path, {"seed": seed})
        folder.close()
        assert folder.description["seed"] == seed


@pytest.mark.parametrize("start", [RunFolder.resume, partial(RunFolder.create, overwrite=True)])
def test_what_killed_writes_left_is_removed(run: RunFolder, start: Callable[..., RunFolder]) -> None:
    mine = [run.path / ".notes", run.path / ".tmpTq3L6S", run.path / ".0123.tightframe-partial"]
    left = [folder / ".0123456789abcdef.tightframe-partial" for folder in (run.path, run.path / "statistics")]
    for each in (*mine, *left):
        each.write_text("half")
    start(run.path, {})
    assert {each for each in run.path.rglob(".*") if each.is_file()} == set(mine)


def test_an_overwritten_runs_classifier_is_not_shown(run: RunFolder, reports: list[Report]) -> None:
    run.save_model(model_of(reports[0]))
    run.write_html()
    run.close()
    again = RunFolder.create(run.path, {}, overwrite=True)
    again.append(reports[1])
    assert again.report().evidence.weight is None
    assert not again.report_path.exists()


# ---------------------------------------------------------------------------------------------- damaged folders


def test_a_last_line_cut_short_is_left_out(run: RunFolder, reports: list[Report]) -> None:
    text = run.series_path.read_text(encoding="utf-8")
    run.series_path.write_text(text[:-200], encoding="utf-8")
    assert [report.entries for report in run.series()] == [report.entries for report in reports[:2]]
    last = run.report()
    assert last.values == reports[1].values
    assert torch.equal(last.evidence.statistics.means, reports[1].evidence.statistics.means)


def test_measurements_after_a_line_cut_short_are_kept(run: RunFolder, reports: list[Report]) -> None:
    text = run.series_path.read_text(encoding="utf-8")
    run.series_path.write_text(text[:-200], encoding="utf-8")
    run.append(reports[2])
    assert [report.entries for report in run.series()] == [report.entries for report in reports]
    assert torch.equal(run.report().evidence.statistics.means, reports[2].evidence.statistics.means)


@pytest.mark.parametrize("odd", ["\u2028", "\u0085", "\x0b", "\x1c", "\n", "é – Σ"])
def test_any_character_may_stand_in_the_context(tmp_path: Path, reports: list[Report], odd: str) -> None:
    folder = RunFolder.create(tmp_path, {"title": odd})
    named = replace(reports[0], facts=replace(reports[0].facts, title=f"one{odd}two"), context={odd: odd})
    folder.append(named)
    folder.append(reports[1])
    assert [report.facts.title for report in folder.series()] == [f"one{odd}two", None]
    assert folder.series()[0].context == {odd: odd}
    assert torch.equal(folder.report().evidence.statistics.means, reports[1].evidence.statistics.means)


def test_an_empty_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="holds no measurement"):
        RunFolder.create(tmp_path, {}).report()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        for read in (RunFolder(path).series, RunFolder(path).report, lambda p=path: RunFolder(p).description):
            with pytest.raises(StateError, match="is not a run folder"):
                read()


def test_a_run_description_that_is_no_json(run: RunFolder) -> None:
    (run.path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(StateError, match="is not a run folder"):
        run.series()


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[]", b"null", b'"text"', b"3"])
def test_a_run_description_that_is_no_object(run: RunFolder, content: bytes) -> None:
    (run.path / "run.json").write_bytes(content)
    for read in (run.series, run.report, lambda: run.description):
        with pytest.raises(StateError, match="is not a run folder"):
            read()


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'{"context": {}, "notes": [], "entries": []}',
        b'{"context": "text", "notes": [], "entries": []}',
        b'{"context": {"epoch": 1}, "notes": [], "entries": ["text"]}',
        b'{"context": {"epoch": 1}, "notes": [], "entries": [], "layers": [{"context": {}, "notes": [],"entries":[]}]}',
        b'{"facts": {}, "notes": [], "entries": []}',
        b'{"facts": "text", "notes": [], "entries": []}',
        b'{"facts": [], "notes": [], "entries": []}',
        b'{"facts": {"epoch": 1}, "notes": [], "entries": ["text"]}',
        b'{"facts": {"epoch": 1}, "notes": [], "entries": [], "layers": [{"facts": {}, "notes": [], "entries": []}]}',
        b'{"facts": {"epoch": 1}, "notes": [], "entries": [], "coverage": [{}]}',
        b'{"facts": {"epoch": 1}, "notes": [], "entries": [], "detection": {"rows": 3}}',
        b'{"facts": {"epoch": 1, "training": {"loss": 3}}, "notes": [], "entries": []}',
        b"\xff\xfe",
    ],
)
def test_a_line_that_is_no_report(run: RunFolder, line: bytes) -> None:
    lines = run.series_path.read_bytes().splitlines()
    run.series_path.write_bytes(b"\n".join([lines[0], line, lines[2], b""]))
    with pytest.raises(StateError, match=r"series.jsonl is damaged in line 2"):
        run.report()


def test_a_report_that_says_little_can_be_shown(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.append(Report((), Facts(epoch=4)))
    run.report().to_terminal()
    assert "epoch 4" in capsys.readouterr().out
    assert "epoch 4" in run.report().to_html()


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_weights_cut_short(run: RunFolder, reports: list[Report], size: int) -> None:
    run.save_model(model_of(reports[-1]))
    path = run.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StateError, match=r"(can't read .*|)model.safetensors (as safetensors|is (truncated|damaged))"):
        run.load_weights()
    last = run.report()
    assert last.evidence.weight is None
    assert torch.equal(last.evidence.statistics.means, reports[-1].evidence.statistics.means)


def test_a_run_without_its_series(run: RunFolder) -> None:
    run.series_path.unlink()
    with pytest.raises(StateError):
        run.report()


def test_damaged_statistics(run: RunFolder) -> None:
    (run.path / "statistics" / "000002.safetensors").write_bytes(b"short")
    with pytest.raises(StateError, match="safetensors"):
        run.report()
