"""What the migration page offers for each name gives that name's own number, or differs as the page says.

The rows without a number: create_index (an index that isn't needed), hashify, resolve.
"""

import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from released_data import COST, DATA, EMBEDDINGS, LABELS, PATHS, PROTOTYPES, SCORES, TRIPLETS, UNTIED
from torch import Tensor

import tightframe as tf
from tightframe import metrics
from tightframe.metrics import Evidence
from tightframe.prototypes.ranking import rank_loss

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())["values"]
PACKAGE, OTHER = RECORDED["rhubarbwu/neural-collapse"], RECORDED["VSainteuf/metric-guided-prototypes-pytorch"]["own"]
F64 = torch.float64


def equal(ours: Any, released: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    ours = torch.as_tensor(ours, dtype=F64).detach()
    torch.testing.assert_close(ours, torch.tensor(released, dtype=F64), rtol=rtol, atol=atol, equal_nan=True)


# ---------------------------------------------------------------------- neural_collapse


@cache
def evidence_of(kind: str) -> Evidence:
    """With decisions that don't count the bias, as theirs."""
    data = DATA[kind]
    statistics = tf.ClassStatistics.from_features(data.features, data.labels, len(data.weight))
    decisions = tf.DecisionCounts(statistics, data.weight, None)
    decisions.update(data.features, data.labels)
    return Evidence(statistics, data.weight, None, decisions, data.outside.mean(0))


def s(evidence: Evidence) -> tf.ClassStatistics:
    assert evidence.statistics is not None
    return evidence.statistics


def d(evidence: Evidence) -> tf.DecisionCounts:
    assert isinstance(evidence.decisions, tf.DecisionCounts)
    return evidence.decisions


def riesz(evidence: Evidence, of: str) -> Tensor:
    return metrics.riesz_kernel(s(evidence), of=of, exponent=s(evidence).num_features - 2)  # type: ignore[arg-type]


def w(evidence: Evidence) -> Tensor:
    assert evidence.weight is not None
    return evidence.weight


def stretch(evidence: Evidence) -> float:
    """D / K, by which earlier versions differ."""
    return s(evidence).num_features / s(evidence).num_classes


def off_diagonal(grid: Tensor) -> Tensor:
    return grid[~torch.eye(len(grid), dtype=torch.bool)]


# what was called, with what it gave, and ours
ROWS: dict[str, Callable[[Evidence], Any]] = {
    "MeanAccumulator": lambda e: s(e).means,
    "MeanAccumulator, mean": lambda e: s(e).global_mean("class"),
    "CovarAccumulator": lambda e: s(e).within_covariance(),
    "VarNormAccumulator": lambda e: s(e).variances,
    "DecAccumulator": lambda e: metrics.ncc_agreement_per_class(d(e)),
    "filter_indices_by_n_samples(6, 12)": lambda e: s(e).select(min_count=6, max_count=11).class_ids,
    "covariance_ratio": lambda e: metrics.nc1(s(e)),
    "covariance_ratio, svd": lambda e: metrics.nc1(s(e)),
    "covariance_ratio, quotient": lambda e: metrics.trace_ratio(s(e)),
    "covariance_pinv": lambda e: stretch(e) * metrics.nc1(s(e)),
    "covariance_pinv, svd=True": lambda e: stretch(e) * metrics.nc1(s(e), divided=False),
    "covariance_ratio, earlier": lambda e: stretch(e) * metrics.trace_ratio(s(e)),
    "variability_cdnv": lambda e: metrics.cdnv(s(e)),
    "variability_cdnv, dist_exp=2": lambda e: metrics.cdnv(s(e), distance_exponent=4),
    "variability_cdnv, tile_size=3": lambda e: metrics.cdnv(s(e), tile_size=3),
    "mean_norms": lambda e: metrics.mean_norms(s(e)),
    "mean_norms, log": lambda e: metrics.mean_norms(s(e)).log(),
    "interference_grid": lambda e: metrics.interference_grid(s(e)),
    "similarities": lambda e: metrics.classifier_mean_products(s(e), w(e)),
    "similarities, cos": lambda e: metrics.classifier_mean_cosines(s(e), w(e)),
    "similarities, var": lambda e: metrics.unc3(s(e), w(e), of="product", relative=False, ddof=1),
    "distance_norms": lambda e: metrics.classifier_mean_distances(s(e), w(e)),
    "distance_norms, norm=False": lambda e: metrics.classifier_mean_distances(s(e), w(e), unit=False),
    "structure_error": lambda e: metrics.structure_error(w(e), s(e).centred_means()),
    "simplex_etf_error": lambda e: metrics.etf_error(s(e)),
    "self_duality_error": lambda e: metrics.self_duality_error(s(e), w(e)),
    "clf_ncc_agreement": lambda e: metrics.ncc_agreement(d(e)),
    "clf_ncc_agreement, weighted=False": lambda e: metrics.ncc_agreement(d(e), weighting="class"),
    "orthogonality_deviation": lambda e: metrics.ood_orthogonality(s(e), e.outside),
    "kernel_stats": lambda e: [metrics.distance_kernel(s(e), of=of) for of in ("mean", "variance")],
    "kernel_stats, log_kernel": lambda e: [metrics.log_kernel(s(e), of=of) for of in ("mean", "variance")],
    "kernel_stats, riesz_kernel": lambda e: [riesz(e, of) for of in ("mean", "variance")],
    "kernel_grid": lambda e: (2 - 2 * metrics.cosine_grid(s(e)).clamp(max=1)).sqrt().fill_diagonal_(0),
    "symm_reduce": lambda e: metrics.evaluate(Evidence(s(e)), ["distance_kernel"])["distance_kernel"],
    "normalize": lambda e: torch.nn.functional.normalize(s(e).means),
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind in DATA for name in PACKAGE[kind] if name != "class_dist_norm_vars"]
)
def test_the_package(name: str, kind: str) -> None:
    equal(ROWS[name](evidence_of(kind)), PACKAGE[kind][name])


@pytest.mark.parametrize("kind", DATA)
def test_the_grid_of_the_package(kind: str) -> None:
    """Its diagonal is infinite there."""
    grid = metrics.cdnv_grid(s(evidence_of(kind)))
    released = torch.tensor(PACKAGE[kind]["class_dist_norm_vars"], dtype=F64)
    equal(off_diagonal(grid), off_diagonal(released).tolist())
    assert released.diagonal().isinf().all() and grid.diagonal().isnan().all()


EXAMPLE = {
    "nc1": "covariance_ratio",
    "cdnv": "variability_cdnv",
    "nc2": "simplex_etf_error",
    "gnc2-distance": ("kernel_stats", 0),
    "gnc2-distance-variance": ("kernel_stats", 1),
    "gnc2-log": ("kernel_stats, log_kernel", 0),
    "gnc2-log-variance": ("kernel_stats, log_kernel", 1),
    "nc3": "self_duality_error",
    "unc3": "similarities, var",
    "nc4": "clf_ncc_agreement",
    "nc5": "orthogonality_deviation",
}
"""What the page's MNIST example measures, and the calls in theirs."""


@pytest.mark.parametrize("kind", DATA)
def test_the_measures_of_their_example(kind: str) -> None:
    """By `measure` on a model whose features are the inputs."""
    data = DATA[kind]
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(*reversed(data.weight.shape)).double())
    model[1].weight.data, model[1].bias.data = data.weight, data.bias
    theirs = [name for name in metrics.CONVENTIONS if name.startswith("neural-collapse-package/")]
    loader, outside = [(data.features, data.labels)], [(data.outside,)]
    report = tf.measure(model, loader, ood=outside, metrics=["trace_ratio"], conventions=theirs, progress=False)
    equal(report["trace_ratio"].value, PACKAGE[kind]["covariance_ratio, quotient"])
    assert set(theirs) == {f"neural-collapse-package/{name}" for name in EXAMPLE}
    for name, call in EXAMPLE.items():
        released = PACKAGE[kind][call] if isinstance(call, str) else PACKAGE[kind][call[0]][call[1]]
        equal(report[f"neural-collapse-package/{name}"].value, released, rtol=1e-8)


def test_all_rows_of_the_package_are_run() -> None:
    assert set(ROWS) == set(PACKAGE["even"]) - {"class_dist_norm_vars"}


def test_the_undivided_variant_is_another_number() -> None:
    evidence = evidence_of("uneven")
    for other in (metrics.nc1(s(evidence), divided=False), metrics.trace_ratio(s(evidence))):
        assert float(other) != pytest.approx(PACKAGE["uneven"]["covariance_ratio, svd"], rel=0.1)


# ---------------------------------------------------------------------- torch_prototypes


def head(**options: Any) -> Tensor:
    return tf.PrototypeHead(PROTOTYPES, dtype=F64, **options)(EMBEDDINGS)


def entropy(soft: Tensor) -> Tensor:
    return -(soft * soft.log()).sum(1).mean()


def divergence() -> Tensor:
    loss = tf.losses.SoftLabelCrossEntropy(COST, 2.0)
    return loss(SCORES, LABELS) - entropy(loss.soft_labels[LABELS])


EQUAL: dict[str, Callable[[], Any]] = {
    "LearntPrototypes": lambda: head(logits="euclidean"),
    "LearntPrototypes, squarred": lambda: head(logits="squared-euclidean"),
    "LearntPrototypes, ph": lambda: head(logits="pseudo-huber", delta=0.7),
    "LearntPrototypes, cosine": lambda: head(logits="cosine", scale=1.0) - 1,
    "HypersphericalProto": lambda: -(1 - head(scale=1.0)).square(),
    "EMDLoss": lambda: 0.4 * tf.losses.SquaredEarthMover(COST, 0.3)(SCORES, LABELS),
    "AverageCost": lambda: tf.ConfusionCounts.from_predictions(SCORES.argmax(1), LABELS, 5).average_cost(COST),
    "Distortion": lambda: tf.losses.Distortion(COST)(PROTOTYPES),
    "DistortionLoss": lambda: tf.losses.SquaredScaleFreeDistortion(COST)(PROTOTYPES),
    "RankLoss": lambda: tf.losses.PrototypeRank(UNTIED)(PROTOTYPES),
    "RankLoss, cos": lambda: tf.losses.SemanticRanking(-UNTIED)(PROTOTYPES),
    "HypersphericalLoss": lambda: tf.losses.Hyperspherical(PROTOTYPES, reduction="sum")(EMBEDDINGS, LABELS),
    "SeparationLoss": lambda: tf.losses.Separation()(PROTOTYPES),
    "SoftCrossEntropy": divergence,
    "Pseudo_Huber": lambda: 0.7 * ((1 + (SCORES / 0.7).square()).sqrt() - 1),
    "Eucl_Mat": lambda: torch.cdist(PROTOTYPES, PROTOTYPES, compute_mode="donot_use_mm_for_euclid_dist"),
    "DistortionLoss, scale_free=False": lambda: relative_errors(PROTOTYPES),
    "HierarchicalInference": lambda: inference(SCORES),
}
DIFFERENT = {
    *("DeepNCM", "HierarchicalCrossEntropy", "HierarchicalCrossEntropy, focal_gamma", "SoftCrossEntropy, focal_gamma"),
    *("ScaleFreeDistortion", "RankLoss, equal costs", "Cosine_Mat"),
    *("embed_nomenclature, rank", "embed_nomenclature, disto", "embed_on_sphere"),
}


def relative_errors(vectors: Tensor) -> Tensor:
    """The mean square over pairs of (d - D) / D, which the page says it is."""
    i, j = torch.triu_indices(5, 5, 1)
    return ((torch.pdist(vectors) - COST[i, j]) / COST[i, j]).square().mean()


def inference(scores: Tensor) -> Tensor:
    """Without the root, which theirs doesn't have."""
    tree = tf.hierarchy.from_path_matrix(torch.tensor([[3, 3, 0, 0, 0]]))
    found = tf.heads.HierarchicalHead(tree, len(tree), scores=torch.nn.Identity())
    rows = torch.stack([scores[:, int(n)] if n != "root" else torch.zeros(len(scores)) for n in tree.names], 1)
    by_name = dict(zip(tree.names, found.log_probabilities(rows).unbind(1), strict=True))
    return torch.stack([by_name[str(node)] for node in range(5)], 1)


def test_all_rows_of_torch_prototypes_are_run() -> None:
    assert set(EQUAL) | DIFFERENT == set(OTHER)


@pytest.mark.parametrize("name", EQUAL)
def test_torch_prototypes(name: str) -> None:
    equal(EQUAL[name](), OTHER[name], rtol=1e-8, atol=1e-9)


def test_class_means_of_batches() -> None:
    """Theirs are means of the batches' means; from one batch, or batches with equal counts, the same."""
    theirs = tf.heads.DeepNCM(5, 4, scale=1.0, dtype=F64)
    equal(theirs(EMBEDDINGS, LABELS), OTHER["DeepNCM"][0])
    first = torch.stack([EMBEDDINGS[k == LABELS].mean(0) for k in range(5)])
    second = EMBEDDINGS[:5].flip(0) * 2
    equal(-torch.cdist(second, (first + second) / 2).square(), OTHER["DeepNCM"][1])
    online = tf.heads.DeepNCM(5, 4, scale=1.0, dtype=F64, means=tf.heads.OnlineMeans(5, 4))
    online(EMBEDDINGS, LABELS)
    every = torch.cat([EMBEDDINGS, second]), torch.cat([LABELS, torch.arange(5)])
    means = torch.stack([every[0][every[1] == k].mean(0) for k in range(5)])
    equal(online(second, torch.arange(5)), (-torch.cdist(second, means).square()).tolist())


@pytest.mark.parametrize(("name", "gamma"), [("", 0.0), (", focal_gamma", 2.0)])
def test_hierarchical_cross_entropy(name: str, gamma: float) -> None:
    """Theirs, from our probabilities: cumulative ones start at 1 but the root's, plus 1e-6, with weights by height."""
    tree = tf.hierarchy.from_class_path_matrix(torch.tensor(PATHS))
    weights = (-0.5 * (tree.heights + 1)).exp()
    masses = tf.hierarchy.TreeInference(tree).log_masses(SCORES.log_softmax(1)).exp()
    cumulative = masses + torch.tensor([0.0 if k < 5 or k == tree.root else 1.0 for k in range(len(tree))])
    total = torch.zeros(len(LABELS), dtype=F64)
    for row, label in enumerate(LABELS.tolist()):
        path = [node for node in tree.paths[label].tolist() if node >= 0]
        for above, node in pairwise(path):
            p = (cumulative[row, node] + 1e-6) / (cumulative[row, above] + 1e-6)
            total[row] -= weights[node] * (1 - p) ** gamma * p.log()
    equal(total.mean(), OTHER[f"HierarchicalCrossEntropy{name}"], rtol=1e-6)
    exact = tf.losses.HierarchicalCrossEntropy(tree, level_weights=weights, focal=gamma)(SCORES, LABELS)
    assert float(exact) != pytest.approx(OTHER[f"HierarchicalCrossEntropy{name}"], rel=0.01)


def test_focal_soft_labels() -> None:
    """The factor is on the log-probabilities in both; less the soft labels' entropy."""
    loss = tf.losses.SoftLabelCrossEntropy(COST, 2.0, focal=1.5)
    equal(loss(SCORES, LABELS) - entropy(loss.soft_labels[LABELS]), OTHER["SoftCrossEntropy, focal_gamma"])


def test_what_cannot_be_called_there() -> None:
    assert OTHER["ScaleFreeDistortion"] == "AttributeError"
    assert tf.losses.ScaleFreeDistortion(COST)(PROTOTYPES) > 0


def test_equal_costs() -> None:
    """A target of 1/2 here, 0 there."""
    i, j, k = TRIPLETS.T
    tied = COST[i, j] == COST[i, k]
    distances = torch.cdist(PROTOTYPES, PROTOTYPES)
    gap = (distances[i, j] - distances[i, k])[tied]
    ours = rank_loss(PROTOTYPES, COST, TRIPLETS)
    theirs = ours + (torch.nn.functional.softplus(gap) - torch.nn.functional.softplus(gap) / 2
                     - torch.nn.functional.softplus(-gap) / 2).sum() / len(TRIPLETS)  # fmt: skip
    equal(theirs, OTHER["RankLoss, equal costs"], rtol=1e-8)
    equal(tf.losses.PrototypeRank(COST)(PROTOTYPES), float(ours))


def test_cosines() -> None:
    statistics = tf.ClassStatistics.from_features(PROTOTYPES, torch.arange(5), 5)
    centred = PROTOTYPES - PROTOTYPES.mean(0)
    grid = 1 - torch.nn.functional.cosine_similarity(centred[:, None], centred[None], dim=-1)
    equal(1 - metrics.cosine_grid(statistics), grid.tolist())
    plain = torch.nn.functional.normalize(PROTOTYPES)
    equal(1 - plain @ plain.T, OTHER["Cosine_Mat"])


def test_embeddings_are_no_worse() -> None:
    """In the objectives that the released search descends; all triplets, distances in units of the costs."""
    theirs = torch.tensor(OTHER["embed_nomenclature, disto"], dtype=F64)
    ours = tf.prototypes.metric_guided(COST, 2, objective="squared").vectors
    assert tf.losses.SquaredScaleFreeDistortion(COST)(ours) <= tf.losses.SquaredScaleFreeDistortion(COST)(theirs) + 1e-9
    sphere = torch.tensor(OTHER["embed_on_sphere"], dtype=F64)
    found = tf.prototypes.semantic(-COST, 3, rounds=2).vectors

    def objective(vectors: Tensor) -> float:
        return float(tf.losses.Separation()(vectors) + tf.losses.SemanticRanking(-COST)(vectors))

    assert objective(found) <= objective(sphere) + 1e-9
    order = tf.prototypes.metric_guided(COST, 2, objective="rank").vectors
    ranked = torch.tensor(OTHER["embed_nomenclature, rank"], dtype=F64)

    def agreement(vectors: Tensor) -> float:
        i, j, k = TRIPLETS.T
        unequal = COST[i, j] > COST[i, k]
        distances = torch.cdist(vectors, vectors)
        return float((distances[i, j] > distances[i, k])[unequal].double().mean())

    assert agreement(order) >= agreement(ranked)
