"""Functions run in two processes that meet by gloo."""

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

WORLD = 2
SECONDS = 240


def meet(rank: int, folder: str) -> None:
    """Join the group of a test's processes, by way of a file in its folder."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{Path(folder) / 'meeting'}",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=SECONDS // 2),
    )


def part() -> None:
    """Leave the group, once the others don't talk any more."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def launch(function: Callable[[int, str], None], folder: Path, *preload: str) -> None:
    """Run function(rank, folder) in two processes, which start with modules loaded; all must end well, in time."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload])
    processes = [context.Process(target=function, args=(rank, str(folder))) for rank in range(WORLD)]
    end = time.monotonic() + SECONDS
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0] * WORLD
