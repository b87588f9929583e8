"""Long searches for the built-in table: `python benchmarks/fill_table.py --dims 4 5 --most 64 --seconds 5 --found 2`.

Searches once every size with K from 2 D + 1 to `--most` in each dimension whose best vectors were found less often than
`--found`; run it again, with another `--seed`, until nothing is left. Updates
src/tightframe/codes/searched.csv (cosine, seconds of a search, number of searches, and how many found it to 1e-9) and
searched.safetensors (the vectors). A size keeps its vectors unless a search finds better ones; then its counts start
anew. The files are written after every 20 searches.
"""

from __future__ import annotations

import argparse
import csv
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tightframe import prototypes
from tightframe.codes import certify

FOLDER = Path(__file__).parent.parent / "src" / "tightframe" / "codes"
EQUAL = 1e-9
COLUMNS = ("dim", "num_vectors", "cosine", "seconds", "searches", "found")
Row = dict[str, float]


def search(K: int, D: int, seconds: float, seed: int) -> tuple[int, int, Tensor, float]:
    """The vectors of one search, and their largest cosine."""
    torch.set_num_threads(1)
    found = prototypes.best(K, D, time=seconds, seed=seed).vectors
    return K, D, found, certify(found, one_vs_rest=False).max_cosine


class Rows:
    """The table's rows and vectors."""

    def __init__(self, folder: Path):
        self._table, self._tensors = folder / "searched.csv", folder / "searched.safetensors"
        with self._table.open(encoding="utf-8") as lines:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
        self.rows: dict[tuple[int, int], Row] = {(int(row["dim"]), int(row["num_vectors"])): row for row in rows}
        self.vectors = load_file(self._tensors) if self._tensors.exists() else {}

    def add(self, vectors: Tensor, cosine: float, seconds: float) -> None:
        """Count a search, and keep its vectors if they are better."""
        K, D = vectors.shape
        row = self.rows.get((D, K))
        if row is None or cosine < row["cosine"] - EQUAL:
            row = {"dim": D, "num_vectors": K, "cosine": cosine, "seconds": 0.0, "searches": 0, "found": 0}
            self.rows[D, K] = row
            self.vectors[f"{K} {D}"] = vectors.contiguous()
        row["seconds"] = max(row["seconds"], seconds)
        row["searches"] += 1
        row["found"] += cosine <= row["cosine"] + EQUAL

    def write(self) -> None:
        """Write both files."""
        with self._table.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for _, row in sorted(self.rows.items()):
                lines.writerow([row[name] if name == "cosine" else f"{row[name]:g}" for name in COLUMNS])
        save_file(dict(sorted(self.vectors.items())), self._tensors)
        self._tensors.chmod(0o644)


def main() -> None:
    """Search all sizes and update the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", required=True)
    parser.add_argument("--least", type=int, default=0, help="smallest K")
    parser.add_argument("--most", type=int, default=64, help="largest K")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a search")
    parser.add_argument("--found", type=int, default=2, help="searches that must have found the best vectors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    table = Rows(FOLDER)
    sizes = [(K, D) for D in options.dims for K in range(max(2 * D + 1, options.least), options.most + 1)]
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [
            pool.submit(search, K, D, options.seconds, options.seed)
            for K, D in sizes
            if table.rows.get((D, K), {"found": 0})["found"] < options.found
        ]
        for number, job in enumerate(as_completed(jobs), 1):
            K, D, vectors, cosine = job.result()
            before = table.rows.get((D, K), {"cosine": 1.0})["cosine"]
            table.add(vectors, cosine, options.seconds)
            mark = "  better" if cosine < before - EQUAL else ""
            print(f"{K:4d} {D:3d}  {cosine:.12f}  before {before:.12f}{mark}", flush=True)
            if number % 20 == 0 or number == len(jobs):
                table.write()


if __name__ == "__main__":
    sys.exit(main())
