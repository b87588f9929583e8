"""Which layers a choice means, by what they are read, and what the list of them says."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.models import CLASSES, MODELS, ResidualNet, TimmLike, draw, images, mlp, nested, picture, settled
from tightframe.errors import ChoiceError, LayerError
from tightframe.hooks import (
    Layer,
    Point,
    capture,
    choose_layers,
    classifier_input,
    clean_name,
    find_classifier,
    list_layers,
)
from tightframe.hooks.layers import reading_weight
from tightframe.statistics import StatisticsAccumulator

AUTO: dict[str, list[tuple[str, str | None]]] = {
    "mlp": [("1", "2"), ("3", "4"), ("input of 4", "4")],
    "lenet": [
        ("input of conv2", "conv2"),
        ("input of fc1", "fc1"),
        ("input of fc2", "fc2"),
        ("input of fc3", "fc3"),
    ],
    "convolutional": [
        ("features.3", "features.4"),
        ("features.5", None),
        ("classifier.1", "classifier.3"),
        ("input of classifier.3", "classifier.3"),
    ],
    "nested": [("0.3", None), ("1.0", "1.1"), ("1.2", None), ("2.3", "2.4"), ("input of 2.4", "2.4")],
    "residual": [*((f"layer{n}.{place}", None) for n in (1, 2, 3, 4) for place in (0, 1)), ("input of fc", "fc")],
    "timm": [
        ("stem.1", None),
        *((f"stages.{n}.{place}", None) for n in (0, 1) for place in (0, 1)),
        ("input of head.fc", "head.fc"),
    ],
    "encoder": [*((f"encoder.layers.{n}", None) for n in range(3)), ("input of fc", "fc")],
    "vit": [
        ("vit.embeddings", None),
        *((f"vit.layers.{n}", None) for n in range(3)),
        ("input of classifier", "classifier"),
    ],
    "resnet of transformers": [
        ("resnet.embedder", None),
        ("resnet.encoder.stages.0", None),
        ("resnet.encoder.stages.1", None),
        ("input of classifier.1", "classifier.1"),
    ],
    "gpt2": [*((f"transformer.h.{n}", None) for n in range(3)), ("input of lm_head", "lm_head")],
    "bert": [
        ("bert.embeddings", None),
        *((f"bert.encoder.layer.{n}", None) for n in range(3)),
        ("bert.pooler", None),
        ("input of classifier", "classifier"),
    ],
}
"""The names that "auto" means, each with the layer that reads it."""


def chosen(model: nn.Module, layers: Any = "auto") -> list[tuple[str, str | None]]:
    """Names of the points and of their readers."""
    names = {module: name for name, module in model.named_modules()}
    return [(point.name, point.reader and names[point.reader]) for point in choose_layers(model, layers)]


# ---------------------------------------------------------------------------------------------- auto


@pytest.mark.parametrize("name", MODELS)
def test_the_boundaries_of_blocks_and_what_reads_them(name: str) -> None:
    model = MODELS[name][0]()
    assert chosen(model) == AUTO[name]
    *inner, last = choose_layers(model, "auto")
    assert all(point.optional for point in inner)
    assert last == classifier_input(find_classifier(model))
    assert not last.optional
    modules = dict(model.named_modules())
    for point in [*inner, last]:
        assert point.module is modules[point.name.removeprefix("input of ")]
        assert point.is_input == point.name.startswith("input of ")


@pytest.mark.parametrize("name", MODELS)
def test_the_boundaries_are_called_in_their_order_and_give_features(name: str) -> None:
    build, inputs = MODELS[name]
    listed = list_layers(settled(build()), inputs(), layers="auto")
    assert [layer.name for layer in listed] == [name for name, _ in AUTO[name]]


@pytest.mark.parametrize("depths", [(1, 1, 1, 1), (1, 1, 3, 1), (3, 4, 6, 3)])
def test_residual_nets_of_any_depth(depths: tuple[int, ...]) -> None:
    blocks = [f"layer{n}.{place}" for n, depth in enumerate(depths, start=1) for place in range(depth)]
    assert [name for name, _ in chosen(ResidualNet(depths))] == [*blocks, "input of fc"]


class Split(nn.Module):
    """A body in a Sequential, and a head that is whatever is given."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def test_a_body_and_its_head() -> None:
    body = [("encoder.1", "encoder.2"), ("encoder.3", None)]
    assert chosen(Split(nn.Linear(8, 3))) == [*body, ("input of head", "head")]
    deep = nn.Sequential(OrderedDict(drop=nn.Dropout(), fc=nn.Linear(8, 3)))
    assert chosen(Split(deep)) == [*body, ("input of head.fc", "head.fc")]
    wide = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    assert chosen(Split(wide)) == [*body, ("head.1", "head.2"), ("input of head.2", "head.2")]


def test_what_follows_a_layer_is_part_of_its_block() -> None:
    model = nn.Sequential(
        nn.Dropout(),
        nn.ReLU(),  # before any layer: the input, which isn't a block
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout2d(),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Dropout(),
        nn.Identity(),
        nn.Flatten(),
        nn.Linear(4, 6),
        nn.Linear(6, 5),
        nn.Softplus(),
        nn.Unflatten(1, (5, 1, 1)),
        nn.Conv2d(5, 3, 1),
        nn.Flatten(),
        nn.LogSoftmax(-1),
    )
    assert chosen(model) == [("6", "10"), ("10", "11"), ("12", "14"), ("input of 14", "14")]


def test_a_model_without_a_linear_layer_has_its_blocks_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1))
    assert chosen(model) == [("1", "2"), ("3", None)]
    assert chosen(nn.Conv2d(1, 4, 3)) == []


def test_a_model_that_is_its_classifier() -> None:
    assert [name for name, _ in chosen(nn.Linear(4, 3))] == ["input of the model itself"]
    assert chosen(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))) == [("input of 1", "1")]


def test_the_classifier_may_be_another() -> None:
    model = TimmLike()
    points = choose_layers(model, "auto", find_classifier(model, "auxiliary"))
    assert points[-1].name == "input of auxiliary"
    assert points[-1].reader is model.auxiliary
    model = mlp()
    points = choose_layers(model, "auto", find_classifier(model, "2"))
    assert [point.name for point in points] == ["1", "input of 2", "4"]
    assert points[0].reader is model[2]


def test_parts_without_parameters_are_no_blocks() -> None:
    class Rescale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(2 * x)

    model = nn.Sequential(Rescale(), nn.Linear(4, 6), nn.Tanh(), Rescale(), nn.Linear(6, 3))
    assert [name for name, _ in chosen(model)] == ["2", "input of 4"]


def test_a_shared_block_is_one() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(block, block, nn.Linear(4, 3))
    assert [name for name, _ in chosen(model)] == ["0.1", "input of 2"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(x))


PARTS: dict[str, Callable[[Callable[[nn.Module], nn.Module]], nn.Module]] = {
    "blocks": lambda of: nn.Sequential(of(Block()), of(Block()), nn.Linear(5, CLASSES)),
    "classifier": lambda of: nn.Sequential(Block(), nn.ReLU(), of(nn.Linear(5, CLASSES))),
    "body": lambda of: nn.Sequential(of(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5))), nn.Linear(5, 4)),
    "layer": lambda of: nn.Sequential(of(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, CLASSES)),
    "head": lambda of: nn.Sequential(nn.Linear(5, 5), nn.ReLU(), of(nn.Sequential(nn.Dropout(), nn.Linear(5, 4)))),
    "list": lambda of: nn.Sequential(of(nn.Sequential(of(Block()), of(Block()))), nn.Linear(5, CLASSES)),
}


@pytest.mark.parametrize("kind", PARTS)
def test_compiled_parts_have_the_boundaries_of_plain_ones(kind: str) -> None:
    plain, x = PARTS[kind](lambda module: module), draw(3, 5).float()
    compiled = PARTS[kind](lambda module: torch.compile(module, backend="eager"))
    for mine, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        mine.data.copy_(theirs)
    expected = chosen(plain)
    assert len(expected) >= 2
    points = choose_layers(compiled, "auto")
    clean = {module: clean_name(name) for name, module in compiled.named_modules()}
    assert [(point.name, point.reader and clean[point.reader]) for point in points] == expected
    assert list_layers(compiled, x, layers="auto") == list_layers(plain, x, layers="auto")
    assert find_classifier(compiled).name == find_classifier(plain).name
    with capture(plain, "auto") as theirs, capture(compiled, "auto") as mine:
        plain.eval()(x)
        compiled.eval()(x)
    assert all(torch.equal(mine[name], theirs[name]) for name, _ in expected)


def test_normalisation_of_maps_and_embeddings_are_no_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.LayerNorm([8, 6, 6]), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6), nn.Linear(6, 3)
    )
    assert chosen(model) == [("2", "4"), ("4", "5"), ("input of 5", "5")]
    model = nn.Sequential(nn.Embedding(7, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    assert chosen(model) == [("3", "4"), ("input of 4", "4")]


# ---------------------------------------------------------------------------------------------- one dimension


def signals(*after: nn.Module, channels: int = 8) -> nn.Sequential:
    """A convolutional net of signals (N, 3, T) in one Sequential; what is given follows the first convolution."""
    return nn.Sequential(
        nn.Conv1d(3, channels, 3), *after, nn.Conv1d(channels, 12, 3), nn.ReLU(), MeanOverTime(), nn.Linear(12, CLASSES)
    )


class MeanOverTime(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


class Swish(nn.Module):
    """An activation that isn't torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class TimeFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT


class ConvolutionalBlock(nn.Module):
    """A residual block of signals, with any other layer that isn't used."""

    def __init__(self, *others: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.others = nn.ModuleList(others)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


AFTER: dict[str, list[nn.Module]] = {
    "activation": [nn.ReLU()],
    "nothing": [],
    "normalisation": [nn.BatchNorm1d(8), nn.GELU()],
    "groups": [nn.GroupNorm(2, 8), nn.Dropout()],
    "instances": [nn.ReLU(), nn.InstanceNorm1d(8)],
    "maximum": [nn.ReLU(), nn.MaxPool1d(2)],
    "mean": [nn.ReLU(), nn.AdaptiveAvgPool1d(5)],
    "layer": [nn.LayerNorm(14)],
    "somebody's": [Swish()],
    "somebody's and torch's": [Swish(), nn.AvgPool1d(2)],
}


@pytest.mark.parametrize("kind", AFTER)
def test_signals_have_their_channels_second(kind: str) -> None:
    model, x = signals(*AFTER[kind]), draw(2, 3, 16).float()
    *inner, last = list_layers(model, x, layers="auto")
    assert [layer.features for layer in inner][:1] == [8]
    assert last.features == 12
    *points, _ = choose_layers(model, "auto")
    assert points[0].feature_dim == 1
    assert isinstance(points[0].reader, nn.Conv1d)
    before = model[: len(AFTER[kind]) + 1].eval()(x)
    with capture(model.eval(), Layer("auto", "mean")) as features:
        model(x)
    torch.testing.assert_close(features[points[0].name], before.mean(2), rtol=1e-5, atol=1e-6)


def test_both_convolutions_of_a_plain_net_of_signals() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 12, 3), nn.ReLU())
    assert [layer.features for layer in list_layers(model, draw(2, 3, 16).float(), layers="auto")] == [8, 12]
    each = list_layers(model, draw(2, 3, 16).float(), layers=Layer("auto", "each"))
    assert [(layer.features, layer.samples_per_row) for layer in each] == [(8, 14), (12, 12)]


def test_a_net_of_signals_whose_layers_are_attributes() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 12, 3), nn.Linear(12, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x)))).mean(2))

    listed = list_layers(Plain(), draw(2, 3, 16).float(), layers="auto")
    assert [(layer.name, layer.features) for layer in listed] == [("input of conv2", 8), ("input of fc", 12)]


@pytest.mark.parametrize(
    ("layer", "features"),
    [
        (nn.Conv1d(8, 6, 3), 6),
        (nn.ConvTranspose1d(8, 6, 3), 6),
        (nn.BatchNorm1d(8), 8),
        (nn.InstanceNorm1d(8), 8),
        (nn.GroupNorm(4, 8), 8),
        (nn.MaxPool1d(2), 8),
        (nn.AvgPool1d(2), 8),
        (nn.LPPool1d(2, 2), 8),
        (nn.AdaptiveAvgPool1d(1), 8),
        (nn.AdaptiveMaxPool1d(3), 8),
        (ConvolutionalBlock(), 8),
        (ConvolutionalBlock(nn.Conv2d(2, 2, 1)), 8),
        (nn.Sequential(nn.Conv1d(8, 6, 3), nn.ReLU()), 6),
        (nn.Sequential(nn.Conv1d(8, 6, 1), nn.Flatten()), 60),
        (nn.ReLU(), 10),  # what can't be told is a transformer's (N, T, D)
        (nn.Linear(10, 5), 5),
        (ConvolutionalBlock(nn.Linear(2, 2)), 10),
        (ConvolutionalBlock(nn.GRU(2, 2)), 10),
        (ConvolutionalBlock(nn.MultiheadAttention(2, 1)), 10),
    ],
    ids=str,
)
def test_the_features_of_a_module_of_signals(layer: nn.Module, features: int) -> None:
    (listed,) = list_layers(nn.Sequential(layer), draw(2, 8, 10).float(), layers="0")
    assert listed.features == features
    *_, listed = list_layers(nn.Sequential(layer), draw(2, 8, 10).float(), layers=Layer("0", feature_dim=-1))
    assert listed.features == listed.shape[-1]


def test_batch_normalisation_of_rows() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    assert [layer.features for layer in list_layers(model, draw(3, 5).float(), layers=["auto", "1"])] == [8, 8]


def test_a_module_that_may_move_the_features_leaves_the_layout_to_what_reads_it() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), TimeFirst(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, CLASSES))
    listed = list_layers(model, draw(2, 3, 16).float(), layers="auto")
    assert [(layer.name, layer.features) for layer in listed] == [("2", 8), ("4", 6), ("input of 5", 6)]


@pytest.mark.parametrize("positions", ["each", "mean", "first", "last", "flatten"])
def test_positions_that_a_layer_says_are_taken_once(positions: str) -> None:
    model, x = nn.Sequential(nn.Conv1d(3, 8, 3)), draw(2, 3, 16).float()
    (said,) = list_layers(model, x, layers=Layer("0", positions))
    (asked,) = list_layers(model, x, layers="0", positions=positions)
    assert (said.features, said.samples_per_row) == (asked.features, asked.samples_per_row)


# ---------------------------------------------------------------------------------------------- parametrized weights


class Halved(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values / 2


def halved(layer: nn.Module) -> None:
    """Weight and bias parametrized alike."""
    for name, _ in list(layer.named_parameters()):
        nn.utils.parametrize.register_parametrization(layer, name, Halved())


PARAMETRIZED: dict[str, Callable[[nn.Module], Any]] = {
    "spectral": nn.utils.parametrizations.spectral_norm,
    "weight": nn.utils.parametrizations.weight_norm,
    "halved": halved,
}


@pytest.mark.parametrize("kind", PARAMETRIZED)
@pytest.mark.parametrize("name", ["mlp", "lenet", "convolutional", "nested", "residual", "timm"])
def test_parametrized_layers_are_the_layers_they_were(kind: str, name: str) -> None:
    model, plain = MODELS[name][0]().train(), MODELS[name][0]()
    for module in list(model.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            PARAMETRIZED[kind](module)
    before = picture(model)
    assert chosen(model) == AUTO[name]
    assert chosen(model, "*") == chosen(plain, "*")
    width = find_classifier(plain).weight.shape[1]
    for mine, theirs in zip(choose_layers(model, "auto"), choose_layers(plain, "auto"), strict=True):
        assert mine.feature_dim == theirs.feature_dim
        if mine.reader is not None:
            weights = reading_weight(mine.reader, width), reading_weight(theirs.reader, width)
            assert len({None if weight is None else weight.shape for weight in weights}) == 1
    assert picture(model) == before  # the estimate of a spectral norm too
    model.eval()
    torch.testing.assert_close(find_classifier(model).weight.float(), find_classifier(model).module.weight.detach())


def test_blocks_with_parametrized_weights_of_their_own_are_of_one_class() -> None:
    def build(parametrize: Callable[[nn.Module], Any]) -> nn.Module:
        blocks = [Block(), Block(), Block()]
        for block in blocks:
            block.weight = nn.Parameter(torch.ones(5, 5))
            parametrize(block)
        model = nn.Sequential(nn.Sequential(*blocks[:2]), blocks[2], nn.Linear(5, CLASSES))
        model.weight = nn.Parameter(torch.ones(5, 5))
        parametrize(model)
        return model

    assert chosen(build(lambda module: None)) == [("0.0", None), ("0.1", None), ("1", None), ("input of 2", "2")]
    model = build(lambda module: nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity()))
    assert [name for name, _ in chosen(model)] == ["0.0", "0.1", "1", "input of 2"]


def test_a_parametrized_net_of_signals() -> None:
    model = signals(nn.ReLU())
    for place in (0, 2):
        nn.utils.parametrizations.weight_norm(model[place])
    assert [layer.features for layer in list_layers(model, draw(2, 3, 16).float(), layers=["auto", "0"])][:2] == [8, 8]


# ---------------------------------------------------------------------------------------------- names


def test_patterns_give_each_module_once_in_order() -> None:
    model = nested()
    assert [p.name for p in choose_layers(model, ["2.*", "0", Layer("1.[12]"), "?.3"])] == [
        *("0", "0.3", "1.1", "1.2"),
        *("2.0", "2.1", "2.2", "2.3", "2.4"),
    ]
    assert [p.name for p in choose_layers(model, "*")] == [name for name, _ in model.named_modules() if name]
    assert not any(p.is_input or p.reader for p in choose_layers(model, "*"))


def test_points_of_patterns_are_optional_and_those_of_names_are_not() -> None:
    model = nested()
    for choice in ("*", "0.?", "1.[12]", "auto"):
        assert all(point.optional for point in choose_layers(model, choice) if not point.is_input)
    assert not any(point.optional for point in choose_layers(model, ["0", Layer("1.2")]))
    for several in ("0.*", "auto"):
        for choice, optional in (([several, "0.3"], False), (["0.3", several], True)):
            assert [point.optional for point in choose_layers(model, choice) if point.name == "0.3"] == [optional]


def test_a_name_with_brackets() -> None:
    model = nn.Sequential(OrderedDict([("a[0]", nn.Linear(5, 6)), ("a0", nn.Linear(6, 5)), ("b*", nn.Linear(5, 4))]))
    for name in ("a[0]", "b*"):
        assert choose_layers(model, name) == [Point(name, model.get_submodule(name))]
    assert [point.name for point in choose_layers(model, "a*")] == ["a[0]", "a0"]
    assert [point.name for point in choose_layers(model, "a[0-1]")] == ["a0"]


def shared_body() -> nn.Module:
    """A body under two names, empty modules, and a module that isn't registered."""
    model = nn.Module()
    model.body = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Sequential())
    model.again = model.body
    object.__setattr__(model, "hidden", nn.Linear(5, 6))
    return model


def test_a_module_with_two_names() -> None:
    model = shared_body()
    assert choose_layers(model, "again.0") == [Point("again.0", model.body[0])]
    assert choose_layers(model, "again.2") == [Point("again.2", model.body[2])]
    for choice in (["body.0", "again.0"], ["body.*", "again.0"]):
        names = [point.name for point in choose_layers(model, choice)]
        assert names[0] == "body.0" and len(set(names)) == len(names) and "again.0" not in names
    (point,) = choose_layers(model, ["again.0", Layer("body.0", "mean")])
    assert (point.name, point.positions, point.optional) == ("again.0", "mean", False)
    for name in ("hidden", "again.3", "again.*"):
        with pytest.raises(LayerError, match=r"no module of the model matches"):
            choose_layers(model, name)


def test_a_compiled_part_with_two_names() -> None:
    model = shared_body()
    inner = model.body
    model.body = model.again = torch.compile(inner, backend="eager")
    assert choose_layers(model, "again.0") == [Point("again.0", inner[0])]
    assert choose_layers(model, "again") == [Point("again", inner)]
    assert choose_layers(model, "body") == [Point("body", inner)]


def test_choices_of_positions_go_with_the_points() -> None:
    points = choose_layers(nested(), [Layer("0", "mean"), Layer("1.*", "flatten", 1), Layer("1.2"), "2"])
    assert [(p.name, p.positions, p.feature_dim) for p in points] == [
        ("0", "mean", None),
        ("1.0", "flatten", 1),
        ("1.1", "flatten", 1),
        ("1.2", None, None),
        ("2", None, None),
    ]
    *blocks, last = choose_layers(nested(), Layer("auto", "mean"))
    assert {p.positions for p in [*blocks, last]} == {"mean"}
    assert {p.feature_dim for p in blocks} == {None}
    assert last.feature_dim == -1  # the classifier's own
    pointwise = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1))
    assert [p.feature_dim for p in choose_layers(pointwise, "auto")] == [None, 1]
    assert [p.feature_dim for p in choose_layers(pointwise, Layer("auto", feature_dim=2))] == [2, 2]


def test_a_compiled_part_keeps_its_name() -> None:
    model = nested()
    expected = [name for name, _ in model.named_modules() if name]
    inner = model[1]
    model[1] = torch.compile(inner, backend="eager")
    points = choose_layers(model, "*")
    assert [point.name for point in points] == expected
    assert next(point for point in points if point.name == "1.2").module is inner[2]


@pytest.mark.parametrize("choice", ["3.*", Layer("nothing"), ["0", "0.9"]])
def test_what_matches_nothing(choice: Any) -> None:
    with pytest.raises(LayerError, match=r"no module of the model matches .*; choose from 0, 0\.0, .*2\.4\."):
        choose_layers(nested(), choice)


def test_a_layer_with_unknown_positions() -> None:
    with pytest.raises(ChoiceError, match="positions must be one of each, mean, first, last, flatten; got ''"):
        Layer("0", "")


# ---------------------------------------------------------------------------------------------- what reads


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), ()),
        (nn.Conv1d(6, 4, 3), (3,)),
        (nn.Conv2d(6, 4, (2, 3)), (2, 3)),
        (nn.Conv3d(6, 4, 2), (2, 2, 2)),
        (nn.Conv2d(6, 4, 1), (1, 1)),
    ],
    ids=["linear", "1d", "2d", "3d", "pointwise"],
)
def test_a_layer_reads_with_its_weight_at_every_offset(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """What it makes of one position alone, all others zero, at each offset, are the rows of the reading weight."""
    weight = reading_weight(layer, 6)
    assert weight is not None and not weight.requires_grad
    probe = draw(6).float()
    answers = []
    for place in product(*map(range, shape)):
        window = torch.zeros(1, 6, *shape)
        window[(0, slice(None), *place)] = probe
        answers.append((layer(window) - layer(torch.zeros_like(window))).flatten())
    expected = torch.cat(answers).sort().values
    assert len(expected) == 4 * max(1, torch.Size(shape).numel())
    torch.testing.assert_close((weight @ probe).sort().values, expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(24, 4),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Conv2d(12, 4, 3, groups=2),  # six features with each output, but not all of them
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 6, 3),  # its weight is (inputs, outputs, ...)
        nn.ConvTranspose2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.LayerNorm([4, 6]),
        nn.Embedding(4, 6),
        nn.ReLU(),
    ],
    ids=str,
)
def test_what_does_not_read_so_many_features(layer: nn.Module) -> None:
    assert reading_weight(layer, 6) is None


# ---------------------------------------------------------------------------------------------- the list


@pytest.mark.parametrize(
    ("positions", "features", "samples"),
    [
        ("mean", (4, 6, 8, 8), (1, 1, 1, 1)),
        ("each", (4, 6, 8, 8), (9, 4, 1, 1)),
        ("first", (4, 6, 8, 8), (1, 1, 1, 1)),
        ("flatten", (36, 24, 8, 8), (1, 1, 1, 1)),
    ],
)
def test_the_list(positions: str, features: tuple[int, ...], samples: tuple[int, ...]) -> None:
    model = settled(nested(), training=True)
    before = picture(model)
    listed = list_layers(model, images(8, 1), layers=["0", "1", "2.3", "2.2"], positions=positions)
    assert picture(model) == before
    assert [(layer.name, layer.kind, layer.shape) for layer in listed] == [
        ("0", "Sequential", (3, 4, 3, 3)),
        ("1", "Sequential", (3, 6, 2, 2)),
        ("2.2", "Linear", (3, 8)),
        ("2.3", "Tanh", (3, 8)),
    ]
    assert tuple(layer.features for layer in listed) == features
    assert tuple(layer.samples_per_row for layer in listed) == samples
    assert [str(layer).split() for layer in listed[2:]] == [
        ["2.2", "Linear", "(3,", "8)", "D", "=", "8", "0.2", "MiB"],
        ["2.3", "Tanh", "(3,", "8)", "D", "=", "8", "0.2", "MiB"],
    ]


def test_layers_may_say_themselves_what_becomes_of_positions() -> None:
    listed = list_layers(
        settled(nested()), images(8, 1), layers=["0", Layer("1", "flatten"), Layer("1.2", "each", feature_dim=3)]
    )
    assert [(layer.name, layer.features, layer.samples_per_row) for layer in listed] == [
        ("0", 4, 1),
        ("1.2", 2, 12),
        ("1", 24, 1),
    ]


def test_by_default_every_module_that_gave_features_in_the_order_of_the_calls() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early, self.never = nn.Linear(4, 3), nn.Linear(5, 4), nn.Linear(5, 5)

        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.late(self.late(F.pad(self.early(scale * x), (0, 0))).repeat(1, 2)[:, :4])

    listed = list_layers(Reversed(), x=draw(2, 5).float(), scale=3.0)
    assert [(layer.name, layer.shape) for layer in listed] == [("early", (2, 4)), ("late", (2, 3)), ("late#2", (2, 3))]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_samples_that_differ_in_length_are_listed() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2).eval()
    x, padding = draw(3, 5, 8).float(), torch.arange(5) >= torch.tensor([[5], [2], [4]])
    for options in ({}, {"positions": "first"}, {"layers": Layer("layers.*", "last", feature_dim=2)}):
        listed = list_layers(encoder, x, src_key_padding_mask=padding, **({"layers": "layers.?"} | options))
        found = [(layer.name, layer.shape, layer.features, layer.samples_per_row) for layer in listed]
        assert found[-1] == ("layers.1", (3, 8), 8, 1)
    with pytest.raises(LayerError, match="differ in length; set positions to mean, first or last"):
        list_layers(encoder, x, src_key_padding_mask=padding, layers="layers.?", positions="each")


@pytest.mark.parametrize("positions", ["mean", "each", "first"])
def test_a_batch_without_rows_is_listed_as_one_with_rows(positions: str) -> None:
    model = settled(nested())
    some = list_layers(model, images(8, 1), layers="*", positions=positions)
    none = list_layers(model, images(8, 1)[:0], layers="*", positions=positions)
    assert [(row.name, row.features, row.samples_per_row) for row in none] == [
        (row.name, row.features, row.samples_per_row) for row in some
    ]
    assert {row.shape[0] for row in none} == {0}


def test_a_wrapped_model_is_listed_bare() -> None:
    model, x = mlp(), draw(2, 5).float()
    expected = list_layers(model, x)
    assert [layer.name for layer in expected] == ["0", "1", "2", "3", "4"]
    assert list_layers(torch.compile(nn.DataParallel(model), backend="eager"), x) == expected


def test_an_unknown_layer_is_not_listed() -> None:
    with pytest.raises(LayerError, match="matches 'fc'"):
        list_layers(mlp(), draw(2, 5).float(), layers="fc")


def state_bytes(num_classes: int, num_features: int, covariance: bool) -> int:
    """The tensors of an accumulator that has seen data, and those of its result."""
    accumulator = StatisticsAccumulator(num_classes, num_features, covariance=covariance)
    features = draw(2 * num_classes, num_features).float()
    accumulator.update(features, torch.arange(2 * num_classes) % num_classes)
    kept = sum(tensor.nbytes for tensor in accumulator.buffers())
    result = accumulator.compute()
    return kept + result.means.nbytes + (0 if result.within is None else result.within.nbytes)


@pytest.mark.parametrize(
    ("classes", "dim", "covariance"), [(5, 1000, True), (5, 1000, False), (1000, 64, False), (1000, 300, True)]
)
def test_bytes_are_about_those_of_an_accumulator(classes: int, dim: int, covariance: bool) -> None:
    model = nn.Sequential(nn.Linear(5, dim), nn.ReLU(), nn.Linear(dim, CLASSES))
    (layer,) = list_layers(model, draw(2, 5).float(), layers="1")
    assert layer.features == dim
    said, real = layer.statistics_bytes(classes, covariance=covariance), state_bytes(classes, dim, covariance)
    assert real / 1.3 <= said <= 2 * real


def test_points_are_values() -> None:
    model = mlp()
    assert choose_layers(model, "1") == choose_layers(model, ["1"]) == [Point("1", model[1])]
