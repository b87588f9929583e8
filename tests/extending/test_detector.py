"""An out-of-distribution detector of one's own, with public names only, appears everywhere the package's own do."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tightframe as tf
from tightframe import metrics, ood

# ---------------------------------------------------------------------- what a user writes


@dataclass(frozen=True)
class Reach:
    """Minus the largest absolute coordinate about the mean of all training features."""

    mean: Tensor

    @property
    def settings(self) -> dict[str, Any]:
        return {"norm": "largest coordinate"}

    def scores(self, features: Tensor) -> Tensor:
        return -(features.to(self.mean) - self.mean).abs().amax(1)


def reach(training: ood.Fitting) -> Reach:
    return Reach(training.statistics.global_mean())


REACH = ood.DetectorRow("reach", "about the mean", "nobody 2026", reach, requires=("statistics",))


# ---------------------------------------------------------------------- where it appears

OWN = "reach"


def batches(seed: int, shift: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(240) % 3
    features = 3 * torch.eye(3, 6)[labels] + torch.randn(240, 6, generator=generator) + shift
    return list(zip(features.split(60), labels.split(60), strict=True))


def inside(part: list[tuple[Tensor, Tensor]], model: nn.Sequential) -> Tensor:
    with torch.no_grad():
        return torch.cat([model[:2](x) for x, _ in part])


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def added() -> Iterator[None]:
    ood.DETECTORS[OWN] = REACH
    yield
    del ood.DETECTORS[OWN]


@pytest.fixture(scope="module")
def report(model: nn.Sequential, added: None) -> tf.Report:
    return tf.measure(model, batches(0), test=batches(1), ood=batches(2, 2.0), progress=False)


def test_its_row_is_that_of_its_scores(model: nn.Sequential, report: tf.Report) -> None:
    centre = inside(batches(0), model).double().mean(0)
    scores = [-(inside(part, model) - centre).abs().amax(1) for part in (batches(1), batches(2, 2.0))]
    expected = ood.evaluate(*scores)
    assert report.detection is not None
    row = report.detection[OWN]
    assert (row.label, row.settings, row.source) == ("reach", {"norm": "largest coordinate"}, "nobody 2026")
    assert (row.auroc, row.auroc_error) == pytest.approx((expected.auroc, expected.auroc_error), rel=1e-6)
    assert (row.fpr95, row.fpr95_error) == pytest.approx((expected.fpr95, expected.fpr95_error), rel=1e-6)
    assert 0.5 < row.auroc < 1 and row.auroc_error > 0
    assert report["reach_auroc"].value == row.auroc


def test_in_every_rendering(
    report: tf.Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report.to_terminal(everything=True)
    for text in (capsys.readouterr().out, report.to_html(), report.to_markdown()):
        assert "about the mean" in text and "nobody 2026" in text
    assert "reach_auroc" in {row["name"] for row in csv.DictReader(io.StringIO(report.to_csv()))}
    again = tf.Report.from_dict(json.loads(report.to_json()))
    assert again.detection is not None and report.detection is not None
    assert again.detection[OWN] == report.detection[OWN]


def test_in_the_figures_beside_neco(report: tf.Report) -> None:
    section = report.section("detection")
    assert section is not None
    for figure in section.figures:
        assert ("reach", "reference") in {(series.name, series.role) for series in figure.series}


@pytest.mark.usefixtures("added")
def test_in_the_series_of_a_monitor(model: nn.Sequential, tmp_path: Path) -> None:
    monitor = tf.Monitor(model, folder=tmp_path / "run")
    monitor.measure(batches(0), test=batches(1), ood=batches(2, 2.0), epoch=1, progress=False)
    assert "reach_auroc" in monitor.series[0].values


@pytest.mark.usefixtures("added")
def test_by_name_and_only_with_its_evidence() -> None:
    features, labels = (torch.cat(parts) for parts in zip(*batches(0), strict=True))
    evidence = metrics.Evidence(tf.ClassStatistics.from_features(features, labels, 3))
    assert list(ood.DetectorScores(evidence, [OWN]).detectors) == [OWN]
    assert not REACH.available(metrics.Evidence(None, torch.eye(3)))
    with pytest.raises(tf.errors.ChoiceError, match="reach"):
        ood.DetectorScores(evidence, ["nothing"])
