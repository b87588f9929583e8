"""How much memory is free, and the refusal of what doesn't fit."""

from __future__ import annotations

import psutil
import torch

from tightframe.errors import RangeError

_SMALL = 64 << 20  # bytes that are never refused: asking the system takes time


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that can still be allocated on a device, without what the CPU would have to swap. Default: the CPU."""
    if device is not None and device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(psutil.virtual_memory().available)


def require_memory(needed: int, what: str, device: torch.device | None = None, *, advice: str = "") -> None:
    """Raise RangeError, with some advice, if a value of so many bytes doesn't fit in the free memory."""
    if needed > _SMALL and needed > (free := free_memory(device)):
        lack = f"{what} needs {needed / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free."
        raise RangeError(f"{lack} {advice}".rstrip())
