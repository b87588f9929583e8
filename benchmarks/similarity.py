"""Speed of `CrossAccumulator`, as a ratio to the bare products of all pairs of layers, and its exactness.

    python benchmarks/similarity.py                                  # 12 layers of 384 features, float32 and float64
    python benchmarks/similarity.py --width 768 --rows 8192          # as of a ViT-B

The floor adds x_a^T x_b for all pairs a <= b of layers, of 1,024 rows at a time, in the features' dtype. The subject
gets batches of 64 rows and returns debiased CKA: products about a centre, summed in float64, and all other sums. Both
take turns; times are processor seconds, so that other processes don't count. The difference is that to debiased CKA
from the Gram matrices of all samples in float64.
"""

import argparse
import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from statistics import median

import torch
from torch import Tensor

from tightframe.similarity import cka
from tightframe.statistics import CrossAccumulator

ROWS = 1024  # rows of a product of the floor
GRAM_ROWS = 2048  # most rows for which the Gram matrices are compared


def features_of(layers: int, width: int, rows: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Layers of which each is the one before, mixed, with noise; means far from the origin."""
    x = torch.randn(rows, width)
    features = {}
    for place in range(layers):
        x = torch.tanh(x @ torch.randn(width, width) / width**0.5) + 0.3 * torch.randn(rows, width)
        features[str(place)] = (x + 10).to(dtype)
    return features


def floor(features: dict[str, Tensor]) -> None:
    """The products alone."""
    width = next(iter(features.values())).shape[1]
    dtype = next(iter(features.values())).dtype
    totals = {pair: torch.zeros(width, width, dtype=dtype) for pair in combinations_with_replacement(features, 2)}
    for blocks in zip(*(each.split(ROWS) for each in features.values()), strict=True):
        by_name = dict(zip(features, blocks, strict=True))
        for (a, b), total in totals.items():
            total.addmm_(by_name[a].mT, by_name[b])


def subject(features: dict[str, Tensor], batch: int) -> Tensor:
    """One pass over batches, and debiased CKA."""
    accumulator = CrossAccumulator({name: each.shape[1] for name, each in features.items()})
    for blocks in zip(*(each.split(batch) for each in features.values()), strict=True):
        accumulator.update(dict(zip(features, blocks, strict=True)))
    return cka(accumulator.compute())


def by_grams(features: dict[str, Tensor]) -> Tensor:
    """Debiased CKA from the U-centred Gram matrices of all samples, in float64."""
    centred = []
    for each in features.values():
        x = each.double() - each.double().mean(0)
        gram = (x @ x.mT).fill_diagonal_(0)
        n, sums = len(gram), gram.sum(0)
        gram = gram - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        gram = gram.fill_diagonal_(0).flatten()
        centred.append(gram / gram.norm())
    return torch.stack(centred) @ torch.stack(centred).mT


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"{given.layers} layers of {given.width} features, {given.rows} rows in batches of {given.batch}")
    for dtype in (torch.float32, torch.float64):
        features = features_of(given.layers, given.width, given.rows, dtype)
        few = {name: each[:GRAM_ROWS] for name, each in features.items()}
        difference = float((subject(few, given.batch) - by_grams(few)).abs().max())
        pairs = [
            (seconds(lambda: floor(features)), seconds(lambda: subject(features, given.batch)))  # noqa: B023
            for _ in range(given.rounds)
        ]
        ratios = [mine / bare for bare, mine in pairs]
        bare, mine = (median(each) for each in zip(*pairs, strict=True))
        name, low, high = str(dtype).removeprefix("torch."), min(ratios), max(ratios)
        print(
            f"{name}: products {bare:.2f} s, one pass {mine:.2f} s, ratio {median(ratios):.2f} "
            f"({low:.2f} to {high:.2f}); largest difference from all samples {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
