"""`FeatureSource`: where features and labels come from, batch by batch."""

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
    "the start of a measurement (Every process must call measure(); one that measures its own samples alone passes "
    "distributed=False)"
)
FEATURES = "features"
"""The name of a layer where a source has but one and gives it no name."""
_SECONDS_PER_LINE = 10.0  # between lines of progress where there is no terminal


class FeatureBatch(NamedTuple):
    """Features of some samples.

    Attributes:
        features: (..., D) of each layer by name, in order of depth, the classifier's input last; or a tensor alone.
        labels: (...) integers; None where there are none, as out of distribution.
        decided: (...) the class that the model itself decides for; None where the classifier tells, or nothing does.
    """

    features: Mapping[str, Tensor] | Tensor
    labels: Tensor | None = None
    decided: Tensor | None = None

    @classmethod
    def of(cls, given: Any) -> FeatureBatch:
        """A batch, or a plain tuple as one."""
        return cls(*given)

    @property
    def by_layer(self) -> Mapping[str, Tensor]:
        """The features by name, if there is but one layer too."""
        return self.features if isinstance(self.features, Mapping) else {FEATURES: self.features}


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """The linear classifier on the last layer's features.

    Attributes:
        weight: (K, D). bias: (K,) or None. Both without a graph.
        name: its name in the model.
        fixed: whether it is given, while other parts of the model are trained.
        decides: whether argmax of weight x + bias is the model's decision.
    """

    weight: Tensor
    bias: Tensor | None = None
    name: str = ""
    fixed: bool = False
    decides: bool = True

    @classmethod
    def of(cls, weight: Any, bias: Any = None) -> LinearClassifier | None:
        """Of a caller's arrays, (K, D) and (K,), or (D,) and a number for a single logit; None without a weight.

        Raises: ClassifierError for a bias without a weight.
        """
        if weight is None:
            if bias is not None:
                raise ClassifierError("a bias needs the classifier's weight.")
            return None
        rows = torch.atleast_2d(_floats(weight))
        return cls(*rows_of_classes(rows, None if bias is None else _floats(bias).reshape(-1)))


def _floats(given: Any) -> Tensor:
    return as_tensor(
        given if isinstance(given, Tensor) else as_array(given, "the classifier"), "the classifier"
    ).detach()


class FeatureSource(ABC):
    """What `measure` reads: define `batches`, and set what else is known.

    Attributes:
        num_classes: K; None if the first batch tells, or the largest label.
        classifier: on the last layer's features; None without one, or with one that isn't linear.
        splits: which of "train", "test" and "ood" there are.
        repeatable: whether `batches` gives the same samples when it is called again.
        cheap_to_read: whether reading again costs less than keeping features in memory: none then wait in a buffer.
        class_names: a name for each class, or None.
        ignore_index: a label whose rows are dropped, or None.
        device: where features are summed up.
        title: of the report; None for the usual one.
        notes: sentences for the report; complete once the first batch was drawn.
        origin: plain values that tell this source from others, such as a model's name; an extraction that is resumed
            must find the same.

    num_classes, classifier and notes are read after the first batch was drawn.

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
        """`FeatureBatch`es, or (features, labels), of a split: "train", "test" or "ood" (features alone)."""

    def batches_from(self, split: str, start: int) -> Iterable[Any]:
        """The batches of a split without the first `start`. Override it where they can be skipped at less cost."""
        return islice(self.batches(split), start, None)

    def opened(self) -> AbstractContextManager[object]:
        """The context in which batches are drawn."""
        return nullcontext()

    def consumer(self, layer: str, num_features: int) -> Tensor | None:
        """(M, D) weight of the layer that reads these features, D of them, where that isn't the classifier."""
        return None

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        """Facts and notes that all training samples told, asked once after they were read. Under `torch.distributed`
        every process calls it."""
        return {}, []


def with_progress(batches: Iterable[Any], split: str, total: int | None, *, show: bool) -> Iterator[Any]:
    """Batches behind a progress bar that goes away, if wanted.

    Not `rich.progress.track`: its end waits for a thread, which may wait for the display that is being drawn while the
    garbage collector ends a measurement that failed.
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
