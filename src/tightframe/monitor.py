"""`Monitor`: the series of measurements that a training run leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from tightframe.capture import find_classifier
from tightframe.errors import ClassifierError, StateError
from tightframe.measurement import measure
from tightframe.report import Report, RunFolder


class Monitor:
    """Measures a model again and again during training and keeps the series.

        monitor = Monitor(model, folder="runs/first")
        for epoch in range(epochs):
            train_one_epoch()
            monitor.measure(loader, epoch=epoch + 1)
        monitor.report().to_html("run.html")

    Args:
        model: the model in training; left as it was by every measurement.
        num_classes: checked against the classifier if given.
        layers: "auto", the input of the classifier.
        folder: write a run folder as the series grows; None keeps it in memory.
        description: what runs (arguments, seed, data), for the folder's run.json.
        options: passed to every call of `measure`, e.g. classifier="fc", per_class=True.

    Raises: ClassifierError if the model has no linear classifier or another number of classes.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        layers: str = "auto",
        *,
        folder: str | os.PathLike[str] | None = None,
        description: dict[str, Any] | None = None,
        **options: Any,
    ):
        if layers != "auto":
            raise ClassifierError(f'layers must be "auto", the input of the classifier; got {layers!r}.')
        found = find_classifier(model, options.get("classifier")).weight.shape[0]
        if num_classes is not None and num_classes != found:
            raise ClassifierError(f"num_classes is {num_classes}, but the classifier has {found} rows.")
        self.model = model
        self.series: list[Report] = []
        self.folder = None if folder is None else RunFolder.create(folder, description or {})
        self._options = options

    def measure(self, loader: Iterable[Any], *, epoch: float | None = None, **options: Any) -> Report:
        """Measure now and add the report to the series; arguments as in `tightframe.measure`.

        `epoch` places the measurement on the time axis; default: one after the last.
        """
        if epoch is None:
            epoch = self.series[-1].context["epoch"] + 1 if self.series else 0
        settings = {**self._options, **options}
        settings["context"] = {**self._options.get("context", {}), **options.get("context", {}), "epoch": epoch}
        return self.record(measure(self.model, loader, **settings))

    def record(self, report: Report) -> Report:
        """Add a report that was made elsewhere to the series and the folder; returns it."""
        if self.folder is not None:
            self.folder.append(report)
        self.series.append(report)
        if len(self.series) > 1:  # only the latest keeps its tensors; the folder has the others'
            self.series[-2] = replace(self.series[-2], evidence=None)
        return report

    def report(self) -> Report:
        """The latest report with the earlier ones as its history. Raises StateError before the first measurement."""
        if not self.series:
            raise StateError("nothing was measured yet; call measure() first.")
        return replace(self.series[-1], history=tuple(self.series[:-1]))
