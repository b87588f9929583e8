"""Hyperspherical prototypes: their separation by gradient steps, and digits and angles learnt in one embedding.

Mettes, van der Pol & Snoek 2019, Hyperspherical Prototype Networks: prototypes by SGD with renormalisation, and the
joint task on rotated MNIST. Needs MNIST in the folder TIGHTFRAME_DATA.

    python examples/hyperspherical.py
"""

import math
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize

from gallery import require, run
from tightframe import datasets, losses, prototypes
from tightframe.codes import Certificate

CLASSES, DIMS, STEPS = 100, (10, 50), 3000
IMAGES, TEST, EPOCHS, DEGREES = 5000, 2000, 15, 60.0
DIGITS, ANGLES, BOTH, SPHERE, BASELINE = "digits", "angles", "both", "both, 3-D", "both, baseline"
MAPS = {"digit": {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}, "angle (°)": {"cmap": "viridis"}}


class Results(NamedTuple):
    paths: dict[int, list[float]]  # largest cosine by dimension and step of SGD
    codes: dict[int, Certificate]  # of prototypes.best by dimension
    scores: dict[str, tuple[float, float]]  # accuracy and mean absolute error in degrees by task
    sphere: tuple[Tensor, Tensor, Tensor]  # embeddings (N, 3), digits, angles


def steps_of_sgd(dim: int) -> list[float]:
    """The paper's optimisation: SGD on the mean over classes of the largest cosine, then renormalisation; rate 0.1."""
    points = normalize(torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(0)))
    path = []
    for _ in range(STEPS + 1):
        path.append((points @ points.T).fill_diagonal_(-1).max().item())
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(losses.Separation()(points), points)
        points = normalize(points.detach() - 0.1 * gradient)
    return path


def turned(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images turned by random angles, and these in degrees."""
    angles = DEGREES * (2 * torch.rand(len(images)) - 1)
    cosine, sine, zero = angles.deg2rad().cos(), angles.deg2rad().sin(), torch.zeros_like(angles)
    turns = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    grid = affine_grid(turns, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False), angles


def network(outputs: int) -> nn.Sequential:
    """Images (N, 1, 28, 28) -> embeddings."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(1024, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, outputs)]
    return nn.Sequential(*layers)


def train(task: str, data: datasets.Dataset, seed: int = 0) -> tuple[float, float, Tensor, Tensor]:
    """Accuracy, mean absolute error in degrees (NaN for a task that is not learnt), test embeddings, test angles."""
    torch.manual_seed(seed)
    dim = 3 if task == SPHERE else 10
    poles = prototypes.poles(1, dim)
    classes = torch.cat([torch.zeros(10, 1), prototypes.best(10, dim - 1).vectors], 1)  # orthogonal to the poles
    classify, regress = losses.Hyperspherical(classes), losses.PoleRegression(poles, -DEGREES, DEGREES)
    joint = losses.JointHyperspherical(classes, poles, -DEGREES, DEGREES)
    model = network(11 if task == BASELINE else dim)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for index in torch.randperm(IMAGES).split(100):
            images, angles = turned(data.train_images[index])
            z, labels = model(images), data.train_labels[index]
            if task == DIGITS:
                loss = classify(z, labels)
            elif task == ANGLES:
                loss = regress(z, angles)
            elif task == BASELINE:
                loss = cross_entropy(z[:, 1:], labels) + (z[:, 0] - angles / DEGREES).square().mean()
            else:
                loss = joint(z, labels, angles)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    images, angles = turned(data.test_images[:TEST])
    with torch.no_grad():
        z = model.eval()(images)
    decided = (z[:, 1:] if task == BASELINE else z @ classes.to(z).T).argmax(1)
    read = prototypes.pole_value((z if task == BASELINE else normalize(z))[:, 0], -DEGREES, DEGREES)
    accuracy = (decided == data.test_labels[:TEST]).double().mean().item()
    error = (read - angles).abs().mean().item()
    return math.nan if task == ANGLES else accuracy, math.nan if task == DIGITS else error, z, angles


def compute() -> Results:
    codes = {dim: prototypes.best(CLASSES, dim, rounds=2).certificate for dim in DIMS}
    data = datasets.subsample(datasets.load("mnist"), [IMAGES // 10] * 10)
    trained = {task: train(task, data) for task in (DIGITS, ANGLES, BOTH, SPHERE, BASELINE)}
    scores, (_, _, z, angles) = {task: row[:2] for task, row in trained.items()}, trained[SPHERE]
    paths = {dim: steps_of_sgd(dim) for dim in DIMS}
    return Results(paths, codes, scores, (z, data.test_labels[:TEST], angles))


def table(results: Results) -> str:
    rows = {f"{CLASSES} classes, dimensions": [f"{dim}" for dim in DIMS]}
    for step in (0, 100, 1000, STEPS):
        rows[f"SGD, {step} steps"] = [f"{results.paths[dim][step]:.3f}" for dim in DIMS]
    rows["prototypes.best"] = [f"{results.codes[dim].max_cosine:.3f}" for dim in DIMS]
    rows["lower bound"] = [f"{results.codes[dim].bound.value:.3f}" for dim in DIMS]
    rows["rotated MNIST"] = ["accuracy", "error (°)"]
    rows |= {task: [f"{accuracy:.3f}", f"{error:.1f}"] for task, (accuracy, error) in results.scores.items()}
    return "\n".join("{:26}{:>10}{:>10}".format(name, *cells) for name, cells in rows.items()).replace("nan", "  -")


def figure(results: Results) -> Figure:
    drawing = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, *spheres = drawing.subplots(1, 3)
    for dim, colour in zip(DIMS, ("tab:blue", "tab:orange"), strict=True):
        left.plot(results.paths[dim], color=colour, label=f"SGD, {dim} dimensions")
        left.axhline(results.codes[dim].max_cosine, color=colour, linestyle="--", linewidth=1)
        left.axhline(results.codes[dim].bound.value, color=colour, linestyle=":", linewidth=1)
    left.set(xscale="log", xlabel="step", ylabel="largest cosine", ylim=(-0.05, 1), title="separation")
    left.legend(frameon=False, fontsize=8, loc="upper right")
    z, *coloured = (values[:1000] for values in results.sphere)
    height, azimuth = normalize(z)[:, 0], torch.atan2(z[:, 2], z[:, 1]).rad2deg()
    for axes, values, name in zip(spheres, coloured, MAPS, strict=True):
        points = axes.scatter(azimuth, height, c=values, **MAPS[name], s=6, linewidths=0, rasterized=True)
        axes.set(xlabel="azimuth (°)", ylabel="cosine to the upper pole", xticks=range(-180, 181, 90))
        drawing.colorbar(points, ax=axes, label=name)
    return drawing


def check(results: Results) -> None:
    for dim in DIMS:
        path, best = results.paths[dim], results.codes[dim].max_cosine
        require(path[STEPS] < path[0] - 0.2, f"SGD separates prototypes in {dim} dimensions")
        require(best < path[STEPS] - 0.02, f"prototypes.best separates them further in {dim} dimensions")
    (accuracy, error), scores = results.scores[BOTH], results.scores
    require(accuracy > scores[DIGITS][0] - 0.03, "the angle costs the digits at most 3 %")
    require(error < 1.3 * scores[ANGLES][1], "the digits cost the angle at most 30 %")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
