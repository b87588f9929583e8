"""Linear decision rules, decided as in exact arithmetic: first in float32 or bfloat16, close scores in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.numerics import EPS, first_of_coincident, norms

MANY = 64  # with more classes, passes over the rows cost little compared with products
CLOSE_ROWS = 256  # rows compared in float64 at once
_PAIR_ENTRIES = 1 << 22  # entries in one block of exactly compared (row, class) pairs


class Rule:
    """An exact decision rule: the class with the highest score; ties go to the lowest label.

    Scores are <x, v_k> + b_k with a bias, else -|x - v_k|^2 / 2. Both are <x - o, v_k - c> + a_k up to a constant per
    row, for a centre c of the vectors, and so linear in x.

    Args:
        vectors, bias: float64, per class.
        labels: (K,), labels of the classes, ascending.
        rounding: (K,), distance within which vectors coincide.
        tile_size: classes scored at once.
    """

    def __init__(self, vectors: Tensor, bias: Tensor | None, labels: Tensor, rounding: Tensor, tile_size: int):
        points = vectors if bias is None else torch.cat([vectors, bias[:, None]], 1)
        distinct = first_of_coincident(points, rounding).unique()
        self._vectors, self.labels, self._tile_size = vectors[distinct], labels[distinct], tile_size
        self._bias = None if bias is None else bias[distinct]
        distances = norms(self._vectors - self._vectors[norms(self._vectors).median(0).indices])
        near = (
            distances <= 4 * distances.sort().values[len(distances) // 2]
        )  # a vector far off would cost the others digits
        self.centre = self._vectors[near].mean(0).float().double()
        lengths = norms(self._vectors - self.centre)
        if self._bias is None:
            self._origin, self._offsets = self.centre, -lengths.square() / 2
        else:
            self._origin, self._offsets = torch.zeros_like(self.centre), _centred(self._bias)
        # the error of a float64 score is at most half of |x - o| reach + floor: D products, D sums and the rounding of
        # the operands contribute EPS / 2 each; the full bound also covers ties
        unit = 2 * (len(self.centre) + 8) * EPS
        self._reach, self._floor = unit * lengths, unit * self._offsets.abs()

    def about(self, shift: Tensor) -> tuple[Tensor, Tensor, float]:
        """Vectors (K, D) and offsets (K,) of scores linear in x - shift, and the largest difference of a tie at 0."""
        vectors, step = self._vectors - self.centre, shift - self._origin
        size = self._offsets.abs().max() + norms(vectors).max() * norms(step)
        return vectors, _centred(self._offsets + vectors @ step), 64 * EPS * float(size)

    def decide(self, rows: Tensor) -> Tensor:
        """Labels (N,) for finite float64 rows (N, D)."""
        return torch.cat([self._decide(part) for part in rows.split(CLOSE_ROWS)])

    def _decide(self, rows: Tensor) -> Tensor:
        local = rows - self._origin
        lengths = norms(local).clamp(max=torch.finfo(torch.float64).max)
        best, leader = rows.new_full((len(rows),), -torch.inf), self.labels.new_zeros(len(rows))
        rounded = (lengths > 0) | self._floor.any()  # else the first highest score decides
        pairs, uppers = [], []
        for start in range(0, len(self._vectors), self._tile_size):
            part = slice(start, start + self._tile_size)
            scores = torch.addmm(self._offsets[part], local, (self._vectors[part] - self.centre).mT)
            error = self._floor[part] + torch.outer(lengths, self._reach[part])
            top, index = (scores - error).max(1)
            leader, best = torch.where(top > best, index + start, leader), torch.maximum(best, top)
            scores += error
            row, index = ((scores >= best[:, None]) & rounded[:, None]).nonzero().T
            pairs.append(torch.stack([row, index + start]))
            uppers.append(scores[row, index])
        candidates = torch.cat(pairs, 1)
        candidates = candidates[:, torch.cat(uppers) >= best[candidates[0]]]
        while True:  # compare with the leader; repeat with the best class, as a distant leader costs digits
            blocks = candidates.split(max(1, _PAIR_ENTRIES // rows.shape[1]), 1)
            lower, upper = torch.cat([self._lead(rows[row], index, leader[row]) for row, index in blocks], 1)
            row, index = candidates
            best.scatter_reduce_(0, row, lower, "amax", include_self=False)
            equal = upper >= best[row]
            leads = lower == best[row]
            former, leader = leader, leader.scatter_reduce(0, row[leads], index[leads], "amin", include_self=False)
            decided = leader.scatter_reduce(0, row[equal], index[equal], "amin", include_self=False)
            if equal.all() or torch.equal(former, leader):
                return self.labels[decided]
            candidates = candidates[:, equal]

    def _lead(self, rows: Tensor, index: Tensor, leader: Tensor) -> Tensor:
        """(2, M), bounds of the score difference of two classes, from the definition, for each of M rows."""
        vectors, others = self._vectors[index], self._vectors[leader]
        step = vectors - others
        if self._bias is None:  # (|x - w|^2 - |x - v|^2) / 2 = <v - w, (x - v) + (x - w)> / 2
            left, right = (rows - vectors) / 2, (rows - others) / 2
            lead, scale = (step * (left + right)).sum(1), (step.abs() * (left.abs() + right.abs())).sum(1)
        else:
            terms, shift = step * rows, self._bias[index] - self._bias[leader]
            lead, scale = terms.sum(1) + shift, terms.abs().sum(1) + shift.abs()
        return torch.stack([lead - 8 * EPS * scale, lead + 8 * EPS * scale])


class Rows(NamedTuple):
    """Rows (N, D), their lengths (N,), and the lengths (N,) of their rounding errors."""

    values: Tensor
    lengths: Tensor
    lost: Tensor | None = None


class Screen:
    """Decides rows whose two best scores differ by more than the error of float32 products.

    Args:
        rules: one rule, or several rules with few classes, which share a product.
        shift: (D,), origin of the rows.
        tile_size: scores per row at once, over all rules.
        finer: screen for undecided rows; this one then uses bfloat16, which is much faster on some processors.
    """

    def __init__(self, rules: Sequence[Rule], shift: Tensor, tile_size: int, finer: Screen | None = None):
        self._finer, self.rounds = finer, finer is not None
        dtype = torch.bfloat16 if self.rounds else torch.float32
        linear = [rule.about(shift) for rule in rules]
        most, dim, step = max(len(rule.labels) for rule in rules), len(shift), max(1, tile_size // len(rules))
        if most > MANY <= step:  # for `_best_two`
            most, step = most + -most % MANY, step - step % MANY
        vectors = torch.zeros(len(rules), most, dim, dtype=dtype, device=shift.device)
        offsets = vectors.new_full((len(rules), most), -torch.inf)
        self._labels, self._rules = (
            torch.zeros_like(offsets, dtype=torch.int64),
            torch.arange(len(rules)).to(shift.device),
        )
        # The error of a score <x, v> + a is at most the sum of
        #   unit * (|x| |v| + |a|), for D products and as many sums, in float32 and any order, and for storing x, its
        #     length, v and a: each rounds by eps / 2 at most, and 1.1 covers products of errors;
        #   |x| |v - stored v| + |x - stored x| |v|, for operands in bfloat16;
        #   relative * (|score| + |a|), for a, the product and the score in bfloat16, by half of its eps each;
        #   what underflows: entries' squares in the lengths, each below tiny, and products.
        # The difference of two scores has twice that error.
        eps, tiny = torch.finfo(torch.float32).eps, torch.finfo(torch.float32).tiny
        unit, least = (1.1 * dim + 16) * eps / 2, math.sqrt(dim * tiny)
        self._relative = 1.02 * torch.finfo(dtype).eps if self.rounds else 0.0
        bounds = []
        for g, (rule, (exact, shifts, ties)) in enumerate(zip(rules, linear, strict=True)):
            stored = exact.to(dtype)
            vectors[g, : len(exact)], offsets[g, : len(exact)], self._labels[g, : len(exact)] = (
                stored,
                shifts,
                rule.labels,
            )
            longest, highest = 1.1 * float(norms(exact).max()), float(shifts.abs().max())
            reach = unit * longest + float(norms(exact - stored).max())
            floor = (unit + self._relative) * highest + (reach + longest) * least + dim * tiny + ties
            bounds.append([2 * floor, 2 * reach, 2 * longest])
        self._floor, self._reach, self._longest = shift.new_tensor(bounds).float().T
        self._tiles = [
            (start, vectors[:, start : start + step].flatten(0, 1).mT, offsets[:, start : start + step].flatten())
            for start in range(0, most, step)
        ]

    def decide(self, rows: Rows, rounded: Rows) -> Tensor:
        """Labels (N, rules) of N rows, also passed in bfloat16; -1 if the two best scores are too close."""
        if self._finer is None or not self.rounds:
            return (self._finer or self)._decide(rows)
        labels = self._decide(rounded)
        rest = undecided(labels)
        labels[rest] = self._finer._decide(Rows(rows.values[rest], rows.lengths[rest]))
        self.rounds = len(rest) <= max(64, 0.7 * len(labels))  # else float32 alone is faster
        return labels

    def _decide(self, rows: Rows) -> Tensor:
        best = second = leader = None
        for start, vectors, offsets in self._tiles:
            scores = torch.addmm(offsets, rows.values, vectors)
            top, next_top, index = _best_two(scores.unflatten(1, (len(self._rules), -1)))
            if best is None or second is None or leader is None:
                best, second, leader = top, next_top, index
                continue
            second = torch.maximum(torch.minimum(best, top), torch.maximum(second, next_top))
            leader = torch.where(top > best, index + start, leader)
            best = torch.maximum(best, top)
        assert best is not None and second is not None and leader is not None
        error = torch.addcmul(self._floor, rows.lengths[:, None], self._reach)
        if rows.lost is not None:
            best, second = best.float(), second.float()
            error += rows.lost[:, None] * self._longest + self._relative * (best.abs() + second.abs())
        return torch.where(best - second > error, self._labels[self._rules, leader], -1)  # -1 also for NaN


def _best_two(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two highest scores along the last dimension, and the index of the highest; overwrites the scores."""
    if scores.shape[-1] % MANY or scores.shape[-1] == MANY:
        best, index = scores.max(-1)
        return best, scores.scatter_(-1, index[..., None], -torch.inf).amax(-1), index
    # the maximum per column takes a third of the time of an index over all scores
    table = scores.unflatten(-1, (-1, MANY))
    best, second, column = _best_two(table.amax(-2))
    _, other, line = _best_two(table.take_along_dim(column[..., None, None], -1).squeeze(-1))
    return best, torch.maximum(second, other), line * MANY + column


def undecided(labels: Tensor) -> Tensor:
    """Indices of rows with a -1 among their labels (N, rules)."""
    return (labels < 0).any(1).nonzero().flatten()


def _centred(offsets: Tensor) -> Tensor:
    """Offsets minus a constant, which does not change decisions but would cost digits."""
    return offsets - (offsets.amin() + offsets.amax()) / 2


def exponent_of(size: float) -> int:
    """Exponent of the smallest power of two above a size; 0 for zero."""
    return math.frexp(size)[1]
