"""The law of equi-separation: each layer divides within-class by between-class scatter by about the same factor.

He & Su 2023, A law of data separation in deep learning. Fully connected networks of equal width learn digits; the
measure tr(S_W S_B^+) of every layer is compared with a line in its logarithm, at initialisation, while training and at
the end.

    python examples/equi_separation.py
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gallery import require, run
from tightframe import ClassStatistics, datasets, metrics

K, WIDTH, BATCH = 10, 100, 100
EPOCHS = (0, 4, 12, 40)  # measured; the last is the end
SEEDS = (0, 1)


@dataclass(frozen=True)
class Recipe:
    optimizer: str = "SGD"
    depth: int = 8
    norm: bool = False


RECIPES = {
    "SGD": Recipe(),
    "Adam": Recipe("Adam"),
    "SGD, batch norm": Recipe(norm=True),
    "SGD, 20 layers": Recipe(depth=20),
}
LAW = tuple(RECIPES)[:3]  # where the claim is checked

Depths = dict[int, list[float]]  # the measure by layer from the input, at each epoch
Results = tuple[dict[tuple[str, int], Depths], dict[tuple[str, int], float]]


def network(recipe: Recipe) -> tuple[nn.ModuleList, nn.Linear]:
    """Hidden layers of equal width with He's initialisation, and a classifier."""
    blocks = nn.ModuleList()
    for fan_in in (64, *[WIDTH] * (recipe.depth - 1)):
        linear = nn.Linear(fan_in, WIDTH)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        blocks.append(nn.Sequential(linear, *[nn.BatchNorm1d(WIDTH)] * recipe.norm, nn.ReLU()))
    return blocks, nn.Linear(WIDTH, K)


def separation(features: Tensor, labels: Tensor) -> float:
    """tr(S_W S_B^+) with classes weighted by size, as He & Su measure it."""
    statistics = ClassStatistics.from_features(features, labels, K)
    return float(metrics.nc1(statistics, weighting="sample", divided=False))


@torch.no_grad()
def by_depth(blocks: nn.ModuleList, images: Tensor, labels: Tensor) -> list[float]:
    blocks.eval()
    values, features = [separation(images, labels)], images
    for block in blocks:
        features = block(features)
        values.append(separation(features, labels))
    return values


def train(recipe: Recipe, seed: int) -> tuple[Depths, float]:
    """The measure by depth at each epoch, and the accuracy on the training images at the end."""
    data = datasets.load("digits")
    deviation, mean = torch.std_mean(data.train_images)
    images, labels = (data.train_images.flatten(1) - mean) / deviation, data.train_labels
    torch.manual_seed(seed)
    blocks, classifier = network(recipe)
    model = nn.Sequential(*blocks, classifier)
    if recipe.optimizer == "Adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS[-1] // 3, EPOCHS[-1] * 2 // 3])
    depths = {0: by_depth(blocks, images, labels)}
    for epoch in range(1, EPOCHS[-1] + 1):
        model.train()
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        if epoch in EPOCHS:
            depths[epoch] = by_depth(blocks, images, labels)
    model.eval()
    return depths, float((model(images).argmax(1) == labels).double().mean())


def compute() -> Results:
    runs = {(name, seed): train(recipe, seed) for name, recipe in RECIPES.items() for seed in SEEDS}
    return {key: depths for key, (depths, _) in runs.items()}, {key: accuracy for key, (_, accuracy) in runs.items()}


def table(results: Results) -> str:
    curves, accuracies = results
    heads = "".join(f"{f'epoch {epoch}':>16}" for epoch in EPOCHS)
    lines = [f"{'rate, correlation':24}{heads}{'accuracy':>10}"]
    for (name, seed), depths in curves.items():
        laws = map(metrics.equi_separation, depths.values())
        cells = "".join(f"{law.rate:9.3f}{law.correlation:7.3f}" for law in laws)
        lines.append(f"{f'{name}, seed {seed}':24}{cells}{accuracies[name, seed]:10.3f}")
    lines += ["", f"{'by depth, SGD, seed 0':24}" + "".join(f"{layer:7}" for layer in range(9))]
    for epoch, values in curves["SGD", 0].items():
        lines.append(f"{f'epoch {epoch}':24}" + "".join(f"{value:7.2f}" for value in values))
    return "\n".join(lines)


def figure(results: Results) -> Figure:
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    panels = drawing.subplots(2, 2).flat
    for axes, name in zip(panels, RECIPES, strict=True):
        for place, (epoch, values) in enumerate(results[0][name, SEEDS[0]].items()):
            law, colour = metrics.equi_separation(values), f"C{place}"
            axes.plot(values, "o", color=colour, markersize=4, label=f"epoch {epoch}: r = {law.correlation:.2f}")
            axes.plot(law.fitted, "-", color=colour, linewidth=1)
        axes.set(yscale="log", title=name, xlabel="layer (0: images)", ylabel="tr(S_W S_B⁺)")
        axes.legend(fontsize=8)
    return drawing


def check(results: Results) -> None:
    curves, accuracies = results
    for (name, seed), depths in curves.items():
        what = f"{name}, seed {seed}"
        start, end = metrics.equi_separation(depths[0]), metrics.equi_separation(depths[EPOCHS[-1]])
        require(start.rate > 1.05, f"{what}: at initialisation scatter grows with depth; got the rate {start.rate:.3f}")
        if name in LAW:
            require(accuracies[name, seed] > 0.99, f"{what}: training images are learnt")
            require(end.rate < 0.9, f"{what}: each layer separates at the end; got the rate {end.rate:.3f}")
            require(end.correlation < -0.95, f"{what}: the law at the end; got {end.correlation:.3f}")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
