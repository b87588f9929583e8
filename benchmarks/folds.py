"""What groups cost: a pass of `FoldedAccumulator` against one of `StatisticsAccumulator`, and standard errors.

    python benchmarks/groups.py                # CPU time of one thread
    python benchmarks/groups.py --threads 2    # time on the clock, for machines with nothing else to do

Both accumulators take the same batches in turn, in the same run; medians of the rounds' ratios are reported, for the
updates, with the rows that wait at the end, and for updates and `compute` together. The bound is 15 % more.
"""

import argparse
import statistics as stats
import time
from collections.abc import Callable

import torch

from tightframe.decisions import DecisionCounts
from tightframe.metrics import Evidence, evaluate, standard_errors
from tightframe.statistics import FoldedAccumulator, StatisticsAccumulator

SAMPLES, DIM, CLASSES, FOLDS = 60_000, 512, 10, 16
BOUND = 1.15


def data() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES,))
    return torch.randn(CLASSES, DIM)[labels] + torch.randn(SAMPLES, DIM), labels


def bench_pass(clock: Callable[[], float], rounds: int) -> None:
    features, labels = data()

    def timed(accumulator: StatisticsAccumulator | FoldedAccumulator, size: int) -> tuple[float, float]:
        start = clock()
        for batch in zip(features.split(size), labels.split(size), strict=True):
            accumulator.update(*batch)
        if isinstance(accumulator, FoldedAccumulator):
            accumulator._deal_waiting()  # or else `compute` would do it
        updated = clock()
        value = accumulator.compute()
        seconds = updated - start, clock() - start
        del value  # whose memory isn't given back within the time
        return seconds

    for size in (128, 512, 1024, 4096):
        pairs = []
        for _ in range(rounds + 1):  # the first is a warm-up
            plain = timed(StatisticsAccumulator(CLASSES, DIM), size)
            pairs.append((plain, timed(FoldedAccumulator(CLASSES, DIM, folds=FOLDS), size)))
        plain, grouped = (
            [stats.median(both[i] for both in column) for i in range(2)] for column in zip(*pairs[1:], strict=True)
        )
        ratios = [[b[i] / a[i] for a, b in pairs[1:]] for i in range(2)]
        whole = stats.median(ratios[1])
        verdict = "met" if whole <= BOUND else f"MISSED by {whole / BOUND - 1:.1%}"
        print(
            f"{SAMPLES:,} x {DIM}, K={CLASSES}, G={FOLDS}, batch {size:4d}: plain {plain[1] * 1e3:.0f} ms, grouped "
            f"{grouped[1] * 1e3:.0f} ms; ratio of updates {stats.median(ratios[0]):.2f}, with compute {whole:.2f} "
            f"[{min(ratios[1]):.2f}, {max(ratios[1]):.2f}]  bound {BOUND:.2f}  {verdict}",
            flush=True,
        )


def bench_errors(clock: Callable[[], float], rounds: int) -> None:
    features, labels = data()
    grouped = FoldedAccumulator(CLASSES, DIM, folds=FOLDS)
    grouped.update(features, labels)
    groups = grouped.compute()
    outside = FoldedAccumulator(1, DIM, folds=FOLDS, covariance=False)
    outside.update(torch.randn(5000, DIM), torch.zeros(5000, dtype=torch.int64))
    weight, bias = torch.randn(CLASSES, DIM), torch.randn(CLASSES)
    decisions = DecisionCounts(groups.total, weight, bias)
    decisions.update(features[:5000], labels[:5000])
    away = outside.compute()
    evidence = Evidence(groups.total, weight, bias, decisions, away.total, folds=groups, outside_folds=away)
    times = []
    for _ in range(rounds):
        start = clock()
        values = evaluate(evidence)
        evaluated = clock()
        errors = standard_errors(evidence)
        times.append((evaluated - start, clock() - evaluated))
    one, all_errors = (stats.median(column) for column in zip(*times, strict=True))
    verdict = "met" if all_errors <= 0.5 else "MISSED"
    print(
        f"{len(values)} metrics: {one * 1e3:.0f} ms; standard errors of {len(errors)} from {FOLDS} groups: "
        f"{all_errors * 1e3:.0f} ms  bound 500 ms  {verdict}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ticks = time.process_time if arguments.threads == 1 else time.perf_counter
    bench_pass(ticks, arguments.rounds)
    bench_errors(ticks, arguments.rounds)
