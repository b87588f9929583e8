"""Checks and times every CUDA path against the CPU, on any GPU, in less than five minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu    # the checks alone, to see that the script itself is right

Every line says what was compared and how far it is off. Streaming without validation must not synchronise the host
with the device, except where anchors are judged, at steps 1, 2, 4, 8, ...: torch raises if it does. (Under the name
cuda.py this file would hide the package `cuda` from torch, also where another benchmark is run.)
"""

import argparse
import statistics as stats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from tightframe import (
    ClassStatistics,
    DecisionCounts,
    PrototypeHead,
    StatisticsAccumulator,
    measure,
    prototypes,
)
from tightframe.metrics import Evidence, evaluate, jackknife, standard_errors
from tightframe.similarity import cka
from tightframe.statistics import CrossAccumulator, CrossMoments

K, D, ROWS, BATCH = 20, 96, 20_000, 256
failures = 0


def say(what: str, error: float, bound: float) -> None:
    global failures
    failures += not error <= bound
    print(f"{'ok    ' if error <= bound else 'FAILED'} {what:72s} off by {error:.1e}, bound {bound:.0e}", flush=True)


def data(dtype: torch.dtype = torch.float32, *, offset: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, K, (ROWS,))
    return (offset + torch.randn(K, D)[labels] + torch.randn(ROWS, D)).to(dtype), labels


def apart(value: ClassStatistics, expected: ClassStatistics) -> float:
    """The largest difference of a field, as a share of its largest entry."""
    value = value.to("cpu")
    assert torch.equal(value.counts, expected.counts)
    fields = [name for name in ("means", "spread", "within", "class_within") if getattr(expected, name) is not None]
    pairs = [(getattr(value, name), getattr(expected, name)) for name in fields]
    return max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs)


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Context in which waiting for the device is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def streamed(device: torch.device, dtype: torch.dtype, validate: bool, **options: object) -> StatisticsAccumulator:
    features, labels = (each.to(device) for each in data(dtype))
    accumulator = StatisticsAccumulator(K, D, device=device, **options)
    for batch in zip(features.split(BATCH), labels.split(BATCH), strict=True):
        accumulator.update(*batch, validate=validate)
    return accumulator


def check_statistics(device: torch.device) -> None:
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float64, 1e-11)):
        for per_class in (False, True):
            expected = ClassStatistics.from_features(*data(dtype), K, per_class=per_class)
            there = ClassStatistics.from_features(*(each.to(device) for each in data(dtype)), K, per_class=per_class)
            kind = f"{dtype}, per_class={per_class}"
            say(f"from_features, {kind}", apart(there, expected), 1e-12)
            for validate in (True, False):
                for folds in (None, 16):
                    accumulator = streamed(device, dtype, validate, per_class=per_class, folds=folds)
                    what = f"streamed, {kind}, validate={validate}, folds={folds}"
                    say(what, apart(accumulator.compute(), expected), bound)
                    if folds:
                        merged = ClassStatistics.merge_all(accumulator.compute_folds().parts)
                        say(f"{what}, merged", apart(merged, expected), bound)


def check_that_the_host_does_not_wait(device: torch.device) -> None:
    for folds in (None, 16):
        for size in (128, 4096, 10_000):
            features, labels = (each.to(device) for each in data())
            accumulator = StatisticsAccumulator(K, D, device=device, folds=folds)
            for _ in range(3):
                accumulator.update(features, labels)
            moments = accumulator._moments
            for _ in range(40):
                quiet = all(
                    (each._steps + ahead) & (each._steps + ahead - 1) for each in moments for ahead in range(1, 32)
                )
                if not quiet:  # anchors may be judged within this batch: count on, in peace
                    accumulator.update(features[:size], labels[:size])
                    continue
                with without_waiting(device):
                    accumulator.update(features[:size], labels[:size])
            print(f"ok     no waiting in update(validate=False), batches of {size}, folds={folds}")


def check_measures(device: torch.device) -> None:
    features, labels = data()
    weight, bias = torch.randn(K, D), torch.randn(K)
    found = []
    for place in (torch.device("cpu"), device):
        accumulator = streamed(place, torch.float32, True, folds=16)
        folded = accumulator.compute_folds()
        decisions = DecisionCounts(folded.total, weight.to(place), bias.to(place))
        for batch in zip(features.to(place).split(BATCH), labels.to(place).split(BATCH), strict=True):
            decisions.update(*batch)
        evidence = Evidence(folded.total, weight.to(place), bias.to(place), decisions, folds=folded)
        found.append((evaluate(evidence), standard_errors(evidence), decisions.totals))
    (values, errors, totals), (there, errors_there, totals_there) = found
    for name, value in values.items():
        if value.isfinite():
            say(f"measure {name}", abs(float(there[name]) - float(value)) / max(abs(float(value)), 1e-3), 1e-4)
    for name, error in errors.items():
        if error.isfinite():
            say(f"standard error of {name}", abs(float(errors_there[name] - error)) / max(float(error), 1e-6), 0.05)
    for name in ("classifier_correct", "centre_correct", "agreement"):
        say(f"decisions: {name}", float((getattr(totals, name) - getattr(totals_there, name).cpu()).abs().sum()), 0)


def check_a_model(device: torch.device) -> None:
    features, labels = data()
    model = torch.nn.Sequential(torch.nn.Linear(D, 64), torch.nn.ReLU(), torch.nn.Linear(64, K))
    loader = list(zip(features.split(BATCH), labels.split(BATCH), strict=True))
    here = measure(model, loader, progress=False).values
    there = measure(model.to(device), loader, progress=False).values
    model.to("cpu")
    for name in ("nc1", "cdnv", "etf_error", "self_duality_error", "ncc_mismatch"):
        say(f"measure(model): {name}", abs(there[name] - here[name]) / max(abs(here[name]), 1e-3), 1e-3)


def check_similarity(device: torch.device) -> None:
    x, _ = data()
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        layers = {"x": x.to(dtype), "squares": x[:, :40].to(dtype).square()}
        expected = cka(CrossMoments.from_features(layers))
        there = {name: each.to(device) for name, each in layers.items()}
        say(f"CKA, {dtype}", float((cka(CrossMoments.from_features(there)).cpu() - expected).abs().max()), 1e-12)
        for folds in (None, 4):
            accumulator = CrossAccumulator({"x": D, "squares": 40}, folds=folds, device=device)
            for start in range(0, ROWS, BATCH):
                batch = {name: each[start : start + BATCH] for name, each in there.items()}
                steps = [part._steps for part in accumulator._parts]
                if min(steps) < 3 or any((step + 1) & step == 0 for step in steps):  # centres may be judged
                    accumulator.update(batch)
                    continue
                with without_waiting(device):
                    accumulator.update(batch)
            error = float((cka(accumulator.compute()).cpu() - expected).abs().max())
            say(f"CKA, streamed, {dtype}, folds={folds}", error, bound)
            if folds:
                value, _ = jackknife(cka, accumulator.compute_folds())
                say(f"CKA, merged, {dtype}", float((value.cpu() - expected).abs().max()), bound)


def check_heads(device: torch.device) -> None:
    features, labels = data()
    for logits in ("cosine", "dot", "euclidean", "squared-euclidean", "pseudo-huber"):
        grads = []
        for place in (torch.device("cpu"), device):
            head = PrototypeHead(prototypes.simplex(K, D), logits=logits).to(place)
            x = features[:512].to(place).requires_grad_()
            torch.nn.functional.cross_entropy(head(x), labels[:512].to(place)).backward()
            grads.append(x.grad.cpu())
        say(f"{logits} head, gradient", float((grads[0] - grads[1]).abs().max() / grads[0].abs().max()), 1e-3)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return stats.median(once() for _ in range(5))


def time_statistics(device: torch.device) -> None:
    for samples, dim, classes, size in (
        (200_000, 512, 10, 128),
        (400_000, 768, 1000, 1024),
        (400_000, 768, 50_257, 8192),
    ):
        torch.manual_seed(0)
        batches = [
            (torch.randn(size, dim, device=device), torch.randint(0, classes, (size,), device=device))
            for _ in range(16)
        ] * (samples // size // 16)

        def products(batches=batches):
            for x, _ in batches:
                x.mT @ x

        def accumulate(folds=None, batches=batches, classes=classes, dim=dim):
            accumulator = StatisticsAccumulator(classes, dim, device=device, folds=folds)
            for x, y in batches:
                accumulator.update(x, y)
            return accumulator.compute()

        floor = seconds(products, device)
        ratios = [seconds(lambda folds=folds: accumulate(folds), device) / floor for folds in (None, 16)]
        what = f"statistics {len(batches) * size:,} x {dim}, K={classes:,}, batch {size}"
        print(f"{what}: {ratios[0]:.2f} x the bare products ({floor:.3f} s), {ratios[1]:.2f} x with 16 folds")


def time_decisions(device: torch.device) -> None:
    for dim, classes in ((512, 10), (768, 1000)):
        torch.manual_seed(0)
        features, labels = torch.randn(65_536, dim, device=device), torch.randint(0, classes, (65_536,), device=device)
        weight, means = torch.randn(classes, dim, device=device), torch.randn(classes, dim, device=device)
        statistics = ClassStatistics.from_features(features + 3 * means[labels], labels, classes)

        def products(features=features, weight=weight, means=means):
            for x in features.split(4096):
                x @ weight.mT
                x @ means.mT
                x.sum()

        def decide(features=features, labels=labels, weight=weight, statistics=statistics):
            counts = DecisionCounts(statistics, weight)
            for x, y in zip(features.split(4096), labels.split(4096), strict=True):
                counts.update(x, y)

        floor = seconds(products, device)
        ratio = seconds(decide, device) / floor
        print(f"NC4, {len(features):,} x {dim}, K={classes}: {ratio:.2f} x two products and a pass ({floor:.4f} s)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda":
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}")
    start = time.perf_counter()
    checks = (check_statistics, check_that_the_host_does_not_wait, check_measures, check_a_model, check_heads)
    for check in (*checks, check_similarity):
        check(device)
    if device.type == "cuda":
        time_statistics(device)
        time_decisions(device)
    print(f"{failures} failures, {time.perf_counter() - start:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
