"""`measure(similarity=True)`: CKA of all pairs of layers, in the pass that measures them, is that of all samples."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from similarity_oracle import cka_by_grams
from tightframe import capture, measure
from tightframe.errors import LayerError, OptionError, RangeError, ShapeError
from tightframe.measurement import collect
from tightframe.measurement.plan import similarity_plan
from tightframe.options import Measuring
from tightframe.sources import FeatureBatch, FeatureSource
from tightframe.statistics import CrossAccumulator

F64 = torch.float64
K, ROWS = 4, 90


class Layers(FeatureSource):
    """Two layers of given features, in batches of 16."""

    num_classes = K

    def __init__(self, first: Tensor, second: Tensor, labels: Tensor, ignore_index: int | None = None):
        self.parts, self.ignore_index = (first, second, labels), ignore_index

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        for first, second, labels in zip(*(each.split(16) for each in self.parts), strict=True):
            yield FeatureBatch({"first": first, "second": second}, labels)


def features(*shape: int) -> tuple[Tensor, Tensor]:
    first = torch.randn(*shape, 5, dtype=F64)
    return first, first.square() @ torch.randn(5, 3, dtype=F64)


def values(report: Any) -> Tensor:
    return torch.tensor(report.similarity.values, dtype=F64)


def close(ours: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


def test_all_pairs_of_a_twelve_layer_vit_in_one_pass_are_those_of_all_samples() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 12}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=K)
    model = transformers.ViTForImageClassification(config).double().eval()
    images, labels = torch.randn(ROWS, 1, 8, 8, dtype=F64), torch.arange(ROWS) % K
    batches = list(zip(images.split(16), labels.split(16), strict=True))
    names = [f"vit.encoder.layer.{place}" for place in range(12)]
    if "vit.encoder.layer.0" not in dict(model.named_modules()):
        names = [name for name, module in model.named_modules() if type(module).__name__ == "ViTLayer"]
    passes = []
    model.register_forward_pre_hook(lambda module, inputs: passes.append(1))
    report = measure(model, batches, layers=names, similarity=True, positions="first", progress=False)
    assert len(passes) <= len(batches) + 1  # nothing is read again
    assert report.similarity is not None and len(names) == 12 and report.similarity.samples == ROWS
    with torch.no_grad(), capture(model, names) as captured:
        model(images)
        whole = {name: captured[name][:, 0] if captured[name].ndim == 3 else captured[name] for name in names}
    close(values(report)[:12, :12], cka_by_grams(whole))


@pytest.mark.parametrize("folds", [None, 4])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 3)])
def test_labels_that_are_ignored_and_positions(folds: int | None, shape: tuple[int, ...]) -> None:
    first, second = features(*shape)
    labels = torch.arange(math.prod(shape)).reshape(shape) % K
    dropped = torch.rand(shape) < 0.3
    labels[dropped] = -100
    first[dropped] = torch.nan  # what is left out may be anything
    report = measure(Layers(first, second, labels, -100), similarity=True, folds=folds, progress=False)
    close(values(report), cka_by_grams({"first": first[~dropped], "second": second[~dropped]}))
    assert report.similarity.samples == int((~dropped).sum()) and report.similarity.folds == folds
    assert (report.similarity.errors is None) == (folds is None)


def test_errors_are_a_jackknife_over_samples_with_all_their_positions() -> None:
    first, second = features(ROWS, 3)
    labels = torch.arange(ROWS * 3).reshape(ROWS, 3) % K
    report = measure(Layers(first, second, labels), similarity=True, folds=4, progress=False)
    rests = [torch.arange(ROWS) % 4 != fold for fold in range(4)]
    left = torch.stack([cka_by_grams({"first": first[rows], "second": second[rows]})[0, 1] for rows in rests])
    expected = ((left - left.mean()).square().sum() * 3 / 4).sqrt()
    close(torch.tensor(report.similarity.errors[0][1], dtype=F64), expected)
    assert math.isnan(report.similarity.errors[0][0])


def test_it_is_off_by_default_and_written_and_read_again() -> None:
    first, second = features(ROWS)
    source = Layers(first, second, torch.arange(ROWS) % K)
    assert measure(source, progress=False).similarity is None
    report = measure(source, similarity=True, folds=4, progress=False)
    read = type(report).from_dict(json.loads(report.to_json()))
    assert repr(read.similarity) == repr(report.similarity)
    assert read.section("similarity") == report.section("similarity")


def test_small_budgets_have_fewer_folds_or_none_or_say_what_is_missing() -> None:
    widths = {"first": 5, "second": 3}
    alone = CrossAccumulator.memory([5, 3])
    assert similarity_plan(widths, 1e9, 16) == (16, alone * 19)
    assert similarity_plan(widths, 2 * alone * 11, 16) == (8, alone * 11)
    assert similarity_plan(widths, 2 * alone * 7, 16) == (4, alone * 7)
    assert similarity_plan(widths, 2 * alone * 7 - 1, 16) == (None, alone)
    assert similarity_plan(widths, alone, None) == (None, alone)
    first, second = features(ROWS)
    source = Layers(first, second, torch.arange(ROWS) % K)
    report = measure(source, similarity=True, covariance_bytes=alone, progress=False)
    close(values(report), cka_by_grams({"first": first, "second": second}))
    assert any("similarity has no standard errors" in note for note in report.notes)
    with pytest.raises(RangeError, match=r"pairs of 2 layers, but covariance_bytes leaves 0\.00 GB\. Measure fewer"):
        measure(source, similarity=True, covariance_bytes=alone - 1, progress=False)


def test_wrong_uses() -> None:
    x, labels = torch.randn(20, 5), torch.arange(20) % K
    with pytest.raises(LayerError, match=r'only one is measured\. Pass layers="auto"'):
        measure(x, labels, similarity=True, progress=False)
    with pytest.raises(OptionError, match='similarity needs task="classification"; got \'regression\''):
        Measuring(similarity=True, task="regression")

    class Uneven(Layers):
        def batches(self, split: str) -> Iterator[FeatureBatch]:
            coarse, fine = torch.randn(20, 2, 2, 5), torch.randn(20, 4, 4, 3)
            yield FeatureBatch({"first": coarse, "second": fine}, torch.arange(320).reshape(20, 4, 4) % K)

    with pytest.raises(ShapeError, match="'first' has 80 rows, 'second' has 320"):
        collect(Uneven(x, x, labels), {"similarity": True, "progress": False})


def test_a_model_of_linear_layers_and_a_held_out_set() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, K)).double()
    x, labels = torch.randn(ROWS, 6, dtype=F64), torch.arange(ROWS) % K
    report = measure(model, (x, labels), test=(x[:40], labels[:40]), layers=["0", "2"], similarity=True, progress=False)
    with torch.no_grad():
        whole = {"0": model[:1](x), "2": model[:3](x), "last": model[:4](x)}
    close(values(report), cka_by_grams(whole))
