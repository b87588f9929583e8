"""What is collected of one layer: moments in the first pass, and what needs finished means in the second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor

from tightframe.decisions import DecisionCounts
from tightframe.errors import LayerError, LoaderError, MissingExtraError
from tightframe.evidence import Evidence
from tightframe.hooks import CapturedFeatures, Classifier
from tightframe.hooks.layers import reading_weight
from tightframe.metrics.variability import is_resolved
from tightframe.numerics import contrasts
from tightframe.ood import DetectionTable, DetectorScores
from tightframe.processes import all_reduce, every_process
from tightframe.report import Report
from tightframe.report.detection import with_detection
from tightframe.statistics import ClassStatistics, FoldedStatistics, StatisticsAccumulator

FREE_SHARE = 4  # of the free memory, one part in so many is for scatter unless the caller says otherwise
_FOLD_WORK = 1.3e10  # numbers multiplied for the metrics of all folds: above that fewer folds do
_BLOCK_ROWS = 4096  # rows widened to float64 at a time
_SAME = 1e-3  # share of their length by which the mean of features may differ between passes: rounding is far below


@dataclass(frozen=True)
class LayerPlan:
    """What all processes agree on about a layer: its name, D, which scatter is kept, pooled and of each class, how many
    folds samples are dealt to for standard errors (None for none), and whether the scatter of each fold is kept too."""

    name: str
    num_features: int
    covariance: bool
    per_class: bool = False
    folds: int | None = None
    fold_scatter: bool = True


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device, without what the CPU would have to swap."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(psutil.virtual_memory().available)


def planned(
    widths: Mapping[str, int],
    num_classes: int,
    budget: float,
    last: str,
    *,
    covariance: bool,
    per_class: bool,
    folds: int | None,
) -> list[LayerPlan]:
    """What is kept of each layer, in order of depth: the D x D scatter that is asked for and fits into a budget of
    bytes, that of the classifier's input (`last`) before the others'; folds of that one alone, fewer of them where the
    budget is small, and then without their scatter."""
    plans = {}
    for name in sorted(widths, key=lambda name: name != last):
        pooled = covariance and scatter_bytes(widths[name]) <= budget
        budget -= scatter_bytes(widths[name]) if pooled else 0
        own = per_class and num_classes * scatter_bytes(widths[name]) <= budget
        budget -= num_classes * scatter_bytes(widths[name]) if own else 0
        plan = LayerPlan(name, widths[name], pooled, own)
        for choice in _folded(plan, folds, num_classes) if name == last else ():
            if (needed := _fold_bytes(num_classes, choice)) <= budget:
                budget -= needed
                plan = choice
                break
        plans[name] = plan
    return [plans[name] for name in sorted(widths, key=lambda name: name == last)]


def scatter_bytes(num_features: int) -> int:
    """About the memory of D x D scatter while it is accumulated."""
    memory = StatisticsAccumulator.memory
    return memory(0, num_features) - memory(0, num_features, covariance=False)


def _folded(plan: LayerPlan, folds: int | None, num_classes: int) -> Iterator[LayerPlan]:
    """The plan with folds, the best first: with their scatter, with fewer folds, with means and spreads alone.

    Where the metrics of one value take seconds there are fewer from the start.
    """
    halved = [folds >> halvings for halvings in range(3) if folds >> halvings >= 2] if folds else []
    D, K = plan.num_features, num_classes
    most = _FOLD_WORK / (K * D * min(K, D) + D**3 / 8)
    halved = [number for number in halved if number <= most] or halved[-1:]
    for scatter in (True, False):
        for number in halved:
            yield replace(plan, folds=number, fold_scatter=scatter)


def _fold_bytes(num_classes: int, plan: LayerPlan) -> int:
    """About what folds take beside the totals, of the training and of the held-out samples."""
    kept = {"covariance": plan.covariance, "per_class": plan.per_class}
    memory = StatisticsAccumulator.memory
    alone = memory(num_classes, plan.num_features, **kept)
    folded = memory(num_classes, plan.num_features, folds=plan.folds, fold_scatter=plan.fold_scatter, **kept)
    return 2 * (folded - alone)


class LayerCollection:
    """Statistics, decisions and, for wide features, statistics in the span of the class means, of one layer.

    Args:
        plan: what is kept.
        classifier: where the layer is the classifier's input: for its decisions and weight.
        num_classes: K.
        reader: the layer that the features flow into, where that isn't the classifier.
        options: of `StatisticsAccumulator`: ignore_index, device.
        shared: whether other processes have other samples, to be added up.
        without_bias: count decisions of the classifier without its bias too.
        unit_features: collect statistics of the features at unit length too.
    """

    def __init__(
        self,
        plan: LayerPlan,
        classifier: Classifier | None,
        num_classes: int,
        options: Mapping[str, Any],
        *,
        shared: bool,
        reader: torch.nn.Module | None = None,
        without_bias: bool = False,
        unit_features: bool = False,
    ):
        self.name, self.plan = plan.name, plan
        self._classifier, self._reader, self._shared = classifier, reader, shared
        self._options, self._num_classes = options, num_classes
        self._accumulator = self._new_accumulator()
        self._unit = self._new_accumulator(folds=None) if unit_features else None
        self._without_bias = without_bias
        self._decisions: dict[bool, DecisionCounts] = {}
        self._seen_again: Tensor | float = 0.0  # the sum of the second pass's features
        self._span: tuple[Tensor, Tensor, StatisticsAccumulator] | None = None
        self._held: tuple[StatisticsAccumulator, DecisionCounts] | None = None
        self._outside: StatisticsAccumulator | None = None
        self._scores: DetectorScores | None = None
        self.statistics: ClassStatistics
        self.folds: FoldedStatistics | None

    def _new_accumulator(self, num_classes: int | None = None, **changes: Any) -> StatisticsAccumulator:
        plan = self.plan
        kept = {name: getattr(plan, name) for name in ("covariance", "per_class", "folds", "fold_scatter")}
        size = num_classes or self._num_classes, plan.num_features
        return StatisticsAccumulator(*size, **{**kept, **self._options, **changes})

    # ------------------------------------------------------------------ training samples

    def add(self, features: Tensor, labels: Tensor) -> None:
        """First pass: a batch of features (..., D) and labels (...)."""
        self._accumulator.update(features, labels, validate=True)
        if self._unit is not None:
            unit = torch.nn.functional.normalize(features.to(torch.float64), dim=-1)
            self._unit.update(unit, labels, validate=True)

    def finish_moments(self) -> None:
        """The end of the first pass: means are known, so that samples can be decided and projected."""
        self.statistics, self.folds = self._finished(self._accumulator)
        self.unit_statistics = None if self._unit is None else self._finished(self._unit)[0]
        self._accumulator = self._unit = None  # type: ignore[assignment]  # their memory is for the second pass
        self._decisions = {bare: self._count(bare) for bare in ({False, True} if self._without_bias else {False})}

    def project(self, budget: float) -> int:
        """Prepare to take the scatter in the span of the class means in float64, if the whole scatter doesn't fit, or
        its products don't resolve this part, and if it is smaller and in the budget. Returns the bytes it takes."""
        if self.plan.covariance and is_resolved(self.statistics):
            return 0
        centred = self.statistics.populated().centred_means()
        rank = len(centred) - 1
        if rank >= self.plan.num_features or scatter_bytes(rank) > budget:
            return 0
        basis = torch.linalg.qr(contrasts(centred).mT).Q
        accumulator = StatisticsAccumulator(self._num_classes, rank, **self._options)
        self._span = self.statistics.global_mean(), basis, accumulator
        return scatter_bytes(rank)

    def look_again(self, features: Tensor, labels: Tensor) -> None:
        """Second pass: a batch, once the moments are finished."""
        for counts in self._decisions.values():
            counts.update(features, labels)
        self._seen_again += self._counted(features, labels).sum(0, dtype=torch.float64)
        if self._span is not None:
            centre, basis, accumulator = self._span
            flat = labels.reshape(-1)
            for rows, targets in zip(
                features.reshape(len(flat), -1).split(_BLOCK_ROWS), flat.split(_BLOCK_ROWS), strict=True
            ):
                accumulator.update((rows.to(basis) - centre) @ basis, targets, validate=True)

    def finish(self) -> None:
        """The end of the second pass. Raises: LoaderError if its samples weren't those of the first."""
        for counts in self._decisions.values():
            self._added_up(counts)
        second = self._decisions[False].totals.counts
        if not torch.equal(second, self.statistics.counts):
            raise LoaderError(
                f"the loader gave {int(self.statistics.num_samples)} samples and in a second pass {int(second.sum())}, "
                "or others: it must repeat itself, or buffer_bytes must hold all features."
            )
        if self._gap_between_passes() > _SAME:
            raise LoaderError(
                f"the loader gave other samples in a second pass, or the model other features at {self.name}: both "
                "must repeat themselves, or buffer_bytes must hold all features. Data drawn at random must be drawn "
                "from generators that torch, NumPy or random know, or be left as they are for measuring."
            )

    def _gap_between_passes(self) -> float:
        """Distance of the mean features of the two passes, as a share of the features' root mean square length."""
        statistics = self.statistics
        again = torch.zeros_like(statistics.means[0]) + self._seen_again
        if self._shared:
            all_reduce(again, "the features' sum")
        squares = statistics.mean_square
        gap = torch.linalg.vector_norm(again / statistics.num_samples - statistics.global_mean("sample"))
        return float(gap / squares.sqrt()) if squares > 0 else 0.0

    def _counted(self, features: Tensor, labels: Tensor) -> Tensor:
        """(N, D), those of features (..., D) whose labels count."""
        ignored = self._options["ignore_index"]
        return (features if ignored is None else features[labels != ignored]).reshape(-1, features.shape[-1])

    def _count(self, without_bias: bool = False) -> DecisionCounts:
        head = self._classifier
        linear = head is not None and head.decides_linearly
        weight, bias = (head.weight, head.bias) if head is not None and linear else (None, None)
        ignored = self._options["ignore_index"]
        return DecisionCounts(self.statistics, weight, None if without_bias else bias, ignore_index=ignored)

    # ------------------------------------------------------------------ other samples

    def detect(self) -> None:
        """From here on, have detectors score held-out and out-of-distribution samples."""
        self._scores = DetectorScores(self.evidence())

    def add_held_out(self, features: Tensor, labels: Tensor) -> None:
        """A batch of held-out samples."""
        accumulator, counts = self.held_out
        accumulator.update(features, labels, validate=True)
        counts.update(features, labels)
        if self._scores is not None:
            self._scores.add_inside(self._counted(features, labels))

    @property
    def held_out(self) -> tuple[StatisticsAccumulator, DecisionCounts]:
        """Moments and decisions of the held-out samples."""
        if self._held is None:
            self._held = self._new_accumulator(per_class=False), self._count()
        return self._held

    def add_outside(self, features: Tensor) -> None:
        """A batch of out-of-distribution samples."""
        labels = torch.zeros(features.shape[:-1], dtype=torch.int64, device=features.device)
        self.outside.update(features, labels, validate=True)
        if self._scores is not None:
            self._scores.add_outside(features.reshape(-1, features.shape[-1]))

    @property
    def outside(self) -> StatisticsAccumulator:
        """Moments of the out-of-distribution samples, one class."""
        if self._outside is None:
            self._outside = self._new_accumulator(1, covariance=False, per_class=False, ignore_index=None)
        return self._outside

    # ------------------------------------------------------------------ results

    def evidence(self, *, with_outside: bool = False) -> Evidence:
        """What metrics can use, of all processes together."""
        head = self._classifier
        # a head on class means lacks the rows of classes without samples
        complete = head is not None and bool(head.weight.isfinite().all())
        projected = None
        if self._span is not None:
            # lengths in the span would lack what is orthogonal to it
            whole = self.statistics
            projected = replace(self._finished(self._span[2])[0], spread=whole.spread, rounding=whole.rounding)
        outside, outside_folds = self._finished(self.outside) if with_outside else (None, None)
        return Evidence(
            self.statistics,
            head.weight if head is not None and complete else None,
            head.bias if head is not None and complete else None,
            self._decisions[False],
            outside,
            folds=self.folds,
            outside_folds=outside_folds,
            consumer=None if head is not None or self._reader is None else self._reading_weight(self._reader),
            projected=projected,
        )

    def decisions(self, *, without_bias: bool) -> DecisionCounts:
        """The decisions on the training samples."""
        return self._decisions[without_bias]

    def held_out_evidence(self) -> Evidence:
        """What metrics can use of the held-out samples, of all processes together."""
        accumulator, counts = self.held_out
        self._added_up(counts)
        statistics, folds = self._finished(accumulator)
        return Evidence(statistics, decisions=counts, folds=folds)

    def detection(self) -> DetectionTable | None:
        """What the detectors made of the samples of all processes; None unless `detect` was called.

        Raises: EmptyBatchError without samples of either kind; MissingExtraError.
        """
        if self._scores is None:
            return None
        if self._shared:
            said = every_process((self._scores.inside, self._scores.outside), "the detectors' scores")
            for place, mine in enumerate((self._scores.inside, self._scores.outside)):
                for name in mine:
                    mine[name] = [scores for theirs in said for scores in theirs[place][name]]
        return self._scores.table()

    def _reading_weight(self, reader: torch.nn.Module) -> Tensor | None:
        weight = reading_weight(reader, self.plan.num_features)
        return None if weight is None else weight.to("cpu", torch.float64)

    def _finished(self, accumulator: StatisticsAccumulator) -> tuple[ClassStatistics, FoldedStatistics | None]:
        """The statistics of all processes and, where samples were dealt to folds, those of the folds."""
        if accumulator.folds is None:
            return accumulator.compute_all() if self._shared else accumulator.compute(), None
        folded = accumulator.compute_folds_all() if self._shared else accumulator.compute_folds()
        return folded.total, folded

    def _added_up(self, counts: DecisionCounts) -> None:
        if self._shared:
            counts.all_reduce()


def detected(report: Report, collection: LayerCollection) -> Report:
    """The report with what detectors made of a layer's samples, if they were asked."""
    try:
        table = collection.detection()
    except MissingExtraError as error:
        return report.extended([], [f"detectors are left out: {error}"])
    return report if table is None else with_detection(report, table)


def fitting(
    features: Mapping[str, Tensor], labels: Tensor, captured: CapturedFeatures, last: str
) -> tuple[dict[str, int], list[str]]:
    """Names and widths of the layers to collect, in the order of the calls, as the first batch shows them, and notes
    on those left out.

    Left out are layers found by "auto" or a pattern that aren't called or whose positions aren't the labels', those
    found by "auto" that hold what flows into the classifier (`last`), and further calls of the classifier.

    Raises: LayerError for such a layer that was asked for by name.
    """
    widths: dict[str, int] = {}
    notes = []
    for name, point in captured.points.items():
        if name not in features and not point.optional:
            raise LayerError(f"the forward pass doesn't call {name!r}, or it gives no floating-point tensor.")
    for name, rows in features.items():
        point = captured.point_of(name)
        if name != last and point.name == last:
            notes.append(f"{name} is left out: of the classifier, only the first call in a forward pass is measured.")
        elif name != last and rows.shape[:-1] != labels.shape:
            what = f"layer {name} has positions {tuple(rows.shape[:-1])}, but the labels {tuple(labels.shape)}"
            if not point.optional:
                raise LayerError(f'{what}; choose others, e.g. Layer({point.name!r}, positions="mean").')
            notes.append(f"{what}; it is left out.")
        elif name == last or not point.boundary or not _equal(rows, features[last]):
            widths[name] = rows.shape[-1]
    return widths, notes


def _equal(rows: Tensor, others: Tensor) -> bool:
    return rows.shape == others.shape and torch.allclose(rows, others.to(rows.dtype), rtol=1e-4, atol=1e-6)
