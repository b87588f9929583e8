"""The migration page names every public name of both packages; what it offers instead, also of notebooks, agrees."""

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
NOTEBOOKS = "## From the notebooks"
EXAMPLE_LINES = 110  # of their examples/mnist.py at c05a0b8, without comments and blank lines
K, D, N = 5, 4, 30
COST = torch.tensor([[float(abs(i - j)) for j in range(K)] for i in range(K)])


def test_every_name_is_there() -> None:
    before, after = PAGE[: PAGE.index(NOTEBOOKS)].split("## neural_collapse")
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
    (example,) = [block.code for block in blocks(PAGE[PAGE.index("### Their MNIST example") : PAGE.index(NOTEBOOKS)])]
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


# ---------------------------------------------------------------------- the notebooks' lines

SECTIONS = {
    title: section
    for title, section in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PAGE[PAGE.index(NOTEBOOKS) :], flags=re.M | re.S)
}
DESCENTS = {"Hyperspherical prototypes (HPN)": 0.03, "Gradient ETF": 0.05}
"""Sections in which the notebook stops before the optimum, and how far from it at most."""
COUNTS = {"even": [12] * 4, "uneven": [40, 17, 5, 2], "more dimensions than samples": [4, 3, 3, 2]}


def executed(title: str, counts: list[int], num_features: int) -> dict[str, Any]:
    """The names of a section's block, on random data."""
    (block,) = blocks(SECTIONS[title])
    assert block.code.startswith("# notebook\n") and block.code.count("\n# tightframe\n") == 1
    classes = len(counts)
    y = torch.arange(classes).repeat_interleave(torch.tensor(counts))[torch.randperm(sum(counts))]
    X = torch.randn(len(y), num_features, dtype=torch.float64) + torch.randn(classes, num_features)[y]
    namespace = {
        "torch": torch, "tf": tf, "normalize": torch.nn.functional.normalize, "K": classes, "D": num_features,
        "X": X, "y": y, "W": torch.randn(classes, num_features, dtype=torch.float64),
        "b": torch.randn(classes, dtype=torch.float64),
        "statistics": tf.ClassStatistics.from_features(X, y, classes, per_class=True),
    }  # fmt: skip
    exec(compile("\n" * block.line + block.code, "migration.md", "exec"), namespace)
    return namespace


def values(result: Any) -> list[Tensor]:
    """One tensor or a tuple of them, or of numbers."""
    return [torch.as_tensor(each, dtype=torch.float64) for each in (result if isinstance(result, tuple) else (result,))]


def test_every_usual_line_of_notebooks_is_there() -> None:
    words = "QR-ETF HPN Gradient Identity-embedded NC1 NC2 NC3 NC4 Noise-to-signal alike unequal nearest"
    titles = " ".join(SECTIONS).replace("NC1 to NC3", "NC1 NC2 NC3")
    assert [word for word in words.split() if word not in titles] == []
    assert all(len(re.sub(r"```.*?```", "", section, flags=re.S).split()) > 10 for section in SECTIONS.values())


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("title", [title for title in SECTIONS if title not in DESCENTS])
def test_notebook_lines(title: str, kind: str) -> None:
    names = executed(title, COUNTS[kind], 20 if kind.startswith("more") else 6)
    ours, notebook = values(names["ours"]), values(names["notebook"])
    assert len(ours) == len(notebook)
    for one, other in zip(ours, notebook, strict=True):
        assert other.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("title", DESCENTS)
def test_descents_of_notebooks_end_near_ours_and_not_below(title: str, seed: int) -> None:
    torch.manual_seed(seed)
    names = executed(title, COUNTS["even"], 6)
    (ours,), (notebook,) = values(names["ours"]), values(names["notebook"])
    assert ours - 1e-9 <= notebook <= ours + DESCENTS[title]
    if "same_loss" in names:
        torch.testing.assert_close(names["same_loss"], notebook)


def test_weights_of_classes_matter_and_the_notebook_s_nc1_is_k_times_the_paper_s() -> None:
    names = executed("NC1, classes of unequal size", COUNTS["uneven"], 6)
    by_sample, by_class = values(names["notebook"])[-2:]
    mixed = tf.metrics.nc1(names["statistics"], divided=False)
    assert len({round(float(value), 3) for value in (by_sample, by_class, mixed)}) == 3
    torch.testing.assert_close(mixed, names["K"] * tf.metrics.nc1(names["statistics"]))
    convention = tf.metrics.CONVENTIONS["papyan-2020-notebook/nc1"].metric
    torch.testing.assert_close(mixed, convention(names["statistics"]))


def test_nearest_centres_far_from_the_origin() -> None:
    """The distances of float32 decide near ties wrongly; ours are decided as in float64."""
    K, D = 4, 6
    y = torch.arange(400) % K
    X = 1e4 + torch.randn(400, D) + 0.5 * torch.randn(K, D)[y]
    statistics = tf.ClassStatistics.from_features(X, y, K)
    ours = tf.DecisionCounts(statistics, None)
    ours.update(X, y)
    exact = (torch.cdist(X.double(), statistics.means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1) == y)
    rounded = (torch.cdist(X, statistics.means.float(), compute_mode="use_mm_for_euclid_dist").argmin(1) == y)
    assert tf.metrics.ncc_accuracy(ours).item() == pytest.approx(exact.double().mean().item(), abs=1e-12)
    assert rounded.double().mean() != exact.double().mean()
