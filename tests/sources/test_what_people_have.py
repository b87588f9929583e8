"""What people have: their arrays, loaders, labels and models, each with the right numbers or a sentence that helps."""

import gc
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, linear, normalize, relu
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tightframe import ClassStatistics, DecisionCounts, Report
from tightframe import measure as measure_with_folds
from tightframe.errors import (
    ClassifierError,
    DtypeError,
    EmptyClassError,
    LabelError,
    LoaderError,
    ShapeError,
    StateError,
)
from tightframe.metrics import Evidence, evaluate
from tightframe.metrics.multilabel import single_label_statistics, tagwise_average_error
from tightframe.metrics.regression import nrc1, nrc2, nrc3
from tightframe.sources import Batch, ModelSource

CLASSES, DIM, ROWS = 4, 6, 60
QUICK = {"progress": False}

measure = partial(measure_with_folds, folds=None)  # standard errors take most of a measurement's time


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(rows: int = ROWS, width: int = 5) -> tuple[Tensor, Tensor]:
    labels = torch.arange(rows) % CLASSES
    return 2 * draw(CLASSES, width, seed=7)[labels] + draw(rows, width), labels


class Plain(nn.Module):
    """One hidden layer; `forward` takes one argument."""

    def __init__(self, classes: int = CLASSES):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.fc = nn.Linear(5, DIM).double(), nn.Linear(DIM, classes).double()

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


def expected(
    features: Tensor, labels: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, classes: int = CLASSES
) -> dict[str, float]:
    """The values of features in memory."""
    features = features.detach()
    statistics = ClassStatistics.from_features(features, labels, classes)
    weight, bias = (None if each is None else each.detach() for each in (weight, bias))
    decisions = DecisionCounts(statistics, weight, bias)
    decisions.update(features, labels)
    return {name: float(v) for name, v in evaluate(Evidence(statistics, weight, bias, decisions)).items()}


def assert_values(report: Report, values: dict[str, float]) -> None:
    assert {k: v for k, v in report.values.items()} == pytest.approx(values, rel=1e-6, abs=1e-10, nan_ok=True)


def of_plain(model: Plain, x: Tensor, labels: Tensor) -> dict[str, float]:
    return expected(model.features(x), labels, model.fc.weight, model.fc.bias)


# ---------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("kind", [lambda t: t, lambda t: t.numpy(), lambda t: t.float().numpy()])
def test_arrays(kind: Callable[[Tensor], Any]) -> None:
    features, labels = data()
    report = measure_with_folds(kind(features), labels.numpy(), **QUICK)
    rounded = torch.as_tensor(kind(features))
    assert report.values == pytest.approx(expected(rounded, labels), rel=1e-5, abs=1e-9, nan_ok=True)
    assert report["nc1"].standard_error is not None and report["nc1"].shuffled is not None


def test_arrays_with_a_classifier_held_out_and_foreign_samples() -> None:
    features, labels = data()
    weight = draw(CLASSES, 5, seed=1)
    report = measure(
        features, labels, classifier=weight, test=(features + 0.1, labels), ood=3 * draw(40, 5, seed=4), **QUICK
    )
    own = expected(features, labels, weight)
    assert {key: report.values[key] for key in own} == pytest.approx(own, rel=1e-9, abs=1e-12, nan_ok=True)
    assert {"test/nc1", "nc5" if "nc5" in report.values else "ood_orthogonality"} <= report.values.keys() | {"test/nc1"}
    assert report.detection is not None and report.detection.inside == len(labels)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.arange(4), torch.zeros(4, 2)), ShapeError, r"are swapped: measure\(features, labels\)"),
        ((torch.zeros(4, 2),), LoaderError, "needs labels"),
        ((torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)), DtypeError, "floating point"),
        ((torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64)), ShapeError, r"shape \(4, 2\), but labels have"),
        ((torch.zeros(4, 2), torch.rand(4)), DtypeError, 'labels must be integers.*task="regression"'),
        (([(torch.zeros(4, 5), torch.zeros(4))], Plain()), LoaderError, r"swapped; call measure\(model, loader\)"),
        ((Plain(),), LoaderError, r"measure\(model\) needs a loader"),
        (("features.npy", "labels.npy"), LoaderError, "got str as first argument"),
    ],
)
def test_arguments_that_mean_nothing(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure(*arguments, **QUICK)


def test_arrays_with_a_linear_layer() -> None:
    features, labels = data()
    head = nn.Linear(5, CLASSES).double()
    report = measure(features, labels, classifier=head, **QUICK)
    assert_values(report, expected(features, labels, head.weight, head.bias))


def test_a_source_serves_again_after_the_model_was_trained() -> None:
    model, (x, labels) = Plain(), data()
    source = ModelSource(model, [(x, labels)])
    assert_values(measure(source, **QUICK), of_plain(model, x, labels))
    with torch.no_grad():
        model.fc.weight.mul_(torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None])
    assert_values(measure(source, **QUICK), of_plain(model, x, labels))


# ---------------------------------------------------------------------------------------------- loaders


class Samples(Dataset[Any]):
    """One sample at a time; a data set that names its classes."""

    classes = tuple("abcd")

    def __init__(self, x: Tensor, labels: Tensor):
        self._x, self._labels = x, labels

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self._x[place], int(self._labels[place])


LOADERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "pair": lambda x, y: (x, y),
    "numpy pair": lambda x, y: (x.numpy(), y.numpy()),
    "tensor data set": TensorDataset,
    "data set": Samples,
    "list of samples": lambda x, y: [(a, int(b)) for a, b in zip(x, y, strict=True)],
    "lists": lambda x, y: [[x[:30], y[:30]], [x[30:], y[30:]]],
    "list of labels": lambda x, y: [(x, y.tolist())],
    "one column": lambda x, y: [(x, y[:, None])],
    "one-hot": lambda x, y: [(x, nn.functional.one_hot(y, CLASSES))],
    "one-hot floats": lambda x, y: [(x, nn.functional.one_hot(y, CLASSES).float())],
    "numpy labels": lambda x, y: [(x, y.numpy().astype(np.uint8))],
    "labels first": lambda x, y: [(y, x)],
    "index last": lambda x, y: [(x, y, 1000 + torch.arange(len(y)))],
    "index first": lambda x, y: [(1000 + torch.arange(len(y)), x, y)],
    "own keys": lambda x, y: [{"picture": x, "kind": y, "file": ["name"] * len(y)}],
    "usual keys": lambda x, y: [{"image": x, "label": y, "idx": torch.arange(len(y))}],
    "text": lambda x, y: [(x, ["abcd"[k] for k in y.tolist()])],
}


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders(kind: str) -> None:
    model, (x, labels) = Plain(), data()
    names = {"class_names": tuple("abcd")} if kind == "text" else {}
    report = measure(model, LOADERS[kind](x, labels), **names, **QUICK)
    assert_values(report, of_plain(model, x, labels))


class Two(Plain):
    """A second argument that isn't required."""

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        return super().forward(x if more is None else x + more.double()[:, None])


@pytest.mark.parametrize("model", [Plain(), Two()], ids=["one", "two"])
@pytest.mark.parametrize("order", [lambda x, y, i: (x, y, i), lambda x, y, i: (i, x, y)], ids=["last", "first"])
def test_an_index_that_may_be_the_labels_is_refused(model: nn.Module, order: Callable[..., Any]) -> None:
    x, labels = data(CLASSES)  # a batch whose indices all are classes too
    with pytest.raises(LoaderError, match=r"3 parts: \[0\].*\[2\].*unpack=lambda"):
        measure(model, [order(x, labels, torch.arange(CLASSES))], **QUICK)
    whole, every = data()
    loader = [order(whole, every, torch.arange(ROWS).flip(0) % 8)]  # in range for some, and not all different
    with pytest.raises(LoaderError, match="unpack="):
        measure(Plain(classes=8), loader, **QUICK)


def test_unpack_says_what_a_batch_is() -> None:
    model, (x, labels) = Two(), data()
    loader = [(torch.arange(ROWS), x, labels)]
    report = measure(model, loader, unpack=lambda b: Batch((b[1],), labels=b[2]), **QUICK)
    assert_values(report, of_plain(model, x, labels))


def test_labels_from_one() -> None:
    x, labels = data()
    with pytest.raises(LabelError, match=r"labels run from 1 to 4; they must start at 0. Subtract 1."):
        measure(Plain(), [(x, labels + 1)], **QUICK)


def test_a_classifier_with_fewer_rows_than_classes() -> None:
    x, _ = data()
    with pytest.raises(LabelError, match=r"must lie in \[0, 7\), the rows of the classifier 'fc'; the largest is 9"):
        measure(Plain(classes=7), [(x, torch.arange(ROWS) % 10)], **QUICK)


def test_text_without_names_of_the_classes() -> None:
    x, labels = data()
    with pytest.raises(LabelError, match=r"labels are text \(a, b, c, d\): pass class_names"):
        measure(Plain(), [(x, ["abcd"[k] for k in labels.tolist()])], **QUICK)
    report = measure(x, ["abcd"[k] for k in labels.tolist()], **QUICK)  # all of them are there
    assert_values(report, expected(x, labels))
    assert report.facts.class_names == dict(zip("0123", "abcd", strict=True))


# ---------------------------------------------------------------------------------------------- shares, tags, targets


def test_shares_count_in_the_class_of_the_largest() -> None:
    model, (x, labels) = Plain(), data()
    hot = nn.functional.one_hot(labels, CLASSES).double()
    report = measure(model, [(x, 0.7 * hot + 0.3 * hot.roll(1, 1))], **QUICK)
    assert_values(report, of_plain(model, x, labels))
    assert any("largest share" in note for note in report.notes)


def tags() -> tuple[Tensor, Tensor]:
    x, labels = data()
    hot = nn.functional.one_hot(labels, CLASSES)
    hot[::5] |= hot[::5].roll(1, 1)
    return x, hot


def test_tags_are_named_and_measured_as_a_task() -> None:
    model, (x, hot) = Plain(), tags()
    with pytest.raises(LabelError, match=r'task="multilabel"'):
        measure(model, [(x, hot)], **QUICK)
    report = measure(model, [(x[:32], hot[:32]), (x[32:], hot[32:])], task="multilabel", **QUICK)
    features = model.features(x).detach()
    assert report["tagwise_average_error"].value == pytest.approx(float(tagwise_average_error(features, hot)))
    single = single_label_statistics(features, hot)
    assert report.facts.samples == int(single.num_samples) < ROWS
    assert report["nc1"].value == pytest.approx(float(evaluate(Evidence(single), ["nc1"])["nc1"]))


@pytest.mark.parametrize("array", [torch.Tensor.numpy, torch.Tensor.clone])
def test_arrays_of_tags_have_a_class_for_each_column(array: Callable[[Tensor], Any]) -> None:
    x, hot = tags()
    features = draw(len(x), 7, seed=3)
    report = measure(array(features), array(hot), task="multilabel", **QUICK)
    assert report.facts.classes == CLASSES
    single = single_label_statistics(features, hot)
    assert report["nc1"].value == pytest.approx(float(evaluate(Evidence(single), ["nc1"])["nc1"]))
    assert report["tagwise_average_error"].value == pytest.approx(float(tagwise_average_error(features, hot)))


def test_a_min_count_that_no_class_has_is_named_with_the_largest_class() -> None:
    model, (x, labels) = Plain(), data()
    largest = int(labels.bincount().max())
    for form in ((x, labels), (model, [(x, labels)]), (model, iter([(x, labels)]))):
        with pytest.raises(EmptyClassError, match=rf"min_count=900 samples; 0 of {CLASSES} have, .* has {largest}\."):
            measure(*form, min_count=900, **QUICK)


@pytest.mark.parametrize("targets", [1, 2])
def test_targets_are_named_and_measured_as_a_task(targets: int) -> None:
    model, (x, _) = Plain(classes=targets), data()
    goal = draw(ROWS, targets, seed=5)
    if targets == 1:
        goal = goal[:, 0]
    with pytest.raises((DtypeError, LabelError), match=r'task="regression"'):
        measure(model, [(x, goal)], **QUICK)
    report = measure(model, [(x[:40], goal[:40]), (x[40:], goal[40:])], task="regression", **QUICK)
    features, weight = model.features(x).detach(), model.fc.weight.detach()
    covariance = torch.cov(goal.reshape(ROWS, -1).mT).reshape(targets, targets)
    values = [nrc1(features, targets), nrc2(features, weight), nrc3(weight, covariance)]
    assert [report[name].value for name in ("nrc1", "nrc2", "nrc3")] == pytest.approx([float(v) for v in values])
    assert report["nrc1"].target == 0 and report["nrc1"].shuffled == pytest.approx(1 - targets / DIM)


# ---------------------------------------------------------------------------------------------- classifiers


class Arc(nn.Module):
    """A cosine head written by hand: the last linear layer is no classifier."""

    def __init__(self, transposed: bool = False):
        super().__init__()
        torch.manual_seed(5)
        self.f = nn.Linear(5, 20).double()
        self.W = nn.Parameter(draw(*((20, CLASSES) if transposed else (CLASSES, 20)), seed=11))
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        weight = self.W.mT if self.transposed else self.W
        return 16 * linear(normalize(self.f(x)), normalize(weight))


def decided_by_output(
    model: nn.Module, features: Tensor, x: Tensor, labels: Tensor, weight: Tensor
) -> dict[str, float]:
    features, weight = features.detach(), weight.detach()
    statistics = ClassStatistics.from_features(features, labels, CLASSES)
    decisions = DecisionCounts(statistics, decided=True)
    decisions.update(features, labels, decided=model(x).argmax(1))
    return {k: float(v) for k, v in evaluate(Evidence(statistics, weight, None, decisions)).items()}


def test_a_cosine_head_by_hand_is_asked_for_by_name() -> None:
    x, labels = data()
    with pytest.raises(
        ClassifierError,
        match=r"'f' has 20 outputs, but the model returns 4 values; if 'W' .*, pass features=\"f\", classifier=\"W\"",
    ):
        measure(Arc(), [(x, labels)], **QUICK)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("named", ["name", "tensor"])
def test_a_cosine_head_by_hand(named: str, transposed: bool) -> None:
    model, (x, labels) = Arc(transposed), data()
    classifier = "W" if named == "name" else model.W
    report = measure(model, [(x, labels)], features="f", classifier=classifier, num_classes=CLASSES, **QUICK)
    weight = model.W.mT if transposed else model.W
    assert_values(report, decided_by_output(model, model.f(x), x, labels, weight))
    hits = (model(x).argmax(1) == labels).double().mean()
    assert report["classifier_accuracy"].value == pytest.approx(float(hits))


def test_a_function_as_the_classifier() -> None:
    model, (x, labels) = Arc(), data()

    def scores(features: Tensor) -> Tensor:
        return linear(normalize(features), normalize(model.W))

    report = measure(model, [(x, labels)], features="f", classifier=scores, **QUICK)
    hits = (model(x).argmax(1) == labels).double().mean()
    assert report["classifier_accuracy"].value == pytest.approx(float(hits))
    assert "self_duality_error" not in report.values


def test_a_parameter_without_the_layer_it_reads() -> None:
    with pytest.raises(ClassifierError, match=r"the parameter 'W'\. Name the layer .* features="):
        measure(Arc(), [data()], classifier="W", **QUICK)


class Adapter(nn.Module):
    """A linear layer with low-rank factors beside it, as PEFT writes them."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer, self.merged, self.active_adapters = base, False, ["default"]
        self.lora_A = nn.ModuleDict({"default": nn.Linear(DIM, 2, bias=False).double()})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, CLASSES, bias=False).double()})
        self.in_features = DIM

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def get_delta_weight(self, name: str) -> Tensor:
        return 2 * self.lora_B[name].weight @ self.lora_A[name].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 2 * self.lora_B["default"](self.lora_A["default"](x))


def test_a_low_rank_adapter_counts_in_the_weight() -> None:
    model, (x, labels) = Plain(), data()
    model.fc = Adapter(model.fc)  # type: ignore[assignment]
    report = measure(model, [(x, labels)], **QUICK)
    weight = model.fc.base_layer.weight + model.fc.get_delta_weight("default")
    assert_values(report, expected(model.features(x), labels, weight, model.fc.base_layer.bias))


class ByHand(Plain):
    """The same with the factors as layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(DIM, 2).double(), nn.Linear(2, CLASSES).double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.fc(hidden) - 3 * self.b(self.a(hidden))


def test_a_factor_is_not_taken_for_the_classifier() -> None:
    with pytest.raises(ClassifierError, match="'b' has 4 outputs, like the model, but the same largest output for"):
        measure(ByHand(), [data()], **QUICK)


class Squeeze(nn.Module):
    """A 1x1 convolution, an activation, and only then pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body, self.last = nn.Conv2d(2, DIM, 3).double(), nn.Conv2d(DIM, CLASSES, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(relu(self.last(torch.tanh(self.body(x)))), 1).flatten(1)


def test_a_convolution_before_the_pooling() -> None:
    model, labels = Squeeze(), torch.arange(40) % CLASSES
    x = draw(CLASSES, 2, 6, 6, seed=2)[labels] + draw(40, 2, 6, 6)
    report = measure(model, [(x[:24], labels[:24]), (x[24:], labels[24:])], **QUICK)
    features = torch.tanh(model.body(x)).mean((2, 3))
    weight, bias = model.last.weight.flatten(1), model.last.bias
    own = expected(features, labels, weight, bias)
    other = ("NC4", "accuracy")
    assert {e.key: e.value for e in report if e.family not in other} == pytest.approx(
        {key: own[key] for key in own if report[key].family not in other}, rel=1e-6, abs=1e-9, nan_ok=True
    )
    assert any("means over the positions" in note for note in report.notes)
    hits = float((model(x).argmax(1) == labels).double().mean())
    linear_hits = float(((features @ weight.mT + bias).argmax(1) == labels).double().mean())
    assert report["classifier_accuracy"].value in (pytest.approx(hits), pytest.approx(linear_hits))


class Pooled(nn.Module):
    """Features (N, D, 1, 1) into a 1x1 convolution, as timm's dla34; a bias (1, K), as converted from ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(5, DIM).double(), nn.Conv2d(DIM, CLASSES, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)[:, :, None, None]).flatten(1)


def test_features_with_positions_of_size_one() -> None:
    model, (x, labels) = Pooled(), data()
    report = measure(model, [(x, labels)], **QUICK)
    assert_values(report, expected(model.body(x), labels, model.fc.weight.flatten(1), model.fc.bias))
    assert not any("positions" in note for note in report.notes)


class RowBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_features = 5
        self.weight, self.bias = nn.Parameter(draw(CLASSES, 5, seed=1)), nn.Parameter(draw(1, CLASSES, seed=2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


def test_a_bias_of_one_row() -> None:
    model, (x, labels) = nn.Sequential(nn.Identity(), RowBias()), data()
    report = measure(model, [(x, labels)], **QUICK)
    assert_values(report, expected(x, labels, model[1].weight, model[1].bias[0]))


class Distilled(Plain):
    """Two classifiers that the model names together, as timm's distilled DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dist = nn.Linear(DIM, CLASSES).double()

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        return self.fc, self.head_dist

    def forward(self, x: Tensor) -> Tensor:
        return (self.fc(self.features(x)) + self.head_dist(self.features(x))) / 2


def test_two_classifiers() -> None:
    x, labels = data()
    with pytest.raises(ClassifierError, match=r"Choose one, for example with classifier='fc'"):
        measure(Distilled(), [(x, labels)], **QUICK)
    model = Distilled()
    report = measure(model, [(x, labels)], classifier="fc", **QUICK)
    assert report["etf_error"].value == pytest.approx(of_plain(model, x, labels)["etf_error"])


# ---------------------------------------------------------------------------------------------- encoders, positions


class Encoder(nn.Module):
    def __init__(self, says: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.says = nn.Conv2d(1, DIM, 3).double(), says

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("layers", [(), "conv"])
def test_an_encoder_without_classifier(layers: Any) -> None:
    model, labels = Encoder(), torch.arange(40) % CLASSES
    x = draw(CLASSES, 1, 6, 6, seed=2)[labels] + draw(40, 1, 6, 6)
    report = measure(model, [(x[:24], labels[:24]), (x[24:], labels[24:])], layers=layers, **QUICK)
    assert_values(report, expected(model(x), labels))
    assert report.facts.layer == "output" and len(report.layers) == (layers == "conv")
    assert measure(model, [(x, labels)], num_classes=9, **QUICK).facts.classes == 9


def test_an_encoder_that_ends_in_linear_layers_is_measured_where_it_is_said() -> None:
    model, (x, labels) = (
        nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, DIM), nn.LayerNorm(DIM)).double(),
        data(),
    )
    with pytest.raises((ClassifierError, LabelError)):
        measure(nn.Sequential(*model, nn.Linear(DIM, 3).double(), nn.Tanh(), nn.Flatten(0)), [(x, labels)], **QUICK)
    report = measure(model, [(x, labels)], features="output", **QUICK)
    assert_values(report, expected(model(x), labels))
    assert "classifier_etf_error" not in report.values


class Coarse(nn.Module):
    """A segmentation net whose logits are resized to the labels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Conv2d(2, DIM, 4, stride=4).double(), nn.Conv2d(DIM, CLASSES, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(self.head(torch.tanh(self.body(x))), scale_factor=4, mode="nearest")


def test_logits_that_are_resized_to_the_labels() -> None:
    model, x = Coarse(), draw(3, 2, 16, 16)
    labels = torch.randint(0, CLASSES, (3, 16, 16), generator=torch.Generator().manual_seed(0))
    report = measure(model, [(x, labels)], **QUICK)
    features = torch.tanh(model.body(x)).movedim(1, -1).reshape(-1, DIM)
    nearest = labels[:, 2::4, 2::4].reshape(-1)
    assert_values(report, expected(features, nearest, model.head.weight.flatten(1), model.head.bias))
    assert "input of head has 4x4 positions and uses the nearest of 16x16 labels." in report.notes


def test_padding_does_not_count_in_a_mean() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(30, DIM).double()
            self.block = nn.ModuleList([nn.Linear(DIM, DIM).double(), nn.Linear(DIM, DIM).double()])
            self.score = nn.Linear(DIM, CLASSES).double()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            hidden = self.embed(input_ids)
            for layer in self.block:
                hidden = torch.tanh(layer(hidden))
            weights = attention_mask[..., None].double()
            return self.score((hidden * weights).sum(1) / weights.sum(1))

    model, labels = Text(), torch.arange(40) % CLASSES
    lengths = 3 + torch.arange(40) % 5
    ids = torch.randint(1, 30, (40, 7), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(7) < lengths[:, None]).long()
    report, other = (
        measure(
            model,
            [{"input_ids": ids.where(mask > 0, pad), "attention_mask": mask, "labels": labels}],
            layers=["block.*"],
            **QUICK,
        )
        for pad in (0, 17)
    )
    for mine, theirs in zip((*report.layers, report), (*other.layers, other), strict=True):
        assert mine.values == pytest.approx(theirs.values, nan_ok=True)
    hidden = model.block[0](model.embed(ids))
    means = torch.stack([row[:n].mean(0) for row, n in zip(hidden, lengths.tolist(), strict=True)])
    assert report.layers[0]["nc1"].value == pytest.approx(expected(means, labels)["nc1"])


# ---------------------------------------------------------------------------------------------- the model, the report


def test_two_measurements_of_one_model_at_a_time_are_refused() -> None:
    model, (x, labels) = Plain(), data()
    model.train()
    started, go_on = threading.Event(), threading.Event()
    found: list[Any] = []

    def slow() -> Iterator[tuple[Tensor, Tensor]]:
        started.set()
        go_on.wait(20)
        yield x, labels

    thread = threading.Thread(target=lambda: found.append(measure(model, slow(), **QUICK)))
    thread.start()
    assert started.wait(20)
    with pytest.raises(StateError, match="already being measured"):
        measure(model, [(x, labels)], **QUICK)
    go_on.set()
    thread.join()
    assert_values(found[0], of_plain(model, x, labels))
    assert model.training
    measure(model, [(x, labels)], **QUICK)


def test_a_context_of_any_values_is_written(tmp_path: Path) -> None:
    context = {
        "path": tmp_path,
        "when": datetime(2026, 1, 2),
        "dtype": torch.float16,
        "lr": np.float32(0.5),
        "s": {3, 1},
    }
    report = measure(Plain(), [data()], context=context, **QUICK)
    written = json.loads(report.to_json())["context"]
    assert written["path"] == str(tmp_path) and written["dtype"] == "torch.float16" and written["lr"] == 0.5
    assert written["when"].startswith("2026-01-02") and sorted(written["s"]) == [1, 3]


def test_a_data_set_names_its_classes() -> None:
    x, labels = data()
    report = measure(Plain(), DataLoader(Samples(x, labels), 16), **QUICK)
    assert report.facts.class_names == dict(zip("0123", "abcd", strict=True))


# ---------------------------------------------------------------------------------------------- what misled once


class Averaged(nn.Module):
    """A head by hand behind a mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.f, self.W = nn.Linear(5, 20).double(), nn.Parameter(draw(CLASSES, 20, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x).mean(1) @ self.W.mT


def test_a_layer_before_a_mean_is_not_taken_for_the_classifier() -> None:
    labels = torch.arange(40) % CLASSES
    with pytest.raises(ClassifierError, match="'f' has 20 outputs, but the model returns 4 values"):
        measure(Averaged(), [(draw(40, 3, 5), labels)], **QUICK)


def test_logits_are_not_measured_as_features() -> None:
    model, labels = nn.Sequential(nn.Conv2d(1, CLASSES, 3), nn.Flatten()).double(), torch.arange(40) % CLASSES
    with pytest.raises(ClassifierError, match=r"returns 4 values, the number of classes"):
        measure(model, [(draw(40, 1, 3, 3), labels)], **QUICK)


class Says(Encoder):
    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def test_an_encoder_as_wide_as_there_are_classes_decides_nothing() -> None:
    labels = torch.arange(48) % DIM
    report = measure(Says(), [(draw(48, 1, 6, 6), labels)], **QUICK)
    assert "classifier_accuracy" not in report.values and report.facts.classes == DIM


class Tilted(Plain):
    """Logits less the log of a class prior."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - torch.tensor([0.0, 3.0, 1.0, 9.0], dtype=torch.float64)


def test_logits_that_differ_by_a_constant_decide() -> None:
    model, (x, labels) = Tilted(), data()
    report = measure(model, [(x, labels)], **QUICK)
    hits = (model(x).argmax(1) == labels).double().mean()
    assert report["classifier_accuracy"].value == pytest.approx(float(hits))
    assert report["etf_error"].value == pytest.approx(of_plain(model, x, labels)["etf_error"])
    assert any("decisions come from the model" in note for note in report.notes)


class TwoOutputs(Plain):
    """An auxiliary head of the same size, registered last and returned last."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(DIM, CLASSES).double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(self.features(x)), self.aux(-self.features(x))


def test_the_first_output_decides_which_head_is_the_classifier() -> None:
    with pytest.raises(ClassifierError, match=r"'aux' has 4 outputs, like the model, but"):
        measure(TwoOutputs(), [data()], **QUICK)


def test_a_model_is_free_again_after_a_failure() -> None:
    model, (x, labels) = Plain(), data()
    source = ModelSource(model, [(x, labels)])
    measure(source, **QUICK)
    fc, model.fc = model.fc, nn.Identity()  # type: ignore[assignment]
    with pytest.raises(Exception, match=r"."):
        measure(source, classifier="fc", **QUICK)
    model.fc = fc
    assert_values(measure(model, [(x, labels)], **QUICK), of_plain(model, x, labels))


def test_a_failed_measurement_that_is_kept_does_not_rewind_random_numbers() -> None:
    x, labels = data()
    bad = x.clone()
    bad[3] = torch.nan
    kept: list[BaseException] = []
    try:
        measure(Plain(), [(x, labels), (bad, labels)], **QUICK)
    except Exception as error:
        kept.append(error)
    torch.rand(3)
    before = torch.get_rng_state()
    kept.clear()
    gc.collect()
    assert torch.equal(torch.get_rng_state(), before)


def test_lengths_beside_the_inputs() -> None:
    class Lengths(Plain):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return super().forward(x)

    model, (x, labels) = Lengths(), data()
    report = measure(model, [(x, 1 + torch.arange(ROWS) % 3, labels)], **QUICK)
    assert_values(report, of_plain(model, x, labels))


def test_decisions_on_a_sample_see_every_class_of_data_in_an_order() -> None:
    x, labels = data(2000)
    whole = measure(x, labels, **QUICK)["ncc_accuracy"].value
    part = measure(x, labels, decisions=500, **QUICK)["ncc_accuracy"].value
    assert abs(part - whole) < 5 * (whole * (1 - whole) / 500) ** 0.5 + 1e-9
    counts = measure(x, labels, decisions=500, **QUICK).evidence.decisions.totals.counts  # type: ignore[union-attr]
    assert counts.min() > 80 and 400 < counts.sum() < 600


@pytest.mark.parametrize("options", [{"conventions": ["jiang-2023/nc1"]}, {}], ids=["unit features", "iterator"])
def test_classes_with_enough_samples_in_awkward_cases(options: dict[str, Any]) -> None:
    x, labels = data()
    keep = (labels < 3) | (torch.arange(ROWS) < 20)  # five samples of the last class
    loader: Any = [(x[keep], labels[keep])]
    report = measure(Plain(), loader if options else iter(loader), min_count=10, **options, **QUICK)
    model = Plain()
    three = labels < 3
    own = ClassStatistics.from_features(model.features(x[three]).detach(), labels[three], CLASSES)
    assert report["nc1"].value == pytest.approx(float(evaluate(Evidence(own), ["nc1"])["nc1"]))
    assert any("unit features are not available" in note for note in report.notes) is bool(options)


def test_held_out_labels_out_of_range_are_an_error_with_min_count_too() -> None:
    x, labels = data()
    with pytest.raises(LabelError, match="got 100"):
        measure(x, labels, test=(x, labels + 100), min_count=2, decisions=None, num_classes=CLASSES, **QUICK)


def test_tags_that_are_not_known() -> None:
    x, hot = tags()
    unknown = hot.clone()
    unknown[1::7] = -1
    with pytest.raises(LabelError, match=r"tags must be 0 or 1\. Pass ignore_index="):
        measure(Plain(), [(x, unknown)], task="multilabel", **QUICK)
    report = measure(Plain(), [(x, unknown)], task="multilabel", ignore_index=-1, **QUICK)
    known = (unknown >= 0).all(1)
    fewer = measure(Plain(), [(x[known], hot[known])], task="multilabel", **QUICK)
    assert report.values == pytest.approx(fewer.values, nan_ok=True)


def test_features_in_a_dataclass() -> None:
    @dataclass
    class Output:
        states: Tensor

    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, DIM).double()

        def forward(self, x: Tensor) -> Output:
            return Output(self.body(x))

    model, (x, labels) = Wrapping(), data()
    assert_values(measure(model, [(x, labels)], features="output", **QUICK), expected(model.body(x), labels))
