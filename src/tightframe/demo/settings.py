"""`Settings`: all options of the demonstration, from which the command line is generated; torch isn't imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tightframe.choices import require_choice
from tightframe.datasets import DATASETS, OUTSIDE, exponential_counts, step_counts
from tightframe.demo.heads import HEADS, LABELS, LOSSES, PROTOTYPES
from tightframe.errors import OptionError, RangeError
from tightframe.flags import option

MEMORY = 10  # images


@dataclass(frozen=True)
class Profile:
    """How class sizes fall in a long tail.

    Attributes:
        counts: sizes from the largest class, the number of classes and the ratio.
        groups: names of groups of classes; edges: the first class of each, and K, from K.
    """

    counts: Callable[[int, int, float], list[int]]
    groups: tuple[str, ...]
    edges: Callable[[int], tuple[int, ...]]

    def classes(self, num_classes: int) -> dict[str, range]:
        """The classes of each group."""
        return {name: range(*edges) for name, edges in zip(self.groups, pairwise(self.edges(num_classes)), strict=True)}


PROFILES: dict[str, Profile] = {
    "step": Profile(step_counts, ("majority", "minority"), lambda K: (0, (K + 1) // 2, K)),
    "exponential": Profile(
        exponential_counts,
        ("many-shot", "medium-shot", "few-shot"),
        lambda K: (0, round(K / 3), round(2 * K / 3), K),
    ),
}

_CHOICES: dict[str, Any] = {"data": DATASETS, "ood": OUTSIDE, "head": HEADS, "loss": LOSSES, "profile": PROFILES}
_LEAST = {
    **{"epochs": 1, "weight_decay": 0, "batch_size": 2, "measurements": 2, "seed": 0, "dim": 1, "long_tail": 1},
    **{"train_images": 2, "incremental": 1, "memory": 0},
}
_POSITIVE = ("learning_rate", "scale")


def _by_data(name: str) -> str:
    """The values of a field of `DATASETS`, each with its data sets."""
    names: dict[float, list[str]] = {}
    for row in DATASETS.values():
        names.setdefault(getattr(row, name), []).append(row.name)
    return ", ".join(f"{value:g} for {' and '.join(rows)}" for value, rows in names.items())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of the demonstration: each field with its default, its flag and its sentence in the flag's help.

    Raises: ChoiceError for unknown names; RangeError for numbers out of range; OptionError for options that need
    another or exclude each other.
    """

    data: str = option("digits", f"Data set to train on: {', '.join(DATASETS)}; see `tightframe datasets`.")
    data_folder: Path | None = option(None, "Folder that holds the files of --data.", type=Path)
    ood: str = option("photographs", f"Out-of-distribution images for NC5: {', '.join(OUTSIDE)}.")
    epochs: int | None = option(
        None, f"Number of epochs. Default: {_by_data('epochs')}; per session {_by_data('session_epochs')}.", type=int
    )
    learning_rate: float = option(0.05, "Learning rate of SGD; divided by 10 at 50 % and 75 % of the epochs.")
    weight_decay: float | None = option(None, f"Weight decay of SGD. Default: {_by_data('weight_decay')}.", type=float)
    batch_size: int = option(128, "Images per batch.")
    measurements: int = option(12, "Approximate number of measurements, denser at the start.")
    layers: tuple[str, ...] = option(
        (), "Measure layers too: auto (every block), or names and patterns; repeatable.", type=list[str]
    )
    seed: int = option(0, "Seed for the random number generator.")
    head: str = option("linear", f"Classifier head: {', '.join(HEADS)}.")
    loss: str | None = option(None, f"Loss: {', '.join(LOSSES)}. Default: the head's.", type=str)
    dim: int | None = option(None, "Dimension of the prototypes. Default: the head's.", type=int)
    scale: float | None = option(None, "Scale of the logits. Default: the head's, 16 for cosines.", type=float)
    long_tail: float | None = option(
        None, "Make classes unequal by leaving images out: ratio of the largest class to the smallest.", type=float
    )
    profile: str | None = option(
        None,
        f"Shape of --long-tail: {', '.join(PROFILES)}. Default: step, where half of the classes are small.",
        type=str,
    )
    train_images: int | None = option(None, "Number of training images, drawn at random. Default: all.", type=int)
    incremental: int | None = option(None, "Number of sessions in which the classes arrive.", type=int)
    memory: int | None = option(
        None, f"Images per class that --incremental keeps from earlier sessions. Default: {MEMORY}.", type=int
    )

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) is not None:
                require_choice(getattr(self, name), choices, name)
        self._require_ranges()
        self._require_head()
        for name, needed in (("memory", "incremental"), ("profile", "long_tail")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise OptionError(f"{name} needs {needed}=.")

    def _require_ranges(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise RangeError(f"{name} must be at least {least}; got {value}.")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RangeError(f"{name} must be finite and above 0; got {value}.")
        if self.seed >= 1 << 63:
            raise RangeError(f"seed must be below 2^63; got {self.seed}.")
        K = DATASETS[self.data].num_classes
        most = max(sessions for sessions in range(1, K + 1) if sessions == 1 or round(K / sessions) > 1)
        if self.incremental is not None and self.incremental > most:
            raise RangeError(
                f"incremental must be at most {most}, so that the first session has 2 of the {K} classes; got "
                f"{self.incremental}."
            )

    def _require_head(self) -> None:
        """The head and the loss fit the other options."""
        row, head = DATASETS[self.data], HEADS[self.head]
        names = {"head": self.head, "loss": self.loss or head.loss}
        lacks = f"data={self.data!r} has no tree of classes"
        without_costs = (LABELS, PROTOTYPES)
        rules: tuple[tuple[bool, str, str, str, tuple[object, ...]], ...] = (
            (self.dim is not None, "dim needs prototypes", "head", "has_prototypes", (True,)),
            (self.scale is not None, "scale needs prototypes", "head", "has_prototypes", (True,)),
            (True, f"head={self.head!r} limits the losses", "loss", "needs", head.takes),
            (row.tree is None, lacks, "head", "needs_tree", (False,)),
            (row.tree is None, lacks, "loss", "needs", without_costs),
            (self.incremental is not None, "incremental adds classes", "head", "grows", (True,)),
            (self.incremental is not None, "incremental adds classes", "loss", "needs", without_costs),
        )
        for applies, reason, name, attribute, allowed in rules:
            fitting = [key for key, each in _CHOICES[name].items() if getattr(each, attribute) in allowed]
            if applies and names[name] not in fitting:
                raise OptionError(f"{reason}: {name} must be one of {', '.join(fitting)}; got {names[name]!r}.")

    def filled(self) -> Settings:
        """The same with the defaults of the data set and the head in place of None."""
        row = DATASETS[self.data]
        default_epochs = row.epochs if self.incremental in (None, 1) else row.session_epochs
        return replace(
            self,
            epochs=default_epochs if self.epochs is None else self.epochs,
            weight_decay=row.weight_decay if self.weight_decay is None else self.weight_decay,
            loss=self.loss or HEADS[self.head].loss,
            profile=None if self.long_tail is None else self.profile or "step",
            memory=None if self.incremental is None else MEMORY if self.memory is None else self.memory,
        )
