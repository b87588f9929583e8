"""Kissing configurations in 13 and 14 dimensions: no two of their vectors are less than 60 degrees apart."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe.codes.exact.blocks import signed_blocks
from tightframe.codes.exact.halves import TRACES, halves
from tightframe.codes.exact.lattices import golay_words, roots

_SQUARES = (1, 2, 4)  # modulo 7


def zinoviev_ericson() -> Tensor:
    """1,154 vectors in 13 dimensions: two poles, 816 on the equator, 168 at 60 degrees from each pole.

    On the equator the signed quadruples in 12 dimensions. At each pole the 24 unit vectors, and 144 sign vectors that
    differ in four places or more: on the hexads of the Steiner system S(5, 6, 12), six pairs and their complements.
    Source: Zinoviev & Ericson 1999, New lower bounds for contact numbers in small dimensions; for the sign vectors
    Julin 1965, Two improved block codes.
    """
    words = golay_words()
    dodecad = words[words.sum(dim=1) == 12][0] > 0
    octads = words[words.sum(dim=1) == 8][:, dodecad]
    hexads = octads[octads.sum(dim=1) == 6].unique(dim=0)
    pairs = torch.eye(6, dtype=torch.int64).repeat_interleave(2, dim=1)
    differing = 1 - 2 * torch.cat([hexads, pairs, 1 - pairs]).to(torch.float64)
    axes, quadruples = signed_blocks(12, 4).split([24, 816])
    near = torch.cat([axes, differing / 12**0.5]) * 0.75**0.5
    pole = torch.tensor([1.0, -1.0], dtype=torch.float64)
    return torch.cat(
        [
            torch.nn.functional.pad(quadruples, (0, 1)),
            *(torch.cat([near, side.expand(len(near), 1) / 2], dim=1) for side in pole),
            torch.nn.functional.pad(pole[:, None], (12, 0)),
        ]
    )


def ganzhinov() -> Tensor:
    """1,932 vectors in 14 dimensions: the 364 roots of D_14, and 32 sign vectors on each of 49 blocks of eight.

    The coordinates are two sevens. A block has four coordinates in each, the complements of two lines j and k of a
    Fano plane. Its signs are the words of the Reed-Muller code about the other Fano plane, with one sign changed if
    the lines differ: for k - j = 1, 2 or 4 at j + 2 (k - j) in the second seven, else at 2 j - k in the first.
    Source: Ganzhinov 2022, Highly symmetric lines; the signs in closed form: tightframe.
    """
    words = 1 - 2 * halves()[:, 2:].to(torch.float64)
    lines = [torch.tensor(TRACES).flip(0).roll(j) for j in range(7)]
    blocks = []
    for j, one in enumerate(lines):
        for k, other in enumerate(lines):
            signed = words * torch.cat([one, other])
            if (k - j) % 7 in _SQUARES:
                signed[:, 7 + (2 * k - j) % 7] *= -1
            elif j != k:
                signed[:, (2 * j - k) % 7] *= -1
            blocks.append(signed)
    return torch.cat([roots(14) * 2, *blocks]) / 8**0.5
