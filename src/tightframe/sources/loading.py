"""Loaders and inputs of models: workers, padding of samplers, devices, buffers across processes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from tightframe.checks import as_tensor
from tightframe.errors import LayerError
from tightframe.processes import broadcast, every_process


@contextmanager
def first_process_buffers(model: nn.Module, what: str) -> Iterator[None]:
    """Give all processes the first process's buffers inside the context. DistributedDataParallel trains the averages of
    batch normalisation separately in each process, and those of the first one are used.

    Args:
        what: the current operation, for the error.

    Raises: LayerError, in every process, if the models' buffers differ; DistributedError.
    """
    own = [(buffer, buffer.clone()) for buffer in model.buffers()]
    kinds = [(name, tuple(buffer.shape), str(buffer.dtype)) for name, buffer in model.named_buffers()]
    for other in every_process(kinds, what):  # backends abort processes that broadcast different sizes
        if other != kinds:
            different = next((pair for pair in zip_longest(kinds, other) if pair[0] != pair[1]), None)
            raise LayerError(f"the models of all processes must have the same buffers; they differ in {different}.")
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
    """Number of this process's samples before the duplicates that a DistributedSampler appends; None for all."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if not isinstance(sampler, DistributedSampler) or not isinstance(sampler.dataset, Sized):
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))


def with_workers_of_its_own(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader, or a copy if its workers are persistent: they would continue their random numbers in the second pass
    and in training, and a running loop over the loader would lose its position."""
    if not isinstance(loader, DataLoader) or not loader.persistent_workers:
        return loader
    separate = copy.copy(loader)
    separate._iterator = None
    return separate


def repeats(loader: Iterable[Any]) -> bool:
    """Whether the loader can be iterated again, unlike an iterator."""
    return not isinstance(loader, Iterator)


def moved(value: Any, device: torch.device) -> Any:
    """The value with its tensors and arrays, also inside mappings and sequences, as tensors on the device; a value with
    a method `to` is moved by it."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = as_tensor(value, "inputs")
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if callable(getattr(value, "to", None)):  # a packed sequence, a tokenizer's batch
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(each, device) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(moved(each, device) for each in value)
    return value
