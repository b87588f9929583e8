"""The backbones that the demonstration trains."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from tightframe.demo.heads import FEATURES


class Normalise(nn.Module):
    """Pixels less their mean, divided by their standard deviation."""

    def __init__(self, mean: float, deviation: float):
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.deviation

    def extra_repr(self) -> str:
        return f"mean={self.mean:g}, deviation={self.deviation:g}"


def network(
    image_shape: tuple[int, int, int], num_classes: int, normalisation: tuple[float, float] | None = None
) -> nn.Sequential:
    """A multilayer perceptron for images up to 16x16, a small convolutional network for larger ones.

    Both end in batch normalisation, ReLU and the linear classifier, whose input is the feature. With `normalisation`,
    the mean and standard deviation of the pixels, both begin with `Normalise`.
    """
    channels, height, width = image_shape
    blocks: list[nn.Module] = [] if normalisation is None else [Normalise(*normalisation)]
    if is_small(image_shape):
        blocks.append(nn.Flatten())
        for fan_in, fan_out in pairwise([channels * height * width, 256, 256, FEATURES]):
            blocks += [nn.Linear(fan_in, fan_out), nn.BatchNorm1d(fan_out), nn.ReLU()]
    else:
        for fan_in, fan_out in pairwise([channels, 16, 32, 64]):
            blocks += [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)]
        positions = (height // 8) * (width // 8)
        blocks += [nn.Flatten(), nn.Linear(64 * positions, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()]
    return nn.Sequential(OrderedDict(features=nn.Sequential(*blocks), classifier=nn.Linear(FEATURES, num_classes)))


def is_small(image_shape: tuple[int, int, int]) -> bool:
    """Whether images are for the perceptron."""
    return max(image_shape[1:]) <= 16
