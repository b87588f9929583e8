"""Mergeable values summed over the processes of `torch.distributed`: all-reduces of sums, no statistics gathered."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor, distributed

from tightframe.errors import DistributedError, MergeError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Fact = TypeVar("Fact")

_SIGNATURE = 8  # numbers in every signature, so that processes that call different things still understand each other


def world_size(group: ProcessGroup | None = None) -> int:
    """How many processes the group has (default: all); 1 where `torch.distributed` is missing or not initialised."""
    return distributed.get_world_size(group) if _running() else 1


def rank(group: ProcessGroup | None = None) -> int:
    """Which of the group's processes this one is; 0 where `torch.distributed` is missing or not initialised."""
    return distributed.get_rank(group) if _running() else 0


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def all_reduce(
    tensor: Tensor, what: str, group: ProcessGroup | None = None, operation: Literal["SUM", "MAX"] = "SUM"
) -> Tensor:
    """Replace a contiguous tensor by its sum (or maximum) over the processes, by way of a device the backend serves.

    Returns the same tensor.

    Args:
        what: what is being synchronised, for the error.

    Raises: DistributedError if another process died or didn't make the call within the group's timeout, or if this
    process isn't in the group.
    """
    reduction = getattr(distributed.ReduceOp, operation)
    _together(tensor, what, group, lambda place: distributed.all_reduce(place, reduction, group))
    return tensor


def broadcast(tensor: Tensor, what: str) -> None:
    """Replace a contiguous tensor by the first process's; otherwise as `all_reduce`."""
    _together(tensor, what, None, lambda place: distributed.broadcast(place, 0))


def every_process(fact: Fact, what: str, *, shared: bool = True) -> list[Fact]:
    """The fact, small plain data, of each process in order of rank; every process must call this. Alone, or where the
    others aren't concerned (not `shared`), [fact].

    Raises: as `all_reduce`.
    """
    if not shared or world_size() == 1:
        return [fact]
    facts: list[Any] = [None] * world_size()
    with _lost(what, None):
        distributed.all_gather_object(facts, fact)
    return facts


def _together(tensor: Tensor, what: str, group: ProcessGroup | None, call: Callable[[Tensor], object]) -> None:
    """Make a collective call on a tensor, by way of a device that the backend serves."""
    if world_size(group) < 1:
        raise DistributedError(f"{what}: this process (rank {rank()}) isn't in the group; call this in its members.")
    backends = distributed.get_backend_config(group)  # for instance "cpu:gloo,cuda:nccl"
    served = f"{tensor.device.type}:" in backends
    place = tensor if served else tensor.to(backends.partition(":")[0])
    with _lost(what, group):
        call(place)
    if not served:
        tensor.copy_(place)


@contextmanager
def _lost(what: str, group: ProcessGroup | None) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DistributedError(
            f"rank {rank(group)} of {world_size(group)} lost the others while synchronising {what}: a process died, "
            "or didn't make this call within the process group's timeout. Every process must make the same calls; "
            f"see what the others raised. From torch.distributed: {error}"
        ) from error


def require_same(what: str, fields: Mapping[str, int], group: ProcessGroup | None = None) -> None:
    """Raise MergeError in every process if their `fields` of `what` differ, or if one of them has withdrawn."""
    low, high = _extremes([0, zlib.crc32(what.encode()), *fields.values()], what, group)
    if high[0]:
        raise MergeError(f"another process has no {what} to give; see what it raised. Nothing was merged.")
    if low[1] < high[1]:
        raise MergeError(f"the processes sum different things; this one (rank {rank(group)}) sums {what}.")
    bounds = zip(fields.items(), low[2:], high[2:], strict=False)
    different = [f"{name} {value} here, {a} to {b} overall" for (name, value), a, b in bounds if a < b]
    if different:
        raise MergeError(f"the processes' {what} can't be summed: {'; '.join(different)} (rank {rank(group)}).")


def withdraw(what: str, error: Exception, group: ProcessGroup | None = None) -> NoReturn:
    """Raise the error that keeps this process from giving `what`, and a MergeError in those that wait for it."""
    if world_size(group) != 1:
        _extremes([1], what, group)
    raise error


def _extremes(numbers: list[int], what: str, group: ProcessGroup | None) -> tuple[list[int], list[int]]:
    """The least and the largest of each number over the processes, however many each of them gives."""
    padded = torch.tensor(numbers + [0] * (_SIGNATURE - len(numbers)))
    both = torch.cat([-padded, padded])
    all_reduce(both, f"the shape of {what}", group, "MAX")
    return (-both[:_SIGNATURE]).tolist(), both[_SIGNATURE:].tolist()


def reduce_counts(counts: Tensor, what: str, group: ProcessGroup | None = None) -> Tensor:
    """The sum over all processes of int64 counts (R, K). Raises: MergeError in every process if the shapes differ."""
    if world_size(group) == 1:
        return counts
    require_same(what, {"kinds": counts.shape[0], "num_classes": counts.shape[1]}, group)
    return all_reduce(counts.clone(memory_format=torch.contiguous_format), what, group)
