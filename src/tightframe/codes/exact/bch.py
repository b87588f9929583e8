"""Extended primitive binary BCH codes as sign vectors: nested codes, built one generator after the other.

A word of the code on GF(2^m) with the values x is the sum of Tr(a_e x^e) over some exponents e > 0, plus a constant. A
code has the exponents -i, modulo 2^m - 1, for all i that are no zero of its generator polynomial; zeros are 1, ..., d-2
and their conjugates for the designed distance d. Their order here, by decreasing i, makes every code a prefix of the
next one: after the linear words and the constant, which are an orthoplex, distances shrink as slowly as they can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tightframe.codes.exact.fields import Field


def bch(dim: int, n: int) -> Tensor:
    """The first n words of the extended BCH codes of length D = 2^m, as (±1, ..., ±1) / sqrt(D).

    The first 2^k words are the code of k bits, for every k of the family.
    Source: Bose & Ray-Chaudhuri 1960; Hocquenghem 1959.
    """
    return _sums(generators(dim, _bits(n)), n) / math.sqrt(dim)


def punctured_bch(dim: int, n: int) -> Tensor:
    """The first n words of length D + 1 = 2^m with 0 at x = 0, without that coordinate: no constant."""
    linear = dim.bit_length()
    signs = generators(dim + 1, max(_bits(n) + 1, linear + 1))
    return _sums(torch.cat([signs[:linear], signs[linear + 1 :]])[:, 1:], n) / math.sqrt(dim)


def generators(dim: int, bits: int) -> Tensor:
    """(-1)^word for the first independent words of the nested codes, (bits, D)."""
    degree = dim.bit_length() - 1
    field = Field(2, degree)
    elements = torch.arange(dim)
    trace = field.trace(elements)
    multiples = field.times(2 ** torch.arange(degree)[:, None], elements)  # of a basis
    words: list[Tensor] = []
    for place, exponent in enumerate(_exponents(degree)):
        if len(words) >= bits:
            break
        block = trace[multiples[:, field.power(elements, exponent)]]
        full = len(_conjugates(exponent, dim - 1)) == degree  # else powers lie in a smaller field
        words += block if full else _independent(block)
        if place == 0:
            words.append(torch.ones_like(elements))
    return 1.0 - 2.0 * torch.stack(words[:bits]).to(torch.float64)


def _bits(n: int) -> int:
    """The number of generators in the first n words, at least 1."""
    return max(n - 1, 1).bit_length()


def _exponents(degree: int) -> Iterator[int]:
    """-i for the smallest i > 0 of each class of conjugates, in decreasing order of i."""
    order = 2**degree - 1
    for i in range(order, 0, -1):
        if min(_conjugates(i % order, order)) == i:
            yield order - i


def _conjugates(exponent: int, order: int) -> set[int]:
    return {exponent * 2**power % order for power in range(order.bit_length())}


def _independent(words: Tensor) -> list[Tensor]:
    """The words of 0 and 1 that are no sum of words before."""
    leading: dict[int, Tensor] = {}
    chosen = []
    for word in words:
        rest = word
        while bool(rest.any()):
            first = int(rest.nonzero()[0])
            if first not in leading:
                leading[first] = rest
                chosen.append(word)
                break
            rest = rest ^ leading[first]
    return chosen


def _sums(signs: Tensor, n: int) -> Tensor:
    """Word j is the product of the generators (B, D) at the binary digits of j; the first n."""
    vectors = torch.ones(n, signs.shape[1], dtype=torch.float64)
    size = 1
    for sign in signs:
        following = vectors[size : 2 * size]
        torch.mul(vectors[: len(following)], sign, out=following)
        size *= 2
    return vectors
