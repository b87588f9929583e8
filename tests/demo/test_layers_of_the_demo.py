"""`demo --layers auto`: the numbers by depth, against two passes in float64 over saved features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tightframe import datasets
from tightframe.demo.network import network
from tightframe.demo.run import run
from tightframe.demo.settings import Settings
from tightframe.report import Profile, RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, nn.Module, Path]:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    torch.manual_seed(0)
    report, written = run(Settings(epochs=12, measurements=3, layers=("auto",)), folder)
    model = network((1, 8, 8), 10)
    model.load_state_dict(written.load_weights())
    return Profile.of(report), model.eval(), folder


def two_passes(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """NC1, nearest-centre accuracy and numerical rank from the definitions: means first, then deviations."""
    x = features.astype(np.float64)
    means = np.stack([x[labels == k].mean(0) for k in range(10)])
    within = np.zeros((x.shape[1], x.shape[1]))
    hits = 0
    for row, label in zip(x, labels, strict=True):
        deviation = row - means[label]
        within += np.outer(deviation, deviation) / len(x)
        hits += int(np.argmin([((row - mean) ** 2).sum() for mean in means])) == label
    centred = means - means.mean(0)
    between = centred.T @ centred / 10
    covariance = np.cov(x.T, bias=True)
    variances = np.linalg.svd(covariance, compute_uv=False)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / 10,
        "ncc_accuracy": hits / len(x),
        "numerical_rank": float((variances > 1e-3 * variances[0]).sum()),
    }


def saved_features(model: nn.Sequential) -> dict[str, np.ndarray]:
    """What the blocks of the network give, computed one layer at a time in the batches that the demo measures in."""
    found: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for images in datasets.load("digits").train_images.split(512):
            for place, layer in enumerate(model.features):
                images = layer(images)
                if place in (3, 6, 9):
                    name = "input of classifier" if place == 9 else f"features.{place}"
                    found.setdefault(name, []).append(images.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_the_numbers_by_depth(finished: tuple[Profile, nn.Module, Path]) -> None:
    profile, model, _ = finished
    features = saved_features(model)
    labels = datasets.load("digits").train_labels.numpy()
    assert profile.names == list(features) == ["features.3", "features.6", "input of classifier"]
    for report, rows in zip(profile.reports, features.values(), strict=True):
        expected = two_passes(rows, labels)
        assert report["nc1"].value == pytest.approx(expected["nc1"], rel=1e-6)
        assert report["ncc_accuracy"].value == pytest.approx(expected["ncc_accuracy"], abs=1e-12)
        assert report["numerical_rank"].value == expected["numerical_rank"]


def test_they_are_drawn_and_kept(finished: tuple[Profile, nn.Module, Path]) -> None:
    profile, _, folder = finished
    stored = RunFolder(folder).report()
    assert Profile.of(stored).names == profile.names
    assert all(len(report.layers) == 2 for report in stored.history)
    figures = {figure.title: figure for figure in stored.section("depth").figures}
    for title, key in (
        ("NC1", "nc1"),
        ("nearest-centre accuracy", "ncc_accuracy"),
        ("numerical rank of Σ_T", "numerical_rank"),
    ):
        lines = {line.name: list(line.y) for line in figures[title].series}
        assert lines["epoch 12"] == profile.values(key)
        assert lines["epoch 1"] == Profile.of(stored.history[0]).values(key)
    assert "Collapse by depth" in (folder / "report.html").read_text(encoding="utf-8")
