"""`Batch`: the inputs of a model and their labels, recognised in the items of a loader."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tightframe.checks import is_integer, listed
from tightframe.errors import LoaderError

ROWS = 256  # rows of a batch made from arrays or a data set
_LABELS = ("labels", "label", "targets", "target", "y", "label_ids", "class", "classes", "category", "class_id")
_INPUTS = ("inputs", "input", "x", "image", "images", "img", "pixel_values", "features", "data")


@dataclass(frozen=True)
class Batch:
    """The inputs of a model and their labels.

    Attributes:
        args, kwargs: arguments of the model's `forward`.
        labels: one per sample or one per position; None without labels.

    >>> import torch
    >>> from tightframe.sources import Batch
    >>> batch = Batch((torch.zeros(4, 3),), {"mask": None}, labels=torch.tensor([0, 1, 0, 1]))  # model(x, mask=None)
    >>> batch.kwargs
    {'mask': None}
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Any = None


class Unpacking:
    """Recognises inputs and labels in a loader's items: (inputs, ..., labels) or a mapping with labels.

    Items of three or more parts, and mappings with other names, are recognised if dtypes, the range of labels and the
    model's signature allow one interpretation only; the first item decides for all.

    Args:
        model: its `forward` defines the accepted arguments.
        num_classes: K, or None.
        unpack: the caller's function; its result is used if it is a `Batch`, else recognised.

    Attributes:
        notes: sentences on the parts of items that are left out.

    Raises: LoaderError, on a call, if several interpretations are possible.
    """

    def __init__(self, model: nn.Module, num_classes: int | None, unpack: Callable[[Any], Any] | None = None):
        self._num_classes, self._unpack = num_classes, unpack
        self._takes = _Signature.of(model)
        self._order: tuple[list[int], int | None] | None = None  # positions of inputs and labels in a sequence
        self.notes: list[str] = []

    def __call__(self, item: Any, *, labelled: bool = True) -> Batch:
        """The batch of an item; `labelled`: whether it should have labels."""
        if self._unpack is not None:
            item = self._unpack(item)
        if isinstance(item, Batch):
            return item
        if isinstance(item, Mapping):
            return self._of_mapping(item, labelled)
        if isinstance(item, Sequence) and not isinstance(item, str):
            return self._of_sequence(list(item), labelled)
        return Batch((item,))

    def _of_sequence(self, parts: list[Any], labelled: bool) -> Batch:
        if len(parts) == 1:
            return Batch((parts[0],))
        if self._order is None or max(*self._order[0], self._order[1] or 0) >= len(parts) or not labelled:
            order = self._recognised(parts, labelled)
            self._order = order if labelled else self._order
        else:
            order = self._order
        inputs, labels = order
        return Batch(tuple(parts[place] for place in inputs), {}, None if labels is None else parts[labels])

    def _recognised(self, parts: list[Any], labelled: bool) -> tuple[list[int], int | None]:
        """The positions of inputs and labels."""
        if len(parts) == 2:
            if not labelled and self._takes.required == 2 and not _is_index(parts[1]):
                return [0, 1], None
            swapped = _is_index(parts[0]) and _dims(parts[1]) > 1 and not _is_index(parts[1])
            return ([1], 0) if swapped and _is_floating(parts[1]) else ([0], 1)
        labels = [place for place, part in enumerate(parts) if self._may_be_labels(part)]
        indices = [place for place, part in enumerate(parts) if _is_index(part)]
        if not labels and not indices:  # labels by position, or shares: the last part, as in (inputs, ..., labels)
            labels = [len(parts) - 1]
        distinct = [place for place in indices if _all_differ(parts[place])]
        last = len(parts) - 1
        if len(parts) - 1 == self._takes.required and last in labels and not distinct:
            return list(range(last)), last  # (inputs, ..., labels) with an integer input
        doubtful = len(indices) > 1 and any(place in distinct for place in labels)
        if len(labels) == 1 and not doubtful:
            rest = [place for place in range(len(parts)) if place != labels[0]]
            plain = [place for place in rest if place not in indices]
            for inputs in (rest, plain):
                sure = len(inputs) == self._takes.required
                if sure or (inputs == plain == rest and self._takes.required <= len(rest) <= self._takes.most):
                    if len(inputs) < len(rest):
                        left = sorted(set(rest) - set(inputs))
                        self._say(f"part {listed(left)} of each batch (integers, but not labels) is left out.")
                    return inputs, labels[0]
        raise LoaderError(
            f"batches have {len(parts)} parts: {'; '.join(f'[{i}] {_kind(part)}' for i, part in enumerate(parts))}. "
            "Define the model's inputs and the labels, for example unpack=lambda b: Batch((b[0],), "
            f"labels=b[{last}]), with Batch from tightframe.sources."
        )

    def _of_mapping(self, item: Mapping[str, Any], labelled: bool) -> Batch:
        key = next((name for name in _LABELS if name in item), None)
        others = [name for name in item if name not in self._takes.names]
        if key is None:
            likely = [name for name in others if self._may_be_labels(item[name])]
            likely = [name for name in likely if not _is_text(item[name])] or likely
            key = likely[0] if len(likely) == 1 else None
        inputs = {name: value for name, value in item.items() if name != key}
        labels = None if key is None else item[key]
        if self._takes.any_name or not others or not inputs:
            return Batch((), inputs, labels)
        accepted = {name: value for name, value in inputs.items() if name in self._takes.names}
        dropped = sorted(name for name, value in inputs.items() if name not in accepted and isinstance(value, Tensor))
        if accepted:
            if dropped:
                self._say(f"{listed(dropped)} in each batch is left out: the model does not accept it.")
            return Batch((), accepted, labels)
        usual = [name for name in _INPUTS if name in inputs] or [
            name for name, value in inputs.items() if isinstance(value, Tensor | np.ndarray) and not _is_index(value)
        ]
        if len(usual) >= 1 and (len(usual) == 1 or usual[0] in _INPUTS):
            return Batch((inputs[usual[0]],), {}, labels)
        raise LoaderError(
            f"batches have the entries {listed(list(item))}, but the model accepts {listed(self._takes.names)}. Define "
            'inputs and labels: unpack=lambda b: Batch((b["image"],), labels=b["label"]), with Batch from '
            "tightframe.sources."
        )

    def _may_be_labels(self, part: Any) -> bool:
        if not _is_index(part):
            return False
        if self._num_classes is None or not isinstance(part, Tensor) or part.numel() == 0:
            return True
        return int(part.min()) >= -100 and int(part.max()) < self._num_classes

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


@dataclass(frozen=True)
class _Signature:
    """The arguments of a model's `forward`: required and most positional ones, names, whether any name is accepted."""

    required: int
    most: float
    names: list[str]
    any_name: bool

    @classmethod
    def of(cls, model: nn.Module) -> _Signature:
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            return cls(1, float("inf"), [], True)
        placed = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        many = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        names = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        return cls(
            max(1, sum(each.default is each.empty for each in placed)),
            float("inf") if many else len(placed),
            names,
            any(each.kind is each.VAR_KEYWORD for each in parameters),
        )


def _dims(part: Any) -> int:
    return part.ndim if isinstance(part, Tensor | np.ndarray) else 1 if isinstance(part, list | tuple) else 0


def _is_index(part: Any) -> bool:
    """Whether it is a list of integers or texts, one per sample."""
    if isinstance(part, Tensor):
        return is_integer(part) and (part.ndim == 1 or (part.ndim == 2 and part.shape[1] == 1))
    if isinstance(part, np.ndarray):
        return part.dtype.kind in "iuU" and part.ndim == 1
    return isinstance(part, list | tuple) and len(part) > 0 and all(isinstance(each, int | str) for each in part)


def _is_text(part: Any) -> bool:
    return isinstance(part, list | tuple) and all(isinstance(each, str) for each in part)


def _is_floating(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point()


def _all_differ(part: Any) -> bool:
    values = part.flatten().tolist() if isinstance(part, Tensor | np.ndarray) else list(part)
    return len(values) > 1 and len(set(values)) == len(values)


def _kind(part: Any) -> str:
    if isinstance(part, Tensor | np.ndarray):
        return f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"
    return type(part).__name__


def as_loader(data: Any, what: str) -> Iterable[Any]:
    """Batches from the caller's data: a loader or list of batches unchanged; a data set, a list of samples, (inputs,
    labels) or a tensor of inputs, split into batches.

    Raises: LoaderError for anything else.
    """
    if isinstance(data, nn.Module):
        raise LoaderError(f"{what} must be batches; got a model. Call measure(model, loader).")
    if isinstance(data, Tensor | np.ndarray):
        return [(data[start : start + ROWS],) for start in range(0, len(data), ROWS)]
    if isinstance(data, Mapping):
        return [data]
    if isinstance(data, tuple | list) and len(data) == 2 and _are_arrays(*data):
        inputs, labels = data
        return [(inputs[i : i + ROWS], labels[i : i + ROWS]) for i in range(0, len(inputs), ROWS)]
    if isinstance(data, IterableDataset | DataLoader) or not hasattr(data, "__getitem__"):
        if isinstance(data, str | bytes) or not isinstance(data, Iterable):
            raise LoaderError(f"{what} must be batches, a data set or (inputs, labels); got {type(data).__name__}.")
        return data
    if isinstance(data, Dataset) or (isinstance(data, Sequence) and len(data) and _is_sample(data[0])):
        return DataLoader(data, batch_size=ROWS)  # type: ignore[arg-type]
    if isinstance(data, str | bytes):
        raise LoaderError(f"{what} must be batches, a data set or (inputs, labels); got text.")
    return data


def _are_arrays(inputs: Any, labels: Any) -> bool:
    """Whether two values are the inputs and labels of all samples, not two batches of inputs."""
    tensors = isinstance(inputs, Tensor | np.ndarray) and isinstance(labels, Tensor | np.ndarray | list)
    return tensors and len(inputs) == len(labels) and (_is_index(labels) or _dims(labels) < _dims(inputs))


def _is_sample(item: Any) -> bool:
    """Whether an item of a list is one sample with its label, not a batch."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    label = item[1]
    return isinstance(label, int | np.integer) or (isinstance(label, Tensor | np.ndarray) and label.ndim == 0)
