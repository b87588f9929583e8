"""Every row of `best_known_rows.csv` against a search of 30 seconds: `python benchmarks/best_known.py [--seconds 30]`.

Prints K, D, the largest cosine found and the best known, the excess in degrees and the start that led there; rows
where ours is smaller by more than 1e-9 are marked, and their vectors saved. A search ends early once it is within 1e-10
of the best known. `--alone` leaves out exact codes and their parts. At the end: median and worst excess over the rows
of published tables of spherical codes, and over all rows: kissing configurations and codes of our own are listed too.
`better_than_tables/` beside this file holds the vectors of sixteen rows that beat the tables.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from tightframe import prototypes

LARGEST = 20_000  # K * D
ROWS = Path(__file__).with_name("best_known_rows.csv")


def best_known_rows() -> dict[tuple[int, int], tuple[float, bool]]:
    """The largest cosine for (D, K), and whether a published table of spherical codes has it."""
    with ROWS.open(encoding="utf-8") as lines:
        return {
            (int(row["dim"]), int(row["num_vectors"])): (float(row["cosine"]), row["published"] == "1")
            for row in csv.DictReader(lines)
        }


def search(
    row: tuple[int, int, float], seconds: float, alone: bool, seed: int
) -> tuple[prototypes.Prototypes, float, float]:
    """The vectors found for a row, their excess in degrees over the best known, and the seconds that took."""
    K, D, known = row
    begin = time.monotonic()
    torch.set_num_threads(1)
    found = prototypes.separated(K, D, time=seconds, target=known + 1e-10, caps=not alone, seed=seed)
    mine = found.certificate.max_cosine
    return found, math.degrees(math.acos(known) - math.acos(mine)), time.monotonic() - begin


def main() -> None:
    """Search every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--alone", action="store_true", help="without exact codes and their parts")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dims", type=int, nargs=2, default=(1, LARGEST), help="smallest and largest dimension")
    parser.add_argument("--every", type=int, default=1, help="only every so many rows")
    parser.add_argument("--out", type=Path, default=Path("runs/best_known"), help="folder for vectors that are better")
    options = parser.parse_args()
    rows = {size: row for size, row in best_known_rows().items() if math.prod(size) <= LARGEST}
    chosen = sorted(size for size in rows if options.dims[0] <= size[0] <= options.dims[1])[:: options.every]
    excesses: dict[tuple[int, int], float] = {}
    better = 0
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = {
            (D, K): pool.submit(search, (K, D, rows[D, K][0]), options.seconds, options.alone, options.seed)
            for D, K in chosen
        }
        for (D, K), job in jobs.items():
            known = rows[D, K][0]
            found, excess, took = job.result()
            cosine = found.certificate.max_cosine
            excesses[D, K] = excess
            mark = ""
            if cosine < known - 1e-9:
                better += 1
                options.out.mkdir(parents=True, exist_ok=True)
                found.save(options.out / f"{K}_{D}.safetensors")
                mark = "  better than the table"
            print(
                f"{K:6d} {D:4d}  {cosine:.12f}  known {known:.12f}  {excess:+9.6f} deg  "
                f"{took:6.1f} s  {found.provenance['start']}{mark}",
                flush=True,
            )
    tabulated = [excess for size, excess in excesses.items() if rows[size][1]]
    for name, some in (("of published tables", tabulated), ("in all", list(excesses.values()))):
        print(
            f"{len(some)} rows {name}: median excess {statistics.median(some):.6f} degrees, worst {max(some):.6f}; "
            f"{sum(e < 1e-6 for e in some)} reached"
        )
    print(f"{better} rows better than the table")


if __name__ == "__main__":
    sys.exit(main())
