"""Out-of-distribution detectors on a small network for Fashion-MNIST, against digits, MNIST and photographs.

    TIGHTFRAME_DATA=folder python benchmarks/detectors.py            # 20,000 training images, 6 epochs, 3 seeds
    TIGHTFRAME_DATA=folder python benchmarks/detectors.py --samples 2000 --epochs 1 --seeds 1

The network has two convolutions and 64 features before the classifier. Detectors are fitted to the moments of its
training features and to its classifier, with the settings of `DETECTORS`; none is tuned. Digits and MNIST are other
images of the same kind; photographs are patches of scikit-learn's sample images. The table has the mean over seeds of
AUROC and FPR95 in per cent; errors are the mean standard error over test images (for the mean of the three an upper
bound, since they share the held-out images). The last lines compare the best of the new detectors (relative
Mahalanobis, Residual, ViM, NCI, GEN) with the best of the others.
"""

import argparse
import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from tightframe import ClassStatistics, datasets
from tightframe.metrics import Evidence
from tightframe.ood import DETECTORS, DetectionRow, DetectorScores

OUTSIDE = ("digits", "mnist", "photographs")
MEAN = "mean of the three"
NEW = ("gen", "relative_mahalanobis", "residual", "vim", "nci")


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    body = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU()),
    )
    return nn.Sequential(body, nn.Linear(64, 10))


def trained(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Sequential:
    model = network(seed)
    batches = math.ceil(len(images) / 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def features(model: nn.Sequential, images: Tensor) -> Tensor:
    return torch.cat([model[0](some) for some in images.split(1000)])


def compared(evidence: Evidence, inside: Tensor, outside: Tensor) -> dict[str, DetectionRow]:
    scores = DetectorScores(evidence, curve=None)
    scores.add_inside(inside)
    scores.add_outside(outside)
    return {row.name: row for row in scores.table().rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare out-of-distribution detectors on Fashion-MNIST.")
    parser.add_argument("--samples", type=int, default=20_000, help="training images (default: 20000)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs (default: 6)")
    parser.add_argument("--seeds", type=int, default=3, help="networks (default: 3)")
    parser.add_argument("--outside", type=int, default=2000, help="most outside images of each kind (default: 2000)")
    options = parser.parse_args()
    data = datasets.load("fashion-mnist")
    images, targets = data.train_images[: options.samples], data.train_labels[: options.samples]
    test = data.test_images[:5000]
    outside = {name: datasets.load_outside(name, data.image_shape, options.outside) for name in OUTSIDE}
    results: dict[tuple[str, str], list[DetectionRow]] = defaultdict(list)
    for seed in range(options.seeds):
        model = trained(images, targets, options.epochs, seed)
        inside, held_out = features(model, images), features(model, test)
        classifier = model[1]
        accuracy = (classifier(held_out).argmax(1) == data.test_labels[: len(test)]).float().mean()
        print(f"seed {seed}: test accuracy {100 * float(accuracy):.1f} %", flush=True)
        statistics = ClassStatistics.from_features(inside, targets, 10)
        evidence = Evidence(statistics, classifier.weight.detach(), classifier.bias.detach())
        for name, each in outside.items():
            for row in compared(evidence, held_out, features(model, each)).values():
                results[name, row.name].append(row)

    def mean(place: str, name: str, key: str) -> float:
        if place == MEAN:
            return math.fsum(mean(each, name, key) for each in OUTSIDE) / len(OUTSIDE)
        rows = results[place, name]
        return 100 * sum(getattr(row, key) for row in rows) / len(rows) if rows else math.nan

    width = max(len(row.label) for row in DETECTORS.values())
    titles = [*(f"{name} ({len(outside[name])})" for name in OUTSIDE), MEAN]
    print(f"\n{'':{width}}  " + "  ".join(f"{title:^27}" for title in titles))
    print(f"{'detector':{width}}  " + "  ".join(f"{'AUROC':^13} {'FPR95':^13}" for _ in titles))
    for name, row in DETECTORS.items():
        cells = [
            f"{mean(each, name, 'auroc'):6.2f} ± {mean(each, name, 'auroc_error'):4.2f} "
            f"{mean(each, name, 'fpr95'):6.2f} ± {mean(each, name, 'fpr95_error'):4.2f}"
            for each in (*OUTSIDE, MEAN)
        ]
        print(f"{row.label:{width}}  " + "  ".join(cells) + ("  new" if name in NEW else ""))
    print()
    for each in (*OUTSIDE, MEAN):
        new = max(NEW, key=lambda name: mean(each, name, "auroc"))
        old = max((name for name in DETECTORS if name not in NEW), key=lambda name: mean(each, name, "auroc"))
        gap = mean(each, new, "auroc") - mean(each, old, "auroc")
        verdict = "not worse by more than its error" if gap >= -mean(each, new, "auroc_error") else "worse"
        labels = f"best new {DETECTORS[new].label}, best other {DETECTORS[old].label}"
        print(f"{each}: {labels}, {gap:+.2f} points: {verdict}")


if __name__ == "__main__":
    main()
