"""`measure`: equal to the oracle on features collected by hand, and the model left exactly as it was."""

import inspect
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from oracle import ORACLE, Sample
from tightframe import ClassStatistics
from tightframe import measure as measure_with_folds
from tightframe.errors import (
    ChoiceError,
    ClassifierError,
    EmptyBatchError,
    EmptyClassError,
    EvidenceError,
    LabelError,
    LoaderError,
    TightframeError,
)
from tightframe.measurement.collect import _Buffer
from tightframe.metrics import CONVENTIONS, METRICS, Evidence, Metric
from tightframe.report import Facts
from variants import VARIANTS

Batch = tuple[Tensor, Tensor]

measure = partial(measure_with_folds, folds=None)  # standard errors take most of a measurement's time
CLASSES, DIM = 4, 6


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Batch normalisation and dropout, so that training mode would give other features; one frozen layer."""
    parts = OrderedDict(
        inner=nn.Linear(5, DIM),
        norm=nn.BatchNorm1d(DIM),
        act=nn.Tanh(),
        drop=nn.Dropout(0.5),
        head=nn.Linear(DIM, CLASSES),
    )
    model = nn.Sequential(parts)
    model.inner.weight.requires_grad_(False)
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.3, 0.3)
        model.norm.running_var.uniform_(0.5, 2)
        model.head.bias.copy_(torch.tensor([0.5, -0.5, 0.2, 0.0]))
    return model.to(dtype)


def data(rows: int = 60, dtype: torch.dtype = torch.float64, seed: int = 1) -> Batch:
    """Inputs about a centre for every class; labels in order, each class present."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = torch.randn(CLASSES, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    noise = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return (centres[labels] + 0.6 * noise).to(dtype), labels


def batches(rows: Batch, size: int = 17) -> list[Batch]:
    return list(zip(rows[0].split(size), rows[1].split(size), strict=True))


def features_by_hand(model: nn.Sequential, inputs: Tensor) -> Tensor:
    """The classifier's input in eval mode, layer by layer; dropout is the identity there."""
    hidden = inputs @ model.inner.weight.T + model.inner.bias
    norm = model.norm
    scaled = (hidden - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps)
    return torch.tanh(scaled * norm.weight + norm.bias).detach()


def sample_of(model: nn.Sequential, rows: Batch, features: Tensor, outside: Tensor | None = None) -> Sample:
    return Sample(
        features.double().numpy(),
        rows[1].numpy(),
        CLASSES,
        model.head.weight.detach().double().numpy(),
        model.head.bias.detach().double().numpy(),
        None if outside is None else outside.double().numpy(),
    )


def oracle(name: str, sample: Sample) -> float:
    """The oracle's value; of the few metrics it leaves out, the package's on weight and features as they are."""
    if name in ORACLE:
        return ORACLE[name](sample)
    statistics = ClassStatistics.from_features(
        torch.from_numpy(sample.features), torch.from_numpy(sample.labels), sample.num_classes
    )
    return float(METRICS[name].of(Evidence(statistics, torch.from_numpy(sample.weight))))


def truth(sample: Sample, names: Iterable[str]) -> dict[str, float]:
    return {name: oracle(name, sample) for name in names}


def assert_values(values: dict[str, float], expected: dict[str, float], rtol: float) -> None:
    assert set(values) == set(expected)
    wrong = [
        f"{name}: {value!r}, expected {expected[name]!r}"
        for name, value in values.items()
        if not math.isclose(value, expected[name], rel_tol=rtol, abs_tol=1e-12)
        and not (math.isnan(value) and math.isnan(expected[name]))
    ]
    assert not wrong, "\n".join(wrong)


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a measurement could disturb."""
    modules = list(model.modules())
    return {
        "modes": [module.training for module in modules],
        "hooks": [
            (len(m._forward_pre_hooks), len(m._forward_hooks), len(m._forward_pre_hooks_with_kwargs)) for m in modules
        ],
        "attributes": [sorted(vars(module)) for module in modules],
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
    }


def assert_same_state(after: dict[str, Any], before: dict[str, Any]) -> None:
    for what in ("modes", "hooks", "attributes", "requires_grad"):
        assert after[what] == before[what], what
    for what in ("grads", "state"):
        assert after[what].keys() == before[what].keys()
        for name, tensor in before[what].items():
            mine = after[what][name]
            assert mine is None if tensor is None else torch.equal(mine, tensor), (what, name)


class Repeating:
    """A loader whose successive runs give the batch lists given, the last one again and again."""

    def __init__(self, *runs: list[Batch]):
        self.runs, self.number = runs, 0

    def __iter__(self) -> Iterator[Batch]:
        run = self.runs[min(self.number, len(self.runs) - 1)]
        self.number += 1
        return iter(run)


def failing(good: list[Any]) -> Iterator[Any]:
    yield from good
    raise ConnectionError("the disk is gone")


# ---------------------------------------------------------------------------------------------- the name


def test_the_package_offers_the_function() -> None:
    program = "from tightframe import measure, Monitor; import tightframe; assert callable(measure), measure; "
    program += "assert tightframe.measure is measure"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------- the values


def test_every_value_is_the_oracles_on_features_collected_by_hand() -> None:
    model, rows, (outside, _) = network(), data(), data(23, seed=5)
    report = measure_with_folds(model, batches(rows), ood=batches(data(23, seed=5)), per_class=True, progress=False)
    features = features_by_hand(model, rows[0])
    sample = sample_of(model, rows, features, features_by_hand(model, outside))
    usual = {name for name, metric in METRICS.items() if metric.by_default}
    assert set(report.values) == usual
    assert_values(report.values, truth(sample, usual), rtol=1e-10)


def test_every_value_in_float32() -> None:
    model, rows = network(torch.float32), data(dtype=torch.float32)
    ood = data(23, torch.float32, seed=5)
    report = measure(model, batches(rows), ood=batches(ood), per_class=True, progress=False)
    features, outside = features_by_hand(model, rows[0]), features_by_hand(model, ood[0])
    usual = {name for name, metric in METRICS.items() if metric.by_default}
    assert_values(report.values, truth(sample_of(model, rows, features, outside), usual), rtol=1e-5)


def test_bfloat16_features_are_measured_as_they_are() -> None:
    model = nn.Sequential(OrderedDict(act=nn.ReLU(), head=nn.Linear(5, CLASSES))).to(torch.bfloat16)
    rows = data(dtype=torch.bfloat16)
    report = measure(model, batches(rows), progress=False)
    sample = sample_of(model, rows, rows[0].relu())
    assert_values(report.values, truth(sample, report.values), rtol=1e-5)


def test_batch_sizes_do_not_matter() -> None:
    model, rows = network(), data()
    whole = measure(model, [rows], progress=False).values
    assert_values(measure(model, batches(rows, 1 + 7), progress=False).values, whole, rtol=1e-10)


def test_held_out_decisions_are_taken_with_the_training_means() -> None:
    model, rows, test = network(), data(), data(31, seed=3)
    report = measure(model, batches(rows), test=batches(test, 9), progress=False)
    train_features, features = features_by_hand(model, rows[0]).numpy(), features_by_hand(model, test[0]).numpy()
    weight, bias = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    means = [train_features[rows[1].numpy() == k].mean(0) for k in range(CLASSES)]
    mismatches = centre_hits = classifier_hits = 0
    by_class = [0] * CLASSES
    for feature, label in zip(features, test[1].tolist(), strict=True):
        nearest = int(np.argmin([np.linalg.norm(feature - mean) for mean in means]))
        decided = int(np.argmax([row @ feature + offset for row, offset in zip(weight, bias, strict=True)]))
        mismatches += nearest != decided
        centre_hits += nearest == label
        classifier_hits += decided == label
        by_class[label] += decided == label
    sizes = torch.bincount(test[1], minlength=CLASSES).tolist()
    balanced = float(np.mean([hits / size for hits, size in zip(by_class, sizes, strict=True) if size]))
    assert 0 < mismatches < 31  # otherwise the comparison below would say little
    held_out = {key: value for key, value in report.values.items() if key.startswith("test/")}
    moments = ClassStatistics.from_features(torch.from_numpy(features), test[1], CLASSES)
    assert held_out == {
        **{
            f"test/{name}": pytest.approx(METRICS[name].of(Evidence(moments)).item(), rel=1e-10)
            for name in ("nc1", "trace_ratio", "cdnv", "equinorm", "equiangularity", "etf_error")
        },
        "test/ncc_mismatch": pytest.approx(mismatches / 31, rel=1e-12),
        "test/ncc_accuracy": pytest.approx(centre_hits / 31, rel=1e-12),
        "test/classifier_accuracy": pytest.approx(classifier_hits / 31, rel=1e-12),
        "test/balanced_accuracy": pytest.approx(balanced, rel=1e-12),
    }
    without = measure(model, batches(rows), progress=False).values
    assert {key: value for key, value in report.values.items() if key not in held_out} == without


def test_the_evidence_behind_the_report() -> None:
    model, rows = network(), data()
    report = measure(model, batches(rows), progress=False)
    features = features_by_hand(model, rows[0])
    assert report.evidence is not None
    statistics = report.evidence.statistics
    assert statistics.counts.tolist() == [15] * CLASSES
    for k in range(CLASSES):
        torch.testing.assert_close(statistics.means[k], features[rows[1] == k].mean(0), rtol=1e-12, atol=1e-12)
    assert torch.equal(report.evidence.weight, model.head.weight.detach())
    assert torch.equal(report.evidence.bias, model.head.bias.detach())


def test_facts_say_what_was_measured() -> None:
    context = {"epoch": 3, "title": "mine", "lr": 0.1}
    report = measure_with_folds(network(), batches(data()), progress=False, context=context)
    assert {name: len(each) for name, each in report.class_errors.items()} == {"norm": 4, "variance": 4}
    assert report.facts == Facts(
        samples=60,
        classes=CLASSES,
        dimension=DIM,
        coverage={"1": 4, "2": 4, "10": 4, "50": 0},
        smallest_class=15,
        largest_class=15,
        layer="input of head",
        classifier="head",
        mode="eval",
        epoch=3,
        title="mine",
    )
    assert report.context == {"lr": 0.1}


def test_a_model_that_is_its_own_classifier() -> None:
    model, rows = nn.Linear(5, CLASSES, dtype=torch.float64), data()
    report = measure(model, batches(rows), progress=False)
    assert report.facts.layer == "input of the model itself"
    sample = Sample(rows[0].numpy(), rows[1].numpy(), CLASSES)
    assert report["nc1"].value == pytest.approx(ORACLE["nc1"](sample), rel=1e-10)


def test_chosen_names_in_their_order() -> None:
    report = measure(network(), batches(data()), metrics=["cdnv", "nc1"], progress=False)
    assert list(report.values) == ["cdnv", "nc1"]


def test_per_class_adds_what_needs_each_classs_scatter() -> None:
    model, rows = network(), data()
    pooled = measure(model, batches(rows), progress=False)
    own = measure(model, batches(rows), per_class=True, progress=False)
    assert set(own.values) - set(pooled.values) == {"directional_cdnv"}
    sample = sample_of(model, rows, features_by_hand(model, rows[0]))
    assert_values(own.values, truth(sample, own.values), rtol=1e-10)
    with pytest.raises(EvidenceError, match="per_class=True"):
        measure(model, batches(rows), metrics=["directional_cdnv"], progress=False)


def test_without_covariance_what_needs_it_is_left_out_and_noted() -> None:
    model, rows = network(), data()
    full = measure(model, batches(rows), progress=False)
    lean = measure(model, batches(rows), covariance=False, progress=False)
    assert set(full.values) - set(lean.values) == {
        "nc1", "vci", "h_score", "within_in_mean_span", "numerical_rank",
    }  # fmt: skip
    assert_values(lean.values, {name: full.values[name] for name in lean.values}, rtol=1e-12)
    assert not full.notes
    assert [note for note in lean.notes if "covariance" in note and "NC1" in note]


# ---------------------------------------------------------------------------------------------- kinds of models


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, DIM, 3, padding=1), nn.Conv2d(DIM, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(images)))


def segmentation() -> tuple[Segmenter, Tensor, Tensor]:
    model = Segmenter().double()
    images = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    labels = torch.arange(60).reshape(3, 5, 4) % CLASSES
    labels[0, 0, :3] = 255
    return model, images, labels


def test_a_pointwise_convolution_with_void_pixels() -> None:
    model, images, labels = segmentation()
    loader = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    report = measure(model, loader, ignore_index=255, per_class=True, conventions=["jiang-2023/nc1"], progress=False)
    grid = torch.tanh(model.body(images)).detach()
    pixels, kept = [], []
    for n in range(3):
        for h in range(5):
            for w in range(4):
                if labels[n, h, w] != 255:
                    pixels.append(grid[n, :, h, w])
                    kept.append(int(labels[n, h, w]))
    weight, bias = model.head.weight.detach().reshape(CLASSES, DIM).numpy(), model.head.bias.detach().numpy()
    sample = Sample(torch.stack(pixels).numpy(), np.array(kept), CLASSES, weight, bias)
    assert report.facts.samples == 57
    values = report.values
    unit = values.pop("jiang-2023/nc1")
    assert_values(values, truth(sample, values), rtol=1e-10)
    scaled = sample.features / np.linalg.norm(sample.features, axis=1, keepdims=True)
    assert unit == pytest.approx(ORACLE["nc1_sample_centred"](Sample(scaled, sample.labels, CLASSES)), rel=1e-10)


def test_segmentation_features_from_outside() -> None:
    model, images, labels = segmentation()
    outside = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    report = measure(model, [(images, labels)], ood=[outside], ignore_index=255, progress=False)
    grid, far = torch.tanh(model.body(images)).detach(), torch.tanh(model.body(outside)).detach()
    mean = far.permute(0, 2, 3, 1).reshape(-1, DIM).mean(0)
    rows = grid.permute(0, 2, 3, 1).reshape(-1, DIM)
    cosines = [
        torch.cosine_similarity(rows[labels.flatten() == k].mean(0), mean, dim=0).abs().item() for k in range(CLASSES)
    ]
    assert report["ood_orthogonality"].value == pytest.approx(sum(cosines) / CLASSES, rel=1e-10)


class LanguageModel(nn.Module):
    """Called as in transformers: by keyword, with labels of the batch left to the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(CLASSES, DIM)
        self.lm_head = nn.Linear(DIM, CLASSES, bias=False)
        self.lm_head.weight = self.embeddings.weight
        self.score = nn.Linear(DIM, 1)  # never called

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = torch.cumsum(self.embeddings(input_ids) * attention_mask[..., None], dim=1)
        return self.lm_head(torch.tanh(hidden))


def test_a_language_model_with_a_tied_head_and_ignored_tokens() -> None:
    model = LanguageModel().double()
    ids = torch.randint(CLASSES, (6, 9))
    mask = torch.ones_like(ids)
    labels = torch.roll(ids, -1, 1)
    labels[:, -1] = -100
    loader = [
        {"input_ids": ids[:4], "attention_mask": mask[:4], "labels": labels[:4]},
        {"input_ids": ids[4:], "attention_mask": mask[4:], "labels": labels[4:]},
    ]
    report = measure(model, loader, ignore_index=-100, progress=False)
    hidden = torch.tanh(torch.cumsum(model.embeddings(ids), dim=1)).detach()[:, :-1].reshape(-1, DIM)
    sample = Sample(
        hidden.numpy(), labels[:, :-1].reshape(-1).numpy(), CLASSES, model.lm_head.weight.detach().numpy(), None
    )
    assert report.facts.classifier == "lm_head"
    assert report.facts.samples == 48
    names = [name for name in report.values if not name.startswith("bias_collapse")]
    values = {name: report[name].value for name in names}
    assert_values(values, truth(sample, names), rtol=1e-10)


def test_a_classifier_by_name_inside_the_model() -> None:
    model, rows = network(), data()
    labels = rows[1] % 6
    report = measure(model, batches((rows[0], labels)), classifier="inner", progress=False)
    sample = Sample(rows[0].numpy(), labels.numpy(), DIM)
    assert report.facts.dimension == 5
    assert report.facts.classes == DIM
    assert report["nc1"].value == pytest.approx(ORACLE["nc1"](sample), rel=1e-10)


def test_a_classifier_that_is_not_called() -> None:
    model = LanguageModel()
    ids = torch.zeros(2, 3, dtype=torch.int64)
    loader = [{"input_ids": ids, "attention_mask": ids, "labels": ids}]
    model.unused = nn.Linear(4, 3)
    with pytest.raises(ClassifierError, match=r"does not call the classifier 'unused'.*classifier="):
        measure(model, loader, classifier="unused", progress=False)


def test_a_single_output_for_two_classes() -> None:
    inputs, labels = data()
    """A logit decides by its sign: the rows are those of softmax with the same probabilities."""
    model = nn.Sequential(nn.Linear(inputs.shape[1], 4), nn.Linear(4, 1), nn.Sigmoid()).double()
    both = nn.Linear(4, 2).double()
    with torch.no_grad():
        both.weight.copy_(torch.cat([-model[1].weight, model[1].weight]) / 2)
        both.bias.copy_(torch.cat([-model[1].bias, model[1].bias]) / 2)
        hits = (model(inputs)[:, 0] > 0.5) == (labels % 2 == 1)
    twin = measure(nn.Sequential(model[0], both), batches((inputs, labels % 2)), progress=False)
    for target in (labels % 2, (labels % 2).double(), (labels % 2).double()[:, None]):  # as binary cross-entropy's
        report = measure(model, batches((inputs, target)), progress=False)
        assert report.values == pytest.approx(twin.values, nan_ok=True)
    assert report["classifier_accuracy"].value == pytest.approx(float(hits.double().mean()))


# ---------------------------------------------------------------------------------------------- kinds of loaders


@pytest.mark.parametrize("key", ["labels", "label", "targets", "target", "y"])
def test_mappings(key: str) -> None:
    model, rows = network(), data()
    loader = [{"input": inputs, key: labels} for inputs, labels in batches(rows)]
    assert measure(model, loader, progress=False).values == measure(model, batches(rows), progress=False).values


def test_lists_and_data_loaders() -> None:
    model, rows = network(), data()
    expected = measure(model, batches(rows), progress=False).values
    assert measure(model, [list(batch) for batch in batches(rows)], progress=False).values == expected
    loaded = measure(model, DataLoader(TensorDataset(*rows), batch_size=17), progress=False).values
    assert loaded == pytest.approx(expected, rel=1e-12, nan_ok=True)  # rows that lie elsewhere may be summed otherwise


def test_a_shuffling_data_loader_also_in_two_passes() -> None:
    model, rows = network(), data()
    expected = measure(model, batches(rows), progress=False).values
    for room in (1 << 30, 0):
        loader = DataLoader(TensorDataset(*rows), batch_size=13, shuffle=True)
        assert_values(measure(model, loader, buffer_bytes=room, progress=False).values, expected, rtol=1e-10)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, CLASSES)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head(first - 2 * second)


def test_batches_of_several_inputs() -> None:
    inputs, labels = data()
    other = torch.randn_like(inputs)
    report = measure(TwoInputs().double(), [(inputs, other, labels)], metrics=["nc1"], progress=False)
    sample = Sample((inputs - 2 * other).numpy(), labels.numpy(), CLASSES)
    assert report["nc1"].value == pytest.approx(ORACLE["nc1"](sample), rel=1e-10)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (torch.zeros(3, 5), "a Tensor"),
        ((torch.zeros(3, 5),), "a tuple of 1"),
        ({"input": torch.zeros(3, 5)}, "a mapping with input"),
        (7, "a int"),
    ],
)
def test_training_batches_without_labels(batch: Any, got: str) -> None:
    with pytest.raises(LoaderError, match=rf"\(inputs, labels\).*labels.*got {got}"):
        measure(network(torch.float32), [batch], progress=False)


def test_out_of_distribution_batches_with_and_without_labels() -> None:
    model, rows, ood = network(), data(), data(23, seed=5)
    forms: list[list[Any]] = [
        batches(ood),
        [inputs for inputs, _ in batches(ood)],
        [(inputs,) for inputs, _ in batches(ood)],
        [{"input": inputs} for inputs, _ in batches(ood)],
        [{"input": inputs, "labels": labels} for inputs, labels in batches(ood)],
        [(inputs, labels - 1000) for inputs, labels in batches(ood)],  # their range is nobody's business
    ]
    sample = sample_of(model, rows, features_by_hand(model, rows[0]), features_by_hand(model, ood[0]))
    expected = ORACLE["ood_orthogonality"](sample)
    for form in forms:
        report = measure(model, batches(rows), ood=form, progress=False)
        assert report["ood_orthogonality"].value == pytest.approx(expected, rel=1e-10)
        assert report["ood_orthogonality"].split == "ood"
    assert "ood_orthogonality" not in measure(model, batches(rows), progress=False).values


def test_a_generator_is_enough_where_the_buffer_holds_all() -> None:
    model, rows = network(), data()
    expected = measure(model, batches(rows), progress=False)
    assert measure(model, iter(batches(rows)), progress=False).to_dict() == expected.to_dict()


def test_a_generator_that_the_buffer_does_not_hold() -> None:
    with pytest.raises(EmptyBatchError, match=r"second pass.*generator can be read only once.*buffer_bytes"):
        measure(network(), iter(batches(data())), buffer_bytes=0, progress=False)


@pytest.mark.parametrize("room", [0, 17 * DIM * 8 + 17 * 8, 60 * DIM * 8 + 60 * 8 - 1])
def test_a_second_pass_gives_the_same_report(room: int) -> None:
    model, rows, test = network(), data(), data(31, seed=3)
    options = {"test": batches(test), "conventions": ["wu-papyan-2024/nc4"], "per_class": True, "progress": False}
    loader = Repeating(batches(rows))
    expected = measure(model, loader, **options)
    assert loader.number == 1
    loader = Repeating(batches(rows))
    report = measure(model, loader, buffer_bytes=room, **options)
    assert loader.number == 2
    assert report.to_dict() == expected.to_dict()


def test_the_buffer_holds_exactly_its_budget() -> None:
    loader = Repeating(batches(data()))
    measure(network(), loader, buffer_bytes=60 * DIM * 8 + 60 * 8, progress=False)
    assert loader.number == 1


def test_a_buffer_that_overflows_lets_go_of_everything() -> None:
    buffer = _Buffer(100)
    rows = {"head": (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))}  # 32 bytes each
    buffer.add(rows, None)
    assert (len(buffer.batches), buffer.overflowed) == (1, False)
    for _ in range(2):
        buffer.add(rows, None)
        assert (len(buffer.batches), buffer.overflowed) == (0, True)


def test_a_loader_that_shrinks_between_passes() -> None:
    loader = Repeating(batches(data()), batches(data())[:-1])
    with pytest.raises(LoaderError, match=r"returned 60 samples, then 51.*buffer_bytes"):
        measure(network(), loader, buffer_bytes=0, progress=False)


def test_a_loader_whose_labels_change_between_passes() -> None:
    inputs, labels = data()
    loader = Repeating(batches((inputs, labels)), batches((inputs, labels // 2)))
    with pytest.raises(LoaderError, match=r"60 samples, then 60, or different labels"):
        measure(network(), loader, buffer_bytes=0, progress=False)


@pytest.mark.parametrize("which", ["training", "held-out", "out-of-distribution"])
def test_an_empty_loader(which: str) -> None:
    loaders: dict[str, Any] = {"training": batches(data()), "held-out": batches(data()), "out-of-distribution": None}
    loaders[which] = []
    with pytest.raises(EmptyBatchError, match=f"the loader of {which} samples yielded no batch"):
        measure(
            network(), loaders["training"], test=loaders["held-out"], ood=loaders["out-of-distribution"], progress=False
        )


def test_ignored_rows_count_nowhere() -> None:
    model, (inputs, labels) = network(), data()
    dropped = labels.clone()
    dropped[::5] = -100
    kept = dropped >= 0
    expected = measure(model, [(inputs[kept], labels[kept])], progress=False)
    report = measure(
        model, batches((inputs, dropped)), test=batches((inputs, dropped)), ignore_index=-100, progress=False
    )
    assert report.facts.samples == 48
    train = {key: value for key, value in report.values.items() if not key.startswith("test/")}
    assert_values(train, expected.values, rtol=1e-10)
    assert report["test/ncc_mismatch"].value == report["ncc_mismatch"].value


def test_a_label_out_of_range_is_named_with_the_remedy() -> None:
    inputs, labels = data()
    labels[3] = -100
    with pytest.raises(LabelError, match=r"\[0, 4\); got -100 \(1 row\)\. Pass ignore_index=-100"):
        measure(network(), [(inputs, labels)], progress=False)


def test_one_class_is_not_enough() -> None:
    inputs, _ = data()
    with pytest.raises(EmptyClassError, match="1 of 4 has"):
        measure(network(), [(inputs, torch.zeros(60, dtype=torch.int64))], progress=False)


# ---------------------------------------------------------------------------------------------- conventions


def same(a: Metric[Any], b: Metric[Any]) -> bool:
    return a.function is b.function and all(
        option == b.options.get(name, DEFAULTS[a.function.__name__][name])
        for name, option in (DEFAULTS[a.function.__name__] | dict(a.options)).items()
    )


DEFAULTS = {
    metric.function.__name__: {
        each.name: each.default
        for each in inspect.signature(metric.function).parameters.values()
        if each.kind is each.KEYWORD_ONLY
    }
    for metric in METRICS.values()
}
ORACLES = {
    key: next(name for name, metric in VARIANTS.items() if same(metric, convention.metric))
    for key, convention in CONVENTIONS.items()
}
"""The oracle's name of each convention's metric."""


def test_every_convention_is_its_metric_on_the_evidence_it_asks_for() -> None:
    model, rows, ood = network(), data(), data(23, seed=5)
    report = measure(
        model, batches(rows), ood=batches(ood), conventions=list(CONVENTIONS), per_class=True, progress=False
    )
    features, outside = features_by_hand(model, rows[0]), features_by_hand(model, ood[0])
    sample = sample_of(model, rows, features, outside)
    scaled = features / features.norm(dim=1, keepdim=True)
    unit = sample_of(model, rows, scaled, outside)
    bare = Sample(sample.features, sample.labels, CLASSES, sample.weight, None, sample.outside)
    rows_added = {key: value for key, value in report.values.items() if key not in METRICS}
    expected = {
        key: oracle(ORACLES[key], unit if convention.unit_features else bare if convention.without_bias else sample)
        for key, convention in CONVENTIONS.items()
    }
    assert_values(rows_added, expected, rtol=1e-10)
    assert list(rows_added) == list(CONVENTIONS)
    for key, convention in CONVENTIONS.items():
        assert report[key].source == convention.source
        assert key in report[key].label


def test_jiangs_nc1_sees_features_of_unit_length() -> None:
    model, rows = network(), data()
    report = measure(model, batches(rows), conventions=["jiang-2023/nc1"], progress=False)
    features = features_by_hand(model, rows[0])
    expected = ORACLE["nc1_sample_centred"](sample_of(model, rows, features / features.norm(dim=1, keepdim=True)))
    assert report["jiang-2023/nc1"].value == pytest.approx(expected, rel=1e-10)
    plain = ORACLE["nc1_sample_centred"](sample_of(model, rows, features))
    assert abs(plain / expected - 1) > 0.01  # the plain features would not do


def test_jiangs_nc1_of_bfloat16_features_is_not_rounded_to_bfloat16() -> None:
    model = nn.Sequential(OrderedDict(act=nn.Identity(), head=nn.Linear(5, CLASSES))).to(torch.bfloat16)
    labels = torch.arange(60) % CLASSES
    directions = torch.tensor([[1, 2, 3, 4, 5], [5, 1, 4, 2, 3], [2, 2, 1, 5, 1], [3, 5, 2, 1, 1]])
    lengths = 1 + torch.arange(60) % 7  # features of a class differ in length alone, and bfloat16 holds them exactly
    inputs = (directions[labels] * lengths[:, None]).to(torch.bfloat16)
    report = measure(model, [(inputs, labels)], conventions=["jiang-2023/nc1", "zhu-2021/nc1"], progress=False)
    assert report["zhu-2021/nc1"].value > 0.1
    assert 0 <= report["jiang-2023/nc1"].value < 1e-12


def test_wu_and_papyans_nc4_ignores_the_bias() -> None:
    model, rows = network(), data()
    with torch.no_grad():
        model.head.bias[0] = 100  # the classifier decides for class 0 whatever it sees
    report = measure(model, batches(rows), conventions=["wu-papyan-2024/nc4"], progress=False)
    sample = sample_of(model, rows, features_by_hand(model, rows[0]))
    bare = Sample(sample.features, sample.labels, CLASSES, sample.weight, np.zeros(CLASSES))
    expected = ORACLE["ncc_agreement"](bare)
    assert report["wu-papyan-2024/nc4"].value == pytest.approx(expected, rel=1e-12)
    assert report["ncc_agreement"].value == pytest.approx(ORACLE["ncc_agreement"](sample), rel=1e-12)
    assert report["ncc_agreement"].value != report["wu-papyan-2024/nc4"].value
    error = report["wu-papyan-2024/nc4"].standard_error
    assert error == pytest.approx(math.sqrt(expected * (1 - expected) / 60), rel=1e-12)


def test_a_convention_is_of_the_split_of_its_metric() -> None:
    report = measure(network(), batches(data()), ood=batches(data(9)), conventions=["ammar-2024/nc5"], progress=False)
    assert report["ammar-2024/nc5"].split == report["ood_orthogonality"].split == "ood"


def test_an_unknown_convention() -> None:
    with pytest.raises(ChoiceError, match="papyan-1920/nc1"):
        measure(network(), batches(data()), conventions=["papyan-1920/nc1"], progress=False)


def test_an_unknown_measure_is_refused_before_anything_is_run() -> None:
    loader = Repeating(batches(data()))
    with pytest.raises(ChoiceError, match=r"got 'nc6'. Did you mean 'nc1"):
        measure(network(), loader, metrics=["nc1", "nc6"], progress=False)
    assert loader.number == 0


@pytest.mark.parametrize("asked", [{"metrics": ["ood_orthogonality"]}, {"conventions": ["ammar-2024/nc5"]}])
def test_what_needs_out_of_distribution_data_says_so(asked: dict[str, list[str]]) -> None:
    with pytest.raises(TightframeError, match="ood"):
        measure(network(), batches(data()), progress=False, **asked)


# ---------------------------------------------------------------------------------------------- a model left as it was


def good(model: nn.Module) -> None:
    measure(model, batches(data()), test=batches(data()), ood=batches(data()), buffer_bytes=0, progress=False)


def loader_raises(model: nn.Module) -> None:
    measure(model, failing(batches(data())), progress=True)


def held_out_loader_raises(model: nn.Module) -> None:
    measure(model, batches(data()), test=failing(batches(data())), progress=False)


def outside_loader_raises(model: nn.Module) -> None:
    measure(model, batches(data()), ood=failing([data()[0]]), progress=False)


def label_out_of_range(model: nn.Module) -> None:
    inputs, labels = data()
    measure(model, [(inputs, labels), (inputs, labels + 1)], progress=False)


def forward_raises(model: nn.Module) -> None:
    inputs, labels = data()
    measure(model, [(inputs, labels), (inputs[:, :3], labels)], progress=False)


def passes_differ(model: nn.Module) -> None:
    measure(model, Repeating(batches(data()), batches(data())[:2]), buffer_bytes=0, progress=False)


CASES: dict[str, tuple[Callable[[nn.Module], None], type[Exception] | None]] = {
    "no error": (good, None),
    "training loader raises": (loader_raises, ConnectionError),
    "held-out loader raises": (held_out_loader_raises, ConnectionError),
    "ood loader raises": (outside_loader_raises, ConnectionError),
    "label out of range": (label_out_of_range, LabelError),
    "forward raises": (forward_raises, RuntimeError),
    "passes differ": (passes_differ, LoaderError),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_grads", [True, False])
def test_the_model_is_left_exactly_as_it_was(case: str, with_grads: bool) -> None:
    run, error = CASES[case]
    model = network()
    model.train()
    model.norm.eval()  # mixed modes
    model.head.register_forward_pre_hook(lambda module, args: None)  # someone else's
    if with_grads:
        model(data()[0]).square().sum().backward()
    before = state_of(model)
    assert before["modes"] == [True, True, False, True, True, True]
    assert torch.is_grad_enabled()
    if error is None:
        run(model)
    else:
        with pytest.raises(error):
            run(model)
    assert_same_state(state_of(model), before)
    assert torch.is_grad_enabled()


def test_batch_statistics_stay_where_all_is_in_training_mode() -> None:
    model = network().train()
    before = model.norm.running_mean.clone(), model.norm.num_batches_tracked.clone()
    measure(model, batches(data()), progress=False)
    assert torch.equal(model.norm.running_mean, before[0])
    assert torch.equal(model.norm.num_batches_tracked, before[1])
    assert model.training


def test_gradient_mode_of_the_caller_is_kept() -> None:
    with torch.no_grad():
        measure(network(), batches(data()), progress=False)
        assert not torch.is_grad_enabled()


def test_random_numbers_are_not_drawn() -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    model = network()
    torch.random.set_rng_state(state)
    measure(model, batches(data()), progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_goes_on_after_a_measurement_as_without_one() -> None:
    def train(measured: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = network()
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(data()[0]), data()[1]).backward()
            if measured:
                measure(model, batches(data()), progress=False)
            optimiser.step()
        return model.state_dict()

    plain, measured = train(False), train(True)
    for name, tensor in plain.items():
        assert torch.equal(measured[name], tensor), name


def test_the_report_does_not_change_when_the_model_trains_on() -> None:
    model = network()
    report = measure(model, batches(data()), progress=False)
    weight = report.evidence.weight.clone()
    with torch.no_grad():
        model.head.weight.add_(1)
    assert torch.equal(report.evidence.weight, weight)


# ---------------------------------------------------------------------------------------------- progress


def test_progress_changes_nothing_and_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = network(), data()
    options = {"test": batches(rows), "ood": batches(rows), "buffer_bytes": 0}
    silent = measure(model, batches(rows), progress=False, **options)
    assert capsys.readouterr().out == ""
    shown = measure(model, batches(rows), progress=True, **options)
    assert shown.to_dict() == silent.to_dict()
    assert capsys.readouterr().out.strip() == ""


def test_progress_of_a_loader_without_length() -> None:
    model, rows = network(), data()
    expected = measure(model, batches(rows), progress=False).values
    assert measure(model, iter(batches(rows)), progress=True).values == expected
