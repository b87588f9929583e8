"""`DecisionCounts`: what the classifier and the nearest class centre decide, counted per class (NC4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe import checks
from tightframe.errors import ClassifierError, MergeError
from tightframe.numerics import EPS, full_precision
from tightframe.statistics.class_statistics import ClassStatistics
from tightframe.statistics.distributed import reduce_counts

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (rows, indices) -> scores and their rounding scale
_CHUNK_ROWS = 2048
_PAIR_ENTRIES = 1 << 22  # numbers in one block of exactly decided (sample, class) pairs


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


class _Scorer:
    """argmax over rows a of <x, a> + o, decided as if in exact arithmetic; ties go to the lowest index.

    Scores are products in the features' dtype about a common centre. Only where the best two are closer than those
    products' error bound are the candidates compared again in float64, from the definition.
    """

    def __init__(self, vectors: Tensor, offsets: Tensor, dtype: torch.dtype, tile_size: int):
        self._vectors = vectors.to(dtype)
        self._offsets = offsets.to(dtype)
        self._tile_size = tile_size
        eps = torch.finfo(dtype).eps
        # rounding of a D-term product grows like sqrt(D); the factor covers the rounding of both operands too
        self._slack = eps * (8 + 2 * vectors.shape[1] ** 0.5)
        self._largest_vector = float(torch.linalg.vector_norm(vectors, dim=1).max())
        self._largest_offset = float(offsets.abs().max())

    def decide(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """For (N, D) rows of these lengths: indices (N,) of the highest score, and those of rows too close to call."""
        best = second = chosen = None
        for start, scores in self._scores(rows):
            top, index = scores.max(1)
            index += start
            next_top = scores.scatter_(1, (index - start)[:, None], -torch.inf).amax(1)
            if best is None or second is None or chosen is None:
                best, second, chosen = top, next_top, index
                continue
            second = torch.maximum(torch.minimum(best, top), torch.maximum(second, next_top))
            chosen = torch.where(top > best, index, chosen)
            best = torch.maximum(best, top)
        assert best is not None and second is not None and chosen is not None
        return chosen, (best - second <= self._tolerance(lengths)).nonzero().flatten()

    def candidates(self, rows: Tensor) -> Tensor:
        """(M, 2) pairs (row, index) whose scores may be the highest, in that order."""
        pairs = []
        tolerance = self._tolerance(torch.linalg.vector_norm(rows, dim=1))
        best = torch.full((len(rows),), -torch.inf, dtype=rows.dtype, device=rows.device)
        for attempt in ("best", "pairs"):
            for start, scores in self._scores(rows):
                if attempt == "best":
                    best = torch.maximum(best, scores.amax(1))
                else:
                    pairs.append((scores >= (best - tolerance)[:, None]).nonzero())
                    pairs[-1][:, 1] += start
        return torch.cat(pairs)

    def _scores(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The scores of (N, D) rows, a tile of vectors at a time, each with the index of its first vector."""
        for start in range(0, len(self._vectors), self._tile_size):
            stop = start + self._tile_size
            yield start, torch.addmm(self._offsets[start:stop], rows, self._vectors[start:stop].mT)

    def _tolerance(self, lengths: Tensor) -> Tensor:
        return self._slack * (lengths * self._largest_vector + self._largest_offset)


class DecisionCounts:
    """Counts, per class, of (classifier = label), (nearest centre = label) and (classifier = nearest centre).

    Streams batches after the class means are known. The classifier is argmax_k <w_k, x> + b_k over all K classes; the
    nearest centre is argmin_k |x - mean_k| over the classes with samples. Both are decided as in exact arithmetic:
    where float32 scores are too close to call the candidates are compared in float64, so neither class means far from
    the origin nor batch shapes change a decision. Ties (equal to float64 rounding) go to the lowest class index.

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
        self._labels, order = statistics.class_ids.sort()  # ties go to the lowest label, whatever was selected first
        self._means = statistics.means[order]
        self._centre = statistics.global_mean()
        self._num_labels = statistics.num_labels or statistics.num_classes
        self._tile_size, self._class_dim, self._ignore_index = tile_size, class_dim, ignore_index
        if weight is None and bias is not None:
            raise ClassifierError("a bias without a weight is no classifier.")
        if weight is not None:
            checks.require_classifier(weight, bias, self._num_labels, statistics.num_features)
            weight = weight.detach().to(self._means)
            bias = self._means.new_zeros(self._num_labels) if bias is None else bias.detach().to(self._means)
        self._weight, self._bias = weight, bias
        self._scorers: dict[torch.dtype, tuple[_Scorer, _Scorer | None]] = {}
        zeros = torch.zeros(self._num_labels, dtype=torch.int64, device=self._means.device)
        with_classifier = None if weight is None else zeros
        self.totals = DecisionTotals(zeros, with_classifier, zeros, with_classifier)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Decide a batch and count; arguments and errors as in `StatisticsAccumulator.update`."""
        rows, labels = checks.as_rows(
            features.detach(),
            labels,
            num_features=self._means.shape[1],
            class_dim=self._class_dim,
            ignore_index=self._ignore_index,
        )
        rows, labels = rows.to(self._means.device), labels.to(self._means.device)
        checks.require_labels(labels, self._num_labels)
        checks.require_finite(rows)
        for start in range(0, len(labels), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            classifier, centre = self.decide(rows[chunk])
            self.totals = self.totals.merge(self._count(labels[chunk], classifier, centre))

    def decide(self, rows: Tensor) -> tuple[Tensor | None, Tensor]:
        """Labels (N,) chosen by the classifier (None without one) and by the nearest centre, for (N, D) rows."""
        with full_precision(rows.device.type):
            by_centre, by_classifier = self._scorers_for(rows.dtype)
            local = rows - self._centre.to(rows.dtype)
            lengths = torch.linalg.vector_norm(local, dim=1)
            nearest, unsure = by_centre.decide(local, lengths)
            if len(unsure):
                nearest[unsure] = self._decide_exactly(by_centre, rows[unsure], local[unsure], self._nearness)
            nearest = self._labels[nearest]
            if by_classifier is None:
                return None, nearest
            chosen, unsure = by_classifier.decide(local, lengths)
            if len(unsure):
                chosen[unsure] = self._decide_exactly(by_classifier, rows[unsure], local[unsure], self._logit)
            return chosen, nearest

    def merge(self, other: DecisionCounts) -> None:
        """Add the counts of another instance, made from the same statistics and classifier."""
        self.totals = self.totals.merge(other.totals)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add the counts of the other processes, once, after the last batch; errors as in `DecisionTotals.all_reduce`.

        All must have made theirs from the same statistics (`ClassStatistics.all_reduce`) and classifier.
        """
        self.totals = self.totals.all_reduce(group)

    def _scorers_for(self, dtype: torch.dtype) -> tuple[_Scorer, _Scorer | None]:
        if dtype not in self._scorers:
            # Scores are taken about the global mean as the features' dtype holds it, so both sides agree on it.
            centre = self._centre.to(dtype).to(torch.float64)
            local = self._means - centre
            by_centre = _Scorer(local, -local.square().sum(1) / 2, dtype, self._tile_size)
            by_classifier = None
            if self._weight is not None and self._bias is not None:
                offsets = self._weight @ centre + self._bias
                # a constant added to all logits decides nothing but would cost float32 its digits
                by_classifier = _Scorer(self._weight, offsets - offsets.mean(), dtype, self._tile_size)
            self._scorers[dtype] = by_centre, by_classifier
        return self._scorers[dtype]

    def _decide_exactly(self, scorer: _Scorer, rows: Tensor, local: Tensor, score: _Score) -> Tensor:
        """Indices of the best candidate of each row, scored in float64 from the definition; first of equals."""
        pairs = scorer.candidates(local)
        block = max(1, _PAIR_ENTRIES // rows.shape[1])
        scored = [score(rows[p[:, 0]].to(torch.float64), p[:, 1]) for p in pairs.split(block)]
        scores, scales = (torch.cat(parts) for parts in zip(*scored, strict=True))
        best = scores.new_full((len(rows),), -torch.inf).scatter_reduce_(0, pairs[:, 0], scores, "amax")
        equal = scores >= best[pairs[:, 0]] - 8 * EPS * scales
        beyond = pairs.new_full((len(rows),), torch.iinfo(torch.int64).max)
        return beyond.scatter_reduce_(0, pairs[equal, 0], pairs[equal, 1], "amin")

    def _nearness(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        squares = (rows - self._means[index]).square().sum(1)
        return -squares, squares

    def _logit(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        assert self._weight is not None and self._bias is not None
        terms = rows * self._weight[index]
        return terms.sum(1) + self._bias[index], terms.abs().sum(1) + self._bias[index].abs()

    def _count(self, labels: Tensor, classifier: Tensor | None, centre: Tensor) -> DecisionTotals:
        def count(chosen: Tensor) -> Tensor:
            return torch.bincount(labels[chosen], minlength=self._num_labels)

        return DecisionTotals(
            torch.bincount(labels, minlength=self._num_labels),
            None if classifier is None else count(classifier == labels),
            count(centre == labels),
            None if classifier is None else count(classifier == centre),
        )
