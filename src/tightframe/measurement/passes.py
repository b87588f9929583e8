"""The two passes over a layer's features: moments first, then measures that need the final class means."""

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
from tightframe.metrics.resolution import is_resolved
from tightframe.numerics import contrasts
from tightframe.processes import all_reduce, rank
from tightframe.sources import LinearClassifier
from tightframe.statistics import (
    ClassStatistics,
    CrossAccumulator,
    CrossMoments,
    FoldedCrossMoments,
    FoldedStatistics,
    StatisticsAccumulator,
)

_BLOCK_ROWS = 4096  # rows converted to float64 at a time
_SUM_ROWS = 512  # half-precision rows summed in float32
_SAME = 1e-3  # largest relative difference of the mean feature between passes; rounding is far below
_DROPPED = -1  # label of rows whose class is not selected


@dataclass(frozen=True)
class Sums:
    """How the features of a layer are accumulated.

    Attributes:
        plan: the statistics to keep.
        num_classes: K.
        ignore_index: label whose rows are dropped, or None.
        device: device of the sums.
        shared: whether to sum over processes.
    """

    plan: LayerPlan
    num_classes: int
    ignore_index: int | None
    device: torch.device
    shared: bool

    def accumulator(self, num_classes: int | None = None, **changes: Any) -> StatisticsAccumulator:
        """A new accumulator. Default: for K classes."""
        plan = self.plan
        options: dict[str, Any] = {
            name: getattr(plan, name) for name in ("covariance", "per_class", "folds", "fold_scatter")
        }
        options |= {"ignore_index": self.ignore_index, "device": self.device, **changes}
        size = options.pop("num_features", plan.num_features)
        return StatisticsAccumulator(self.num_classes if num_classes is None else num_classes, size, **options)

    def finished(self, accumulator: StatisticsAccumulator) -> tuple[ClassStatistics, FoldedStatistics | None]:
        """The statistics of all processes, and the folds if there are any."""
        if accumulator.folds is None:
            return accumulator.compute_all() if self.shared else accumulator.compute(), None
        folded = accumulator.compute_folds_all() if self.shared else accumulator.compute_folds()
        return folded.total, folded

    def counted(self, features: Tensor, labels: Tensor) -> Tensor:
        """(N, D), the features (..., D) without rows of the ignored label."""
        rows = features if self.ignore_index is None else features[labels != self.ignore_index]
        return rows.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class LayerMoments:
    """The results of the first pass over a layer.

    Attributes:
        statistics: moments of all classes. folds: the moments per fold, or None.
        unit: moments of features scaled to unit length, or None.
    """

    statistics: ClassStatistics
    folds: FoldedStatistics | None
    unit: ClassStatistics | None = None


class FirstLook:
    """Accumulates the moments of a layer.

    Args:
        unit_features: also collect moments of features scaled to unit length.
    """

    def __init__(self, sums: Sums, *, unit_features: bool = False):
        self._sums = sums
        self._accumulator = sums.accumulator()
        self._unit = sums.accumulator(folds=None) if unit_features else None

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features (..., D) and labels (...)."""
        self._accumulator.update(features, labels, validate=True)
        if self._unit is not None:
            unit = torch.nn.functional.normalize(features.to(torch.float64), dim=-1)
            self._unit.update(unit, labels, validate=True)

    def finish(self) -> LayerMoments:
        """The moments of all processes."""
        statistics, folds = self._sums.finished(self._accumulator)
        return LayerMoments(statistics, folds, None if self._unit is None else self._sums.finished(self._unit)[0])


class SimilarityLook:
    """Accumulates the moments of all layers together, for the similarity of each pair.

    Args:
        widths: D of each layer by name. folds: number of folds, or None.
    """

    def __init__(self, sums: Sums, widths: Mapping[str, int], folds: int | None):
        self._sums = sums
        self._accumulator = CrossAccumulator(widths, folds=folds, device=sums.device)
        self._seen = 0  # samples

    def add(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add a batch of validated features (..., D) and labels (...) by layer."""
        labels = next(iter(rows.values()))[1]
        numbers = torch.arange(self._seen, self._seen + len(labels))
        numbers = numbers.reshape(-1, *[1] * (labels.ndim - 1)).expand(labels.shape).flatten()
        self._seen += len(labels)
        if self._sums.ignore_index is not None:
            numbers = numbers[(labels != self._sums.ignore_index).flatten().cpu()]
        if len(numbers):
            features = {name: self._sums.counted(*each) for name, each in rows.items()}
            self._accumulator.update(features, samples=numbers, validate=False)

    def finish(self) -> CrossMoments | FoldedCrossMoments:
        """The moments of all processes, with folds if there are any."""
        accumulator, shared = self._accumulator, self._sums.shared
        if accumulator.folds is None:
            return accumulator.compute_all() if shared else accumulator.compute()
        return accumulator.compute_folds_all() if shared else accumulator.compute_folds()


class Selected:
    """Moments of a subset of the classes, such as those with `min_count` samples.

    Args:
        classes: (k,) labels of the subset, ascending.
    """

    def __init__(self, sums: Sums, classes: Tensor, **changes: Any):
        self._sums, self.classes = sums, classes
        self._places = torch.full((sums.num_classes,), _DROPPED, device=classes.device)
        self._places[classes] = torch.arange(len(classes), device=classes.device)
        self._accumulator = sums.accumulator(len(classes), ignore_index=_DROPPED, **changes)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch; rows of other classes are dropped."""
        places = self._places.to(labels.device)
        counted = torch.ones_like(labels, dtype=torch.bool)
        if self._sums.ignore_index is not None:
            counted = labels != self._sums.ignore_index
        require_labels(labels[counted], len(places))
        places = torch.where(counted, places[torch.where(counted, labels, 0)], _DROPPED)
        if bool((places != _DROPPED).any()):
            self._accumulator.update(features, places, validate=True)

    def finish(self) -> tuple[ClassStatistics, FoldedStatistics | None]:
        """The statistics of the subset, as from `ClassStatistics.select`, and per fold."""
        statistics, folds = self._sums.finished(self._accumulator)
        if folds is not None:
            folds = FoldedStatistics(self._labelled(folds.total), tuple(map(self._labelled, folds.parts)))
        return self._labelled(statistics), folds

    def _labelled(self, value: ClassStatistics) -> ClassStatistics:
        return replace(value, class_ids=self.classes.to(value.counts.device), num_labels=self._sums.num_classes)


@dataclass(frozen=True)
class LayerDecisions:
    """The results of the second pass over a layer.

    Attributes:
        decisions: decisions of the nearest class centre and of the classifier, by whether it has no bias (for
            conventions); empty if not requested.
        projected: moments in the span of the class means, or None.
        selected: moments and folds of the classes with `min_count` samples, if the second pass collected them.
    """

    decisions: Mapping[bool, DecisionCounts]
    projected: ClassStatistics | None = None
    selected: tuple[ClassStatistics, FoldedStatistics | None] | None = None


class SecondLook:
    """The second pass: decisions and moments that need the final class means.

    Args:
        moments: results of the first pass.
        classifier: classifier on these features; None for other layers.
        decided: whether batches have the model's decisions.
        decisions: "all", the number of samples to decide, or None.
        without_bias: also count decisions of the classifier without bias.
        min_count: collect the moments of classes with at least this many samples; 1: don't collect them.
        room: bytes for scatter in the span of the class means.
        project: whether to collect this scatter if needed.
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
        self._again: Tensor | float = 0.0  # sum of the features
        self._counts = torch.zeros_like(moments.statistics.counts)
        self._seen, self._share = rank() << 40 if sums.shared else 0, 1.0  # rows so far; share of rows to decide
        if isinstance(decisions, int):
            self._share = decisions / max(int(moments.statistics.num_samples), 1)
        self._decisions = {
            bare: DecisionRule(sums, moments.statistics, classifier, without_bias=bare, decided=decided)
            for bare in ([False, *([True] if without_bias else [])] if decisions is not None else [])
        }
        statistics = moments.statistics
        self._selected: Selected | None = None
        if min_count > 1:
            statistics = statistics.with_at_least(min_count)
            self._selected = Selected(sums, statistics.class_ids)
        self._span = self._spanned(statistics, room) if project else None

    @property
    def needed(self) -> bool:
        """Whether a second pass is needed."""
        return bool(self._decisions) or self._span is not None or self._selected is not None

    @property
    def bytes(self) -> int:
        """Bytes for the scatter in the span."""
        return 0 if self._span is None else scatter_bytes(self._span[1].shape[1])

    def _spanned(self, statistics: ClassStatistics, room: float) -> tuple[Tensor, Tensor, Any] | None:
        """Prepare the float64 scatter in the span of the class means, if the full scatter does not fit or does not
        resolve this part, and if it is smaller and fits into `room`."""
        if self._selected is None and self._sums.plan.covariance and is_resolved(self._statistics):
            return None
        if int(statistics.present.sum()) < 2:
            return None
        centred = statistics.populated().centred_means()
        rank = len(centred) - 1
        if rank >= self._sums.plan.num_features or scatter_bytes(rank) > room:
            return None
        basis = torch.linalg.qr(contrasts(centred).mT).Q
        kind = {"covariance": True, "per_class": False, "folds": None, "num_features": rank}
        sums = Selected(self._sums, statistics.class_ids, **kind)
        return statistics.global_mean(), basis, sums

    def add(self, features: Tensor, labels: Tensor, decided: Tensor | None) -> None:
        """Add a batch."""
        flat = labels.reshape(-1)
        rows = features.reshape(len(flat), -1)
        self._again += _total(self._sums.counted(features, labels))
        counted = flat if self._sums.ignore_index is None else flat[flat != self._sums.ignore_index]
        self._counts += torch.bincount(counted, minlength=self._sums.num_classes).to(self._counts.device)
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
            subset = _drawn(self._seen, len(flat), self._share).to(flat.device)
            self._seen += len(flat)
            rows, flat = rows[subset], flat[subset]
            own = None if own is None else own[subset]
        for rule in self._decisions.values():
            if len(flat):
                rule.add(rows, flat, own)

    def finish(self, name: str) -> LayerDecisions:
        """The results of all processes. Raises: LoaderError if the samples differ from those of the first pass."""
        self._require_same(name)
        projected = None
        if self._span is not None:
            projected, _ = self._span[2].finish()
        selected = None if self._selected is None else self._selected.finish()
        if selected is not None and selected[0].within is not None and is_resolved(selected[0]):
            projected = None  # the full scatter is resolved, and has folds
        if projected is not None:  # spread includes the part orthogonal to the span
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
                f"the loader must return the same samples in both passes; it returned {int(statistics.num_samples)} "
                f"samples, then {int(counts.sum())}, or different labels. Fix the loader, or raise buffer_bytes so "
                "that all features fit."
            )
        squares = statistics.mean_square
        gap = torch.linalg.vector_norm(again / statistics.num_samples - statistics.global_mean("sample"))
        if squares > 0 and float(gap / squares.sqrt()) > _SAME:
            raise LoaderError(
                f"the features at {name} must be the same in both passes, but they differ. Switch off random "
                "augmentation, use the global generators of torch, NumPy or random, or raise buffer_bytes so that all "
                "features fit."
            )


def _total(rows: Tensor) -> Tensor:
    """(D,) float64 sum of rows; half precision is summed in blocks of float32, ten times faster."""
    if rows.dtype not in (torch.float16, torch.bfloat16) or len(rows) == 0:
        return rows.sum(0, dtype=torch.float64)
    parts = [block.to(torch.float32).sum(0) for block in rows.split(_SUM_ROWS)]
    return torch.stack(parts).sum(0, dtype=torch.float64)


def _drawn(start: int, rows: int, share: float) -> Tensor:
    """Indices of a random share of the rows, which start at row number `start`; independent of the batches.

    From a hash of the row number, because a regular step would select the same positions or classes in ordered data.
    """
    mixed = torch.arange(start + 1, start + rows + 1) * -0x61C8864680B583EB  # SplitMix64, whose product wraps round
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((mixed >> 32) & 0x7FFFFFFF < share * (1 << 31)).nonzero().flatten()


class DecisionRule:
    """Counts the decisions of the nearest class centre and of the classifier, linear or the model's own.

    Args:
        decided: whether batches have the model's decisions.
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
        """Add a batch of rows (N, D), labels (N,) and the model's decisions (N,)."""
        self._counts.update(rows, labels, decided=decided if self._own else None)

    def finish(self) -> DecisionCounts:
        """The counts of all processes."""
        if self._sums.shared:
            self._counts.all_reduce()
        return self._counts
