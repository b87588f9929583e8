"""The regular polytopes for every number of vectors: simplex, orthoplex, polygon, and corners of a cube."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def simplex_columns(num_vectors: int) -> tuple[Tensor, Tensor]:
    """Entries of column j of `simplex` on the diagonal and below it: both (K - 1,).

    Kasarla's recursion scales column j by sqrt(1 - 1/m^2) for m = K - 1, ..., K - j; the product telescopes.
    """
    left = torch.arange(num_vectors - 1, 0, -1, dtype=torch.float64)  # number of vectors that are equal after column j
    diagonal = (num_vectors * left / ((num_vectors - 1) * (left + 1))).sqrt()
    return diagonal, -diagonal / left


def simplex(num_vectors: int) -> Tensor:
    """K vectors with all cosines -1/(K-1), (K, K - 1), lower triangular."""
    diagonal, below = simplex_columns(num_vectors)
    vectors = below.repeat(num_vectors, 1).tril_(-1)
    vectors.diagonal().copy_(diagonal)
    return vectors


def orthoplex(num_vectors: int, dim: int) -> Tensor:
    """The first K of e_1, ..., e_D, -e_1, ..., -e_D."""
    axes = torch.eye(min(num_vectors, dim), dim, dtype=torch.float64)
    return torch.cat([axes, -axes[: num_vectors - len(axes)]])


def polygon(num_vectors: int) -> Tensor:
    """The corners of the regular K-gon, anticlockwise from e_1, (K, 2), accurate to an ulp."""
    quarter = 4 * torch.arange(num_vectors)
    turns = (2 * quarter + num_vectors) // (2 * num_vectors)  # whole quarter turns; the rest is at most an eighth
    rest = (quarter - turns * num_vectors).to(torch.float64) * (math.pi / 2 / num_vectors)
    cosine, sine = rest.cos(), rest.sin()
    around = torch.stack([cosine, sine, -cosine, -sine])  # a quarter turn takes (x, y) to (-y, x)
    return torch.stack([around.gather(0, (first - turns)[None] % 4)[0] for first in (0, 1)], dim=1)


def hypercube(num_vectors: int, dim: int) -> Tensor:
    """The first K words of a binary linear code as (±1, ..., ±1)/sqrt(D); K <= 2^D.

    Each coordinate is the parity that separates most pairs of words, with the largest weight on the nearest pairs.
    """
    masks, _ = parities(max(num_vectors - 1, 1).bit_length(), dim)
    different, columns = torch.tensor(masks).unique(return_inverse=True)
    return _parity_signs(torch.arange(num_vectors)[:, None] & different)[:, columns] / math.sqrt(dim)


def _parity_signs(words: Tensor) -> Tensor:
    """(-1)^(number of ones) of non-negative integers, as float64."""
    for shift in (32, 16, 8, 4, 2, 1):
        words = words ^ (words >> shift)
    return 1 - 2 * (words & 1).to(torch.float64)


@lru_cache(maxsize=64)
def parities(bits: int, dim: int) -> tuple[list[int], list[int]]:
    """Masks of `dim` parity checks on words of `bits` bits, chosen greedily, and the smallest distance after each.

    The distance of two words is the weight of their sum, so the weights of non-zero words are the distances.
    The choice depends only on the differences of weights. It repeats itself from the second time that all are equal.
    """
    words = torch.arange(2**bits)
    weight = torch.zeros(2**bits, dtype=torch.float64)
    weight[0] = math.inf
    masks: list[int] = []
    distances: list[int] = []
    equal: list[int] = []  # numbers of checks after which all distances are equal
    while len(masks) < dim:
        nearest = weight.min()
        if nearest > 0 and nearest == weight[1:].max():
            equal.append(len(masks))
            if len(equal) == 2:
                break
        rate = 1 if nearest > 0 else bits  # coinciding words outweigh all others
        urgency = torch.exp2(-rate * (weight - nearest))
        masks.append(int((urgency.sum() - _walsh(urgency)).argmax()))
        weight += (1 - _parity_signs(words & masks[-1])) / 2
        distances.append(int(weight.min()))
    while len(masks) < dim:
        period = equal[1] - equal[0]
        masks.append(masks[-period])
        distances.append(distances[-period] + int(nearest) - distances[equal[0] - 1])
    return masks, distances


def _walsh(values: Tensor) -> Tensor:
    """Sum over x of values[x] (-1)^(number of ones of x & y), for every y; (2^n,) -> (2^n,)."""
    for half in (2**bit for bit in range(len(values).bit_length() - 1)):
        low, high = values.reshape(-1, 2, half).unbind(1)
        values = torch.stack([low + high, low - high], dim=1)
    return values.reshape(-1)
