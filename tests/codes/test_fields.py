"""Finite fields: their laws, tried on all elements."""

import pytest
import torch

from tightframe.codes.exact.fields import Field

FIELDS = [(2, 1), (3, 1), (7, 1), (2, 2), (2, 3), (3, 2), (5, 2), (3, 3)]


@pytest.mark.parametrize(("prime", "degree"), FIELDS)
def test_laws(prime: int, degree: int) -> None:
    field = Field(prime, degree)
    assert field.order == prime**degree
    elements = torch.arange(field.order)
    a, b, c = elements[:, None, None], elements[:, None], elements
    for operation in (field.plus, field.times):
        assert torch.equal(operation(a, operation(b, c)), operation(operation(a, b), c))
        assert torch.equal(operation(b, c), operation(c, b))
    assert torch.equal(field.times(a, field.plus(b, c)), field.plus(field.times(a, b), field.times(a, c)))
    assert torch.equal(field.plus(elements, torch.tensor(0)), elements)
    assert torch.equal(field.times(elements, torch.tensor(1)), elements)
    every = elements.expand(field.order, -1)
    assert torch.equal(field.plus(b, c).sort(dim=1).values, every)  # subtraction
    assert torch.equal(field.times(b, c)[1:].sort(dim=1).values, every[1:])  # division


@pytest.mark.parametrize(("prime", "degree"), FIELDS)
def test_powers_and_trace(prime: int, degree: int) -> None:
    field = Field(prime, degree)
    elements = torch.arange(field.order)
    cube = field.times(elements, field.times(elements, elements))
    assert torch.equal(field.power(elements, 3), cube)
    assert torch.equal(field.power(elements, field.order), elements)  # Fermat
    trace = field.trace(elements)
    assert trace.max() < prime  # in the prime field, each value for equally many elements
    assert trace.bincount().tolist() == [field.order // prime] * prime
    assert torch.equal(field.trace(field.plus(elements[:, None], elements)), (trace[:, None] + trace) % prime)


def test_the_field_of_four() -> None:
    field = Field(2, 2)
    assert int(field.times(torch.tensor(2), torch.tensor(2))) == 3  # x² = x + 1
    assert int(field.plus(torch.tensor(3), torch.tensor(2))) == 1
