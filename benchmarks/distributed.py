"""Merging the statistics of two processes (gloo, one machine, one thread each) against its bare parts.

    python benchmarks/distributed.py

Seconds: a bare all-reduce of as many bytes plus one bare D x K x D float64 product, measured in the same rounds, in
both processes at once; the slower process counts. Memory: the growth of a process's peak during the call, which the
result, itself a copy of the statistics, is part of; what comes on top of it, blocks and vectors (K,), has a bound.
"""

import ctypes
import os
import resource
import statistics as stats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from tightframe import ClassStatistics

PROCESSES, CLASSES, DIM, ROUNDS = 2, 49_152, 576, 9
TIME_BOUND, BLOCKS_BOUND = 1.5, 8  # the latter in MiB beside one copy
MIB = 2**20


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time until the last process is done, all having started together."""
    distributed.barrier()
    start = time.perf_counter()
    run()
    elapsed = torch.tensor(time.perf_counter() - start)
    distributed.all_reduce(elapsed, distributed.ReduceOp.MAX)
    return elapsed.item()


def peak_growth(run: Callable[[], object]) -> float:
    """MiB by which this process's memory grows at most while `run` runs."""
    ctypes.CDLL(None).malloc_trim(0)  # memory freed earlier would hide what is asked for now
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    result = run()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    del result
    return int(peak.split()[1]) / 1024 - before / MIB


def shard(rank: int) -> ClassStatistics:
    """Long-tailed counts, some of them zero; numbers of the size that counts so large would give."""
    generator = torch.Generator().manual_seed(rank)
    exact = {"generator": generator, "dtype": torch.float64}
    counts = torch.rand(CLASSES, **exact).pow(-1).clamp(max=10_000).long() - 1
    means = torch.randn(CLASSES, DIM, **exact)
    means[counts == 0] = torch.nan
    rows = torch.randn(2 * DIM, DIM, **exact)
    return ClassStatistics(counts, means, DIM * (counts - 1).clamp(min=0).double(), rows.mT @ rows)


def work(rank: int, meeting: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    statistics = shard(rank)
    parts = [statistics.counts, statistics.means, statistics.spread, statistics.within]
    size = sum(part.nbytes for part in parts)
    bare = torch.zeros(size // 8, dtype=torch.float64)
    means = torch.randn(CLASSES, DIM, dtype=torch.float64)

    def communicate() -> None:
        distributed.all_reduce(bare)

    def multiply() -> torch.Tensor:
        return means.mT @ means

    tasks = communicate, multiply, statistics.all_reduce
    for task in tasks:  # warm-up
        task()
    rounds = [[seconds(task) for task in tasks] for _ in range(ROUNDS)]
    growth = torch.tensor([peak_growth(communicate), peak_growth(statistics.all_reduce)])
    distributed.all_reduce(growth, distributed.ReduceOp.MAX)
    if rank == 0:
        report(rounds, *growth.tolist(), copy=size / MIB)
    distributed.barrier()
    distributed.destroy_process_group()


def report(rounds: list[list[float]], bare: float, ours: float, copy: float) -> None:
    communicate, multiply, merge = (stats.median(column) for column in zip(*rounds, strict=True))
    ratios = [row[2] / (row[0] + row[1]) for row in rounds]
    ratio = stats.median(ratios)
    print(f"K={CLASSES:,}, D={DIM}, {PROCESSES} processes, {ROUNDS} rounds; {copy:.1f} MiB of statistics in each")
    print(f"all-reduce {communicate:.3f} s + product {multiply:.3f} s; ClassStatistics.all_reduce {merge:.3f} s: ratio "
          f"{ratio:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]  bound {TIME_BOUND:.2f}  "
          f"{'met' if ratio <= TIME_BOUND else 'MISSED'}")  # fmt: skip
    blocks = ours - copy
    print(f"peak memory grows by {ours:.1f} MiB = {ours / copy:.3f} copies (a bare all-reduce: {bare:.1f} MiB); beside "
          f"the result's one copy {blocks:.1f} MiB  bound {BLOCKS_BOUND} MiB  "
          f"{'met' if blocks <= BLOCKS_BOUND else 'MISSED'}")  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (f"file://{folder}/meeting",), nprocs=PROCESSES)
