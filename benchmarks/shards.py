"""Speed and memory of measuring float16 shards, as ratios to reading them and multiplying them alone.

    python benchmarks/shards.py                      # 3 GB, D = 1024, K = 100
    python benchmarks/shards.py --gigabytes 10 --features 2048

Shards are written to a temporary folder and read from the page cache, so that the disk favours neither side. The floor
reads each file into one buffer and adds up x.float().T @ x. "one pass" collects the moments, "with NC4" reads the
files again to decide each sample, and "report" is all of `measure`, with levels and errors, which don't grow with the
data. Each runs in a process of its own; speeds are by processor time, so that other processes don't count, and by the
clock.
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
from tightframe.measurement import collect
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


def subject(folder: Path, classes: int, *, report: bool, **options: object) -> None:
    """What a user calls, or its passes over the data alone."""
    x, y = (sorted(folder.glob(f"{letter}*.npy")) for letter in "xy")
    source = ShardSource.from_files(x, y, options={"num_classes": classes, "progress": False})
    if report:
        measure(source, progress=False, **options)
    else:
        collect(source, {"progress": False, **options})


SUBJECTS = {
    "one pass": {"report": False, "decisions": None},
    "with NC4": {"report": False},
    "report": {"report": True},
}


def run(what: str, folder: Path, classes: int, threads: int) -> tuple[float, float, float]:
    """Processor seconds and seconds without imports, and peak memory in MiB, in a process of its own."""
    code = f"import shards; shards.timed({what!r}, {str(folder)!r}, {classes}, {threads})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    processor, seconds, peak = json.loads(done.stdout)
    return processor, seconds, peak


def timed(what: str, folder: str, classes: int, threads: int) -> None:
    """In that process."""
    torch.set_num_threads(threads)
    start, processor = time.perf_counter(), time.process_time()
    if what == "floor":
        floor(Path(folder))
    else:
        subject(Path(folder), classes, **SUBJECTS[what])  # type: ignore[arg-type]
    times = time.process_time() - processor, time.perf_counter() - start
    print(json.dumps([*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="One on a busy machine, where two wait for each other.")
    parser.add_argument("--only", nargs="*", choices=list(SUBJECTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.gigabytes, given.features, given.classes, given.files)
        print(f"{given.gigabytes} GB of float16, D = {given.features}, K = {given.classes}")
        for _ in range(given.rounds):
            base, wall, peak = run("floor", folder, given.classes, given.threads)
            print(f"{'floor':10s} {base:7.1f} s of processors, {wall:7.1f} s, peak {peak:5.0f} MiB", flush=True)
            for what in given.only or SUBJECTS:
                mine, seconds, peak = run(what, folder, given.classes, given.threads)
                print(
                    f"{what:10s} {mine:7.1f} s of processors, {seconds:7.1f} s, peak {peak:5.0f} MiB, speed "
                    f"{base / mine:.2f}x ({wall / seconds:.2f}x by the clock)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
