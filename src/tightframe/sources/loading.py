"""Loaders and a model's inputs: workers, padding of samplers, devices, buffers of several processes."""

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


def moved(value: Any, device: torch.device) -> Any:
    """The value with its tensors, and arrays as tensors, on the device: in mappings and sequences too, or by a `to` of
    its own."""
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
