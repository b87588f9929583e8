"""`tightframe demo`: the demonstration with a live display, once or with several seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tightframe import datasets
from tightframe.cli.failures import INTERRUPTED, tell
from tightframe.datasets import DATASETS
from tightframe.demo.run import Epoch, require_free, run
from tightframe.demo.settings import Settings
from tightframe.errors import RangeError
from tightframe.render.terminal import show
from tightframe.report import Comparison, Report
from tightframe.report.report import shown
from tightframe.sections import Cell, Column, Document, Section, Table, as_text, short

_WIDE = 100  # columns of a terminal that has room for a bar
_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def show_demo(settings: Settings, out: Path | None, *, seeds: int, overwrite: bool, everything: bool) -> int:
    """Run the demonstration into a folder, or with several seeds into folders below it, and print the results; returns
    the exit status.

    Args: out, the folder; None for a new one below runs.
    Raises: RangeError for fewer seeds than one; as `run`.
    """
    if seeds < 1:
        raise RangeError(f"seeds= must be at least 1; got {seeds}.")
    console = Console()
    name = settings.data if settings.head == "linear" else f"{settings.data}-{settings.head}"
    folder = out or (Path("runs", name) if overwrite else _new_folder(Path("runs", name)))
    runs = [settings] if seeds == 1 else [replace(settings, seed=settings.seed + number) for number in range(seeds)]
    folders = [folder] if seeds == 1 else [folder / f"seed{each.seed}" for each in runs]
    finished: list[Path] = []
    try:
        for path in folders:
            require_free(path, overwrite=overwrite)
        for name in {settings.data, settings.ood} & DATASETS.keys():
            if settings.data_folder is not None or DATASETS[name].locate() is None:
                datasets.load(name, settings.data_folder)  # says what is missing before anything is printed
        console.print(Text.assemble(("tightframe demo", "bold"), f" · {', '.join(_described(settings))}"))
        for each, path in zip(runs, folders, strict=True):
            if seeds > 1:
                console.print(Text(as_text(f"seed {each.seed}, {path}"), "dim"), soft_wrap=True)
            report, written = _watched(each, path, console, overwrite=overwrite)
            finished.append(written)
    except KeyboardInterrupt as stop:
        done = f"{len(finished)} of {seeds} runs are complete (tightframe compare {folder}/seed*); " if finished else ""
        tell(f"stopped: {done}{str(stop) or ('the next had no measurement yet' if done else 'nothing was measured')}.")
        return INTERRUPTED
    finally:
        for path in (folder, folder.parent):
            if out is None and not finished:
                with suppress(OSError):  # there is a measurement, or another run
                    path.rmdir()
    if seeds == 1:
        more = f"page   {finished[0] / 'report.html'}\nmore   tightframe report {finished[0]} --all | --classes"
        show(report.document(shown(everything=everything)), console, more=more)
    else:
        show(_summary(finished, everything=everything), console, more=f"more   tightframe compare {folder}/seed*")
    return 0


def _new_folder(path: Path) -> Path:
    """Make the folder, or the first of PATH-2, PATH-3, ... that isn't there."""
    for number in count(1):
        numbered = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with suppress(FileExistsError):
            numbered.mkdir(parents=True)
            return numbered
    raise AssertionError


def _described(settings: Settings) -> list[str]:
    """The settings that matter, in short phrases."""
    filled = settings.filled()
    phrases = [settings.data]
    if settings.long_tail is not None:
        phrases.append(f"{filled.profile} imbalance {settings.long_tail:g}")
    if settings.incremental is not None:
        phrases.append(f"{settings.incremental} sessions")
    if settings.head != "linear" or settings.loss is not None:
        phrases += [f"{settings.head} head", f"{filled.loss} loss"]
    return [*phrases, f"NC5 against {settings.ood}"]


def _watched(settings: Settings, folder: Path, console: Console, *, overwrite: bool) -> tuple[Report, Path]:
    """The last report and the folder of a run. Loss, accuracy and NC1 are shown on the way."""
    left = (BarColumn(),) if console.width >= _WIDE else ()
    columns = (*left, MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    printed: tuple[float, Report | None] = (time.monotonic(), None)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=settings.filled().epochs, state="")

        def watch(epoch: Epoch) -> None:
            nonlocal printed
            nc1 = ""
            if epoch.report is not None and (console.is_terminal or epoch.report is not printed[1]):
                nc1 = f" · NC1 {short(epoch.report['nc1'].value)}"
            state = f"loss {short(epoch.loss)} · accuracy {epoch.accuracy:.3f}{nc1}"
            bar.update(task, total=epoch.epochs, completed=epoch.number, state=state)
            new = epoch.report is not printed[1] or time.monotonic() - printed[0] >= _EVERY
            if new and not console.is_terminal:
                printed = (time.monotonic(), epoch.report)
                console.print(f"epoch {epoch.number}/{epoch.epochs} · {state}", highlight=False)

        report, written = run(settings, folder, watch, overwrite=overwrite)
    return report, written.path


def _summary(folders: Sequence[Path], *, everything: bool) -> Document:
    """Means and standard deviations over runs of the measures of cards and accuracies, or of all."""
    comparison = Comparison.of(folders)
    rows: list[tuple[Cell, ...]] = []
    for entry, entries in comparison.rows(full=everything):
        values = torch.tensor([math.nan if each is None else each.value for each in entries], dtype=torch.float64)
        rows.append((entry.title, entry.target, values.mean().item(), values.std().item(), *values.tolist()))
    columns = (
        Column("measure", "name"),
        *(Column(heading, "number") for heading in ("target", "mean", "s.d.")),
        *(Column(name, "number", optional=True) for name in comparison.names),
    )
    hint = "Mean and standard deviation over the seeds, of the last measurement of each run."
    section = Section("seeds", "Measures", (hint,), Table(columns, tuple(rows)))
    return Document(comparison.reports[0].facts.title or "tightframe", (f"{len(folders)} seeds",), sections=(section,))
