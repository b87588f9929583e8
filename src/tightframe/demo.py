"""The demonstration: a small network trained into the terminal phase on real data, measured along the way."""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tightframe import datasets
from tightframe.datasets import Dataset
from tightframe.monitor import Monitor
from tightframe.numerics import one_thread
from tightframe.report import Report, RunFolder

_MEASURED_ROWS = 512  # rows of a measured batch


@dataclass(frozen=True)
class Settings:
    """What the demonstration trains; None takes the data set's default.

    Attributes:
        data: a name in `datasets.DATASETS`; data_folder: where its files are, if not in a usual place.
        ood: a name in `datasets.OUTSIDE`, the images for NC5.
        epochs, learning_rate, weight_decay, batch_size: of SGD with momentum 0.9, the rate cut tenfold after half
            and three quarters of the epochs.
        measurements: about how many times to measure, more densely at the start.
    """

    data: str = "digits"
    data_folder: str | None = None
    ood: str = "photographs"
    epochs: int | None = None
    learning_rate: float = 0.05
    weight_decay: float | None = None
    batch_size: int = 128
    measurements: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What is known after each epoch: its number of `epochs`, mean loss and accuracy in training, latest report."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    report: Report | None


def network(image_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """A multilayer perceptron for images up to 16x16, a small convolutional network for larger ones.

    Both end in batch normalisation, ReLU and the linear classifier, whose input is the feature.
    """
    channels, height, width = image_shape
    blocks: list[nn.Module] = []
    if max(height, width) <= 16:
        blocks.append(nn.Flatten())
        for fan_in, fan_out in pairwise([channels * height * width, 256, 256, 64]):
            blocks += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
    else:
        for fan_in, fan_out in pairwise([channels, 16, 32, 64]):
            blocks += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)]
        positions = (height // 8) * (width // 8)
        blocks += [nn.Flatten(), nn.Linear(64 * positions, 64), nn.BatchNorm1d(64), nn.ReLU()]
    return nn.Sequential(OrderedDict(features=nn.Sequential(*blocks), classifier=nn.Linear(64, num_classes)))


def run(
    settings: Settings, folder: str | os.PathLike[str], watch: Callable[[Progress], None] = lambda progress: None
) -> tuple[Report, RunFolder]:
    """Train, measure, and write the run folder; returns the last report (with its history) and the folder.

    Args:
        watch: called after every epoch.

    Raises: DatasetError for unknown or missing data.
    """
    started = time.perf_counter()
    data = datasets.load(settings.data, settings.data_folder)
    outside = datasets.load_outside(settings.ood, data.image_shape, 1000, settings.seed, settings.data_folder)
    small = max(data.image_shape[1:]) <= 16
    epochs = settings.epochs if settings.epochs is not None else (300 if small else 10)
    decay = settings.weight_decay if settings.weight_decay is not None else (1e-2 if small else 5e-4)
    torch.manual_seed(settings.seed)
    model = network(data.image_shape, data.num_classes)
    rate = settings.learning_rate
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    milestones = [math.ceil(0.5 * epochs), math.ceil(0.75 * epochs)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones)
    description = {
        "command": "demo",
        "arguments": {**asdict(settings), "epochs": epochs, "weight_decay": decay},
        "data": data.source,
        "model": str(model),
    }
    monitor = Monitor(model, data.num_classes, folder=folder, description=description, progress=False)
    assert monitor.folder is not None
    train, test = _batches(data.train_images, data.train_labels), _batches(data.test_images, data.test_labels)
    facts = {
        "title": f"Neural collapse on {data.name}",
        "data": data.source,
        "out_of_distribution": settings.ood,
        "class_names": list(data.class_names),
    }
    when = measured_epochs(epochs, settings.measurements)
    report: Report | None = None
    with one_thread() if small else nullcontext():
        for epoch in range(1, epochs + 1):
            loss, accuracy = _train_epoch(model, optimiser, data, settings.batch_size)
            schedule.step()
            if epoch in when:
                report = monitor.measure(
                    train,
                    epoch=epoch,
                    test=test,
                    ood=[(part,) for part in outside.split(_MEASURED_ROWS)],
                    context={**facts, "seconds": time.perf_counter() - started},
                )
            watch(Progress(epoch, epochs, loss, accuracy, report))
    monitor.folder.save_model(model)
    final = monitor.report()
    monitor.folder.write_html(final)
    return final, monitor.folder


def measured_epochs(epochs: int, measurements: int) -> set[int]:
    """About `measurements` epochs from the first to the last, evenly spaced in their logarithm."""
    steps = max(measurements - 1, 1)
    return {round(epochs ** (step / steps)) for step in range(steps + 1)} | {1, epochs}


def _train_epoch(model: nn.Module, optimiser: torch.optim.Optimizer, data: Dataset, size: int) -> tuple[float, float]:
    """One pass in random order; mean loss and accuracy over it. A last batch of one row, which batch normalisation
    can't take, is left out."""
    model.train()
    loss_sum = hits = rows = 0.0
    for index in torch.randperm(len(data.train_labels)).split(size):
        if len(index) < 2:
            continue
        images, labels = data.train_images[index], data.train_labels[index]
        logits = model(images)
        loss = cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss_sum += loss.item() * len(labels)
        hits += (logits.argmax(1) == labels).sum().item()
        rows += len(labels)
    return loss_sum / rows, hits / rows


def _batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(_MEASURED_ROWS), labels.split(_MEASURED_ROWS), strict=True))
