"""`measure`: model and loader in, report out. The main job as a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tightframe.capture import InputRecorder, evaluation, find_classifier, record_input
from tightframe.errors import EmptyBatchError, LoaderError
from tightframe.metrics import CONVENTIONS, Evidence
from tightframe.report import Report
from tightframe.statistics import DecisionCounts, StatisticsAccumulator

BUFFER_BYTES = 1 << 30
_LABELS = ("labels", "label", "targets", "target", "y")


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    test: Iterable[Any] | None = None,
    ood: Iterable[Any] | None = None,
    classifier: str | None = None,
    covariance: bool = True,
    per_class: bool = False,
    ignore_index: int | None = None,
    names: Sequence[str] | None = None,
    conventions: Sequence[str] = (),
    buffer_bytes: int = BUFFER_BYTES,
    progress: bool = True,
    context: Mapping[str, Any] | None = None,
) -> Report:
    """Measure the neural collapse of a classifier's last layer in one pass over the data.

    Features are what flows into the classifier. The model runs in eval mode without gradients and is left exactly as
    it was. Features are kept in a buffer for NC4, which needs the finished class means; beyond `buffer_bytes` the
    loader is run a second time and must give the same samples.

    Args:
        model: any module; called with a batch's inputs on the device of its first parameter.
        loader: training batches: (inputs, labels) or mappings with a "labels" entry (then called with the rest).
        test: held-out batches of the same form, for NC4 on held-out samples.
        ood: out-of-distribution batches, with or without labels, for NC5.
        classifier: name of the classifier module; default: the model's own `get_classifier()` or
            `get_output_embeddings()`, else its last linear layer or 1x1 convolution.
        covariance, per_class, ignore_index: as in `StatisticsAccumulator`.
        names: metrics to report; default: all in `METRICS` that the data allow.
        conventions: further rows, names in `CONVENTIONS`.
        progress: show a progress bar (if rich is installed).
        context: facts to put into the report, e.g. {"epoch": 3}.

    Raises: ClassifierError if no classifier is found or it doesn't fit; LoaderError for batches of another form or a
    loader that changes between passes; the errors of `StatisticsAccumulator.update`.
    """
    head = find_classifier(model, classifier)
    wanted = {name: CONVENTIONS[name] for name in conventions}
    num_classes, dim = head.weight.shape
    layout: dict[str, Any] = {"class_dim": head.class_dim, "ignore_index": ignore_index}
    device = device_of(model)
    options = {"covariance": covariance, "per_class": per_class, "device": device, **layout}
    accumulator = StatisticsAccumulator(num_classes, dim, **options)
    unit = None
    if any(convention.unit_features for convention in wanted.values()):
        unit = StatisticsAccumulator(num_classes, dim, **options)
    buffer = _Buffer(buffer_bytes)
    with evaluation(model), record_input(head.module) as recorder:
        source = _Features(model, recorder, progress)
        for features, labels in source.batches(loader, "training samples"):
            accumulator.update(features, labels, validate=True)
            if unit is not None:
                unit.update(normalize(features.to(torch.float64), dim=head.class_dim), labels, validate=True)
            buffer.add(features, labels)
        statistics = accumulator.compute()
        rule = (head.weight, head.bias) if head.decides_linearly else (None, None)
        biases = {False: rule[1]} | {
            convention.without_bias: None for convention in wanted.values() if convention.without_bias
        }
        decisions = {bare: DecisionCounts(statistics, rule[0], bias, **layout) for bare, bias in biases.items()}
        again = source.batches(loader, "training samples, second pass") if buffer.overflowed else buffer.batches
        for features, labels in again:
            for counts in decisions.values():
                counts.update(features, labels)
        second = decisions[False].totals.counts
        if not torch.equal(second, statistics.counts):
            raise LoaderError(
                f"the loader gave {int(statistics.num_samples)} samples and in a second pass {int(second.sum())}, or "
                "others: it must repeat itself, or buffer_bytes must hold all features."
            )
        held_out = outside = None
        if test is not None:
            held_out = DecisionCounts(statistics, *rule, **layout)
            for features, labels in source.batches(test, "held-out samples"):
                held_out.update(features, labels)
        if ood is not None:
            total = StatisticsAccumulator(1, dim, covariance=False, class_dim=head.class_dim, device=device)
            for features, _ in source.batches(ood, "out-of-distribution samples", labelled=False):
                zeros = torch.zeros_like(features.select(head.class_dim, 0), dtype=torch.int64)
                total.update(features, zeros, validate=True)
            outside = total.compute()
    complete = bool(head.weight.isfinite().all())  # a head on class means lacks those of classes without samples
    weight, bias = (head.weight, head.bias) if complete else (None, None)
    evidence = Evidence(statistics, weight, bias, decisions[False], outside)
    variants = {
        name: replace(
            evidence,
            statistics=unit.compute() if convention.unit_features and unit is not None else statistics,
            decisions=decisions[convention.without_bias],
        )
        for name, convention in wanted.items()
    }
    facts = {
        "layer": f"{'embedding in' if head.embeds else 'input of'} {head.name or 'the model itself'}",
        "classifier": head.name,
        "mode": "eval",
        **(context or {}),
    }
    return Report.from_evidence(
        evidence,
        test=None if held_out is None else Evidence(decisions=held_out),
        names=names,
        conventions=variants,
        context=facts,
    )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter, or the CPU."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


class _Buffer:
    """Batches of features kept for NC4 until they outgrow a budget; then none is kept."""

    def __init__(self, room: int):
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.overflowed = False
        self._room = room

    def add(self, features: Tensor, labels: Tensor) -> None:
        self._room -= features.nbytes + labels.nbytes
        if self._room < 0:
            self.overflowed = True
            self.batches.clear()
        else:
            self.batches.append((features, labels))


class _Features:
    """Runs a model over loaders and yields what its classifier received."""

    def __init__(self, model: nn.Module, recorder: InputRecorder, progress: bool):
        self._model, self._recorder, self._progress = model, recorder, progress
        self._device = device_of(model)

    def batches(self, loader: Iterable[Any], what: str, labelled: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """(features, labels) of each batch; labels are empty where `labelled` is false."""
        empty = True
        for batch in _with_progress(loader, f"measuring {what}", self._progress):
            empty = False
            args, kwargs, labels = _split(batch, labelled)
            self._model(
                *(_move(a, self._device) for a in args),
                **{k: _move(v, self._device) for k, v in kwargs.items()},
            )
            features = self._recorder.take()
            yield features, torch.empty(0) if labels is None else labels.to(features.device)
        if empty:
            raise EmptyBatchError(f"the loader of {what} gave no batch; a generator can be run only once.")


def _split(batch: Any, labelled: bool) -> tuple[tuple[Any, ...], dict[str, Any], Tensor | None]:
    """Positional inputs, keyword inputs and labels of a batch."""
    labels: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(batch, Mapping):
        key = next((name for name in _LABELS if name in batch), None)
        labels = batch[key] if key else None
        kwargs = {name: value for name, value in batch.items() if name != key}
    elif isinstance(batch, Sequence):
        args = tuple(batch[:-1]) if len(batch) > 1 else tuple(batch)
        labels = batch[-1] if len(batch) > 1 else None
    else:
        args = (batch,)
    if labelled and not isinstance(labels, Tensor):
        raise LoaderError(
            "batches must be (inputs, labels) or mappings with one of the entries "
            f"{', '.join(_LABELS)}; got {type(batch).__name__}."
        )
    return args, kwargs, labels


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _with_progress(loader: Iterable[Any], title: str, show: bool) -> Iterator[Any]:
    """The loader's batches behind a progress bar that goes away, if wanted and if rich is installed."""
    if show:
        try:
            from rich.progress import track
        except ImportError:
            pass
        else:
            total = len(loader) if isinstance(loader, Sized) else None
            yield from track(loader, title, total=total, transient=True)
            return
    yield from loader
