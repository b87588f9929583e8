"""`FeatureSource`: a stream of features and labels, batch by batch."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tightframe.checks import as_array, as_tensor
from tightframe.errors import ClassifierError
from tightframe.hooks.classifier import rows_of_classes

TRAIN, TEST, OOD = "train", "test", "ood"
SPLITS = {TRAIN: "training samples", TEST: "held-out samples", OOD: "out-of-distribution samples"}
START = (
    "the start of a measurement (Every process must call measure(); pass distributed=False to measure only the samples "
    "of one process)"
)
FEATURES = "features"
"""The name of a layer where a source has but one and gives it no name."""
_SECONDS_PER_LINE = 10.0  # between lines of progress where there is no terminal


class FeatureBatch(NamedTuple):
    """Features of some samples.

    Attributes:
        features: {layer: (..., D)} in order of depth, the classifier's input last; or one tensor (..., D).
        labels: (...) integers; None without labels, as for out-of-distribution samples.
        decided: (...) the model's decisions as class indices; None if the classifier decides, or if there are none.

    >>> import torch
    >>> from tightframe.sources import FeatureBatch
    >>> batch = FeatureBatch(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    >>> list(batch.by_layer)
    ['features']
    """

    features: Mapping[str, Tensor] | Tensor
    labels: Tensor | None = None
    decided: Tensor | None = None

    @classmethod
    def of(cls, batch: Any) -> FeatureBatch:
        """A batch from a batch or a plain tuple."""
        return cls(*batch)

    @property
    def by_layer(self) -> Mapping[str, Tensor]:
        """The features (..., D) by layer name, also for a single layer."""
        return self.features if isinstance(self.features, Mapping) else {FEATURES: self.features}


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """The linear classifier on the last layer's features.

    Attributes:
        weight: (K, D). bias: (K,) or None. Both without a graph.
        name: name in the model.
        fixed: whether the classifier is not trained.
        decides: whether the argmax of weight x + bias is the model's decision.

    >>> import torch
    >>> from tightframe.sources import LinearClassifier
    >>> LinearClassifier.of(torch.tensor([2.0, 4.0]), 1.0).weight.tolist()  # one logit becomes two of opposite sign
    [[-1.0, -2.0], [1.0, 2.0]]
    """

    weight: Tensor
    bias: Tensor | None = None
    name: str = ""
    fixed: bool = False
    decides: bool = True

    @classmethod
    def of(cls, weight: Any, bias: Any = None) -> LinearClassifier | None:
        """A classifier from arrays (K, D) and (K,), or (D,) and a number for a single logit; None without a weight.

        Raises: ClassifierError for a bias without a weight.
        """
        if weight is None:
            if bias is not None:
                raise ClassifierError("a bias must come with the classifier's weight; got no weight. Pass both.")
            return None
        rows = torch.atleast_2d(_floats(weight))
        return cls(*rows_of_classes(rows, None if bias is None else _floats(bias).reshape(-1)))


def _floats(given: Any) -> Tensor:
    return as_tensor(
        given if isinstance(given, Tensor) else as_array(given, "the classifier"), "the classifier"
    ).detach()


class FeatureSource(ABC):
    """The input of `measure`: define `batches`, and set the attributes that are known.

    Attributes:
        num_classes: K; None to use the first batch or the largest label.
        classifier: classifier of the last layer's features; None without a linear one.
        splits: the available ones of "train", "test" and "ood".
        repeatable: whether a second call of `batches` yields the same samples.
        cheap_to_read: whether reading again costs less than memory for features; they are then not buffered.
        class_names: one name per class, or None.
        ignore_index: label of rows to drop, or None.
        device: device of the sums of features.
        title: title of the report; None for the default.
        notes: sentences for the report; complete after the first batch.
        origin: plain values that identify this source, such as a model's name; a resumed extraction requires the same
            values.

    `measure` reads num_classes, classifier and notes after the first batch.

    >>> import torch
    >>> from tightframe.sources import FeatureSource
    >>> class Halves(FeatureSource):
    ...     num_classes = 2
    ...     def batches(self, split):
    ...         yield torch.randn(8, 3), torch.arange(8) % 2
    >>> from tightframe import measure
    >>> measure(Halves(), progress=False).facts.samples
    8
    """

    num_classes: int | None = None
    classifier: LinearClassifier | None = None
    splits: Collection[str] = (TRAIN,)
    repeatable: bool = True
    cheap_to_read: bool = False
    class_names: Sequence[str] | None = None
    ignore_index: int | None = None
    device: torch.device = torch.device("cpu")
    title: str | None = None
    notes: Sequence[str] = ()
    origin: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def batches(self, split: str) -> Iterable[Any]:
        """`FeatureBatch`es, or (features, labels), of a split: "train", "test" or "ood" (without labels)."""

    def batches_from(self, split: str, start: int) -> Iterable[Any]:
        """The batches of a split from number `start` on. Override it if skipping is cheaper than reading."""
        return islice(self.batches(split), start, None)

    def opened(self) -> AbstractContextManager[object]:
        """A context manager around all calls of `batches`."""
        return nullcontext()

    def consumer(self, layer: str, num_features: int) -> Tensor | None:
        """(M, D) weight of the layer that reads these D features, if that is not the classifier; else None."""
        return None

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        """Facts and notes on all training samples, requested once after the last batch. Under `torch.distributed` every
        process calls it."""
        return {}, []


def with_progress(batches: Iterable[Any], split: str, total: int | None, *, show: bool) -> Iterator[Any]:
    """The batches, with a transient progress bar if `show`.

    This does not use `rich.progress.track`: its end waits for a thread, and that thread may wait for the display if the
    garbage collector ends a failed measurement.
    """
    if not show:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal and not console.is_jupyter:
        yield from _with_lines(batches, split, total)
        return
    with Progress(transient=True, console=console) as bar:
        task = bar.add_task(f"measuring {SPLITS[split]}", total=total)
        for batch in batches:
            yield batch
            bar.advance(task)


def _with_lines(batches: Iterable[Any], split: str, total: int | None) -> Iterator[Any]:
    """Batches, with a line on the standard error every few seconds."""
    last = time.monotonic()
    for done, batch in enumerate(batches, 1):
        yield batch
        if time.monotonic() - last >= _SECONDS_PER_LINE:
            last = time.monotonic()
            count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            print(f"measuring {SPLITS[split]}: {count} batches", file=sys.stderr, flush=True)
