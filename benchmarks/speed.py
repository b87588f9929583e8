"""CPU time of the hot paths as ratios to their floors, one thread, floors measured in the same run.

    python benchmarks/speed.py            # all of it, a few minutes
    python benchmarks/speed.py statistics pairs

Every row runs floor and subject in turn and reports the median ratio of the rounds.
"""

import argparse
import os
import resource
import statistics as stats
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tightframe import DecisionCounts, PrototypeHead, StatisticsAccumulator, metrics
from tightframe.evidence import Evidence
from tightframe.metrics import available, evaluate, levels, standard_errors
from tightframe.metrics.table import pairwise
from tightframe.statistics import ClassStatistics

torch.set_num_threads(1)


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(
    title: str,
    bound: float,
    floor: Callable[[], object],
    subject: Callable[[], object],
    rounds: int = 9,
    why: str = "",
):
    floor(), subject()  # warm-up
    pairs = [(cpu_seconds(floor), cpu_seconds(subject)) for _ in range(rounds)]
    ratio = stats.median(b / a for a, b in pairs)
    low, high = min(b / a for a, b in pairs), max(b / a for a, b in pairs)
    seconds = [stats.median(column) for column in zip(*pairs, strict=True)]
    verdict = "met" if ratio <= bound else f"MISSED by {ratio / bound - 1:.1%}. {why}"
    print(f"{title:56s} floor {seconds[0]:8.3f} s  ours {seconds[1]:8.3f} s  ratio {ratio:5.2f} "
          f"[{low:.2f}, {high:.2f}]  bound {bound:.2f}  {verdict}", flush=True)  # fmt: skip


def peak_growth(run: Callable[[], object]) -> float:
    """MiB by which the process's memory grows at most while `run` runs, in a forked child with a peak of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        run()
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        os.write(writer, str(int(peak.split()[1]) / 1024 - before / 2**20).encode())
        os._exit(0)
    os.wait()
    return float(os.read(reader, 64))


def batches(samples: int, dim: int, classes: int, size: int, distinct: int = 64):
    """`samples` rows in batches; a few distinct ones in rotation, so the data fit in memory."""
    torch.manual_seed(0)
    means = torch.randn(classes, dim)
    made = []
    for _ in range(min(distinct, samples // size)):
        labels = torch.randint(0, classes, (size,))
        made.append((means[labels] + torch.randn(size, dim), labels))
    return [made[i % len(made)] for i in range(samples // size)]


def accumulate(data, classes: int, dim: int, **options):
    """All batches, and what `measure` makes of them."""
    accumulator = StatisticsAccumulator(classes, dim, **options)
    for x, y in data:
        accumulator.update(x, y)
    return accumulator.compute() if accumulator.folds is None else accumulator.compute_folds()


def bench_statistics():
    for samples, dim, classes, size, bound in ((60_000, 512, 10, 128, 1.25), (200_000, 768, 1000, 1024, 1.25)):
        data = batches(samples, dim, classes, size)

        def products(data=data):
            for x, _ in data:
                x.mT @ x

        title = f"statistics {samples:,} x {dim}, K={classes}, batch {size}"
        compare(f"{title}, floor against floor", 1.05, products, products)
        why = (
            f"A batch's product takes only {size * dim * dim * 2 / 1e9:.2f} GFLOP: checking and copying {size} rows, "
            "anchors and float64 sums cost up to half of that when caches are shared with other work."
        )
        compare(title, bound, products, lambda data=data, of=(classes, dim): accumulate(data, *of), why=why)
    data = batches(60_000, 256, 100, 1024)
    ordered = [(x[y.argsort()], y.bincount(minlength=100).tolist()) for x, y in data]

    def by_class():
        for x, sizes in ordered:
            for part in x.split(sizes):
                part.mT @ part

    compare("statistics 60,000 x 256, K=100, per_class", 1.3, by_class,
            lambda: accumulate(data, 100, 256, per_class=True), rounds=5)  # fmt: skip
    data = batches(60_000, 512, 10, 1024)
    for dtype in (torch.bfloat16, torch.float16):
        half = [(x.to(dtype), y) for x, y in data]
        compare(f"statistics 60,000 x 512, K=10, {dtype} against float32", 1.0, lambda: accumulate(data, 10, 512),
                lambda half=half: accumulate(half, 10, 512))  # fmt: skip


def bench_folds():
    for samples, bound, rounds in ((60_000, 1.25, 9), (500_000, 1.10, 3)):
        for size in (128, 1024, 4096):
            data = batches(samples, 512, 10, size)
            title = f"16 folds against none, {samples:,} x 512, K=10, batch {size}"
            whole = lambda data=data: accumulate(data, 10, 512)  # noqa: E731
            if size == 128:
                compare(f"{title}, none against none", 1.05, whole, whole, rounds)
            compare(title, bound, whole, lambda data=data: accumulate(data, 10, 512, folds=16), rounds)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (60_000,), generator=generator)
    features = torch.randn(10, 512, generator=generator)[labels] + torch.randn(60_000, 512, generator=generator)
    folds = accumulate([(features, labels)], 10, 512, folds=16)
    outside = [(torch.randn(5000, 512, generator=generator), torch.zeros(5000, dtype=torch.int64))]
    away = accumulate(outside, 1, 512, folds=16, covariance=False)
    weight, bias = torch.randn(10, 512, generator=generator), torch.randn(10, generator=generator)
    decisions = DecisionCounts(folds.total, weight, bias)
    decisions.update(features[:5000], labels[:5000])
    evidence = Evidence(folds.total, weight, bias, decisions, away.total, folds=folds, outside_folds=away)
    seconds = stats.median(cpu_seconds(lambda: standard_errors(evidence)) for _ in range(5))
    print(f"standard errors of {len(standard_errors(evidence))} metrics from 16 folds: {seconds * 1e3:.0f} ms  "
          f"bound 500 ms  {'met' if seconds <= 0.5 else 'MISSED'}")  # fmt: skip


def bench_threads():
    """How much two threads gain us, against what they gain the bare products; time on the clock."""
    data = batches(60_000, 512, 10, 1024)

    def products():
        for x, _ in data:
            x.mT @ x

    subjects = {
        "products": products,
        "statistics": lambda: accumulate(data, 10, 512),
        "16 folds": lambda: accumulate(data, 10, 512, folds=16),
    }
    gains: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(9):
        for name, run in subjects.items():
            seconds = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                run()
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            gains[name].append(seconds[0] / seconds[1])
    torch.set_num_threads(1)
    floor = stats.median(gains["products"])
    for name, each in gains.items():
        gain = stats.median(each)
        print(f"two threads, 60,000 x 512, K=10, batch 1024: {name} {gain:.2f} times as fast, {gain / floor:.2f} of "
              f"the products' gain  bound .90  {'met' if gain >= 0.9 * floor else 'MISSED'}")  # fmt: skip


def bench_decisions():
    for samples, dim, classes, sizes, bound in (
        (60_000, 512, 10, (4096, 128), 1.5),
        (32_768, 768, 1000, (4096, 128), 0.9),
    ):
        torch.manual_seed(0)
        means, labels = torch.randn(classes, dim), torch.randint(0, classes, (samples,))
        features = means[labels] + torch.randn(samples, dim)
        statistics = ClassStatistics.from_features(features, labels, classes, covariance=False)
        fitted = means - means.mean(0)
        classifiers = {
            "near the means": (fitted, -fitted.square().sum(1) / 2),
            "random": (torch.randn(classes, dim), torch.randn(classes)),
        }

        def products(features=features, means=means):
            for x in features.split(4096):
                x @ means.mT
                x @ means.mT
                x.sum()

        title = f"decisions {samples:,} x {dim}, K={classes}"
        compare(f"{title}, floor against floor", 1.05, products, products)
        for name, (weight, bias) in classifiers.items():
            for size in sizes:
                data = list(zip(features.split(size), labels.split(size), strict=True))
                decisions = DecisionCounts(statistics, weight, bias)

                def decide(data=data, decisions=decisions):
                    for x, y in data:
                        decisions.update(x, y)
                    return decisions.totals

                why = "Every operation on so few rows costs as much again to start." if size == 128 else ""
                compare(f"{title}, batch {size}, weight {name}", bound, products, decide, why=why)
    samples, dim, classes, size = 200_000, 768, 1000, 1024
    data = batches(samples, dim, classes, size)
    weight, bias, means = torch.randn(classes, dim), torch.randn(classes), torch.randn(classes, dim)

    def all_products():
        for x, _ in data:
            x.mT @ x
            x @ weight.mT
            x @ means.mT

    def accumulate_and_decide():
        accumulator = StatisticsAccumulator(classes, dim)
        for x, y in data:
            accumulator.update(x, y)
        decisions = DecisionCounts(accumulator.compute(), weight, bias)
        for x, y in data:
            decisions.update(x, y)

    compare(f"with NC4: {samples:,} x {dim}, K={classes}", 1.25, all_products, accumulate_and_decide, rounds=3)


def bench_vocabulary():
    dim, classes = 768, 50_257
    data = batches(1024 * 12, dim, classes, 1024)
    accumulator = StatisticsAccumulator(classes, dim)
    times = [cpu_seconds(lambda x=x, y=y: accumulator.update(x, y)) for x, y in data]
    worst, median = max(times[1:]), stats.median(times)
    verdict = "met" if worst <= 0.05 else "MISSED"
    print(
        f"one batch of 1024 x 768 at K={classes:,}, median {median * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms "
        f"(first, which allocates: {times[0] * 1e3:.1f} ms)  bound 50 ms  {verdict}"
    )


def bench_pairs():
    classes, dim = 10_000, 768
    torch.manual_seed(0)
    means = torch.randn(classes, dim, dtype=torch.float64)
    statistics = ClassStatistics(torch.full((classes,), 5), means, torch.rand(classes, dtype=torch.float64))
    chosen = [metrics.cdnv]
    for kernel in (metrics.distance_kernel, metrics.log_kernel):
        chosen += [kernel, kernel.having(of="variance")]
    extra = peak_growth(lambda: pairwise(statistics, chosen))
    verdict = "met" if extra <= 300 else "MISSED"
    print(f"CDNV + distance + log kernels, K={classes:,}, D={dim}: {extra:.0f} MiB extra  bound 300 MiB  {verdict}")
    compare("  the same, against one Gram matrix of the same size", 2.0, lambda: means @ means.mT,
            lambda: pairwise(statistics, chosen), rounds=3)  # fmt: skip


def bench_nc1():
    classes, dim = 1000, 2048
    torch.manual_seed(0)
    means = torch.randn(classes, dim, dtype=torch.float64)
    root = torch.randn(3000, dim, dtype=torch.float64)
    within = root.mT @ root
    statistics = ClassStatistics(torch.full((classes,), 10), means, torch.ones(classes, dtype=torch.float64), within)

    def floor():
        centred = means - means.mean(0)
        _, vectors = torch.linalg.eigh(centred @ centred.mT)
        within @ (centred.mT @ vectors)

    compare(f"NC1 at K={classes}, D={dim}", 1.3, floor, lambda: metrics.nc1(statistics))


def bench_heads():
    samples, dim, classes = 4096, 512, 1000
    torch.manual_seed(0)
    features = torch.randn(samples, dim, requires_grad=True)
    vectors, grad = torch.randn(classes, dim), torch.randn(samples, classes)

    def step(head, grad=grad):
        head(features).backward(grad)
        features.grad = None
        head.zero_grad()

    linear = torch.nn.Linear(dim, classes)
    bounds = {"dot": 1.3, "cosine": 1.3, "euclidean": 1.6, "squared-euclidean": 1.6, "pseudo-huber": 1.6}
    for logits, bound in bounds.items():
        for learnable in (False, True):
            head = PrototypeHead(vectors, logits=logits, learnable=learnable)
            title = f"{logits} head, {'learnt' if learnable else 'fixed'}, {samples} x {dim}, K={classes}"
            compare(title, bound, lambda: step(linear), lambda head=head: step(head))
    few_classes = 500
    fixed, equal = (torch.nn.Linear(dim, few_classes).requires_grad_(False) for _ in range(2))
    few_grad = grad[:, :few_classes].contiguous()
    subjects = {"control": (equal, 1.05), "cosine head": (PrototypeHead(vectors[:few_classes]), 1.2)}
    for name, (head, bound) in subjects.items():
        title = f"{name}, fixed, against a fixed nn.Linear, {samples} x {dim}, K={few_classes}"
        compare(title, bound, lambda: step(fixed, few_grad), lambda head=head: step(head, few_grad), rounds=21)
    for logits in bounds:
        head = PrototypeHead(vectors, logits=logits, learnable=True)
        ratio = peak_growth(lambda head=head: step(head)) / peak_growth(lambda: step(linear))
        print(f"{logits} head, learnt: peak memory of a step {ratio:.2f} x that of nn.Linear")
    few = torch.randn(256, dim, requires_grad=True)
    wide = torch.nn.Linear(dim, 50_000)
    for logits in ("cosine", "euclidean"):
        large = PrototypeHead(torch.randn(50_000, dim), logits=logits, learnable=True)
        times = [
            [cpu_seconds(lambda head=head: head(few).sum().backward()) for _ in range(4)] for head in (wide, large)
        ]
        ours, floor = (stats.median(column[1:]) for column in reversed(times))
        print(f"{logits} head, learnt, 256 x {dim}, K=50,000: {ours / floor:.2f} x nn.Linear; no bound set")
    extra = peak_growth(lambda: large(few).sum().backward())
    everything = 256 * 50_000 * dim * 4 / 2**20
    print(
        f"euclidean head, learnt, 256 x {dim}, K=50,000: {extra:.0f} MiB extra; N x K x D would be {everything:.0f} MiB"
    )


def bench_levels():
    """Levels with shuffled labels, and standard errors, beside the evaluation of the metrics itself."""
    for classes, dim, draws, bound in ((10, 512, 16, 0.3), (1000, 2048, 4, 10.0)):
        data = batches(20 * classes + 6000, dim, classes, 1000)
        folds = accumulate(data, classes, dim, folds=16 if classes == 10 else 4)
        evidence = Evidence(folds.total, torch.randn(classes, dim), torch.zeros(classes), folds=folds)
        headline = [each for each in available(evidence) if each.headline]
        levels(evidence, headline, draws=1)  # warm-up
        title = f"K={classes}, D={dim}"
        once = cpu_seconds(lambda evidence=evidence: evaluate(evidence))
        drawn = cpu_seconds(lambda: levels(evidence, headline, draws=draws, seed=1))  # noqa: B023
        print(f"{draws} draws of {len(headline)} headline metrics, {title}: {drawn:.2f} s  bound {bound} s  "
              f"{'met' if drawn <= bound else 'MISSED'}", flush=True)  # fmt: skip
        errors = cpu_seconds(lambda evidence=evidence: standard_errors(evidence))
        print(f"all metrics, {title}: {once:.2f} s; their standard errors from {folds.folds} folds {errors:.2f} s")


BENCHMARKS = {
    "heads": bench_heads,
    "pairs": bench_pairs,
    "statistics": bench_statistics,
    "folds": bench_folds,
    "threads": bench_threads,
    "decisions": bench_decisions,
    "vocabulary": bench_vocabulary,
    "nc1": bench_nc1,
    "levels": bench_levels,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which (default: all)")
    for name in parser.parse_args().names or BENCHMARKS:
        BENCHMARKS[name]()
