"""A regulariser of class centres helps rare classes of pixels.

Zhong et al. 2023 (Understanding Imbalanced Semantic Segmentation Through Neural Collapse). Four digits lie on a noisy
background of 24 x 24 pixels; the class of a pixel is its digit or the background. In training, digit k is 0.65^k times
as frequent as digit 0; in the test all are equally frequent. A U-Net is trained with and without `CentreCollapse`:

    python examples/pixels.py
"""

from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

from gallery import require, run
from tightframe import ConfusionCounts, PrototypeHead, datasets, losses, measure, prototypes

SEEDS, EPOCHS, IMAGES, BATCH = 3, 25, 160, 8
SIZE, PER_IMAGE, DECAY, WIDTH, WEIGHT = 24, 4, 0.65, 16, 0.1
CLASSES, FREQUENT, RARE = 11, (1, 2, 3), (8, 9, 10)  # 0 is the background, 1 + k digit k
METHODS = ("cross-entropy", "with centres", "ETF head with centres")
MEASURES = ("classifier_accuracy", "trace_ratio", "equiangularity", "equinorm")
COLOURS = ("#4c566a", "#3b6ea8", "#8fa13c")


def scenes(images, labels, shares, number, seed):
    """Images (N, 1, H, W) and the class of each pixel (N, H, W): digits drawn by the shares, at free places."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.15 * torch.rand(number, 1, SIZE, SIZE, generator=generator)
    classes = torch.zeros(number, SIZE, SIZE, dtype=torch.int64)
    cells = torch.cartesian_prod(torch.arange(0, SIZE, 8), torch.arange(0, SIZE, 8))
    for scene in range(number):
        digits = torch.multinomial(shares, PER_IMAGE, replacement=True, generator=generator)
        places = cells[torch.randperm(len(cells), generator=generator)[:PER_IMAGE]]
        for digit, (row, column) in zip(digits, places.tolist(), strict=True):
            members = (labels == digit).nonzero().flatten()
            image = images[members[torch.randint(len(members), (), generator=generator)], 0]
            box = (scene, slice(row, row + 8), slice(column, column + 8))
            pixels[:, 0][box] = pixels[:, 0][box].maximum(image)
            classes[box][image > 0.3] = digit + 1
    return pixels, classes


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Features (N, WIDTH, H, W) of images (N, 1, H, W)."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = block(1, 8), block(8, 16), block(16, 32)
        self.back, self.top = block(48, 16), nn.Conv2d(24, WIDTH, 3, padding=1)

    def forward(self, images):
        fine = self.first(images)
        middle = self.second(max_pool2d(fine, 2))
        coarse = self.third(max_pool2d(middle, 2))
        middle = self.back(torch.cat([middle, interpolate(coarse, scale_factor=2)], 1))
        return self.top(torch.cat([fine, interpolate(middle, scale_factor=2)], 1))


def train(name, images, labels, seed):
    torch.manual_seed(seed)
    etf = PrototypeHead(prototypes.simplex(CLASSES, WIDTH))
    body, head = UNet(), etf if name == "ETF head with centres" else nn.Conv2d(WIDTH, CLASSES, 1)
    model, pixels, centres = nn.Sequential(body, head), nn.CrossEntropyLoss(), losses.CentreCollapse(etf)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * len(images) // BATCH)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            features = body(images[batch])
            loss = pixels(head(features), labels[batch])
            if name != "cross-entropy":
                loss = loss + WEIGHT * centres(features, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def compute():
    data = datasets.load("digits")
    shares = DECAY ** torch.arange(10.0)
    rows, pixels = {name: [] for name in METHODS}, torch.zeros(CLASSES, dtype=torch.int64)
    test = scenes(data.test_images, data.test_labels, torch.ones(10), 200, 1000)  # every digit equally often
    for seed in range(SEEDS):
        images, labels = scenes(data.train_images, data.train_labels, shares, IMAGES, seed)
        pixels += labels.flatten().bincount(minlength=CLASSES)
        for name in METHODS:
            model = train(name, images, labels, seed)
            with torch.no_grad():
                decided = torch.cat([model(part).argmax(1) for part in test[0].split(50)])
            report = measure(model, (images, labels), metrics=MEASURES, progress=False)
            iou = ConfusionCounts.from_predictions(decided, test[1], CLASSES).iou().tolist()
            rows[name].append({"iou": iou, **{key: report[key].value for key in MEASURES}})
    return rows, (pixels / SEEDS).tolist()


def summary(rows):
    """By method, means over seeds: IoU of all, frequent and rare classes, and the measures of training pixels."""
    groups, parts = {"all": range(CLASSES), "frequent": FREQUENT, "rare": RARE}, {}
    for name, runs in rows.items():
        parts[name] = {key: mean([run[key] for run in runs]) for key in MEASURES}
        parts[name] |= {group: mean([run["iou"][k] for run in runs for k in some]) for group, some in groups.items()}
    return parts


def table(results):
    rows, pixels = results
    shares = " ".join(f"{100 * number / sum(pixels):.2f}" for number in pixels)
    lines = [f"pixels of the background and of digits 0 to 9 (%): {shares}", ""]
    lines.append("                       train     IoU   frequent    rare   within/between   NC2 cosines   NC2 norms")
    widths = {MEASURES[0]: 6, "all": 8, "frequent": 11, "rare": 8} | dict(zip(MEASURES[1:], (17, 14, 12), strict=True))
    for name, part in summary(rows).items():
        lines.append(f"{name:<22}" + "".join(f"{part[key]:>{width}.3f}" for key, width in widths.items()))
    return "\n".join(lines)


def figure(results):
    rows, pixels = results
    picture = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    for place, (name, runs) in enumerate(rows.items()):
        heights = [mean([run["iou"][k] for run in runs]) for k in range(CLASSES)]
        left.bar([k + 0.27 * (place - 1) for k in range(CLASSES)], heights, 0.27, color=COLOURS[place], label=name)
        heights = [mean([run[key] for run in runs]) for key in ("equiangularity", "equinorm")]
        right.bar([k + 0.27 * (place - 1) for k in range(2)], heights, 0.27, color=COLOURS[place])
    ticks = [f"{k - 1}\n{100 * number / sum(pixels):.1f}" for k, number in enumerate(pixels)]
    left.set_xticks(range(CLASSES), ["–" + ticks[0][2:], *ticks[1:]], fontsize=8)
    left.set(xlabel="digit (–: background), share of training pixels (%)", ylabel="IoU", title="Test IoU by class")
    left.legend(frameon=False, fontsize=8)
    right.set_xticks(range(2), ["std of cosines", "CV of norms"])
    right.set(ylabel="distance from a simplex ETF (target 0)", title="NC2 of pixel means")
    return picture


def check(results):
    parts = summary(results[0])
    plain, centres = parts["cross-entropy"], parts["with centres"]
    require(centres["rare"] > plain["rare"] + 0.02, "centres raise the mean IoU of the three rarest digits")
    require(centres["equiangularity"] < 0.9 * plain["equiangularity"], "centres make pixel means more equiangular")


if __name__ == "__main__":
    run(compute, table=table, figure=figure, check=check)
