"""`Monitor`: the series of measurements that a training run leaves behind."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor, nn

from tightframe.checks import require_non_negative, require_positive
from tightframe.errors import BlipWarning, FolderWarning, OptionError, RangeError, StateError, TrackerWarning
from tightframe.evidence import Evidence
from tightframe.hooks import Layer
from tightframe.measuring import measure
from tightframe.options import Measuring
from tightframe.processes import every_process, rank
from tightframe.report import Report, RunFolder, plateau, terminal_phase
from tightframe.sources import ModelSource
from tightframe.sources.batches import as_loader
from tightframe.sources.model import blip
from tightframe.sources.normalisation import GAP
from tightframe.sources.sampling import is_divided, number_of_samples, sampled

Tracker = Callable[[Mapping[str, float], float], object]
"""Called with the values of a measurement by key, and its epoch."""

Fact = TypeVar("Fact")

MIN_SAMPLES_PER_CLASS = 20
"""Minimum average number of samples per class when a time budget subsamples the data."""

UNWRITTEN_STATISTICS = 8
"""Number of measurements whose statistics are kept in memory while the folder can't be written."""


class _Subsample(NamedTuple):
    """Approximate number of samples measured in all processes together, and the number available, if known."""

    limit: int
    total: int | None


def _finite(value: Any, what: str) -> float:
    """The number, of any library, as Python's; RangeError unless it is finite."""
    if isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise RangeError(f"{what} must be a finite number; got {value!r}.")
    return value if isinstance(value, int) else float(value)


def _placed(series: list[Report], what: str) -> list[Report]:
    """The reports, or StateError unless each has an epoch."""
    for report in series:
        try:
            _finite(report.facts.epoch, "epoch")
        except (RangeError, AttributeError) as error:
            raise StateError(f"{what}: {error}") from None
    return series


def _epoch_of(report: Report) -> float:
    """The epoch of a report of the series, which all have one."""
    assert report.facts.epoch is not None
    return report.facts.epoch


def _slack(epoch: float, every: float) -> float:
    """Rounding error of a difference of epochs that is a multiple of `every`."""
    return 1e-6 * every + 4 * sys.float_info.epsilon * abs(epoch)


def _track(tracker: Tracker, values: Mapping[str, float], epoch: float) -> None:
    """Call a tracker; a failure is a warning, so that it costs neither the measurement nor the training."""
    try:
        tracker(values, epoch)
    except Exception as error:
        name = getattr(tracker, "__name__", type(tracker).__name__)
        text = f"the tracker {name} failed at epoch {epoch:g}: {error!r}. The measurement is kept."
        warnings.warn(text, TrackerWarning, stacklevel=4)


class Monitor:
    """Measures a model again and again during training and keeps the series.

        monitor = Monitor(model, folder="runs/first", budget=0.05)
        for epoch in range(epochs):
            train_one_epoch()
            if monitor.due(epoch + 1):
                monitor.measure(loader, epoch=epoch + 1)
        monitor.report().to_html("run.html")

    Training goes on as if nothing had been measured: the model, its modes and all random generators are left as they
    were. Under `torch.distributed` every process makes the same calls with its part of the data; rank 0 writes.

    One Monitor writes to a folder at a time, until `close`, its garbage collection, or the end of the process: another
    one, or a copy in another process, raises StateError before it measures. Within a process a new Monitor with
    `resume` or `overwrite` takes the folder from the old one. A folder that can't be written during training, such as
    on a full disk, is a FolderWarning: the measurement stays in `series` and is written with a later one; `save` writes
    the series elsewhere.

    Args:
        model: the model in training; may be compiled or wrapped for data parallelism.
        num_classes: checked against the classifier if given.
        layers: measured beside the classifier's input: names, patterns, `Layer`s, or "auto", every block boundary.
        folder: run folder, written as the series grows; None keeps the series in memory.
        resume: continue the run in the folder, if there is one.
        overwrite: delete the measurements of an earlier run in the folder.
        description: what runs (arguments, seed, data), for the folder's run.json.
        trackers: called after every measurement with {key: value} and the epoch, on rank 0; entries of other layers
            have the key "layer/key".
        budget: maximum share of the run time spent on measuring, e.g. 0.05; `due` keeps to it. None: no limit.
        every: epochs between measurements. With a budget, each loader is subsampled to keep to it; with a budget alone,
            all samples are measured as often as it allows.
        samples: maximum number of samples of each loader; default: all.
        options: of every measurement, as in `Measuring`: classifier="fc", per_class=True, ...; and `test`, `ood`.

    Raises: ClassifierError if the model has no linear classifier or another number of classes; LayerError for unknown
    layers; RangeError for a budget outside (0, 1), `every` that isn't positive, `samples` that isn't a whole number;
    TypeError for options that `measure` doesn't have; ChoiceError for unknown measures, conventions or positions;
    OptionError for `resume` with `overwrite`; StateError for a folder that can't be written, that another run writes
    to, that holds measurements of an earlier run with neither `resume` nor `overwrite`, or files of another origin in
    the way of the run's.

    >>> import torch
    >>> from torch import nn
    >>> from tightframe import Monitor
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    >>> monitor = Monitor(model, metrics=["trace_share"], progress=False)
    >>> for epoch in (1, 2):
    ...     report = monitor.measure([(torch.randn(12, 2), torch.arange(12) % 3)], epoch=epoch)
    >>> [report.facts.epoch for report in monitor.series]
    [1, 2]
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        layers: str | Layer | Iterable[str | Layer] = (),
        *,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        description: dict[str, Any] | None = None,
        trackers: Sequence[Tracker] = (),
        budget: float | None = None,
        every: float | None = None,
        samples: int | None = None,
        **options: Any,
    ):
        self._data = {name: options.pop(name, None) for name in ("test", "ood")}
        self._options = Measuring.of({"layers": layers, "num_classes": num_classes, **options})
        self._num_classes = 1
        if self._options.task == "classification":
            # raises for what doesn't fit the model, before training rather than after an epoch of it
            self._num_classes = ModelSource(model, (), options=self._options).num_classes or 1
        if budget is not None and not 0 < budget < 1:
            raise RangeError(f"budget must be a share of the time, in (0, 1); got {budget}.")
        for value, name in ((every, "every"), (samples, "samples")):
            if value is not None:
                require_positive(value, name)
        if samples is not None and samples != int(samples):
            raise RangeError(f"samples must be a whole number; got {samples}.")
        if resume and overwrite:
            raise OptionError("resume continues the run in the folder and overwrite deletes it; pass one of them.")
        self.model = model
        self.series: list[Report] = []
        self.trackers = list(trackers)
        self.budget, self.every, self.samples = budget, every, None if samples is None else int(samples)
        self.folder: RunFolder | None = None
        self._shared = self._options.distributed
        self._writes = not self._shared or rank() == 0
        self._training = self._measuring = 0.0  # seconds
        self._last_training: float | None = None  # of them, at the last measurement
        self._seconds_per_sample: float | None = None
        self._description = description or {}
        self._run: dict[str, Any] = {}
        self._shares_folder = folder is not None
        if folder is not None:
            start = partial(self._started, os.fspath(folder), resume=resume, overwrite=overwrite)
            self.series = self._by_first_process(start, self._shared)
        self._written, self._rewound = len(self.series), False  # what the folder holds of the series; or holds more
        self._failure: str | None = None  # of the last attempt to write
        self._mark = time.perf_counter()

    def _started(self, folder: str, *, resume: bool, overwrite: bool) -> list[Report]:
        """Start or continue the run in the folder; returns its measurements."""
        if not resume:
            self.folder = RunFolder.create(folder, self._description, overwrite=overwrite)
        else:
            self.folder = RunFolder.resume(folder, self._description)
        try:
            self._description = self._run = self.folder.description
            return _placed(self.folder.series(), f"{folder} can't be resumed")
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ when, and on how much

    def due(self, epoch: float | None = None) -> bool:
        """Whether to measure now, by `every` and `budget`; the same in all processes, which must all ask.

        `epoch` is where training is; default: one after the last measurement. If it is before the last one, training
        was taken back, and the measurements from it on don't count.
        """
        now = self._epoch(epoch)
        if not self.series:
            return True
        measured = (_epoch_of(report) for report in reversed(self.series))
        last = next((each for each in measured if each <= now), None)
        if last == now:  # measured already, unless training was taken back
            return last != self.series[-1].facts.epoch
        if self.every is not None:
            return last is None or now - last >= self.every - _slack(now, self.every)
        if self.budget is None:
            return True
        self._account()
        spent = self._measuring + self._cost()
        return self._first_process(spent <= self.budget * (self._training + spent))

    def _first_process(self, fact: Fact) -> Fact:
        """The fact on rank 0, where processes measure together."""
        return every_process(fact, "a monitor", shared=self._shared)[0]

    def _by_first_process(self, call: Callable[[], Fact], shared: bool) -> Fact:
        """The result of a call that rank 0 makes, in every process; its failure, too."""
        try:
            results = [call()] if self._writes else []
        except Exception as error:
            every_process(str(error), "a monitor's folder", shared=shared)
            raise
        first = every_process(results, "a monitor's folder", shared=shared)[0]
        if isinstance(first, str):
            raise StateError(f"rank 0: {first}")
        return first[0]

    def _cost(self) -> float:
        """Seconds that the next measurement is expected to take: as long as the last."""
        return float(self.series[-1].facts.measuring_seconds or 0.0)

    def _account(self) -> None:
        """Count the time since the last look at the clock as training."""
        now = time.perf_counter()
        self._training += now - self._mark
        self._mark = now

    def _subsampled(
        self, loaders: Mapping[str, Any], options: Measuring
    ) -> tuple[dict[str, Any], dict[str, _Subsample]]:
        """The loaders to measure on, and by name the size of each that was subsampled."""
        unpack, shared = options.unpack, options.distributed
        result, subsamples = dict(loaders), dict[str, _Subsample]()
        maximum = self._affordable()
        if maximum is None:  # by the settings, so in every process; counting a list of batches may load them all
            return result, subsamples
        sizes = {
            name: (number_of_samples(loader, unpack), is_divided(loader))
            for name, loader in loaders.items()
            if loader is not None
        }
        processes = every_process((sizes, maximum), "a monitor", shared=shared)
        maximum = processes[0][1]
        for name in loaders:
            parts = [others[name] for others, _ in processes if name in others]
            counts, divided = [count for count, _ in parts], any(each for _, each in parts)
            total = None if None in counts else max(counts, default=0) if divided else sum(counts)  # type: ignore[type-var, arg-type]
            if total is not None and total <= maximum:
                continue
            subsamples[name] = _Subsample(maximum, total)
            if name in sizes:
                limit, own = maximum, sizes[name][0]
                if total is None or own is None:
                    limit = math.ceil(maximum / len(parts))
                elif not divided:  # this process's share
                    limit = maximum * own // total
                result[name] = sampled(loaders[name], limit, unpack)
        return result, subsamples

    def _affordable(self) -> int | None:
        """Maximum number of samples that the settings allow; None for all."""
        limit = self.samples
        if self.budget is not None and self.every is not None:
            allowed = minimum = MIN_SAMPLES_PER_CLASS * self._num_classes
            if self._seconds_per_sample is not None and self._last_training is not None:
                seconds = (self._training - self._last_training) * self.budget / (1 - self.budget)
                allowed = max(minimum, int(seconds / self._seconds_per_sample))
            limit = allowed if limit is None else min(limit, allowed)
        return limit

    # ------------------------------------------------------------------ measuring

    def measure(self, loader: Iterable[Any], *, epoch: float | None = None, **options: Any) -> Report:
        """Measure now and add the report to the series; arguments as in `tightframe.measure`.

        `epoch`, a finite number, places the measurement on the time axis; default: one after the last. Measurements at
        or after it are superseded: training was taken back.

        Raises: RangeError for another `epoch`, StateError if another run writes to the folder, before anything is run;
        as `tightframe.measure`.
        """
        epoch = self._epoch(epoch)
        self._account()
        try:
            report = self._measured(loader, epoch, options)
        finally:  # a failed measurement took its time, too
            now = time.perf_counter()
            self._measuring += now - self._mark
            self._mark = now
        if (gap := report.facts.normalisation_gap or 0.0) > GAP:
            warnings.warn(f"epoch {epoch:g}: {blip(gap)}", BlipWarning, stacklevel=2)
        return report

    def _measured(self, loader: Iterable[Any], epoch: float, options: dict[str, Any]) -> Report:
        """Measure and record."""
        given = {"train": loader, **{name: options.pop(name, data) for name, data in self._data.items()}}
        settings = self._options.having(**options)
        if self._shares_folder:
            self._by_first_process(self._claim, settings.distributed)
        given = {name: None if data is None else as_loader(data, name) for name, data in given.items()}
        loaders, subsamples = self._subsampled(given, settings)
        settings = settings.having(
            context={**(self._options.context or {}), **(settings.context or {}), "epoch": epoch}
        )
        report = measure(self.model, loaders.pop("train"), **loaders, **settings.to_dict())
        seconds = time.perf_counter() - self._mark
        self._seconds_per_sample = seconds / max((report.facts.samples or 0), 1)
        facts: dict[str, Any] = {"measuring_seconds": seconds}
        notes = []
        if "train" in subsamples:
            facts["samples_in_all"] = total = subsamples["train"].total
            notes.append(f"measured on {report.facts.samples} of {total or 'more'} samples.")
        for name, what in (("test", "held-out"), ("ood", "out-of-distribution")):
            if name in subsamples:
                limit, total = subsamples[name]
                notes.append(f"measured on about {limit} of {total or 'more'} {what} samples.")
        self._last_training = self._training
        return self.record(report.extended([], notes, facts))

    def _epoch(self, epoch: float | None) -> float:
        if epoch is not None:
            return _finite(epoch, "epoch")
        return _epoch_of(self.series[-1]) + 1 if self.series else 0

    def record(self, report: Report) -> Report:
        """Add a report that was made elsewhere to the series and the folder, in place of those at its epoch or later;
        returns it. Without an epoch it is one after the last.

        Raises: StateError if another run writes to the folder.
        """
        self._claim()
        epoch = self._epoch(report.facts.epoch)
        report = report.extended(facts={"epoch": epoch})
        earlier = [each for each in self.series if _epoch_of(each) < epoch]
        self._rewound |= len(earlier) < len(self.series)
        self._written = min(self._written, len(earlier))
        layers = tuple(layer.without_evidence() for layer in report.layers)  # pictures show the classifier's input only
        self.series = [*earlier, replace(report, layers=layers)]
        self._write()
        if self._writes:
            values = dict(report.values)
            for layer in report.layers:
                values |= {f"{layer.facts.layer}/{key}": value for key, value in layer.values.items()}
            for tracker in self.trackers:
                _track(tracker, values, epoch)
        return report

    def _claim(self) -> None:
        """Raise StateError if another run writes to the folder; other failures show when it is written."""
        if self.folder is not None:
            with suppress(OSError):
                self.folder.claim()

    def _write(self) -> None:
        """Make the folder hold the series; a failure is a warning, and the next call tries again."""
        failure = None
        if self.folder is None:
            self._written, self._rewound = len(self.series), False
        try:
            if self.folder is not None and self._rewound:
                self.folder.replace_series(self.series[: self._written])
                self._rewound = False
            while self.folder is not None and self._written < len(self.series):
                self.folder.append(self.series[self._written], self._written)
                self._written += 1
        except (OSError, StateError) as error:
            failure = str(getattr(error, "strerror", None) or error).rstrip(".")
        # the latest keeps its tensors, and those that the folder lacks
        stripped = min(len(self.series) - 1, max(self._written, len(self.series) - UNWRITTEN_STATISTICS))
        for number in range(stripped):
            if self.series[number].evidence is not None:
                self.series[number] = self.series[number].without_evidence()
        before, self._failure = self._failure, failure
        if self.folder is not None and failure not in (None, before):
            warnings.warn(
                f"{self.folder.path} can't be written ({failure}); the series stays in memory and is written with a "
                "later measurement: make the folder writable, or write the series to another with save(folder).",
                FolderWarning,
                stacklevel=3,
            )

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the series to another run folder, once; rank 0 does.

        Statistics are those in memory and in the Monitor's own folder. Raises: StateError for a folder that `Monitor`
        would refuse, or the Monitor's own; OSError if it can't be written.
        """
        if not self._writes:
            return
        target = Path(folder)
        if self.folder is not None and target.exists() and target.resolve() == self.folder.path.resolve():
            raise StateError(f"{target} is the Monitor's own folder; choose another.")
        copy = RunFolder.create(target, self._description, overwrite=overwrite)
        try:
            for number, report in enumerate(self.series):
                if report.evidence is None and self.folder is not None and number < self._written and not self._rewound:
                    with suppress(OSError, StateError):
                        report = replace(report, evidence=Evidence(self.folder.statistics(number)))
                copy.append(report, number)
        finally:
            copy.close()

    def close(self) -> None:
        """Release the folder, so that another run can write to it; the next measurement takes it again."""
        if self.folder is not None:
            self.folder.close()

    # ------------------------------------------------------------------ results

    def report(self) -> Report:
        """The latest report with the earlier ones as its history. Raises StateError before the first measurement."""
        if not self.series:
            raise StateError("nothing was measured yet; call measure() first.")
        return replace(self.series[-1], history=tuple(self.series[:-1]), run=self._run)

    @property
    def terminal_phase(self) -> float | None:
        """The epoch of the first measurement with training error zero, or None."""
        return terminal_phase(self.series)

    def plateau(self, key: str = "nc1", *, factor: float = 1.1, measurements: int = 4) -> float | None:
        """The epoch since which a measure stands still, or None; see `tightframe.report.plateau`."""
        return plateau(self.series, key, factor=factor, measurements=measurements)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Series and clocks as plain data, for a checkpoint; save it after measuring."""
        self._account()
        return {
            "series": [report.to_dict() for report in self.series],
            "training_seconds": self._training,
            "measuring_seconds": self._measuring,
            "last_training_seconds": self._last_training,
            "seconds_per_sample": self._seconds_per_sample,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a run back to where the state was saved: later measurements are deleted, in the folder too.

        Raises: StateError for anything that `state_dict` did not make.
        """
        try:
            series = [Report.from_dict(each) for each in state["series"]]
            seconds = {name: state[name] for name in ("training_seconds", "measuring_seconds")}
            optional = {name: state[name] for name in ("last_training_seconds", "seconds_per_sample")}  # None at first
            seconds |= {name: value for name, value in optional.items() if value is not None}
            clocks = {name: require_non_negative(_finite(value, name), name) for name, value in seconds.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"this is no monitor's state: {error!r}") from None
        self.series = _placed(series, "this is no monitor's state")
        self._written, self._rewound = len(series), True
        self._training, self._measuring = clocks["training_seconds"], clocks["measuring_seconds"]
        self._last_training = clocks.get("last_training_seconds")
        self._seconds_per_sample = clocks.get("seconds_per_sample")
        self._write()
        self._mark = time.perf_counter()
