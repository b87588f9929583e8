"""How far the features in eval mode are from those with the data's own statistics in batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tightframe.hooks import CapturedFeatures

GAP = 0.02
"""Gap above which a measurement is likely a blip. On digits the ETF error is 1.3 times what it is with the data's own
statistics where the gap is smaller, 1.8 times where it is larger (medians, `benchmarks/normalisation.py`)."""

_ROWS = 256  # compared: the statistics of so many rows are within a few per cent of those of all


class NormalisationCheck:
    """Keeps some rows from all over the data, and in the end runs the model on them with their own statistics.

    Args:
        model: bare, in eval mode. captured: of it, in its context. name: of the features to compare.
    """

    def __init__(self, model: nn.Module, captured: CapturedFeatures, name: str):
        self._model, self._captured, self._name = model, captured, name
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and _has_averages(m)]
        self._kept: list[tuple[list[Any], dict[str, Any]]] = []  # one row each
        self._stride, self._seen = 1, 0

    def see(self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> None:
        """A batch of so many rows that the model is called with; every `_stride`-th of all rows is kept."""
        if not self._norms:
            return
        for row in range(-self._seen % self._stride, rows, self._stride):
            self._kept.append(
                ([_row(value, row, rows) for value in args], {k: _row(v, row, rows) for k, v in kwargs.items()})
            )
        self._seen += rows
        while len(self._kept) > 2 * _ROWS:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def gap(self) -> float | None:
        """1 minus the correlation, in [0, 2], of features in eval mode with those under the rows' own statistics, both
        centred: a common shift or scale leaves the measures as they are.

        None without batch normalisation that has running averages, before they were trained, or where rows of
        different batches can't be put together.
        """
        if len(self._kept) < 2:
            return None
        args = [_joined([kept[0][place] for kept in self._kept]) for place in range(len(self._kept[0][0]))]
        kwargs = {name: _joined([kept[1][name] for kept in self._kept]) for name in self._kept[0][1]}
        if any(value is None for value in (*args, *kwargs.values())):
            return None
        features = []
        self._model(*args, **kwargs)
        features.append(self._captured.take()[self._name].double())
        with _own_statistics(self._norms):
            self._model(*args, **kwargs)
        features.append(self._captured.take()[self._name].double())
        eval_mode, own = (rows.reshape(-1, rows.shape[-1]) for rows in features)
        eval_mode, own = eval_mode - eval_mode.mean(0), own - own.mean(0)
        return 1 - float((eval_mode * own).sum() / (eval_mode.norm() * own.norm()))


def _has_averages(module: _BatchNorm) -> bool:
    trained = module.num_batches_tracked is None or bool(module.num_batches_tracked.item())
    return module.running_mean is not None and module.running_var is not None and trained


def _row(value: Any, row: int, rows: int) -> Any:
    return value[row : row + 1] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value


def _joined(values: list[Any]) -> Any:
    """Rows put together, or what is the same for all; None where that is impossible."""
    if not isinstance(values[0], Tensor):
        return values[0]
    if len({(type(value), value.shape[1:]) for value in values}) > 1:
        return None
    return torch.cat(values)


@contextmanager
def _own_statistics(modules: list[_BatchNorm]) -> Iterator[None]:
    """Without running averages a batch normalisation in eval mode takes the batch's own statistics."""
    averages = [(module.running_mean, module.running_var) for module in modules]
    try:
        for module in modules:
            module.running_mean = module.running_var = None
        yield
    finally:
        for module, (mean, variance) in zip(modules, averages, strict=True):
            module.running_mean, module.running_var = mean, variance
