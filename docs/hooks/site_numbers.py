"""Numbers that pages print: every convention on scikit-learn's digits, by the package itself."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import nn

import site_reference
from tightframe import Report, datasets, measure, metrics
from tightframe.sections import number

PAGE = "guides/which-number.md"
GROUPS = {
    "NC1": ("NC1", "scale"),
    "NC2": ("NC2",),
    "GNC2": ("GNC2",),
    "NC3": ("NC3",),
    "NC4": ("NC4",),
    "NC5": ("NC5",),
}
LARGEST, RATIO, STEPS = 120, 20, 300


def _network(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """A small network, trained on all images at once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-3)
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


@cache
def measured() -> dict[str, Report]:
    """Reports with every convention: of the pixels, and of networks trained on balanced and long-tailed images."""
    digits = datasets.load("digits")
    tailed = datasets.subsample(digits, datasets.step_counts(LARGEST, 10, RATIO))
    even = datasets.subsample(digits, [LARGEST] * 10)
    outside = datasets.load_outside("photographs", digits.image_shape, 200)
    options: dict[str, Any] = {"conventions": list(metrics.CONVENTIONS), "progress": False, "folds": None}
    pixels = [key for key, each in metrics.CONVENTIONS.items() if not {"weight", "classifier"} & set(each.metric.reads)]
    pixels = [
        key for key in pixels if not {"decisions", "outside", "bias"} & set(metrics.CONVENTIONS[key].metric.reads)
    ]
    reports = {
        "pixels": measure(even.train_images.flatten(1), even.train_labels, **{**options, "conventions": pixels}),
    }
    for name, data in (("network", even), ("long tail", tailed)):
        model = _network(data.train_images, data.train_labels)
        batch = [(data.train_images, data.train_labels)]
        reports[name] = measure(model, batch, ood=[(outside,)], **options)
    return reports


def values_of(key: str) -> dict[str, float | None]:
    """The values of a convention by data; None where the data have no classifier."""
    return {name: report[key].value if key in report.values else None for name, report in measured().items()}


def members_of(group: str) -> dict[str, metrics.Convention]:
    return {key: each for key, each in metrics.CONVENTIONS.items() if each.metric.family in GROUPS[group]}


def convention_table(group: str) -> str:
    """The variants of a phenomenon: the metric, its options, the conventions that have them, and the values."""
    variants: dict[tuple[Any, ...], list[str]] = {}
    for key, each in members_of(group).items():
        bound = [f"`{site_reference.options_of(each.metric)}`"] if each.metric.options else []
        bound += ["unit features"] if each.unit_features else []
        bound += ["decisions without bias"] if each.without_bias else []
        variants.setdefault((each.metric.function.__name__, ", ".join(bound)), []).append(key)
    rows = [
        (
            site_reference.link(f"metrics.{name}", PAGE, name),
            bound,
            ", ".join(f"`{key}`" for key in keys),
            *(number(value) for value in values_of(keys[0]).values()),
        )
        for (name, bound), keys in variants.items()
    ]
    return site_reference.table(("metric", "options", "conventions", *measured()), rows)


def paper_table(_: str) -> str:
    """The papers by the first part of their conventions' names."""
    papers: dict[str, dict[str, None]] = {}
    for key, each in metrics.CONVENTIONS.items():
        papers.setdefault(key.partition("/")[0], {})[each.source] = None
    return site_reference.table(
        ("name", "paper or code"), [(f"`{name}/…`", "; ".join(sources)) for name, sources in papers.items()]
    )


def spread_sentence(group: str) -> str:
    """The smallest and the largest value of the conventions that are called by one name, on the long tail."""
    (quantity,) = {each.quantity for each in members_of(group).values()} & {group.lower()}
    keys = [key for key, each in members_of(group).items() if each.quantity == quantity]
    sentences = []
    for name in measured():
        values = [value for key in keys if (value := values_of(key)[name]) is not None and not math.isnan(value)]
        if values:
            low, high = min(values), max(values)
            sentences.append(f"{number(low)} to {number(high)} ({name})")
    return f"{len(keys)} conventions are called “{quantity}”. Their values: {', '.join(sentences)}.\n"
