"""Codes made of orthonormal bases: a Hadamard basis, twisted by quadratic forms over GF(2).

The basis of a form Q on GF(2)^m has the vectors (-1)^(Q(x) + l(x)) / sqrt(D), x in GF(2)^m, D = 2^m, one for each
linear form l. Between the bases of two forms |cosine| is 0 or 2^(-r/2), r the rank of their difference; to the standard
basis it is 1/sqrt(D). Each basis is followed by its negative, so that the first D vectors are an orthonormal frame and
the first 2 D an orthoplex. All forms vanish at x = 0, where every vector before its negative has 1: without the
negatives and the standard basis, that coordinate can be deleted ("punctured"), which leaves simplices of D vectors.
Everything is built basis by basis, so the first n vectors cost what they occupy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.codes.exact.fields import Field


def kerdock(dim: int, n: int) -> Tensor:
    """The first n of D (D + 2) vectors in D = 4^m dimensions, |cosine| 0 or 1/sqrt(D): D/2 + 1 unbiased bases.

    As lines they attain Levenshtein's bound. Source: Kerdock 1972; Calderbank, Cameron, Kantor & Seidel 1997.
    """
    return _bases(_kerdock_twists(dim, math.ceil(n / (2 * dim)) - 1), n)


def gold(dim: int, n: int) -> Tensor:
    """The first n of 2 D (D + 1) vectors in D = 2^m dimensions, m odd, |cosine| at most sqrt(2 / D).

    Source: Gold 1968.
    """
    return _bases(_gold_twists(dim, math.ceil(n / (2 * dim)) - 1), n)


def punctured_kerdock(dim: int, n: int) -> Tensor:
    """The first n of (D + 1)²/2 vectors in D = 4^m - 1 dimensions, cosine at most 1/(1 + sqrt(D + 1))."""
    return _simplices(_kerdock_twists(dim + 1, math.ceil(n / (dim + 1))), n)


def punctured_gold(dim: int, n: int) -> Tensor:
    """The first n of (D + 1)² vectors in D = 2^m - 1 dimensions, m odd, cosine at most (sqrt(2 (D + 1)) - 1)/D."""
    return _simplices(_gold_twists(dim + 1, math.ceil(n / (dim + 1))), n)


def _kerdock_twists(dim: int, count: int) -> Tensor:
    """(-1)^Q for the first `count` forms of a Kerdock set: differences of full rank.

    On GF(2^m) + GF(2), m odd, Q_a(x, e) = sum of Tr((a x)^(2^i + 1)) over 1 <= i <= (m - 1)/2, plus e Tr(a x).
    """
    degree = dim.bit_length() - 2
    field = Field(2, degree)
    elements = torch.arange(dim // 2)
    trace = field.trace(elements)
    terms = [trace[field.power(elements, 2**i + 1)] for i in range(1, (degree + 1) // 2)]
    form = torch.stack(terms).sum(dim=0)
    multiple = field.times(elements[:count, None], elements)
    return 1.0 - 2.0 * (torch.cat([form[multiple], form[multiple] + trace[multiple]], dim=1) % 2)


def _gold_twists(dim: int, count: int) -> Tensor:
    """(-1)^Q for the first `count` forms Q_a(x) = Tr(a x³) on GF(2^m), m odd: differences of rank m - 1."""
    field = Field(2, dim.bit_length() - 1)
    elements = torch.arange(dim)
    return 1.0 - 2.0 * field.trace(elements)[field.times(elements[:count, None], field.power(elements, 3))]


def _bases(twists: Tensor, n: int) -> Tensor:
    """The standard basis, the Hadamard basis times each row of `twists` (B, D), each with its negative; the first n."""
    dim = twists.shape[1]
    hadamard = _hadamard(dim) / math.sqrt(dim)
    vectors = torch.empty(n, dim, dtype=torch.float64)
    for block, rows in enumerate(vectors.split(2 * dim)):
        basis = hadamard * twists[block - 1] if block else torch.eye(dim, dtype=torch.float64)
        rows.copy_(torch.cat([basis, -basis])[: len(rows)])
    return vectors


def _simplices(twists: Tensor, n: int) -> Tensor:
    """The Hadamard basis times each row of `twists` (B, D + 1) without the coordinate that is always 1; first n."""
    dim = twists.shape[1] - 1
    hadamard = _hadamard(dim + 1)[:, 1:] / math.sqrt(dim)
    vectors = torch.empty(n, dim, dtype=torch.float64)
    for twist, rows in zip(twists, vectors.split(dim + 1), strict=True):
        torch.mul(hadamard[: len(rows)], twist[1:], out=rows)
    return vectors


def _hadamard(dim: int) -> Tensor:
    """Sylvester's matrix: row l has (-1)^(number of ones of l & x) at x."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < dim:
        matrix = torch.cat([torch.cat([matrix, matrix], dim=1), torch.cat([matrix, -matrix], dim=1)])
    return matrix
