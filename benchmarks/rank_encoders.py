"""How well forecasts from the moments order a dozen encoders: Kendall's tau against a linear probe.

    python benchmarks/rank_encoders.py                          # digits, about a minute
    TIGHTFRAME_DATA=FOLDER python benchmarks/rank_encoders.py --data digits fashion-mnist

The last half of the classes is the task. Encoders are pixels, principal components, random and trained networks, and a
ResNet and a ViT of transformers with random weights. Networks were trained on the first half of the classes only, with
right or shuffled labels, except one that was trained on the task's own training images. `rank` orders the encoders by
the moments of the task's training features. The probe is scikit-learn's logistic regression on the same features,
standardised; its accuracy and that of the nearest class mean are of held-out images. tau = 1: the forecast orders the
encoders as that classifier does; two standard errors of a probe's accuracy are one to four points here, so that the
order of near encoders is partly chance.

With --samples 1000 --epochs 6, tau of the 5-shot forecast, LogME and the H-score was

    digits          probe  0.62  0.44  0.51    nearest class mean  0.83   0.03  0.23
    fashion-mnist   probe  0.01  0.43  0.49    nearest class mean  0.96  -0.25  0.38

A forecast serves for the classifier that it is about: features with unequal scales, as those of untrained networks, are
poor for the nearest class mean and good for a probe, which rescales them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import torch
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

import tightframe as tf

torch.set_num_threads(1)
Encoder = Callable[[Tensor], Tensor]


def convolutions(channels: int, seed: int, width: int = 16) -> nn.Sequential:
    """A small network with 4 * width features."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 4 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def trained(images: Tensor, labels: Tensor, epochs: int, seed: int, width: int = 16) -> nn.Sequential:
    """`convolutions` after so many epochs with a linear classifier, which is left out."""
    body = convolutions(images.shape[1], seed, width)
    head = nn.Linear(4 * width, int(labels.max()) + 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(head(body(images[batch])), labels[batch]).backward()
            optimizer.step()
    return body.eval()


def transformer_models(channels: int, seed: int = 0) -> Iterator[tuple[str, Encoder]]:
    """A ResNet and a ViT with random weights; none without the package transformers."""
    try:
        from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel
    except ImportError:
        print("transformers is not installed: two encoders are left out.")
        return
    torch.manual_seed(seed)
    resnet = ResNetModel(
        ResNetConfig(num_channels=channels, embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1])
    ).eval()
    vit = ViTModel(
        ViTConfig(
            image_size=32, patch_size=8, num_channels=channels, hidden_size=64, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=128,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    yield "ResNet, random", lambda images: resnet(interpolate(images, (32, 32))).pooler_output.flatten(1)
    yield "ViT, random", lambda images: vit(interpolate(images, (32, 32))).last_hidden_state[:, 0]


def encoders(images: Tensor, labels: Tensor, task: Tensor, own: Tensor, epochs: int) -> Iterator[tuple[str, Encoder]]:
    """The encoders: `images` and `labels` of other classes, `task` and `own` images and labels of the task."""
    flat = task.flatten(1)
    mean = flat.mean(0)
    _, _, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    torch.manual_seed(0)
    projection = torch.randn(flat.shape[1], 32) / flat.shape[1] ** 0.5
    yield "pixels", lambda rows: rows.flatten(1)
    for number in (4, 16):
        yield f"{number} components", lambda rows, n=number: (rows.flatten(1) - mean) @ axes[:n].T
    yield "projection, random", lambda rows: rows.flatten(1) @ projection
    yield "projection, ReLU", lambda rows: (rows.flatten(1) @ projection).relu()
    yield "network, random", convolutions(images.shape[1], 0).eval()
    yield "narrow network, random", convolutions(images.shape[1], 0, width=4).eval()
    shuffled = labels[torch.randperm(len(labels))]
    for name, targets, length, width in (
        ("other classes, short", labels, max(1, epochs // 6), 16),
        ("other classes", labels, epochs, 16),
        ("other classes, narrow", labels, epochs, 4),
        ("shuffled labels", shuffled, epochs, 16),
    ):
        yield name, trained(images, targets, length, 0, width)
    yield "own classes", trained(task, own, epochs, 0)
    yield from transformer_models(images.shape[1])


def compare(name: str, samples: int, epochs: int) -> dict[str, dict[str, float]]:
    """Rank and probe the encoders on a data set, print the table, and return tau by classifier and measure."""
    data = tf.datasets.load(name)
    half = data.num_classes // 2

    def part(images: Tensor, labels: Tensor, task: bool) -> tuple[Tensor, Tensor]:
        chosen = (labels >= half if task else labels < half).nonzero().flatten()[:samples]
        return images[chosen], labels[chosen] - half * task

    others, train, test = (
        part(data.train_images, data.train_labels, False),
        part(data.train_images, data.train_labels, True),
        part(data.test_images, data.test_labels, True),
    )
    features, accuracies, nearest = {}, {}, {}
    for encoder, function in encoders(*others, *train, epochs):
        with torch.no_grad():
            inside, outside = function(train[0]), function(test[0])
        features[encoder] = (inside, train[1])
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few hundred steps are enough for an order
            probe.fit(inside.numpy(), train[1].numpy())
        means = torch.stack([inside[train[1] == k].mean(0) for k in range(half)])
        nearest[encoder] = float((torch.cdist(outside, means).argmin(1) == test[1]).float().mean())
        accuracies[encoder] = float(probe.score(outside.numpy(), test[1].numpy()))
    order = tf.rank(features, progress=False)
    print(f"\n{name}: {len(train[0]):,} training and {len(test[0]):,} held-out images of {half} classes")
    keys = list(order.best.scores)
    print(f"{'encoder':24s}{'D':>5s}{'probe %':>9s}{'nearest %':>11s}" + "".join(f"{key:>10s}" for key in keys))
    for row in order.rows:
        cells = [100 * s.value if key.endswith("-shot") else s.value for key, s in row.scores.items()]
        numbers = "".join(f"{cell:10.3g}" for cell in cells)
        measured = f"{100 * accuracies[row.name]:9.1f}{100 * nearest[row.name]:11.1f}"
        print(f"{row.name:24s}{row.dimension:5d}{measured}{numbers}")
    for sentence in order.sentences():
        print(sentence)
    found = {}
    for what, values in (("the probe", accuracies), ("the nearest class mean", nearest)):
        measured_order = [values[row.name] for row in order.rows]
        taus = {key: float(kendalltau(measured_order, [r.scores[key].value for r in order.rows])[0]) for key in keys}
        print(f"Kendall's tau against {what}: " + ", ".join(f"{key} {tau:.2f}" for key, tau in taus.items()))
        found[what] = taus
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["digits"], help="Data sets; others than digits must be on disk.")
    parser.add_argument("--samples", type=int, default=2000, help="Limit images of each part. Default: 2000.")
    parser.add_argument("--epochs", type=int, default=12, help="Epochs of training. Default: 12.")
    options = parser.parse_args()
    for name in options.data:
        compare(name, options.samples, options.epochs)


if __name__ == "__main__":
    main()
