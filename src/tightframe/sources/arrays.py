"""`ArraySource`: features that are in memory, or memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import as_array, as_tensor, number_of_classes, require_classifier, require_dense
from tightframe.errors import ClassifierError, DtypeError, EmptyBatchError, LabelError, LoaderError, ShapeError
from tightframe.options import Measuring
from tightframe.processes import rank, world_size
from tightframe.sources.labels import SOFT_NOTE, ClassLabels, Targets, is_text, text_of
from tightframe.sources.source import OOD, TEST, TRAIN, FeatureBatch, FeatureSource, LinearClassifier, with_progress

_ROWS = 4096  # of a batch: memory-mapped arrays are read so many at a time


class ArraySource(FeatureSource):
    """Features and labels as arrays: tensors, NumPy, also memory-mapped.

    Args:
        features: (N, D). labels: (N,) integers or text, (N, 1), or one-hot (N, K).
        test: (features, labels) held out. ood: features (N, D), or (features, labels), out of distribution.
        weight, bias: (K, D) and (K,) of the linear classifier on these features.
        options: num_classes, class_names, ignore_index, distributed and progress are used.
        divided: whether all processes of `torch.distributed` are given the same arrays, as from files, and each reads
            its part; else each has its own samples.
        name: of the features, in the report. title: of the report.

    Raises: ShapeError, DtypeError, LabelError, ClassifierError, EmptyBatchError for arrays that don't fit.

    >>> import torch
    >>> from tightframe.sources import ArraySource
    >>> source = ArraySource(torch.zeros(5, 3), ["cat", "dog", "cat", "dog", "dog"])
    >>> source.num_classes, source.class_names, source.splits
    (2, ['cat', 'dog'], ('train',))
    >>> next(source.batches("train")).labels.tolist()
    [0, 1, 0, 1, 1]
    """

    cheap_to_read = True

    def __init__(
        self,
        features: Any,
        labels: Any,
        *,
        test: Any = None,
        ood: Any = None,
        weight: Any = None,
        bias: Any = None,
        options: Measuring | Mapping[str, Any] | None = None,
        divided: bool = False,
        name: str = "features",
        title: str | None = None,
    ):
        self._options = options = Measuring.of(options or {})
        self._name, self.title, self._divided = name, title, divided and options.distributed
        self.notes: list[str] = []
        self.ignore_index = options.ignore_index
        classifier = LinearClassifier.of(weight, bias)
        names = options.class_names if options.class_names is not None else _text_classes(labels)
        self.class_names = names
        known = (
            options.num_classes
            or (None if classifier is None else len(classifier.weight))
            or (None if names is None else len(names))
        )
        classifies = options.task == "classification"
        to_classes = ClassLabels(names, known) if classifies else Targets()
        self._splits: dict[str, tuple[Any, Tensor | None]] = {
            TRAIN: _pair(features, labels, to_classes, "the features")
        }
        if test is not None:
            if not isinstance(test, tuple | list) or len(test) != 2:
                raise LoaderError("test must be (features, labels) where the training features are an array.")
            self._splits[TEST] = _pair(test[0], test[1], to_classes, "the held-out features")
        if ood is not None:
            outside = ood[0] if isinstance(ood, tuple | list) else ood
            self._splits[OOD] = (_array(outside, "the out-of-distribution features"), None)
        if to_classes.soft:
            self.notes.append(SOFT_NOTE)
        self.splits = tuple(self._splits)
        self.num_classes = known if known or not classifies else self._number_of_classes()
        array = self._splits[TRAIN][0]
        self.device = array.device if isinstance(array, Tensor) else torch.device("cpu")
        if classifier is not None:
            self._require_fits(classifier, array.shape[-1])
        self.classifier = classifier

    def _number_of_classes(self) -> int:
        labels = self._splits[TRAIN][1]
        assert labels is not None
        counted = labels if self.ignore_index is None else labels[labels != self.ignore_index]
        if counted.numel() == 0:
            raise LabelError(f"{self._name} has no rows with labels other than {self.ignore_index}.")
        smallest = int(counted.min())
        if smallest > 0 and self._options.distributed and not self._divided and world_size() > 1:
            smallest = 0  # the other processes may have samples of class 0
        return number_of_classes(smallest, int(counted.max()), counted.numel(), self.ignore_index)

    def _require_fits(self, classifier: LinearClassifier, width: int) -> None:
        weight = classifier.weight
        if weight.ndim == 2 and weight.shape[1] != width == weight.shape[0]:
            raise ClassifierError(
                f"the classifier's weight is (features, classes), {tuple(weight.shape)}; transpose it."
            )
        require_classifier(weight, classifier.bias, self.num_classes or len(weight), width)

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        features, labels = self._splits[split]
        parts = [slice(start, start + _ROWS) for start in range(0, len(features), _ROWS)]
        if self._divided:
            parts = parts[rank() :: world_size()]
        shown = self._options.progress and rank() == 0 and len(parts) > 64
        for part in with_progress(parts, split, len(parts), show=shown):
            rows = as_tensor(features[part], "features")  # a part of a memory map is read here
            yield FeatureBatch({self._name: rows}, None if labels is None else labels[part].to(rows.device))


def _array(given: Any, what: str) -> Any:
    """A tensor or array of rows."""
    array = given if isinstance(given, Tensor | np.ndarray) else as_array(given, what)
    if isinstance(array, Tensor):
        require_dense(array, what)
    if array.ndim < 2:
        raise ShapeError(f"{what} must be (N, D); got shape {tuple(array.shape)}.")
    floating = array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"
    if not floating:
        raise DtypeError(f"{what} must be floating point; got {array.dtype}. Are features and labels swapped?")
    if len(array) == 0:
        raise EmptyBatchError(f"{what} have no rows.")
    if 0 in array.shape:
        raise ShapeError(f"{what} must be (N, D) with D >= 1; got shape {tuple(array.shape)}.")
    if isinstance(array, np.ndarray):
        as_tensor(array[:1], what)  # its dtype is one that torch has
    return array


def _pair(features: Any, labels: Any, to_classes: ClassLabels | Targets, what: str) -> tuple[Any, Tensor]:
    if isinstance(features, Tensor | np.ndarray) and features.ndim == 1 and getattr(labels, "ndim", 0) == 2:
        raise ShapeError("features must be (N, D) and labels (N,); they are swapped: measure(features, labels).")
    array = _array(features, what)
    rows = to_classes(labels, tuple(array.shape[:-1]))
    if rows.shape != array.shape[:-1] and (isinstance(to_classes, ClassLabels) or len(rows) != len(array)):
        if array.ndim > 2 and rows.shape == array.shape[:1]:
            raise ShapeError(
                f"{what} must be (N, D); got {tuple(array.shape)}. Make each sample a vector, e.g. by x.mean((2, 3)) "
                "or x.flatten(1)."
            )
        raise ShapeError(f"{what} have the shape {tuple(array.shape)}, but labels have {tuple(rows.shape)}.")
    return array, rows


def _text_classes(labels: Any) -> list[str] | None:
    """The classes of labels that are text, sorted."""
    if isinstance(labels, Tensor):
        return None
    array = text_of(as_array(labels, "labels"))
    return sorted(set(map(str, array.flat))) if is_text(array) else None
