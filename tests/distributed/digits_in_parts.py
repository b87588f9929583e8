"""The digits in as many parts as there are processes, a network for them, and reports as plain numbers."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tightframe import datasets

SPLITS = {"train": 1397, "test": 397, "ood": 251}  # odd: parts of 2 and 4 processes are made equal by repeating samples
CONVENTIONS = ("papyan-2020/nc1", "zhu-2021/nc2", "jiang-2023/nc1", "wu-papyan-2024/nc4", "jiang-2023/gnc2")
OPTIONS: dict[str, Any] = {"layers": "auto", "conventions": CONVENTIONS, "folds": 4, "progress": False}
NARROW_BYTES = 9000  # for scatter: none of the network's layers fits, the spans of ten class means in all three do
ONE_HOLDER = 9  # a class that only the last process has, in plain parts

Batches = list[tuple[Tensor, Tensor]]


@cache
def split(name: str) -> tuple[Tensor, Tensor]:
    """Images and labels; those out of distribution are noise, labelled 0."""
    digits = datasets.load("digits")
    if name == "ood":
        images = datasets.load_outside("noise", digits.image_shape, SPLITS[name])
        return images, torch.zeros(len(images), dtype=torch.int64)
    images, labels = {
        "train": (digits.train_images, digits.train_labels),
        "test": (digits.test_images, digits.test_labels),
    }[name]
    return images[: SPLITS[name]], labels[: SPLITS[name]]


def network() -> nn.Sequential:
    """A perceptron with batch normalisation, which ends in its classifier."""
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in ((64, 96), (96, 48), (48, 32)):
        layers += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def padded(name: str, dtype: torch.dtype, size: int, *, shuffle: bool = False) -> DataLoader[Any]:
    """This process's part as a DistributedSampler gives it."""
    images, labels = split(name)
    data = TensorDataset(images.to(dtype), labels)
    sampler: DistributedSampler[Any] = DistributedSampler(data, shuffle=shuffle)
    return DataLoader(data, size, sampler=sampler)


def everything(name: str, dtype: torch.dtype) -> Batches:
    """All samples in one process."""
    images, labels = split(name)
    return list(zip(images.to(dtype).split(256), labels.split(256), strict=True))


def plain(name: str, rank: int, world: int, dtype: torch.dtype, *, idle: int | None = None) -> Batches:
    """This process's part of another division: parts and batches of other sizes in each, classes that some lack.

    Args:
        idle: a process that has nothing.
    """
    images, labels = split(name)
    draws = torch.rand(len(labels), generator=torch.Generator().manual_seed(world), dtype=torch.float64)
    owners = (draws.sqrt() * world).long()
    owners[labels == ONE_HOLDER] = world - 1
    if idle is not None:
        owners[owners == idle] = (idle + 1) % world
    images, labels = images[owners == rank].to(dtype), labels[owners == rank]
    if len(labels) == 0:
        return []
    size = 30 + 10 * rank
    return list(zip(images.split(size), labels.split(size), strict=True))


def numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a report given as plain data, of its layers too, by a name that says which one it is."""
    found: dict[str, float] = {}
    for part in (*report.get("layers", ()), report):
        where = part["facts"]["layer"]
        for entry in part["entries"]:
            key = f"{where}: {entry['split']}/{entry['name']}"
            for field in ("value", "target", "floor", "shuffled", "shuffled_spread", "standard_error"):
                if entry[field] is not None:
                    # each process deals its own samples to folds, so jackknife errors are others, as good
                    by_fold = field == "standard_error" and entry["family"] not in ("NC4", "accuracy", "OOD")
                    found[f"{key} ({field})"] = 1.0 if by_fold else float(entry[field])
        for row in part.get("coverage", ()):
            least = row["min_count"]
            found |= {f"{where}: {name} of {least} samples": float(value) for name, value in row["values"].items()}
        for each in part.get("distances", ()):
            found |= {f"{where}: {each['what']} to {name}": value for name, value in each["distances"].items()}
    return found


def without_ranks(report: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A report without AUROC and FPR, and these: they count pairs and samples by the order of scores, which rounding
    may turn."""
    entries = [entry for entry in report["entries"] if not entry["name"].endswith("_auroc")]
    detection = report["detection"]
    curve = [{"name": f"curve {n}"} for n in detection["curve"]["components"]]
    for key in ("auroc", "fpr95"):
        for row, value in zip(curve, detection["curve"][key], strict=True):
            row[key] = value
    ranks = {f"{row['name']} {key}": row[key] for row in (*detection["rows"], *curve) for key in ("auroc", "fpr95")}
    return {**report, "entries": entries, "detection": None}, ranks


def facts(report: Mapping[str, Any]) -> list[Any]:
    """What a report says in counts and words, layer by layer; without when and by how many processes it was
    measured, and without the gap of batch normalisation, which is estimated on some rows, and errors by fold."""
    left_out = ("processes", "epoch", "measuring_seconds", "normalisation_gap")
    return [
        (
            {key: value for key, value in part["facts"].items() if key not in left_out},
            part["context"],
            [(row["min_count"], row["classes"], row["samples"]) for row in part.get("coverage", ())],
            part.get("class_accuracies"),
            [(each["what"], each["nearest"], each["next"]) for each in part.get("distances", ())],
            [note for note in part["notes"] if "blip" not in note],
        )
        for part in (*report.get("layers", ()), report)
    ]


def largest_difference(mine: dict[str, float], expected: dict[str, float], zero: float = 1e-12) -> tuple[float, str]:
    """The largest relative difference and where it is; values whose expectation is 0 differ by 0 up to `zero`."""
    assert mine.keys() == expected.keys()
    worst = (0.0, "")
    for key, value in expected.items():
        if math.isnan(value) or math.isinf(value):
            gap = 0.0 if repr(value) == repr(mine[key]) else math.inf
        elif value == 0:
            gap = 0.0 if abs(mine[key]) <= zero else math.inf
        else:
            gap = abs(mine[key] - value) / abs(value)
        worst = max(worst, (gap, key))
    return worst
