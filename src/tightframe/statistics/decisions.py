"""`DecisionCounts`: what the classifier and the nearest class centre decide, counted per class (NC4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tightframe import checks
from tightframe.errors import ClassifierError, MergeError
from tightframe.numerics import EPS, full_precision, norms, widened
from tightframe.processes import reduce_counts
from tightframe.statistics.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_MANY = 64  # classes: with more, passes over the rows cost little beside products
_CHUNK_ROWS = 4096
_CHUNK_SCORES, _CHUNK_ENTRIES = 1 << 19, 1 << 22  # of a chunk's rows at most: scores stay in a processor's cache
_CLOSE_ROWS = 256  # rows compared in float64 at once
_PAIR_ENTRIES = 1 << 22  # numbers in one block of exactly compared (row, class) pairs


@dataclass(frozen=True, eq=False)
class DecisionTotals:
    """Per-class counts of decisions, the mergeable part of `DecisionCounts`. All (K,) int64.

    Attributes:
        counts: samples of each class.
        classifier_correct: samples whose classifier decision is their label, or None without a classifier.
        centre_correct: samples whose nearest class centre is their label's.
        agreement: samples for which the two decisions are equal, or None without a classifier.
    """

    counts: Tensor
    classifier_correct: Tensor | None
    centre_correct: Tensor
    agreement: Tensor | None

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> DecisionTotals:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(name, v) for name, v in values.items() if v is not None})

    def merge(self, other: DecisionTotals) -> DecisionTotals:
        """Both sets of samples together. Raises MergeError where classes or the presence of a classifier differ."""
        if self.counts.shape != other.counts.shape or (self.agreement is None) != (other.agreement is None):
            raise MergeError("the two decision counts describe different classes, or only one has a classifier.")
        return self._map(lambda name, mine: mine + getattr(other, name))

    def all_reduce(self, group: ProcessGroup | None = None) -> DecisionTotals:
        """The counts over all processes of the group (default: all), each of which must make this call.

        Raises: MergeError, in every process, where classes or the presence of a classifier differ; DistributedError.
        """
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        total = reduce_counts(torch.stack([getattr(self, name) for name in names]), "decision counts", group)
        return replace(self, **dict(zip(names, total, strict=True)))

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> DecisionTotals:
        """The counts of some classes only, by label and by number of samples (bounds included)."""
        rows = torch.arange(len(self.counts), device=self.counts.device)
        if classes is not None:
            rows = torch.as_tensor(classes, device=self.counts.device)
            checks.require_labels(rows, len(self.counts))
        if min_count is not None:
            rows = rows[self.counts[rows] >= min_count]
        if max_count is not None:
            rows = rows[self.counts[rows] <= max_count]
        return self._map(lambda name, mine: mine[rows])


class _Rule:
    """One way to decide, exactly: the class with the highest score, and the lowest label of equals.

    With a bias, scores are <x, v_k> + b_k; without one -|x - v_k|^2 / 2. Both are <x - o, v_k - c> + a_k, up to a
    constant of the row, for a centre c of the vectors: linear in x.

    Args:
        vectors, bias: float64, by class.
        labels: (K,) of the classes, ascending.
        rounding: (K,) distance up to which another vector coincides with a class's own.
        tile_size: classes scored at once.
    """

    def __init__(self, vectors: Tensor, bias: Tensor | None, labels: Tensor, rounding: Tensor, tile_size: int):
        distinct = _distinct(vectors if bias is None else torch.cat([vectors, bias[:, None]], 1), rounding)
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
        # A float64 score's error is at most half of |x - o| times the first plus the second: D products, as many sums
        # and the rounding of what enters take EPS / 2 each. The whole of it spares ties, which are wider.
        unit = 2 * (len(self.centre) + 8) * EPS
        self._reach, self._floor = unit * lengths, unit * self._offsets.abs()

    def about(self, shift: Tensor) -> tuple[Tensor, Tensor, float]:
        """Vectors (K, D) and offsets (K,) of scores linear in x - shift, and what differences may be ties at 0."""
        vectors, step = self._vectors - self.centre, shift - self._origin
        size = self._offsets.abs().max() + norms(vectors).max() * norms(step)
        return vectors, _centred(self._offsets + vectors @ step), 64 * EPS * float(size)

    def decide(self, rows: Tensor) -> Tensor:
        """Labels (N,) for finite float64 rows (N, D)."""
        return torch.cat([self._decide(part) for part in rows.split(_CLOSE_ROWS)])

    def _decide(self, rows: Tensor) -> Tensor:
        local = rows - self._origin
        lengths = norms(local).clamp(max=torch.finfo(torch.float64).max)
        best, leader = rows.new_full((len(rows),), -torch.inf), self.labels.new_zeros(len(rows))
        rounded = (lengths > 0) | self._floor.any()  # elsewhere the first of the highest scores is the decision
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
        blocks = candidates.split(max(1, _PAIR_ENTRIES // rows.shape[1]), 1)
        lower, upper = torch.cat([self._lead(rows[row], index, leader[row]) for row, index in blocks], 1)
        row, index = candidates
        best.scatter_reduce_(0, row, lower, "amax", include_self=False)
        equal = upper >= best[row]
        return self.labels[leader.scatter_reduce_(0, row[equal], index[equal], "amin", include_self=False)]

    def _lead(self, rows: Tensor, index: Tensor, leader: Tensor) -> Tensor:
        """(2, M), bounds of the score of one class less that of another, from the definition, for each of M rows."""
        vectors, others = self._vectors[index], self._vectors[leader]
        step = vectors - others
        if self._bias is None:  # (|x - w|^2 - |x - v|^2) / 2 = <v - w, (x - v) + (x - w)> / 2
            left, right = (rows - vectors) / 2, (rows - others) / 2
            lead, scale = (step * (left + right)).sum(1), (step.abs() * (left.abs() + right.abs())).sum(1)
        else:
            terms, shift = step * rows, self._bias[index] - self._bias[leader]
            lead, scale = terms.sum(1) + shift, terms.abs().sum(1) + shift.abs()
        return torch.stack([lead - 8 * EPS * scale, lead + 8 * EPS * scale])


class _Rows(NamedTuple):
    """(N, D) rows, their lengths (N,), and the lengths of what was rounded off them."""

    values: Tensor
    lengths: Tensor
    lost: Tensor | None = None


class _Screen:
    """Decides the rows whose best two scores differ by more than the error of float32 products.

    Args:
        rules: one, or several with few classes, which share a product.
        shift: (D,) that rows are relative to.
        tile_size: scores of a row at once, over all rules.
        finer: decides what this one leaves, which then multiplies in bfloat16: many times faster on some processors.
    """

    def __init__(self, rules: Sequence[_Rule], shift: Tensor, tile_size: int, finer: _Screen | None = None):
        self._finer, self.rounds = finer, finer is not None
        dtype = torch.bfloat16 if self.rounds else torch.float32
        linear = [rule.about(shift) for rule in rules]
        most, dim, step = max(len(rule.labels) for rule in rules), len(shift), max(1, tile_size // len(rules))
        if most > _MANY <= step:  # for `_best_two`
            most, step = most + -most % _MANY, step - step % _MANY
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

    def decide(self, rows: _Rows, rounded: _Rows) -> Tensor:
        """Labels (N, rules) for N rows, which are also given in bfloat16; -1 where two scores are too close."""
        if self._finer is None or not self.rounds:
            return (self._finer or self)._decide(rows)
        labels = self._decide(rounded)
        rest = _undecided(labels)
        labels[rest] = self._finer._decide(_Rows(rows.values[rest], rows.lengths[rest]))
        self.rounds = len(rest) <= max(64, 0.7 * len(labels))  # otherwise float32 alone is faster
        return labels

    def _decide(self, rows: _Rows) -> Tensor:
        best = second = chosen = None
        for start, vectors, offsets in self._tiles:
            scores = torch.addmm(offsets, rows.values, vectors)
            top, next_top, index = _best_two(scores.unflatten(1, (len(self._rules), -1)))
            if best is None or second is None or chosen is None:
                best, second, chosen = top, next_top, index
                continue
            second = torch.maximum(torch.minimum(best, top), torch.maximum(second, next_top))
            chosen = torch.where(top > best, index + start, chosen)
            best = torch.maximum(best, top)
        assert best is not None and second is not None and chosen is not None
        error = torch.addcmul(self._floor, rows.lengths[:, None], self._reach)
        if rows.lost is not None:
            best, second = best.float(), second.float()
            error += rows.lost[:, None] * self._longest + self._relative * (best.abs() + second.abs())
        return torch.where(best - second > error, self._labels[self._rules, chosen], -1)  # -1 also where one is NaN


class DecisionCounts:
    """Counts, per class, of (classifier = label), (nearest centre = label) and (classifier = nearest centre).

    Streams batches after the class means are known. The classifier is argmax_k <w_k, x> + b_k over all K classes; the
    nearest centre is argmin_k |x - mean_k| over the classes with samples. Both are decided as in exact arithmetic:
    where float32 scores are too close to call the candidates are compared in float64, so neither the size of the values
    nor class means far from the origin nor batch shapes change a decision. Ties (equal to float64 rounding) go to the
    lowest class index. Class means no further apart than their rounding (`ClassStatistics.rounding`) are one centre.

    Args:
        statistics: class means, e.g. of the training set.
        weight: (K, D) classifier rows, or None to count nearest centres only.
        bias: (K,) or None for zero.
        tile_size: classes scored at once; memory is rows x tile_size.
        class_dim, ignore_index: as in `StatisticsAccumulator`.

    Source: NC4, Papyan, Han & Donoho 2020.
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        tile_size: int = 1024,
        class_dim: int = -1,
        ignore_index: int | None = None,
    ):
        statistics = statistics.detach().populated()
        assert statistics.class_ids is not None
        labels, order = statistics.class_ids.sort()  # ties go to the lowest label, whatever was selected first
        means, rounding, square = statistics.means[order], statistics.rounding[order], float(statistics.mean_square)
        self._num_labels = statistics.num_labels or statistics.num_classes
        self._num_features = statistics.num_features
        self._class_dim, self._ignore_index = class_dim, ignore_index
        if weight is None and bias is not None:
            raise ClassifierError("a bias without a weight is no classifier.")
        # Factors of a power of two, which round nothing, bring products into the range of float32 and float64.
        exponent = _exponent(max(float(means.abs().max()), math.sqrt(square / self._num_features)))
        power = max(-500, min(500, max(-30, min(30, exponent)) - exponent))  # 0 for features of any common size
        self._factor = 2.0**power
        rules = [_Rule(means * self._factor, None, labels, rounding * self._factor, tile_size)]
        if weight is not None:
            checks.require_classifier(weight, bias, self._num_labels, self._num_features)
            weight = weight.detach().to(means)
            bias = means.new_zeros(self._num_labels) if bias is None else bias.detach().to(means)
            down = min(500, -_exponent(max(float(weight.abs().max()), float(bias.abs().max()) * self._factor)))
            weight, bias = weight * 2.0**down, bias * 2.0 ** (power + down)
            labels = torch.arange(self._num_labels, device=means.device)
            rules.append(_Rule(weight, bias, labels, torch.zeros_like(bias), tile_size))
        most, centre = max(len(rule.labels) for rule in rules), rules[0].centre
        distance = float(centre.square().sum())
        # Rows are centred where they lie far from the origin, or where this pass over them is a small part of the work.
        centred = most >= _MANY or distance > 64 * (square * self._factor**2 - distance)
        self._shift = centre if centred else torch.zeros_like(centre)
        self._centred, self._rules, self._screens = centred, rules, list[_Screen]()
        for together in [[rule] for rule in rules] if most >= _MANY else [rules]:
            screen = _Screen(together, self._shift, tile_size)
            if most >= _MANY and means.device.type == "cpu" and torch.cpu._is_amx_tile_supported():
                screen = _Screen(together, self._shift, tile_size, finer=screen)
            self._screens.append(screen)
        size = min(_CHUNK_ROWS, _CHUNK_SCORES // min(most, tile_size), _CHUNK_ENTRIES // self._num_features)
        with torch.inference_mode(False):
            zeros = torch.zeros(self._num_labels, dtype=torch.int64, device=means.device)
            # rows of small batches wait for others
            self._waiting = torch.empty(max(64, size), self._num_features, device=means.device)
            self._waiting_labels = zeros.new_empty(max(64, size))
        self._used, self._close = 0, list[tuple[Tensor, Tensor, Tensor]]()
        with_classifier = None if weight is None else zeros
        self._totals = DecisionTotals(zeros, with_classifier, zeros, with_classifier)

    @property
    def totals(self) -> DecisionTotals:
        """The counts of all rows so far."""
        used, self._used = self._used, 0
        if used:
            self._add(self._waiting[:used], self._waiting_labels[:used])
        if self._close:
            rows, labels, decided = (torch.cat(parts) for parts in zip(*self._close, strict=True))
            self._close = []
            self._count(labels, self._exactly(rows, decided))
        return self._totals

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Decide a batch and count; arguments and errors as in `StatisticsAccumulator.update`."""
        rows, labels = checks.as_rows(
            features.detach(),
            labels,
            num_features=self._num_features,
            class_dim=self._class_dim,
            ignore_index=self._ignore_index,
        )
        rows, labels = rows.to(self._waiting.device), labels.to(self._waiting.device)
        checks.require_labels(labels, self._num_labels)
        if rows.dtype is torch.float64:
            checks.require_finite(rows)
        if rows.dtype is torch.float64 or len(rows) >= len(self._waiting):
            self._add(rows, labels)
            return
        if self._used + len(rows) > len(self._waiting):
            used, self._used = self._used, 0
            self._add(self._waiting[:used], self._waiting_labels[:used])
        place = slice(self._used, self._used + len(rows))
        self._waiting[place], self._waiting_labels[place] = rows, labels
        checks.require_finite(self._waiting[place])
        self._used = place.stop

    def decide(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Labels (N,) chosen by the classifier (None without one) and by the nearest centre, for (N, D) rows.

        Raises: NonFiniteError.
        """
        decided, rest = self._screened(rows)
        decided[rest] = self._exactly(rows[rest], decided[rest])
        nearest, *classifier = decided.unbind(1)
        return classifier[0] if classifier else None, nearest

    def merge(self, other: DecisionCounts) -> None:
        """Add the counts of another instance, made from the same statistics and classifier."""
        self._totals = self.totals.merge(other.totals)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add the counts of the other processes, once, after the last batch; errors as in `DecisionTotals.all_reduce`.

        All must have made theirs from the same statistics (`ClassStatistics.all_reduce`) and classifier.
        """
        self._totals = self.totals.all_reduce(group)

    def _add(self, rows: Tensor, labels: Tensor) -> None:
        """Decide and count; rows too close to call wait for others."""
        decided, rest = self._screened(rows)
        if len(rest):
            self._close.append((rows[rest], labels[rest], decided[rest]))
            sure = (decided >= 0).all(1)
            labels, decided = labels[sure], decided[sure]
        self._count(labels, decided)
        if sum(len(labels) for _, labels, _ in self._close) >= _CLOSE_ROWS:
            _ = self.totals

    def _screened(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (N, rules) of N rows, -1 where float32 can't tell, and the indices of rows with such a label."""
        with full_precision(rows.device.type):
            decided = torch.cat([self._screened_chunk(chunk) for chunk in rows.split(len(self._waiting))])
        rest = _undecided(decided)
        if len(rest) and not math.isfinite(rows[rest].sum(dtype=torch.float64)):  # no row that isn't finite was decided
            checks.require_finite(rows)
        return decided, rest

    def _screened_chunk(self, rows: Tensor) -> Tensor:
        local = widened(rows)
        if self._factor != 1:
            local = local * self._factor
        if self._centred:
            local = local - self._shift.to(local.dtype)
        local = local.float()
        exact = rounded = _Rows(local, norms(local))
        if any(screen.rounds for screen in self._screens):
            half = local.bfloat16()
            rounded = _Rows(half, exact.lengths, norms(half.float().sub_(local)))
        return torch.cat([screen.decide(exact, rounded) for screen in self._screens], 1)

    def _exactly(self, rows: Tensor, decided: Tensor) -> Tensor:
        """The labels (N, rules), with those that were -1."""
        with full_precision(rows.device.type):
            for column, rule in enumerate(self._rules):
                rest = decided[:, column] < 0
                decided[rest, column] = rule.decide(rows[rest].double() * self._factor)
        return decided

    def _count(self, labels: Tensor, decided: Tensor) -> None:
        def count(hits: Tensor) -> Tensor:
            return torch.bincount(labels[hits], minlength=self._num_labels)

        nearest, *classifier = decided.unbind(1)
        counts = DecisionTotals(
            torch.bincount(labels, minlength=self._num_labels),
            count(classifier[0] == labels) if classifier else None,
            count(nearest == labels),
            count(classifier[0] == nearest) if classifier else None,
        )
        self._totals = self._totals.merge(counts)


def _distinct(points: Tensor, rounding: Tensor) -> Tensor:
    """Indices of (K, D) points, ascending, without those that coincide with one of a lower index.

    Points coincide that are no further apart than the larger of their roundings. Their projections on any axis are no
    further apart either, so points are compared that are neighbours along one axis and near along some others.
    """
    axes = torch.randn(points.shape[1], 8, dtype=points.dtype, generator=torch.Generator().manual_seed(0)).to(points)
    local = points - points[:1]
    places = local @ (axes / norms(axes.mT))
    slack = 2 * (points.shape[1] + 8) * EPS * norms(local).max()  # for the rounding of the projections
    order, lag = places[:, 0].argsort(), 1
    while lag < len(order):
        left, right = order[:-lag], order[lag:]
        limit = torch.maximum(rounding[left], rounding[right])
        near = (places[left] - places[right]).abs() <= (limit + slack)[:, None]
        if not near[:, 0].any():
            break  # nor are points with more others between them
        pairs = near.all(1).nonzero().flatten()
        pairs = pairs[norms(points[left[pairs]] - points[right[pairs]]) <= limit[pairs]]
        lag += 1
        if len(pairs):
            order, lag = order[~torch.isin(order, torch.maximum(left[pairs], right[pairs]))], 1
    return order.sort().values


def _best_two(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two highest along the last dimension, and the index of the highest; overwrites the scores."""
    if scores.shape[-1] % _MANY or scores.shape[-1] == _MANY:
        best, index = scores.max(-1)
        return best, scores.scatter_(-1, index[..., None], -torch.inf).amax(-1), index
    # an index for every score would take three times as long as the highest of each of the columns
    table = scores.unflatten(-1, (-1, _MANY))
    best, second, column = _best_two(table.amax(-2))
    _, other, line = _best_two(table.take_along_dim(column[..., None, None], -1).squeeze(-1))
    return best, torch.maximum(second, other), line * _MANY + column


def _undecided(labels: Tensor) -> Tensor:
    """Indices of rows with a -1 among their labels (N, rules)."""
    return (labels < 0).any(1).nonzero().flatten()


def _centred(offsets: Tensor) -> Tensor:
    """Offsets less one constant, which would decide nothing but cost digits."""
    return offsets - (offsets.amin() + offsets.amax()) / 2


def _exponent(size: float) -> int:
    """Exponent of the least power of two above a size; 0 of zero."""
    return math.frexp(size)[1]
