"""`measure`: one pass over the data, every layer and process together, and a second where means must be known first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.errors import ChoiceError, ClassifierError, EmptyBatchError, LayerError
from tightframe.hooks import (
    Classifier,
    Layer,
    Point,
    bare_model,
    capture,
    choose_layers,
    classifier_input,
    device_of,
    evaluation,
    find_classifier,
)
from tightframe.hooks.positions import require_positions
from tightframe.measurement.classifier_check import doubts
from tightframe.measurement.collecting import (
    FREE_SHARE,
    LayerCollection,
    LayerPlan,
    detected,
    fitting,
    free_memory,
    planned,
)
from tightframe.measurement.loading import Batch, Source, first_process_buffers, repeats, split_batch
from tightframe.measurement.normalisation import GAP, NormalisationCheck
from tightframe.measurement.sampling import same_randomness
from tightframe.metrics import CONVENTIONS, Convention, Metric, available
from tightframe.metrics.table import chosen as chosen_metrics
from tightframe.processes import every_process, world_size
from tightframe.report import Report
from tightframe.statistics.folds import FOLDS
from tightframe.theory import Training

BUFFER_BYTES = 1 << 30
_START = (
    "the start of a measurement (Every process must call measure(); one that measures its own samples alone passes "
    "distributed=False)"
)
_TOGETHER = 2048  # rows of small batches looked at together


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: str | Layer | Iterable[str | Layer] = (),
    positions: str | None = None,
    test: Iterable[Any] | None = None,
    ood: Iterable[Any] | None = None,
    classifier: str | None = None,
    covariance: bool = True,
    per_class: bool = False,
    folds: int | None = FOLDS,
    min_count: int = 1,
    training: Training | None = None,
    detectors: bool = True,
    ignore_index: int | None = None,
    metrics: Sequence[str | Metric[Any]] | None = None,
    conventions: Sequence[str] = (),
    unpack: Callable[[Any], Batch] = split_batch,
    buffer_bytes: int = BUFFER_BYTES,
    covariance_bytes: int | None = None,
    second_pass: bool = True,
    distributed: bool = True,
    progress: bool = True,
    context: Mapping[str, Any] | None = None,
) -> Report:
    """Measure the neural collapse of a classifier's last layer, and of others, in one pass over the data.

    Features are what flows into the classifier. The model runs in eval mode without gradients, out of any wrapper
    (`torch.compile`, DataParallel, DistributedDataParallel), and is left exactly as it was. Features are kept in a
    buffer for NC4, which needs the finished class means; beyond `buffer_bytes` the loader is run a second time and must
    give the same samples. Where the D x D scatter of wide features doesn't fit, the second look also projects them on
    the span of the class means, in which NC1 is the same.

    Under `torch.distributed`, every process calls this with its own part of the data (none at all is fine), and all
    get the report of all samples; what torch's DistributedSampler repeats to make the parts equal is left out.

    Args:
        model: any module; called with a batch's inputs on the device of its first parameter.
        loader: training batches: (inputs, labels) or mappings with a "labels" entry (then called with the rest).
        layers: others than the classifier's input, as in `capture`: names, patterns, `Layer`s, or "auto", every block
            boundary. Their reports are the report's `layers`.
        positions: of features with several positions to a sample, a name in `POSITIONS`. Default: for the classifier's
            input every position is a sample ("each"), which must then have a label; for other layers "mean" where
            labels are (N,), else "each".
        test: held-out batches of the same form, for NC4 and variability on held-out samples.
        ood: out-of-distribution batches, with or without labels, for NC5.
        classifier: name of the classifier module; default: the model's own `get_classifier()` or
            `get_output_embeddings()`, else its last linear layer or 1x1 convolution. A note says so where the model
            returns other decisions than that one's.
        covariance, per_class, ignore_index: as in `StatisticsAccumulator`.
        folds: parts to which samples are dealt, for standard errors at the classifier's input; None for none (but for
            shares of samples, whose errors are binomial). All positions of a sample are in one fold.
        min_count: report on the classes with at least so many samples; NC1 then needs `per_class`.
        training: weight decays and loss, for what theory predicts of the geometry.
        detectors: whether detectors are judged on the held-out and the out-of-distribution samples, if there are both.
        metrics: what to report, names in `METRICS` or metrics of your own; default: all in `METRICS` that the data
            allow, for other layers the headline ones.
        conventions: further rows, names in `CONVENTIONS`.
        unpack: makes a `Batch` of what the loaders give, where it isn't one of the usual forms.
        buffer_bytes: for features between the first and the second look at them.
        covariance_bytes: for D x D scatter of all layers, and for folds; default: a quarter of the free memory.
        second_pass: whether the loader may be run again for the sake of wide features alone.
        distributed: add up the processes of `torch.distributed`, where it is initialised.
        progress: show a progress bar (if rich is installed).
        context: facts to put into the report, e.g. {"epoch": 3}.

    Raises: ClassifierError if no classifier is found or it doesn't fit; LayerError for unknown layers, ChoiceError for
    unknown measures, conventions or positions, before anything is run; LoaderError for batches of another form or a
    loader that changes between passes; DistributedError if a process is lost; the errors of
    `StatisticsAccumulator.update`.
    """
    bare = bare_model(model)
    head = find_classifier(bare, classifier)
    wanted_metrics = None if metrics is None else chosen_metrics(metrics)
    for unknown in set(conventions) - CONVENTIONS.keys():
        raise ChoiceError(f"no convention is called {unknown!r}; CONVENTIONS lists them.")
    wanted = {name: CONVENTIONS[name] for name in conventions}
    last = replace(classifier_input(head), positions=require_positions(positions or "each"))
    chosen = [point for point in choose_layers(bare, layers, head) if point.name != last.name]
    points = [*(replace(point, positions=point.positions or positions) for point in chosen), last]
    shared = distributed and world_size() > 1
    device = device_of(bare)
    num_classes = len(head.weight)
    if num_classes < 2:
        raise ClassifierError(
            f"{head.name or 'the model'} has a single output; decisions between two classes by its sign aren't "
            "measured. Give it an output for each class."
        )
    options = {"ignore_index": ignore_index, "device": device}
    with (
        evaluation(bare),
        first_process_buffers(bare, _START) if shared else nullcontext(),
        same_randomness(loader, test, ood),
        capture(bare, points) as captured,
    ):
        source = Source(bare, captured, last.name, unpack, progress=progress, shared=shared)
        normalisation = NormalisationCheck(bare, captured, last.name)
        with same_randomness(loader):  # so that a second pass sees the same samples, if the loader draws them
            batches = source.batches(loader, "training samples", watch=normalisation.see)
            first = next(batches, None)
            widths, notes = ({}, []) if first is None else fitting(*first, captured, last.name)
            head = find_classifier(bare, classifier)  # a weight that is computed from others is up to date only now
            if first is not None and classifier is None:
                notes += doubts(head, first[0][last.name], source.output)
            collector = _Collector(head, last, wanted, shared, options, min_count, training)
            budget = free_memory(device) // FREE_SHARE if covariance_bytes is None else covariance_bytes
            again = covariance and second_pass and repeats(loader)
            mine = _Outset(widths, notes, budget, again, test is not None, ood is not None)
            outset = _agreed(every_process(mine, _START, shared=shared))
            plans = planned(
                outset.widths,
                num_classes,
                outset.budget,
                last.name,
                covariance=covariance,
                per_class=per_class,
                folds=folds,
            )
            source.required = [plan.name for plan in plans]
            collections = [collector.layer(plan, captured.point_of(plan.name)) for plan in plans]
            buffer = _Buffer(buffer_bytes)
            for features, labels in batches if first is None else chain([first], batches):
                for each in collections:
                    each.add(features[each.name], labels)
                buffer.add({each.name: features[each.name] for each in collections}, labels)
        for each in collections:
            each.finish_moments()
        seen = ((normalisation.seen, normalisation.gap()), buffer.overflowed)
        gaps, overflowed = zip(*every_process(seen, "the first pass", shared=shared), strict=True)
        if covariance and (outset.again or not any(overflowed)):
            room = outset.budget  # the first pass's accumulators are gone
            for each in (collections[-1], *collections[:-1]):
                room -= each.project(room)
        second = source.batches(loader, "training samples, second pass") if any(overflowed) else buffer.emptied()
        for features, labels in second:
            for each in collections:
                each.look_again(features[each.name], labels)
        for each in collections:
            each.finish()
        if detectors and outset.held_out and outset.outside:
            collections[-1].detect()
        for features, labels in () if test is None else source.batches(test, "held-out samples"):
            for each in collections:
                each.add_held_out(features[each.name], labels)
        outside = () if ood is None else source.batches(ood, "out-of-distribution samples", labelled=False)
        for features, _ in outside:
            for each in collections:
                each.add_outside(features[each.name])
    notes = [*outset.notes, *_left_out(plans, per_class=per_class, folds=folds)]
    if training is not None and head.fixed:
        notes.append("the classifier is fixed: what theory predicts of a trained one is left out.")
    gap = max(gaps, key=lambda each: each[0])[1]  # of the process that saw most: few rows have averages of their own
    facts = {"mode": "eval", **({"processes": world_size()} if shared else {}), **(context or {})}
    if gap is not None:
        facts["normalisation_gap"] = gap
        notes += [_blip(gap)] if gap > GAP else []
    *others, report = (
        collector.report(each, wanted_metrics, facts, held_out=outset.held_out, outside=outset.outside)
        for each in collections
    )
    return replace(report.extended([], notes), layers=tuple(others))


@dataclass(frozen=True)
class _Collector:
    """Makes a layer's collection, and its report in the end."""

    head: Classifier
    last: Point
    conventions: Mapping[str, Convention]
    shared: bool
    options: Mapping[str, Any]
    min_count: int
    training: Training | None

    def layer(self, plan: LayerPlan, point: Point) -> LayerCollection:
        mine = plan.name == self.last.name
        return LayerCollection(
            plan,
            self.head if mine else None,
            len(self.head.weight),
            self.options,
            shared=self.shared,
            reader=point.reader,
            without_bias=mine and any(convention.without_bias for convention in self.conventions.values()),
            unit_features=mine and any(convention.unit_features for convention in self.conventions.values()),
        )

    def report(
        self,
        layer: LayerCollection,
        metrics: Sequence[Metric[Any]] | None,
        facts: Mapping[str, Any],
        *,
        held_out: bool,
        outside: bool,
    ) -> Report:
        evidence = layer.evidence(with_outside=outside)
        variants, notes = {}, []
        context = {"layer": layer.name, **facts}
        if layer.name == self.last.name:
            context |= {"classifier": self.head.name} | ({"classifier_fixed": True} if self.head.fixed else {})
            for name, convention in self.conventions.items():
                statistics = layer.unit_statistics if convention.unit_features else evidence.statistics
                decisions = layer.decisions(without_bias=convention.without_bias)
                projected = None if convention.unit_features else evidence.projected
                dealt = None if convention.unit_features else evidence.folds
                bias = None if convention.without_bias else evidence.bias
                variants[name] = replace(
                    evidence, statistics=statistics, decisions=decisions, projected=projected, folds=dealt, bias=bias
                )
                if convention.unit_features and not convention.metric.available(variants[name]):
                    del variants[name]
                    notes.append(f"{name} is left out: the scatter of the unit features was beyond the memory budget.")
        else:
            shown = [each for each in available(evidence) if each.headline] if metrics is None else metrics
            metrics = [each for each in shown if each.available(evidence)]
        report = Report.from_evidence(
            evidence,
            test=layer.held_out_evidence() if held_out else None,
            metrics=metrics,
            conventions=variants,
            min_count=self.min_count,
            training=self.training if layer.name == self.last.name and not self.head.fixed else None,
            context=context,
        ).extended([], notes)
        return detected(report, layer)


class _Buffer:
    """Batches of features kept for the second look until they outgrow a budget; then none is kept."""

    def __init__(self, room: int):
        self.batches: deque[tuple[dict[str, Tensor], Tensor]] = deque()
        self.overflowed = False
        self._room = room

    def add(self, features: dict[str, Tensor], labels: Tensor) -> None:
        self._room -= sum(rows.nbytes for rows in features.values()) + labels.nbytes
        if self._room < 0:
            self.overflowed = True
            self.batches.clear()
        else:
            self.batches.append(({name: rows.flatten(0, -2) for name, rows in features.items()}, labels.flatten()))

    def emptied(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """The batches, small ones put together: what is done with each costs more than its arithmetic."""
        while self.batches:
            group: list[tuple[dict[str, Tensor], Tensor]] = []
            size = 0
            while self.batches and (not group or size + len(self.batches[0][1]) <= _TOGETHER):
                group.append(self.batches.popleft())
                size += len(group[-1][1])
            if len(group) == 1:
                yield group[0]
                continue
            yield (
                {name: torch.cat([f[name] for f, _ in group]) for name in group[0][0]},
                torch.cat([y for _, y in group]),
            )


@dataclass(frozen=True)
class _Outset:
    """What a process knows after its first batch: layers and their widths, notes on those left out, bytes for scatter,
    whether it can look again for wide features, and whether it has held-out and out-of-distribution samples."""

    widths: dict[str, int]
    notes: list[str]
    budget: int
    again: bool
    held_out: bool
    outside: bool


def _agreed(said: Sequence[_Outset]) -> _Outset:
    """What all processes go by. Raises: EmptyBatchError, LayerError."""
    informed = next((outset for outset in said if outset.widths), None)
    if informed is None:
        raise EmptyBatchError("no process was given a batch of training samples.")
    for other in said:
        if other.widths and other.widths != informed.widths:
            raise LayerError(f"the processes' models give other features: {informed.widths} and {other.widths}.")
    return _Outset(
        informed.widths,
        informed.notes,
        min(outset.budget for outset in said),
        all(outset.again for outset in said),
        any(outset.held_out for outset in said),
        any(outset.outside for outset in said),
    )


def _left_out(plans: Sequence[LayerPlan], *, per_class: bool, folds: int | None) -> list[str]:
    names = [plan.name for plan in plans if per_class and not plan.per_class]
    found = [f"the scatter of each class was beyond the memory budget at: {', '.join(names)}."] if names else []
    last = plans[-1]
    if folds is not None and last.folds is None:
        found.append("no standard errors: even two folds of means and spreads are beyond the memory budget.")
    elif folds is not None and last.covariance and not last.fold_scatter:
        found.append(
            f"standard errors are of means and spreads alone, from {last.folds} folds: the scatter of each fold is "
            "beyond the memory budget."
        )
    elif last.folds != folds:
        found.append(f"standard errors are from {last.folds} folds: {folds} would take too much time or memory.")
    return found


def _blip(gap: float) -> str:
    return (
        f"this measurement may be a blip: features in eval mode have a correlation of {1 - gap:.3f}, below {1 - GAP}, "
        "with those under the data's own statistics, as batch normalisation's averages lag behind the weights."
    )
