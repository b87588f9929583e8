"""`FixedTensors`: a module whose prototypes, costs, trees or means survive deferred initialisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from tightframe.checks import require_dense


class FixedTensors(nn.Module):
    """A module that keeps the values of its buffers when torch creates tensors without values.

    The meta device, `to_empty`, `skip_init` and FSDP leave tensors uninitialised until `reset_parameters` or a state
    dict fills them. Buffers registered with `hold` keep their values. Saved buffers move to the meta device like
    parameters and get their start values back; unsaved buffers never move there, since no state dict contains them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starts: dict[str, Tensor] = {}

    def hold(
        self,
        name: str,
        start: Tensor | None,
        *,
        saved: bool = False,
        learnt: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Register a buffer or, if `learnt`, a parameter with start values; do not modify `start` afterwards.

        Args:
            saved: whether the state dict contains the buffer; it always contains parameters.
            device: default: the device of `start`, or torch's default device if `start` is on the CPU.

        Raises: DtypeError for a tensor on the meta device.
        """
        if start is None:
            self.register_buffer(name, None, persistent=saved)
            return
        require_dense(start, name)
        self._starts[name] = start.detach()
        if device is None:
            device = torch.get_default_device() if start.device.type == "cpu" else start.device
        if learnt:
            self.register_parameter(name, nn.Parameter(start.detach().to(device, dtype, copy=True)))
        else:
            place = start.device if torch.device(device).type == "meta" and not saved else device
            self.register_buffer(name, start.to(place, dtype, copy=saved), persistent=saved)

    def reset_parameters(self) -> None:
        """Restore the start values."""
        for name, start in self._starts.items():
            if name in self._parameters:
                with torch.no_grad():
                    self.get_parameter(name).copy_(start)
            else:
                self._buffers[name] = start.to(self.get_buffer(name), copy=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name in self._starts.keys() & self._buffers.keys():
            old, new = before[name], self._buffers[name]
            assert old is not None
            assert new is not None
            if new.is_meta and name in self._non_persistent_buffers_set:
                self._buffers[name] = old.to(new.dtype)
            elif new is not old and not new.requires_grad:
                new.copy_(self._starts[name] if old.is_meta else old)
        return self
