"""Memory and time of a training step over sampled classes, for a million classes.

    python benchmarks/sampled_step.py                       # K = 1,000,000, D = 128, 10,000 sampled, 256 rows
    python benchmarks/sampled_step.py --classes 100000 --rounds 3

A step is `PrototypeHead.sampled`, cross-entropy, its gradients and SGD on learnt prototypes. It is compared with the
step of a head that has only as many classes as are sampled, in turns in one process. Times are processor times of the
fastest round, so that other processes count little. Memory is the peak of a process (VmHWM) that creates the prototypes
and the head and does the steps, beside the prototypes themselves; the libraries are included.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tightframe import PrototypeHead

GIB = 1 << 30


def peak() -> int:
    """The largest memory that the process has held, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


class Step:
    """A head with learnt prototypes and SGD; `sampled` classes, or all."""

    def __init__(self, classes: int, dim: int, sampled: int | None):
        self.sampled = sampled
        self.head = PrototypeHead(torch.randn(classes, dim), learnable=True, scale=64.0, margin=0.5)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=0.1)

    def __call__(self, features: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        if self.sampled is None:
            loss = cross_entropy(self.head(features, labels), labels)
        else:
            logits, columns, _ = self.head.sampled(features, labels, self.sampled)
            loss = cross_entropy(logits, columns)
        loss.backward()
        self.optimizer.step()


def batch(classes: int, rows: int, dim: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, dim, requires_grad=True), torch.randint(classes, (rows,))


def memory(options: argparse.Namespace) -> None:
    before = peak()
    step = Step(options.classes, options.dim, options.sampled)
    built = peak()
    for _ in range(options.rounds):
        step(*batch(options.classes, options.rows, options.dim))
    own = 4 * options.classes * options.dim
    print(f"K = {options.classes:,}, D = {options.dim}, {options.sampled:,} sampled, {options.rows} rows")
    print(f"prototypes {own / GIB:.2f} GiB; peak beside them: libraries {before / GIB:.2f} GiB, "
          f"head {(built - own) / GIB:.2f} GiB, {options.rounds} steps {(peak() - own) / GIB:.2f} GiB")  # fmt: skip


def times(options: argparse.Namespace) -> None:
    steps = {
        "sampled": (Step(options.classes, options.dim, options.sampled), options.classes),
        "whole head of the sampled size": (Step(options.sampled, options.dim, None), options.sampled),
    }
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(options.rounds):
        for name, (step, classes) in steps.items():
            features, labels = batch(classes, options.rows, options.dim)
            start = time.process_time()
            step(features, labels)
            best[name] = min(best[name], time.process_time() - start)
    for name, seconds in best.items():
        print(f"{name}: {1000 * seconds:.1f} ms")
    print(f"ratio {best['sampled'] / best['whole head of the sampled size']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a training step over sampled classes.")
    parser.add_argument("--classes", type=int, default=1_000_000, help="classes (default: 1000000)")
    parser.add_argument("--dim", type=int, default=128, help="dimensions (default: 128)")
    parser.add_argument("--sampled", type=int, default=10_000, help="sampled classes (default: 10000)")
    parser.add_argument("--rows", type=int, default=256, help="rows of a batch (default: 256)")
    parser.add_argument("--rounds", type=int, default=10, help="steps (default: 10)")
    parser.add_argument("--part", choices=("memory", "times"), help="do only this part, in this process")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if options.part is None:
        for part in ("memory", "times"):
            subprocess.run([sys.executable, *sys.argv, "--part", part], check=True)
    else:
        {"memory": memory, "times": times}[options.part](options)


if __name__ == "__main__":
    main()
