"""A series for trackers: a model that changes, measured at whole and fractional epochs."""

import torch
from torch import Tensor, nn

from tightframe import Monitor
from tightframe.monitor import Tracker

CLASSES = 3
EPOCHS = (1, 1.5, 2, 4)


def loader_of(seed: int = 0, size: int = 60) -> list[tuple[Tensor, Tensor]]:
    labels = torch.arange(size) % CLASSES
    noise = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
    return [(noise + 2 * torch.eye(4)[labels], labels)]


def monitored(tracker: Tracker) -> Monitor:
    """A monitor after its measurements, which the tracker was given."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    monitor = Monitor(model, layers=["0"], trackers=[tracker], folds=None, progress=False)
    for epoch in EPOCHS:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        monitor.measure(loader_of(), epoch=epoch, test=loader_of(1))
    return monitor
