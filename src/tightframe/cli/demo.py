"""`tightframe demo`: the demonstration with a live display."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tightframe import demo
from tightframe.render.terminal import show
from tightframe.report.report import shown
from tightframe.sections import number


def show_demo(settings: demo.Settings, folder: Path, *, everything: bool = False) -> None:
    """Run the demonstration, showing loss, accuracy and NC1 as they come, then the table and what was written."""
    console = Console()
    what = [settings.data]
    if settings.long_tail is not None:
        what.append(f"{settings.profile} imbalance {settings.long_tail:g}")
    if settings.incremental is not None:
        what.append(f"{settings.incremental} sessions")
    if settings.head != "linear" or settings.loss is not None:
        what.append(f"{settings.head} head, {settings.loss or 'its own'} loss")
    what.append(f"NC5 against {settings.ood}")
    console.print(Text.assemble(("tightframe demo", "bold"), f" · {', '.join(what)}"))
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=settings.epochs, state="")

        def watch(progress: demo.Progress) -> None:
            nc1 = "" if progress.report is None else f" · NC1 {number(progress.report['nc1'].value)}"
            state = f"loss {progress.loss:.4f} · accuracy {progress.accuracy:.4f}{nc1}"
            bar.update(task, total=progress.epochs, completed=progress.epoch, state=state)

        report, run = demo.run(settings, folder, watch)
    more = f"page   {run.report_path}\nmore   tightframe report {folder} --all | --classes"
    show(report.document(shown(everything=everything)), console, more=more)
