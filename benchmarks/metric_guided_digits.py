"""Cross-entropy, free and metric-guided prototypes in two dimensions on MNIST, by the visual tree of digits.

    python benchmarks/metric_guided_digits.py --data FOLDER      # with MNIST's four IDX files; 3 seeds, some minutes

As published (Sainte Fare Garnot & Landrieu 2021, their notebook): three convolutions, the maximum over positions and
two linear layers embed digits in the plane; training images are turned by up to 40 degrees and enlarged by 1.3, test
images are as they are, which is most of the error; SGD with momentum 0.9, rate 0.1 cut tenfold after two thirds and
five sixths of the epochs. Heads: a linear classifier; learnt prototypes with Euclidean distances, uniform in the unit
square at the start; and these from `prototypes.metric_guided` as their start (the paper's start is random too), with
the squared scale-free distortion added to the loss, weight 1. Fewer images than the 60,000 of the paper, which reports
error 15.16, 14.15 and 11.94 %, average cost .81, .75 and .52, distortion of the prototypes .42 and .22.
"""

import argparse
import math
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from tightframe import ConfusionCounts, PrototypeHead, PrototypeModel, datasets
from tightframe.hierarchy import tree_cost
from tightframe.losses import SquaredScaleFreeDistortion
from tightframe.prototypes import metric_guided
from tightframe.prototypes.distortions import scale_free_distortion

DEGREES, ENLARGED = 40, 1.3
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's pixels
HEADS = ("cross-entropy", "free", "guided")


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turned at random and enlarged."""
    angles = (2 * torch.rand(len(images), generator=generator) - 1) * math.radians(DEGREES)
    cosine, sine, zero = angles.cos() / ENLARGED, angles.sin() / ENLARGED, torch.zeros_like(angles)
    turns = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    return grid_sample(images, affine_grid(turns, list(images.shape), align_corners=False), align_corners=False)


def network() -> nn.Sequential:
    """Images -> 64 features; nothing but linear layers after the maximum over positions."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, pooled in ((1, 16, True), (16, 16, True), (16, 32, False)):
        layers += [nn.Conv2d(fan_in, fan_out, 3), nn.BatchNorm2d(fan_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else [nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 64))


def train(head: str, seed: int, data: datasets.Dataset, cost: Tensor, epochs: int) -> tuple[float, float, float]:
    """Error, average cost of decisions, and scale-free distortion of the prototypes."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    plane = nn.Linear(64, 2)
    if head == "cross-entropy":
        classifier: nn.Module = nn.Sequential(plane, nn.Linear(2, 10))
    else:
        start = torch.rand(10, 2, generator=generator) if head == "free" else metric_guided(cost, 2, seed=seed)
        classifier = PrototypeHead(start, logits="euclidean", learnable=True, projection=plane)
    model = PrototypeModel(network(), classifier)
    guide = SquaredScaleFreeDistortion(cost)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [epochs * 2 // 3, epochs * 5 // 6])
    for _ in range(epochs):
        model.train()
        for index in torch.randperm(len(data.train_labels)).split(128):
            images = (varied(data.train_images[index], generator) - MEAN) / DEVIATION
            loss = cross_entropy(model(images), data.train_labels[index])
            if head == "guided":
                loss = loss + guide(model.prototypes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        test = (data.test_images - MEAN) / DEVIATION
        decided = torch.cat([model(part).argmax(1) for part in test.split(500)])
    counts = ConfusionCounts.from_predictions(decided, data.test_labels, 10)
    vectors = classifier[1].weight if head == "cross-entropy" else classifier.prototypes
    distortion = scale_free_distortion(vectors.detach().double(), cost).item()
    return 1 - counts.accuracy().item(), counts.average_cost(cost).item(), distortion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds MNIST's files, if not in a usual place")
    parser.add_argument(
        "--images", type=int, default=10_000, help="training images, as many of each class, drawn at random"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    full = datasets.load("mnist", options.data)
    data = datasets.subsample(full, [options.images // 10] * 10, seed=0)
    cost = tree_cost(datasets.hierarchy_of("mnist"))
    print(f"{len(data.train_labels):,} training images, {options.epochs} epochs, {options.seeds} seeds")
    print(f"{'head':14s} {'error %':>9s} {'cost':>7s} {'distortion':>11s}  per seed: cost")
    for head in options.heads:
        started = time.perf_counter()
        results = [train(head, seed, data, cost, options.epochs) for seed in range(options.seeds)]
        error, average, distortion = (statistics.mean(column) for column in zip(*results, strict=True))
        each = " ".join(f"{result[1]:.4f}" for result in results)
        seconds = time.perf_counter() - started
        print(f"{head:14s} {100 * error:9.2f} {average:7.4f} {distortion:11.3f}  {each}  ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
