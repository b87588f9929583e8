"""Poles for regression, and the cosines that stand for values."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes.poles import pole_cosine, pole_value, poles


def test_poles_are_opposite_and_targets_orthogonal() -> None:
    prototypes = poles(3, 5)
    assert prototypes.provenance["num_targets"] == 3
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for target in range(3):
        expected[2 * target : 2 * target + 2, 2 * target : 2 * target + 2] = torch.tensor([[1.0, -1], [-1, 1]])
    assert torch.equal(prototypes.vectors @ prototypes.vectors.mT, expected)
    assert poles(1, 2).vectors.tolist() == [[-1, 0], [1, 0]]
    assert math.copysign(1, poles(1, 2).vectors[0, 1].item()) == 1  # no negative zero


def test_the_cosine_to_the_upper_pole_stands_for_the_value() -> None:
    values = torch.tensor([[18.0, 34], [50, 26]], dtype=torch.float64)
    cosines = pole_cosine(values, 18, 50)
    assert cosines.tolist() == [[-1, 0], [1, -0.5]]
    assert_close(pole_value(cosines, 18, 50), values)
    angle = math.acos(-0.5)
    output = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    lower, upper = poles(1, 2).vectors
    assert pole_value(output @ upper, 18, 50).item() == pytest.approx(26)
    assert pole_value(-(output @ lower), 18, 50).item() == pytest.approx(26)
    assert pole_value(torch.tensor(1.0 + 1e-7, dtype=torch.float64), 18, 50) > 50


def test_gradients() -> None:
    values = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda y: pole_cosine(y, 0.0, 2.0), values)
    assert gradcheck(lambda r: pole_value(r, 0.0, 2.0), values)


@pytest.mark.parametrize("num_targets", [0, 3])
def test_axes_must_fit(num_targets: int) -> None:
    message = rf"num_targets must be at least 1 and at most 2 \(D\), .*; got {num_targets}\. Increase dim"
    with pytest.raises(DimensionError, match=message):
        poles(num_targets, 2)
    with pytest.raises(DimensionError, match="dim must be at least 1; got 0"):
        poles(1, 0)


def test_values_must_lie_between_the_poles() -> None:
    with pytest.raises(RangeError, match=r"in \[0, 2\]; got 2.5 \(2 of 3 outside\)"):
        pole_cosine(torch.tensor([1.0, 2.5, math.nan]), 0, 2)
    for bounds in ((2, 2), (3, 2), (0, math.nan)):
        with pytest.raises(RangeError, match="lower must be less than upper"):
            pole_cosine(torch.ones(1), *bounds)
        with pytest.raises(RangeError, match="lower must be less than upper"):
            pole_value(torch.ones(1), *bounds)
