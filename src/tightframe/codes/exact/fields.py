"""Finite fields GF(p^m), on tensors."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Element = TypeVar("Element", int, Tensor)


class Field:
    """GF(p^m) for a prime p. Elements are the integers below p^m; their base-p digits are a polynomial's coefficients.

    Attributes: `order`, p^m. Sums are taken digit by digit, products through logarithms to a primitive element.
    """

    def __init__(self, prime: int, degree: int) -> None:
        self.order = prime**degree
        self._prime = prime
        self._places = [prime**digit for digit in range(degree)]
        self._exponential = torch.tensor(self._powers_of_x())
        self._logarithm = torch.zeros(self.order, dtype=torch.int64)
        self._logarithm[self._exponential] = torch.arange(self.order - 1)

    def _powers_of_x(self) -> list[int]:
        """1, x, x^2, ... modulo the first polynomial x^m - tail for which they are all non-zero elements."""
        for tail in range(1, self.order):
            powers = [1]
            while len(powers) < self.order:
                lead, rest = divmod(powers[-1] * self._prime, self.order)
                for _ in range(lead):
                    rest = self.plus(rest, tail)
                if rest in (0, 1):
                    break
                powers.append(rest)
            if len(powers) == self.order - 1:
                return powers
        raise AssertionError("every finite field has a primitive element")

    def plus(self, left: Element, right: Element) -> Element:
        """left + right, broadcast."""
        total = (left + right) % self._prime
        for place in self._places[1:]:
            total = total + (left // place + right // place) % self._prime * place
        return total

    def times(self, left: Tensor, right: Tensor) -> Tensor:
        """left · right, broadcast."""
        if len(self._places) == 1:
            return left * right % self._prime
        product = self._exponential[(self._logarithm[left] + self._logarithm[right]) % (self.order - 1)]
        return product.masked_fill_((left == 0) | (right == 0), 0)

    def power(self, element: Tensor, exponent: int) -> Tensor:
        """element^exponent, for an exponent >= 1."""
        return self._exponential[self._logarithm[element] * exponent % (self.order - 1)].masked_fill_(element == 0, 0)

    def trace(self, element: Tensor) -> Tensor:
        """The sum of element^(p^i) over i < m: an integer below p."""
        total = element
        for place in self._places[1:]:
            total = self.plus(total, self.power(element, place))
        return total
