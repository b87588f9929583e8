"""`measure` on models that end in a head: its embeddings are the features, its decisions the classifier's."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heads.cases import KINDS, draw, same_tensors
from tightframe import ClassStatistics, measure, prototypes
from tightframe.heads import DeepNCM, GuidedHead, HierarchicalHead, PrototypeHead, PrototypeModel, replace_classifier
from tightframe.hierarchy import Hierarchy
from tightframe.metrics import METRICS, Evidence

CLASSES, DIM, WIDTH = 4, 6, 7
EXACT: dict[str, Any] = {"dtype": torch.float64}
TREE = Hierarchy.from_nested({"r": {"a": ["0", "1"], "b": ["2"], "3": None}})
LABELS = torch.arange(60) % CLASSES


def inputs() -> Tensor:
    return draw(CLASSES, 5, seed=9)[LABELS] + 0.6 * draw(60, 5, seed=1)


def followed(head: nn.Module) -> nn.Module:
    """A head that has seen each class."""
    head(2 * draw(60, DIM, seed=3) + 3 * draw(CLASSES, DIM, seed=4)[LABELS], LABELS)
    return head


HEADS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{kind}, projected": lambda kind=kind: PrototypeHead(draw(CLASSES, 8), DIM, logits=kind, **EXACT)
        for kind in KINDS
    },
    "cosine": lambda: PrototypeHead(prototypes.simplex(CLASSES, DIM), **EXACT),
    "euclidean, learnt": lambda: PrototypeHead(
        draw(CLASSES, DIM), logits="euclidean", learnable=True, learn_scale=True, **EXACT
    ),
    "open": lambda: PrototypeHead(draw(CLASSES + 3, DIM), open_classes=CLASSES, **EXACT),
    "deep": lambda: PrototypeHead(
        draw(CLASSES, 3), DIM, projection=nn.Sequential(nn.Linear(DIM, 9), nn.Tanh(), nn.Linear(9, 3)).double(), **EXACT
    ),
    "ncm": lambda: followed(DeepNCM(CLASSES, DIM, **EXACT)),
    "guided": lambda: followed(GuidedHead(prototypes.simplex(CLASSES, DIM), **EXACT)),
}


def model_of(head: nn.Module) -> nn.Sequential:
    """Batch normalisation and dropout, so that training mode would give other features."""
    return nn.Sequential(
        nn.Linear(5, DIM), nn.BatchNorm1d(DIM), nn.Tanh(), nn.Dropout(0.5), nn.Sequential(head)
    ).double()


def batches(x: Tensor, labels: Tensor, size: int = 17) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), labels.split(size), strict=True))


def picture(model: nn.Module) -> tuple[list[Any], list[Tensor]]:
    """Modes, hooks and attributes of all modules; all parameters, buffers and gradients."""
    facts = [
        (module.training, len(module._forward_pre_hooks), len(module._forward_hooks), sorted(vars(module)))
        for module in model.modules()
    ]
    values = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return facts, [value.detach().clone() for value in values]


def measured(model: nn.Module, x: Tensor, labels: Tensor, **options: Any) -> dict[str, float]:
    """The report's values, once it is known that the model was left as it was."""
    facts, values = picture(model)
    report = measure(model, batches(x, labels), progress=False, **options)
    after, now = picture(model)
    assert after == facts
    assert same_tensors(now, values)
    return report.values


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


@pytest.mark.parametrize("name", HEADS)
def test_accuracy_is_the_heads_own(name: str) -> None:
    """Also held out; and geometry is that of the embeddings and of the head's weight."""
    head = HEADS[name]()
    model, x = model_of(head), inputs()
    test = x + 0.5 * draw(60, 5, seed=11)
    values = measured(model, x, LABELS, test=batches(test, LABELS))
    frozen = copy.deepcopy(model).eval()
    with torch.no_grad():
        assert values["classifier_accuracy"] == pytest.approx(accuracy(frozen(x), LABELS), abs=1e-12)
        assert values["test/classifier_accuracy"] == pytest.approx(accuracy(frozen(test), LABELS), abs=1e-12)
        embeddings = head.embed(frozen[:4](x))
    evidence = Evidence(ClassStatistics.from_features(embeddings, LABELS, CLASSES), head.weight.detach(), head.bias)
    for row in ("nc1", "equinorm", "nc3_cosine", "classifier_equinorm"):
        assert values[row] == pytest.approx(float(METRICS[row].of(evidence).detach()), rel=1e-9)


def test_the_accuracies_differ() -> None:
    """Heads that all decided alike, by chance, would prove nothing."""
    found = set()
    for make in HEADS.values():
        torch.manual_seed(0)
        with torch.no_grad():
            found.add(accuracy(model_of(make()).eval()(inputs()), LABELS))
    assert len(found) > 3


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("projected", [True, False])
def test_pixels(kind: str, projected: bool) -> None:
    """(N, D, H, W) features and (N, H, W) labels, some ignored."""
    vectors = draw(CLASSES, 8) if projected else draw(CLASSES, DIM)
    head = PrototypeHead(vectors, DIM, logits=kind, **EXACT)
    model = nn.Sequential(nn.Conv2d(3, DIM, 3, padding=1), nn.Tanh(), head).double()
    labels = torch.arange(6 * 4 * 5).reshape(6, 4, 5) % CLASSES
    x = draw(6, 3, 4, 5)
    x[:, 0] += labels
    labels[0, 0] = 255
    values = measured(model, x, labels, ignore_index=255)
    with torch.no_grad():
        logits = model(x)
    kept = labels != 255
    assert values["classifier_accuracy"] == pytest.approx(
        accuracy(logits.movedim(1, -1)[kept], labels[kept]), abs=1e-12
    )


def test_tokens() -> None:
    head = PrototypeHead(draw(CLASSES, 8), DIM, **EXACT)
    model = nn.Sequential(nn.Linear(5, DIM), nn.Tanh(), head).double()
    x, labels = inputs().reshape(6, 10, 5), LABELS.reshape(6, 10)
    values = measured(model, x, labels)
    with torch.no_grad():
        assert values["classifier_accuracy"] == pytest.approx(accuracy(model(x).flatten(0, 1), LABELS), abs=1e-12)


class Scores(nn.Module):
    """Scores by two layers, of which no weight is a classifier's."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features = DIM
        self.layers = nn.Sequential(nn.Linear(DIM, 9), nn.Tanh(), nn.Linear(9, len(TREE)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


SCORES: dict[str, Callable[[], HierarchicalHead]] = {
    "linear": lambda: HierarchicalHead(TREE, DIM, **EXACT),
    "prototypes": lambda: HierarchicalHead(TREE, scores=PrototypeHead(draw(len(TREE), DIM), **EXACT)),
    "projected prototypes": lambda: HierarchicalHead(TREE, scores=PrototypeHead(draw(len(TREE), 8), DIM, **EXACT)),
}


@pytest.mark.parametrize("name", SCORES)
def test_hierarchical_heads_decide_by_their_own_output(name: str) -> None:
    """Accuracy, and agreement with the nearest mean, are of their own rule, which isn't linear."""
    head = SCORES[name]()
    model, x = model_of(head), inputs()
    values = measured(model, x, LABELS, test=batches(x, LABELS))
    with torch.no_grad():
        decided = copy.deepcopy(model).eval()(x).argmax(1)
        assert values["classifier_accuracy"] == pytest.approx(float((decided == LABELS).double().mean()))
        features = head.embed(copy.deepcopy(model).eval()[:4](x))
    evidence = Evidence(ClassStatistics.from_features(features, LABELS, CLASSES))
    for row in ("nc1", "equinorm", "etf_error"):
        assert values[row] == pytest.approx(float(METRICS[row].of(evidence)), rel=1e-9)
    assert 0 <= values["ncc_accuracy"] <= 1


def test_no_layer_inside_a_hierarchical_head_is_taken_for_the_classifier() -> None:
    """Scores may be any module; its last layer's rows are nodes, which are no classes."""
    model = model_of(HierarchicalHead(TREE, scores=Scores()))
    x = inputs()
    values = measured(model, x, LABELS)
    with torch.no_grad():
        hits = (copy.deepcopy(model).eval()(x).argmax(1) == LABELS).double().mean()
    assert values["classifier_accuracy"] == pytest.approx(float(hits)) and "classifier_etf_error" not in values


@pytest.mark.parametrize("name", ["cosine", "cosine, projected", "ncm", "guided"])
def test_prototype_models(name: str) -> None:
    """Its head is found although the backbone could have the last linear layer."""
    head = HEADS[name]()
    model, x = PrototypeModel(nn.Sequential(nn.Linear(5, DIM), nn.Tanh()).double(), head), inputs()
    values = measured(model, x, LABELS)
    with torch.no_grad():
        assert values["classifier_accuracy"] == pytest.approx(accuracy(model(x), LABELS), abs=1e-12)


def test_after_an_exchange() -> None:
    """The same model, its classifier replaced and put back: other values, and then the same ones."""
    model, x = nn.Sequential(nn.Linear(5, DIM), nn.Tanh(), nn.Linear(DIM, CLASSES)).double(), inputs()
    before = measured(model, x, LABELS)
    linear = replace_classifier(model, PrototypeHead(prototypes.simplex(CLASSES, DIM)))
    middle = measured(model, x, LABELS)
    assert middle["nc1"] == before["nc1"]
    assert middle["classifier_equinorm"] == pytest.approx(0, abs=1e-6)
    assert middle["classifier_accuracy"] != before["classifier_accuracy"]
    replace_classifier(model, linear)
    after = measured(model, x, LABELS)
    assert all(after[row] == value or math.isnan(value) for row, value in before.items())


def test_class_means_without_all_classes_are_measured() -> None:
    """What needs no complete classifier is there; the absent class is absent."""
    head = DeepNCM(4, 6)
    x, y = torch.randn(30, 6), torch.arange(30) % 3
    head(x, y)
    model = nn.Sequential(nn.Identity(), head)
    report = measure(model, [(x, y)], progress=False)
    assert {"nc1", "ncc_accuracy"} <= set(report.values)
    hits = float((model.eval()(x).argmax(1) == y).double().mean())
    assert report["classifier_accuracy"].value == pytest.approx(hits) and "self_duality_error" not in report.values


def test_another_module_s_embed_is_left_alone() -> None:
    class Tokens(nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.embed = nn.Embedding(5, 6)

    x, y = torch.randn(30, 6), torch.arange(30) % 3
    report = measure(nn.Sequential(nn.Identity(), Tokens()), [(x, y)], progress=False)
    assert report.facts.layer == "input of 1"
