"""`capture`: the features that the model's own pieces give when they are run by hand, and nothing left behind."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from hooks.models import (
    CLASSES,
    MODELS,
    BasicBlock,
    Convolutional,
    Encoder,
    LeNet,
    ResidualNet,
    bert,
    draw,
    gpt2,
    images,
    in_one_process,
    mlp,
    picture,
    residual_transformers,
    settled,
    tokens,
    vit,
)
from tightframe.errors import ChoiceError, LayerError, ShapeError
from tightframe.hooks import CapturedFeatures, Layer, Point, capture, choose_layers, classifier_input, find_classifier

Features = dict[str, Tensor]


def assert_equal(captured: Mapping[str, Tensor], expected: Features, rtol: float = 0.0) -> None:
    """The same names in the same order, shapes, dtypes and values; without a tolerance every bit."""
    assert list(captured) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            captured[name], tensor.detach(), rtol=rtol, atol=rtol, msg=lambda m, n=name: f"{n}: {m}"
        )


def chain(model: nn.Sequential, inputs: Tensor) -> Features:
    """What every module of a Sequential gives, in copies, as later ones may work in place."""
    found = {}
    for name, module in model.named_children():
        inputs = module(inputs.clone())
        found[name] = inputs.detach().clone()
    return found


def first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


# ---------------------------------------------------------------------------------------------- by hand


def lenet_by_hand(model: Any, x: Tensor) -> Features:
    found = {"conv1": model.conv1(x)}
    found["conv2"] = model.conv2(F.max_pool2d(F.relu(found["conv1"]), 2))
    found["fc1"] = model.fc1(F.relu(found["conv2"]).flatten(1))
    found["fc2"] = model.fc2(F.relu(found["fc1"]))
    found["fc3"] = model.fc3(F.relu(found["fc2"]))
    return found


def block_by_hand(block: BasicBlock, x: Tensor) -> Tensor:
    hidden = F.relu(block.bn1(block.conv1(x)))
    return F.relu(block.bn2(block.conv2(hidden)) + (x if block.downsample is None else block.downsample(x)))


def residual_by_hand(model: Any, x: Tensor) -> Features:
    found = {"conv1": model.conv1(x)}
    found["bn1"] = model.bn1(found["conv1"])
    hidden = F.max_pool2d(F.relu(found["bn1"]), 2)
    for number in (1, 2, 3, 4):
        for place, block in enumerate(getattr(model, f"layer{number}")):
            hidden = found[f"layer{number}.{place}"] = block_by_hand(block, hidden)
    found["fc"] = model.fc(hidden.mean((2, 3)))
    return found


def encoder_by_hand(model: Any, ids: Tensor) -> Features:
    found = {"embed": model.embed(ids)}
    hidden = found["embed"]
    for number, layer in enumerate(model.encoder.layers):
        attention = layer.self_attn(hidden, hidden, hidden, need_weights=False)[0]
        hidden = layer.norm1(hidden + attention)
        hidden = layer.norm2(hidden + layer.linear2(F.relu(layer.linear1(hidden))))
        found[f"encoder.layers.{number}"] = hidden
    found["fc"] = model.fc(hidden.mean(1))
    return found


def vit_by_hand(model: Any, x: Tensor) -> Features:
    hidden = model.vit.embeddings(x)
    found = {"vit.embeddings": hidden}
    for number, layer in enumerate(model.vit.layers):
        hidden = found[f"vit.layers.{number}"] = first(layer(hidden))
    found["vit.layernorm"] = model.vit.layernorm(hidden)
    found["classifier"] = model.classifier(found["vit.layernorm"][:, 0])
    return found


def resnet_by_hand(model: Any, x: Tensor) -> Features:
    embedder = model.resnet.embedder
    found = {"resnet.embedder": embedder.pooler(embedder.embedder(x))}
    hidden = found["resnet.embedder"]
    for number, stage in enumerate(model.resnet.encoder.stages):
        for layer in stage.layers:
            hidden = layer.activation(layer.layer(hidden) + layer.shortcut(hidden))
        found[f"resnet.encoder.stages.{number}"] = hidden
    found["classifier.1"] = model.classifier[1](hidden.mean((2, 3)))
    return found


def gpt2_by_hand(model: Any, ids: Tensor) -> Features:
    body = model.transformer
    hidden = body.wte(ids) + body.wpe(torch.arange(ids.shape[1]))
    found = {}
    for number, block in enumerate(body.h):
        hidden = found[f"transformer.h.{number}"] = first(block(hidden))
    found["transformer.ln_f"] = body.ln_f(hidden)
    found["lm_head"] = model.lm_head(found["transformer.ln_f"])
    return found


def bert_by_hand(model: Any, ids: Tensor) -> Features:
    hidden = model.bert.embeddings(ids)
    found = {"bert.embeddings": hidden}
    for number, layer in enumerate(model.bert.encoder.layer):
        attended = layer.attention.output(first(layer.attention.self(hidden)), hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
        found[f"bert.encoder.layer.{number}"] = hidden
    found["bert.pooler"] = torch.tanh(model.bert.pooler.dense(hidden[:, 0]))
    found["classifier"] = model.classifier(found["bert.pooler"])
    return found


BY_HAND: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Tensor], Features], Callable[[], Tensor]]] = {
    "lenet": (LeNet, lenet_by_hand, lambda: images(10, 1)),
    "residual": (ResidualNet, residual_by_hand, lambda: images(16)),
    "encoder": (Encoder, encoder_by_hand, lambda: tokens(3, 7)),
    "vit": (vit, vit_by_hand, images),
    "resnet of transformers": (residual_transformers, resnet_by_hand, lambda: images(16)),
    "gpt2": (gpt2, gpt2_by_hand, lambda: tokens(3, 7)),
    "bert": (bert, bert_by_hand, lambda: tokens(3, 7)),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", BY_HAND)
def test_features_are_those_of_the_pieces_run_by_hand(name: str, grad: bool) -> None:
    build, by_hand, inputs = BY_HAND[name]
    model, x = settled(build()), inputs()
    with torch.no_grad():
        expected = by_hand(model, x)
        output = model(x)
    with torch.set_grad_enabled(grad), capture(model, list(expected)) as features:
        again = model(x)
    assert_equal(features, expected, rtol=1e-12)
    logits = output if isinstance(output, Tensor) else output.logits
    torch.testing.assert_close(again if isinstance(again, Tensor) else again.logits, logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(features[list(expected)[-1]], logits, rtol=1e-12, atol=1e-12)
    assert all(len(set(map(float, tensor.flatten()))) > len(x) for tensor in expected.values())  # nothing is constant


def test_a_sequential_gives_every_bit_of_its_modules() -> None:
    model, x = mlp(), draw(7, 5).float()
    with capture(model, "*") as features:
        model(x)
    assert_equal(features, chain(model, x))


def test_a_convolutional_net_whose_channels_are_last_in_memory() -> None:
    model = settled(Convolutional()).to(memory_format=torch.channels_last)
    x = images(8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        grids = chain(model.features, x)
        flat = chain(model.classifier, model.pool(grids["5"]).flatten(1))
    expected = {f"features.{name}": tensor for name, tensor in grids.items() if name != "4"}
    expected["classifier.1"] = flat["1"]
    with capture(model, list(expected)) as features:
        model(x)
    assert_equal(features, expected)
    for name in ("features.0", "features.5"):
        assert features[name].is_contiguous(memory_format=torch.channels_last)
        assert not features[name].is_contiguous()
    with capture(model, Layer("features.5", positions="mean")) as features:
        model(x)
    torch.testing.assert_close(features["features.5"], grids["5"].mean((2, 3)), rtol=1e-14, atol=0)


def test_the_input_of_a_classifier() -> None:
    model, x = settled(LeNet()), images(10, 1)
    point = classifier_input(find_classifier(model))
    with capture(model, ["fc2", point]) as features:
        model(x)
    hidden = lenet_by_hand(model, x)["fc2"]
    assert_equal(features, {"fc2": hidden, "input of fc3": F.relu(hidden)})
    assert features.point_of("input of fc3") is point


class ByKeyword(nn.Module):
    """Calls its layers with keywords, the features not first."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(5, 6), nn.Linear(6, CLASSES)
        self.mixer = Mixer()

    def forward(self, *, x: Tensor) -> Tensor:
        return self.fc(input=self.mixer(scale=2.0, hidden=self.body(input=x)))


class Mixer(nn.Module):
    def forward(self, scale: float, hidden: Tensor) -> Tensor:
        return scale * hidden


def test_modules_that_are_called_by_keyword() -> None:
    model, x = ByKeyword(), draw(3, 5).float()
    with capture(model, ["body", "mixer", classifier_input(find_classifier(model))]) as features:
        model(x=x)
    hidden = model.body(x)
    assert_equal(features, {"body": hidden, "mixer": 2 * hidden, "input of fc": 2 * hidden})


# ---------------------------------------------------------------------------------------------- which layers


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("features.0", ["features.0"]),
        (Layer("pool"), ["pool"]),
        (["classifier.3", "features.0"], ["features.0", "classifier.3"]),  # in the order of the calls
        ("features.[03]", ["features.0", "features.3"]),
        ("classifier.?", ["classifier.0", "classifier.1", "classifier.2", "classifier.3"]),
        ("*s", ["features"]),
        (["pool", "p*", Layer("pool")], ["pool"]),  # once, however often it is meant
        (["classifier*"], ["classifier.0", "classifier.1", "classifier.2", "classifier.3", "classifier"]),
        (iter(["pool"]), ["pool"]),
        ("auto", ["features.3", "features.5", "classifier.1", "input of classifier.3"]),
        (["pool", "auto"], ["features.3", "features.5", "pool", "classifier.1", "input of classifier.3"]),
        ([], []),
    ],
)
def test_names_and_patterns(layers: Any, names: list[str]) -> None:
    model, x = settled(Convolutional()), images()
    with capture(model, layers) as features:
        assert len(features) == 0
        model(x)
    assert list(features) == names
    assert len(features) == len(names)
    with capture(model, "*") as everything:
        model(x)
    for name, tensor in features.items():
        source = {"input of classifier.3": "classifier.2"}.get(name, name)  # dropout does nothing in eval mode
        assert torch.equal(tensor, everything[source]), name


def test_the_last_choice_says_what_becomes_of_positions() -> None:
    model, x = settled(Convolutional()), images()
    with capture(model, [Layer("features.*", "first"), Layer("features.5", "flatten"), "features.3"]) as features:
        model(x)
    shapes = {name: tuple(tensor.shape) for name, tensor in features.items()}
    assert shapes == {
        "features.0": (3, 4),
        "features.1": (3, 4),
        "features.2": (3, 4),
        "features.3": (3, 4, 4, 4),
        "features.4": (3, 6),
        "features.5": (3, 24),
    }


def rows_by_loops(features: Tensor, dim: int, positions: str) -> Tensor:
    """What `positions` makes of features whose D entries are in `dim`, place by place."""
    N, D = features.shape[0], features.shape[dim]
    others = [d for d in range(1, features.ndim) if d != dim]
    made = []
    for n in range(N):
        places = torch.cartesian_prod(*[torch.arange(features.shape[d]) for d in others]).reshape(-1, len(others))
        rows = []
        for place in places.tolist():
            row = features[n]
            for d, index in sorted(zip(others, place, strict=True), reverse=True):
                row = row.select(d - 1, index)
            rows.append(row)
        entries = [features[n][place] for place in product(*map(range, features.shape[1:]))]  # as torch.nn.Flatten
        at = {
            "first": rows[0],
            "last": rows[-1],
            "mean": torch.stack(rows).mean(0),
            "flatten": torch.stack(entries),
        }
        each = torch.stack(rows).reshape(*(features.shape[d] for d in others), D)
        made.append(each if positions == "each" else at[positions])
    return torch.stack(made)


class Shapes(nn.Module):
    """Makes features of any shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.reshape(-1, *self.shape))


@pytest.mark.parametrize("positions", ["each", "mean", "first", "last", "flatten"])
@pytest.mark.parametrize(
    ("shape", "given", "dim"),
    [
        ((6,), None, 1),
        ((3, 6), None, 2),
        ((6, 3), 1, 1),
        ((6, 3, 2), None, 1),
        ((3, 2, 6), 3, 3),
        ((3, 2, 6), -1, 3),
        ((6, 2, 3, 2), None, 1),
    ],
)
def test_positions(positions: str, shape: tuple[int, ...], given: int | None, dim: int) -> None:
    model, x = Shapes(*shape), draw(2, *shape)
    with capture(model, Layer("inner", positions, given)) as features:
        model(x)
    expected = x if len(shape) == 1 else rows_by_loops(x, dim, positions)  # without positions there is nothing to do
    torch.testing.assert_close(features["inner"], expected, rtol=1e-14, atol=1e-15)


def test_a_mean_of_half_precision_is_taken_in_float32() -> None:
    model, x = Shapes(1000, 2), torch.full((1, 1000, 2), 1.001, dtype=torch.bfloat16)
    x[:, 1:] = 1 + torch.rand(1, 999, 2).to(torch.bfloat16)
    with capture(model, Layer("inner", "mean")) as features:
        model(x)
    assert features["inner"].dtype is torch.float32
    torch.testing.assert_close(features["inner"].double(), x.double().mean(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dim", [3, -4])
def test_a_feature_dimension_that_is_not_there(dim: int) -> None:
    model = Shapes(3, 6)
    with (
        pytest.raises(ShapeError, match=rf"shape \(2, 3, 6\) have no dimension {dim}"),
        capture(model, Layer("inner", "each", dim)),
    ):
        model(draw(2, 3, 6))


def test_unknown_positions() -> None:
    with pytest.raises(ChoiceError, match="one of each, mean, first, last, flatten; got 'average'"):
        Layer("inner", "average")


# ---------------------------------------------------------------------------------------------- calls


class Twice(nn.Module):
    """One layer called three times, between which another is called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between = nn.Linear(5, 5), nn.Tanh()

    def forward(self, x: Tensor, times: int = 3) -> Tensor:
        for _ in range(times):
            x = self.between(self.shared(x))
        return x


def test_a_module_that_is_called_several_times() -> None:
    model, x = Twice(), draw(3, 5).float()
    expected, hidden = {}, x
    for number in ("", "#2", "#3"):
        expected[f"shared{number}"] = model.shared(hidden)
        hidden = torch.tanh(expected[f"shared{number}"])
        expected[f"between{number}"] = hidden
    with capture(model, ["between", "shared"]) as features:
        model(x)
    order = ["shared", "shared#2", "shared#3", "between", "between#2", "between#3"]  # of the first calls
    assert_equal(features, {name: expected[name] for name in order})
    assert all(features.point_of(name).name == name.split("#")[0] for name in order)


def test_only_the_latest_pass_is_there() -> None:
    model, x = Twice(), draw(3, 5).float()
    twice, thrice = model.shared(2 * x), model.shared(3 * x)
    with capture(model, ["shared"]) as features:
        model(x)
        assert len(features) == 3
        model(2 * x, times=1)
        assert_equal(features, {"shared": twice})
        model(3 * x, times=1)
    assert_equal(features, {"shared": thrice})  # it is still there after the context


class Flipping(nn.Module):
    """Averages over an image and its mirror image by calling itself, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc, self.fails = nn.Linear(5, 6), nn.Linear(6, CLASSES), False

    def forward(self, x: Tensor, flipping: bool = True) -> Tensor:
        hidden = self.body(x)
        mirrored = self(x.flip(1), flipping=False) if flipping else 0
        if self.fails and not flipping:
            raise ValueError("told to")
        return self.fc(hidden) + mirrored

    def training_step(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)).sum()


def test_a_model_that_calls_itself_keeps_what_came_before() -> None:
    model, x = Flipping(), draw(3, 5).float()
    expected = {"body": model.body(x), "body#2": model.body(x.flip(1))}
    expected |= {"fc": model.fc(expected["body#2"]), "fc#2": model.fc(expected["body"])}
    with capture(model, "*") as features:
        model(2 * x)
        model(x)
        assert_equal(features, expected)
        model.fails = True
        with pytest.raises(ValueError, match="told to"):
            model(3 * x)
        assert list(features) == ["body", "body#2"]
        model.fails = False
        model(x)
        assert_equal(features, expected)


@pytest.mark.parametrize("whole", [False, True])
def test_without_a_call_of_the_model_there_is_the_latest_pass_too(whole: bool) -> None:
    model, x = Flipping(), draw(3, 5).float()
    expected = {"body": model.body(3 * x), "fc": model.fc(model.body(3 * x))}
    with capture(model, "*") as features:
        if whole:
            model(x)
        for factor in (1, 2, 3):
            model.training_step(factor * x)
            assert len(features) == 2
        assert_equal(features, expected)
        assert len(features.take()) == 2
        model.body(x)
        assert list(features) == ["body"]


def test_parts_that_the_forward_pass_leaves_to_the_caller_belong_to_it() -> None:
    model, x = Flipping(), draw(3, 5).float()
    model.projection = nn.Linear(CLASSES, 2)
    with capture(model, ["body", "projection"]) as features:
        for factor in (1, 2):
            expected = {"body": model.body(factor * x), "projection": model.projection(model(factor * x, False))}
            features.take()
            model.projection(model(factor * x, False))
            assert_equal(features, expected)


def test_a_hook_that_refuses_the_call_leaves_passes_apart() -> None:
    model, x = Flipping(), draw(3, 5).float()

    def refuse(*_: Any) -> None:
        raise ValueError("refused")

    hook = model.register_forward_pre_hook(refuse)  # before that of the capture
    with capture(model, "body") as features:
        with pytest.raises(ValueError, match="refused"):
            model(x)
        hook.remove()
        for _ in range(2):
            model(x)
            assert list(features) == ["body", "body#2"]


def test_a_model_that_a_backward_pass_runs_again() -> None:
    model, x = Flipping(), draw(3, 5).float().requires_grad_()
    expected = {"body": model.body(2 * x), "body#2": model.body(2 * x.flip(1))}
    with capture(model, "body") as features:
        for factor in (1, 2):
            checkpoint(model, factor * x, use_reentrant=False).sum().backward()
    assert_equal(features, expected)


def test_take_gives_the_features_and_forgets_them() -> None:
    model, x = mlp(), draw(3, 5).float()
    with capture(model, ["0", "3"]) as features:
        model(x)
        expected = {"0": features["0"], "3": features["3"]}
        taken = features.take()
        assert type(taken) is dict
        assert list(taken) == ["0", "3"]
        assert all(taken[name] is expected[name] for name in expected)
        assert len(features) == 0
        assert features.take() == {}
        model(x)
        assert list(features) == ["0", "3"]


def test_a_mapping() -> None:
    model, x = mlp(), draw(3, 5).float()
    with capture(model, ["3", "1"]) as features:
        model(x)
        assert isinstance(features, Mapping)
        assert list(features) == list(features.keys()) == ["1", "3"]
        assert [tuple(tensor.shape) for tensor in features.values()] == [(3, 8), (3, 6)]
        assert "1" in features
        assert "0" not in features
        assert features.get("0") is None
        assert features.get("0", x) is x
        assert features.get("1") is features["1"]
        with pytest.raises(KeyError, match="'0' is not captured; choose from 1, 3"):
            features["0"]


# ---------------------------------------------------------------------------------------------- kinds of outputs


class Returning(nn.Module):
    """An inner module that returns whatever it is told to."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = Wrapping(wrap)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Wrapping(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x)


def model_output(**fields: Tensor) -> Any:
    pytest.importorskip("transformers")
    from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

    return (SequenceClassifierOutput if "logits" in fields else BaseModelOutputWithPooling)(**fields)


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, 2 * x),
    "list": lambda x: [x, 2 * x],
    "scalar first": lambda x: (x.mean(), x),
    "vector first": lambda x: (x[:, 0], x),
    "integers first": lambda x: (torch.ones(3, 2, dtype=torch.int64), x),
    "mask first": lambda x: (x > 0, x),
    "None first": lambda x: (None, "text", 7, x),
    "nested": lambda x: (None, [None, (x.mean(), {"a": None, "b": (x, 2 * x)})], 3 * x),
    "dict": lambda x: {"loss": x.mean(), "hidden": x, "other": 2 * x},
    "ordered dict": lambda x: OrderedDict(hidden=x, other=2 * x),
    "last_hidden_state": lambda x: {"attention": 2 * x, "logits": 3 * x, "last_hidden_state": x},
    "logits": lambda x: {"attention": 2 * x, "logits": x},
    "model output": lambda x: model_output(last_hidden_state=x, pooler_output=2 * x),
    "model output without states": lambda x: model_output(loss=x.mean(), logits=x, hidden_states=(2 * x, 3 * x)),
    "model output in a tuple": lambda x: (model_output(last_hidden_state=x), 2 * x),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs(kind: str) -> None:
    model, x = Returning(OUTPUTS[kind]), draw(3, 5).float()
    with capture(model, "inner") as features:
        model(x)
    assert_equal(features, {"inner": x})


@pytest.mark.parametrize("wrap", [lambda x: x.mean(), lambda x: x.long(), lambda x: None, lambda x: ("text", {}, [])])
def test_an_output_without_features(wrap: Callable[[Tensor], Any]) -> None:
    model = Returning(wrap)
    with capture(model, "inner") as features:
        model(draw(3, 5))
        assert list(features) == []
        with pytest.raises(LayerError, match=r"did not call 'inner', or it returned no floating-point tensor\."):
            features["inner"]


def test_outputs_of_a_whole_model_of_transformers() -> None:
    model, ids = settled(bert()), tokens(2, 5)
    with capture(model, "bert") as features:
        model(ids)
    assert_equal(features, {"bert": bert_by_hand(model, ids)["bert.encoder.layer.2"]}, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- precision


def test_under_autocast_features_are_those_of_autocast() -> None:
    model, x = mlp(), draw(3, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = chain(model, x)
        with capture(model, "*") as features:
            model(x)
    assert [tensor.dtype for tensor in features.values()] == [torch.bfloat16] * 5
    assert_equal(features, expected)
    assert not torch.equal(features["4"].float(), model(x))  # float32 would be something else


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision(dtype: torch.dtype) -> None:
    model, x = mlp().to(dtype), draw(3, 5).to(dtype)
    with capture(model, "*") as features:
        model(x)
    assert_equal(features, chain(model, x))
    assert features["0"].dtype is dtype


# ---------------------------------------------------------------------------------------------- compiled


class Counting:
    """A backend of `torch.compile` that counts the calls of the graphs it was given."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return run


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def with_compiled_part(model: ResidualNet, backend: Any) -> ResidualNet:
    model.layer2[0] = torch.compile(model.layer2[0], backend=backend)
    return model


COMPILATIONS: dict[str, Callable[[ResidualNet, Any], nn.Module]] = {
    "whole": lambda model, backend: torch.compile(model, backend=backend),
    "in place": lambda model, backend: model.compile(backend=backend) or model,
    "a part": with_compiled_part,
    "a part in place": lambda model, backend: model.layer2[0].compile(backend=backend) or model,
    "part and whole": lambda model, backend: torch.compile(with_compiled_part(model, backend), backend=backend),
}


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", COMPILATIONS)
def test_a_compiled_model_runs_eagerly_in_the_context_and_compiled_again_afterwards(way: str, used: bool) -> None:
    backend, x = Counting(), images(16)
    with torch.no_grad():
        plain = settled(ResidualNet())
        expected = {name: tensor for name, tensor in residual_by_hand(plain, x).items() if name != "conv1"}
        block = plain.layer2[0]
        hidden = F.relu(block.bn1(block.conv1(expected["layer1.1"])))
        expected["layer2.0.conv2"] = block.conv2(hidden)
        model = COMPILATIONS[way](plain, backend)
        if used:
            model(x)
            assert backend.calls > 0  # else the test says nothing
        before = backend.calls
        with capture(model, list(expected)) as features:
            inside = model(x)
        assert_equal({name: features[name] for name in expected}, expected, rtol=1e-12)
        assert len(features) == len(expected)
        assert backend.calls == before
        features.take()
        outside = model(x)
        assert backend.calls > before
        assert len(features) == 0
    torch.testing.assert_close(outside, inside, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_backends(backend: str) -> None:
    model, x = mlp(), draw(3, 5).float()
    expected = chain(model, x)
    compiled = torch.compile(model, backend=backend)
    compiled(x)
    with capture(compiled, ["*"]) as features:
        compiled(x).sum().backward()
    assert_equal(features, expected)
    compiled(x).sum().backward()


@pytest.mark.usefixtures("_fresh_compiler")
def test_an_error_in_the_context_leaves_the_model_compiled() -> None:
    backend, x = Counting(), draw(3, 5).float()
    model = torch.compile(mlp(), backend=backend)
    with pytest.raises(RuntimeError), capture(model, "0"):
        model(x[:, :2])
    model(x)
    assert backend.calls == 1


# ---------------------------------------------------------------------------------------------- data parallelism


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("compiled", ["", "around", "inside"])
def test_distributed_data_parallel(compiled: str, tmp_path: Path) -> None:
    model, x = mlp(), draw(3, 5).float()
    expected = chain(model, x)
    if compiled == "inside":
        model = torch.compile(model, backend="eager")

    def body() -> None:
        wrapped: nn.Module = DistributedDataParallel(model)
        if compiled == "around":
            wrapped = torch.compile(wrapped, backend="eager")
        for _ in range(2):
            with capture(wrapped, "*") as features:
                wrapped(x).sum().backward()
            assert_equal(features, expected)
            wrapped(x).sum().backward()

    in_one_process(tmp_path, body)


def test_data_parallel_without_a_second_device() -> None:
    model, x = mlp(), draw(3, 5).float()
    wrapped = nn.DataParallel(model)
    with capture(wrapped, "*") as features:
        wrapped(x)
        wrapped(2 * x)
    assert_equal(features, chain(model, 2 * x))


class Elsewhere(Tensor):
    """A tensor that says it lies on another device while it is computed here; those of two devices don't mix."""

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> "Elsewhere":
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=device)

    def __init__(self, inner: Tensor, device: torch.device) -> None:
        self.inner = inner

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def here(value: Any) -> Any:
            return value.inner if isinstance(value, cls) else value

        leaves, options = torch.utils._pytree.tree_leaves(args), dict(kwargs or {})
        devices = {value.device for value in leaves if isinstance(value, cls)}
        assert len(devices) == 1, devices
        device = options.pop("device", None) or next(iter(devices))
        result = func(*torch.utils._pytree.tree_map(here, args), **options)
        return torch.utils._pytree.tree_map(
            lambda value: cls(value, torch.device(device)) if isinstance(value, Tensor) else value, result
        )


class TwoDevices(nn.DataParallel):
    """Replicas as torch makes them, each in a thread of its own; the last begins and ends first."""

    def __init__(self, module: nn.Module, *devices: int) -> None:
        super().__init__(module)
        self.device_ids = list(devices)

    def forward(self, x: Tensor) -> Tensor:
        shares = zip(x.split(4), self.device_ids, strict=True)
        parts = [Elsewhere(part, torch.device("xla", number)) for part, number in shares]
        outputs: list[Any] = [None] * len(parts)
        for number in reversed(range(len(parts))):
            replica = self._replica(self.module)

            def work(number: int = number, replica: nn.Module = replica) -> None:
                with torch.no_grad():
                    outputs[number] = replica(parts[number])

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return torch.cat([output.inner for output in outputs])

    def _replica(self, module: nn.Module) -> nn.Module:
        replica = module._replicate_for_data_parallel()
        for name, parameter in module._parameters.items():
            setattr(replica, name, parameter)
        for name, child in module._modules.items():
            replica._modules[name] = self._replica(child)
        return replica


@pytest.mark.parametrize("devices", [(0, 1), (1, 0), (3, 2)])
def test_the_shares_of_two_devices_are_put_together_in_the_order_of_the_batch(devices: tuple[int, int]) -> None:
    """The devices are made up, all else is as on two: replicas that share hooks, threads, another order of arrival."""
    model, x = Twice(), draw(7, 5).float()
    wrapped = TwoDevices(model, *devices)
    with torch.no_grad():
        expected = {"shared": model.shared(x)}
        hidden = expected["shared"]
        for number in (2, 3):
            expected[f"shared#{number}"] = hidden = model.shared(torch.tanh(hidden))
        with capture(wrapped, "shared") as features:
            wrapped(2 * x)
            output = wrapped(x)
    torch.testing.assert_close(output, torch.tanh(hidden), rtol=1e-6, atol=1e-7)
    assert list(features) == list(expected)
    for name, tensor in features.items():
        assert tensor.device == torch.device("xla", devices[0])
        torch.testing.assert_close(tensor.inner, expected[name], rtol=1e-6, atol=1e-7)


def test_a_parallel_part_that_is_called_without_the_model() -> None:
    model, x = nn.Module(), draw(7, 5).float()
    model.net = TwoDevices(mlp(), 0, 1)
    with capture(model, "net.module.0") as features:
        for factor in (2, 1):
            model.net(factor * x)
    shares = [tensor.inner for _, tensor in features._records]
    torch.testing.assert_close(torch.cat(shares[::-1]), model.net.module[0](x).detach(), rtol=1e-6, atol=1e-7)


def test_a_head_embeds_with_the_replica_that_was_called() -> None:
    """The weights of the original lie on the first device only."""

    class Head(nn.Linear):
        decides_linearly, follows_labels, prototypes = True, False, None

        def embed(self, x: Tensor) -> Tensor:
            used.append(self)
            return 2 * x

    used: list[nn.Module] = []
    model, x = nn.Sequential(nn.Linear(5, 6), Head(6, CLASSES)), draw(7, 5).float()
    wrapped = TwoDevices(model, 0, 1)
    with capture(wrapped, [classifier_input(find_classifier(model))]) as features:
        wrapped(x)
    assert len(used) == 2
    assert model[1] not in used
    (tensor,) = features.values()
    torch.testing.assert_close(tensor.inner, 2 * model[0](x).detach(), rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------------------------------------- what the model does on


def test_operations_in_place_do_not_reach_what_was_captured() -> None:
    """A block of the residual net adds in place to its second normalisation and rectifies twice in place."""
    model, x = settled(BasicBlock(4, 4)), images(6, 4)
    with torch.no_grad():
        first = model.bn1(model.conv1(x))
        second = model.bn2(model.conv2(F.relu(first)))
        with capture(model, ["bn1", "bn2", "relu"]) as features:
            output = model(x)
    assert (first < 0).any() and (second < 0).any()  # else rectifying would do nothing
    expected = {"bn1": first, "relu": F.relu(first), "bn2": second, "relu#2": F.relu(second + x)}
    assert set(features) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(features[name], tensor), name
    assert torch.equal(output, expected["relu#2"])
    output.zero_()
    assert torch.equal(features["relu#2"], expected["relu#2"])


@pytest.mark.parametrize("positions", [None, "each", "mean", "first", "last", "flatten"])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 6), (6, 1, 1), (6, 3, 2)])
def test_no_positions_leave_a_view_of_the_models_memory(positions: str | None, shape: tuple[int, ...]) -> None:
    model, x = nn.Sequential(nn.Identity(), Erase()), 1 + draw(2, *shape).abs()
    with capture(model, Layer("0", positions)) as features:
        model(x)
    assert not x.any()
    assert (features["0"] >= 1).all()


class Erase(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.zero_()


def test_what_is_done_to_features_does_not_reach_the_model() -> None:
    model, x = mlp(), draw(3, 5).float()
    expected = model(x)
    with capture(model, "*") as features:

        def erase(*_: Any) -> None:
            features["0"].zero_()

        hook = model[1].register_forward_hook(erase)
        output = model(x)
        hook.remove()
    assert torch.equal(output, expected)
    assert not features["0"].any()


def encoder_of_torch() -> tuple[nn.TransformerEncoder, Tensor, Tensor]:
    """Sequences of 5, 2 and 4 tokens; in eval mode torch runs the layers on nested tensors."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2).eval()
    lengths = torch.tensor([5, 2, 4])
    return encoder, draw(3, 5, 8).float(), torch.arange(5) >= lengths[:, None]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("positions", ["mean", "first", "last"])
def test_samples_that_differ_in_length(positions: str) -> None:
    encoder, x, padding = encoder_of_torch()
    with torch.no_grad():
        with capture(encoder, Layer("layers.*", positions)) as features:
            encoder(x, src_key_padding_mask=padding)
        expected = []
        for sample, padded in zip(x, padding, strict=True):
            alone = encoder.layers[0](sample[None, ~padded])[0]  # without padding nothing is nested
            expected.append({"mean": alone.mean(0), "first": alone[0], "last": alone[-1]}[positions])
    torch.testing.assert_close(features["layers.0"], torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("positions", [None, "each", "flatten"])
def test_samples_that_differ_in_length_have_no_common_shape(positions: str | None) -> None:
    encoder, x, padding = encoder_of_torch()
    before = picture(encoder)
    with (
        pytest.raises(LayerError, match=r"samples at 'layers\.0' differ in length; set .* mean, first or last"),
        torch.no_grad(),
        capture(encoder, Layer("layers.0", positions)),
    ):
        encoder(x, src_key_padding_mask=padding)
    assert picture(encoder) == before


def test_distributed_tensors(tmp_path: Path) -> None:
    """They have no storage of their own."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate

    def body() -> None:
        mesh = init_device_mesh("cpu", (1,))
        model, x = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), draw(3, 5)
        with capture(model, "*") as features:
            output = model(DTensor.from_local(x.clone(), mesh, [Replicate()]))
        assert torch.equal(output.to_local(), x.relu())
        assert torch.equal(features["0"].to_local(), x)
        assert torch.equal(features["1"].to_local(), x.relu())

    in_one_process(tmp_path, body)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_backward_pass_runs_again_is_not_captured(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.fc, self.runs = nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(checkpoint(self.counted, x, use_reentrant=reentrant))

        def counted(self, x: Tensor) -> Tensor:
            self.runs += 1
            return self.block(x)

    model, x = Checkpointed(), draw(2, 5).float().requires_grad_()
    expected = {"block.0": model.block[0](x), "block": model.block(x)}
    with capture(model, ["block", "block.0"]) as features:
        model(x).sum().backward()
    assert model.runs == 2
    assert_equal(features, expected)


# ---------------------------------------------------------------------------------------------- gradients and modes


def test_gradients_are_those_without_a_capture() -> None:
    model, x = settled(Convolutional(), training=True), images()
    model.classifier[2].eval()
    other = settled(Convolutional(), training=True)
    other.load_state_dict(model.state_dict())
    other.classifier[2].eval()
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    other(inputs[1]).square().sum().backward()
    with capture(model, ["*", classifier_input(find_classifier(model))]) as features:
        output = model(inputs[0])
        output.square().sum().backward()
    assert output.requires_grad
    assert len(features) == 14
    assert not any(tensor.requires_grad or tensor.grad_fn is not None for tensor in features.values())
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad.any()
        assert torch.equal(mine.grad, theirs.grad)
    for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_grad_mode_is_the_callers(mode: Callable[[], Any]) -> None:
    model, x = mlp(), draw(3, 5).float()
    seen = []
    hook = model[2].register_forward_hook(
        lambda *_: seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
    )
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with capture(model, "*") as features:
            model(x)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    hook.remove()
    assert seen == [before]
    assert_equal(features, {name: tensor.clone() for name, tensor in chain(model, x).items()})


def test_modes_are_not_touched() -> None:
    model = settled(Convolutional(), training=True)
    model.features[1].eval()
    seen = []
    hooks = [m.register_forward_hook(lambda module, *_: seen.append(module.training)) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    model(images())
    expected, seen[:] = list(seen), []
    with capture(model, "auto"):
        assert [module.training for module in model.modules()] == modes
        model(images())
    for hook in hooks:
        hook.remove()
    assert seen == expected
    assert [module.training for module in model.modules()] == modes
    assert True in modes and False in modes


# ---------------------------------------------------------------------------------------------- nothing left behind


def use(model: nn.Module, x: Tensor) -> None:
    with capture(model, ["*", "auto"]) as features:
        model(x)
    assert len(features) > 3


def use_twice_at_once(model: nn.Module, x: Tensor) -> None:
    with capture(model, "*") as outer, capture(model, "auto") as inner:
        model(x)
    assert all(torch.equal(tensor, outer[name]) for name, tensor in inner.items() if name in outer)
    assert 0 < len(inner) < len(outer)


def fail_in_the_forward_pass(model: nn.Module, x: Tensor) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)), capture(model, ["*", "auto"]):
        model(x.reshape(-1))


def fail_inside_the_context(model: nn.Module, x: Tensor) -> None:
    def fail() -> None:
        with capture(model, ["*", "auto"]):
            model(x)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def fail_in_a_hook(model: nn.Module, x: Tensor) -> None:
    """The features of a model with others than four dimensions have no dimension 7."""
    with pytest.raises(ShapeError), capture(model, Layer("*", "each", feature_dim=7)):
        model(x)


def ask_for_an_unknown_layer(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(LayerError), capture(model, ["*", "nothing like it"]):
        pass


USES = [
    use,
    use_twice_at_once,
    fail_in_the_forward_pass,
    fail_inside_the_context,
    fail_in_a_hook,
    ask_for_an_unknown_layer,
]


@pytest.mark.parametrize("way", USES)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_behind(name: str, way: Callable[[nn.Module, Tensor], None]) -> None:
    build, inputs = MODELS[name]
    model, x = settled(build()), inputs()
    calls = []
    other = list(model.modules())[1]
    other.register_forward_hook(lambda *_: calls.append("after"))  # somebody else's
    other.register_forward_pre_hook(lambda *_: calls.append("before"))
    other.training = True
    with torch.no_grad():
        model(x)  # some models keep things of their first pass
        before = picture(model)
        way(model, x)
        assert picture(model) == before
        calls.clear()
        model(x)
    assert calls == ["before", "after"]


def test_the_picture_would_show_a_hook_a_mode_or_a_value() -> None:
    model = settled(Convolutional())
    before = picture(model)
    assert picture(model) == before
    hook = model.pool.register_forward_hook(lambda *_: None)
    assert picture(model) != before
    hook.remove()
    assert picture(model) == before
    model.pool.training = True
    assert picture(model) != before
    model.pool.training = False
    with torch.no_grad():
        model.classifier[0].bias[0] += 1e-12
    assert picture(model) != before
    model.features[1].num_batches_tracked = model.features[1].num_batches_tracked.clone()  # equal, but another
    model.classifier[0].bias.data[0] -= 1e-12
    assert picture(model) != before


# ---------------------------------------------------------------------------------------------- refusals


def test_an_unknown_name_is_answered_with_the_modules() -> None:
    with (
        pytest.raises(LayerError, match=r"^no module of the model matches 'body\.\*'; choose from 0, 1, 2, 3, 4\.$"),
        capture(mlp(), ["0", "body.*"]),
    ):
        pass


def test_of_many_modules_the_first_twenty_are_named() -> None:
    model = nn.Sequential(*[nn.Identity() for _ in range(21)])
    with pytest.raises(LayerError, match=r"choose from 0, 1, .*, 18, 19, \.\.\.\.$"), capture(model, "x"):
        pass
    with pytest.raises(LayerError, match=r"choose from 0, 1, .*, 18, 19\.$"), capture(model[:20], "x"):
        pass
    with pytest.raises(LayerError, match=r"choose from none\.$"), capture(nn.Linear(2, 2), "x"):
        pass


@pytest.mark.parametrize("pattern", ["", "Features.0", "features.0.0"])
def test_names_must_match_as_they_are(pattern: str) -> None:
    with pytest.raises(LayerError, match=f"matches {pattern!r}"), capture(Convolutional(), pattern):
        pass


def test_a_layer_that_is_not_called() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 6), nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model, x = Unused(), draw(3, 5).float()
    with capture(model, ["used", "unused"]) as features:
        for name in ("used", "unused"):
            with pytest.raises(LayerError, match=f"the forward pass did not call '{name}'"):
                features[name]
        model(x)
        assert list(features) == ["used"]
        with pytest.raises(LayerError, match="the forward pass did not call 'unused'"):
            features["unused"]
        with pytest.raises(KeyError, match="'other' is not captured; choose from used, unused"):
            features["other"]


def test_points_are_taken_as_they_are() -> None:
    model, x = mlp(), draw(3, 5).float()
    points = choose_layers(model, [Layer("0", "mean"), "3"])
    assert all(isinstance(point, Point) for point in points)
    with capture(model, points) as features:
        assert isinstance(features, CapturedFeatures)
        model(x)
    assert list(features.points.values()) == points
    expected = chain(model, x)
    assert_equal(features, {name: expected[name] for name in ("0", "3")})


def test_a_part_of_the_model_can_be_run_alone() -> None:
    """Before a full pass and after one."""
    model = mlp()
    x = draw(3, 5).to(next(model.parameters()).dtype)
    with capture(model, "0") as features:
        model[0](x)
        before = features.take()
        model(x)
        features.take()
        model[0](x)
        after = features.take()
    assert list(before) == list(after) == ["0"]
    assert torch.equal(before["0"], after["0"])
