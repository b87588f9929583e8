"""Comparison of features in eval mode with features under the data's own statistics in batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tightframe.hooks import CapturedFeatures

GAP = 0.02
"""Gap above which a measurement is likely a blip. On digits the ETF error, relative to that under the data's own
statistics, is 1.3 for smaller gaps and 1.8 for larger ones (medians, `benchmarks/normalisation.py`)."""

_PLAIN = (bool, int, float, str, type(None))  # types of arguments that are the same for all rows
_ROWS = 128  # least number of compared rows: their statistics are within 0.1 standard deviations of those of all
_FEWEST = 32  # fewer rows give no result, unless the data have no more
_BYTES = 1 << 26  # maximum memory of the rows


class NormalisationCheck:
    """Collects rows spread over the data, and finally runs the model on them with their own statistics.

    Args:
        model: bare model in eval mode. captured: its captured features. name: layer of the features to compare.
    """

    def __init__(self, model: nn.Module, captured: CapturedFeatures, name: str):
        self._model, self._captured, self._name = model, captured, name
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and _has_averages(m)]
        self._parts: list[_Rows] = []
        self._stride, self._kept, self.seen, self.done = 1, 0, 0, False

    def see(self, args: tuple[Any, ...], kwargs: dict[str, Any], features: dict[str, Tensor]) -> None:
        """Add a batch with its features; every `_stride`-th of all rows is stored."""
        if not self._norms:
            return
        rows = _Rows.of(features[self._name], args, kwargs)
        if rows is None:
            self._norms = []
            self._parts.clear()
            self._kept = 0
            return
        number, start = len(rows.features), -self.seen % self._stride
        self.seen += number
        if start >= number:
            return
        self._keep(rows.every(self._stride, start))
        most = max(2, min(2 * _ROWS, _BYTES // rows.bytes_per_row))
        while self._kept > most:
            parts, place = self._parts, 0
            self._parts, self._kept, self._stride = [], 0, 2 * self._stride
            for part in parts:
                self._keep(part.every(2, place % 2))
                place += len(part.features)

    def _keep(self, part: _Rows) -> None:
        if len(part.features):
            self._parts.append(part)
            self._kept += len(part.features)

    def gap(self) -> float | None:
        """1 − correlation, in [0, 2], of centred features in eval mode with those under the rows' own statistics; a
        common shift or scale would not change the measures.

        None without trained running averages of batch normalisation, or if the model can't run on combined rows of
        different batches.
        """
        if self._kept < min(_FEWEST, max(self.seen, 2)):
            return None
        first = self._parts[0]
        if any(len(part.args) != len(first.args) or part.kwargs.keys() != first.kwargs.keys() for part in self._parts):
            return None
        try:
            args = [_joined([part.args[place] for part in self._parts]) for place in range(len(first.args))]
            kwargs = {name: _joined([part.kwargs[name] for part in self._parts]) for name in first.kwargs}
        except _RaggedError:
            return None
        try:
            with _own_statistics(self._norms):
                self._model(*args, **kwargs)
        except Exception:  # a model may depend on its batches or averages
            self._captured.take()
            return None
        before, again = torch.cat([part.features for part in self._parts]), self._captured.take().get(self._name)
        if again is None or again.shape != before.shape:
            return None
        eval_mode, own = (rows.double().reshape(-1, rows.shape[-1]) for rows in (before, again))
        eval_mode, own = eval_mode - eval_mode.mean(0), own - own.mean(0)
        return 1 - float((eval_mode * own).sum() / (eval_mode.norm() * own.norm()))


@dataclass(frozen=True)
class _Rows:
    """Some rows of a batch: features in eval mode, and the model's arguments."""

    features: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, features: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Rows | None:
        """All rows of a batch; None unless each argument has one row per sample or is the same for all."""

        def wrapped(value: Any) -> Any:
            has_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(features)
            return value if has_rows else _Same(value)

        rows = cls(features, tuple(map(wrapped, args)), {name: wrapped(value) for name, value in kwargs.items()})
        values = [*rows.args, *rows.kwargs.values()]
        common = [value for value in values if isinstance(value, _Same)]
        return rows if len(common) < len(values) and all(value.is_plain for value in common) else None

    @property
    def bytes_per_row(self) -> int:
        """Bytes of features and arguments per row."""
        tensors = [value for value in (self.features, *self.args, *self.kwargs.values()) if isinstance(value, Tensor)]
        return max(1, sum(tensor.nbytes for tensor in tensors) // max(len(self.features), 1))

    def every(self, stride: int, start: int) -> _Rows:
        """Every `stride`-th row from `start` on, copied to free the rest."""

        def part(value: Any) -> Any:
            return value if isinstance(value, _Same) else value[start::stride].clone()

        kwargs = {name: part(value) for name, value in self.kwargs.items()}
        return _Rows(part(self.features), tuple(map(part, self.args)), kwargs)


@dataclass(frozen=True)
class _Same:
    """An argument that is the same for all rows of a batch."""

    value: Any

    @property
    def is_plain(self) -> bool:
        if isinstance(self.value, Tensor):
            return self.value.ndim == 0 or len(self.value) == 1
        return isinstance(self.value, _PLAIN)

    def equals(self, other: Any) -> bool:
        """Whether another batch has the same argument."""
        if not isinstance(other, _Same) or isinstance(self.value, Tensor) != isinstance(other.value, Tensor):
            return False
        return torch.equal(self.value, other.value) if isinstance(self.value, Tensor) else self.value == other.value


def _has_averages(module: _BatchNorm) -> bool:
    trained = module.num_batches_tracked is None or bool(module.num_batches_tracked.item())
    return module.running_mean is not None and module.running_var is not None and trained


class _RaggedError(Exception):
    """Rows of different batches can't be combined."""


def _joined(values: Sequence[Any]) -> Any:
    """The combined rows of all parts, or the common value. Raises: _RaggedError if that is impossible."""
    first = values[0]
    if isinstance(first, _Same):
        if not all(first.equals(value) for value in values):
            raise _RaggedError
        return first.value
    if len({None if isinstance(value, _Same) else value.shape[1:] for value in values}) > 1:
        raise _RaggedError
    return torch.cat(list(values))


@contextmanager
def _own_statistics(modules: list[_BatchNorm]) -> Iterator[None]:
    """Remove running averages inside the context, so that batch normalisation uses the batch's own statistics."""
    averages = [(module.running_mean, module.running_var) for module in modules]
    try:
        for module in modules:
            module.running_mean = module.running_var = None
        yield
    finally:
        for module, (mean, variance) in zip(modules, averages, strict=True):
            module.running_mean, module.running_var = mean, variance
