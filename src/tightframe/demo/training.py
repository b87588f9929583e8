"""`Trainer`: the network, its head and its data over one or several sessions of classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tightframe.datasets import Dataset
from tightframe.demo.heads import BY_COST, HEADS, Task, objective
from tightframe.demo.network import network
from tightframe.demo.settings import Settings
from tightframe.errors import OptionError
from tightframe.heads import ComparisonHead
from tightframe.hierarchy import Hierarchy
from tightframe.theory import Training


class Trainer:
    """SGD with momentum 0.9, the rate cut tenfold after half and three quarters of the epochs.

    In class-incremental training a session's data are the new classes' images and `memory` images of each earlier one;
    a linear classifier grows by new rows, prototypes are opened, and the optimiser starts anew.

    Raises: OptionError for heads, losses and sessions that don't fit.
    """

    def __init__(self, settings: Settings, data: Dataset, hierarchy: Hierarchy, epochs: int, decay: float):
        if settings.head not in HEADS:
            raise OptionError(f"the head must be one of {', '.join(HEADS)}; got {settings.head!r}.")
        choice = HEADS[settings.head]
        self.model = network(data.image_shape, data.num_classes)
        if settings.head != "linear" or settings.dim is not None or settings.scale is not None:
            task = Task(data.num_classes, hierarchy, settings.dim, settings.scale, settings.seed)
            self.model.classifier = choice.build(task)
        self.loss = settings.loss or choice.loss
        self.epochs, self.decay = epochs, decay
        self._features = self.model.get_submodule("features")
        self._choice, self._settings, self._data, self._hierarchy = choice, settings, data, hierarchy
        self._opened = 0
        if settings.incremental is not None and self.loss in BY_COST:
            raise OptionError(f"the loss {self.loss!r} is over the whole tree; classes can't arrive in sessions.")
        if settings.incremental is not None and not isinstance(self.head, ComparisonHead | nn.Linear):
            raise OptionError(f"classes can't arrive in sessions at the head {settings.head!r} of dim {settings.dim}.")

    @property
    def head(self) -> nn.Module:
        """The classifier, as it is now."""
        return self.model.get_submodule("classifier")

    @property
    def known(self) -> Training | None:
        """What theory goes by: of a linear classifier under cross-entropy; other heads and losses have other optima."""
        linear = self._settings.head in ("linear", "linear-without-bias") and self._settings.dim is None
        return Training(self.decay) if linear and self.loss == "cross-entropy" and self.decay > 0 else None

    def begin(self, classes: int) -> None:
        """Start a session after which the first `classes` classes are known; those not yet known are its new ones."""
        before, self._opened = self._opened, classes
        labels = self._data.train_labels
        kept = (labels >= before) & (labels < classes)
        for label in range(before):
            members = (labels == label).nonzero().flatten()
            generator = torch.Generator().manual_seed(self._settings.seed)
            kept[members[torch.randperm(len(members), generator=generator)[: self._settings.memory]]] = True
        self._images, self._labels = self._data.train_images[kept], labels[kept]
        if isinstance(self.head, ComparisonHead):
            self.head.open(classes)
        elif isinstance(self.head, nn.Linear) and classes != self.head.out_features:
            self._grow(before, classes)
        self._objective = objective(self.head, self._choice, self.loss, self._hierarchy)
        rate, decay = self._settings.learning_rate, self.decay
        self._optimiser = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
        milestones = [math.ceil(0.5 * self.epochs), math.ceil(0.75 * self.epochs)]
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
        for mine, before_it in zip(grown.parameters(), old.parameters(), strict=True):
            mine[:before] = before_it[:before]
        self.model.classifier = grown


def batches(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels in order, `size` a batch."""
    return list(zip(images.split(size), labels.split(size), strict=True))
