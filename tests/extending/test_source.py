"""A source of one's own, with public names only, is measured as the package's own are."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tightframe as tf
from tightframe import sources

# ---------------------------------------------------------------------- what a user writes


class Logs(sources.FeatureSource):
    """Features of two layers as a training script has logged them, one file a batch."""

    num_classes = 3
    class_names = ("ant", "bee", "cat")
    title = "Logged features"

    def __init__(self, folder: Path):
        self.folder = folder
        self.splits = [path.name for path in folder.iterdir()]
        self.classifier = sources.LinearClassifier(torch.eye(3, 6), name="head")

    def batches(self, split: str) -> Iterator[sources.FeatureBatch]:
        for path in sorted((self.folder / split).iterdir()):
            early, late, labels = torch.load(path)
            yield sources.FeatureBatch({"early": early, "late": late}, labels)


# ---------------------------------------------------------------------- where it appears


def logged(split: str, shift: float) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    generator = torch.Generator().manual_seed(len(split))
    batches = []
    for _ in range(4):
        labels = torch.arange(60) % 3
        late = 3 * torch.eye(3, 6)[labels] + torch.randn(60, 6, generator=generator) + shift
        batches.append((late @ torch.ones(6, 8).tril(), late, None if split == "ood" else labels))
    return batches


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    folder = tmp_path_factory.mktemp("logs")
    for split, shift in (("train", 0.0), ("test", 0.0), ("ood", 4.0)):
        (folder / split).mkdir()
        for number, batch in enumerate(logged(split, shift)):
            torch.save(batch, folder / split / f"{number}.pt")
    return Logs(folder)


@pytest.fixture(scope="module")
def report(source: Logs) -> tf.Report:
    return tf.measure(source, progress=False)


def test_values_are_those_of_the_features_in_memory(report: tf.Report) -> None:
    features, labels = (torch.cat([batch[place] for batch in logged("train", 0.0)]) for place in (1, 2))
    expected = tf.measure(
        sources.ArraySource(features, labels, weight=torch.eye(3, 6), options={"class_names": ["ant", "bee", "cat"]}),
        progress=False,
    )
    for name in expected.values:
        assert report[name].value == pytest.approx(expected[name].value, rel=1e-12, nan_ok=True), name
    assert report["nc1"].standard_error > 0 and math.isfinite(report["nc1"].shuffled)


def test_layers_and_splits_and_names(report: tf.Report) -> None:
    (early,) = report.layers
    assert (early.facts.layer, report.facts.layer) == ("early", "late")
    assert math.isfinite(early["nc1"].value)
    assert "test/nc1" in report.values
    assert report.detection is not None and report.detection.rows
    assert report.facts.classifier == "head"
    assert report.facts.class_names == {"0": "ant", "1": "bee", "2": "cat"}
    assert report.facts.title == "Logged features"


def test_it_is_extracted_as_any_other(source: Logs, report: tf.Report, tmp_path: Path) -> None:
    sources.extract(source, tmp_path, shard_bytes=4000)
    again = tf.measure(sources.ShardSource(tmp_path), progress=False)
    assert again.values.keys() == report.values.keys()
    for name in report.values:
        assert again[name].value == pytest.approx(report[name].value, rel=1e-12, nan_ok=True), name
    assert again.facts.title == "Logged features"


def test_a_ranking_reads_the_training_samples_only(source: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def batches(self: Logs, split: str) -> Iterator[sources.FeatureBatch]:
        read.append(split)
        return own(self, split)

    own = Logs.batches
    monkeypatch.setattr(Logs, "batches", batches)
    ranking = tf.rank({"logs": source, "again": source}, shots=(5,), folds=None, progress=False)
    assert len(ranking.rows) == 4
    assert set(read) == {"train"}
