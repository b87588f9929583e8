"""`tightframe demo`: the demonstration with a live display."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tightframe import demo
from tightframe.report.terminal import print_report
from tightframe.report.wording import number


def show_demo(settings: demo.Settings, folder: Path, *, full: bool = False) -> None:
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
    started = time.perf_counter()
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    fitted: int | None = None
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=settings.epochs, state="")

        def watch(progress: demo.Progress) -> None:
            nonlocal fitted
            if fitted is None and progress.accuracy == 1:
                fitted = progress.epoch
            nc1 = "" if progress.report is None else f" · NC1 {number(progress.report['nc1'].value)}"
            state = f"loss {progress.loss:.4f} · accuracy {progress.accuracy:.4f}{nc1}"
            bar.update(task, total=progress.epochs, completed=progress.epoch, state=state)

        report, run = demo.run(settings, folder, watch)
    print_report(report, full=full, console=console)
    first = report.history[0] if report.history else report
    reached = "did not reach zero" if fitted is None else f"reached zero in epoch {fitted}"
    fall = ""
    if report.history:
        before, after = (r["nc1"].value for r in (first, report))
        fall = f" NC1 went from {number(before)} after epoch {first.context['epoch']} to {number(after)}"
        fall += f", {number(before / after)} times less." if 0 < after < before else "."
    console.print(f"The running training error {reached}.{fall}", highlight=False)
    seconds = time.perf_counter() - started
    console.print(
        Text.assemble(f"{report.context['epoch']} epochs in {seconds:.1f} s. Open ", (str(run.report_path), "bold"))
    )
