"""Prototypes that follow WordNet make nearer guesses at equal accuracy.

Liang & Davis 2023 (Inducing Neural Collapse to a Fixed Hierarchy-Aware Frame), with measures of Bertinetto et al. 2020
(Making Better Mistakes). The classes are those of Fashion-MNIST, their tree is from WordNet 3.0: the Debian package
wordnet-base, else the file named by TIGHTFRAME_WORDNET:

    TIGHTFRAME_WORDNET=WordNet-3.0/dict/data.noun python examples/hierarchical.py
"""

import os
from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import avg_pool2d

from gallery import require, run
from tightframe import ConfusionCounts, PrototypeHead, datasets, hierarchy, losses, prototypes

WORDNET = os.environ.get("TIGHTFRAME_WORDNET", "/usr/share/wordnet/data.noun")
SYNSETS = (  # in class order; the class "Shirt" is a dress shirt, as a T-shirt is a shirt in WordNet
    *("n03595614", "n04489008", "n04021028", "n03236735", "n03057021"),  # T-shirt, trouser, pullover, dress, coat
    *("n04133789", "n03238879", "n03472535", "n02774152", "n02872752"),  # sandal, dress shirt, sneaker, bag, boot
)
SEEDS, EPOCHS, IMAGES, BATCH, WIDTH = 3, 15, 2_000, 50, 64
GAMMA, ALIGNMENT, BETA = 1.0, 5.0, 10.0
METHODS = ("learnt classifier", "simplex ETF", "soft labels", "hierarchical frame")
AFTERWARDS = "learnt, least cost"  # the learnt classifier's probabilities; guesses in order of their expected distance
COLOURS = ("#4c566a", "#d08770", "#8fa13c", "#3b6ea8", "#a3a9b8")


def backbone():
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 9, WIDTH), nn.BatchNorm1d(WIDTH)),
    )


def method(name, tree):
    """A head and its loss, a function of features and labels."""
    K = tree.num_classes
    entropy = losses.SoftLabelCrossEntropy(tree, BETA) if name == "soft labels" else nn.CrossEntropyLoss()
    if name in ("learnt classifier", "soft labels"):
        head = nn.Linear(WIDTH, K)
    elif name == "simplex ETF":
        head = PrototypeHead(prototypes.simplex(K, WIDTH))
    else:
        head = PrototypeHead(prototypes.hierarchical(tree, WIDTH, gamma=GAMMA))
        match = losses.CosineMatching(head)
        return head, lambda features, labels: entropy(head(features), labels) + ALIGNMENT * match(features, labels)
    return head, lambda features, labels: entropy(head(features), labels)


def train(name, tree, images, labels, seed):
    torch.manual_seed(seed)
    body = backbone()
    head, loss = method(name, tree)
    model = nn.Sequential(body, head)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=EPOCHS * len(images) // BATCH)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss(body(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def judged(ranking, labels, tree):
    """Accuracy, mean distance, mean distance of a mistake, and mean distance of the first 1 to K guesses."""
    K = tree.num_classes
    counts = ConfusionCounts.from_predictions(ranking[:, 0], labels, K)
    accuracy, cost = counts.accuracy().item(), counts.average_cost(tree).item()
    guesses = tree.distances()[labels[:, None], ranking].mean(0).cumsum(0) / torch.arange(1, K + 1)
    return accuracy, cost, cost / (1 - accuracy), guesses.tolist()


def compute():
    if not os.path.isfile(WORDNET):
        raise SystemExit(f"{WORDNET} is missing: install wordnet-base, or set TIGHTFRAME_WORDNET to a file data.noun")
    tree = hierarchy.Hierarchy.from_wordnet(WORDNET, SYNSETS)
    data = datasets.load("fashion-mnist")
    distances = tree.distances()
    test_images = avg_pool2d(data.test_images, 2)
    rows, fitted = {name: [] for name in (*METHODS, AFTERWARDS)}, []
    for seed in range(SEEDS):
        chosen = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
        images, labels = avg_pool2d(data.train_images[chosen], 2), data.train_labels[chosen]
        for name in METHODS:
            model = train(name, tree, images, labels, seed)
            with torch.no_grad():
                logits = torch.cat([model(part) for part in test_images.split(1000)])
                fitted.append((model(images).argmax(1) == labels).double().mean().item())
            rows[name].append(judged(logits.argsort(1, descending=True), data.test_labels, tree))
            if name == "learnt classifier":
                costs = logits.double().softmax(1) @ distances
                rows[AFTERWARDS].append(judged(costs.argsort(1), data.test_labels, tree))
    best = distances.sort(1).values[data.test_labels].mean(0).cumsum(0) / torch.arange(1, 11)
    return tree, rows, best.tolist(), min(fitted)


def table(results):
    tree, rows, best, fitted = results
    lines = [f"{tree.num_classes} classes, {len(tree)} nodes; {IMAGES:,} training images, mean of {SEEDS} seeds"]
    lines += [f"training accuracy at least {fitted:.3f}", ""]
    lines += ["                     accuracy   distance   distance of a mistake   first 3   first 5"]
    for name, runs in rows.items():
        cells = [mean([run[part] for run in runs]) for part in range(3)]
        cells += [mean([run[3][k - 1] for run in runs]) for k in (3, 5)]
        lines.append("{:<21}{:>8.3f}{:>11.3f}{:>24.2f}{:>10.2f}{:>10.2f}".format(name, *cells))
    return "\n".join([*lines, f"{'best possible':<21}{1:>8.3f}{0:>11.3f}{'–':>24}{best[2]:>10.2f}{best[4]:>10.2f}"])


def figure(results):
    _, rows, best, _ = results
    picture = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2)
    guesses = range(1, len(best) + 1)
    for (name, runs), colour in zip(rows.items(), COLOURS, strict=True):
        left.scatter([100 * run[0] for run in runs], [run[2] for run in runs], color=colour, label=name)
        curve = [mean([run[3][k - 1] for run in runs]) for k in guesses]
        right.plot(guesses, curve, "o-", color=colour, markersize=4, label=name)
    right.plot(guesses, best, "k--", linewidth=1, label="best possible")
    left.set(xlabel="test accuracy (%)", ylabel="mean distance of a mistake (edges)", title="Mistakes, by seed")
    right.set(xlabel="number of first guesses k", ylabel="mean distance to the class (edges)", title="First k guesses")
    right.set_xticks(list(guesses))
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return picture


def check(results):
    _, rows, *_ = results

    def of(name, part, guesses=None):
        return mean([run[part] if guesses is None else run[part][guesses - 1] for run in rows[name]])

    frame = "hierarchical frame"
    require(of(frame, 2) < of("simplex ETF", 2) - 0.05, "its mistakes are nearer than those of the simplex ETF")
    for other in ("learnt classifier", "simplex ETF"):
        require(of(frame, 0) > of(other, 0) - 0.015, f"the hierarchical frame is as accurate as the {other}")
        for k in (3, 5):
            require(of(frame, 3, k) < of(other, 3, k) - 0.2, f"its first {k} guesses are nearer than of the {other}")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
