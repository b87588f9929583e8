"""`tightframe datasets`: the table of data sets."""

from rich import box
from rich.console import Console
from rich.table import Table

from tightframe.datasets import DATASETS, OUTSIDE


def print_datasets(console: Console | None = None) -> None:
    """Print every data set with its size, where it comes from and where it was found."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("name", "images", "classes", "what", "found"):
        table.add_column(column, style="bold cyan" if column == "name" else "", overflow="fold")
    for source in DATASETS.values():
        place = source.locate()
        table.add_row(
            source.name,
            f"{source.train_size:,} + {source.test_size:,}",
            str(source.num_classes),
            source.description,
            str(place) if place is not None else f"[yellow]not here:[/] {source.origin}",
        )
    console = console or Console()
    console.print(table)
    console.print(f"Out-of-distribution images (demo --ood): {', '.join(OUTSIDE)}.", highlight=False)
