"""A head in a classifier's place and back; heads folded into plain layers; both exported."""

import io
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heads.cases import CURVED, KINDS, LINEAR, assert_close, draw
from thinned import beyond
from tightframe import prototypes
from tightframe.errors import ClassCountWarning, ClassifierError, ShapeError, TightframeError
from tightframe.heads import (
    DeepNCM,
    GuidedHead,
    HierarchicalHead,
    PrototypeHead,
    UnitLength,
    decision_layer,
    fold,
    replace_classifier,
)
from tightframe.hierarchy import Hierarchy

CLASSES = 4

# ---------------------------------------------------------------------------------------------- models


class Timm(nn.Module):
    """A model of timm's: it names its classifier, and it isn't its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc, self.auxiliary = nn.Linear(5, 6), nn.Linear(6, CLASSES), nn.Linear(6, 2)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        self.fc = nn.Linear(6, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).relu())


def sequential() -> tuple[nn.Module, Tensor, str]:
    parts = OrderedDict(body=nn.Linear(5, 6), act=nn.ReLU(), top=nn.Sequential(nn.Dropout(0.5), nn.Linear(6, CLASSES)))
    return nn.Sequential(parts), draw(3, 5, dtype=torch.float32), "top.1"


def timm() -> tuple[nn.Module, Tensor, str]:
    return Timm(), draw(3, 5, dtype=torch.float32), "fc"


def segmentation() -> tuple[nn.Module, Tensor, str]:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, CLASSES, 1))
    return model, draw(2, 3, 5, 4, dtype=torch.float32), "2"


def resnet() -> tuple[nn.Module, Tensor, str]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic", num_labels=CLASSES
    )
    return transformers.ResNetForImageClassification(config), draw(2, 3, 16, 16, dtype=torch.float32), "classifier.1"


def vit() -> tuple[nn.Module, Tensor, str]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_labels=CLASSES,
    )
    return transformers.ViTForImageClassification(config), draw(2, 3, 8, 8, dtype=torch.float32), "classifier"


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor, str]]] = {
    "sequential": sequential,
    "timm": timm,
    "segmentation": segmentation,
    "resnet": resnet,
    "vit": vit,
}


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """The logits in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        result = model.eval()(x)
    for module, training in modes:
        module.training = training
    return getattr(result, "logits", result)


# ---------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", MODELS)
def test_to_an_etf_and_back(name: str) -> None:
    """Three lines; the logits are the head's on the same features, and later the model's own again, bit for bit."""
    model, x, place = MODELS[name]()
    before = outputs(model, x)
    seen: list[Tensor] = []
    hook = model.get_submodule(place).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    outputs(model, x)
    hook.remove()

    head = PrototypeHead(prototypes.simplex(CLASSES, 6))
    classifier = replace_classifier(model, head)
    logits = outputs(model, x)

    assert model.get_submodule(place) is head
    assert logits.shape == before.shape
    assert not torch.equal(logits, before)
    torch.testing.assert_close(logits, head(seen[0]))
    assert replace_classifier(model, classifier) is head
    assert model.get_submodule(place) is classifier
    assert torch.equal(outputs(model, x), before)


@pytest.mark.parametrize("name", MODELS)
def test_every_head_takes_the_place(name: str) -> None:
    """Also one after the other, without the classifier in between; gradients reach the backbone."""
    model, x, place = MODELS[name]()
    labels = torch.arange(12) % CLASSES
    following = DeepNCM(CLASSES, 6), GuidedHead(prototypes.simplex(CLASSES, 6))
    for head in following:
        head(draw(12, 6, dtype=torch.float32), labels)
    tree = Hierarchy.from_nested({"r": {"a": ["0", "1"], "b": ["2", "3"]}})
    projected = PrototypeHead(prototypes.simplex(CLASSES, 8), 6, logits="euclidean", learnable=True, learn_scale=True)
    for head in (*following, HierarchicalHead(tree, 6), projected):
        replace_classifier(model, head)
        assert model.get_submodule(place) is head
        result = model(x)
        logits = getattr(result, "logits", result)
        assert logits.shape == (len(x), CLASSES, *x.shape[2:]) if name == "segmentation" else (len(x), CLASSES)
        model.zero_grad()
        logits.logsumexp(1).sum().backward()
        first = next(model.parameters())
        assert first.grad is not None
        assert first.grad.isfinite().all()


def test_a_classifier_by_name() -> None:
    model = Timm()
    old, head = model.auxiliary, PrototypeHead(prototypes.simplex(CLASSES, 6))
    with pytest.warns(ClassCountWarning):  # the auxiliary classifier tells two classes apart
        assert replace_classifier(model, head, "auxiliary") is old
    assert model.auxiliary is head
    assert isinstance(model.fc, nn.Linear)


def test_timms_own_reset_still_works() -> None:
    model = Timm()
    replace_classifier(model, PrototypeHead(prototypes.simplex(CLASSES, 6)))
    model.reset_classifier(3)
    assert model(draw(2, 5, dtype=torch.float32)).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_dtype_and_mode_follow(dtype: torch.dtype, training: bool) -> None:
    """The head becomes what the classifier was; class means stay float64."""
    model = sequential()[0].to(dtype).train(training)
    projected = PrototypeHead(prototypes.simplex(CLASSES, 8), 6, learnable=True, learn_scale=True)
    for head in (PrototypeHead(prototypes.simplex(CLASSES, 6)), projected, DeepNCM(CLASSES, 6)):
        head.train(not training)
        replace_classifier(model, head)
        assert {module.training for module in head.modules()} == {training}
        kept = {name: value for name, value in head.state_dict().items() if "means" not in name and "extra" not in name}
        assert {value.dtype for value in kept.values()} == {dtype}
        assert all(value.dtype is torch.float64 for name, value in head.named_buffers() if "means" in name)


def test_a_scale_given_as_an_integer_hides_no_dtype() -> None:
    """A head whose first tensor says nothing about dtypes passes the model's on to the next one."""
    model = sequential()[0].double()
    replace_classifier(model, PrototypeHead(prototypes.simplex(CLASSES, 6), scale=2))
    head = PrototypeHead(prototypes.simplex(CLASSES, 6))
    replace_classifier(model, head)
    assert head.prototypes.dtype is torch.float64


def test_a_model_without_classifier() -> None:
    with pytest.raises(ClassifierError, match="no linear layer"):
        replace_classifier(nn.Sequential(nn.ReLU()), PrototypeHead(torch.eye(3)))


def test_an_unknown_name() -> None:
    with pytest.raises(ClassifierError, match="no module or parameter 'top'"):
        replace_classifier(Timm(), PrototypeHead(torch.eye(6)), "top")


def test_a_model_that_is_its_classifier() -> None:
    for model in (nn.Linear(6, CLASSES), PrototypeHead(torch.eye(6))):
        with pytest.raises(ClassifierError, match="model itself is the classifier"):
            replace_classifier(model, PrototypeHead(torch.eye(6)))


@pytest.mark.parametrize("name", ["sequential", "timm", "segmentation"])
def test_a_head_of_another_width(name: str) -> None:
    """The message names the place and both widths, and the model stays as it was."""
    model, x, place = MODELS[name]()
    before = outputs(model, x)
    with pytest.raises(
        ShapeError, match=rf"'{re.escape(place)}' takes 6 features, but the head takes 8\. Pass in_features=6"
    ):
        replace_classifier(model, PrototypeHead(prototypes.simplex(CLASSES, 8)))
    assert torch.equal(outputs(model, x), before)


# ---------------------------------------------------------------------------------------------- folding


def projections() -> dict[str, nn.Module | None]:
    return {
        "none": None,
        "linear": nn.Linear(3, 4, bias=False).double(),
        "affine": nn.Linear(3, 4).double(),
        "deep": nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double(),
    }


every_projection = pytest.mark.parametrize("projection", projections())


def head_of(kind: str, projection: str = "none", **options: Any) -> PrototypeHead:
    """A head on 6 prototypes of different lengths."""
    module = projections()[projection]
    vectors = draw(6, 4, seed=1) * torch.linspace(0.3, 2, 6, dtype=torch.float64)[:, None]
    defaults = {"logits": kind, "scale": 1.7, "delta": 0.7, "dtype": torch.float64}
    return PrototypeHead(vectors, None if module is None else 3, projection=module, **(defaults | options))


def inputs(head: PrototypeHead, rows: int = 200) -> Tensor:
    return 2 * draw(rows, head.in_features, seed=2)


def without_constant(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


@every_projection
@pytest.mark.parametrize("kind", LINEAR)
def test_folded_heads_have_the_heads_logits(kind: str, projection: str) -> None:
    """Equal for products and cosines; for squared distances up to what is the same for all classes."""
    head = head_of(kind, projection, learnable=True, learn_scale=True)
    x = inputs(head)
    logits, folded = head(x), fold(head)(x)
    if kind == "squared-euclidean":
        assert_close(without_constant(folded), without_constant(logits), 1e-6)
        assert_close(folded - logits, 1.7 * head.embed(x).square().sum(1, keepdim=True).expand(-1, 6), 1e-6)
        assert_close(folded.softmax(1), logits.softmax(1), 1e-6)
    else:
        assert_close(folded, logits, 1e-6)
    assert torch.equal(folded.argmax(1), logits.argmax(1))


@every_projection
@pytest.mark.parametrize("kind", KINDS)
def test_decision_layers_decide_like_the_head(kind: str, projection: str) -> None:
    head = head_of(kind, projection)
    x = inputs(head)
    decisions = head(x).argmax(1)
    assert decisions.unique().numel() > 1
    assert torch.equal(decision_layer(head)(x).argmax(1), decisions)


@pytest.mark.parametrize("kind", KINDS)
def test_folding_closed_classes(kind: str) -> None:
    """Only open classes have outputs."""
    head = head_of(kind, open_classes=3)
    x = inputs(head)
    for layer in (decision_layer(head), *([fold(head)] if kind in LINEAR else [])):
        assert layer(x).shape == (200, 3)
        assert torch.equal(layer(x).argmax(1), head(x).argmax(1))


@pytest.mark.parametrize("kind", LINEAR)
def test_folding_heads_that_follow_means(kind: str) -> None:
    x, labels = draw(12, 4), torch.arange(12) % 4
    for head in (
        DeepNCM(4, 4, logits=kind, dtype=torch.float64),
        GuidedHead(prototypes.simplex(4, 4), logits=kind, dtype=torch.float64),
    ):
        head(x, labels)
        assert_close(fold(head)(x).softmax(1), head.eval()(x).softmax(1), 1e-6)
        assert torch.equal(decision_layer(head)(x).argmax(1), head(x).argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_was_never_seen_is_never_decided_for(kind: str) -> None:
    """Its mean is unknown: the layer decides like the head, or the error says why there is none."""
    head = DeepNCM(3, 4, logits=kind, dtype=torch.float64)
    x = draw(12, 4)
    decisions = head(x, torch.arange(12) % 2).argmax(1)
    try:
        layer = decision_layer(head)
    except TightframeError:
        return
    assert torch.equal(layer(x).argmax(1), decisions)


@pytest.mark.parametrize("projection", ["none", "linear", "affine"])
def test_what_can_be_one_linear_layer_is_one(projection: str) -> None:
    for kind in ("dot", "squared-euclidean"):
        assert type(fold(head_of(kind, projection))) is nn.Linear
    for kind in KINDS:
        assert type(decision_layer(head_of(kind, projection))) is nn.Linear
    layers = [type(layer) for layer in fold(head_of("cosine", projection))]
    assert layers == [*([] if projection == "none" else [nn.Linear]), UnitLength, nn.Linear]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", LINEAR)
def test_folded_layers_have_the_heads_dtype(kind: str, dtype: torch.dtype) -> None:
    layer = fold(PrototypeHead(draw(6, 4), 3, logits=kind, dtype=dtype))
    assert {value.dtype for value in layer.parameters()} == {dtype}


@pytest.mark.parametrize("kind", CURVED)
def test_what_cannot_be_folded(kind: str) -> None:
    with pytest.raises(ClassifierError, match=rf"'{kind}' are not linear in the features. Use decision_layer\(head\)"):
        fold(head_of(kind))


def test_folding_leaves_the_head_alone() -> None:
    head = head_of("dot", "affine", learnable=True)
    x = inputs(head)
    before = head(x)
    layer = fold(head)
    with torch.no_grad():
        for value in layer.parameters():
            value.zero_()
    assert torch.equal(head(x), before)
    assert all(value.requires_grad for value in head.parameters())


def test_unit_length() -> None:
    x = draw(2, 3, 4)
    assert_close(UnitLength()(x), x / x.norm(dim=-1, keepdim=True), 1e-12)


# ---------------------------------------------------------------------------------------------- export


def layers_of(kind: str) -> list[tuple[str, nn.Module]]:
    """A float32 head with a projection, and folded where it can be."""
    head = PrototypeHead(draw(6, 4, seed=1), 3, logits=kind, scale=1.7, delta=0.7).eval()
    return [("head", head), *([("folded", fold(head).eval())] if kind in LINEAR else [])]


EXPORTED = [(kind, part) for kind in KINDS for part in ("head", "folded") if part == "head" or kind in LINEAR]
every_export = pytest.mark.parametrize(("kind", "part"), EXPORTED)


@every_export
def test_torch_export(kind: str, part: str) -> None:
    """For any number of rows; the exported program gives the same logits."""
    layer = dict(layers_of(kind))[part]
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (draw(5, 3, dtype=torch.float32),), dynamic_shapes=({0: batch},))
    for rows in (5, 9):
        x = draw(rows, 3, seed=rows, dtype=torch.float32)
        torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-6, atol=1e-6)


def run_onnx(layer: nn.Module, x: Tensor) -> Tensor:
    """The output for `x` of the layer's ONNX program in onnxruntime."""
    runtime = pytest.importorskip("onnxruntime")
    file = io.BytesIO()
    torch.onnx.export(layer, (x,), dynamo=True, verbose=False).save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


# torch's own: its exporter asks a pytree in a way that it has deprecated itself
exporting = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")


@exporting
@pytest.mark.parametrize("layer", beyond(3, EXPORTED))
def test_onnx(layer: tuple[str, str]) -> None:
    """onnxruntime gives the same logits."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    kind, part = layer
    module = dict(layers_of(kind))[part]
    x = draw(5, 3, seed=2, dtype=torch.float32)
    torch.testing.assert_close(run_onnx(module, x), module(x).detach(), rtol=1e-5, atol=1e-5)


@exporting
def test_onnx_of_pixels() -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    head = PrototypeHead(draw(6, 4, seed=1), 3, logits="euclidean").eval()
    x = draw(2, 3, 4, 5, dtype=torch.float32)
    torch.testing.assert_close(run_onnx(head, x), head(x).detach(), rtol=1e-5, atol=1e-5)


def test_folding_copies_the_projection_and_leaves_the_head_alone() -> None:
    projection = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout())
    head = PrototypeHead(torch.randn(4, 8), 6, projection=projection)
    folded = fold(head)
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert head.training and all(parameter.requires_grad for parameter in head.parameters())
    x = torch.randn(5, 6)
    torch.testing.assert_close(folded(x), head.eval()(x))


def test_only_whole_heads_on_prototypes_are_folded() -> None:
    unseen = DeepNCM(3, 4, logits="squared-euclidean")
    unseen(torch.randn(4, 4), torch.tensor([0, 2, 0, 2]))
    for deploy in (fold, decision_layer):
        with pytest.raises(ClassifierError, match=r"every class needs a mean; classes \[1\] have none"):
            deploy(unseen)
        with pytest.raises(ClassifierError, match="got Linear"):
            deploy(nn.Linear(3, 4))


def test_a_head_of_another_number_of_classes_is_said() -> None:
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 10))
    with pytest.warns(ClassCountWarning, match="'2' has 10 outputs, but the head has 7. Labels must now be in"):
        replace_classifier(model, PrototypeHead(prototypes.simplex(7, 16)))
    assert model(torch.randn(2, 3)).shape == (2, 7)
