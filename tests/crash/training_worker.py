"""A training run as a user writes it: measured every epoch, saved after every measurement, resumed where it was.

    python training_worker.py FOLDER

`start` can also be told a death to die: a place in the writing of some file at which the process kills itself.
"""

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tightframe import ClassStatistics, Monitor, StatisticsAccumulator, datasets, writing
from tightframe.datasets import Dataset
from tightframe.errors import BlipWarning
from tightframe.report import run_folder

EPOCHS = 6
PAGES = 3  # a page every so many epochs


def start(folder: Path, ready: Any = None, death: str | None = None, call: int = 1) -> None:
    """Load the data, say so, and train.

    Args:
        ready: an event of multiprocessing. death: a name in `DEATHS`, met at the n-th `call`.
    """
    digits = datasets.load("digits")
    if death is not None:
        die_by(death, call, folder)
    if ready is not None:
        ready.set()
    train(folder, digits)


def train(folder: Path, digits: Dataset, epochs: int = EPOCHS) -> None:
    """Train to the end, from where the checkpoint beside the run folder says."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", BlipWarning)  # averages of batch normalisation lag behind at first
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    model = nn.Sequential(nn.Flatten())
    for fan_in, fan_out in ((64, 128), (128, 64)):
        model.extend([nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()])
    model.append(nn.Linear(64, 10))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    loader = list(zip(digits.train_images.split(200), digits.train_labels.split(200), strict=True))
    test = [(digits.test_images, digits.test_labels)]

    description = {"arguments": {"epochs": epochs}, "data": digits.source}
    options = {"layers": "auto", "every": 1, "folds": 4, "description": description, "progress": False}
    monitor = Monitor(model, folder=folder, resume=True, **options)
    begun = resume(folder, model, optimiser, monitor)
    for epoch in range(begun + 1, epochs + 1):
        for index in shuffled(len(digits.train_labels)).split(100):
            optimiser.zero_grad()
            cross_entropy(model(digits.train_images[index]), digits.train_labels[index]).backward()
            optimiser.step()
        if monitor.due(epoch):
            monitor.measure(loader, test=test, epoch=epoch)
        assert monitor.folder is not None
        monitor.folder.save_model(model)
        if epoch % PAGES == 0:
            monitor.folder.write_html()
        save(folder, model, optimiser, monitor, epoch)


def shuffled(rows: int) -> torch.Tensor:
    """An order that depends on both generators."""
    start = random.randrange(rows)
    return torch.randperm(rows).roll(start)


def checkpoint(folder: Path) -> Path:
    return folder.with_name("checkpoint.pt")


def save(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, monitor: Monitor, epoch: int) -> None:
    state = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": (random.getstate(), torch.get_rng_state()),
        "monitor": monitor.state_dict(),
    }
    new = checkpoint(folder).with_suffix(".new")
    torch.save(state, new)
    new.replace(checkpoint(folder))


def resume(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, monitor: Monitor) -> int:
    """The last epoch that was saved; 0 if there is none."""
    if not checkpoint(folder).exists():
        return 0
    state = torch.load(checkpoint(folder), weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    python, generator = state["random"]
    random.setstate(python)
    torch.set_rng_state(generator)
    monitor.load_state_dict(state["monitor"])
    return int(state["epoch"])


# ---------------------------------------------------------------------- ways to die


def die_by(death: str, call: int, folder: Path) -> None:
    """From now on the process dies a death of `DEATHS` when it comes to that place for the n-th time."""
    left = [call]

    def kill() -> None:
        folder.with_name("died").write_text(death, encoding="utf-8")  # so that a death that isn't met is noticed
        os.kill(os.getpid(), signal.SIGKILL)

    def is_time() -> bool:
        left[0] -= 1
        return left[0] == 0

    DEATHS[death](is_time, kill)


def _half_written(pattern: str) -> Callable[..., None]:
    """`write_whole` of a file of such a name gets half way."""

    def install(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
        real = writing.write_whole

        def write(path: Any, parts: Iterable[Any]) -> None:
            def half() -> Iterator[bytes]:
                content = b"".join(map(bytes, parts))
                yield content[: len(content) // 2]
                kill()

            real(path, half() if fnmatch(Path(path).name, pattern) and is_time() else parts)

        writing.write_whole = run_folder.write_whole = write

    return install


def _renamed(name: str, *, before: bool) -> Callable[..., None]:
    """Right before, or right after, a new file takes its place."""

    def install(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
        real = Path.replace

        def replace(path: Path, target: Any) -> Path:
            now = Path(target).name == name and is_time()
            if now and before:
                kill()
            found = real(path, target)
            if now:
                kill()
            return found

        Path.replace = replace

    return install


def _between_statistics_and_line(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
    real = ClassStatistics.save

    def save_and_die(value: ClassStatistics, *arguments: Any) -> None:
        real(value, *arguments)
        if is_time():
            kill()

    ClassStatistics.save = save_and_die


def _half_line(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
    real = Path.open

    class HalfWriting:
        def __init__(self, file: Any):
            self._file = file

        def __enter__(self) -> "HalfWriting":
            return self

        def __exit__(self, *_: Any) -> None:
            self._file.close()

        def truncate(self, size: int) -> None:
            self._file.truncate(size)

        def write(self, data: bytes) -> None:
            self._file.write(data[: len(data) // 2])
            kill()

    def half_open(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = real(path, mode, *arguments, **options)
        return HalfWriting(file) if path.name == "series.jsonl" and "a" in mode and is_time() else file

    Path.open = half_open


def _half_checkpoint(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
    real = torch.save

    def save_half(state: Any, path: Path) -> None:
        real(state, path)
        if is_time():
            os.truncate(path, path.stat().st_size // 2)
            kill()

    torch.save = save_half


def _while_measuring(is_time: Callable[[], bool], kill: Callable[[], None]) -> None:
    real = StatisticsAccumulator.update

    def update(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        if is_time():
            kill()

    StatisticsAccumulator.update = update


DEATHS: dict[str, Callable[[Callable[[], bool], Callable[[], None]], None]] = {
    "half of run.json": _half_written("run.json"),
    "before run.json": _renamed("run.json", before=True),
    "after run.json": _renamed("run.json", before=False),
    "while measuring": _while_measuring,
    "half of the statistics": _half_written("0*.safetensors"),
    "between statistics and line": _between_statistics_and_line,
    "half of a line": _half_line,
    "half of the weights": _half_written("model.safetensors"),
    "before the weights": _renamed("model.safetensors", before=True),
    "half of the page": _half_written("report.html"),
    "before the page": _renamed("report.html", before=True),
    "half of the checkpoint": _half_checkpoint,
    "before the checkpoint": _renamed("checkpoint.pt", before=True),
    "half of a series taken back": _half_written("series.jsonl"),
    "before a series taken back": _renamed("series.jsonl", before=True),
    "between a series taken back and its statistics": _renamed("series.jsonl", before=False),
}


if __name__ == "__main__":
    start(Path(sys.argv[1]))
