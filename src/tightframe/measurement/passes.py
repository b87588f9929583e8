"""The two looks at a layer's features: moments first, then what needs the finished means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import require_labels
from tightframe.decisions import DecisionCounts
from tightframe.errors import LoaderError
from tightframe.measurement.plan import LayerPlan, scatter_bytes
from tightframe.metrics.variability import is_resolved
from tightframe.numerics import contrasts
from tightframe.processes import all_reduce, rank
from tightframe.sources import LinearClassifier
from tightframe.statistics import ClassStatistics, FoldedStatistics, StatisticsAccumulator

_BLOCK_ROWS = 4096  # rows widened to float64 at a time
_SUM_ROWS = 512  # of half precision summed in float32
_SAME = 1e-3  # share of their length by which the mean of features may differ between passes: rounding is far below
_DROPPED = -1  # the label of rows whose class isn't selected


@dataclass(frozen=True)
class Sums:
    """How features of a layer are summed up.

    Attributes:
        plan: what is kept.
        num_classes: K.
        ignore_index: a label whose rows are dropped, or None.
        device: where sums are kept.
        shared: whether other processes have other samples, to be added up.
    """

    plan: LayerPlan
    num_classes: int
    ignore_index: int | None
    device: torch.device
    shared: bool

    def accumulator(self, num_classes: int | None = None, **changes: Any) -> StatisticsAccumulator:
        """A new accumulator, for K classes unless it says otherwise."""
        plan = self.plan
        options: dict[str, Any] = {
            name: getattr(plan, name) for name in ("covariance", "per_class", "folds", "fold_scatter")
        }
        options |= {"ignore_index": self.ignore_index, "device": self.device, **changes}
        size = options.pop("num_features", plan.num_features)
        return StatisticsAccumulator(self.num_classes if num_classes is None else num_classes, size, **options)

    def finished(self, accumulator: StatisticsAccumulator) -> tuple[ClassStatistics, FoldedStatistics | None]:
        """The statistics of all processes and, where samples were dealt to folds, those of the folds."""
        if accumulator.folds is None:
            return accumulator.compute_all() if self.shared else accumulator.compute(), None
        folded = accumulator.compute_folds_all() if self.shared else accumulator.compute_folds()
        return folded.total, folded

    def counted(self, features: Tensor, labels: Tensor) -> Tensor:
        """(N, D), those of features (..., D) whose labels count."""
        rows = features if self.ignore_index is None else features[labels != self.ignore_index]
        return rows.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class LayerMoments:
    """What the first look at a layer gave.

    Attributes:
        statistics: moments of all classes. folds: the same by folds of the samples, or None.
        unit: moments of the features at unit length, or None.
    """

    statistics: ClassStatistics
    folds: FoldedStatistics | None
    unit: ClassStatistics | None = None


class FirstLook:
    """Sums up the moments of a layer.

    Args:
        unit_features: collect moments of the features at unit length too.
    """

    def __init__(self, sums: Sums, *, unit_features: bool = False):
        self._sums = sums
        self._accumulator = sums.accumulator()
        self._unit = sums.accumulator(folds=None) if unit_features else None

    def add(self, features: Tensor, labels: Tensor) -> None:
        """A batch of features (..., D) and labels (...)."""
        self._accumulator.update(features, labels, validate=True)
        if self._unit is not None:
            unit = torch.nn.functional.normalize(features.to(torch.float64), dim=-1)
            self._unit.update(unit, labels, validate=True)

    def finish(self) -> LayerMoments:
        """The moments of all processes."""
        statistics, folds = self._sums.finished(self._accumulator)
        return LayerMoments(statistics, folds, None if self._unit is None else self._sums.finished(self._unit)[0])


class Selected:
    """Moments of some of the classes alone: with `min_count`, of those that have enough samples.

    Args:
        classes: (k,) their labels, ascending.
    """

    def __init__(self, sums: Sums, classes: Tensor, **changes: Any):
        self._sums, self.classes = sums, classes
        self._places = torch.full((sums.num_classes,), _DROPPED, device=classes.device)
        self._places[classes] = torch.arange(len(classes), device=classes.device)
        self._accumulator = sums.accumulator(len(classes), ignore_index=_DROPPED, **changes)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """A batch; rows of other classes are dropped."""
        places = self._places.to(labels.device)
        counted = torch.ones_like(labels, dtype=torch.bool)
        if self._sums.ignore_index is not None:
            counted = labels != self._sums.ignore_index
        require_labels(labels[counted], len(places))
        places = torch.where(counted, places[torch.where(counted, labels, 0)], _DROPPED)
        if bool((places != _DROPPED).any()):
            self._accumulator.update(features, places, validate=True)

    def finish(self) -> tuple[ClassStatistics, FoldedStatistics | None]:
        """Their statistics, as `ClassStatistics.select` gives them, and by folds."""
        statistics, folds = self._sums.finished(self._accumulator)
        if folds is not None:
            folds = FoldedStatistics(self._labelled(folds.total), tuple(map(self._labelled, folds.parts)))
        return self._labelled(statistics), folds

    def _labelled(self, value: ClassStatistics) -> ClassStatistics:
        return replace(value, class_ids=self.classes.to(value.counts.device), num_labels=self._sums.num_classes)


@dataclass(frozen=True)
class LayerDecisions:
    """What the second look at a layer gave.

    Attributes:
        decisions: of the classifier (with bias, and without where a convention asks) and of the nearest class mean;
            empty where none was asked for.
        projected: moments in the span of the class means, or None.
        selected: moments and folds of the classes with `min_count` samples, where the second look collected them.
    """

    decisions: Mapping[bool, DecisionCounts]
    projected: ClassStatistics | None = None
    selected: tuple[ClassStatistics, FoldedStatistics | None] | None = None


class SecondLook:
    """Decides samples and sums up what the first look couldn't, now that class means are known.

    Args:
        moments: of the first look.
        classifier: on these features, for its decisions; None for other layers.
        decided: whether batches bring the model's own decisions.
        decisions: "all", the number of samples to decide, or None.
        without_bias: count decisions of the classifier without its bias too.
        min_count: collect the moments of the classes with at least so many samples; 1 for none of them.
        room: bytes for scatter in the span of the class means.
        project: whether that may be collected.
    """

    def __init__(
        self,
        sums: Sums,
        moments: LayerMoments,
        *,
        classifier: LinearClassifier | None,
        decided: bool,
        decisions: int | str | None,
        without_bias: bool,
        min_count: int,
        room: float,
        project: bool,
    ):
        self._sums, self._statistics = sums, moments.statistics
        self._again: Tensor | float = 0.0  # the sum of the features
        self._counts = torch.zeros_like(moments.statistics.counts)
        self._seen, self._share = rank() << 40 if sums.shared else 0, 1.0  # rows so far; the share of them to decide
        if isinstance(decisions, int):
            self._share = decisions / max(int(moments.statistics.num_samples), 1)
        self._decisions = {
            bare: DecisionRule(sums, moments.statistics, classifier, without_bias=bare, decided=decided)
            for bare in ([False, *([True] if without_bias else [])] if decisions is not None else [])
        }
        chosen = moments.statistics
        self._selected: Selected | None = None
        if min_count > 1:
            chosen = chosen.with_at_least(min_count)
            self._selected = Selected(sums, chosen.class_ids)
        self._span = self._spanned(chosen, room) if project else None

    @property
    def needed(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._decisions) or self._span is not None or self._selected is not None

    @property
    def bytes(self) -> int:
        """That the scatter in the span takes."""
        return 0 if self._span is None else scatter_bytes(self._span[1].shape[1])

    def _spanned(self, chosen: ClassStatistics, room: float) -> tuple[Tensor, Tensor, Any] | None:
        """Prepare to take the scatter in the span of the class means in float64, if the whole scatter doesn't fit, or
        its products don't resolve this part, and if it is smaller and in the room."""
        if self._selected is None and self._sums.plan.covariance and is_resolved(self._statistics):
            return None
        if int(chosen.present.sum()) < 2:
            return None
        centred = chosen.populated().centred_means()
        rank = len(centred) - 1
        if rank >= self._sums.plan.num_features or scatter_bytes(rank) > room:
            return None
        basis = torch.linalg.qr(contrasts(centred).mT).Q
        kind = {"covariance": True, "per_class": False, "folds": None, "num_features": rank}
        sums = Selected(self._sums, chosen.class_ids, **kind)
        return chosen.global_mean(), basis, sums

    def add(self, features: Tensor, labels: Tensor, decided: Tensor | None) -> None:
        """A batch."""
        flat = labels.reshape(-1)
        rows = features.reshape(len(flat), -1)
        self._again += _total(self._sums.counted(features, labels))
        kept = flat if self._sums.ignore_index is None else flat[flat != self._sums.ignore_index]
        self._counts += torch.bincount(kept, minlength=self._sums.num_classes).to(self._counts.device)
        if self._selected is not None:
            self._selected.add(features, labels)
        if self._span is not None:
            centre, basis, sums = self._span
            for some, targets in zip(rows.split(_BLOCK_ROWS), flat.split(_BLOCK_ROWS), strict=True):
                sums.add((some.to(basis) - centre) @ basis, targets)
        if not self._decisions:
            return
        own = None if decided is None else decided.reshape(-1)
        if self._share < 1:
            chosen = _drawn(self._seen, len(flat), self._share).to(flat.device)
            self._seen += len(flat)
            rows, flat = rows[chosen], flat[chosen]
            own = None if own is None else own[chosen]
        for rule in self._decisions.values():
            if len(flat):
                rule.add(rows, flat, own)

    def finish(self, name: str) -> LayerDecisions:
        """What was found, of all processes. Raises: LoaderError if the samples weren't those of the first look."""
        self._require_same(name)
        projected = None
        if self._span is not None:
            projected, _ = self._span[2].finish()
        selected = None if self._selected is None else self._selected.finish()
        if selected is not None and selected[0].within is not None and is_resolved(selected[0]):
            projected = None  # the whole scatter serves, and has errors by fold
        if projected is not None:  # lengths in the span would lack what is orthogonal to it
            whole = self._statistics if selected is None else selected[0]
            whole = whole.select(projected.class_ids)
            projected = replace(projected, spread=whole.spread, rounding=whole.rounding)
        return LayerDecisions({bare: rule.finish() for bare, rule in self._decisions.items()}, projected, selected)

    def _require_same(self, name: str) -> None:
        statistics = self._statistics
        again = torch.zeros_like(statistics.means[0]) + self._again
        counts = self._counts
        if self._sums.shared:
            all_reduce(again, "the features' sum")
            all_reduce(counts, "the second pass's samples")
        if not torch.equal(counts, statistics.counts):
            raise LoaderError(
                f"the loader gave {int(statistics.num_samples)} samples and in a second pass {int(counts.sum())}, "
                "or others: it must repeat itself, or buffer_bytes must hold all features."
            )
        squares = statistics.mean_square
        gap = torch.linalg.vector_norm(again / statistics.num_samples - statistics.global_mean("sample"))
        if squares > 0 and float(gap / squares.sqrt()) > _SAME:
            raise LoaderError(
                f"the loader gave other samples in a second pass, or the model other features at {name}: both "
                "must repeat themselves, or buffer_bytes must hold all features. Data drawn at random must be drawn "
                "from generators that torch, NumPy or random know, or be left as they are for measuring."
            )


def _total(rows: Tensor) -> Tensor:
    """(D,) float64, the sum of rows; of half precision by way of float32, in a tenth of the time."""
    if rows.dtype not in (torch.float16, torch.bfloat16) or len(rows) == 0:
        return rows.sum(0, dtype=torch.float64)
    parts = [block.to(torch.float32).sum(0) for block in rows.split(_SUM_ROWS)]
    return torch.stack(parts).sum(0, dtype=torch.float64)


def _drawn(start: int, rows: int, share: float) -> Tensor:
    """Indices of a share of the rows from row number `start` on, the same however they come in batches.

    By a hash of a row's number: every so many-th would see the same positions or classes of data in an order.
    """
    mixed = torch.arange(start + 1, start + rows + 1) * -0x61C8864680B583EB  # SplitMix64, whose product wraps round
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((mixed >> 32) & 0x7FFFFFFF < share * (1 << 31)).nonzero().flatten()


class DecisionRule:
    """Counts the decisions of the nearest class mean and of the classifier, linear or the model's own.

    Args:
        decided: whether batches bring the model's own decisions.
    """

    def __init__(
        self,
        sums: Sums,
        statistics: ClassStatistics,
        classifier: LinearClassifier | None,
        *,
        without_bias: bool,
        decided: bool,
    ):
        self._sums = sums
        linear = classifier is not None and classifier.decides and (without_bias or not decided)
        weight, bias = (classifier.weight, classifier.bias) if linear and classifier is not None else (None, None)
        self._own = decided and not without_bias
        # a head on class means may lack the rows of classes without samples
        self._counts = DecisionCounts(
            statistics,
            weight,
            None if without_bias else bias,
            decided=self._own,
            ignore_index=sums.ignore_index,
        )

    def add(self, rows: Tensor, labels: Tensor, decided: Tensor | None) -> None:
        """A batch of rows (N, D), labels (N,) and the model's own decisions (N,)."""
        self._counts.update(rows, labels, decided=decided if self._own else None)

    def finish(self) -> DecisionCounts:
        """The counts of all processes."""
        if self._sums.shared:
            self._counts.all_reduce()
        return self._counts
