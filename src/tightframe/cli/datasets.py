"""`tightframe datasets`: the data sets, and where they are."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tightframe.datasets import DATASETS, OUTSIDE
from tightframe.sections import as_text


def print_datasets(console: Console | None = None) -> None:
    """Print every data set with its size, and its place on this machine or how to get it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for row in DATASETS.values():
        images = f"{row.train_size:,} + {row.test_size:,} images, {row.num_classes} classes"
        grid.add_row(Text(as_text(row.name), "bold cyan"), Text(as_text(f"{row.description} · {images}")))
        place = row.locate()
        grid.add_row(
            "", Text(as_text(f"not here: {row.origin}"), "yellow") if place is None else Text(as_text(str(place)))
        )
    console = console or Console()
    console.print(grid)
    console.print(
        Text(as_text(f"demo --ood also takes: {', '.join(name for name in OUTSIDE if name not in DATASETS)}"), "dim")
    )
