"""`DecisionCounts`: decisions of the classifier and of the nearest class centre, counted per class (NC4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe import checks
from tightframe.decisions.scoring import CLOSE_ROWS, MANY, Rows, Rule, Screen, exponent_of, undecided
from tightframe.errors import ClassifierError, MergeError, ShapeError
from tightframe.numerics import full_precision, norms, widened
from tightframe.processes import reduce_counts
from tightframe.statistics import ClassStatistics

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_CHUNK_ROWS = 4096
_CHUNK_SCORES, _CHUNK_ENTRIES = 1 << 19, 1 << 22  # maximum per chunk of rows: scores stay in cache


@dataclass(frozen=True, eq=False)
class DecisionTotals:
    """Per-class counts of decisions, the mergeable part of `DecisionCounts`. All but the last are (K,) int64.

    Attributes:
        counts: number of samples per class.
        classifier_correct: samples that the classifier labels correctly, or None without a classifier.
        centre_correct: samples nearest to the centre of their own class.
        agreement: samples on which the two decisions agree, or None without a classifier.
        unlabelled: (2,), samples without a label, and samples among them on which the decisions agree.
    """

    counts: Tensor
    classifier_correct: Tensor | None
    centre_correct: Tensor
    agreement: Tensor | None
    unlabelled: Tensor = None  # type: ignore[assignment]  # __post_init__ fills it

    def __post_init__(self) -> None:
        if self.unlabelled is None:
            object.__setattr__(self, "unlabelled", self.counts.new_zeros(2))

    def _map(self, function: Callable[[str, Tensor], Tensor]) -> DecisionTotals:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(name, v) for name, v in values.items() if v is not None})

    def merge(self, other: DecisionTotals) -> DecisionTotals:
        """Both sets of samples together. Raises: MergeError if classes differ, or only one has a classifier."""
        if self.counts.shape != other.counts.shape or (self.agreement is None) != (other.agreement is None):
            raise MergeError("decision counts must have the same classes, and both or neither a classifier.")
        return self._map(lambda name, values: values + getattr(other, name))

    def all_reduce(self, group: ProcessGroup | None = None) -> DecisionTotals:
        """The counts over all processes of the group (default: all); a collective call.

        Raises: MergeError, in every process, if classes differ or only some have a classifier; DistributedError.
        """
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        names.remove("unlabelled")
        total = reduce_counts(torch.stack([getattr(self, name) for name in names]), "decision counts", group)
        (unlabelled,) = reduce_counts(self.unlabelled[None], "decision counts", group)
        return replace(self, unlabelled=unlabelled, **dict(zip(names, total, strict=True)))

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> DecisionTotals:
        """The counts of a subset of the classes, by label and by number of samples (inclusive bounds)."""
        rows = torch.arange(len(self.counts), device=self.counts.device)
        if classes is not None:
            rows = torch.as_tensor(classes, device=self.counts.device)
            checks.require_labels(rows, len(self.counts))
        if min_count is not None:
            rows = rows[self.counts[rows] >= min_count]
        if max_count is not None:
            rows = rows[self.counts[rows] <= max_count]
        return self._map(lambda name, values: values * 0 if name == "unlabelled" else values[rows])


class DecisionCounts:
    """Counts per class of (classifier = label), (nearest centre = label) and (classifier = nearest centre).

    Takes batches after the class means are known. The classifier is argmax_k <w_k, x> + b_k over all K classes; the
    nearest centre is argmin_k |x - mean_k| over classes with samples. Both are decided as in exact arithmetic: if
    float32 scores are too close, candidates are compared in float64, so decisions do not depend on the size of values,
    the distance of means from the origin, or the batches. Ties (equal up to float64 rounding) go to the lowest class
    index. Class means within their rounding (`ClassStatistics.rounding`) are one centre.

    Args:
        statistics: class means, for example of the training set.
        weight: (K, D) classifier rows, or None to count nearest centres only.
        bias: (K,), or None for zero.
        decided: whether `update` receives the classifier's decisions, for a classifier that is not linear; needs
            weight=None.
        tile_size: classes scored at once; memory is rows x tile_size.
        class_dim, ignore_index: as in `StatisticsAccumulator`.

    Source: NC4, Papyan, Han & Donoho 2020.

    >>> import torch
    >>> from tightframe import ClassStatistics, DecisionCounts
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)  # the nearer mean changes at 6
    >>> decisions = DecisionCounts(statistics, torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, -1.0]))
    >>> decisions.update(features, labels)  # the classifier decides for class 1 above 1
    >>> decisions.totals.centre_correct.tolist(), decisions.totals.classifier_correct.tolist()
    ([2, 2], [1, 2])
    """

    def __init__(
        self,
        statistics: ClassStatistics,
        weight: checks.Array | None = None,
        bias: checks.Array | None = None,
        *,
        decided: bool = False,
        tile_size: int = 1024,
        class_dim: int = -1,
        ignore_index: int | None = None,
    ):
        statistics = statistics.detach().populated()
        labels, order = statistics.class_ids.sort()  # ties go to the lowest label, in any order of selection
        means, rounding, square = statistics.means[order], statistics.rounding[order], float(statistics.mean_square)
        self._num_labels = statistics.num_labels
        self._num_features = statistics.num_features
        self._class_dim, self._ignore_index = class_dim, ignore_index
        if weight is None and bias is not None:
            raise ClassifierError("bias needs a weight; pass weight=, or bias=None.")
        if weight is not None and decided:
            raise ClassifierError("pass a weight, or decided=True with decisions in each batch; not both.")
        self._given = decided
        # exact factors, powers of two, bring products into the range of float32 and float64
        exponent = exponent_of(max(float(means.abs().max()), math.sqrt(square / self._num_features)))
        power = max(-500, min(500, max(-30, min(30, exponent)) - exponent))  # 0 for features of any common size
        self._factor = 2.0**power
        rules = [Rule(means * self._factor, None, labels, rounding * self._factor, tile_size)]
        if weight is not None:
            weight = checks.as_tensor(weight, "the classifier's weight")
            bias = None if bias is None else checks.as_tensor(bias, "the classifier's bias")
            checks.require_classifier(weight, bias, self._num_labels, self._num_features)
            weight = weight.detach().to(means)
            bias = means.new_zeros(self._num_labels) if bias is None else bias.detach().to(means)
            down = min(500, -exponent_of(max(float(weight.abs().max()), float(bias.abs().max()) * self._factor)))
            weight, bias = weight * 2.0**down, bias * 2.0 ** (power + down)
            labels = torch.arange(self._num_labels, device=means.device)
            rules.append(Rule(weight, bias, labels, torch.zeros_like(bias), tile_size))
        most, centre = max(len(rule.labels) for rule in rules), rules[0].centre
        distance = float(centre.square().sum())
        # rows are centred if they are far from the origin, or if centring is a small part of the work
        centred = most >= MANY or distance > 64 * (square * self._factor**2 - distance)
        self._shift = centre if centred else torch.zeros_like(centre)
        self._centred, self._rules, self._screens = centred, rules, list[Screen]()
        for together in [[rule] for rule in rules] if most >= MANY else [rules]:
            screen = Screen(together, self._shift, tile_size)
            if most >= MANY and means.device.type == "cpu" and torch.cpu._is_amx_tile_supported():
                screen = Screen(together, self._shift, tile_size, finer=screen)
            self._screens.append(screen)
        size = min(_CHUNK_ROWS, _CHUNK_SCORES // min(most, tile_size), _CHUNK_ENTRIES // self._num_features)
        with torch.inference_mode(False):
            zeros = torch.zeros(self._num_labels, dtype=torch.int64, device=means.device)
            # rows of small batches wait for others
            self._waiting = torch.empty(max(64, size), self._num_features, device=means.device)
            # labels and, with `decided`, the classifier's decisions
            self._waiting_labels = zeros.new_empty(max(64, size), 2 if decided else 1)
        self._used, self._close = 0, list[tuple[Tensor, Tensor, Tensor]]()
        with_classifier = None if weight is None and not decided else zeros
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

    def update(
        self,
        features: checks.Array,
        labels: checks.Array | None = None,
        *,
        decided: checks.Array | None = None,
    ) -> None:
        """Decide and count a batch; arguments and errors as in `StatisticsAccumulator.update`.

        Without labels only agreement is counted. `decided` are the classifier's decisions, in the shape of the labels,
        for an instance with `decided=True`.

        Raises: ClassifierError for unlabelled samples without a classifier, or if `decided` is missing or unexpected.
        """
        if labels is None and len(self._rules) < 2 and not self._given:
            raise ClassifierError("samples without labels need a classifier, to count agreement; pass its weight.")
        if (decided is not None) != self._given:
            raise ClassifierError(
                f"update(decided=) must be {'passed' if self._given else 'None'} for DecisionCounts with "
                f"decided={self._given}."
            )
        features, unlabelled = checks.as_tensor(features, "features"), labels is None
        if labels is None:
            labels = torch.zeros_like(features.select(self._class_dim, 0), dtype=torch.int64)
        labels = checks.as_tensor(labels, "labels")
        ignored = None if unlabelled else self._ignore_index
        if decided is not None:
            decided = self._decisions_for(checks.as_tensor(decided, "decided"), labels, ignored)
        rows, labels = checks.as_rows(
            features.detach(),
            labels,
            num_features=self._num_features,
            class_dim=self._class_dim,
            ignore_index=ignored,
        )
        rows, labels = rows.to(self._waiting.device), labels.to(self._waiting.device)
        checks.require_labels(labels, self._num_labels)
        if unlabelled:
            labels = labels - 1
        labels = torch.stack([labels, *([] if decided is None else [decided])], 1)
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

    def _decisions_for(self, decided: Tensor, labels: Tensor, ignored: int | None) -> Tensor:
        """(N,) the passed decisions, without ignored rows."""
        checks.require_integers(decided)
        if decided.shape != labels.shape:
            raise ShapeError(f"decided must have the labels' shape, {tuple(labels.shape)}; got {tuple(decided.shape)}.")
        decided = decided.reshape(-1).to(self._waiting.device, torch.int64)
        if ignored is not None:
            decided = decided[(labels.reshape(-1) != ignored).to(decided.device)]
        checks.require_labels(decided, self._num_labels, "decided")
        return decided

    def decide(self, rows: checks.Array) -> tuple[Tensor | None, Tensor]:
        """Labels (N,) of the classifier (None without one) and of the nearest centre, for rows (N, D).

        Raises: NonFiniteError for rows that are not finite.
        """
        rows = checks.as_tensor(rows, "rows")
        decided, rest = self._screened(rows)
        decided[rest] = self._exactly(rows[rest], decided[rest])
        nearest, *classifier = decided.unbind(1)
        return classifier[0] if classifier else None, nearest

    def merge(self, other: DecisionCounts) -> None:
        """Add the counts of another instance with the same statistics and classifier."""
        self._totals = self.totals.merge(other.totals)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add the counts of the other processes; call it once, after the last batch.

        All processes must use the same statistics (`ClassStatistics.all_reduce`) and classifier. Raises: as
        `DecisionTotals.all_reduce`.
        """
        self._totals = self.totals.all_reduce(group)

    def _add(self, rows: Tensor, labels: Tensor) -> None:
        """Decide and count rows; rows with scores too close for float32 wait for a float64 batch."""
        decided, rest = self._screened(rows)
        if len(rest):
            self._close.append((rows[rest], labels[rest], decided[rest]))
            sure = (decided >= 0).all(1)
            labels, decided = labels[sure], decided[sure]
        self._count(labels, decided)
        if sum(len(labels) for _, labels, _ in self._close) >= CLOSE_ROWS:
            _ = self.totals

    def _screened(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (N, rules) of N rows, -1 if scores are too close for float32, and indices of rows with a -1."""
        with full_precision(rows.device.type):
            decided = torch.cat([self._screened_chunk(chunk) for chunk in rows.split(len(self._waiting))])
        rest = undecided(decided)
        if len(rest) and not math.isfinite(
            rows[rest].sum(dtype=torch.float64)
        ):  # rows that are not finite are undecided
            checks.require_finite(rows)
        return decided, rest

    def _screened_chunk(self, rows: Tensor) -> Tensor:
        local = widened(rows)
        if self._factor != 1:
            local = local * self._factor
        if self._centred:
            local = local - self._shift.to(local.dtype)
        local = local.float()
        exact = rounded = Rows(local, norms(local))
        if any(screen.rounds for screen in self._screens):
            half = local.bfloat16()
            rounded = Rows(half, exact.lengths, norms(half.float().sub_(local)))
        return torch.cat([screen.decide(exact, rounded) for screen in self._screens], 1)

    def _exactly(self, rows: Tensor, decided: Tensor) -> Tensor:
        """The labels (N, rules), with every -1 decided in float64."""
        with full_precision(rows.device.type):
            for column, rule in enumerate(self._rules):
                rest = decided[:, column] < 0
                decided[rest, column] = rule.decide(rows[rest].double() * self._factor)
        return decided

    def _count(self, labels: Tensor, decided: Tensor) -> None:
        labels, *passed = labels.unbind(1)
        labelled = labels >= 0

        def count(hits: Tensor) -> Tensor:
            return torch.bincount(labels[hits & labelled], minlength=self._num_labels)

        nearest, *classifier = (*decided.unbind(1), *passed)
        equal = classifier[0] == nearest if classifier else None
        counts = DecisionTotals(
            count(labelled),
            count(classifier[0] == labels) if classifier else None,
            count(nearest == labels),
            None if equal is None else count(equal),
            torch.stack([(~labelled).sum(), labelled.new_zeros(()) if equal is None else (equal & ~labelled).sum()]),
        )
        self._totals = self._totals.merge(counts)
