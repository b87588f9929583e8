"""Neural collapse while training: six measures by epoch, and by depth, on MNIST and Fashion-MNIST.

Papyan, Han & Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training, figures 2
to 7. Needs both data sets in the folder TIGHTFRAME_DATA.

    python examples/collapse_curves.py
"""

from collections import OrderedDict

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from gallery import require, run
from tightframe import Monitor, Report, datasets

DATA = {"mnist": "tab:blue", "fashion-mnist": "tab:orange"}
IMAGES, EPOCHS, WEIGHT_DECAY = 3000, 60, 3e-3
MEASURED = (1, 2, 4, 7, 10, 14, 20, 22, 25, 30, 35, 40, 45, 50, 60)
LAYERS = ("conv1", "conv2", "conv3")
PANELS = {  # the title and the axis: the measures of class means and of classifier rows
    ("variability, NC1", "tr(Σ_W Σ_B⁺) / K"): ("nc1",),
    ("equal norms", "std / mean of norms"): ("equinorm", "classifier_equinorm"),
    ("equal angles", "std of cosines"): ("equiangularity", "classifier_equiangularity"),
    ("maximal angles", "mean |cosine + 1/9|"): ("maximal_angle_deviation",),
    ("self-duality", "squared distance"): ("self_duality_distance",),
    ("nearest centre disagrees", "share of images"): ("ncc_mismatch",),
}
OPTIONS = {"positions": "flatten", "folds": 0}  # every position of a feature map is a feature; no standard errors
MEASURES = [measure for measures in PANELS.values() for measure in measures]


def network() -> nn.Sequential:
    """Images (N, 1, 28, 28) -> logits; the classifier reads 128 features."""

    def block(layer: nn.Module, width: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(width) if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d(width)
        return nn.Sequential(layer, norm, nn.ReLU())

    blocks: dict[str, nn.Module] = {}
    for name, (fan_in, fan_out) in zip(LAYERS, ((1, 8), (8, 32), (32, 64)), strict=True):
        blocks[name] = block(nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, bias=False), fan_out)
    blocks |= {"flat": nn.Flatten(), "hidden": block(nn.Linear(1024, 128, bias=False), 128)}
    return nn.Sequential(OrderedDict(blocks, classifier=nn.Linear(128, 10)))


def train(name: str) -> Monitor:
    """A network trained with SGD, momentum 0.9, rate 0.1 cut tenfold after a third and two thirds of the epochs."""
    torch.manual_seed(0)
    data = datasets.subsample(datasets.load(name), [IMAGES // 10] * 10)
    deviation, mean = torch.std_mean(data.train_images)
    images, labels = (data.train_images - mean) / deviation, data.train_labels
    model = network()
    monitor = Monitor(model, metrics=[*MEASURES, "classifier_accuracy"], **OPTIONS)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [EPOCHS // 3, EPOCHS * 2 // 3])
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for index in torch.randperm(IMAGES).split(128):
            optimiser.zero_grad()
            cross_entropy(model(images[index]), labels[index]).backward()
            optimiser.step()
        schedule.step()
        if epoch in MEASURED:
            batches = zip(images.split(500), labels.split(500), strict=True)
            monitor.measure(list(batches), epoch=epoch, layers=LAYERS if epoch in (1, EPOCHS) else ())
    return monitor


def compute() -> dict[str, Monitor]:
    return {name: train(name) for name in DATA}


def by_depth(report: Report) -> list[float]:
    """NC1 of the layers, the classifier's input last."""
    return [layer.values["nc1"] for layer in report.layers] + [report.values["nc1"]]


def start(monitor: Monitor) -> Report:
    """The first measurement in the terminal phase."""
    return next(report for report in monitor.series if report.facts.epoch == monitor.terminal_phase)


def table(monitors: dict[str, Monitor]) -> str:
    lines = []
    for name, monitor in monitors.items():
        reports = [monitor.series[0], start(monitor), monitor.series[-1]]
        lines.append(f"{name:26}" + "".join(f"{f'epoch {report.facts.epoch}':>10}" for report in reports))
        for measure in ("classifier_accuracy", *MEASURES):
            lines.append(f"{measure:26}" + "".join(f"{report.values[measure]:10.4f}" for report in reports))
        for epoch in (0, -1):
            depths = "".join(f"{value:10.3f}" for value in by_depth(monitor.series[epoch]))
            lines.append(f"{f'nc1 by depth, epoch {monitor.series[epoch].facts.epoch}':26}{depths}")
        lines.append("")
    return "\n".join(lines)


def figure(monitors: dict[str, Monitor]) -> Figure:
    drawing = Figure(figsize=(8.5, 7), layout="constrained")
    *panels, depth, legend, empty = drawing.subplots(3, 3).flat
    for axes, ((title, what), measures) in zip(panels, PANELS.items(), strict=True):
        for name, monitor in monitors.items():
            epochs = [report.facts.epoch for report in monitor.series]
            for measure, style in zip(measures, ("-", "--"), strict=False):
                label = name if style == "-" else f"{name}, classifier"
                values = [report.values[measure] for report in monitor.series]
                axes.plot(epochs, values, style, color=DATA[name], marker=".", markersize=4, label=label)
            axes.axvline(monitor.terminal_phase, color=DATA[name], linestyle=":", linewidth=1)
        axes.set(title=title, ylabel=what, xlabel="epoch", xscale="log", ylim=(0, None))
        axes.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    for name, monitor in monitors.items():
        for report, style in ((monitor.series[0], "--"), (monitor.series[-1], "-")):
            label = f"{name}, epoch {report.facts.epoch}"
            depth.plot([*LAYERS, "hidden"], by_depth(report), style, color=DATA[name], marker="o", label=label)
    depth.set(title="variability by depth", ylabel="NC1", xlabel="layer", ylim=(0, None))
    for axes, shown, title in ((legend, panels[1], "by epoch"), (empty, depth, "by depth")):
        axes.axis("off")
        axes.legend(*shown.get_legend_handles_labels(), loc="upper left", frameon=False, title=title)
    return drawing


def check(monitors: dict[str, Monitor]) -> None:
    for name, monitor in monitors.items():
        first, last = monitor.series[0], monitor.series[-1]
        require(monitor.terminal_phase is not None, f"training on {name} reaches error zero")
        for measures in PANELS.values():
            measure = measures[0]
            at_start, at_end = start(monitor).values[measure], last.values[measure]
            require(at_end < 0.97 * at_start or at_end == 0, f"{measure} on {name} falls in the terminal phase")
            require(at_end < 0.7 * first.values[measure], f"{measure} on {name} falls by 30 % in all")
        depths = by_depth(last)
        require(depths == sorted(depths, reverse=True), f"NC1 on {name} falls from layer to layer")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
