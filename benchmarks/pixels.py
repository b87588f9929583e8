"""Semantic segmentation with rare classes: a learnt classifier, fixed prototypes, and these with centre collapse.

    python benchmarks/pixels.py                # three seeds, about five minutes on one core
    python benchmarks/pixels.py --choose       # how the weight of the regulariser was chosen, three minutes

Images of 48 x 48 pixels show rectangles, discs, triangles, thin crosses and tiny rings on textured noise: the classes'
shares of the pixels span three orders of magnitude, and the two rarest are in about a tenth of the images. Colours
overlap, so a pixel's class is a matter of its surroundings; the pixels around a shape are ignored. A small encoder and
decoder embeds every pixel in 16 dimensions, and only what comes after differs:

    learnt      a 1 x 1 convolution
    simplex     `PrototypeHead` on a fixed simplex ETF, cosines times 16
    + centres   the same, and WEIGHT times `losses.CentreCollapse` on the embeddings

A seed draws the training images, the test images, the first weights and the batches; the three share them. IoU is the
intersection over the union of all test pixels that aren't ignored. WEIGHT is the one of WEIGHTS with the highest mean
IoU on VALIDATION_SEED, which is not among the reported seeds: 64.7 % at 0.1, against 63.5, 63.2 and 62.4 % at 0.03, 0.3
and 1, and 60.2 % without. Nothing else was tuned for any variant: one learning rate for all, and as many epochs as five
minutes hold, which are few for the rarest classes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, max_pool2d

from tightframe import ConfusionCounts, PrototypeHead, PrototypeModel, losses, prototypes

CLASSES = ("background", "rectangle", "disc", "triangle", "cross", "ring")
PRESENT = (1.0, 0.6, 0.4, 0.25, 0.12, 0.08)  # the chance that an image has a shape of the class
SIZE, DIM, IGNORED = 48, 16, 255
TRAINING, TEST, BATCH = 384, 1000, 16
WEIGHTS = (0.03, 0.1, 0.3, 1.0)
WEIGHT = 0.1
VALIDATION_SEED = 1000
VARIANTS = ("learnt", "simplex", "+ centres")

Mask = NDArray[np.bool_]

torch.set_num_threads(1)


# ---------------------------------------------------------------------- data


def shape(kind: str, draw: np.random.Generator) -> Mask:
    """The (SIZE, SIZE) pixels of one shape, somewhere in the image."""
    y, x = np.mgrid[:SIZE, :SIZE] - draw.uniform(6, SIZE - 6, size=(2, 1, 1))
    if kind == "rectangle":
        height, width = draw.uniform(5, 12, size=2)
        return (abs(y) < height) & (abs(x) < width)
    angle = draw.uniform(0, 2 * math.pi)
    x, y = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    if kind == "disc":
        return x**2 + y**2 < draw.uniform(4, 7.5) ** 2
    if kind == "triangle":
        half = draw.uniform(2.5, 4)  # the radius of the inscribed circle
        return (y < half) & (math.sqrt(3) * abs(x) - y < 2 * half)
    if kind == "cross":
        arm = draw.uniform(4, 7)
        return (np.minimum(abs(x), abs(y)) < 0.8) & (np.maximum(abs(x), abs(y)) < arm)
    radius = draw.uniform(2, 3)
    return abs(np.hypot(x, y) - radius) < 0.6


def around(mask: Mask) -> Mask:
    """The pixels outside the mask that touch it."""
    padded = np.pad(mask, 1)
    near = np.zeros_like(mask)
    for dy in range(3):
        for dx in range(3):
            near |= padded[dy : dy + SIZE, dx : dx + SIZE]
    return near & ~mask


def texture(draw: np.random.Generator) -> NDArray[np.float64]:
    """(3, SIZE, SIZE): a wave of a random direction and wavelength in a random colour."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle, length, phase = draw.uniform((0, 4, 0), (2 * math.pi, 16, 2 * math.pi))
    wave = np.sin(2 * math.pi * (math.cos(angle) * x + math.sin(angle) * y) / length + phase)
    return draw.normal(scale=0.5, size=(3, 1, 1)) * wave


def images(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, SIZE, SIZE) and labels (N, SIZE, SIZE); later, smaller shapes lie on top of earlier ones."""
    draw = np.random.default_rng(seed)
    colours = np.array([(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (1, 0.5, 0.5)], dtype=float)
    inputs, labels = np.empty((number, 3, SIZE, SIZE), np.float32), np.zeros((number, SIZE, SIZE), np.int64)
    for image, label in zip(inputs, labels, strict=True):
        picture = texture(draw)
        for k, kind in enumerate(CLASSES[1:], 1):
            if draw.random() < PRESENT[k]:
                mask = shape(kind, draw)
                colour = colours[k] + draw.normal(scale=0.4, size=3)
                picture[:, mask] = (colour[:, None, None] + 0.5 * texture(draw))[:, mask]
                label[mask] = k
                label[around(mask)] = IGNORED
        image[:] = picture + draw.normal(scale=0.4, size=picture.shape)
    return torch.from_numpy(inputs), torch.from_numpy(labels)


# ---------------------------------------------------------------------- model


def block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


class EncoderDecoder(nn.Module):
    """(N, 3, H, W) -> (N, DIM, H, W) over three scales with skips, about 100,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.middle = block(3, 16), nn.Sequential(block(16, 32), block(32, 32))
        self.coarse = nn.Sequential(block(32, 64), block(64, 64))
        self.up_middle, self.up_fine = block(64 + 32, 32), block(32 + 16, 16)
        self.embedding = nn.Conv2d(16, DIM, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        fine = self.fine(inputs)
        middle = self.middle(max_pool2d(fine, 2))
        coarse = self.coarse(max_pool2d(middle, 2))
        middle = self.up_middle(torch.cat([interpolate(coarse, scale_factor=2), middle], 1))
        return self.embedding(self.up_fine(torch.cat([interpolate(middle, scale_factor=2), fine], 1)))


def train(variant: str, seed: int, inputs: Tensor, labels: Tensor, epochs: int, weight: float) -> PrototypeModel:
    """A model of the variant, trained with the seed's first weights and batches."""
    torch.manual_seed(seed)
    backbone, order = EncoderDecoder(), torch.Generator().manual_seed(seed)
    if variant == "learnt":
        model = PrototypeModel(backbone, nn.Conv2d(DIM, len(CLASSES), 1))
    else:
        frame = prototypes.simplex(len(CLASSES), DIM)
        model = PrototypeModel(backbone, PrototypeHead(frame, logits="cosine", scale=16))
        centres = losses.CentreCollapse(frame, ignore_index=IGNORED)
    model.to(memory_format=torch.channels_last)
    steps = epochs * (len(inputs) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, steps, pct_start=0.2)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=order)[: steps // epochs * BATCH].split(BATCH):
            embeddings = model.embed(inputs[batch].contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(model.head(embeddings), labels[batch], ignore_index=IGNORED)
            if variant == "+ centres":
                loss = loss + weight * centres(embeddings, labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model


@torch.no_grad()
def intersection_over_union(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[float]:
    """Of each class, over all pixels that aren't ignored."""
    model.eval()
    confusion = ConfusionCounts.empty(len(CLASSES))
    for x, y in zip(inputs.split(100), labels.split(100), strict=True):
        decided = model(x.contiguous(memory_format=torch.channels_last)).argmax(1)
        confusion = confusion.merge(ConfusionCounts.from_predictions(decided, y, len(CLASSES), ignore_index=IGNORED))
    return confusion.iou().tolist()


# ---------------------------------------------------------------------- results


def data(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test images of a seed."""
    return images(TRAINING, 2 * seed), images(TEST, 2 * seed + 1)


def shares(labels: Tensor) -> list[float]:
    """Of each class among the pixels that aren't ignored."""
    kept = labels[labels != IGNORED]
    return (torch.bincount(kept, minlength=len(CLASSES)) / len(kept)).tolist()


def choose(epochs: int) -> None:
    """The mean IoU on the validation seed by the weight of the regulariser."""
    training, test = data(VALIDATION_SEED)
    print(f"validation seed, {epochs} epochs: IoU of {', '.join(CLASSES)}; their mean")
    for weight in (0.0, *WEIGHTS):
        found = intersection_over_union(train("+ centres", VALIDATION_SEED, *training, epochs, weight), *test)
        line = " ".join(f"{100 * value:5.1f}" for value in found)
        print(f"weight {weight:4.2f}   {line}   mean {100 * statistics.mean(found):.2f}", flush=True)


def compare(seeds: int, epochs: int) -> None:
    """The table: a row a class."""
    begin = time.process_time()
    found: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    share: list[list[float]] = []
    for seed in range(seeds):
        training, test = data(seed)
        share.append(shares(training[1]))
        for variant in VARIANTS:
            model = train(variant, seed, *training, epochs, WEIGHT)
            found[variant].append(intersection_over_union(model, *test))
    parameters = sum(parameter.numel() for parameter in EncoderDecoder().parameters())
    print(
        f"IoU in %, mean ± standard deviation of {seeds} seeds; {TRAINING} training and {TEST} test images, "
        f"{epochs} epochs, {parameters:,} parameters, weight {WEIGHT:g}\n"
    )
    print(f"{'class':12s}{'pixels in %':>12s}" + "".join(f"{variant:>16s}" for variant in VARIANTS))
    for k, name in enumerate(CLASSES):
        cells = "".join(spread([row[k] for row in found[variant]]) for variant in VARIANTS)
        print(f"{name:12s}{100 * statistics.mean(row[k] for row in share):12.3f}{cells}")
    means = "".join(spread([statistics.mean(row) for row in found[variant]]) for variant in VARIANTS)
    print(f"{'mean':12s}{'':12s}{means}\n\n{time.process_time() - begin:.0f} s of CPU time")


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{f'{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}':>16s}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--epochs", type=int, default=18, help="of training, each (default: 18)")
    parser.add_argument("--choose", action="store_true", help="compare weights on the validation seed instead")
    asked = parser.parse_args()
    if asked.choose:
        choose(asked.epochs)
    else:
        compare(asked.seeds, asked.epochs)
