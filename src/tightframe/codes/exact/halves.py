"""Even and odd sign vectors about the halves of a Reed-Muller code: codes in 12 to 15 dimensions.

A half is where an affine function on the 16 points of F_2^4 is 1. In D coordinates, all points but 16 - D, there are
2^(D - 5) sign vectors with evenly many minus signs on every half; two of them differ in at least four places. A vector
that is ±1 on a half of w coordinates, with oddly many minus signs, and 0 elsewhere differs from each of them in one
place of the half or more: their cosine is at most (w - 2) / sqrt(w D).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.codes.exact.lattices import signs

TRACES = (0, 0, 1, 0, 1, 1, 1)
"""A linear function on the seven powers of a generator of F_8; its shifts are the other linear functions but zero."""
_LINES = ((0, 1, 5), (0, 8, 12), (0, 9, 10), (0, 11, 13))  # triples, to shift modulo 7 within each seven


def halves() -> Tensor:
    """The words of the Reed-Muller code of length 16 and 5 bits: (32, 16) of 0 and 1.

    The points of F_2^4 are the pairs of F_8 and F_2: first the two whose first part is 0, then twice the powers of a
    generator of F_8.
    """
    turns = [torch.tensor(TRACES).roll(shift) for shift in range(3)]
    rows = torch.zeros(5, 16, dtype=torch.int64)
    rows[0, 0] = rows[1, 1] = 1
    rows[0, 2:9] = rows[1, 9:] = 1
    rows[2:, 2:] = torch.stack(turns).repeat(1, 2)
    return (torch.arange(32)[:, None] >> torch.arange(5) & 1) @ rows % 2


def even_and_odd(dim: int, largest: int, *, axes: bool = False) -> Tensor:
    """The even sign vectors in `dim` dimensions, 12 to 15, and the odd ones on halves of at most `largest` coordinates.

    The smallest halves come first; a half that shares half of its coordinates or more with an earlier one is left out.
    With `axes`, the unit vectors ±e_i are added.
    """
    words = halves()[1:, 16 - dim :].to(torch.float64)  # without the empty half
    every = signs(dim)
    even = every[(((1 - every) / 2 @ words.T) % 2 == 0).all(dim=1)]
    supports: list[Tensor] = []
    for word in words[words.sum(dim=1).argsort(stable=True)]:
        if word.sum() <= largest and all(2 * (word @ other) < word.sum() for other in supports):
            supports.append(word)
    basis = torch.eye(dim, dtype=torch.float64)
    odd = [_odd(int(word.sum())) @ basis[word > 0] for word in supports]
    return torch.cat([even / dim**0.5, *odd, *([basis, -basis] if axes else [])])


def with_triples() -> Tensor:
    """The 512 even and 224 odd sign vectors in 14 dimensions, and (±1, ±1, ±1) on 28 triples: (960, 14).

    The triples are four and their shifts modulo 7, within the first and within the last seven coordinates. Two triples
    share at most one coordinate, and none is part of a half of six.
    """
    basis = torch.eye(14, dtype=torch.float64)
    triples = [[place // 7 * 7 + (place + k) % 7 for place in line] for line in _LINES for k in range(7)]
    return torch.cat([even_and_odd(14, 6), *(signs(3) @ basis[triple] / 3**0.5 for triple in triples)])


def _odd(size: int) -> Tensor:
    every = signs(size)
    return every[every.prod(dim=1) < 0] / size**0.5
