"""A head of one's own, with public names only, is the classifier wherever the package's own are."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import tightframe as tf
from tightframe import heads, losses

# ---------------------------------------------------------------------- what a user writes


class Angles(nn.Module):
    """Products of squashed features with learnt vectors."""

    follows_labels, decides_linearly = False, True

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.out_features = out_features
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.randn(out_features))

    @property
    def prototypes(self) -> Tensor:
        return self.weight

    def embed(self, features: Tensor) -> Tensor:
        return features.atan()

    def forward(self, features: Tensor) -> Tensor:
        return self.embed(features) @ self.weight.mT + self.bias


# ---------------------------------------------------------------------- where it counts as one

K, D = 3, 6


class Following(Angles):
    """The same, called with labels."""

    follows_labels = True

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        self.labels = labels
        return super().forward(features)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % K
    return torch.randn(K, D, generator=generator)[labels] + torch.randn(60, D, generator=generator), labels


@pytest.fixture
def model() -> nn.Module:
    """A linear layer comes after the head in the order of modules: the model says which is its classifier."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, D), Angles(D, K))


def test_it_is_a_head_and_a_linear_layer_is_none() -> None:
    assert heads.is_head(Angles(D, K)) and heads.is_head(Following(D, K))
    assert not heads.is_head(nn.Linear(D, K)) and not heads.is_head(tf.PrototypeModel(nn.Identity(), Angles(D, K)))
    assert not heads.is_head("head") and not heads.is_head(Angles)
    ours = [
        tf.PrototypeHead(torch.eye(K)),
        heads.DeepNCM(K, D),
        heads.GuidedHead(tf.prototypes.simplex(K, D)),
        heads.HierarchicalHead(tf.hierarchy.Hierarchy.from_nested({"all": {"a": ["b", "c"], "d": ["e"]}}), D),
    ]
    assert all(map(heads.is_head, ours))


@pytest.mark.parametrize(
    "member", ["prototypes", "out_features", "weight", "bias", "decides_linearly", "follows_labels", "embed"]
)
def test_without_one_member_it_is_none(member: str) -> None:
    complete = {
        **dict.fromkeys(("prototypes", "weight", "bias")),
        **{"out_features": K, "decides_linearly": False, "follows_labels": False, "embed": lambda self, x: x},
    }
    assert heads.is_head(type("Whole", (nn.Module,), complete)())
    assert not heads.is_head(type("Lacking", (nn.Module,), {k: v for k, v in complete.items() if k != member})())


def test_measure_takes_what_it_embeds_for_features(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, labels = data
    report = tf.measure(model, [(x, labels)], progress=False)
    assert (report.facts.classifier, report.facts.layer) == ("1", "embedding in 1")
    with torch.no_grad():
        embeddings, logits = model[0](x).atan().double(), model(x)
    means = torch.stack([embeddings[labels == k].mean(0) for k in range(K)])
    torch.testing.assert_close(report.evidence.statistics.means, means, rtol=1e-6, atol=1e-7)
    assert torch.equal(report.evidence.weight, model[1].weight.detach().double())
    accuracy = float((logits.argmax(1) == labels).double().mean())
    assert report["classifier_accuracy"].value == pytest.approx(accuracy, abs=1e-12)


def test_it_replaces_a_classifier(data: tuple[Tensor, Tensor]) -> None:
    model, head = nn.Sequential(nn.Linear(D, D), nn.Linear(D, K)), Angles(D, K)
    linear = heads.replace_classifier(model, head)
    assert model[1] is head
    assert heads.replace_classifier(model, linear) is head


def test_losses_pull_towards_its_prototypes(data: tuple[Tensor, Tensor]) -> None:
    x, labels = data
    head = Angles(D, K)
    loss = losses.Hyperspherical(head)(head.embed(x), labels)
    by_rows = [
        (1 - cosine_similarity(row.atan(), head.weight[y], dim=0)) ** 2 for row, y in zip(x, labels, strict=True)
    ]
    assert loss.item() == pytest.approx(torch.stack(by_rows).mean().item(), rel=1e-5)
    loss.backward()
    assert head.weight.grad is not None and head.weight.grad.any()
    floor = losses.PrototypeCrossEntropy(head, scale=2.0).floor
    assert floor == pytest.approx(math.log(1 + (K - 1) * math.exp(-2 * K / (K - 1))), rel=1e-9)


def test_only_open_classes_have_prototypes_for_losses() -> None:
    head = Angles(D, K)
    head.out_features = 2
    assert losses.Hyperspherical(head).num_classes == 2


def test_a_model_of_it_embeds_and_passes_labels_on(data: tuple[Tensor, Tensor]) -> None:
    x, labels = data
    model = tf.PrototypeModel(nn.Identity(), Following(D, K))
    assert torch.equal(model.embed(x), x.atan())
    model(x, labels=labels)
    assert model.head.labels is labels
