"""Runs the released code on `released_data` and writes recorded.json: `python record.py FOLDER`.

FOLDER holds each repository of `SOURCES`, checked out in OWNER+NAME, and an earlier commit of the package's, with
`covariance_pinv`, in rhubarbwu+neural-collapse@9036e53. Functions are taken out of the released files as
they are, since most of these files also train or need packages that their measures don't.
"""

import ast
import builtins
import contextlib
import io
import itertools
import json
import re
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy
import scipy.linalg
import torch
from scipy import spatial
from scipy.sparse.linalg import svds
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from released_data import (
    COST,
    DATA,
    EMBEDDINGS,
    LABELS,
    PATHS,
    PROTOTYPES,
    SCORES,
    TRIPLETS,
    UNTIED,
    Data,
)

FOLDER = Path(sys.argv[1])
SOURCES = {
    "neuralcollapse/neuralcollapse": "7f12011df9144dd0e0a6073339b10e70e2b53666",
    "tding1/Neural-Collapse": "04ef5860d4a8dd54aa159d2c800dce83f30490e6",
    "jinxinzhou/nc_loss": "a294e2a57e852bb3a577ab3eb09a5858546d410e",
    "cjyaras/normalized-neural-collapse": "286f66967757bab6b851d60956642623e638d839",
    "evanmarkou/Guiding-Neural-Collapse": "00cdf2940aee354f735f370f7841913cd580e06f",
    "HornHehhf/LPM": "c8b5bb194a6d80bd3cfbddeec7fb183b4b16a116",
    "ltong1130ztr/HAFrame": "abe73b43dd0122a727ca87029e325ba854b18c16",
    "dmbeaglehole/neural_collapse_rfm": "eee0604ce74df8402ff11fb79fd371c5a7bbe7f1",
    "rhubarbwu/neural-collapse": "c05a0b80d6bc6e8e2e102f2180f1f33b2c9605fd",
    "rhubarbwu/linguistic-collapse": "9e250206e47ef07a999d3e90f034d4dd07ee58d4",
    "VSainteuf/metric-guided-prototypes-pytorch": "fae90235b57a71f3ab682917eaf5517799fbffed",
}
torch.set_default_dtype(torch.float64)
Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
Tensor.cpu = lambda self, *_, **__: self.clone()  # type: ignore[method-assign, assignment]  # as from a GPU
nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]


def place(repository: str) -> Path:
    return FOLDER / repository.replace("/", "+")


def taken(source: str, *names: str, **known: Any) -> SimpleNamespace:
    """The functions and classes of these names in a file's text, with the modules they use, and what else they know."""
    body = [node for node in ast.parse(source).body if getattr(node, "name", None) in names]
    space: dict[str, Any] = {
        **{"np": np, "torch": torch, "nn": nn, "scipy": scipy, "scilin": scipy.linalg, "spatial": spatial},
        **{"svds": svds, "F": torch.nn.functional, "tqdm": lambda each=None, **_: each or Bar(), **known},
    }
    exec(compile(ast.Module(body, []), "released", "exec"), space)
    return SimpleNamespace(space=space, **{name: space[name] for name in names})


class Bar:
    def update(self, *_: Any) -> None: ...

    set_description = close = update


class Stored(nn.Module):
    """A network of which the inputs are the features: logits, and the features where `both`."""

    def __init__(self, data: Data, both: bool = False):
        super().__init__()
        self.fc = nn.Linear(*data.weight.T.shape)
        self.fc.weight.data, self.fc.bias.data = data.weight.clone(), data.bias.clone()
        self.both = both

    def forward(self, rows: Tensor) -> Any:
        rows = rows.clone()  # some code adds to the features in place
        return (self.fc(rows), rows) if self.both else self.fc(rows)


def batches(data: Data) -> list[tuple[Tensor, Tensor]]:
    return list(zip(data.features.split(25), data.labels.split(25), strict=True))


# ---------------------------------------------------------------------- papers


def papyan(data: Data) -> dict[str, float]:
    cells = json.loads((place("neuralcollapse/neuralcollapse") / "neuralcollapse.ipynb").read_text())["cells"]
    source = next(text for cell in cells if "def analysis" in (text := "".join(cell["source"])))
    model = Stored(data)
    features = SimpleNamespace(value=None)
    model.fc.register_forward_hook(lambda module, inputs, outputs: setattr(features, "value", inputs[0].clone()))
    names = "accuracy loss reg_loss Sw_invSb norm_M_CoV norm_W_CoV cos_M cos_W W_M_dist NCC_mismatch"
    graphs = SimpleNamespace(**{name: [] for name in names.split()})
    known = {"C": len(data.weight), "debug": False, "loss_name": "CrossEntropyLoss", "weight_decay": 5e-4, "epoch": 1}
    bar = lambda total=None, **_: Bar()  # noqa: E731
    found = taken(source, "analysis", **known, features=features, classifier=model.fc)
    found.space["tqdm"] = bar
    with torch.no_grad():
        criterion = nn.CrossEntropyLoss(reduction="sum")
        found.analysis(graphs, model, criterion, torch.device("cpu"), len(data.weight), batches(data))
    return {name: float(getattr(graphs, name)[0]) for name in names.split() if "loss" not in name}


def zhu(data: Data) -> dict[str, float]:
    root = place("tding1/Neural-Collapse")
    tools = taken((root / "utils.py").read_text(), "AverageMeter", "compute_accuracy")
    names = "FCFeatures compute_info compute_Sigma_W compute_Sigma_B compute_ETF compute_W_H_relation"
    found = taken(
        (root / "validate_NC.py").read_text(),
        *names.split(),
        "compute_Wh_b_relation",
        **{"MNIST_TRAIN_SAMPLES": tuple(data.counts), "AverageMeter": tools.AverageMeter},
        compute_accuracy=tools.compute_accuracy,
    )
    args, hook = SimpleNamespace(device="cpu", dataset="mnist"), found.FCFeatures()
    model = Stored(data)
    # the logits' first row alone goes into an accuracy that isn't recorded
    found.space["compute_accuracy"] = lambda *_, **__: (torch.zeros(1), torch.zeros(1))
    model.fc.register_forward_pre_hook(hook)
    with torch.no_grad():
        mean, means, *_ = found.compute_info(args, model, hook, batches(data))
        within = found.compute_Sigma_W(args, model, hook, means, batches(data))
        between = found.compute_Sigma_B(means, mean)
        return {
            "collapse_metric": np.trace(within @ scipy.linalg.pinv(between)) / len(means),
            "ETF_metric": found.compute_ETF(data.weight),
            "WH_relation_metric": found.compute_W_H_relation(data.weight, means, mean)[0],
            "Wh_b_relation_metric": found.compute_Wh_b_relation(data.weight, mean, data.bias),
        }


def zhou(data: Data) -> dict[str, float]:
    names = "split_array compute_info compute_Sigma_W compute_Sigma_B compute_ETF compute_W_H_relation"
    meter = taken((place("jinxinzhou/nc_loss") / "train_utils.py").read_text(), "AverageMeter").AverageMeter
    found = taken(
        (place("jinxinzhou/nc_loss") / "evaluate.py").read_text(),
        *names.split(),
        "compute_Wh_b_relation",
        AverageMeter=meter,
        compute_accuracy=lambda *_, **__: (torch.zeros(1), torch.zeros(1)),
    )
    with torch.no_grad():
        mean, means, rows, *_ = found.compute_info(Stored(data, both=True), batches(data), "cpu")
        within = found.compute_Sigma_W(rows, means, "cpu")
        between = found.compute_Sigma_B(means, mean)
        return {
            "collapse_metric": np.trace(within @ scipy.linalg.pinv(between)) / len(means),
            "ETF_metric": found.compute_ETF(data.weight, "cpu"),
            "WH_relation_metric": found.compute_W_H_relation(data.weight, means, mean, "cpu")[0],
            "Wh_b_relation_metric": found.compute_Wh_b_relation(data.weight, mean, data.bias, "cpu"),
        }


def yaras(data: Data) -> dict[str, float]:
    text = (place("cjyaras/normalized-neural-collapse") / "generalized_model.py").read_text()
    model = Stored(data, both=True)
    one = SimpleNamespace(model=model, device="cpu", num_classes=len(data.weight), criterion=nn.CrossEntropyLoss())
    _, _, nc1, nc2, nc3 = taken(text, "GeneralizedModel").GeneralizedModel.compute_loss_acc_nc(one, batches(data))
    return {"nc1": float(nc1), "nc2": float(nc2), "nc3": float(nc3)}


def markou(data: Data) -> dict[str, float]:
    text = (place("evanmarkou/Guiding-Neural-Collapse") / "nc" / "validate_NC.py").read_text()
    names = "split_array compute_Sigma_W compute_Sigma_B compute_Variability_Collapse_index compute_ETF"
    names += " compute_W_H_relation compute_Wh_b_relation compute_W_H_equinorm"
    found, args = taken(text, *names.split()), SimpleNamespace(device="cpu")
    mean = data.features.mean(0)
    rows = {k: data.features[data.labels == k].numpy() for k in range(len(data.weight))}
    means = {k: torch.from_numpy(each.mean(0)) for k, each in rows.items()}
    within, between = found.compute_Sigma_W(args, rows, means), found.compute_Sigma_B(means, mean)
    relation, h = found.compute_W_H_relation(data.weight, means, mean, "cpu")
    w_equinorm, h_equinorm, _ = found.compute_W_H_equinorm(data.weight, h)
    return {
        "collapse_metric": np.trace(within @ scipy.linalg.pinv(between)) / len(means),
        "VCI": found.compute_Variability_Collapse_index(within, between, len(means)),
        "ETF_metric": found.compute_ETF(data.weight, "cpu"),
        "WH_relation_metric": relation,
        "Wh_b_relation_metric": found.compute_Wh_b_relation(data.weight, mean, data.bias, "cpu"),
        "W_equinorm": w_equinorm,
        "H_equinorm": h_equinorm,
    }


def fang(data: Data) -> dict[str, float]:
    text = (place("HornHehhf/LPM") / "minority_collapse.py").read_text()
    found = taken(
        text,
        *("get_features", "analyze_collapse", "analyze_dual"),
        Variable=lambda each: each,
        get_minibatches_idx=lambda size, minibatch_size, shuffle: np.array_split(np.arange(size), 4),
    )
    K = len(data.weight)
    config = {"simple_test_batch_size": 30, "R": "inf", "t1": K}
    model = SimpleNamespace(get_features=lambda rows: rows)
    loader = list(zip(data.features, data.labels[:, None], strict=True))
    found.space["torch"] = SimpleNamespace(Tensor=lambda each: torch.as_tensor(np.asarray(each)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        means = found.get_features(loader, model, config)
        found.analyze_collapse(data.weight.numpy(), config, "weights")
        found.analyze_collapse(means, config, "features")
        found.analyze_dual(data.weight.numpy(), means)
    lines = [re.fullmatch(r"(std .*|avg .*|dual .*) ([0-9.e+-]+)", line) for line in said.getvalue().splitlines()]
    return {line[1]: float(line[2]) for line in lines if line}


def haframe(data: Data) -> dict[str, float]:
    text = (place("ltong1130ztr/HAFrame") / "HAFrame" / "neural_collapse.py").read_text()
    names = "cosine_similarity pair_wise_cosine_similarity stats_between_actual_cosine_sim_and_ideal_cosine_sim"
    names += " cls_weights_and_feature_collapse extract_class_feature_means"
    found = taken(text, *names.split())
    model = SimpleNamespace(
        eval=lambda: None,
        classifier_3=SimpleNamespace(out_features=len(data.weight)),
        penultimate_feature=lambda rows: rows,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        means, mean = found.extract_class_feature_means(model, batches(data), "penultimate", "cpu")
    weight, opts = data.weight.numpy(), SimpleNamespace(frame="ETF")
    cosines = found.stats_between_actual_cosine_sim_and_ideal_cosine_sim
    return {
        "cfeat_cos_mean": cosines(opts, means - mean, weight)[0],
        "cfeat_cos_std": cosines(opts, means - mean, weight)[1],
        "cls_cos_std": cosines(opts, weight, weight)[1],
        "cls_cfeat_duality": found.cls_weights_and_feature_collapse(weight, means - mean),
    }


def beaglehole(data: Data) -> dict[str, float]:
    text = (place("dmbeaglehole/neural_collapse_rfm") / "nc_nn.py").read_text()
    K = len(data.weight)
    found = taken(text, "get_class_variance", NUM_CLASSES=K, n=len(data.labels) // K)
    between, within, total, _ = found.get_class_variance(data.features, torch.eye(K)[data.labels])
    return {
        "covW/covT": float(within.trace() / total.trace()),
        "covW/covB": float(within.trace() / between.trace()),
    }


# ---------------------------------------------------------------------- packages


def collected(data: Data) -> dict[str, Any]:
    """By the accumulators of the package."""
    from neural_collapse.accumulate import (
        CovarAccumulator,
        DecAccumulator,
        MeanAccumulator,
        VarNormAccumulator,
    )

    size = *data.weight.shape, "cpu", torch.float64
    means, ood = MeanAccumulator(*size), MeanAccumulator(1, data.weight.shape[1], "cpu", torch.float64)
    for x, y in batches(data):
        means.accumulate(x, y)
    ood.accumulate(data.outside, torch.zeros(len(data.outside), dtype=torch.int64))
    M, mG = means.compute()
    covariance, variances = CovarAccumulator(*size, M=M), VarNormAccumulator(*size, M=M)
    decisions = DecAccumulator(*size, M=M, W=data.weight)
    for x, y in batches(data):
        covariance.accumulate(x, y, M)
        variances.accumulate(x, y, M)
        decisions.accumulate(x, y, data.weight, M)
    return {
        **{"means": means, "M": M, "mG": mG, "covariance": covariance.compute(), "W": data.weight},
        **{"variances": variances.compute()[0], "decisions": decisions, "ood": ood.compute()[1]},
    }


def package(data: Data) -> dict[str, Any]:
    from neural_collapse import kernels, measure, util

    had = collected(data)
    M, mG, W, V = had["M"], had["mG"], had["W"], had["variances"]
    few = had["means"].filter_indices_by_n_samples(6, 12)
    grids = {
        "distance": kernels.kernel_grid(M, mG),
        "log": kernels.kernel_grid(M, mG, kernels.log_kernel),
        "riesz": kernels.kernel_grid(M, mG, kernels.riesz_kernel),
    }
    crowded = len(M) > M.shape[1]
    earlier = FOLDER / "rhubarbwu+neural-collapse@9036e53" / "neural_collapse" / "measure.py"
    old = taken(earlier.read_text(), "covariance_pinv", "covariance_ratio", pt=torch, la=torch.linalg, Tensor=Tensor)
    older = {
        "covariance_pinv": old.covariance_pinv(had["covariance"], M, mG),
        "covariance_ratio, earlier": old.covariance_ratio(had["covariance"], M, mG),
    }
    if not crowded:
        older["covariance_pinv, svd=True"] = old.covariance_pinv(had["covariance"], M, mG, svd=True)
    return {
        **older,
        "MeanAccumulator": M,
        "MeanAccumulator, mean": mG,
        "CovarAccumulator": had["covariance"],
        "VarNormAccumulator": V,
        "DecAccumulator": had["decisions"].compute()[0],
        "filter_indices_by_n_samples(6, 12)": few,
        "covariance_ratio": measure.covariance_ratio(had["covariance"], M, mG),
        **({} if crowded else {"covariance_ratio, svd": measure.covariance_ratio(had["covariance"], M, mG, "svd")}),
        "covariance_ratio, quotient": measure.covariance_ratio(had["covariance"], M, mG, "quotient"),
        "variability_cdnv": measure.variability_cdnv(V, M),
        "variability_cdnv, dist_exp=2": measure.variability_cdnv(V, M, 2),
        "variability_cdnv, tile_size=3": measure.variability_cdnv(V, M, tile_size=3),
        "class_dist_norm_vars": [row.tolist() for row in kernels.class_dist_norm_vars(V, M)],
        "mean_norms": measure.mean_norms(M, mG),
        "mean_norms, log": measure.mean_norms(M, mG, [torch.log]),
        "interference_grid": measure.interference_grid(M, mG),
        "similarities": measure.similarities(W, M, mG),
        "similarities, cos": measure.similarities(W, M, mG, True),
        "similarities, var": measure.similarities(W, M, mG).var(),
        "distance_norms": measure.distance_norms(W, M, mG),
        "distance_norms, norm=False": measure.distance_norms(W, M, mG, False),
        "structure_error": measure.structure_error(W.clone(), (M - mG).clone()),
        "simplex_etf_error": measure.simplex_etf_error(M, mG),
        "self_duality_error": measure.self_duality_error(W, M, mG),
        "clf_ncc_agreement": measure.clf_ncc_agreement(had["decisions"]),
        "clf_ncc_agreement, weighted=False": measure.clf_ncc_agreement(had["decisions"], weighted=False),
        "orthogonality_deviation": measure.orthogonality_deviation(M, had["ood"]),
        "kernel_stats": kernels.kernel_stats(M, mG),
        "kernel_stats, log_kernel": kernels.kernel_stats(M, mG, kernels.log_kernel),
        "kernel_stats, riesz_kernel": kernels.kernel_stats(M, mG, kernels.riesz_kernel),
        "kernel_grid": grids["distance"],
        "symm_reduce": util.symm_reduce(grids["distance"]),
        "normalize": util.normalize(M),
    }


def linguistic(data: Data) -> dict[str, float]:
    """The columns that analyze.py writes, by the calls that it makes."""
    from neural_collapse import kernels, measure, util

    had, table = collected(data), {}
    M, mG, W, V = had["M"], had["mG"], had["W"], had["variances"]
    found = taken(
        (place("rhubarbwu/linguistic-collapse") / "lib" / "statistics.py").read_text(),
        *("triu_stats", "save_metrics"),
        **{"symm_reduce": util.symm_reduce, "Tensor": Tensor, "Tuple": tuple, "DataFrame": dict},
        update_df=lambda df, key, value, _: df.__setitem__(key, float(value)),
    )
    found.space["update_df"](table, "cdnv", measure.variability_cdnv(V, M, 2, 1024), "")
    found.save_metrics(table, measure.mean_norms(M, mG), "norms", "")
    found.save_metrics(table, measure.mean_norms(M, mG, [torch.log]), "norms_log", "")
    found.space["update_df"](table, "etf_error", measure.simplex_etf_error(M, mG), "")
    found.save_metrics(table, measure.interference_grid(M, mG), "interfere", "", True)
    found.save_metrics(table, kernels.kernel_grid(M, mG, kernels.log_kernel, 1024), "log_kern", "", True)
    found.space["update_df"](table, "dual_error", measure.self_duality_error(W, M, mG), "")
    found.save_metrics(table, measure.similarities(W, M, mG), "simdot", "")
    found.save_metrics(table, measure.similarities(W, M, mG, True), "simcos", "")
    found.save_metrics(table, measure.distance_norms(W, M, mG), "dists", "")
    hits = had["decisions"].totals
    table |= {"hits": int(hits.sum()), "misses": int((had["decisions"].ns_samples - hits).sum())}
    return table


def torch_prototypes() -> dict[str, Any]:
    """torch_scatter is stood in for by torch's own sums."""

    def scatter_sum(values: Tensor, index: Tensor, dim: int, dim_size: int) -> Tensor:
        return torch.zeros(len(values), dim_size).index_add(dim, index, values)

    def scatter_mean(values: Tensor, index: Tensor, dim: int, dim_size: int) -> Tensor:
        sums = torch.zeros(dim_size, values.shape[1]).index_add(0, index[:, 0], values)
        return sums / torch.bincount(index[:, 0], minlength=dim_size).clamp(min=1)[:, None]

    def scatter_logsumexp(values: Tensor, index: Tensor, dim: int) -> Tensor:
        return torch.stack([values[:, index == k].logsumexp(1) for k in range(int(index.max()) + 1)], 1)

    stand_in = types.ModuleType("torch_scatter")
    stand_in.__dict__.update(
        scatter_sum=scatter_sum, scatter_mean=scatter_mean, scatter_logsumexp=scatter_logsumexp, scatter_softmax=None
    )
    sys.modules["torch_scatter"] = stand_in
    sys.path.insert(0, str(place("VSainteuf/metric-guided-prototypes-pytorch")))
    from torch_prototypes.metrics import cost, distortion, hyperspherical, rank
    from torch_prototypes.modules import hierarchical_inference, metric_embedding, prototypical_network, softlabels

    same, P, z, x, y = nn.Identity(), PROTOTYPES, EMBEDDINGS, SCORES, LABELS
    unit = P / P.norm(dim=1, keepdim=True)

    def learnt(**options: Any) -> Tensor:
        return prototypical_network.LearntPrototypes(same, 5, 4, prototypes=P.clone(), device="cpu", **options)(z)

    def ranked(costs: Tensor, dist: str) -> Tensor:
        """Over all triplets instead of random ones."""
        drawn, perm = itertools.cycle(TRIPLETS), torch.randperm
        torch.randperm = lambda n: next(drawn)  # type: ignore[assignment]
        try:
            return rank.RankLoss(costs, len(TRIPLETS), dist=dist)(P)
        finally:
            torch.randperm = perm

    rand = torch.rand
    torch.rand = lambda *size, **options: rand(*size)  # type: ignore[assignment]
    ncm = prototypical_network.DeepNCM(same, 5, 4)
    first, second = ncm(z, y), ncm(z[[0, 1, 2, 3, 4]].flip(0) * 2, torch.tensor([0, 1, 2, 3, 4]))
    torch.rand = rand
    try:
        distortion.ScaleFreeDistortion(COST)(P)
        scale_free = "runs"
    except AttributeError:
        scale_free = "AttributeError"
    paths, mask = torch.tensor([[3, 3, 0, 0, 0]]), torch.tensor([0, 0, 1, 1, 1])
    tree_loss = hierarchical_inference.HierarchicalCrossEntropy
    steps = {}
    silent = io.StringIO()
    for name, call in {
        "embed_nomenclature, rank": lambda: metric_embedding.embed_nomenclature(COST, 2),
        "embed_nomenclature, disto": lambda: metric_embedding.embed_nomenclature(COST, 2, "disto", lr=0.1),
        "embed_on_sphere": lambda: metric_embedding.embed_on_sphere(COST, 3),
    }.items():
        torch.manual_seed(0)
        with contextlib.redirect_stdout(silent):
            steps[name] = call()
    return {
        "LearntPrototypes": learnt(),
        "LearntPrototypes, squarred": learnt(squarred=True),
        "LearntPrototypes, ph": learnt(ph=0.7),
        "LearntPrototypes, cosine": learnt(dist="cosine"),
        "HypersphericalProto": prototypical_network.HypersphericalProto(same, 5, P.clone())(z),
        "DeepNCM": [first, second],
        "HierarchicalInference": hierarchical_inference.HierarchicalInference(same, paths, mask)(x),
        "HierarchicalCrossEntropy": tree_loss(PATHS, 0.5)(x, y),
        "HierarchicalCrossEntropy, focal_gamma": tree_loss(PATHS, 0.5, focal_gamma=2.0)(x, y),
        "SoftCrossEntropy": softlabels.SoftCrossEntropy(COST, 2.0)(x, y),
        "SoftCrossEntropy, focal_gamma": softlabels.SoftCrossEntropy(COST, 2.0, focal_gamma=1.5)(x, y),
        "EMDLoss": cost.EMDLoss(0.4, 0.3, COST)(x, y),
        "AverageCost": cost.AverageCost(COST)(x, y),
        "Distortion": distortion.Distortion(COST)(P),
        "ScaleFreeDistortion": scale_free,
        "DistortionLoss": distortion.DistortionLoss(COST)(P),
        "DistortionLoss, scale_free=False": distortion.DistortionLoss(COST, scale_free=False)(P),
        "RankLoss": ranked(UNTIED, "eucl"),
        "RankLoss, equal costs": ranked(COST, "eucl"),
        "RankLoss, cos": ranked(UNTIED, "cos"),
        "SeparationLoss": hyperspherical.SeparationLoss()(unit),
        "HypersphericalLoss": hyperspherical.HypersphericalLoss()(
            prototypical_network.HypersphericalProto(same, 5, P.clone())(z), y
        ),
        "Pseudo_Huber": distortion.Pseudo_Huber(0.7)(x),
        "Eucl_Mat": distortion.Eucl_Mat()(P),
        "Cosine_Mat": distortion.Cosine_Mat()(P),
        **steps,
    }


# ---------------------------------------------------------------------- all


def plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return float(f"{value:.14g}") if isinstance(value, float) else value


def main() -> None:
    sys.path.insert(0, str(place("rhubarbwu/neural-collapse")))
    builtins.print = print
    runs = {
        "neuralcollapse/neuralcollapse": papyan,
        "tding1/Neural-Collapse": zhu,
        "jinxinzhou/nc_loss": zhou,
        "cjyaras/normalized-neural-collapse": yaras,
        "evanmarkou/Guiding-Neural-Collapse": markou,
        "HornHehhf/LPM": fang,
        "ltong1130ztr/HAFrame": haframe,
        "dmbeaglehole/neural_collapse_rfm": beaglehole,
        "rhubarbwu/neural-collapse": package,
        "rhubarbwu/linguistic-collapse": linguistic,
    }
    fitting = ("rhubarbwu/neural-collapse", "rhubarbwu/linguistic-collapse")  # the others suppose K - 1 <= D
    values = {
        name: {kind: run(data) for kind, data in DATA.items() if kind != "crowded" or name in fitting}
        for name, run in runs.items()
    }
    values["VSainteuf/metric-guided-prototypes-pytorch"] = {"own": torch_prototypes()}
    text = json.dumps({"commits": SOURCES, "values": plain_tree(values)}, indent=1)
    text = re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    (Path(__file__).parent / "recorded.json").write_text(text + "\n")


def plain_tree(values: Any) -> Any:
    return {key: plain_tree(each) for key, each in values.items()} if isinstance(values, dict) else plain(values)


if __name__ == "__main__":
    main()
