"""Imbalanced classes collapse to the SELI geometry instead of the simplex ETF (Thrampoulidis et al. 2022).

Five of ten classes have 100 samples, the others 100 / R. First the features are free and the weight decay falls towards
zero; then a small network learns digits. Gram matrices of class means and classifier are compared with both geometries.

    python examples/seli_imbalance.py
"""

from collections import defaultdict

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from gallery import require, run, unconstrained_minimum
from tightframe import ClassStatistics, datasets, metrics, theory

K, D, LARGEST = 10, 16, 100
RATIOS = 10, 100
DECAYS = [10.0**-i for i in range(3, 7)]
EPOCHS, MEASURED = 300, (1, 3, 6, 10, 20, 30, 60, 100, 150, 200, 250, 300)
DISTANCES = {"W, SELI": "tab:blue", "W, ETF": "tab:orange", "means, SELI": "tab:cyan", "means, ETF": "tab:red"}

Results = tuple[dict[tuple[int, float], dict[str, float]], dict[int, dict[str, list[float]]]]


def distances(means: ClassStatistics, classifier: torch.Tensor) -> dict[str, float]:
    """Distances of normalised, centred Gram matrices, in [0, sqrt(2)]."""
    counts, etf = means.counts, metrics.classifier_etf_error(classifier, centred=True)
    values = metrics.classifier_seli_error(classifier, counts), etf, metrics.seli_error(means), metrics.etf_error(means)
    return dict(zip(DISTANCES, map(float, values), strict=True))


def descend(ratio: float, decay: float, seed: int) -> dict[str, float]:
    """The minimum of cross-entropy + decay / 2 (|W|^2 + |H|^2) over classifier W and free features H."""
    counts = torch.tensor(datasets.step_counts(LARGEST, K, ratio))
    labels = torch.arange(K).repeat_interleave(counts)
    torch.manual_seed(seed)
    W, H = (torch.randn(n, D, dtype=torch.float64) / D**0.5 for n in (K, len(labels)))
    W, H, loss = unconstrained_minimum(W, H, labels, decay)
    excess = loss / theory.cross_entropy_optimum(counts, decay, decay).loss - 1
    return {"excess": excess, **distances(ClassStatistics.from_features(H, labels, K), W)}


def predicted(ratio: float, decay: float) -> dict[str, float]:
    """The same distances at the optimum of theory."""
    counts = torch.tensor(datasets.step_counts(LARGEST, K, ratio))
    optimum = theory.cross_entropy_optimum(counts, decay, decay)
    features, labels = root(optimum.means).repeat_interleave(counts, 0), torch.arange(K).repeat_interleave(counts)
    return distances(ClassStatistics.from_features(features, labels, K), root(optimum.classifiers))


def root(gram: torch.Tensor) -> torch.Tensor:
    """Rows with a Gram matrix."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.relu().sqrt()


def train(ratio: float, seed: int) -> dict[str, list[float]]:
    """A network with three hidden layers and no bias in its classifier; distances over epochs."""
    digits = datasets.load("digits")
    data = datasets.subsample(digits, datasets.step_counts(LARGEST, K, ratio), seed=seed)
    images, labels = data.train_images.flatten(1) - data.train_images.flatten(1).mean(0), data.train_labels
    torch.manual_seed(seed)
    layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in ((64, 256), (256, 256), (256, 64))]
    features = nn.Sequential(*(part for layer in layers for part in layer))[:-1]
    classifier = nn.Linear(64, K, bias=False)
    network, curves = nn.Sequential(features, classifier), defaultdict(list)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS * 7 // 10, EPOCHS * 9 // 10])
    for epoch in range(1, EPOCHS + 1):
        network.train()
        for batch in torch.randperm(len(images)).split(50)[: len(images) // 50]:
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        if epoch in MEASURED:
            network.eval()
            rows = features(images).detach()
            accuracy = (classifier(rows).argmax(1) == labels).double().mean()
            means = ClassStatistics.from_features(rows, labels, K)
            for name, value in distances(means, classifier.weight.detach()).items():
                curves[name].append(value)
            curves["accuracy"].append(float(accuracy))
    return curves


def compute(seed: int = 0) -> Results:
    free = {(ratio, decay): descend(ratio, decay, seed) for ratio in RATIOS for decay in DECAYS}
    return free, {ratio: train(ratio, seed) for ratio in (1, *RATIOS)}


def table(results: Results) -> str:
    free, networks = results
    names = "".join(f"{name:>13}" for name in DISTANCES)
    lines = [f"{'free features':26}{names}"]
    for (ratio, decay), values in free.items():
        lines += [f"{f'R = {ratio}, decay {decay:.0e}':26}" + "".join(f"{values[name]:13.3f}" for name in DISTANCES)]
    lines += ["", f"{'network on digits':26}{names}{'accuracy':>13}"]
    for ratio, curves in networks.items():
        lines += [f"{f'R = {ratio}':26}" + "".join(f"{values[-1]:13.3f}" for values in curves.values())]
    return "\n".join(lines)


def figure(results: Results) -> Figure:
    free, networks = results
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    panels = drawing.subplots(2, 2, sharey=True)
    for column, ratio in enumerate(RATIOS):
        above, below = panels[0][column], panels[1][column]
        optima = {decay: predicted(ratio, decay) for decay in (10.0 ** (-i / 4) for i in range(12, 25))}
        for name, colour in DISTANCES.items():
            above.plot(optima.keys(), [optimum[name] for optimum in optima.values()], color=colour, label=name)
            above.plot(DECAYS, [free[ratio, decay][name] for decay in DECAYS], "o", color=colour)
            below.plot(MEASURED, networks[ratio][name], color=colour, label=name)
        above.set(xscale="log", xlabel="weight decay of W and H", title=f"Free features, R = {ratio} (lines: theory)")
        above.set(xlim=above.get_xlim()[::-1], ylim=(0, 1.42))
        below.set(xscale="log", xlabel="epoch", title=f"Network on digits, R = {ratio}")
        panels[column][0].set_ylabel("distance of Gram matrices")
    panels[0][0].legend(fontsize=8, title="of, from")
    return drawing


def check(results: Results) -> None:
    free, networks = results
    for (ratio, decay), values in free.items():
        require(abs(values["excess"]) < 1e-9, f"R = {ratio}, decay {decay}: the loss of theory")
        nearer = [values[f"{of}, SELI"] < 0.7 * values[f"{of}, ETF"] for of in ("W", "means")]
        require(all(nearer), f"R = {ratio}, decay {decay}: W and means nearer to SELI than to the ETF")
    for ratio in RATIOS:
        far, near = (free[ratio, decay]["W, SELI"] for decay in (DECAYS[0], DECAYS[-1]))
        require(near < 0.7 * far, f"R = {ratio}: less weight decay leads towards SELI")
        to_seli, to_etf = networks[ratio]["W, SELI"][-1], networks[ratio]["W, ETF"][-1]
        require(to_seli < 0.7 * to_etf, f"network, R = {ratio}: W nearer to SELI than to the ETF")
    mild, severe = (networks[ratio]["means, SELI"][-1] for ratio in RATIOS)
    require(severe > 1.5 * mild, f"network: convergence of means worsens with imbalance; got {mild:.3f}, {severe:.3f}")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
