"""`DeviceState`: a module whose buffers move between devices and are saved, but never cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.errors import StateError
from tightframe.numerics import float64_device


class DeviceState(nn.Module):
    """Buffers that follow their owner's device and state_dict; `.half()` or `.to(dtype)` leave them as they are.

    The state survives `state_dict` / `load_state_dict` bit for bit, dtypes included.
    """

    def __init__(self, device: torch.device | str | None):
        super().__init__()
        self.device = float64_device(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DeviceState:
        device = float64_device(fn(torch.empty(0, device=self.device)).device)
        if device != self.device:
            self.device = device
            for name, tensor in self._buffers.items():
                if tensor is not None:
                    self._buffers[name] = tensor.to(device)
        return self

    def require_fits(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Raise StateError unless a saved state has all of these buffers, in these shapes."""
        for name, mine in self._buffers.items():
            theirs = state_dict.get(prefix + name)
            sizes = [None if each is None else tuple(each.shape) for each in (mine, theirs)]
            if sizes[0] != sizes[1]:
                here, saved = ("absent" if size is None else str(size) for size in sizes)
                raise StateError(
                    f"the saved accumulator's {name} is {saved}, this one's {here}: build it with the same "
                    "num_classes, num_features, covariance, per_class and folds."
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        with torch.inference_mode(False):
            for name, mine in self._buffers.items():
                if mine is not None:
                    self._buffers[name] = mine.to(state_dict[prefix + name].dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)
