"""Small facts that the processes of a run must know of each other."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import distributed

from tightframe.errors import DistributedError
from tightframe.statistics.distributed import rank, world_size

Fact = TypeVar("Fact")


def every_process(fact: Fact) -> list[Fact]:
    """The fact of each process, in order of rank; every process must call this. Without processes, [fact].

    Raises: DistributedError if another process died or didn't make the call within the group's timeout.
    """
    if world_size() == 1:
        return [fact]
    facts: list[Any] = [None] * world_size()
    try:
        distributed.all_gather_object(facts, fact)
    except RuntimeError as error:
        raise DistributedError(
            f"rank {rank()} of {world_size()} lost the others at the start of a measurement: a process died, or didn't "
            "measure within the process group's timeout. Every process must call measure(); one that shall measure its "
            f"own data alone passes distributed=False. From torch.distributed: {error}"
        ) from error
    return facts


def first_process(fact: Fact) -> Fact:
    """The fact of rank 0, whatever this process says."""
    return every_process(fact)[0]
