"""`list_layers`: the layers of a model that can be measured, with shapes and memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from tightframe.hooks.capture import capture
from tightframe.hooks.layers import Layer, choose_layers, classifier_of
from tightframe.hooks.positions import POSITIONS
from tightframe.hooks.wrappers import bare_model, evaluation
from tightframe.statistics import StatisticsAccumulator


@dataclass(frozen=True)
class LayerListing:
    """One layer of a model, from a dry run.

    Attributes:
        name: name of the module; kind: its class.
        shape: shape of its output, after the layer's own positions or the pooling of samples of different lengths.
        features: D, for the chosen positions.
        samples_per_row: number of samples per row of the batch: 1, or the number of positions.
        num_classes: K of the model's classifier; None without a classifier.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    features: int
    samples_per_row: int
    num_classes: int | None = None

    def statistics_bytes(self, num_classes: int, *, covariance: bool = True) -> int:
        """Approximate memory in bytes of a statistics accumulator for `num_classes` classes."""
        return StatisticsAccumulator.memory(num_classes, self.features, covariance=covariance)

    def __str__(self) -> str:
        memory = "" if self.num_classes is None else f"  {self.statistics_bytes(self.num_classes) / 2**20:,.1f} MiB"
        return f"{self.name:32s} {self.kind:20s} {self.shape!s:20s} D = {self.features}{memory}"


def list_layers(
    model: nn.Module,
    *inputs: Any,
    layers: str | Layer | Iterable[str | Layer] = "*",
    positions: str = "mean",
    **keyword_inputs: Any,
) -> list[LayerListing]:
    """Run the model once on some inputs and list the layers with features, in the order of the calls.

    A printed listing shows shape, D, and the memory of the statistics for the classifier's classes.

    Args:
        inputs, keyword_inputs: arguments of the model; one or two rows are enough.
        layers: as in `capture`. Default: every module.
        positions: a name in `POSITIONS`, for layers without their own positions.

    Raises: LayerError for names that match no module, and for samples of different lengths unless positions are mean,
    first or last.

    >>> from torch import nn
    >>> from tightframe import list_layers
    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    >>> for layer in list_layers(model, torch.ones(2, 1, 8, 8), layers="auto"):
    ...     print(layer.name, layer.shape, layer.features, layer.statistics_bytes(num_classes=10))
    1 (2, 8, 6, 6) 8 200512
    input of 3 (2, 288) 288 4106464
    """
    bare = bare_model(model)
    points = choose_layers(bare, layers)
    head = classifier_of(bare)
    classes = None if head is None or head.weight is None else len(head.weight)
    listings = []
    with evaluation(bare), capture(bare, points) as features:
        features.ragged_positions = positions
        bare(*inputs, **keyword_inputs)
    for name, tensor in features.take().items():
        point = features.point_of(name)
        pooled = point.positions is not None or tensor.ndim == 2
        rows = tensor if pooled else POSITIONS[positions](tensor, point.feature_dim)
        samples = prod(rows.shape[1:-1])
        kind = type(point.module).__name__
        listings.append(LayerListing(name, kind, tuple(tensor.shape), rows.shape[-1], samples, classes))
    return listings
