"""What the demonstration trains, and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.report import Report

PROFILES = ("step", "exponential")
"""How class sizes fall: to few samples after half of the classes, or by a constant factor from class to class."""


@dataclass(frozen=True)
class Settings:
    """What the demonstration trains; None takes the data set's or the head's default.

    Attributes:
        data: a name in `datasets.DATASETS`; data_folder: where its files are, if not in a usual place.
        ood: a name in `datasets.OUTSIDE`, the images for NC5.
        epochs, learning_rate, weight_decay, batch_size: of SGD with momentum 0.9, the rate cut tenfold after half
            and three quarters of the epochs.
        measurements: about how many times to measure, more densely at the start.
        layers: measured beside the classifier's input, as in `measure`: names, patterns, or "auto".
        head: a name in `demo.HEADS`; loss: one in `demo.TRAINING_LOSSES`.
        dim: of the prototypes; scale: of the logits.
        long_tail: ratio of the largest to the smallest class, by which training images are left out;
            profile: one of `PROFILES`.
        train_images: how many training images are used, drawn at random, before any are left out; default: all.
        incremental: number of sessions over which the classes arrive; each is trained for `epochs`.
        memory: images a class kept from earlier sessions.
    """

    data: str = "digits"
    data_folder: str | None = None
    ood: str = "photographs"
    epochs: int | None = None
    learning_rate: float = 0.05
    weight_decay: float | None = None
    batch_size: int = 128
    measurements: int = 12
    layers: tuple[str, ...] = ()
    seed: int = 0
    head: str = "linear"
    loss: str | None = None
    dim: int | None = None
    scale: float | None = None
    long_tail: float | None = None
    profile: str = "step"
    train_images: int | None = None
    incremental: int | None = None
    memory: int = 10


@dataclass(frozen=True)
class Progress:
    """What is known after each epoch: its number of `epochs`, mean loss and accuracy in training, latest report."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float
    report: Report | None
