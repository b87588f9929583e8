"""A metric of one's own, with public names only, appears everywhere that the package's own do."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tightframe as tf
from tightframe import metrics

# ---------------------------------------------------------------------- what a user writes


@metrics.metric(
    "largest variance / mean variance",
    "NC1",
    source="nobody 2026",
    target=1.0,
    headline=True,
    held_out=True,
)
def unevenness(statistics: tf.ClassStatistics) -> Tensor:
    """How unevenly classes scatter: 1 where all scatter alike."""
    variances = statistics.populated().variances
    return variances.max() / variances.mean()


# ---------------------------------------------------------------------- where it appears


def batches(seed: int, samples: int = 600) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    centres = 3 * torch.randn(3, 6, generator=torch.Generator().manual_seed(9))
    widths = torch.tensor([1.0, 1.1, 1.3])[labels, None]
    features = centres[labels] + widths * torch.randn(samples, 6, generator=generator)
    return list(zip(features.split(100), labels.split(100), strict=True))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def report(model: nn.Module) -> tf.Report:
    chosen = [unevenness, "nc1"]
    return tf.measure(model, batches(0), test=batches(1), layers="0", metrics=chosen, progress=False)


def test_value_target_error_level_and_closeness(model: nn.Module, report: tf.Report) -> None:
    entry = report["unevenness"]
    features = torch.cat([x for x, _ in batches(0)])
    labels = torch.cat([y for _, y in batches(0)])
    inside = model[:2](features).detach()
    variances = torch.stack([inside[labels == k].var(0, correction=0).sum() for k in range(3)])
    assert entry.value == pytest.approx(float(variances.max() / variances.mean()), rel=1e-5)
    assert entry.target == 1.0
    assert 0 < entry.standard_error < 0.2
    assert 1 <= entry.shuffled < entry.value and entry.shuffled_spread > 0
    assert (entry.level, entry.source) == ("shuffled", "nobody 2026")
    assert entry.closeness == pytest.approx(abs(entry.shuffled - 1) / abs(entry.value - 1), rel=1e-9)
    assert entry.remark == "no better than shuffled labels"


def test_by_layer_and_held_out(report: tf.Report) -> None:
    assert set(report.values) == {"unevenness", "nc1", "test/unevenness", "test/nc1"}
    (layer,) = report.layers
    assert math.isfinite(layer["unevenness"].value)


def test_in_every_rendering(
    report: tf.Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = "largest variance / mean variance"
    monkeypatch.setenv("COLUMNS", "200")
    report.to_terminal(everything=True)
    assert label in capsys.readouterr().out
    assert label in report.to_html() and label in report.to_markdown()
    assert "unevenness" in {entry["name"] for entry in json.loads(report.to_json())["entries"]}
    assert "unevenness" in {row["name"] for row in csv.DictReader(io.StringIO(report.to_csv()))}
    assert tf.Report.from_dict(json.loads(report.to_json()))["unevenness"] == report["unevenness"]


def test_in_the_series_of_a_monitor(model: nn.Module, tmp_path: Path) -> None:
    monitor = tf.Monitor(model, folder=tmp_path / "run", metrics=[unevenness])
    for epoch in range(2):
        monitor.measure(batches(epoch), epoch=epoch, progress=False)
    assert [set(each.values) for each in monitor.series] == [{"unevenness"}] * 2


def test_it_is_differentiable_and_has_a_jackknife_error_of_its_own() -> None:
    features = torch.randn(60, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(60) % 3
    unevenness(tf.ClassStatistics.from_features(features, labels, 3)).backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    folded = tf.statistics.FoldedStatistics.from_features(features.detach(), labels, 3)
    assert float(metrics.jackknife(unevenness, folded).standard_error) > 0
