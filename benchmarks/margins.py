"""ArcFace and CosFace on fixed certified codes and on learnt prototypes: digits, a long tail, many identities.

    python benchmarks/margins.py                                  # 3 seeds, 100,000 identities: ten minutes on a core
    python benchmarks/margins.py digits --seeds 1
    python benchmarks/margins.py identities --identities 2000 --sampled 500 --epochs 4

Digits: a network of one hidden layer with 16 embedding dimensions; fixed prototypes are the simplex, which is certified
optimal. The long tail has 1 to 1/50 of the images; "per class" has margins proportional to n^(-1/4). Balanced accuracy
is over held-out images.

Identities: unit vectors in 128 dimensions without a network: each identity has a free vector that the loss moves, and
in training and test normal noise is added to its direction. What is compared is thus the geometry that prototypes and
loss lead to. Steps are over sampled classes with sparse gradients. Fixed prototypes are the best code that the package
builds without a search. Accuracy is the share of new noisy samples whose nearest prototype is the own one.

Verification: TAR is the share of pairs of one class whose cosine is above the threshold that a share of 1e-3 of the
pairs of different classes exceeds (FAR); held-out images, or two noisy samples per identity.
"""

import argparse
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from tightframe import ConfusionCounts, PrototypeHead, Prototypes, datasets, prototypes
from tightframe.demo.settings import PROFILES
from tightframe.errors import MarginWarning
from tightframe.heads import class_margins

FAR = 1e-3


def tar(genuine: Tensor, impostor: Tensor) -> float:
    """Share of genuine cosines above the threshold that a share `FAR` of the impostor cosines exceeds."""
    threshold = impostor.topk(max(1, int(FAR * len(impostor)))).values[-1]
    return float((genuine > threshold).double().mean())


def verification(embeddings: Tensor, labels: Tensor) -> float:
    unit = normalize(embeddings)
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    cosines, same = (unit @ unit.mT)[first, second], labels[first] == labels[second]
    return tar(cosines[same], cosines[~same])


# ---------------------------------------------------------------------- digits

Settings = dict[str, object]
ROWS: dict[str, Settings] = {
    "no margin": {},
    "ArcFace 0.5": {"margin": 0.5},
    "CosFace 0.35": {"margin": 0.35, "margin_kind": "cosine"},
}


def digits_row(data: datasets.Dataset, options: Settings, fixed: bool, seed: int, epochs: int) -> tuple[float, float]:
    torch.manual_seed(seed)
    start = prototypes.simplex(10, 16) if fixed else Prototypes(normalize(torch.randn(10, 16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", MarginWarning)
        head = PrototypeHead(start, 64, learnable=not fixed, scale=16.0, **options)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64))
    model = nn.Sequential(body, head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train_labels)).split(128):
            if len(rows) < 2:
                continue
            labels = data.train_labels[rows]
            optimizer.zero_grad()
            cross_entropy(head(body(data.train_images[rows]), labels), labels).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        features = body(data.test_images)
        decisions = head(features).argmax(1)
        accuracy = ConfusionCounts.from_predictions(decisions, data.test_labels, 10).balanced_accuracy()
        return float(accuracy), verification(head.embed(features), data.test_labels)


def digits(options: argparse.Namespace) -> None:
    whole = datasets.load("digits")
    counts = PROFILES["exponential"].counts(int(torch.bincount(whole.train_labels).min()), 10, 50)
    numbers = torch.tensor(counts)
    per_class: dict[str, Settings] = {
        "ArcFace, per class": {"margin": class_margins(numbers, 0.5)},
        "CosFace, per class": {"margin": class_margins(numbers, 0.35), "margin_kind": "cosine"},
    }
    for tail, rows in ((False, ROWS), (True, ROWS | per_class)):
        print(f"\n{'long tail of digits' if tail else 'digits'}, {options.seeds} seeds", flush=True)

        def evaluate(settings: Settings, fixed: bool, tail: bool = tail) -> list[tuple[float, float]]:
            sets = [datasets.subsample(whole, counts, seed=seed) if tail else whole for seed in range(options.seeds)]
            return [digits_row(each, settings, fixed, seed, options.digit_epochs) for seed, each in enumerate(sets)]

        show(rows, evaluate)


# ---------------------------------------------------------------------- identities


def identities_row(
    options: argparse.Namespace, settings: Settings, fixed: bool, code: Prototypes
) -> tuple[float, float]:
    torch.manual_seed(0)
    K, D = options.identities, options.dim
    start = code if fixed else Prototypes(normalize(torch.randn(K, D)))
    head = PrototypeHead(start, learnable=not fixed, scale=32.0, **settings)
    free = nn.Embedding(K, D, sparse=True)
    with torch.no_grad():
        free.weight.copy_(normalize(free.weight))
    optimizer = torch.optim.SparseAdam([free.weight, *head.parameters()], lr=options.rate)
    spread = options.noise / math.sqrt(D)

    def noisy(labels: Tensor) -> Tensor:
        directions = normalize(free(labels))
        return directions + spread * torch.randn_like(directions)

    for _ in range(options.epochs):
        for labels in torch.randperm(K).split(options.rows):
            optimizer.zero_grad()
            logits, columns, _ = head.sampled(noisy(labels), labels, options.sampled)
            cross_entropy(logits, columns).backward()
            optimizer.step()
    head.eval()
    with torch.no_grad():
        some = torch.randperm(K)[: options.tested]
        first, second = noisy(some), noisy(some)
        right = sum(int((head(z).argmax(1) == y).sum()) for z, y in zip(first.split(500), some.split(500), strict=True))
        cosines = normalize(first) @ normalize(second).mT
        genuine, impostor = cosines.diagonal(), cosines[~torch.eye(len(some), dtype=torch.bool)]
        return right / len(some), tar(genuine, impostor)


def identities(options: argparse.Namespace) -> None:
    code = prototypes.best(options.identities, options.dim, rounds=0)
    print(f"\n{options.identities:,} identities in {options.dim} dimensions, {options.sampled:,} sampled classes, "
          f"noise {options.noise}; fixed: {code.provenance['code']}", flush=True)  # fmt: skip
    show(ROWS, lambda settings, fixed: [identities_row(options, settings, fixed, code)])


# ---------------------------------------------------------------------- table


def show(rows: dict[str, Settings], evaluate: Callable[[Settings, bool], list[tuple[float, float]]]) -> None:
    print(f"{'margin':20} {'prototypes':10} {'accuracy %':>16} {'TAR at FAR 1e-3 %':>18}")
    for name, settings in rows.items():
        for fixed in (True, False):
            values = torch.tensor(evaluate(settings, fixed), dtype=torch.float64) * 100
            mean, deviation = values.mean(0).tolist(), values.std(0).tolist() if len(values) > 1 else [math.nan] * 2
            pairs = zip(mean, deviation, strict=True)
            cells = [f"{m:.2f}" if math.isnan(d) else f"{m:.2f} ± {d:.2f}" for m, d in pairs]
            print(f"{name:20} {'fixed' if fixed else 'learnt':10} {cells[0]:>16} {cells[1]:>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare margins on fixed and on learnt prototypes.")
    parser.add_argument("parts", nargs="*", default=["digits", "identities"], help="digits, identities (default: both)")
    parser.add_argument("--seeds", type=int, default=3, help="networks on digits (default: 3)")
    parser.add_argument("--digit-epochs", type=int, default=40, help="epochs on digits (default: 40)")
    parser.add_argument("--identities", type=int, default=100_000, help="identities (default: 100000)")
    parser.add_argument("--dim", type=int, default=128, help="dimensions of identities (default: 128)")
    parser.add_argument("--sampled", type=int, default=2000, help="sampled classes (default: 2000)")
    parser.add_argument("--rows", type=int, default=1000, help="rows of a batch (default: 1000)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs over identities (default: 6)")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of free vectors (default: 0.1)")
    parser.add_argument("--noise", type=float, default=1.2, help="length of the noise (default: 1.2)")
    parser.add_argument("--tested", type=int, default=2000, help="identities of the test (default: 2000)")
    options = parser.parse_args()
    for part in options.parts:
        {"digits": digits, "identities": identities}[part](options)


if __name__ == "__main__":
    main()
