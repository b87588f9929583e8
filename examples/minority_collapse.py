"""Minority collapse: rows of rare classes merge under imbalance and weight decay; a fixed ETF cannot merge.

The Layer-Peeled Model of Fang et al. (2021, figure 3) is solved exactly; free features with weight decay are compared
with the threshold of theory; a network learns digits with a linear classifier or with a fixed ETF and dot regression
(Yang et al. 2022).

    python examples/minority_collapse.py
"""

import math
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from gallery import require, run, unconstrained_minimum
from tightframe import PrototypeHead, datasets, losses, metrics, prototypes, theory

K, BUDGET = 10, 5.0  # of mean |w|^2 times mean |h|^2 in the Layer-Peeled Model
RATIOS = [10 ** (i / 16) for i in range(49)]
RARE, FREE_DECAYS = (2, 4, 6, 8, 10, 12, 16, 20), (0.02, 0.03, 0.035)  # samples per rare class; weight decays
DECAYS, HEADS, COLOURS = (5e-4, 5e-3, 2e-2), ("linear", "ETF"), ("tab:blue", "tab:orange", "tab:green")
TRAINED = {f"step, R = {R}": datasets.step_counts(100, K, R) for R in (10, 100)}
TRAINED["long tail, R = 100"] = datasets.exponential_counts(100, K, 100)


def onset(condition: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition begins to hold, by bisection on a logarithmic scale."""
    for _ in range(25):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high


def peeled(ratio: float) -> theory.UnconstrainedOptimum:
    """The Layer-Peeled Model: one feature per class, losses weighted by class size, a budget for both norms."""

    def solve(decay: float) -> theory.UnconstrainedOptimum:
        return theory.cross_entropy_optimum([1] * K, decay, decay, class_weights=[ratio] * 5 + [1.0] * 5)

    def affordable(decay: float) -> bool:
        optimum = solve(decay)
        return float(optimum.classifiers.trace() * optimum.means.trace()) / K**2 <= BUDGET

    return solve(onset(affordable, 1e-6, 0.2))  # the decay is the multiplier of the budget


def counts_of(rare: int) -> list[int]:
    return [20] * 3 + [rare] * 3


def descend(counts: list[int], decay: float, seed: int) -> float:
    """The mean cosine of rare rows at the minimum of cross-entropy + decay / 2 (|W|^2 + |H|^2)."""
    torch.manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    W, H = (torch.randn(n, 8, dtype=torch.float64) for n in (len(counts), len(labels)))
    W, _, _ = unconstrained_minimum(W, H, labels, decay)
    return metrics.classifier_mean_cosine(W[3:]).item()


def train(counts: list[int], head: str, decay: float, seed: int) -> tuple[float, float]:
    """Balanced accuracy on held-out digits, and the mean cosine of the rows of the five rarest classes."""
    digits = datasets.load("digits")
    data = datasets.subsample(digits, counts, seed=seed)
    mean, labels = data.train_images.flatten(1).mean(0), data.train_labels
    images, test = (part.flatten(1) - mean for part in (data.train_images, digits.test_images))
    torch.manual_seed(seed)
    layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in ((64, 256), (256, 256), (256, 64))]
    features = nn.Sequential(*(part for layer in layers for part in layer))[:-1]
    fixed = PrototypeHead(prototypes.simplex(K, 64))
    dot_regression = losses.BalancedDotRegression(fixed)
    classifier = fixed if head == "ETF" else nn.Linear(64, K, bias=False)
    network, epochs = nn.Sequential(features, classifier), 150
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs * 7 // 10, epochs * 9 // 10])
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(50)[: len(images) // 50]:
            rows, own = features(images[batch]), labels[batch]
            optimizer.zero_grad()
            loss = dot_regression(fixed.embed(rows), own) if head == "ETF" else cross_entropy(classifier(rows), own)
            loss.backward()
            optimizer.step()
        schedule.step()
    network.eval()
    right = (network(test).argmax(1) == digits.test_labels).double()
    accuracy = torch.stack([right[digits.test_labels == k].mean() for k in range(K)]).mean()
    return accuracy.item(), metrics.classifier_mean_cosine(classifier.weight.detach()[5:]).item()


def compute(seed: int = 0) -> dict[object, object]:
    cases = [(name, head, decay) for name in TRAINED for head in HEADS for decay in DECAYS]
    return {
        "peeled": [float(peeled(ratio).classifier_cosines[-1, -2]) for ratio in RATIOS],
        "merging ratio": onset(lambda ratio: peeled(ratio).merged != [], 1, 1000),
        "free": {(n, decay): descend(counts_of(n), decay, seed) for n in RARE for decay in FREE_DECAYS},
        "trained": {case: train(TRAINED[case[0]], *case[1:], seed) for case in cases},
    }


def merges(rare: int, decay: float) -> bool:
    return theory.merging_classes(counts_of(rare), decay, decay) != []


def table(results: dict) -> str:
    lines = [f"Layer-Peeled Model: rows of rare classes coincide from R = {results['merging ratio']:.2f} on", ""]
    lines += [f"{'cosine, free features':24}" + "".join(f"{f'decay {decay:g}':>16}" for decay in FREE_DECAYS)]
    for (n, decay), cosine in results["free"].items():
        lines += [f"{f'{n} samples per class':24}"] if decay == FREE_DECAYS[0] else []
        lines[-1] += f"{cosine:9.4f}" + ("  merge" if merges(n, decay) else "       ")
    columns = [(head, decay) for head in HEADS for decay in DECAYS]
    lines += ["", f"{'balanced accuracy':24}" + "".join(f"{f'{head}, {decay:g}':>16}" for head, decay in columns)]
    for name in TRAINED:
        lines += [f"{name:24}" + "".join(f"{results['trained'][name, *column][0]:16.3f}" for column in columns)]
    lines += ["", "cosine of rare rows"]
    for name in TRAINED:
        lines += [f"{name:24}" + "".join(f"{results['trained'][name, *column][1]:16.3f}" for column in columns)]
    return "\n".join(line.rstrip() for line in lines)


def figure(results: dict) -> Figure:
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    (layers, free), (angles, accuracies) = drawing.subplots(2, 2)
    layers.plot(RATIOS, results["peeled"], color="black")
    layers.axvline(results["merging ratio"], color="black", linestyle=":")
    layers.set(xscale="log", xlabel="imbalance ratio R", title="Layer-Peeled Model (dotted: rows merge)")
    for colour, decay in zip(COLOURS, FREE_DECAYS, strict=True):
        optima = [theory.cross_entropy_optimum(counts_of(n), decay, decay) for n in range(1, 21)]
        free.plot(range(1, 21), [optimum.classifier_cosines[-1, -2] for optimum in optima], color=colour)
        free.plot(RARE, [results["free"][n, decay] for n in RARE], "o", color=colour, label=f"decay {decay:g}")
    free.set(xlabel="samples per rare class (frequent: 20)", title="Free features (lines: theory)")
    free.set_xticks(range(2, 21, 2))
    for colour, name in zip(COLOURS, TRAINED, strict=True):
        for head, style in zip(HEADS, ("o-", "s--"), strict=True):
            values = [results["trained"][name, head, decay] for decay in DECAYS]
            accuracies.plot(DECAYS, [value[0] for value in values], style, color=colour, label=f"{head}, {name}")
        cosines = [results["trained"][name, "linear", decay][1] for decay in DECAYS]
        angles.plot(DECAYS, cosines, "o-", color=colour, label=name)
    angles.set(xscale="log", xlabel="weight decay", title="Network on digits, linear classifier")
    accuracies.set(xscale="log", xlabel="weight decay", ylabel="balanced accuracy", title="The same on held-out images")
    for axes in (layers, free, angles):
        axes.set_ylabel("mean cosine of rare classes' rows")
        axes.axhline(1, color="grey", linewidth=0.8)
    accuracies.set_ylim(0.3, 1)
    accuracies.legend(fontsize=8, ncols=2, loc="lower left")
    for axes in (free, angles):
        axes.legend(fontsize=8)
    return drawing


def check(results: dict) -> None:
    cosines = results["peeled"]
    apart = [cosine for ratio, cosine in zip(RATIOS, cosines, strict=True) if ratio < results["merging ratio"]]
    require(apart == sorted(apart) and apart[-1] < 0.99, "Layer-Peeled Model: the cosine of rare rows grows with R")
    require(min(cosines[len(apart) :]) > 1 - 1e-6, "Layer-Peeled Model: rare rows coincide from a finite R on")
    for (n, decay), cosine in results["free"].items():
        require((cosine > 0.999) == merges(n, decay), f"free features: {n} samples at decay {decay} as in theory")
    ends = [("linear", DECAYS[0]), ("linear", DECAYS[-1]), ("ETF", DECAYS[-1])]
    little, much, fixed = (results["trained"]["step, R = 100", *end] for end in ends)
    require(little[1] < 0.3 < 0.7 < much[1], "network: weight decay merges the rows of rare classes")
    require(much[0] < little[0] - 0.08, "network: merged rows cost accuracy")
    require(much[0] < fixed[0] - 0.05, "network: a fixed ETF does not lose this accuracy")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
