"""What a fixed geometry changes on digits: with two images in half of the classes, and with classes in sessions.

    python benchmarks/training.py long-tail      # four minutes on one core
    python benchmarks/training.py incremental    # two minutes

Runs of `tightframe demo`, three seeds each; a seed draws images, weights and batches. Balanced accuracies on all test
images (of the classes seen so far), mean and single runs.
"""

import argparse
import statistics
import tempfile
import time

import torch

from tightframe import Report
from tightframe.demo.run import run
from tightframe.demo.settings import Settings


def runs(seeds: int, **settings: object) -> list[Report]:
    """The last reports of as many seeds."""
    with tempfile.TemporaryDirectory() as folder:
        return [run(Settings(seed=seed, **settings), f"{folder}/{seed}")[0] for seed in range(seeds)]  # type: ignore[arg-type]


def long_tail(seeds: int) -> None:
    """132 training images in each of five classes, 2 in the others."""
    print(
        f"{'head':20s} {'loss':24s} {'decay':>6s} {'balanced':>9s} {'minority':>9s} {'cosine':>7s}  balanced, each seed"
    )
    heads = (
        ("linear", "cross-entropy"),
        ("linear-without-bias", "cross-entropy"),
        ("etf", "cross-entropy"),
        ("etf", "dot-regression"),
        ("etf", "balanced-dot-regression"),
    )
    shared = {"long_tail": 65.0, "batch_size": 64, "learning_rate": 0.1, "epochs": 200, "measurements": 2}
    for decay in (5e-3, 5e-4):
        for head, loss in heads:
            started = time.perf_counter()
            reports = runs(seeds, head=head, loss=loss, weight_decay=decay, **shared)
            columns = [
                [report[key].value for report in reports]
                for key in ("test/balanced_accuracy", "test/accuracy_of_minority", "minority_classifier_cosine")
            ]
            balanced, minority, cosine = map(statistics.mean, columns)
            each = " ".join(f"{value:.3f}" for value in columns[0])
            seconds = time.perf_counter() - started
            print(f"{head:20s} {loss:24s} {decay:6g} {balanced:9.3f} {minority:9.3f} {cosine:7.3f}  {each}"
                  f"  ({seconds:.0f} s)", flush=True)  # fmt: skip
            if head == "linear":
                print(f"  {reports[0].notes[-1]}")


def incremental(seeds: int) -> None:
    """Five sessions of two classes, 30 epochs each, with and without 10 remembered images of each earlier class."""
    print(f"{'head':8s} {'loss':24s} {'memory':>6s}  balanced accuracy after each session")
    heads = (
        ("linear", "cross-entropy"),
        ("etf", "dot-regression"),
        ("etf", "balanced-dot-regression"),
        ("ncm", "cross-entropy"),
    )
    for memory in (10, 0):
        for head, loss in heads:
            started = time.perf_counter()
            reports = runs(seeds, head=head, loss=loss, incremental=5, memory=memory, weight_decay=5e-4, epochs=30)
            series = [[r["test/balanced_accuracy"].value for r in (*report.history, report)] for report in reports]
            curve = " ".join(f"{statistics.mean(column):.3f}" for column in zip(*series, strict=True))
            last = " ".join(f"{one[-1]:.3f}" for one in series)
            seconds = time.perf_counter() - started
            print(f"{head:8s} {loss:24s} {memory:6d}  {curve}   last, each seed: {last}  ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["long-tail", "incremental"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"long-tail": long_tail, "incremental": incremental}[options.name](options.seeds)
