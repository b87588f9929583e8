"""Features that a layer confines to a hyperplane: what single and half precision leave outside it is no direction."""

import math

import pytest
import torch
from torch import Tensor, nn

from tightframe import ClassStatistics, StatisticsAccumulator, metrics
from tightframe.errors import GeometryWarning
from variants import VARIANTS

SHAPES = [(8, 12, 50), (8, 50, 3), (64, 100, 10), (64, 400, 2)]  # dimensions, more classes, samples of each
NAMES = ("nc1", "nc1_sample_centred", "nc1_discriminant", "within_in_mean_span", "vci")
pytestmark = pytest.mark.filterwarnings("ignore:the centred class means span")


def normalised(dim: int, classes: int, each: int) -> tuple[nn.LayerNorm, Tensor, Tensor]:
    labels = torch.arange(classes).repeat_interleave(each)
    means = torch.randn(classes, dim, dtype=torch.float64)
    inputs = means[labels] + 0.5 * torch.randn(len(labels), dim, dtype=torch.float64) + 3
    layer = nn.LayerNorm(dim).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_()
    return layer, inputs, labels


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_after_a_layer_norm(shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float) -> None:
    layer, inputs, labels = normalised(*shape)
    exact = ClassStatistics.from_features(layer(inputs), labels, shape[1])
    rounded = layer.float()(inputs.float()).to(dtype)
    accumulator = StatisticsAccumulator(shape[1], shape[0])
    accumulator.update(rounded, labels)
    for statistics in (ClassStatistics.from_features(rounded, labels, shape[1]), accumulator.compute()):
        for name in NAMES:
            expected = VARIANTS[name](exact).item()
            assert VARIANTS[name](statistics).item() == pytest.approx(expected, rel=tolerance), name


def test_the_lost_direction_is_named() -> None:
    layer, inputs, labels = normalised(8, 12, 50)
    statistics = ClassStatistics.from_features(layer.float()(inputs.float()).detach(), labels, 12)
    with pytest.warns(GeometryWarning, match="span 7 of 8 possible dimensions"):
        metrics.nc1(statistics)


def test_real_directions_are_kept_however_narrow() -> None:
    """Class means that differ by a ten-thousandth of the features' size in one direction, in single precision."""
    labels = torch.arange(20).repeat_interleave(50)
    means = torch.randn(20, 6, dtype=torch.float64) * torch.tensor([1, 1, 1, 1, 1, 1e-4])
    exact = means[labels] + torch.randn(1000, 6, dtype=torch.float64) * torch.tensor([1, 1, 1, 1, 1, 1e-4]) / 2
    values = [metrics.nc1(ClassStatistics.from_features(x, labels, 20)).item() for x in (exact, exact.float())]
    assert values[1] == pytest.approx(values[0], rel=1e-5)


def test_it_is_merged_saved_and_put_back(tmp_path) -> None:
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.arange(40) % 4
    fine, coarse = (ClassStatistics.from_features(x.to(d), y, 4) for d in (torch.float64, torch.float32))
    sizes = torch.stack([x[y == k].square().mean().sqrt() for k in range(4)])
    torch.testing.assert_close(fine.rounding, 2.0**-50 * (2 + math.sqrt(5)) * sizes)
    torch.testing.assert_close(coarse.rounding, 2.0**-23 * (2 + math.sqrt(5)) * sizes, rtol=1e-5, atol=0)
    both = ((fine.rounding.square() + coarse.rounding.square()) / 2).sqrt()  # a mean over samples
    torch.testing.assert_close(fine.merge(coarse).rounding, both)
    torch.testing.assert_close(coarse.merge(fine).rounding, both)
    torch.testing.assert_close(coarse.merge(fine).subtract(fine).rounding, coarse.rounding)
    coarse.save(tmp_path / "s.safetensors")
    assert torch.equal(ClassStatistics.load(tmp_path / "s.safetensors").rounding, coarse.rounding)
    accumulator, other = StatisticsAccumulator(4, 5), StatisticsAccumulator(4, 5)
    accumulator.update(x.bfloat16(), y)
    other.load_state_dict(accumulator.state_dict())
    assert torch.equal(other.compute().rounding, accumulator.compute().rounding)
    assert (accumulator.compute().rounding > coarse.rounding).all()
    third = StatisticsAccumulator(4, 5)
    third.update(x, y)
    third.merge(accumulator)
    torch.testing.assert_close(third.compute().rounding, accumulator.compute().rounding, rtol=1e-2, atol=0)
