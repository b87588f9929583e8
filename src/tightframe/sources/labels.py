"""Labels as people have them, as class indices: integers, text, NumPy, one column, one-hot, shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import as_array, as_tensor, is_integer, listed, require_dense
from tightframe.errors import DtypeError, LabelError

SOFT_NOTE = "labels are shares of classes: each sample counts in the class of its largest share."
_ALMOST_ONE = 1e-3  # by which shares may miss a sum of 1, as in half precision


def is_text(array: Any) -> bool:
    """Whether a numpy array holds nothing but text."""
    return array.dtype.kind == "U" or (array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat))


def text_of(array: Any) -> Any:
    """A numpy array of bytes as text; any other as it is. Raises: DtypeError for bytes that aren't UTF-8."""
    if array.dtype.kind != "S":
        return array
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError:
        raise DtypeError("labels of bytes must be UTF-8 text.") from None


class Targets:
    """Takes the targets of a regression, or tags, as they are: (N,) or (N, n) numbers."""

    num_classes: int | None = None
    soft = False

    def tensor(self, given: Any) -> Tensor:
        """The targets as a tensor of real numbers. Raises: DtypeError."""
        targets = as_tensor(given if isinstance(given, Tensor) else as_array(given, "targets"), "targets")
        if targets.is_complex():
            raise DtypeError(f"targets must be real numbers; got {targets.dtype}.")
        return targets

    def __call__(self, given: Any, shape: Sequence[int] | None = None) -> Tensor:
        """(N, n) targets. Raises: DtypeError."""
        targets = self.tensor(given)
        return targets.reshape(len(targets), -1)


class ClassLabels:
    """Turns labels of one data set into class indices.

    Args:
        names: of the classes, for labels that are text.
        num_classes: K, if known: what tells one-hot labels from positions.

    Attributes:
        soft: whether labels were shares of several classes.
    """

    def __init__(self, names: Sequence[str] | None = None, num_classes: int | None = None):
        self._places = None if names is None else {str(name): place for place, name in enumerate(names)}
        self.num_classes = num_classes
        self.soft = False

    def __call__(self, given: Any, shape: Sequence[int] | None = None) -> Tensor:
        """(...) int64 of labels (...), (..., 1) or (..., K).

        Args:
            shape: of the features without D, where it is known: what tells positions from classes.

        Raises: LabelError, DtypeError naming what the labels are and how to mend them.
        """
        labels = self.tensor(given)
        columns = labels.ndim > 1 and (shape is None or tuple(labels.shape[:-1]) == tuple(shape))
        if labels.ndim > 1 and labels.shape[-1] == 1 and (columns or shape is None or len(shape) < labels.ndim):
            return self._indices(labels[..., 0])
        if shape is not None and tuple(labels.shape) == tuple(shape):
            columns = False
        if columns and (labels.is_floating_point() or labels.shape[-1] == self.num_classes or shape is not None):
            return self._of_columns(labels)
        return self._indices(labels)

    def tensor(self, given: Any) -> Tensor:
        """The labels as a tensor; text as class indices. Raises: DtypeError, LabelError."""
        if isinstance(given, Tensor):
            require_dense(given, "labels")
            return given
        array = text_of(as_array(given, "labels"))
        if is_text(array):
            return self._of_text(array)
        if array.dtype.kind not in "iufb":
            raise DtypeError(
                f"labels must be integers or text; got {array.dtype} ({listed(array.ravel().tolist(), 3)})."
            )
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63:
            raise LabelError(f"labels must number the classes 0, 1, 2, ...; got {int(array.max())}.")
        return as_tensor(array, "labels")

    def _of_text(self, array: Any) -> Tensor:
        if self._places is None:
            some = listed(sorted(set(map(str, array.flat))), 5)
            raise LabelError(f"labels are text ({some}): pass class_names=[...], the classes in order.")
        unknown = sorted({str(each) for each in array.flat} - self._places.keys())
        if unknown:
            raise LabelError(f"no class is called {unknown[0]!r}; class_names has: {listed(list(self._places))}.")
        return torch.tensor([self._places[str(each)] for each in array.flat]).reshape(array.shape)

    def _indices(self, labels: Tensor) -> Tensor:
        if is_integer(labels) or labels.dtype is torch.bool:
            return labels.to(torch.int64)
        if labels.is_floating_point() and self.num_classes == 2 and bool(((labels == 0) | (labels == 1)).all()):
            return labels.to(torch.int64)  # as binary cross-entropy takes them
        whole = labels.is_floating_point() and bool((labels == labels.round()).all())
        fix = "Convert them with .long()" if whole else "They look like targets of a regression"
        raise DtypeError(
            f'labels must be integers; got {labels.dtype}. {fix}; targets are measured with task="regression".'
        )

    def _of_columns(self, labels: Tensor) -> Tensor:
        """(...) of one-hot labels or shares (..., K)."""
        sums = labels.sum(-1) if labels.dtype is not torch.bool else labels.long().sum(-1)
        ones = labels.to(torch.float64) if labels.dtype is torch.bool else labels
        hot = bool(((ones == 0) | (ones == 1)).all())
        if hot and bool((sums == 1).all()):
            return labels.to(torch.int64).argmax(-1)
        if hot:
            raise LabelError(
                f"labels are (..., {labels.shape[-1]}) tags, of which a sample has several or none: measure them with "
                'task="multilabel" (metrics.multilabel).'
            )
        if not labels.is_floating_point():
            raise LabelError(
                f"labels have shape {tuple(labels.shape)}, which are neither classes (...) nor one-hot (..., K)."
            )
        shares = bool(((sums - 1).abs() <= _ALMOST_ONE).all()) and bool((labels >= 0).all())
        if not shares:
            raise LabelError(
                f"labels are {tuple(labels.shape)} numbers that don't sum to 1: shares of classes do, and targets are "
                'measured with task="regression".'
            )
        self.soft = True
        return labels.argmax(-1)
