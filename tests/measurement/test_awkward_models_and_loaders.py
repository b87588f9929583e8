"""Loaders that don't repeat themselves, weights that are computed, inputs in any form: right, or a clear error."""

import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tightframe import StatisticsAccumulator
from tightframe import measure as measure_with_folds
from tightframe.errors import ClassifierError, LoaderError
from tightframe.report import Report
from tightframe.report.profile import depth_sentences
from tightframe.sources.loading import moved

CLASSES, ROWS = 4, 96

measure = partial(measure_with_folds, folds=None)  # standard errors take most of a measurement's time


def rows() -> tuple[Tensor, Tensor]:
    labels = torch.arange(ROWS) % CLASSES
    return torch.randn(ROWS, 6) + 2 * torch.eye(6)[labels], labels


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, CLASSES))


def compared(report: Report) -> dict[str, float]:
    return {name: report.values[name] for name in ("nc1", "ncc_accuracy", "classifier_accuracy")}


# ---------------------------------------------------------------------------------------------- random data


class Augmented(Dataset[tuple[Tensor, int]]):
    """Samples with noise from torch's generator, or from one of the data set's own."""

    def __init__(self, own: bool = False):
        self.inputs, self.labels = rows()
        self.own = np.random.default_rng(0) if own else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(6) if self.own is None else torch.from_numpy(self.own.normal(size=6)).float()
        return self.inputs[index] + 2 * noise, int(self.labels[index])


def persistent(data: Dataset[Any]) -> DataLoader[Any]:
    context = torch.multiprocessing.get_context("forkserver")
    return DataLoader(
        data, 16, shuffle=True, num_workers=1, persistent_workers=True, multiprocessing_context=context, timeout=60
    )


@pytest.mark.parametrize("little", [{"buffer_bytes": 0}, {"buffer_bytes": 0, "covariance_bytes": 4000}])
def test_workers_that_outlive_a_pass_draw_the_same_again(little: dict[str, int]) -> None:
    model, loader = network(), persistent(Augmented())
    torch.manual_seed(1)
    expected = measure(model, loader, progress=False)
    torch.manual_seed(1)
    assert compared(measure(model, loader, **little, progress=False)) == pytest.approx(compared(expected), rel=1e-5)


def test_a_loop_over_a_loader_with_persistent_workers_goes_on_as_if_nothing_was_measured() -> None:
    model, data = network(), Augmented()

    def looked_at(measured: bool) -> list[Tensor]:
        loader = persistent(data)
        torch.manual_seed(1)
        seen = []
        for _ in range(2):
            for number, (inputs, _labels) in enumerate(loader):
                seen.append(inputs)
                if measured and number == 2:
                    measure(model, loader, progress=False)
        return seen

    plain, watched = looked_at(False), looked_at(True)
    assert len(plain) == len(watched) == 2 * ROWS // 16
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_data_drawn_anew_in_a_second_pass_are_refused() -> None:
    model = network()
    loader = DataLoader(Augmented(own=True), 16)
    measure(model, loader, progress=False)  # one pass is enough
    with pytest.raises(LoaderError, match=r"features at input of 2 must be the same in both passes.*buffer_bytes"):
        measure(model, loader, buffer_bytes=0, progress=False)


def test_a_model_that_draws_at_random_in_eval_mode_is_refused_likewise() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(6, 5), nn.Linear(5, CLASSES)
            self.own = torch.Generator().manual_seed(0)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.body(x)
            return self.fc(hidden + torch.randn(hidden.shape, generator=self.own))

    with pytest.raises(LoaderError, match="must be the same in both passes"):
        measure(Noisy(), DataLoader(TensorDataset(*rows()), 16), buffer_bytes=0, progress=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_batches_of_the_same_samples_are_no_other_samples(dtype: torch.dtype) -> None:
    """Their features differ by rounding."""
    inputs, labels = rows()
    inputs = (inputs + 100).to(dtype)

    class Changing:
        sizes = iter((32, 7))

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            size = next(self.sizes)
            return iter(zip(inputs.split(size), labels.split(size), strict=True))

    assert measure(network().to(dtype), Changing(), buffer_bytes=0, progress=False).values["classifier_accuracy"] >= 0


# ---------------------------------------------------------------------------------------------- models


def test_a_classifier_that_is_called_again_on_something_else() -> None:
    class WithPrototypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(6, 5), nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.body(x)
            logits: Tensor = self.fc(hidden)
            return logits - self.fc(hidden[:1]).mean()

    model, (inputs, labels) = WithPrototypes(), rows()
    report = measure(model, [(inputs, labels)], layers="auto", progress=False)
    plain = measure(nn.Sequential(model.body, model.fc), [(inputs, labels)], progress=False)
    assert report.values == plain.values
    assert any("input of fc#2 is left out" in note for note in report.notes)
    assert not any("#2" in str(layer.facts.layer) for layer in report.layers)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_is_computed_in_the_forward_pass_is_up_to_date() -> None:
    model, (inputs, labels) = network(), rows()
    model[2] = torch.nn.utils.weight_norm(model[2])
    model(inputs)
    with torch.no_grad():
        model[2].weight_v.normal_()  # as an optimiser's step would
    report = measure(model, [(inputs, labels)], progress=False)
    chosen = model(inputs).argmax(1)
    assert report.values["classifier_accuracy"] == pytest.approx(float((chosen == labels).double().mean()), abs=1e-12)
    assert torch.equal(report.evidence.weight, model[2].weight.detach().double())


class TwoHeads(nn.Module):
    """Two linear layers after the body, of which one gives what the model returns."""

    def __init__(self, returned: int, other: int, wrap: Callable[[Tensor], Any] = lambda logits: logits):
        super().__init__()
        self.body, self.fc, self.last = nn.Linear(6, 5), nn.Linear(5, returned), nn.Linear(5, other)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        hidden = self.body(x)
        self.last(hidden)
        return self.wrap(self.fc(hidden))


def test_a_classifier_that_is_not_what_the_model_returns_is_refused() -> None:
    batch = [rows()]
    with pytest.raises(ClassifierError, match=r"'last' has 4 outputs, like the model, .* of the samples.*classifier="):
        measure(TwoHeads(4, 4), batch, progress=False)
    for wrap in (None, lambda logits: (None, logits), lambda logits: {"loss": logits.sum(), "logits": logits}):
        model = TwoHeads(7, 4) if wrap is None else TwoHeads(7, 4, wrap)
        with pytest.raises(ClassifierError, match=r"'last' has 4 outputs, but the model returns 7 values.*classifier="):
            measure(model, batch, progress=False)
    own = measure(TwoHeads(4, 4), batch, classifier="fc", progress=False)
    assert not any("model's own" in note for note in own.notes)
    other = measure(TwoHeads(4, 4), batch, classifier="last", progress=False)
    assert any("decisions come from the model" in note and "'last'" in note for note in other.notes)
    assert other["classifier_accuracy"].value == own["classifier_accuracy"].value


@pytest.mark.parametrize(
    "end",
    [
        nn.Identity(),
        nn.LogSoftmax(1),
        nn.Softmax(1),
        nn.Unflatten(1, (2, 2)),  # no logits for each sample
        nn.Flatten(0),
    ],
    ids=lambda end: type(end).__name__,
)
def test_a_classifier_that_decides_what_the_model_returns_is_not(end: nn.Module) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs, labels = rows()
        model = nn.Sequential(*network(), end).to(dtype)
        assert not any("taken to be" in n for n in measure(model, [(inputs.to(dtype), labels)], progress=False).notes)


def test_nested_inputs_go_to_the_models_device() -> None:
    """The meta device stands in for another one."""
    pair = namedtuple("pair", ["left", "right"])
    x = torch.zeros(2, 3)
    found = moved(
        {"x": x, "more": [x, (x, pair(x, "word"))], "n": 3, "packed": pack_sequence([x])}, torch.device("meta")
    )
    left, right = found["more"][1][1]
    tensors = [found["x"], found["more"][0], found["more"][1][0], left, found["packed"].data]
    assert {each.device.type for each in tensors} == {"meta"}
    assert (right, found["n"], type(found["more"][1][1]), type(found["packed"])) == ("word", 3, pair, PackedSequence)


# ---------------------------------------------------------------------------------------------- results


def test_nothing_is_found_by_depth_where_accuracy_was_not_measured() -> None:
    inputs, labels = rows()
    report = measure(network(), [(inputs, labels)], layers="0", metrics=["nc1"], progress=False)
    assert report.layers and depth_sentences(report) == []
    full = measure(network(), [(inputs, labels)], layers="0", progress=False)
    assert len(depth_sentences(full)) == 2


@pytest.mark.parametrize("folds", [None, 4])
def test_statistics_made_in_inference_mode_can_become_part_of_a_graph(folds: int | None) -> None:
    inputs, labels = rows()
    with torch.inference_mode():
        accumulator = StatisticsAccumulator(CLASSES, 6, folds=folds)
        accumulator.update(inputs, labels)
        value = accumulator.compute()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (value.means * scale).sum().backward()
    assert float(scale.grad) == pytest.approx(float(value.means.sum()))


def test_detectors_without_a_scale_are_left_out() -> None:
    """A dead network's features are all the same: exactly what collapse is in the limit."""
    inputs, labels = rows()
    dead = network()
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
    report = measure(dead, [(inputs, labels)], test=[(inputs, labels)], ood=[inputs], progress=False)
    assert report.values["classifier_accuracy"] == 0.25
    left_out = [note for note in report.notes if "is left out: " in note]
    assert any("Mahalanobis" in note for note in left_out) and any("NECO" in note for note in left_out)
    assert [row.name for row in report.detection.rows] == [
        "max_softmax",
        "max_logit",
        "energy",
        "gen",
        "nearest_centre",
        "residual",
        "nci",
    ]
    assert math.isnan(report.detection["nci"].auroc) and report.detection["residual"].auroc == 0.5


def test_held_out_classes_below_the_least_count() -> None:
    inputs, labels = rows()
    few = torch.cat([torch.arange(0, 80, 4), torch.arange(1, 80, 4), torch.tensor([2])])
    report = measure(
        network(), [(inputs, labels)], test=[(inputs[few], labels[few])], min_count=2, per_class=True, progress=False
    )
    assert "test/cdnv" in report.values and "test/nc1" not in report.values
