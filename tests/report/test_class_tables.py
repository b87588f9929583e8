"""Rows for every class and for the nearest pairs, as they are shown."""

import io
from dataclasses import replace

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from tightframe import ClassStatistics, Report
from tightframe.metrics import Evidence, class_table, jackknife, mean_norms, pair_table
from tightframe.report.drilldown import PAIRS, class_cells, pair_cells
from tightframe.report.html import page
from tightframe.report.terminal import print_report
from tightframe.report.wording import number
from tightframe.statistics import FoldedStatistics
from tightframe.theory import Training, cross_entropy_optimum


def folded(counts: tuple[int, ...], dim: int = 6) -> FoldedStatistics:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    means = 3 * torch.randn(len(counts), dim, generator=generator).double()
    features = means[labels] + torch.randn(len(labels), dim, generator=generator)
    return FoldedStatistics.from_features(features, labels, len(counts), folds=4)


@pytest.fixture(scope="module")
def report() -> Report:
    folds = folded((20, 20, 20, 5, 0, 5))
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()
    evidence = Evidence(folds.total, weight, folds=folds)
    names = ["ant", "bee", "cat", "dog", "eel"]  # one class has none
    return Report.from_evidence(evidence, training=Training(1e-3, 1e-3), context={"class_names": names})


def columns_of(found: tuple[str, list[str], list[list[str]]] | None) -> dict[str, list[str]]:
    assert found is not None
    _, head, lines = found
    assert len(set(head)) == len(head)
    return dict(zip(head, map(list, zip(*lines, strict=True)), strict=True))


def test_classes(report: Report) -> None:
    columns = columns_of(class_cells(report))
    evidence = report.evidence
    assert evidence is not None and evidence.statistics is not None and evidence.folds is not None
    table = class_table(evidence.statistics, evidence.weight)
    assert columns["class"] == ["ant", "bee", "cat", "dog", "5"]
    assert columns["samples"] == ["20", "20", "20", "5", "5"]
    assert columns["variance"] == [number(value) for value in table.variances.tolist()]
    assert columns["cos"] == [f"{value:.4f}" for value in table.nearest_cosines.tolist()]
    assert columns["nearest"] == [["ant", "bee", "cat", "dog", "eel", "5"][k] for k in table.nearest_by_angle.tolist()]
    errors = jackknife(mean_norms, evidence.folds).standard_error
    assert columns["± ‖μ − μ_G‖"] == [number(value) for value in errors.tolist()]
    assert {"‖w‖", "cos(w, μ)", "in distance", "distance", "± variance"} <= columns.keys()


def test_pairs(report: Report) -> None:
    columns = columns_of(pair_cells(report))
    evidence = report.evidence
    assert evidence is not None and evidence.statistics is not None
    optimum = cross_entropy_optimum([20, 20, 20, 5, 5], 1e-3, 1e-3)
    centring = torch.eye(5).double() - 1 / 5  # features at the optimum needn't have mean zero
    centred = centring @ optimum.means @ centring
    table = pair_table(evidence.statistics.populated(), limit=PAIRS, predicted=centred)
    assert len(columns["pair"]) == 10
    names = ["ant", "bee", "cat", "dog", "eel", "5"]
    assert columns["pair"] == [f"{names[i]} – {names[j]}" for i, j in table.labels.tolist()]
    assert table.predicted_cosines is not None
    assert columns["predicted"] == [f"{value:.4f}" for value in table.predicted_cosines.tolist()]
    assert set(columns["merged"]) == {""}
    assert set(columns["to merge"]) == {""}  # at these decays N²λ_Wλ_H = 0.0049


def test_what_is_predicted_to_merge_and_has(report: Report) -> None:
    evidence = report.evidence
    assert evidence is not None and evidence.weight is not None
    weight = evidence.weight.clone()
    weight[5] = weight[3]
    merged = Report.from_evidence(replace(evidence, weight=weight), training=Training(0.05, 0.05))
    columns = columns_of(pair_cells(merged))
    said = dict(zip(columns["pair"], zip(columns["merged"], columns["to merge"], strict=True), strict=True))
    assert said["3 – 5"] == ("yes", "yes")  # N²λ_Wλ_H = 12.25
    assert said["0 – 1"] == ("", "")


def test_without_classifier_or_folds(report: Report) -> None:
    assert report.evidence is not None
    bare = Report.from_evidence(Evidence(report.evidence.statistics))
    assert not {"‖w‖", "± variance"} & columns_of(class_cells(bare)).keys()
    assert "merged" not in columns_of(pair_cells(bare))
    assert class_cells(bare.without_evidence()) is None
    assert pair_cells(bare.without_evidence()) is None


def test_of_many_classes_those_that_scatter_most() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(300, generator=generator).double()
    means = torch.randn(300, 8, generator=generator).double()
    statistics = ClassStatistics(torch.full((300,), 5), means, spread)
    report = Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"])
    said, _, lines = class_cells(report) or ("", [], [])
    assert [line[0] for line in lines] == [str(k) for k in spread.argsort(descending=True)[:20].tolist()]
    assert "Of 300 classes the 20 that scatter most." in said
    assert len((pair_cells(report) or ("", [], []))[2]) == PAIRS


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_in_the_terminal_columns_that_have_room_are_whole(report: Report, width: int) -> None:
    def printed(*, classes: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=width)
        print_report(report, classes=classes, console=console)
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    lines = printed(classes=True)
    assert all(cell_len(line) <= width for line in lines)
    heading = next(place for place, line in enumerate(lines) if line.split()[:2] == ["class", "samples"])
    shown = lines[heading].split("  ")[0]
    assert shown == "class"
    for line, cells in zip(lines[heading + 2 :], (class_cells(report) or ("", [], []))[2], strict=False):
        assert line.split()[:4] == cells[:4]
    assert len(printed(classes=False)) < len(lines)


def test_on_the_page(report: Report) -> None:
    text = page(report)
    assert "<h2>Classes</h2>" in text and "<h2>Nearest classes</h2>" in text
    for cell in ("ant – bee", "to merge", "± variance"):
        assert cell in text
