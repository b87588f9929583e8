"""What each process of torchrun does in `test_torchrun.py`; run with the folder to write to, and "dies" for one that
is killed in the middle of a measurement."""

import datetime
import gc
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from digits_in_parts import NARROW_BYTES, OPTIONS, Batches, network, padded, plain
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import few_draws  # noqa: F401
import tightframe.monitor
from tightframe import Monitor, Report, measure
from tightframe.errors import BlipWarning, DistributedError

EPOCHS = 2
PATIENCE = 600  # seconds; longer than the tests', so that nothing is found out by waiting
DOUBLE, SINGLE = torch.float64, torch.float32


class Notes:
    """What this process found out, on disk at once."""

    def __init__(self, folder: Path):
        self._path = folder / f"{distributed.get_rank()}.json"
        self._known: dict[str, Any] = {}
        self._start = time.perf_counter()

    def __setitem__(self, name: str, value: Any) -> None:
        now = time.perf_counter()
        self._known[name] = value.to_dict() if isinstance(value, Report) else value
        self._known.setdefault("seconds", {})[name] = now - self._start
        self._start = now
        self._path.write_text(json.dumps(self._known), encoding="utf-8")


class Writes:
    """Notes every file under a folder that this process opens for writing, makes, renames or removes."""

    def __init__(self, folder: Path):
        self.seen: list[str] = []
        self._folder = str(folder)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate"):
            reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if str(arguments[0]).startswith(self._folder) and not reads:
                self.seen.append(f"{event} {Path(str(arguments[0])).name}")


def loaders(dtype: torch.dtype) -> dict[str, Any]:
    """Parts by DistributedSampler. On 4 processes the last test batch of some is nothing but repeated samples, on 2 a
    batch of one."""
    return {
        "loader": padded("train", dtype, 64, shuffle=True),
        "test": padded("test", dtype, 99),
        "ood": padded("ood", dtype, 31),
    }


def parts(rank: int, world: int, *, idle: int | None = None) -> dict[str, Batches]:
    names = {"loader": "train", "test": "test", "ood": "ood"}
    return {option: plain(name, rank, world, DOUBLE, idle=idle) for option, name in names.items()}


def train(model: nn.Module, epochs: int, after: Callable[[int], object] = lambda epoch: None) -> None:
    loader = padded("train", SINGLE, 64, shuffle=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(1, epochs + 1):
        loader.sampler.set_epoch(epoch)
        model.train()
        for images, labels in loader:
            optimiser.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimiser.step()
        after(epoch)


def same_averages(model: nn.Module) -> None:
    """What DistributedDataParallel does at the next forward pass: every process takes the buffers of the first."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


def work(folder: Path) -> None:
    rank, world = distributed.get_rank(), distributed.get_world_size()
    notes = Notes(folder)
    run = folder / "run"
    writes = Writes(run)
    torch.manual_seed(0)
    model = DistributedDataParallel(network())

    monitor = Monitor(model, folder=run, description={"data": "digits"}, **OPTIONS)
    train(model, EPOCHS, lambda epoch: monitor.measure(**loaders(SINGLE), epoch=epoch))
    notes["monitor"] = [report.to_dict() for report in monitor.series]
    notes["has a folder"] = monitor.folder is not None
    if rank == 0:
        torch.save(model.module.state_dict(), folder / "weights.pt")

    model.double()
    notes["as trained"] = measure(model, **loaders(DOUBLE), **OPTIONS)
    same_averages(model)
    resumed = Monitor(model, folder=run, resume=True, **OPTIONS)
    notes["resumed with"] = [report.to_dict() for report in resumed.series]
    resumed.measure(**loaders(DOUBLE), epoch=EPOCHS)  # in place of the last
    notes["resumed"] = [report.to_dict() for report in resumed.series]
    if rank == 0:
        resumed.folder.save_model(model.module)
    notes["writes"] = list(writes.seen)

    notes["padded"] = measure(model, **loaders(DOUBLE), **OPTIONS)
    notes["plain"] = measure(model, **parts(rank, world), **OPTIONS)
    notes["one idle"] = measure(model, **parts(rank, world, idle=1), **OPTIONS)
    notes["second pass"] = measure(model, **loaders(DOUBLE), buffer_bytes=0, **OPTIONS)
    notes["one overflows"] = measure(model, **parts(rank, world), buffer_bytes=0 if rank == 1 else 1 << 30, **OPTIONS)
    narrow = {**OPTIONS, "covariance_bytes": NARROW_BYTES}
    notes["wide"] = measure(model, **parts(rank, world), **narrow)
    one_narrow = NARROW_BYTES if rank == 1 else 1 << 30
    notes["one lacks memory"] = measure(
        model, **parts(rank, world, idle=1), **OPTIONS, buffer_bytes=0, covariance_bytes=one_narrow
    )
    if rank == 1:  # the others make no call
        notes["alone"] = measure(model, **parts(rank, world), distributed=False, **OPTIONS)
    notes["due"] = [due(rank, here) for here in ("slow", "fast")]
    notes["empty everywhere"] = failure(lambda: measure(model, [], **OPTIONS))
    model.float()
    notes["single precision"] = measure(model, **loaders(SINGLE), **OPTIONS)
    distributed.barrier()


def due(rank: int, first: str) -> list[bool]:
    """Whether a measurement is due, where the first process's clock is slow or fast and all others' are the other."""
    seconds = {"now": 0.0}
    real = tightframe.monitor.time
    tightframe.monitor.time = SimpleNamespace(perf_counter=lambda: seconds["now"])

    def batches() -> Iterator[Any]:
        seconds["now"] += 1.0  # a measurement takes a second
        yield from plain("test", rank, distributed.get_world_size(), SINGLE)

    try:
        monitor = Monitor(network(), budget=0.1, metrics=["nc1"], folds=None, progress=False)
        verdicts = [monitor.due()]
        monitor.measure(batches())
        fast = (first == "fast") == (rank == 0)
        seconds["now"] += 1000.0 if fast else 1.0
        return [*verdicts, monitor.due()]
    finally:
        tightframe.monitor.time = real


def failure(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def dying(batches: Iterable[Any]) -> Iterator[Any]:
    for number, batch in enumerate(batches):
        if number == 2 and distributed.get_rank() == 1:
            print("rank 1 is killed", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch


def die() -> None:
    try:
        measure(network(), dying(padded("train", SINGLE, 64)), **OPTIONS)
    except DistributedError as error:
        print(f"DistributedError on rank {distributed.get_rank()}: {error}", flush=True)
        raise


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", BlipWarning)  # three epochs in, averages lag behind
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=PATIENCE))
    if "dies" in sys.argv:
        die()
    else:
        work(Path(sys.argv[1]))
    gc.collect()  # the wrapped model goes before the group: last, it would take the group apart under Python's lock
    distributed.destroy_process_group()
