"""Subsampling of any loader; the samples are the same each time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from tightframe.sources.batches import Batch
from tightframe.sources.loading import repeats

_SEED = 0


def number_of_samples(loader: Iterable[Any], unpack: Callable[[Any], Any] | None) -> int | None:
    """Number of samples of a loader, if known without iterating; with a DistributedSampler, over all processes. Else
    None."""
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, Sized) and _is_whole(loader):
        return len(loader.dataset)
    return sum(rows_in(batch, unpack) for batch in loader) if isinstance(loader, Sequence) else None


def is_divided(loader: Iterable[Any]) -> bool:
    """Whether the loader is a DataLoader that divides one data set among the processes."""
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def sampled(loader: Iterable[Any], samples: int, unpack: Callable[[Any], Any] | None) -> Iterable[Any]:
    """A loader of about `samples` samples: a fixed random subset of a DataLoader's data set, evenly spaced batches of a
    list, else the first batches.

    Args:
        samples: number of samples, over all processes if the loader has a DistributedSampler.
    """
    if isinstance(loader, DataLoader) and _is_whole(loader):
        total = len(loader.dataset)  # type: ignore[arg-type]
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(_SEED))[:samples].sort().values
        sampler = loader.sampler
        if isinstance(sampler, DistributedSampler):
            drawn = drawn[sampler.rank :: sampler.num_replicas]
        return DataLoader(
            Subset(loader.dataset, drawn.tolist()),
            loader.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            timeout=loader.timeout,
        )
    if isinstance(loader, Sequence):
        total = sum(rows_in(batch, unpack) for batch in loader)
        wanted = min(len(loader), math.ceil(len(loader) * samples / max(total, 1)))
        return [loader[place * len(loader) // wanted] for place in range(wanted)]
    first = _FirstBatches(loader, samples, unpack)
    return first if repeats(loader) else iter(first)


class _FirstBatches:
    """The first batches of a loader with at least `samples` samples."""

    def __init__(self, loader: Iterable[Any], samples: int, unpack: Callable[[Any], Any] | None):
        self.loader, self._samples, self._unpack = loader, samples, unpack

    def __iter__(self) -> Iterator[Any]:
        left = self._samples
        for batch in self.loader:
            yield batch
            left -= rows_in(batch, self._unpack)
            if left <= 0:
                return


def rows_in(batch: Any, unpack: Callable[[Any], Any] | None) -> int:
    """Number of rows of a batch, from its first part with rows."""
    item = batch if unpack is None else unpack(batch)
    if isinstance(item, Batch):
        item = (item.labels, *item.args, *item.kwargs.values())
    values = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else (item,)
    return next((len(value) for value in values if isinstance(value, Tensor | np.ndarray) and value.ndim), 1)


def _is_whole(loader: DataLoader[Any]) -> bool:
    """Whether a DataLoader covers its whole data set, in any order."""
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        return False  # a custom batch sampler ignores the sampler
    plain = type(loader.sampler) in (RandomSampler, SequentialSampler, DistributedSampler)
    replaces = isinstance(loader.sampler, RandomSampler) and loader.sampler.replacement
    return plain and not replaces and not isinstance(loader.dataset, IterableDataset)


@contextmanager
def same_randomness(*loaders: Any) -> Iterator[Callable[[], None]]:
    """Restore on exit every random generator that loading data may use, so that training is unaffected. The yielded
    function restores them earlier, so that loaders draw the same samples again."""
    generators = list({id(each): each for loader in loaders for each in _generators(loader)}.values())
    states = [generator.get_state() for generator in generators]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    def rewind() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if device is not None:
            torch.cuda.set_rng_state(device)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    try:
        yield rewind
    finally:
        rewind()


def _generators(source: Any) -> Iterator[torch.Generator]:
    """The generators of a loader, of its samplers, and of a loader inside it."""
    generator = getattr(source, "generator", None)
    if isinstance(generator, torch.Generator):
        yield generator
    for name in ("sampler", "batch_sampler", "loader"):
        inner = getattr(source, name, None)
        if inner is not None:
            yield from _generators(inner)
