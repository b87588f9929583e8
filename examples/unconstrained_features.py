"""Gradient descent on unconstrained features reaches the optimum of theory: a simplex ETF or an orthogonal frame.

The features of all samples are free parameters. Cross-entropy gives a simplex ETF (Zhu et al. 2021); squared error
gives an orthogonal frame without bias and a simplex ETF with a bias (Tirer & Bruna 2022). With more than D + 1 classes,
unit lengths and a falling temperature, the classifier becomes a softmax code (Jiang et al. 2024).

    python examples/unconstrained_features.py
"""

from collections import defaultdict

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy, normalize

from gallery import require, run
from tightframe import ClassStatistics, metrics, theory

K, D, PER_CLASS, DECAY = 10, 16, 10, 5e-3
OPTIMA = {
    "cross-entropy": theory.cross_entropy_optimum([PER_CLASS] * K, DECAY, DECAY),
    "squared error, no bias": theory.squared_error_optimum([PER_CLASS] * K, DECAY, DECAY),
    "squared error, free bias": theory.squared_error_optimum([PER_CLASS] * K, DECAY, DECAY, 0.0),
}
CODES = [(8, 2), (12, 3), (8, 4)]  # K and D
COLOURS = "tab:blue", "tab:orange", "tab:green"
MEASURED = sorted({round(10 ** (i / 20)) for i in range(61)} | {0})  # steps, up to 1000
COLLAPSE = {"excess": "loss / optimum - 1", "nc1": "NC1", "etf": "ETF error of means", "duality": "duality distance"}

Curves = dict[str, list[float]]


def descend(objective: str, seed: int) -> Curves:
    """Gradient descent on loss + decay / 2 (|W|^2 + |H|^2) over the classifier W and all features H."""
    torch.manual_seed(seed)
    labels, curves = torch.arange(K * PER_CLASS) % K, defaultdict(list)
    W, H = (torch.randn(n, D, dtype=torch.float64).div(D**0.5).requires_grad_() for n in (K, len(labels)))
    bias, targets = torch.zeros(K, dtype=torch.float64), torch.eye(K, dtype=torch.float64)[labels]
    free = [W, H, bias.requires_grad_()] if objective.endswith("free bias") else [W, H]
    optimizer = torch.optim.SGD(free, lr=1.0, momentum=0.9)
    for step in range(MEASURED[-1] + 1):
        logits = H @ W.T + bias
        error = (logits - targets).square().sum(1).mean() / 2
        loss = cross_entropy(logits, labels) if objective == "cross-entropy" else error
        loss = loss + DECAY / 2 * (W.square().sum() + H.square().sum())
        if step in MEASURED:
            means, rows = ClassStatistics.from_features(H.detach(), labels, K), W.detach()
            measures = {
                "step": step,
                "excess": abs(loss.item() / OPTIMA[objective].loss - 1),
                "nc1": metrics.nc1(means),
                "etf": metrics.etf_error(means),
                "duality": metrics.self_duality_distance(means, rows - rows.mean(0)),
                "cosine": metrics.mean_cosine(means, centred=False),
                "w": rows.square().sum() / K,
                "h": H.detach().square().sum() / len(labels),
            }
            for name, value in measures.items():
                curves[name].append(float(value))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return curves


def predicted(objective: str) -> dict[str, float]:
    """Theory's cosine of two class means about the origin, and squared lengths of rows and features."""
    optimum = OPTIMA[objective]
    values = optimum.mean_cosines[0, 1], optimum.classifiers.trace() / K, optimum.means.trace() / K
    return dict(zip(("cosine", "w", "h"), map(float, values), strict=True))


def soften(classes: int, dim: int, seed: int) -> Curves:
    """Projected gradient descent of cross-entropy on unit rows and features; the temperature falls from 1 to 1/50."""
    torch.manual_seed(seed)
    labels, curves = torch.arange(4 * classes) % classes, defaultdict(list)
    W, H = (normalize(torch.randn(n, dim, dtype=torch.float64)).requires_grad_() for n in (classes, len(labels)))
    optimizer = torch.optim.SGD([W, H], lr=0.3, momentum=0.9)
    for step in range(1001):
        if step % 20 == 0:
            curves["step"].append(step)
            curves["distance"].append(metrics.one_vs_rest_distance(W.detach()).item())
        optimizer.zero_grad()
        cross_entropy(50 ** min(step / 800, 1) * normalize(H) @ normalize(W).T, labels).backward()
        optimizer.step()
        with torch.no_grad():
            W.copy_(normalize(W)), H.copy_(normalize(H))
    return curves


def compute(seed: int = 0) -> dict[object, Curves]:
    return {name: descend(name, seed) for name in OPTIMA} | {code: soften(*code, seed) for code in CODES}


def table(results: dict[object, Curves]) -> str:
    lines = [f"{'after 100 steps':24}" + "".join(f"{label:>21}" for label in COLLAPSE.values())]
    for name in OPTIMA:
        curves, place = results[name], MEASURED.index(100)
        lines += [f"{name:24}" + "".join(f"{curves[key][place]:21.1e}" for key in COLLAPSE)]
    lines += ["", f"{'after 1000 (theory)':24}{'cosine of two means':>21}{'|w|^2':>21}{'|h|^2':>21}"]
    for name in OPTIMA:
        pairs = [f"{results[name][key][-1]:z.4f} ({value:z.4f})" for key, value in predicted(name).items()]
        lines += [f"{name:24}" + "".join(f"{pair:>21}" for pair in pairs)]
    lines += ["", f"{'K > D + 1 (theory)':24}{'one-vs-rest distance':>21}"]
    for code in CODES:
        pair = f"{results[code]['distance'][-1]:.4f} ({theory.softmax_code_optimum(*code).lower:.4f})"
        lines += [f"{'K = {}, D = {}'.format(*code):24}{pair:>21}"]
    return "\n".join(lines)


def figure(results: dict[object, Curves]) -> Figure:
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    (collapse, lengths), (angles, codes) = drawing.subplots(2, 2)
    for key, label in COLLAPSE.items():
        collapse.plot(MEASURED, [max(value, 1e-16) for value in results["cross-entropy"][key]], label=label)
    for colour, name in zip(COLOURS, OPTIMA, strict=True):
        curves, targets = results[name], predicted(name)
        for key, style in (("w", "-"), ("h", "--")):
            shares = [value / targets[key] for value in curves[key]]
            lengths.plot(MEASURED, shares, style, color=colour, label=f"|{key}|², {name}")
        angles.plot(MEASURED, curves["cosine"], color=colour, label=name)
        angles.axhline(targets["cosine"], color=colour, linestyle=":")
    lengths.axhline(1, color="black", linestyle=":")
    for colour, code in zip(COLOURS, CODES, strict=True):
        codes.plot(results[code]["step"], results[code]["distance"], color=colour, label="K = {}, D = {}".format(*code))
        codes.axhline(theory.softmax_code_optimum(*code).lower, color=colour, linestyle=":")
    collapse.set(xscale="log", yscale="log", ylabel="measure", title="Cross-entropy: distance from theory")
    lengths.set(xscale="log", yscale="log", ylabel="mean squared length / theory", title="Lengths of rows and features")
    angles.set(xscale="log", ylabel="mean cosine of two class means", title="Angles about the origin (dotted: theory)")
    codes.set(ylabel="one-vs-rest distance", title="K > D + 1 (dotted: theory)")
    for axes in (collapse, lengths, angles, codes):
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
    return drawing


def check(results: dict[object, Curves]) -> None:
    for name in OPTIMA:
        last = {key: values[-1] for key, values in results[name].items()}
        require(last["excess"] < 1e-9 and last["nc1"] < 1e-9, f"{name}: the loss of theory, NC1 = 0")
        require(last["etf"] < 1e-5 and last["duality"] < 1e-9, f"{name}: centred means and rows form one simplex ETF")
        for key, value in predicted(name).items():
            require(abs(last[key] - value) < 1e-5, f"{name}: {key} = {value:.4f}; got {last[key]:.4f}")
    for code in CODES:
        target, distance = theory.softmax_code_optimum(*code).lower, results[code]["distance"][-1]
        require(abs(distance - target) < 1e-3, f"{code}: one-vs-rest distance {target:.4f}; got {distance:.4f}")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
