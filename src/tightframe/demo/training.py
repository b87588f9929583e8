"""`Trainer`: the network, its head and its data over one or several sessions of classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tightframe import losses
from tightframe.datasets import DATASETS, Dataset
from tightframe.demo.heads import HEADS, LOSSES, PROTOTYPES, Task
from tightframe.demo.network import network
from tightframe.demo.settings import Settings
from tightframe.errors import RangeError
from tightframe.head import follows_labels
from tightframe.heads import ComparisonHead
from tightframe.hierarchy import Hierarchy
from tightframe.theory import Training

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(features, labels) -> loss and logits of a batch."""


def objective(head: Any, loss: str, guide: float, hierarchy: Hierarchy | None) -> Objective:
    """The loss of one batch on the head, and the distortion of its prototypes with weight `guide`."""
    row, module = LOSSES[loss], None
    if loss in losses.LOSSES:
        module = losses.LOSSES[loss].module(head if row.needs == PROTOTYPES else hierarchy)
    distortion = None if hierarchy is None or not guide else losses.SquaredScaleFreeDistortion(hierarchy)

    def evaluate(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if row.needs == PROTOTYPES:
            input = head.embed(features)
            logits = head.compare(input)
        else:
            input = logits = head(features, labels) if follows_labels(head) else head(features)
        total = logits.new_zeros(()) if module is None else module(input, labels)
        if module is None or row.beside:
            total = cross_entropy(logits, labels) + total
        return total if distortion is None else total + guide * distortion(head.prototypes), logits

    return evaluate


class Trainer:
    """SGD with momentum 0.9, the rate divided by 10 after half and three quarters of the epochs.

    In class-incremental training a session's data are the new classes' images and `memory` images of each earlier one;
    a linear classifier grows by new rows, prototypes are opened, and the optimiser starts anew.

    Args: settings, filled.
    """

    def __init__(self, settings: Settings, data: Dataset, hierarchy: Hierarchy | None):
        settings = settings.filled()
        self._row = HEADS[settings.head]
        self.model = network(data.image_shape, data.num_classes, DATASETS[settings.data].normalisation)
        if self._row.build is not None:
            task = Task(data.num_classes, hierarchy, settings.dim, settings.scale, settings.seed)
            self.model.classifier = self._row.build(task)
        self._features = self.model.get_submodule("features")
        self._settings, self._data, self._hierarchy = settings, data, hierarchy
        self._opened = 0

    @property
    def head(self) -> nn.Module:
        """The classifier, as it is now."""
        return self.model.get_submodule("classifier")

    @property
    def known(self) -> Training | None:
        """The input of theory for a linear classifier under cross-entropy; other heads and losses have other optima."""
        decay = self._settings.weight_decay or 0.0
        linear = isinstance(self.head, nn.Linear) and self._settings.loss == "cross-entropy"
        return Training(decay) if linear and decay > 0 else None

    def begin(self, classes: int) -> None:
        """Start a session: the first `classes` classes are open, those that were not open before are its new ones."""
        settings = self._settings
        assert settings.epochs is not None and settings.loss is not None and settings.weight_decay is not None
        before, self._opened = self._opened, classes
        labels = self._data.train_labels
        used = (labels >= before) & (labels < classes)
        for label in range(before):
            members = (labels == label).nonzero().flatten()
            generator = torch.Generator().manual_seed(settings.seed)
            used[members[torch.randperm(len(members), generator=generator)[: settings.memory]]] = True
        self._images, self._labels = self._data.train_images[used], labels[used]
        if isinstance(self.head, ComparisonHead):
            self.head.open(classes)
        elif isinstance(self.head, nn.Linear) and classes != self.head.out_features:
            self._grow(before, classes)
        self._objective = objective(self.head, settings.loss, self._row.guide, self._hierarchy)
        self._optimiser = torch.optim.SGD(
            self.model.parameters(), lr=settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay
        )
        milestones = [math.ceil(0.5 * settings.epochs), math.ceil(0.75 * settings.epochs)]
        self._schedule = torch.optim.lr_scheduler.MultiStepLR(self._optimiser, milestones)

    def epoch(self) -> tuple[float, float]:
        """One pass in random order; mean loss and accuracy over it. A last batch of one row, which batch normalisation
        can't take, is left out."""
        self.model.train()
        loss_sum = hits = rows = 0.0
        for index in torch.randperm(len(self._labels)).split(self._settings.batch_size):
            if len(index) < 2:
                continue
            images, labels = self._images[index], self._labels[index]
            loss, logits = self._objective(self._features(images), labels)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            loss_sum += loss.item() * len(labels)
            if not math.isfinite(loss_sum):
                raise RangeError("the training diverged: its loss is not finite. Lower learning_rate.")
            hits += (logits.argmax(1) == labels).sum().item()
            rows += len(labels)
        self._schedule.step()
        return loss_sum / rows, hits / rows

    @torch.no_grad()
    def _grow(self, before: int, classes: int) -> None:
        """A linear classifier with rows for `classes` classes, the first `before` of them as they were."""
        old = self.head
        assert isinstance(old, nn.Linear)
        grown = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        for new_parameter, old_parameter in zip(grown.parameters(), old.parameters(), strict=True):
            new_parameter[:before] = old_parameter[:before]
        self.model.classifier = grown


def batches(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels in order, in batches of `size`."""
    return list(zip(images.split(size), labels.split(size), strict=True))
