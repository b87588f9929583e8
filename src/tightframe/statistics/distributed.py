"""Mergeable values summed over the processes of `torch.distributed`: all-reduces of sums, no statistics gathered."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor, distributed

from tightframe.errors import DistributedError, MergeError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from tightframe.statistics.class_statistics import ClassStatistics

Fact = TypeVar("Fact")

_BLOCK_ROWS = 256  # classes recentred at a time: their rows stay in cache, and beside the result memory is O(rows * D)
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
) -> None:
    """Replace a contiguous tensor by its sum (or maximum) over the processes, by way of a device the backend serves.

    Args:
        what: what is being synchronised, for the error.

    Raises: DistributedError if another process died or didn't make the call within the group's timeout, or if this
    process isn't in the group.
    """
    reduction = getattr(distributed.ReduceOp, operation)
    _together(tensor, what, group, lambda place: distributed.all_reduce(place, reduction, group))


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
    total = counts.clone(memory_format=torch.contiguous_format)
    all_reduce(total, what, group)
    return total


@torch.no_grad()
def reduce_statistics(value: ClassStatistics, group: ProcessGroup | None = None) -> ClassStatistics:
    """`ClassStatistics.all_reduce`: sums of counts, of means by share, and of scatter about those common means.

    Chan's update for many parts at once. A mean by shares, sum_p (n_p / n) mean_p, is bit for bit the mean of the only
    process that has the class; its rounding enters the scatter squared, so no shift of the origin is needed.
    """
    if world_size(group) == 1:
        return value
    assert value.class_ids is not None and value.num_labels is not None
    fields = {
        "num_classes": value.num_classes,
        "num_features": value.num_features,
        "within": int(value.within is not None),
        "class_within": int(value.class_within is not None),
        "num_labels": value.num_labels,
        "class_ids (by checksum)": zlib.crc32(value.class_ids.cpu().numpy().tobytes()),
    }
    require_same("class statistics", fields, group)

    counts = value.counts.clone()
    all_reduce(counts, "the classes' counts", group)
    absent = value.counts == 0
    means = (value.means * (value.counts.to(torch.float64) / counts)[:, None]).contiguous()
    means[absent] = 0.0
    all_reduce(means, "the class means", group)

    spread, within, class_within = (
        None if part is None else part.clone(memory_format=torch.contiguous_format)
        for part in (value.spread, value.within, value.class_within)
    )
    assert spread is not None
    root = value.counts.to(torch.float64).sqrt_()
    space = means.new_empty(min(_BLOCK_ROWS, len(means)), value.num_features)
    for start in range(0, len(means), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        gap = torch.sub(value.means[rows], means[rows], out=space[: len(means) - start]).mul_(root[rows, None])
        gap.masked_fill_(absent[rows, None], 0.0)
        spread[rows] += torch.linalg.vector_norm(gap, dim=1).square_()
        if within is not None:
            within.addmm_(gap.mT, gap)
        if class_within is not None:
            class_within[rows].addcmul_(gap[:, :, None], gap[:, None, :])
    for part, name in ((spread, "spread"), (within, "scatter"), (class_within, "scatter of each class")):
        if part is not None:
            all_reduce(part, f"the {name}", group)

    rounding = torch.tensor([value.rounding], dtype=torch.float64, device=counts.device)
    all_reduce(rounding, "the features' rounding", group, "MAX")

    means[counts == 0] = torch.nan
    merged = replace(value, counts=counts, means=means, spread=spread, within=within, class_within=class_within)
    return replace(merged, rounding=rounding.item())
