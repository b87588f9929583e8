"""The migration page names every public name of both packages, and what it offers instead exists and agrees."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tightframe as tf
from pages import blocks

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
TORCH_PROTOTYPES = (
    "LearntPrototypes HypersphericalProto DeepNCM HierarchicalInference HierarchicalCrossEntropy SoftCrossEntropy "
    "EMDLoss AverageCost Distortion ScaleFreeDistortion DistortionLoss RankLoss SeparationLoss HypersphericalLoss "
    "Pseudo_Huber embed_nomenclature embed_on_sphere"
)
NEURAL_COLLAPSE = (
    "MeanAccumulator CovarAccumulator VarNormAccumulator DecAccumulator covariance_ratio variability_cdnv mean_norms "
    "interference_grid similarities distance_norms filter_indices_by_n_samples create_index tiling symm_reduce "
    "normalize covariance_pinv structure_error simplex_etf_error self_duality_error clf_ncc_agreement "
    "orthogonality_deviation kernel_grid kernel_stats class_dist_norm_vars dist_kernel log_kernel riesz_kernel"
)
EXAMPLE_LINES = 110  # of their examples/mnist.py at c05a0b8, without comments and blank lines
K, D, N = 5, 4, 30
COST = torch.tensor([[float(abs(i - j)) for j in range(K)] for i in range(K)])


def test_every_name_is_there() -> None:
    before, after = PAGE.split("## neural_collapse")
    for name in TORCH_PROTOTYPES.split():
        assert name in before, name
    for name in NEURAL_COLLAPSE.split():
        assert name in after, name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`tf\.([A-Za-z0-9_.]+)", PAGE))))
def test_what_takes_its_place_exists(name: str) -> None:
    found: object = tf
    for part in name.split("."):
        found = getattr(found, part)


# ---------------------------------------------------------------------- the numbers that the page calls equal


def prototypes_and_embeddings() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(K, D), torch.randn(N, D), torch.arange(N) % K


@pytest.mark.parametrize(
    ("logits", "released"),
    [
        ("euclidean", lambda d: d),
        ("squared-euclidean", lambda d: d**2),
        ("pseudo-huber", lambda d: 0.5 * ((1 + (d / 0.5) ** 2).sqrt() - 1)),
    ],
)
def test_logits_of_learnt_prototypes(logits: str, released: object) -> None:
    vectors, z, _ = prototypes_and_embeddings()
    distances = torch.norm(z[:, None] - vectors, dim=-1)
    ours = tf.PrototypeHead(vectors, logits=logits, learnable=True, delta=0.5)(z)
    torch.testing.assert_close(ours, -released(distances), rtol=1e-5, atol=1e-5)  # type: ignore[operator]


def test_cosine_logits_are_one_more() -> None:
    vectors, z, _ = prototypes_and_embeddings()
    released = torch.nn.functional.cosine_similarity(z[:, None], vectors[None], dim=-1) - 1
    torch.testing.assert_close(tf.PrototypeHead(vectors, scale=1.0)(z) - 1, released)


def test_soft_labels_have_the_entropy_more() -> None:
    logits, labels = torch.randn(N, K), torch.arange(N) % K
    target = (-2.0 * COST / COST.max()).softmax(-1)[labels]
    released = torch.nn.functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")
    entropy = -(target * target.log()).sum(1).mean()
    torch.testing.assert_close(tf.losses.SoftLabelCrossEntropy(COST, 2.0)(logits, labels), released + entropy)


def test_costs_are_equal() -> None:
    logits, labels = torch.randn(N, K), torch.arange(N) % K
    squares = (logits.softmax(1) ** 2 * (COST[labels] - 0.3)).sum(1).mean()
    torch.testing.assert_close(tf.losses.SquaredEarthMover(COST, 0.3)(logits, labels), squares)
    counts = tf.ConfusionCounts.from_predictions(logits.argmax(1), labels, K)
    assert counts.average_cost(COST).item() == pytest.approx(COST[labels, logits.argmax(1)].mean().item())


def test_distortions_are_equal() -> None:
    vectors, _, _ = prototypes_and_embeddings()
    distances = torch.norm(vectors[:, None] - vectors, dim=-1)
    pairs = K**2 - K
    relative = ((distances - COST).abs() / (COST + torch.eye(K))).sum() / pairs
    torch.testing.assert_close(tf.losses.Distortion(COST)(vectors), relative)
    ratios = distances / (COST + torch.eye(K))
    scale = ratios.sum() / ratios.square().sum()
    squared = ((scale * distances - COST) ** 2 / (COST + torch.eye(K)) ** 2).sum() / pairs
    torch.testing.assert_close(tf.losses.SquaredScaleFreeDistortion(COST)(vectors), squared)


def test_marginals_of_the_published_tree() -> None:
    """A tree of five nodes: 0 and 1 below 3, 2 and 4 below the root, 3 too; log-softmax over siblings, added up."""
    paths, mask = torch.tensor([[3, 3, 0, 0, 0]]), torch.tensor([0, 0, 1, 1, 1])
    scores = torch.randn(N, 5)
    lse = torch.stack([scores[:, mask == group].logsumexp(1) for group in (0, 1)], 1)
    scaled = scores - lse[:, mask]
    parent = scaled[:, paths[0]]
    parent[:, paths[0] == 0] = 0
    tree = tf.hierarchy.from_path_matrix(paths)
    order = [int(name) for name in tree.names if name != "root"]
    ours = tf.hierarchy.TreeInference(tree).log_probabilities(
        torch.stack([torch.zeros(N) if name == "root" else scores[:, int(name)] for name in tree.names], 1)
    )
    kept = [place for place, name in enumerate(tree.names) if name != "root"]
    torch.testing.assert_close(ours[:, kept], (scaled + parent)[:, order])


# ---------------------------------------------------------------------- the example; its numbers: released/


class Network(torch.nn.Module):
    """In resnet18's place: the parts that the example changes."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1, self.maxpool = torch.nn.Conv2d(3, 64, 7), torch.nn.MaxPool2d(2)
        self.fc = torch.nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.maxpool(self.conv1(images).relu()).mean((2, 3)))


def test_their_example_in_a_third_of_its_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """One epoch on digits, in the place of MNIST and of Fashion-MNIST."""
    (example,) = [block.code for block in blocks(PAGE[PAGE.index("### Their MNIST example") :])]
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= EXAMPLE_LINES / 3
    digits = tf.datasets.load("digits")
    monkeypatch.setattr(tf.datasets, "load", lambda name: digits)
    models = types.ModuleType("torchvision.models")
    models.resnet18 = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    namespace: dict[str, Any] = {}
    exec(compile(example.replace("range(200)", "range(1)"), "migration.md", "exec"), namespace)
    (report,) = namespace["monitor"].series
    shown = {f"neural-collapse-package/{each}" for each in ("nc1", "cdnv", "nc2", "nc3", "unc3", "nc4", "nc5")}
    assert shown <= {entry.key for entry in report} and "trace_ratio" in {entry.key for entry in report}
    assert "trace_ratio" in capsys.readouterr().out
