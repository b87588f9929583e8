"""Speed and memory of measuring float16 shards, as ratios to reading them and multiplying them alone.

    python benchmarks/shards.py                      # 3 GB, D = 1024, K = 100
    python benchmarks/shards.py --gigabytes 10 --features 2048

Shards are written to a temporary folder and read from the page cache, so that the disk favours neither side. The floor
reads each file into one buffer and adds up x.float().T @ x. Each row runs in a process of its own, floor and subject in
turn; the peak is that of the process.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tightframe import measure
from tightframe.sources import ShardSource

ROWS = 8192  # multiplied at a time by the floor


def write(folder: Path, gigabytes: float, width: int, classes: int, files: int) -> None:
    """Float16 features x*.npy around random class means, and labels y*.npy."""
    generator = np.random.default_rng(0)
    rows = int(gigabytes * 1e9 / (2 * width * files))
    means = generator.standard_normal((classes, width), np.float32)
    for number in range(files):
        labels = generator.integers(0, classes, rows)
        features = np.lib.format.open_memmap(folder / f"x{number}.npy", "w+", np.float16, (rows, width))
        for start in range(0, rows, ROWS):
            some = labels[start : start + ROWS]
            noise = generator.standard_normal((len(some), width), np.float32)
            features[start : start + ROWS] = means[some] + noise
        features.flush()
        np.save(folder / f"y{number}.npy", labels)


def floor(folder: Path) -> None:
    """Reading and products alone."""
    total = None
    for path in sorted(folder.glob("x*.npy")):
        mapped = np.load(path, mmap_mode="r")
        buffer = np.empty((ROWS, mapped.shape[1]), np.float16)
        total = torch.zeros(mapped.shape[1], mapped.shape[1]) if total is None else total
        with path.open("rb", buffering=0) as file:
            file.seek(mapped.offset)
            left = len(mapped)
            while left:
                rows = min(left, ROWS)
                file.readinto(memoryview(buffer[:rows]).cast("B"))
                wide = torch.from_numpy(buffer[:rows]).float()
                total.addmm_(wide.mT, wide)
                left -= rows


def subject(folder: Path, classes: int, **options: object) -> None:
    """What a user calls."""
    x, y = (sorted(folder.glob(f"{letter}*.npy")) for letter in "xy")
    source = ShardSource.from_files(x, y, options={"num_classes": classes, "progress": False})
    measure(source, progress=False, **options)


def run(what: str, folder: Path, classes: int) -> tuple[float, float]:
    """Seconds without imports, and peak memory in MiB, in a process of its own."""
    code = f"import shards; shards.timed({what!r}, {str(folder)!r}, {classes})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def timed(what: str, folder: str, classes: int) -> None:
    """In that process."""
    subjects = {
        "floor": lambda: floor(Path(folder)),
        "one pass": lambda: subject(Path(folder), classes, decisions=None),
        "with NC4": lambda: subject(Path(folder), classes),
        "one pass, few levels": lambda: subject(Path(folder), classes, decisions=None, metrics=["nc1"], folds=0),
    }
    start = time.perf_counter()
    subjects[what]()
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.gigabytes, given.features, given.classes, given.files)
        print(f"{given.gigabytes} GB of float16, D = {given.features}, K = {given.classes}")
        for _ in range(given.rounds):
            base, peak = run("floor", folder, given.classes)
            print(f"{'floor':24s} {base:8.1f} s  peak {peak:6.0f} MiB", flush=True)
            for what in ("one pass, few levels", "one pass", "with NC4"):
                seconds, peak = run(what, folder, given.classes)
                print(f"{what:24s} {seconds:8.1f} s  peak {peak:6.0f} MiB  speed {base / seconds:.2f}x", flush=True)


if __name__ == "__main__":
    main()
