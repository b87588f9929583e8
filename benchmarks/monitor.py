"""What measuring costs: one forward pass over the data alone, and with the last layer or all layers measured.

    python benchmarks/monitor.py [--samples 60000]

The demo's convolutional network on images of Fashion-MNIST's size (random ones: the time doesn't depend on them), CPU
time on one thread; the three are run in turn and compared within each round.
"""

import argparse
import statistics as stats
import time

import torch

from tightframe import measure
from tightframe.demo import network

parser = argparse.ArgumentParser()
parser.add_argument("--samples", type=int, default=60_000)
parser.add_argument("--batch", type=int, default=512)
parser.add_argument("--rounds", type=int, default=9)
options = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(1)
model = network((1, 28, 28), 10)
images, labels = torch.randn(options.samples, 1, 28, 28), torch.randint(0, 10, (options.samples,))
loader = list(zip(images.split(options.batch), labels.split(options.batch), strict=True))
model.train()
with torch.no_grad():
    for batch, _ in loader[:20]:
        model(batch)  # running averages


def forward():
    model.eval()
    with torch.no_grad():
        for batch, _ in loader:
            model(batch)
    model.train()


SUBJECTS = {
    "forward pass alone": forward,
    "measuring the last layer": lambda: measure(model, loader, progress=False),
    "measuring all layers (auto)": lambda: measure(model, loader, layers="auto", progress=False),
}


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


for run in SUBJECTS.values():
    run()
rounds = [{name: seconds(run) for name, run in SUBJECTS.items()} for _ in range(options.rounds)]
for name, bound in zip(SUBJECTS, (None, 1.03, None), strict=True):
    ratios = sorted(row[name] / row["forward pass alone"] for row in rounds)
    verdict = "" if bound is None else f"  bound {bound}: " + ("met" if stats.median(ratios) <= bound else "MISSED")
    print(f"{name:30s} {stats.median(row[name] for row in rounds):7.3f} s  "
          f"{stats.median(ratios):6.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}] x{verdict}")  # fmt: skip
