"""Extracts features of a small model, slowly enough to be killed on the way: extraction_worker.py FOLDER DELAY."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.sources import ModelSource, extract

K, D, ROWS, BATCH = 4, 6, 600, 32
SHARD_BYTES = 3000  # some 26 rows: a batch is in several shards


class Slow:
    """Batches that take a while."""

    def __init__(self, seed: int, delay: float):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(ROWS) % K
        self.inputs = torch.randn(ROWS, D, generator=generator) + self.labels[:, None]
        self.delay = delay

    def __len__(self) -> int:
        return -(-ROWS // BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pair in zip(self.inputs.split(BATCH), self.labels.split(BATCH), strict=True):
            time.sleep(self.delay)
            yield pair


def model(seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(D, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, K)
    )


def source(delay: float = 0.0, *, seed: int = 5, data: int = 1, **options: Any) -> ModelSource:
    loaders = (Slow(data + place, delay) for place in range(3))
    train, test, ood = loaders
    chosen = {"layers": ["2"], "progress": False, **options}
    return ModelSource(model(seed), train, test=test, ood=ood, options=chosen)


if __name__ == "__main__":
    extract(source(float(sys.argv[2])), sys.argv[1], shard_bytes=SHARD_BYTES)
