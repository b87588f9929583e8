"""Time and memory of certificates of large sets: a line a case, each in a process of its own.

OMP_NUM_THREADS=2 python benchmarks/certificate.py           # all, a few minutes
OMP_NUM_THREADS=2 python benchmarks/certificate.py random gold
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tightframe.codes import certification_seconds, certify


def uniform(K: int, D: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(K, D, generator=torch.Generator().manual_seed(0), dtype=dtype)


def antipodal(K: int, D: int) -> Tensor:
    half = uniform(K // 2, D)
    return torch.cat([half, -half])


CASES: dict[str, Callable[[], Tensor]] = {
    "small": lambda: uniform(100, 16),
    "medium": lambda: uniform(10_000, 128),
    "random": lambda: uniform(100_000, 128),
    "float32": lambda: uniform(100_000, 128, torch.float32),
    "kerdock-sized": lambda: antipodal(66_048, 256),
    "leech-sized": lambda: antipodal(196_560, 24),
}


def run(case: str) -> None:
    vectors = CASES[case]()
    K, D = vectors.shape
    start = time.perf_counter()
    certificate = certify(vectors)
    seconds = time.perf_counter() - start
    processor = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{case:14s} K={K:<7d} D={D:<4d} {seconds:7.2f} s  of processors {processor:7.2f} s  "
        f"estimated {certification_seconds(K, D):7.2f} s  peak {peak:5.2f} GiB  "
        f"largest cosine {certificate.max_cosine:.6f}",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        run(sys.argv[2])
    else:
        for case in sys.argv[1:] or CASES:
            subprocess.run([sys.executable, __file__, "--case", case], check=True)
