"""Fewer samples from anybody's loader, the same ones each time."""

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
    """How many samples a loader has, where that can be told without running it; with a DistributedSampler, how many the
    loaders of all processes have."""
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, Sized) and _is_whole(loader):
        return len(loader.dataset)
    return sum(rows_in(batch, unpack) for batch in loader) if isinstance(loader, Sequence) else None


def is_divided(loader: Iterable[Any]) -> bool:
    """Whether it is a DataLoader that gives each process its part of one data set."""
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


def sampled(loader: Iterable[Any], samples: int, unpack: Callable[[Any], Any] | None) -> Iterable[Any]:
    """A loader of about so many samples of this process's: drawn once and for all from a DataLoader's data set, evenly
    spaced batches of a list, else the first batches.

    Args:
        samples: over all processes, if the loader has a DistributedSampler.
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
    """The first batches of a loader, until they have so many samples."""

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
    """The rows of a batch: of the first of its parts that has any."""
    item = batch if unpack is None else unpack(batch)
    if isinstance(item, Batch):
        item = (item.labels, *item.args, *item.kwargs.values())
    values = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else (item,)
    return next((len(value) for value in values if isinstance(value, Tensor | np.ndarray) and value.ndim), 1)


def _is_whole(loader: DataLoader[Any]) -> bool:
    """Whether a DataLoader goes through all of its data set, in some order."""
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        return False  # somebody's own batches: the sampler beside them isn't used
    plain = type(loader.sampler) in (RandomSampler, SequentialSampler, DistributedSampler)
    replaces = isinstance(loader.sampler, RandomSampler) and loader.sampler.replacement
    return plain and not replaces and not isinstance(loader.dataset, IterableDataset)


@contextmanager
def same_randomness(*loaders: Any) -> Iterator[Callable[[], None]]:
    """Leave every random generator that loading data may draw from as it was: training goes on as if nothing was
    measured. What is yielded puts them back in between, so that loaders draw the same again."""
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
    """The generators of a loader, of its samplers, and of a loader that it takes batches from."""
    generator = getattr(source, "generator", None)
    if isinstance(generator, torch.Generator):
        yield generator
    for name in ("sampler", "batch_sampler", "loader"):
        inner = getattr(source, name, None)
        if inner is not None:
            yield from _generators(inner)
