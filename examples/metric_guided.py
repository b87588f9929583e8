"""Metric-guided prototypes on MNIST: four heads, their errors, the cost of the errors, and the plane of embeddings.

Sainte Fare Garnot & Landrieu 2021, Leveraging Class Hierarchies with Metric-Guided Prototype Learning, figure 1 and the
notebook mgp.ipynb of their repository. Needs MNIST in the folder TIGHTFRAME_DATA.

    python examples/metric_guided.py
"""

import statistics
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from gallery import require, run
from tightframe import ConfusionCounts, PrototypeHead, PrototypeModel, datasets, losses, prototypes

HEADS = ("cross-entropy", "free", "guided", "fixed")
PUBLISHED = {"cross-entropy": (15.16, 0.81), "free": (14.15, 0.75), "guided": (11.94, 0.52), "fixed": (21.47, 0.82)}
IMAGES, EPOCHS, SEEDS, SHOWN = 10_000, 12, (0, 1), 1000
DEGREES, ENLARGED = 40.0, 1.3
ORDER = (2, 5, 3, 8, 6, 9, 0, 4, 1, 7)  # digits, similar ones side by side, for the colours
TREE = datasets.hierarchy_of("mnist")


class Trained(NamedTuple):
    enlarged: tuple[float, float]  # error in %, mean cost; test images enlarged like the training images
    plain: tuple[float, float]  # the same on the test images as they are
    order: float  # share of triplets of classes whose distances have the order of the costs
    distortion: float
    embeddings: Tensor  # (N, 2) of enlarged test images
    vectors: Tensor  # (10, 2)


def varied(images: Tensor, degrees: float) -> Tensor:
    """Images enlarged and turned by random angles."""
    angles = (degrees * (2 * torch.rand(len(images)) - 1)).deg2rad()
    cosine, sine, zero = angles.cos() / ENLARGED, angles.sin() / ENLARGED, torch.zeros_like(angles)
    turns = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    return grid_sample(images, affine_grid(turns, list(images.shape), align_corners=False), align_corners=False)


def network() -> nn.Sequential:
    """Three convolutions, the maximum over positions, two linear layers to the plane."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, stride in ((1, 16, 2), (16, 16, 2), (16, 32, 1)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride), nn.BatchNorm2d(fan_out), nn.ReLU()]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 64), nn.Linear(64, 2)]
    return nn.Sequential(nn.BatchNorm2d(1), *layers)


def order_agreement(vectors: Tensor) -> float:
    """Share of triplets i, j, k with cost(i, j) < cost(i, k) whose distances have the same order; 0.5 by chance."""
    distances, cost = torch.cdist(vectors, vectors), TREE.distances()
    i, j, k = torch.cartesian_prod(*3 * [torch.arange(10)]).T
    ordered = (i != j) & (cost[i, j] < cost[i, k])
    return (distances[i, j] < distances[i, k])[ordered].double().mean().item()


def head_of(name: str, seed: int) -> nn.Module:
    if name == "cross-entropy":
        return nn.Linear(2, 10)
    start = torch.rand(10, 2) if name != "fixed" else prototypes.metric_guided(TREE, 2, seed=seed)
    return PrototypeHead(start, logits="euclidean", learnable=name != "fixed")


def train(name: str, seed: int, data: datasets.Dataset) -> Trained:
    torch.manual_seed(seed)
    model = PrototypeModel(network(), head_of(name, seed))
    guide = losses.SquaredScaleFreeDistortion(TREE)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [EPOCHS * 2 // 3, EPOCHS * 5 // 6])
    for _ in range(EPOCHS):
        model.train()
        for index in torch.randperm(IMAGES).split(128):
            loss = cross_entropy(model(varied(data.train_images[index], DEGREES)), data.train_labels[index])
            loss = loss + guide(model.prototypes) if name == "guided" else loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    model.eval()
    labels, scores = data.test_labels, []
    with torch.no_grad():
        for images in (data.test_images, varied(data.test_images, 0)):
            embeddings = torch.cat([model.backbone(part) for part in images.split(500)])
            counts = ConfusionCounts.from_predictions(model.head(embeddings).argmax(1), labels, 10)
            scores.append((100 * (1 - counts.accuracy().item()), counts.average_cost(TREE).item()))
    means = torch.stack([embeddings[labels == digit].mean(0) for digit in range(10)])
    vectors = means if name == "cross-entropy" else model.prototypes.detach()
    distortion = losses.ScaleFreeDistortion(TREE)(vectors).item()
    return Trained(scores[1], scores[0], order_agreement(vectors), distortion, embeddings, vectors)


def compute() -> dict[str, list[Trained]]:
    data = datasets.subsample(datasets.load("mnist"), [IMAGES // 10] * 10)
    return {name: [train(name, seed, data) for seed in SEEDS] for name in HEADS}


def summary(runs: list[Trained]) -> dict[str, float]:
    """Means over the seeds; the cost per error is the mean cost over the error rate."""
    values = {}
    for view in ("enlarged", "plain"):
        error, cost = (statistics.mean(column) for column in zip(*(getattr(run, view) for run in runs), strict=True))
        values |= {f"{view} error": error, f"{view} cost": cost, f"{view} per error": 100 * cost / error}
    return values | {key: statistics.mean(getattr(run, key) for run in runs) for key in ("order", "distortion")}


def table(trained: dict[str, list[Trained]]) -> str:
    lines = ["".join([f"{'':13}", *(f"{view:>24}" for view in ("enlarged test images", "plain test images", "paper"))])]
    lines.append(f"{'head':13}" + 3 * f"{'error %':>8}{'cost':>6}{'per error':>10}" + f"{'order':>8}{'distortion':>12}")
    for name, runs in trained.items():
        values, (error, cost) = summary(runs), PUBLISHED[name]
        columns = *list(values.values())[:6], error, cost, 100 * cost / error
        shown = "".join(f"{value:{width}.2f}" for value, width in zip(columns, 3 * (8, 6, 10), strict=True))
        lines.append(f"{name:13}{shown}{values['order']:8.3f}{values['distortion']:12.3f}")
    return "\n".join(lines)


def figure(trained: dict[str, list[Trained]]) -> Figure:
    drawing = Figure(figsize=(7.5, 6.5), layout="constrained")
    colours = [ORDER.index(digit) for digit in datasets.load("mnist").test_labels[:SHOWN]]
    for axes, (name, runs) in zip(drawing.subplots(2, 2).flat, trained.items(), strict=True):
        points, vectors = runs[0].embeddings[:SHOWN], runs[0].vectors
        axes.scatter(*points.T, c=colours, cmap="Spectral", s=5, linewidths=0, rasterized=True)
        for digit, place in enumerate(vectors.tolist()):
            circle = {"boxstyle": "circle,pad=0.2", "fc": "white", "alpha": 0.8}
            axes.annotate(digit, place, ha="center", va="center", bbox=circle, fontsize=8)
        axes.set(xticks=[], yticks=[], title="{}\nerror {:.1f} %, cost {:.2f}".format(name, *runs[0].enlarged))
        axes.set_aspect("equal", "datalim")
    return drawing


def check(trained: dict[str, list[Trained]]) -> None:
    values = {name: summary(runs) for name, runs in trained.items()}
    for other in ("cross-entropy", "free"):
        for view, least in (("enlarged", 0.97), ("plain", 0.95)):
            prices = [values[name][f"{view} per error"] for name in ("guided", other)]
            require(prices[0] < least * prices[1], f"errors with guided prototypes cost less than with {other}: {view}")
        require(values["guided"]["order"] > values[other]["order"] + 0.1, "guidance orders distances as costs")
    require(max(values, key=lambda name: values[name]["enlarged error"]) == "fixed", "fixed prototypes err most")
    distortions = [values[name]["distortion"] for name in ("fixed", "guided", "free")]
    require(distortions == sorted(distortions), "guidance lowers the distortion")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
