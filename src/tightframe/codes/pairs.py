"""Lengths of vectors and pairs with the smallest angles, as sections of a document."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.numerics import norms, on_cpu, unit_rows
from tightframe.sections import Column, Section, Table, signed

_SHOWN = 40  # maximum number of vectors and pairs listed; the rest are counted
_TILE = 1 << 22  # number of cosines held at a time


def pair_sections(vectors: Tensor) -> tuple[Section, Section]:
    """Sections with the lengths of (K, D) vectors and the angles of the nearest pairs, at most 40 of each."""
    K = len(vectors)
    lengths = tuple((str(row), f"{length:.9g}") for row, length in enumerate(norms(vectors[:_SHOWN].double()).tolist()))
    indices, angles = (each.tolist() for each in nearest_pairs(vectors, _SHOWN))
    pairs = tuple(
        (f"{i} {j}", signed(f"{math.cos(math.radians(angle)):z.9f}"), f"{angle:.6f}°")
        for (i, j), angle in zip(indices, angles, strict=True)
    )
    return (
        Section(
            "lengths",
            "Lengths",
            _rest(K, "vectors"),
            Table((Column("vector", "name"), Column("length", "number")), lengths),
        ),
        Section(
            "pairs",
            "Nearest pairs",
            _rest(K * (K - 1) // 2, "pairs, with larger angles"),
            Table((Column("pair", "name"), Column("cosine", "number"), Column("angle", "number")), pairs),
        ),
    )


def _rest(total: int, things: str) -> tuple[str, ...]:
    return (f"{total - _SHOWN:,} more {things}.",) if total > _SHOWN else ()


@on_cpu
def nearest_pairs(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` pairs i < j of (K, D) vectors with the smallest angles, (P, 2), and the angles in degrees, (P,).

    Smallest first; P < `count` if there are fewer pairs. Angles come from distances, so small ones are accurate.
    """
    unit = unit_rows(vectors.detach().double())
    K = len(unit)
    best, pairs = unit.new_empty(0), torch.empty(0, 2, dtype=torch.int64)
    height = max(1, _TILE // K)
    for start in range(0, K - 1, height):
        rows = torch.arange(start, min(start + height, K))
        cosines = (unit[rows] @ unit.mT).masked_fill_(torch.arange(K) <= rows[:, None], -torch.inf).flatten()
        values, flat = cosines.topk(min(count, len(cosines)))
        best, pairs = torch.cat([best, values]), torch.cat([pairs, torch.stack([flat // K + start, flat % K], dim=1)])
        best, nearest = best.topk(min(count, len(best)))
        pairs = pairs[nearest]
    pairs = pairs[best > -torch.inf]
    one, other = unit[pairs.mT]
    angles = 2 * torch.atan2(norms(one - other), norms(one + other)).rad2deg()
    order = (pairs[:, 0] * K + pairs[:, 1]).argsort()  # pairs with equal angles are sorted by index
    order = order[angles[order].round(decimals=9).argsort(stable=True)]
    return pairs[order], angles[order]
