"""What measuring adds to one forward pass over the data, with the last layer or all layers measured.

    python benchmarks/monitor.py [--samples 60000]

The demo's convolutional network on images of Fashion-MNIST's size (random ones: the time doesn't depend on them), CPU
time on one thread. In ten seconds a machine's speed drifts by more than measuring costs, so the two are compared batch
by batch in one run: between the batches that are measured, a copy of the model runs on the same ones alone, in turn
before and after. The control, a second forward pass in the place of measuring, tells how far such a ratio can be off.
"""

import argparse
import copy
import statistics as stats
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tightframe import measure
from tightframe.demo.network import network

SUBJECTS = {"control": (None, None), "default": ((), 1.04), "all layers": ("auto", 1.08)}
"""What is measured, None for another forward pass alone, and the bound on its time as a multiple of one. The default
has folds, NC4 and, with a sixth of the samples held out and another foreign, detectors."""


class PairedBatches:
    """Batches for `measure`, each run through another model too; `seconds` is what the other model took."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], model: nn.Module):
        self._batches, self._model = batches, model
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self._batches):
            if number % 2:
                self._run(batch[0])
            yield batch
            if not number % 2:
                self._run(batch[0])

    def _run(self, images: Tensor) -> None:
        start = time.process_time()
        with torch.no_grad():
            self._model(images)
        self.seconds += time.process_time() - start


def cost(model: nn.Module, batches: list[tuple[Tensor, Tensor]], layers: Any) -> tuple[float, float]:
    """CPU seconds of the forward pass alone, and of measuring, which has one in it."""
    sixth = len(batches) // 6
    parts = batches[: 4 * sixth], batches[4 * sixth : 5 * sixth], batches[5 * sixth :]
    train, test, ood = (PairedBatches(part, copy.deepcopy(model).eval()) for part in parts)
    start = time.process_time()
    if layers is None:
        control = copy.deepcopy(model).eval()
        with torch.no_grad():
            for loader in (train, test, ood):
                for images, _labels in loader:
                    control(images)
    else:
        measure(model, train, layers=layers, test=test, ood=ood, progress=False)
    alone = train.seconds + test.seconds + ood.seconds
    return alone, time.process_time() - start - alone


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = network((1, 28, 28), 10)
    images, labels = torch.randn(options.samples, 1, 28, 28), torch.randint(0, 10, (options.samples,))
    batches = list(zip(images.split(options.batch), labels.split(options.batch), strict=True))
    with torch.no_grad():
        for batch, _ in batches[:20]:
            model(batch)  # running averages
    cost(model, batches[:20], "auto")  # warm-up
    print(f"{options.samples:,} images in batches of {options.batch}, CPU time on one thread, {options.rounds} rounds")
    for name, (layers, bound) in SUBJECTS.items():
        rounds = [cost(model, batches, layers) for _ in range(options.rounds)]
        forward, measured = (stats.median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(mine / alone for alone, mine in rounds)
        ratio = stats.median(ratios)
        verdict = "" if bound is None else f"  bound {bound}: {'met' if ratio <= bound else 'MISSED'}"
        print(f"{name:10s}  forward pass {forward:.3f} s, measuring {measured:.3f} s: {ratio:.3f} x "
              f"[{ratios[0]:.3f}, {ratios[-1]:.3f}]{verdict}")  # fmt: skip


if __name__ == "__main__":
    main()
