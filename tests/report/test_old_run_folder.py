"""A run folder that version 0.1 wrote, with everything in one context: the same values, tables and words."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tightframe import Report
from tightframe.plain import number_of
from tightframe.report import Comparison, RunFolder
from tightframe.report.predicted import statements
from tightframe.theory import Training

SERIES = Path(__file__).with_name("data") / "series_of_version_0_1.jsonl"
"""A `Monitor` on three layers of which one is measured besides, held-out data without the last class, foreign data;
entries and detectors left out here, accuracies of classes added as the demo wrote them."""


@pytest.fixture(scope="module")
def written() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SERIES.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run.json").write_text('{"seed": 0, "arguments": {"lr": 0.1}}', encoding="utf-8")
    shutil.copy(SERIES, tmp_path / "series.jsonl")
    return RunFolder(tmp_path)


def test_every_value_is_read(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    series = folder.series()
    for report, old in zip(series, written, strict=True):
        for layer, known in zip((report, *report.layers), (old, *old["layers"]), strict=True):
            assert len(layer.entries) == len(known["entries"]) >= 8
            for entry, was in zip(layer, known["entries"], strict=True):
                read = {name: getattr(entry, name) for name in was}
                assert repr(read) == repr({name: number_of(value) for name, value in was.items()})
                assert entry.least_closeness is None


def test_facts_and_what_the_caller_said(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    for report, old in zip(folder.series(), written, strict=True):
        context = old["context"]
        for name in ("samples", "classes", "dimension", "smallest_class", "largest_class", "coverage", "layer", "mode",
                     "title", "epoch", "classifier", "feature_decay_estimated"):  # fmt: skip
            assert getattr(report.facts, name) == context[name], name
        assert report.facts.training == Training.from_dict(context["training"])
        assert report.facts.class_names == {"0": "ant", "1": "bee", "2": "<cat>", "3": "dog"}
        assert {name: report.context[name] for name in ("lr", "rate")} == {"lr": 0.1, "rate": "nan"}
        assert report.context.keys() <= {"lr", "rate", "class_counts"}
        assert [layer.facts.layer for layer in report.layers] == ["body"]


def test_coverage(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    for report, old in zip(folder.series(), written, strict=True):
        rows = [
            {"min_count": row.min_count, "classes": row.classes, "samples": row.samples, "values": dict(row.values)}
            for row in report.coverage
        ]
        expected = [
            row | {"values": {name: number_of(value) for name, value in row["values"].items()}}
            for row in old["context"]["coverage_table"]
        ]
        assert repr(rows) == repr(expected)
        assert math.isnan(report.coverage[-1].values["equiangularity"])  # of two classes
        table = report.section("coverage").table  # type: ignore[union-attr]
        assert table.rows[0] == ("classes", "4", "3", "2")


def test_detection(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    for report, old in zip(folder.series(), written, strict=True):
        known = old["context"]["detection"]
        assert report.detection is not None
        assert report.detection.to_dict() == known
        table = report.section("detection").table  # type: ignore[union-attr]
        assert [row[1:5] for row in table.rows] == [
            tuple(row[name] for name in ("auroc", "auroc_error", "fpr95", "fpr95_error")) for row in known["rows"]
        ]


def test_errors_and_accuracies_of_classes(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    for report, old in zip(folder.series(), written, strict=True):
        errors = old["context"]["class_errors"]
        assert report.class_errors == {"norm": errors["‖μ − μ_G‖"], "variance": errors["variance"]}
    accuracies = folder.report().class_accuracies
    assert repr(accuracies) == repr({"0": 1.0, "1": 0.875, "2": 0.25, "3": math.nan})
    (bars,) = folder.report().section("accuracies").figures  # type: ignore[union-attr]
    assert (bars.names, bars.values) == (("ant", "bee", "<cat>"), (1.0, 0.875, 0.25))  # type: ignore[union-attr]


def test_distances_to_predictions(folder: RunFolder, written: list[dict[str, Any]]) -> None:
    for report, old in zip(folder.series(), written, strict=True):
        known = old["context"]["distances_to_predictions"]
        assert [vars(each) for each in report.distances] == known
        assert [vars(each) for each in report.layers[0].distances] == old["layers"][0]["context"][
            "distances_to_predictions"
        ]
    said = statements(folder.series()[0])
    assert said[0].startswith("Classes have 3 to 60 samples.")
    assert "nearest to the optimum at the weight decays" in said[2]


def test_everything_can_be_shown(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder.report()
    assert report.section("training") is not None and report.section("depth") is not None
    report.to_terminal(everything=True)
    printed = capsys.readouterr().out
    page = folder.write_html().read_text(encoding="utf-8")
    for text in (printed, page, report.to_markdown()):
        assert "old run" in text and report.verdict.word in text
    assert "&lt;cat&gt;" in page and "<cat>" not in page
    assert Comparison.of([folder.path, folder.path]).to_html()


def test_a_rewritten_report_says_the_same(folder: RunFolder) -> None:
    report = folder.report()
    again = Report.from_dict(json.loads(report.to_json()))
    assert repr(again.to_dict()) == repr(report.to_dict())
    assert "facts" in again.to_dict()


def test_the_run_goes_on_in_the_new_format(folder: RunFolder) -> None:
    first, second = folder.series()
    folder.append(first)
    assert [report.values for report in folder.series()] == [first.values, second.values, first.values]
    lines = [json.loads(line) for line in folder.series_path.read_text(encoding="utf-8").splitlines()]
    assert ["facts" in line for line in lines] == [False, False, True]
    assert repr(folder.series()[2].to_dict()) == repr(first.to_dict())
