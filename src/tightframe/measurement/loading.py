"""Batches from anybody's loader, run through a model whose features are captured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from tightframe.errors import ClassifierError, EmptyBatchError, LayerError, LoaderError
from tightframe.hooks import CapturedFeatures, device_of
from tightframe.processes import broadcast, every_process, rank

_LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """What a model is called with, and the labels of what it is called with.

    Attributes:
        args, kwargs: of the call.
        labels: integers, one a sample or one a position; None where there are none.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None


def split_batch(batch: Any) -> Batch:
    """The usual forms: (inputs, ..., labels), or a mapping with a "labels" entry, then called with the rest."""
    if isinstance(batch, Batch):
        return batch
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
    return Batch(args, kwargs, labels if isinstance(labels, Tensor) else None)


class Source:
    """Runs a model over loaders and yields the features captured, with the labels.

    Args:
        model: a bare model, in eval mode.
        captured: of the model, in its context.
        unpack: makes a `Batch` of what a loader gives.
        classifier_input: the name of the classifier's input.
        shared: whether every process has a part of the data, so that a part may be empty.

    Attributes:
        required: names under which every pass must give features.
        output: what the model returned for the latest batch.
    """

    def __init__(
        self,
        model: nn.Module,
        captured: CapturedFeatures,
        classifier_input: str,
        unpack: Callable[[Any], Batch],
        *,
        progress: bool,
        shared: bool,
    ):
        self._model, self._captured, self._unpack = model, captured, unpack
        self._classifier_input = classifier_input
        self.required: Sequence[str] = (classifier_input,)
        self.output: Any = None
        self._progress, self._shared = progress and rank() == 0, shared
        self._device = device_of(model)

    def batches(
        self,
        loader: Iterable[Any],
        what: str,
        *,
        labelled: bool = True,
        watch: Callable[[tuple[Any, ...], dict[str, Any], dict[str, Tensor]], None] | None = None,
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """(features by name, labels) of each batch; labels are empty where `labelled` is false. `watch` is given what
        the model was called with, and the features.

        Raises: LoaderError for batches without labels, EmptyBatchError if there is no batch.
        """
        room = unpadded_rows(loader) if self._shared else None
        empty = True
        for item in _with_progress(with_workers_of_its_own(loader), f"measuring {what}", self._progress):
            empty = False
            batch = self._unpack(item)
            labels = batch.labels
            if labelled and labels is None:
                raise LoaderError(
                    "batches must be (inputs, labels) or mappings with one of the entries "
                    f"{', '.join(_LABELS)}; got {type(item).__name__}."
                )
            if labelled and labels is not None:
                self._captured.default_positions = "mean" if labels.ndim < 2 else "each"
            args = tuple(_move(value, self._device) for value in batch.args)
            kwargs = {name: _move(value, self._device) for name, value in batch.kwargs.items()}
            self.output = self._model(*args, **kwargs)
            features = self._captured.take()
            if self._classifier_input not in features:
                raise ClassifierError(
                    "the classifier wasn't called in the forward pass; name another with classifier=..."
                )
            if missing := [name for name in self.required if name not in features]:
                raise LayerError(
                    f"the forward pass of some batches, but not of all, calls {', '.join(map(repr, missing))}."
                )
            if watch is not None:
                watch(args, kwargs, features)
            if room is not None:
                features = {name: rows[:room] for name, rows in features.items()}
                labels = None if labels is None else labels[:room]
                room -= len(features[self._classifier_input])
                if len(features[self._classifier_input]) == 0:
                    return  # all from here on is padding
            labels = torch.empty(0) if labels is None else labels
            home = features[self._classifier_input].device  # parts of a model may be on several
            yield {name: rows.to(home) for name, rows in features.items()}, labels.to(home, non_blocking=True)
        if empty and not self._shared:
            raise EmptyBatchError(f"the loader of {what} gave no batch; a generator can be run only once.")


@contextmanager
def first_process_buffers(model: nn.Module, what: str) -> Iterator[None]:
    """The first process's buffers in all of them while the context lasts: DistributedDataParallel trains each process's
    averages of batch normalisation apart, and the first one's count.

    Args:
        what: is being done, for the error.

    Raises: LayerError, in every process, if the models have other buffers; DistributedError.
    """
    own = [(buffer, buffer.clone()) for buffer in model.buffers()]
    kinds = [(name, tuple(buffer.shape), str(buffer.dtype)) for name, buffer in model.named_buffers()]
    for other in every_process(kinds, what):  # backends end processes that broadcast other sizes
        if other != kinds:
            different = next((pair for pair in zip_longest(kinds, other) if pair[0] != pair[1]), None)
            raise LayerError(f"the processes' models have other buffers: {different}.")
    try:
        for buffer, _ in own:
            same = buffer.contiguous()
            broadcast(same, "the model's buffers")
            buffer.copy_(same)
        yield
    finally:
        for buffer, before in own:
            buffer.copy_(before)


def unpadded_rows(loader: Iterable[Any]) -> int | None:
    """How many of this process's samples come before those that a DistributedSampler repeats to fill up; None: all."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if not isinstance(sampler, DistributedSampler) or not isinstance(sampler.dataset, Sized):
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))


def with_workers_of_its_own(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader, or a copy where its workers outlive a pass: they would go on with their random numbers, in the second
    pass and when training goes on, and a loop over the loader that is under way would lose its place."""
    if not isinstance(loader, DataLoader) or not loader.persistent_workers:
        return loader
    mine = copy.copy(loader)
    mine._iterator = None
    return mine


def repeats(loader: Iterable[Any]) -> bool:
    """Whether it can be run again: an iterator can't."""
    return not isinstance(loader, Iterator)


def _move(value: Any, device: torch.device) -> Any:
    """The value with its tensors on the device: in mappings and sequences too, or by a `to` of its own."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if callable(getattr(value, "to", None)):  # a packed sequence, a tokenizer's batch
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _move(each, device) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_move(each, device) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(_move(each, device) for each in value)
    return value


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
