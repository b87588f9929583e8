"""`FixedTensors`: a module with tensors that no initialisation could make again: prototypes, costs, trees, means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from tightframe.checks import require_values


class FixedTensors(nn.Module):
    """A module that keeps the values of its buffers where torch makes tensors without values.

    torch makes modules on the meta device and empties them (`to_empty`, `skip_init`, FSDP), and counts on
    `reset_parameters` or a state dict for values. Buffers that `hold` made keep theirs through all of these: those in
    the state dict go to the meta device as parameters do, and come back as they were made; the others stay where they
    are, as no state dict could bring them back.
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
        """Register a buffer or, if `learnt`, a parameter with these values; `start` itself must not change afterwards.

        Args:
            saved: whether the state dict has it; what is learnt is.
            device: by default the start's; of a start on the CPU torch's default device.

        Raises: DeviceError for a tensor on the meta device.
        """
        if start is None:
            self.register_buffer(name, None, persistent=saved)
            return
        self._starts[name] = start = require_values(start.detach(), name)
        if device is None:
            device = torch.get_default_device() if start.device.type == "cpu" else start.device
        if learnt:
            self.register_parameter(name, nn.Parameter(start.to(device, dtype, copy=True)))
        else:
            place = start.device if torch.device(device).type == "meta" and not saved else device
            self.register_buffer(name, start.to(place, dtype, copy=saved), persistent=saved)

    def reset_parameters(self) -> None:
        """All that `hold` made as it was made."""
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
            elif new is not old:
                new.copy_(self._starts[name] if old.is_meta else old)
        return self
