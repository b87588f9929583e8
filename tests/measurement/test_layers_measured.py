"""`measure(..., layers=...)`: every layer's report equals the oracle on features collected by hand."""

import json
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hooks.models import (
    CLASSES,
    Convolutional,
    LeNet,
    ResidualNet,
    bert,
    draw,
    gpt2,
    images,
    in_one_process,
    mlp,
    picture,
    settled,
    tokens,
)
from oracle import ORACLE, Sample, principal_angles
from thinned import beyond
from tightframe import ClassStatistics, Monitor, Report
from tightframe import measure as measure_with_folds
from tightframe.errors import LabelError, LayerError
from tightframe.hooks import Layer
from tightframe.metrics import METRICS, Evidence
from tightframe.report import Entry, Facts, Profile
from variants import VARIANTS

Batches = list[tuple[Tensor, Tensor]]

measure = partial(measure_with_folds, folds=None)  # standard errors take most of a measurement's time


def batches(inputs: Tensor, labels: Tensor, size: int = 13) -> Batches:
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def labelled(rows: int, *shape: int, seed: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Inputs about a centre for every class, the centres the same for every seed."""
    labels = torch.arange(rows) % classes
    centres = draw(classes, *shape, seed=99)
    return centres[labels] + 0.7 * draw(rows, *shape, seed=seed), labels


def centred_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = np.stack([features[labels == k].mean(0) for k in np.unique(labels)])
    return means - means.mean(0)


def value_by_hand(name: str, sample: Sample, consumer: np.ndarray | None) -> float:
    """Of the layer whose features the sample has, read by a layer with the weight `consumer`."""
    if name == "principal_angle" and consumer is not None:
        return float(np.mean(principal_angles(centred_means(sample.features, sample.labels), consumer)))
    if name == "largest_principal_angle" and consumer is not None:
        return max(principal_angles(centred_means(sample.features, sample.labels), consumer))
    if name in ORACLE:
        return ORACLE[name](sample)
    statistics = ClassStatistics.from_features(
        torch.from_numpy(sample.features), torch.from_numpy(sample.labels), sample.num_classes
    )
    weight = None if sample.weight is None else torch.from_numpy(sample.weight)
    return float(METRICS[name].of(Evidence(statistics, weight)))  # of the few that the oracle leaves out


def assert_report(
    report: Report,
    features: Tensor,
    labels: Tensor,
    *,
    consumer: Tensor | None = None,
    head: nn.Module | None = None,
    outside: Tensor | None = None,
    classes: int = CLASSES,
    rtol: float = 1e-9,
) -> None:
    """Every training value of a report is the oracle's, and the most important ones are there."""
    weight = None if head is None else head.weight.detach().flatten(1).double().numpy()
    bias = None if head is None or head.bias is None else head.bias.detach().double().numpy()
    sample = Sample(
        features.detach().double().numpy(),
        labels.numpy(),
        classes,
        weight,
        bias,
        None if outside is None else outside.detach().double().numpy(),
    )
    values = {key: value for key, value in report.values.items() if not key.startswith("test/")}
    expected = {"nc1", "cdnv", "ncc_accuracy", "numerical_rank", "within_in_mean_span", "vci", "etf_error"}
    assert expected <= set(values)
    assert ("principal_angle" in values) == (consumer is not None or head is not None)
    assert ("ood_orthogonality" in values) == (outside is not None)
    assert ("classifier_accuracy" in values) == (head is not None)
    reads = None if consumer is None else consumer.detach().double().numpy()
    wrong = {}
    for name, value in values.items():
        wanted = value_by_hand(name, sample, reads)
        if not (math.isclose(value, wanted, rel_tol=rtol, abs_tol=1e-12) or (math.isnan(value) and math.isnan(wanted))):
            wrong[name] = value, wanted
    assert not wrong


# ---------------------------------------------------------------------------------------------- values by hand


def mlp_by_hand(model: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    first = torch.relu(x @ model[0].weight.T + model[0].bias)
    return {"1": first, "input of 4": torch.tanh(first @ model[2].weight.T + model[2].bias)}


@pytest.mark.parametrize("size", [60, 13, 7])
def test_every_layer_of_a_perceptron(size: int) -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    outside = draw(11, 5, seed=5)
    far = [outside[:4], outside[4:]]
    report = measure_with_folds(model, batches(x, labels, size), ood=far, layers="auto", progress=False)
    features, far = mlp_by_hand(model, x), mlp_by_hand(model, outside)
    assert [layer.facts.layer for layer in report.layers] == ["1"]
    assert report.facts.layer == "input of 4"
    assert_report(report.layers[0], features["1"], labels, consumer=model[2].weight, outside=far["1"])
    assert_report(report, features["input of 4"], labels, head=model[4], outside=far["input of 4"])


def test_asking_for_layers_changes_nothing_in_the_classifiers_report() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    loader, test, ood = batches(x, labels), batches(*labelled(20, 5, seed=3)), [draw(9, 5, seed=5)]
    alone = measure(model, loader, test=test, ood=ood, progress=False)
    with_layers = measure(model, loader, test=test, ood=ood, layers=["1", "0"], progress=False)
    assert alone.layers == ()
    assert alone.to_dict() == {key: value for key, value in with_layers.to_dict().items() if key != "layers"}


def test_layers_between_plain_attributes_are_read_by_the_next() -> None:
    model, (x, labels) = settled(LeNet()), labelled(60, 1, 10, 10)
    F = nn.functional
    with torch.no_grad():
        first = F.max_pool2d(F.relu(model.conv1(x)), 2)
        flat = F.relu(model.conv2(first)).flatten(1)
        second = F.relu(model.fc1(flat))
        third = F.relu(model.fc2(second))
    report = measure(model, batches(x, labels), layers="auto", progress=False)
    names = [layer.facts.layer for layer in report.layers]
    assert names == ["input of conv2", "input of fc1", "input of fc2"]
    kernel = model.conv2.weight  # reads the channels at each of its nine offsets
    offsets = torch.cat([kernel[:, :, i, j] for i in range(3) for j in range(3)])
    assert_report(report.layers[0], first.mean((2, 3)), labels, consumer=offsets)
    assert_report(report.layers[1], flat, labels, consumer=model.fc1.weight)
    assert_report(report.layers[2], second, labels, consumer=model.fc2.weight)
    assert_report(report, third, labels, head=model.fc3)


def test_a_weight_that_reads_other_features_gives_no_angles() -> None:
    """The linear layer reads flattened maps, not their means; flattening none but a single pixel is the same."""
    body = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten()]
    for side, reads in ((4, False), (3, True)):
        features = 6 * (side - 2) ** 2
        model = nn.Sequential(*body, nn.Linear(features, 7), nn.ReLU(), nn.Linear(7, CLASSES)).double()
        x, labels = labelled(60, 1, side, side)
        report = measure(model, batches(x, labels), layers="auto", progress=False)
        maps = model[:2](x).detach()
        consumer = model[3].weight if reads else None
        assert_report(report.layers[0], maps.mean((2, 3)), labels, consumer=consumer)


def test_flattened_maps_are_read_by_a_linear_layer_in_its_order() -> None:
    body = [nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten()]
    model = nn.Sequential(*body, nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    x, labels = labelled(60, 1, 4, 4)
    report = measure(model, batches(x, labels), layers=Layer("auto", "flatten"), progress=False)
    flat = model[:3](x).detach()
    assert flat.shape == (60, 12)
    assert_report(report.layers[0], flat, labels, consumer=model[3].weight)


def test_residual_blocks_of_which_the_last_is_the_classifiers_input() -> None:
    model, (x, labels) = settled(ResidualNet((1, 1, 1, 1))), labelled(40, 3, 16, 16)
    report = measure(model, batches(x, labels), layers="auto", progress=False)
    names = [layer.facts.layer for layer in report.layers]
    assert names == ["layer1.0", "layer2.0", "layer3.0"]  # layer4 has one pixel: its mean is what fc reads
    with torch.no_grad():
        hidden = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for number, layer in enumerate([*report.layers, report], start=1):
            hidden = getattr(model, f"layer{number}")(hidden)
            pooled = hidden.mean((2, 3))
            assert_report(layer, pooled, labels, head=model.fc if layer is report else None)


def test_a_duplicate_that_was_asked_for_by_name_stays() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    report = measure(model, batches(x, labels), layers=["3", "auto"], progress=False)
    assert [layer.facts.layer for layer in report.layers] == ["1"]  # "auto" means it too, and comes last
    report = measure(model, batches(x, labels), layers=["auto", "3"], progress=False)
    assert [layer.facts.layer for layer in report.layers] == ["1", "3"]
    assert_report(report.layers[1], mlp_by_hand(model, x)["input of 4"], labels)


def test_the_order_is_that_of_the_calls_whatever_was_asked_first() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.b, self.a = nn.Linear(7, 6), nn.Linear(6, 7), nn.Linear(5, 6)
            self.fc = nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))))

    model, (x, labels) = Backwards().double(), labelled(40, 5)
    report = measure(model, batches(x, labels), layers=["c", "b", "a"], progress=False)
    assert Profile.of(report).names == ["a", "b", "c", "input of fc"]
    hidden = x
    for layer in report.layers:
        hidden = getattr(model, layer.facts.layer)(hidden)
        assert_report(layer, hidden, labels)
        hidden = torch.tanh(hidden)


def test_a_module_that_is_called_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(5, 5), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.body(torch.tanh(self.body(x)))))

    model, (x, labels) = Twice().double(), labelled(40, 5)
    report = measure(model, batches(x, labels), layers="body", progress=False)
    first = model.body(x)
    assert [layer.facts.layer for layer in report.layers] == ["body", "body#2"]
    assert_report(report.layers[0], first, labels)
    assert_report(report.layers[1], model.body(torch.tanh(first)), labels)


# ---------------------------------------------------------------------------------------------- splits


def test_held_out_samples_of_every_layer() -> None:
    """Moments are their own; they are decided by the means of the training samples."""
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    others, their_labels = labelled(31, 5, seed=3)
    report = measure(model, batches(x, labels), test=batches(others, their_labels, 9), layers="auto", progress=False)
    train, test = mlp_by_hand(model, x), mlp_by_hand(model, others)
    for layer in (*report.layers, report):
        features, held_out = (split[layer.facts.layer].detach() for split in (train, test))
        means = [features[labels == k].mean(0) for k in range(CLASSES)]
        hits = 0
        for row, label in zip(held_out, their_labels.tolist(), strict=True):
            distances = [float((row - mean).norm()) for mean in means]
            hits += distances.index(min(distances)) == label
        assert 0 < hits < 31
        assert layer["test/ncc_accuracy"].value == pytest.approx(hits / 31, rel=1e-12)
        sample = Sample(held_out.numpy(), their_labels.numpy(), CLASSES)
        for name in ("nc1", "trace_ratio", "cdnv", "equinorm", "equiangularity", "etf_error"):
            assert layer[f"test/{name}"].value == pytest.approx(ORACLE[name](sample), rel=1e-9), name
        decided = {"test/ncc_mismatch", "test/classifier_accuracy"} & set(layer.values)
        assert bool(decided) == (layer is report)


# ---------------------------------------------------------------------------------------------- positions


def hidden_states(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """Embeddings and the output of every block, as transformers itself gives them; the last comes normalised."""
    with torch.no_grad():
        return list(model(ids, output_hidden_states=True).hidden_states)


def test_labels_for_every_token() -> None:
    model, ids = settled(gpt2()), tokens(12, 7)
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    loader = [{"input_ids": i, "labels": y} for i, y in batches(ids, labels, 5)]
    report = measure(model, loader, layers="auto", ignore_index=-100, progress=False)
    states, kept = hidden_states(model, ids), labels.flatten() >= 0
    assert Profile.of(report).names == [*(f"transformer.h.{n}" for n in range(3)), "input of lm_head"]
    assert report.facts.samples == 72
    flat = [state.flatten(0, 1)[kept] for state in states]
    for number in (0, 1):
        assert_report(report.layers[number], flat[number + 1], labels.flatten()[kept], classes=11)
    with torch.no_grad():
        last = model.transformer.h[2](states[2])
        last = (last if isinstance(last, Tensor) else last[0]).flatten(0, 1)[kept]
    assert_report(report.layers[2], last, labels.flatten()[kept], classes=11)
    head = nn.Linear(8, 11, bias=False).double()
    head.weight = model.lm_head.weight
    assert_report(report, flat[3], labels.flatten()[kept], head=head, classes=11)


def test_a_label_for_every_sequence() -> None:
    """Blocks by the mean over the tokens, the classifier by the last token, which is what decides."""
    model, ids = settled(gpt2("sequence")), tokens(60, 9)
    labels = ids[:, 0] % CLASSES
    loader = [{"input_ids": i, "labels": y} for i, y in batches(ids, labels, 16)]
    report = measure(model, loader, layers=Layer("auto", "mean"), positions="last", progress=False)
    states = hidden_states(model, ids)
    for number in (0, 1):
        assert_report(report.layers[number], states[number + 1].mean(1), labels)
    head = nn.Linear(8, CLASSES, bias=False).double()
    head.weight = model.score.weight
    assert_report(report, states[3][:, -1], labels, head=head)
    with torch.no_grad():
        hits = int((model(ids).logits.argmax(1) == labels).sum())
    assert report["classifier_accuracy"].value == pytest.approx(hits / 60, rel=1e-12)


def test_the_mean_over_tokens_is_the_default_where_labels_have_no_positions() -> None:
    model, ids = settled(bert()), tokens(60, 9)
    labels = ids[:, 0] % CLASSES
    loader = [{"input_ids": i, "labels": y} for i, y in batches(ids, labels, 16)]
    report = measure(model, loader, layers=["auto", Layer("bert.encoder.layer.1", "first")], progress=False)
    states = hidden_states(model, ids)
    # the pooler's output is the classifier's input
    assert Profile.of(report).names == [
        "bert.embeddings",
        *(f"bert.encoder.layer.{n}" for n in range(3)),
        "input of classifier",
    ]
    assert_report(report.layers[0], states[0].mean(1), labels)
    assert_report(report.layers[1], states[1].mean(1), labels)
    assert_report(report.layers[2], states[2][:, 0], labels)
    assert_report(report.layers[3], states[3].mean(1), labels)
    pooled = torch.tanh(model.bert.pooler.dense(states[3][:, 0]))
    assert_report(report, pooled, labels, head=model.classifier)


class Segmenter(nn.Module):
    """Halves the resolution and restores it; a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh())
        self.inner = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=2)
        )
        self.up = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())
        self.low = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 5, 1), nn.Tanh())
        self.head = nn.Conv2d(6, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(self.inner(self.down(x)))
        self.low(hidden)
        return self.head(hidden)


def segmentation() -> tuple[Segmenter, Tensor, Tensor]:
    x, labels = draw(5, 2, 6, 6), torch.arange(180).reshape(5, 6, 6) % 7
    return Segmenter().double(), x, labels.where(labels < CLASSES, torch.tensor(255))


def test_labels_are_taken_at_the_positions_of_layers_of_another_resolution() -> None:
    model, x, labels = segmentation()
    report = measure(model, batches(x, labels, 2), layers="auto", ignore_index=255, progress=False)
    assert Profile.of(report).names == ["down.1", "inner.3", "low.2", "input of head"]
    assert "low.2 has 3x3 positions and uses the nearest of 6x6 labels." in report.notes
    low = model.low(model.up(model.inner(model.down(x))))
    nearest = labels[:, 1::2, 1::2]  # of the four pixels around a centre, the lower right one
    assert_report(report.layers[2], low.movedim(1, -1)[nearest < CLASSES], nearest[nearest < CLASSES])
    down = model.down(x)
    kept = labels.flatten() < CLASSES
    for layer, grid in zip(report.layers[:2], (down, model.inner(down)), strict=True):
        pixels = torch.stack([grid[n, :, i, j] for n in range(5) for i in range(6) for j in range(6)])
        assert_report(layer, pixels[kept], labels.flatten()[kept])


def test_layers_whose_positions_do_not_correspond_are_left_out_with_a_note() -> None:
    model, x, labels = segmentation()
    layers = ["down", Layer("low.*", "mean")]
    report = measure(model, batches(x, labels, 2), layers=layers, ignore_index=255, progress=False)
    assert Profile.of(report).names == ["down", "input of head"]
    assert "layer low.2 has positions (2,), but the labels (2, 6, 6); it is left out." in report.notes


def test_a_pattern_finds_the_layer_that_flows_into_the_classifier_too() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    names = [name for name, module in model.named_modules() if name]
    report = measure(model, batches(x, labels), layers="*", progress=False)
    before_the_last = names[-2]
    assert before_the_last in Profile.of(report).names
    twin = report.layers[Profile.of(report).names.index(before_the_last)]
    assert twin["cdnv"].value == pytest.approx(report["cdnv"].value)


@pytest.mark.parametrize("choice", [Layer("low", "mean"), ["auto", Layer("low.2", "first")], Layer("up", "flatten")])
def test_by_name_they_are_refused(choice: Any) -> None:
    model, x, labels = segmentation()
    before = picture(model)
    with pytest.raises(
        LayerError, match=r"^layer .* has positions .*, but the labels \(5, 6, 6\)\. Choose different ones, for example"
    ):
        measure(model, [(x, labels)], layers=choice, ignore_index=255, progress=False)
    assert picture(model) == before


def test_a_label_for_each_image_of_the_segmenter() -> None:
    model, x, _ = segmentation()
    labels = torch.arange(5) % 2
    report = measure(model, batches(x, labels, 2), layers="auto", positions="mean", progress=False)
    assert not [note for note in report.notes if "left out" in note and "positions" in note]
    grids = {"down.1": model.down(x)}
    grids["inner.3"] = model.inner(grids["down.1"])
    grids["low.2"] = model.low(model.up(grids["inner.3"]))
    assert Profile.of(report).names == [*grids, "input of head"]
    for layer in report.layers:
        statistics = layer.evidence.statistics
        pooled = grids[layer.facts.layer].detach().mean((2, 3))
        for k in (0, 1):
            torch.testing.assert_close(statistics.means[k], pooled[labels == k].mean(0), rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------------------------------------- ways of measuring


def everything(model: nn.Module, loader: Any, **options: Any) -> Report:
    test, ood = batches(*labelled(20, 5, seed=3)), [draw(9, 5, seed=5)]
    return measure_with_folds(model, loader, test=test, ood=ood, layers="auto", progress=False, **options)


def test_a_second_pass_gives_the_same_reports() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    expected = everything(model, batches(x, labels)).to_dict()
    room = sum(60 * width * 8 for width in (8, 6)) + 60 * 8  # for features of both layers, and the labels
    for buffer_bytes, passes in ((room, 1), (room - 1, 2), (0, 2)):
        runs = []

        class Counted(list[tuple[Tensor, Tensor]]):
            def __iter__(self, runs: list[int] = runs) -> Iterator[tuple[Tensor, Tensor]]:
                runs.append(1)
                return super().__iter__()

        loader = Counted(batches(x, labels))
        assert everything(model, loader, buffer_bytes=buffer_bytes).to_dict() == expected
        assert len(runs) == passes


@pytest.mark.parametrize(
    "way",
    beyond(2, ["wrapped", "compiled", "compiled in place", "compiled part", "wrapped and compiled", "data parallel"]),
)
def test_a_wrapped_model_gives_the_same_reports(way: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    model, (x, labels) = settled(mlp(), training=True), labelled(60, 5)
    expected = everything(model, batches(x, labels)).to_dict()

    def body() -> None:
        wrapped: nn.Module = model
        if "wrapped" in way:
            wrapped = DistributedDataParallel(wrapped)
        if way == "data parallel":
            wrapped = nn.DataParallel(wrapped)
        if way == "compiled in place":
            wrapped.compile(backend="eager")
        elif way == "compiled part":
            wrapped[2] = torch.compile(wrapped[2], backend="eager")
        elif "compiled" in way:
            wrapped = torch.compile(wrapped, backend="eager")
        with torch.no_grad():
            wrapped(x)  # has run already
        before = picture(wrapped)
        assert everything(wrapped, batches(x, labels)).to_dict() == expected
        assert picture(wrapped) == before

    in_one_process(tmp_path, body)
    torch._dynamo.reset()


def test_what_is_asked_of_all_layers() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    names = ["nc1_class_balanced", "cdnv", "classifier_accuracy", "largest_principal_angle"]
    chosen = [VARIANTS[names[0]], *names[1:3], VARIANTS[names[3]]]
    report = measure(
        model,
        batches(x, labels),
        layers="auto",
        metrics=chosen,
        per_class=True,
        conventions=["wu-papyan-2024/nc4"],
        context={"epoch": 3},
        progress=False,
    )
    assert list(report.values) == [*names, "wu-papyan-2024/nc4"]
    (layer,) = report.layers
    assert list(layer.values) == ["nc1_class_balanced", "cdnv", "largest_principal_angle"]  # it has no classifier
    sample = Sample(mlp_by_hand(model, x)["1"].detach().numpy(), labels.numpy(), CLASSES)
    for name, value in layer.values.items():
        assert value == pytest.approx(value_by_hand(name, sample, model[2].weight.detach().numpy()), rel=1e-9)
    assert layer.facts.epoch == report.facts.epoch == 3
    assert (layer.facts.classifier, report.facts.classifier) == (None, "4")
    assert layer.facts.dimension == 8


class Sometimes(nn.Module):
    """Calls a layer for the first batches only."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.body, self.other, self.fc = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, CLASSES)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        self.times -= 1
        if self.times >= 0:
            self.other(x)
        return self.fc(torch.tanh(self.body(x)))


@pytest.mark.parametrize(
    ("times", "message"), [(0, "the forward pass must call 'other'"), (2, "every forward pass must call 'other'")]
)
def test_a_layer_asked_for_by_name_that_is_not_called(times: int, message: str) -> None:
    model, loader = Sometimes(times).double(), batches(*labelled(60, 5))
    before = picture(model)["values"]
    with pytest.raises(LayerError, match=message):
        measure(model, loader, layers=["body", "other"], progress=False)
    assert picture(model)["values"] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_block_that_is_not_called_is_left_out() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(3)])
            self.fc = nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.blocks[2](self.blocks[0](x)))

    model, (x, labels) = Skipping().double(), labelled(60, 5)
    report = measure(model, batches(x, labels), layers="auto", progress=False)
    assert Profile.of(report).names == ["blocks.0.1", "input of fc"]
    assert_report(report.layers[0], model.blocks[0](x), labels)


def test_an_unknown_layer() -> None:
    with pytest.raises(LayerError, match="no module of the model matches 'body'; choose from 0, 1, 2, 3, 4"):
        measure(mlp(), [], layers=["1", "body"], progress=False)


# ---------------------------------------------------------------------------------------------- reports and profiles


def test_reports_of_layers_go_through_json(tmp_path: Path) -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    report = everything(model, batches(x, labels), metrics=["nc1", "ncc_accuracy", "principal_angle"])
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == text
    back = Report.from_dict(json.loads(text))
    assert back.to_dict() == report.to_dict()
    assert len(back.layers) == len(report.layers) == 1
    assert back.layers[0].values == report.layers[0].values
    assert back.layers[0].entries == report.layers[0].entries
    assert Profile.of(back).names == Profile.of(report).names
    bare = report.without_evidence()
    assert bare.layers[0].evidence is None
    assert report.layers[0].evidence is not None
    assert bare.to_dict() == report.to_dict()


def profile(*accuracies: float | None, split: str = "train") -> Profile:
    """Layers with these accuracies of the nearest centre; None: without any."""
    reports = []
    for number, accuracy in enumerate(accuracies):
        entry = Entry("ncc_accuracy", split, "", "NC4", accuracy or 0.0, 1.0, None, None, None, "", "", True)
        reports.append(Report(() if accuracy is None else (entry,), Facts(layer=f"layer {number}")))
    *layers, last = reports
    return Profile.of(Report(last.entries, last.facts, layers=tuple(layers)))


def test_the_course_over_the_layers() -> None:
    found = profile(0.5, None, 0.95)
    assert found.names == ["layer 0", "layer 1", "layer 2"]
    values = found.values("ncc_accuracy")
    assert (values[0], values[2]) == (0.5, 0.95)
    assert math.isnan(values[1])
    assert all(math.isnan(value) for value in found.values("nc1"))
    assert Profile((Report(()), Report((), Facts(layer="7")))).names == ["1", "7"]


@pytest.mark.parametrize(
    ("accuracies", "error", "depth"),
    [
        ((0.5, 0.98, 0.99, 1.0), 0.01, 3),
        ((0.5, 0.98, 0.99, 1.0), 0.02, 2),
        ((0.5, 0.98, 0.99, 1.0), 0.0, 4),
        ((0.5, 0.98, 0.99, 0.995), 0.0, None),
        ((1.0, 0.5, 1.0), 0.01, 1),
        ((None, math.nan, 0.995), 0.01, 3),
        ((0.5,), 0.01, None),
    ],
)
def test_effective_depth(accuracies: tuple[float, ...], error: float, depth: int | None) -> None:
    assert profile(*accuracies).effective_depth(error) == depth
    if error == 0.01:
        assert profile(*accuracies).effective_depth() == depth
    held_out = profile(*accuracies, split="test")
    assert held_out.effective_depth(error, split="test") == depth
    assert held_out.effective_depth(error) is None


@pytest.mark.parametrize(
    ("accuracies", "share", "onset"),
    [
        ((0.2, 0.75, 0.77, 0.8), 0.95, 3),
        ((0.2, 0.75, 0.77, 0.8), 0.9, 2),
        ((0.2, 0.75, 0.77, 0.8), 1.0, 4),
        ((0.9, 0.2, 0.8), 0.95, 1),
        ((None, 0.5, 0.5), 0.95, 2),
        ((0.5, None), 0.95, None),
        ((0.7,), 0.95, 1),
    ],
)
def test_the_onset_of_the_tunnel(accuracies: tuple[float, ...], share: float, onset: int | None) -> None:
    assert profile(*accuracies).tunnel_onset(share) == onset
    assert profile(*accuracies, split="test").tunnel_onset(share, split="test") == onset
    assert profile(*accuracies, split="test").tunnel_onset(share) is None


def test_the_profile_of_a_measurement() -> None:
    model, (x, labels) = settled(mlp()), labelled(60, 5)
    report = everything(model, batches(x, labels))
    found = Profile.of(report)
    assert found.names == ["1", "input of 4"]
    assert found.values("nc1") == [report.layers[0]["nc1"].value, report["nc1"].value]
    assert found.values("classifier_accuracy")[1] == report["classifier_accuracy"].value
    assert math.isnan(found.values("classifier_accuracy")[0])
    assert found.tunnel_onset(0.0) == 1


# ---------------------------------------------------------------------------------------------- nothing is disturbed


class Noisy(Dataset[tuple[Tensor, int]]):
    """Draws from every random generator there is, as augmentation does."""

    def __init__(self, rows: int) -> None:
        self.x, self.labels = labelled(rows, 3, 8, 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return (self.x[place] + 0.1 * noise).float(), int(self.labels[place])


def randomness() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tobytes(), rest, torch.random.get_rng_state().numpy().tobytes()


def failing(good: list[Any]) -> Iterator[Any]:
    yield from good
    raise ConnectionError("the disk is gone")


@pytest.mark.parametrize("workers", beyond(1, [0, 1]))
def test_no_random_generator_moves(workers: int) -> None:
    model = Convolutional()
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    # forked from a process with threads, as that of many tests is, a worker may never start
    context = torch.multiprocessing.get_context("forkserver")
    aside: dict[str, Any] = {"multiprocessing_context": context, "timeout": 60} if workers else {}
    train, test, ood = (
        DataLoader(Noisy(24), 8, shuffle=True, generator=generator, num_workers=workers, **aside)
        for generator in generators
    )
    states = [generator.get_state() for generator in generators]
    before = randomness()
    options: dict[str, Any] = {"test": test, "ood": ood, "layers": "auto", "progress": False}
    measure(model, train, **options)
    assert randomness() == before
    measure(model, train, buffer_bytes=0, **options)
    assert randomness() == before
    Monitor(model, samples=16, **options).measure(train)
    assert randomness() == before
    with pytest.raises(ConnectionError):
        measure(model, failing([next(iter(train))]), **options)
    for generator, state in zip(generators[1:], states[1:], strict=True):
        assert torch.equal(generator.get_state(), state)
    if workers == 0:
        next(iter(train))
        assert randomness() != before  # running the loader does move them


def test_a_loader_that_fails_leaves_every_generator_as_it_was() -> None:
    model, before = settled(mlp()), randomness()
    loader = ((random.random(), np.random.rand(), torch.rand(1)) and batch for batch in batches(*labelled(40, 5)))
    with pytest.raises(LabelError):
        measure(model, loader, test=[(draw(3, 5), torch.tensor([9, 9, 9]))], progress=False)
    assert randomness() == before


def train(measured: bool, fails: bool = False) -> tuple[dict[str, Any], Any, list[float]]:
    """Three epochs with shuffling, dropout, batch normalisation, augmentation and momentum."""
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    model = Convolutional().train()
    model.features[0].eval()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(4)
    loader = DataLoader(Noisy(40), 8, shuffle=True, generator=generator)
    monitor = Monitor(model, layers="auto", progress=False, samples=30)
    losses = []
    for epoch in range(3):
        for number, (x, labels) in enumerate(loader):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            if measured and number == 2:
                before = picture(model)
                measure(model, loader, test=loader, layers="auto", buffer_bytes=0, progress=False)
                assert picture(model) == before
            if fails and number == 3:
                with pytest.raises(ConnectionError):
                    measure(model, failing([(x, labels)]), layers="*", progress=False)
            optimiser.step()
            losses.append(float(loss.detach()))
        if measured:
            monitor.measure(loader, epoch=epoch + 1)
    return model.state_dict(), (randomness(), generator.get_state().tolist()), losses


@pytest.mark.filterwarnings("ignore::tightframe.errors.BlipWarning")
def test_training_with_measurements_equals_training_without_bit_for_bit() -> None:
    plain, randoms, losses = train(False)
    assert len(set(losses)) == len(losses)
    assert int(plain["features.1.num_batches_tracked"]) == 15
    for fails in (False, True):
        measured, their_randoms, their_losses = train(True, fails)
        assert their_losses == losses
        assert their_randoms == randoms
        assert list(measured) == list(plain)
        for name, tensor in plain.items():
            assert torch.equal(measured[name], tensor), name


def forward_fails(model: nn.Module) -> None:
    x, labels = labelled(24, 3, 8, 8)
    with pytest.raises(RuntimeError):
        measure(model, [(x, labels), (x[:, :2], labels)], layers=["*", "auto"], progress=False)


def label_is_out_of_range(model: nn.Module) -> None:
    x, labels = labelled(24, 3, 8, 8)
    with pytest.raises(LabelError):
        measure(model, [(x, labels), (x, labels + 1)], layers="auto", progress=False)


def all_goes_well(model: nn.Module) -> None:
    loader = DataLoader(TensorDataset(*labelled(24, 3, 8, 8)), 8)
    for room in (1 << 30, 0):
        report = measure(model, loader, test=loader, ood=loader, layers="auto", buffer_bytes=room, progress=False)
        assert len(report.layers) == 2


@pytest.mark.parametrize("way", [all_goes_well, forward_fails, label_is_out_of_range])
def test_the_model_is_left_bit_for_bit_as_it_was(way: Callable[[nn.Module], None]) -> None:
    model = settled(Convolutional(), training=True)
    model.features[3].eval()
    calls = []
    model.pool.register_forward_hook(lambda *_: calls.append(1))  # somebody else's
    model(images()).square().sum().backward()
    calls.clear()
    before = picture(model)
    way(model)
    assert picture(model) == before
    assert torch.is_grad_enabled()
    ran = len(calls)
    assert ran > 0
    model(images())
    assert len(calls) == ran + 1
