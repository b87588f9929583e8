"""The gap between features in eval mode and under the data's own statistics: batch normalisation that lags behind."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks.models import CLASSES, draw, picture
from tightframe import Monitor, Report
from tightframe import measure as measure_with_folds
from tightframe.errors import BlipWarning
from tightframe.hooks import capture, classifier_input, evaluation, find_classifier
from tightframe.sources import normalisation
from tightframe.sources.normalisation import GAP, NormalisationCheck

Batches = list[tuple[Tensor, Tensor]]

measure = partial(measure_with_folds, folds=None)  # standard errors take most of a measurement's time
NAME = "input of fc"


class Network(nn.Module):
    """Two batch normalisations, of which the second decides what flows into the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Linear(6, 12), nn.BatchNorm1d(12)
        self.second, self.norm2 = nn.Linear(12, 8), nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))))

    def features(self, x: Tensor, own: bool) -> Tensor:
        """What flows into the classifier, under the running averages or the rows' own statistics, by hand."""
        for layer, norm in ((self.first, self.norm1), (self.second, self.norm2)):
            x = layer(x)
            mean, variance = (x.mean(0), x.var(0, correction=0)) if own else (norm.running_mean, norm.running_var)
            x = torch.relu((x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias)
        return x.detach()


def data(rows: int = 200, size: int = 32, *, by_class: bool = False) -> Batches:
    labels = torch.arange(rows) % CLASSES
    if by_class:
        labels = labels.sort().values
    inputs = 2 * draw(CLASSES, 6, seed=1)[labels] + draw(rows, 6)
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def matched(model: Network, inputs: Tensor) -> Network:
    """The running averages are those of these inputs."""
    torch.manual_seed(3)
    with torch.no_grad():
        for layer, norm in ((model.first, model.norm1), (model.second, model.norm2)):
            inputs = layer(inputs)
            norm.running_mean.copy_(inputs.mean(0))
            norm.running_var.copy_(inputs.var(0, correction=0))
            norm.num_batches_tracked.fill_(9)
            inputs = torch.relu(norm(inputs))
    return model


def network(*, stale: bool = False, loader: Batches | None = None) -> Network:
    torch.manual_seed(3)
    model = Network().double().eval()
    matched(model, torch.cat([inputs for inputs, _ in loader or data()]))
    if stale:
        with torch.no_grad():
            model.norm1.running_mean += 3 * model.norm1.running_var.sqrt() * torch.tensor([1.0, -1.0] * 6)
            model.norm2.running_var[::2] *= 100
    return model


def correlation(first: Tensor, second: Tensor) -> float:
    """Of two tables of features, each column about its mean, all entries together."""
    pairs = [(a - first.mean(0), b - second.mean(0)) for a, b in zip(first, second, strict=True)]
    products = sum(float(a @ b) for a, b in pairs)
    lengths = sum(float(a @ a) for a, _ in pairs), sum(float(b @ b) for _, b in pairs)
    return products / (lengths[0] * lengths[1]) ** 0.5


# ---------------------------------------------------------------------------------------------- the gap


@pytest.mark.parametrize("size", [200, 32, 7])
@pytest.mark.parametrize("stale", [False, True])
def test_the_gap_is_one_minus_the_correlation(stale: bool, size: int) -> None:
    model, loader = network(stale=stale), data(size=size)
    inputs = torch.cat([x for x, _ in loader])
    report = measure(model, loader, progress=False)
    expected = 1 - correlation(model.features(inputs, own=False), model.features(inputs, own=True))
    assert (expected > 0.1) == stale
    assert report.facts.normalisation_gap == pytest.approx(expected, rel=1e-9, abs=1e-12)
    blips = [note for note in report.notes if "blip" in note]
    assert len(blips) == stale
    if stale:
        assert f"a correlation of {1 - expected:.3f}, below {1 - GAP}" in blips[0]


def test_averages_that_match_leave_no_gap() -> None:
    gap = measure(network(), data(), progress=False).facts.normalisation_gap
    assert abs(gap) < 1e-10


def test_a_shift_and_a_scale_of_all_features_are_no_gap() -> None:
    """They change no measure; here the last layer before the classifier is a normalisation that lags in scale alone."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False, eps=1e-14), nn.Linear(8, CLASSES)).double()
    loader = data()
    hidden = model[0](torch.cat([x for x, _ in loader])).detach()
    model[1].running_mean.copy_(hidden.mean(0) + 5)
    model[1].running_var.copy_(9 * hidden.var(0, correction=0))
    model[1].num_batches_tracked.fill_(1)
    assert abs(measure(model, loader, progress=False).facts.normalisation_gap) < 1e-10


def test_the_gap_is_a_fact_of_the_layers_reports_too_and_the_note_the_classifiers() -> None:
    report = measure(network(stale=True), data(), layers="first", progress=False)
    (layer,) = report.layers
    assert layer.facts.normalisation_gap == report.facts.normalisation_gap > GAP
    assert [note for note in report.notes if "blip" in note]
    assert not [note for note in layer.notes if "blip" in note]


@pytest.mark.parametrize("rows", [3000, 256, 257, 769])
def test_of_many_samples_some_from_all_over(rows: int) -> None:
    """A loader sorted by class, run batch by batch, would give each class statistics of its own."""
    loader = data(rows, 40, by_class=True)
    model = network(loader=loader)
    gap = measure(model, loader, progress=False).facts.normalisation_gap
    shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
    inputs, labels = (torch.cat(parts)[shuffled] for parts in zip(*loader, strict=True))
    mixed = list(zip(inputs.split(40), labels.split(40), strict=True))
    assert abs(gap) < GAP / 2
    assert abs(measure(model, mixed, progress=False).facts.normalisation_gap) < GAP / 2
    batchwise = torch.cat([model.features(x, own=True) for x, _ in loader])
    assert 1 - correlation(model.features(inputs_of(loader), own=False), batchwise) > 2 * GAP  # what is avoided


def inputs_of(loader: Batches) -> Tensor:
    return torch.cat([inputs for inputs, _ in loader])


@pytest.mark.parametrize("rows", [100, 256, 257, 512, 513, 3000])
@pytest.mark.parametrize("size", [1, 33, 700])
def test_which_rows_are_kept(rows: int, size: int) -> None:
    """At least 128 where there are so many, no more than 256, evenly spaced from the first, and nothing else."""
    model = network()
    with evaluation(model), capture(model, [classifier_input(find_classifier(model))]) as captured:
        check = NormalisationCheck(model, captured, NAME)
        for inputs in torch.arange(rows).double()[:, None].expand(-1, 6).split(size):
            check.see((inputs, "text"), {"same": inputs}, {NAME: 1000 + inputs, "other": inputs})
    kept = torch.cat([part.args[0] for part in check._parts])
    assert torch.equal(torch.cat([part.kwargs["same"] for part in check._parts]), kept)
    assert torch.equal(torch.cat([part.features for part in check._parts]), 1000 + kept)
    for part in check._parts:
        for tensor in (part.args[0], part.kwargs["same"], part.features):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes  # not a view of a whole batch
    assert len(check._parts) <= 256  # what has lost all its rows is gone
    numbers = kept[:, 0].int().tolist()
    assert min(rows, 128) <= len(numbers) <= 256
    assert numbers == list(range(0, rows, numbers[1] - numbers[0]))


# ---------------------------------------------------------------------------------------------- nothing changes


def test_averages_are_the_same_tensors_with_the_same_values() -> None:
    model = network(stale=True).train()
    before = picture(model)
    tensors = {name: id(buffer) for name, buffer in model.named_buffers()}
    measure(model, data(), progress=False)
    assert picture(model) == before
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == tensors


class NeedsAverages(Network):
    """Reads its averages, as a normalisation of somebody's own may."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0 * self.norm1.running_mean[:1])


class NeedsItsBatchSize(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(25, 6))


class DropsRows(Network):
    """Of large batches."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:100])


@pytest.mark.parametrize("kind", [NeedsAverages, NeedsItsBatchSize, DropsRows])
def test_a_model_that_cannot_be_run_like_that_is_measured_without_the_check(kind: type[Network]) -> None:
    model = kind().double()
    model.load_state_dict(network(stale=True).state_dict())
    before = picture(model)
    report = measure(model, data(size=25), progress=False)
    assert picture(model) == before
    assert report.facts.normalisation_gap is None
    assert report.values == measure(network(stale=True), data(size=25), progress=False).values


def test_the_values_of_a_report_do_not_depend_on_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(stale=True)
    expected = measure(model, data(), layers="second", progress=False)
    monkeypatch.setattr(NormalisationCheck, "gap", lambda self: None)
    report = measure(model, data(), layers="second", progress=False)
    assert report.facts.normalisation_gap is None
    assert report.values == expected.values
    assert report.layers[0].values == expected.layers[0].values


# ---------------------------------------------------------------------------------------------- where there is none


def gap_of(model: nn.Module, loader: Any, **options: Any) -> Any:
    report = measure(model, loader, progress=False, **options)
    assert not [note for note in report.notes if "blip" in note]
    gap = report.facts.normalisation_gap
    return "none" if gap is None else gap


def test_no_batch_normalisation() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.Linear(8, CLASSES)).double()
    assert gap_of(model, data()) == "none"


def test_batch_normalisation_without_averages() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, CLASSES)).double()
    assert gap_of(model, data()) == "none"


def test_averages_that_were_never_trained() -> None:
    model = network(stale=True)
    for norm in (model.norm1, model.norm2):
        norm.num_batches_tracked.zero_()
    assert gap_of(model, data()) == "none"
    model.norm2.num_batches_tracked.fill_(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = measure(model, data(), progress=False)
    assert report.facts.normalisation_gap > GAP


class Padded(nn.Module):
    """Called by keyword with tokens of any length, a mask and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.fc = nn.Embedding(11, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor, mask: Tensor, *, scale: float = 1.0, flag: str = "") -> Tensor:
        hidden = (scale * self.embed(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.fc(self.norm(hidden))


def padded(*lengths: int, rows: int = 40) -> list[dict[str, Any]]:
    """Batches of tokens, every second row half masked."""
    found = []
    for number, length in enumerate(lengths):
        ids = torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(number))
        mask = torch.ones(rows, length, dtype=torch.float64)
        mask[::2, length // 2 :] = 0
        found.append({"ids": ids, "mask": mask, "labels": ids[:, 0] % CLASSES, "scale": 2.0, "flag": "text"})
    return found


@pytest.mark.parametrize("stale", [False, True])
def test_models_that_are_called_by_keyword(stale: bool) -> None:
    model, loader = Padded().double().eval(), padded(6, 6, 6)
    hidden = []
    for batch in loader:
        ids, mask = batch["ids"], batch["mask"]
        hidden.append(torch.stack([2 * model.embed(i)[m > 0].mean(0) for i, m in zip(ids, mask, strict=True)]).detach())
    rows = torch.cat(hidden)
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    model.norm.running_mean.copy_(mean)
    model.norm.running_var.copy_(variance * torch.tensor([1.0, 100.0] * 4) if stale else variance)
    model.norm.num_batches_tracked.fill_(5)
    eps = model.norm.eps
    own, averaged = ((rows - mean) / torch.sqrt(v + eps) for v in (variance, model.norm.running_var))
    report = measure(model, loader, progress=False)
    expected = 1 - correlation(own, averaged)
    assert (expected > 0.1) == stale
    assert report.facts.normalisation_gap == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_batches_that_do_not_fit_together() -> None:
    model = Padded().double()
    model.norm.num_batches_tracked.fill_(5)
    assert gap_of(model, padded(6, 7, 6)) == "none"
    assert measure(model, padded(6, 6, 6), progress=False).facts.normalisation_gap is not None


def test_one_row_has_no_statistics_of_its_own() -> None:
    model = network()
    with evaluation(model), capture(model, [classifier_input(find_classifier(model))]) as captured:
        check = NormalisationCheck(model, captured, NAME)
        assert check.gap() is None
        for number in range(2):
            inputs = draw(1, 6, seed=number)
            model(inputs)
            check.see((inputs,), {}, captured.take())
            assert (check.gap() is None) == (number == 0)


class Lenient(nn.Module):
    """Takes a pair or several crops of each sample, and a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(6), nn.Linear(6, CLASSES)
        self.norm.num_batches_tracked.fill_(3)
        self.norm.running_var.copy_(torch.tensor([1.0, 50.0] * 3))

    def forward(self, x: Any, factor: Any = None) -> Tensor:
        x = x[0] - x[1] if isinstance(x, tuple) else x
        x = x if factor is None else x * factor
        return self.fc(torch.relu(self.norm(x.reshape(-1, 6))))


FACTOR = torch.linspace(1, 2, 6, dtype=torch.float64)[None]


def other_arguments(kind: str, *sizes: int) -> list[dict[str, Any]]:
    found = []
    for number, size in enumerate(sizes):
        labels = torch.arange(size) % CLASSES
        x = draw(size, 6, seed=number) + draw(CLASSES, 6, seed=99)[labels]
        made: dict[str, dict[str, Any]] = {
            "pair": {"x": (x, draw(size, 6, seed=number + 50))},
            "0-d tensor": {"x": x, "factor": torch.tensor(2.0, dtype=torch.float64)},
            "number": {"x": x, "factor": 2.0},
            "None": {"x": x, "factor": None},
            "one row for all": {"x": x, "factor": FACTOR},
            "crops": {"x": x.reshape(size // 2, 2, 6)},
        }
        found.append({**made[kind], "labels": labels})
    return found


@pytest.mark.parametrize("kind", ["0-d tensor", "number", "None", "one row for all"])
def test_what_is_the_same_for_all_rows_stays(kind: str) -> None:
    model, loader = Lenient().double(), other_arguments(kind, 60, 60, 60)
    factor = {"None": 1.0, "one row for all": FACTOR}.get(kind, 2.0)
    rows = torch.cat([batch["x"] for batch in loader]) * factor
    averaged = (rows - model.norm.running_mean) / torch.sqrt(model.norm.running_var + model.norm.eps)
    own = (rows - rows.mean(0)) / torch.sqrt(rows.var(0, correction=0) + model.norm.eps)
    expected = 1 - correlation(averaged.relu(), own.relu())
    assert expected > 0.01
    report = measure(model, loader, progress=False)
    assert report.facts.normalisation_gap == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(60, 60, 60), (40,) * 12, (700,)])
@pytest.mark.parametrize("kind", ["pair", "crops"])
def test_what_cannot_be_split_by_rows_is_measured_without_the_check(kind: str, sizes: tuple[int, ...]) -> None:
    model, loader = Lenient().double(), other_arguments(kind, *sizes)
    assert gap_of(model, loader) == "none"
    assert measure(model, loader, progress=False).facts.samples == sum(sizes)


def test_a_convolutional_net_with_a_class_for_every_pixel() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, CLASSES, 1)
    ).double()
    inputs, labels = draw(10, 2, 5, 5), torch.arange(250).reshape(10, 5, 5) % CLASSES
    norm = model[1]
    norm.running_mean.copy_(torch.tensor([2.0, -2.0] * 3))
    norm.num_batches_tracked.fill_(1)
    report = measure(model, [(inputs[:7], labels[:7]), (inputs[7:], labels[7:])], progress=False)
    maps = model[0](inputs).detach().permute(0, 2, 3, 1).reshape(-1, 6)
    averaged = (maps - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps)
    own = (maps - maps.mean(0)) / torch.sqrt(maps.var(0, correction=0) + norm.eps)
    expected = 1 - correlation(averaged.relu(), own.relu())
    assert expected > 0.05
    assert report.facts.normalisation_gap == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------------------------------- warnings


def measured_by_a_monitor(model: nn.Module, **settings: Any) -> Report:
    return Monitor(model, progress=False, **settings).measure(data(), epoch=2.5)


@pytest.mark.parametrize("settings", [{}, {"samples": 120}, {"layers": "first"}])
def test_a_monitor_warns_of_a_blip(settings: dict[str, Any]) -> None:
    with pytest.warns(BlipWarning) as caught:
        report = measured_by_a_monitor(network(stale=True), **settings)
    (note,) = [note for note in report.notes if "blip" in note]
    (warning,) = caught
    assert str(warning.message) == f"epoch 2.5: {note}"
    assert warning.filename == __file__.replace(".pyc", ".py")


def test_a_monitor_is_silent_otherwise() -> None:
    report = measured_by_a_monitor(network())  # a warning would be an error
    assert abs(report.facts.normalisation_gap) < 1e-10
    measured_by_a_monitor(nn.Linear(6, CLASSES).double())


def test_one_row_for_all_and_a_part_of_which_one_row_is_kept() -> None:
    """The row for all then looks like that part's own row."""
    report = measure(Lenient().double(), other_arguments("one row for all", 20, *[80] * 100), progress=False)
    assert 0 < report.facts.normalisation_gap < 1


def test_what_is_the_same_in_each_batch_but_not_in_all() -> None:
    """The first batch's would be used for the rows of all."""
    loader = other_arguments("number", 60, 60, 60)
    loader[0]["factor"] = 1000.0
    assert measure(Lenient().double(), loader, progress=False).facts.normalisation_gap is None
    loader = other_arguments("0-d tensor", 60, 60, 60)
    loader[0]["factor"] = torch.tensor(1000.0, dtype=torch.float64)
    assert measure(Lenient().double(), loader, progress=False).facts.normalisation_gap is None


def test_rows_that_memory_doesnt_hold_arent_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows have averages of their own, and a batch of many could be beyond the device."""
    model, loader = Lenient().double(), other_arguments("number", *[60] * 5)
    assert measure(model, loader, progress=False).facts.normalisation_gap is not None
    per_row = 8 * (6 + 6)  # inputs and features
    monkeypatch.setattr(normalisation, "_BYTES", 40 * per_row)
    sizes = []
    model.register_forward_pre_hook(lambda module, args, kwargs: sizes.append(len(kwargs["x"])), with_kwargs=True)
    measure(model, loader, progress=False)
    assert max(sizes) == 60  # never more than the loader's batches
    monkeypatch.setattr(normalisation, "_BYTES", 10 * per_row)
    assert measure(model, loader, progress=False).facts.normalisation_gap is None
