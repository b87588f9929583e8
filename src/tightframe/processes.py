"""Sums of mergeable values over the processes of `torch.distributed`, by all-reduces without gathering."""

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

_SIGNATURE = 8  # numbers in each signature: equal lengths, so that processes with different calls can compare them


def world_size(group: ProcessGroup | None = None) -> int:
    """Number of processes of the group (default: all); 1 if `torch.distributed` is not initialised."""
    return distributed.get_world_size(group) if _running() else 1


def rank(group: ProcessGroup | None = None) -> int:
    """Rank of this process in the group (default: all); 0 if `torch.distributed` is not initialised."""
    return distributed.get_rank(group) if _running() else 0


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def all_reduce(
    tensor: Tensor, what: str, group: ProcessGroup | None = None, operation: Literal["SUM", "MAX"] = "SUM"
) -> Tensor:
    """Replace a contiguous tensor by its sum (or maximum) over the processes, and return it.

    Copies the tensor to a device of the backend if needed.

    Args:
        what: name of the synchronised value, for errors.

    Raises: DistributedError if another process died or did not make the call within the group's timeout, or if this
    process is not in the group.
    """
    reduction = getattr(distributed.ReduceOp, operation)
    _together(tensor, what, group, lambda place: distributed.all_reduce(place, reduction, group))
    return tensor


def broadcast(tensor: Tensor, what: str) -> None:
    """Replace a contiguous tensor by that of rank 0; otherwise as `all_reduce`."""
    _together(tensor, what, None, lambda place: distributed.broadcast(place, 0))


def every_process(fact: Fact, what: str, *, shared: bool = True) -> list[Fact]:
    """The `fact` (small plain data) of each process, in order of rank; every process must call this.

    [fact] for a single process or if not `shared`.

    Raises: as `all_reduce`.
    """
    if not shared or world_size() == 1:
        return [fact]
    facts: list[Any] = [None] * world_size()
    with _lost(what, None):
        distributed.all_gather_object(facts, fact)
    return facts


def _together(tensor: Tensor, what: str, group: ProcessGroup | None, call: Callable[[Tensor], object]) -> None:
    """Make a collective call on a tensor, copied to a device of the backend if needed."""
    if world_size(group) < 1:
        raise DistributedError(
            f"{what}: this process (rank {rank()}) is not in the group. Make this call only in members of the group."
        )
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
            f"rank {rank(group)} of {world_size(group)} lost the other processes while synchronising {what}: a process "
            "died, or did not make this call within the group's timeout. Every process must make the same calls; see "
            f"the errors of the other processes. torch.distributed: {error}"
        ) from error


def require_same(what: str, fields: Mapping[str, int], group: ProcessGroup | None = None) -> None:
    """Raise MergeError in every process if their `fields` of `what` differ, or if a process called `withdraw`."""
    low, high = _extremes([0, zlib.crc32(what.encode()), *fields.values()], what, group)
    if high[0]:
        raise MergeError(f"another process failed before it had {what}; see its error. Nothing was merged.")
    if low[1] < high[1]:
        raise MergeError(f"all processes must sum the same value; this one (rank {rank(group)}) sums {what}.")
    bounds = zip(fields.items(), low[2:], high[2:], strict=False)
    different = [f"{name} {value} here, {a} to {b} overall" for (name, value), a, b in bounds if a < b]
    if different:
        raise MergeError(f"{what} can't be summed over processes: {'; '.join(different)} (rank {rank(group)}).")


def withdraw(what: str, error: Exception, group: ProcessGroup | None = None) -> NoReturn:
    """Raise `error` in this process, and a MergeError in the processes that wait for its `what`."""
    if world_size(group) != 1:
        _extremes([1], what, group)
    raise error


def _extremes(numbers: list[int], what: str, group: ProcessGroup | None) -> tuple[list[int], list[int]]:
    """Minimum and maximum of each number over the processes; their lists may differ in length."""
    padded = torch.tensor(numbers + [0] * (_SIGNATURE - len(numbers)))
    both = torch.cat([-padded, padded])
    all_reduce(both, f"the shape of {what}", group, "MAX")
    return (-both[:_SIGNATURE]).tolist(), both[_SIGNATURE:].tolist()


def reduce_counts(counts: Tensor, what: str, group: ProcessGroup | None = None) -> Tensor:
    """Sum over all processes of int64 counts (R, K). Raises: MergeError in every process if the shapes differ."""
    if world_size(group) == 1:
        return counts
    require_same(what, {"kinds": counts.shape[0], "num_classes": counts.shape[1]}, group)
    return all_reduce(counts.clone(memory_format=torch.contiguous_format), what, group)
