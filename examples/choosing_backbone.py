"""Which encoder needs few labels: forecasts from the moments of features, against few-shot accuracy and a linear probe.

Twelve encoders of digits: pixels, principal components, random layers, and networks trained on other classes, on
shuffled labels or on the task. `rank` forecasts the accuracy of the nearest class mean with m labels per class; compare
Sorscher, Ganguli & Sompolinsky 2022, Neural representational geometry underlies few-shot concept learning.

    python examples/choosing_backbone.py
"""

import warnings
from collections.abc import Callable
from itertools import product

import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gallery import require, run
from tightframe import datasets, rank

HALF, SHOTS, DRAWS, SEEDS = 5, (1, 5, 20), 100, (0, 1)
MEASURES = (*(f"{shots}-shot" for shots in SHOTS), "log_me", "h_score")
ACCURACIES = ("1 label", "5 labels", "20 labels", "probe")

Encoder = Callable[[Tensor], Tensor]
Row = dict[str, float]  # the forecasts, then the accuracies
Results = dict[int, dict[str, Row]]  # by seed and encoder


def body(width: int) -> nn.Sequential:
    """A small convolutional network with 4 * width features."""
    first, second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 4 * width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def trained(images: Tensor, labels: Tensor, epochs: int, width: int = 16) -> nn.Sequential:
    """A network trained with a linear classifier, which is left out."""
    features = body(width)
    model = nn.Sequential(features, nn.Linear(4 * width, HALF))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return features


def encoders(others: tuple[Tensor, Tensor], task: tuple[Tensor, Tensor]) -> dict[str, Encoder]:
    """The encoders; `others` are images and labels of classes 0 to 4, `task` those of classes 5 to 9."""
    flat = task[0].flatten(1)
    mean = flat.mean(0)
    axes = torch.linalg.svd(flat - mean, full_matrices=False).Vh
    projection = torch.randn(64, 32) / 8
    images, labels = others
    return {
        "pixels": lambda rows: rows.flatten(1),
        "4 components": lambda rows: (rows.flatten(1) - mean) @ axes[:4].T,
        "16 components": lambda rows: (rows.flatten(1) - mean) @ axes[:16].T,
        "projection, random": lambda rows: rows.flatten(1) @ projection,
        "projection, ReLU": lambda rows: (rows.flatten(1) @ projection).relu(),
        "network, random": body(16),
        "narrow network, random": body(4),
        "other classes, short": trained(images, labels, 1),
        "other classes": trained(images, labels, 6),
        "other classes, narrow": trained(images, labels, 6, 4),
        "shuffled labels": trained(images, labels[torch.randperm(len(labels))], 6),
        "own classes": trained(*task, 6),
    }


def few_labels(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], shots: int) -> float:
    """Accuracy on held-out images of the nearest mean of so many drawn features of each class, mean of the draws."""
    members = [(train[1] == k).nonzero().flatten() for k in range(HALF)]
    right = 0.0
    for _ in range(DRAWS):
        rows = torch.stack([each[torch.randperm(len(each))[:shots]] for each in members])
        nearest = torch.cdist(test[0], train[0][rows].mean(1)).argmin(1)
        right += float((nearest == test[1]).double().mean()) / DRAWS
    return right


def probe(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Accuracy on held-out images of a logistic regression on all standardised training features."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few hundred steps are enough for an order
        classifier.fit(*(each.numpy() for each in train))
    return float(classifier.score(*(each.numpy() for each in test)))


def compare(seed: int) -> dict[str, Row]:
    """Forecasts and accuracies of the encoders; `seed` draws networks, projections and labels."""
    torch.manual_seed(seed)
    data = datasets.load("digits")
    old, new, held_out = data.train_labels < HALF, data.train_labels >= HALF, data.test_labels >= HALF
    images, labels = data.train_images[new], data.train_labels[new] - HALF
    held_labels = data.test_labels[held_out] - HALF
    made = encoders((data.train_images[old], data.train_labels[old]), (images, labels))
    with torch.no_grad():
        train = {name: (encoder(images), labels) for name, encoder in made.items()}
        test = {name: (encoder(data.test_images[held_out]), held_labels) for name, encoder in made.items()}
    rows = {}
    for row in rank(train, shots=SHOTS, progress=False).rows:
        forecasts = {name: row.scores[name].value for name in MEASURES}
        labelled = [few_labels(train[row.name], test[row.name], shots) for shots in SHOTS]
        accuracies = zip(ACCURACIES, [*labelled, probe(train[row.name], test[row.name])], strict=True)
        rows[row.name] = {**forecasts, **dict(accuracies)}
    return rows


def compute() -> Results:
    return {seed: compare(seed) for seed in SEEDS}


def tau(rows: dict[str, Row], measure: str, accuracy: str) -> float:
    """Kendall's tau of a measure and an accuracy; 1 = equal order."""
    return float(kendalltau(*([row[name] for row in rows.values()] for name in (measure, accuracy))).statistic)


def table(results: Results) -> str:
    lines = [f"{'seed 0, %':24}" + "".join(f"{name:>10}" for name in (*MEASURES, *ACCURACIES))]
    for name, row in results[0].items():
        cells = [f"{row[key]:10.2f}" if key in MEASURES[-2:] else f"{100 * row[key]:10.1f}" for key in row]
        lines.append(f"{name:24}" + "".join(cells))
    lines += ["", f"{'Kendall tau':24}" + "".join(f"{name:>10}" for name in MEASURES)]
    for seed, accuracy in product(SEEDS, ACCURACIES):
        cells = "".join(f"{tau(results[seed], measure, accuracy):10.2f}" for measure in MEASURES)
        lines.append(f"{f'{accuracy}, seed {seed}':24}{cells}")
    return "\n".join(lines)


def figure(results: Results) -> Figure:
    drawing = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, accuracy in zip(drawing.subplots(1, 2), ("5 labels", "probe"), strict=True):
        for place, (name, row) in enumerate(results[0].items()):
            axes.plot(100 * row["5-shot"], 100 * row[accuracy], "os"[place // 10], color=f"C{place % 10}", label=name)
        axes.set(xlabel="forecast, 5 shots (%)", ylabel=f"accuracy, {accuracy} (%)")
        axes.set_title(f"tau = {tau(results[0], '5-shot', accuracy):.2f}")
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return drawing


def check(results: Results) -> None:
    for seed, (forecast, accuracy) in product(SEEDS, zip(MEASURES, ACCURACIES[:-1], strict=False)):
        order = tau(results[seed], forecast, accuracy)
        require(order >= 0.7, f"seed {seed}, {accuracy} per class: the forecast orders encoders; got tau {order:.2f}")
        others = max(tau(results[seed], measure, accuracy) for measure in MEASURES[-2:])
        require(order > others + 0.2, f"seed {seed}, {accuracy}: other measures order worse; got tau {others:.2f}")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
