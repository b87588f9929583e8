"""`collect`: evidence per layer from a source, in one pass, and a second pass for measures that need the means."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import listed
from tightframe.errors import (
    EmptyBatchError,
    LayerError,
    LoaderError,
    MergeError,
    MissingExtraError,
    ShapeError,
    TightframeError,
)
from tightframe.evidence import Evidence
from tightframe.layout import labels_at
from tightframe.measurement.passes import (
    DecisionRule,
    FirstLook,
    LayerDecisions,
    LayerMoments,
    SecondLook,
    Selected,
    SimilarityLook,
    Sums,
)
from tightframe.measurement.plan import FREE_SHARE, Keep, LayerPlan, left_out, planned, similarity_plan
from tightframe.measurement.provided import Provided
from tightframe.memory import free_memory
from tightframe.metrics import CONVENTIONS
from tightframe.ood import DetectionTable, DetectorScores
from tightframe.options import Measuring
from tightframe.processes import every_process, world_size
from tightframe.sources import FeatureBatch, FeatureSource, LinearClassifier
from tightframe.sources.source import OOD, START, TEST, TRAIN
from tightframe.statistics import ClassStatistics, CrossMoments, FoldedCrossMoments, StatisticsAccumulator

_MANY_NAMES = 1000  # number of classes above which only names of classes with samples are stored
_TOGETHER = 2048  # rows of small batches that are concatenated


@dataclass(frozen=True)
class LayerEvidence:
    """The evidence of one layer.

    Attributes:
        name: name of the layer.
        evidence: evidence of the training samples, all classes.
        selected: evidence of the classes with `min_count` samples, if the second pass collected it.
        held_out: evidence of the held-out samples; None without them.
        conventions: evidence by name, for conventions with different features or decisions.
        detection: results of detectors on held-out and out-of-distribution samples, or None.
        notes: remarks for the reader.
    """

    name: str
    evidence: Evidence
    selected: Evidence | None = None
    held_out: Evidence | None = None
    conventions: Mapping[str, Evidence] | None = None
    detection: DetectionTable | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collected:
    """The evidence of a source.

    Attributes:
        layers: in order of depth; the last one is the classifier's input.
        classifier: the classifier on the last layer's features, or None.
        facts: facts for the report's context. notes: remarks for the reader.
        similarity: moments of all layers together, if requested.
    """

    layers: tuple[LayerEvidence, ...]
    classifier: LinearClassifier | None
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    similarity: CrossMoments | FoldedCrossMoments | None = None


@dataclass(frozen=True)
class _Outset:
    """Facts of a process after its first batch: widths of layers, number of classes, notes, bytes for scatter, whether
    the source can be read again (`again`: for wide features), splits, whether batches have decisions, and the
    classifier."""

    widths: dict[str, int]
    num_classes: int | None
    notes: list[str]
    budget: int
    repeatable: bool
    again: bool
    splits: tuple[str, ...]
    decided: bool
    classifier: LinearClassifier | None


def collect(
    source: FeatureSource, options: Measuring | Mapping[str, Any] | None = None, keep: Keep | None = None
) -> Collected:
    """Read a source once, and its features a second time for measures that need the final class means: decisions,
    classes with `min_count` samples, wide features. The features come from a buffer; if it exceeds `buffer_bytes`, the
    source is read again.

    Args:
        keep: what a ranking keeps in addition; it reads no held-out and no out-of-distribution samples.

    Raises: errors of the source; EvidenceError, before the pass, for a named measure without its data; LayerError or
    LoaderError if layers or samples change; the errors of `StatisticsAccumulator.update`; DistributedError if a process
    is lost.
    """
    options = Measuring.of(options or {})
    shared = options.distributed and world_size() > 1
    with source.opened():
        stream = map(FeatureBatch.of, source.batches(TRAIN))
        first = next(stream, None)
        outset = _agreed(every_process(_outset(first, source, options), START, shared=shared))
        pipeline = _Pipeline(source, options, outset, shared, keep)
        moments = pipeline.first_pass(stream if first is None else chain([first], stream))
        facts, remarks = source.remarks()
        looks = pipeline.second_pass(moments)
        layers = pipeline.layers(moments, looks)
    notes = [*outset.notes, *pipeline.left_out, *pipeline.notes, *remarks]
    if source.class_names is not None:
        facts["class_names"] = _names(source.class_names, layers[-1].evidence.statistics)
    if shared:
        facts["processes"] = world_size()
    return Collected(layers, source.classifier, facts, tuple(dict.fromkeys(notes)), pipeline.similarity)


class _Pipeline:
    """The passes over one source; all processes make the same passes."""

    def __init__(
        self, source: FeatureSource, options: Measuring, outset: _Outset, shared: bool, keep: Keep | None = None
    ):
        self._source, self._options, self._outset, self._shared, self._keep = source, options, outset, shared, keep
        names = list(outset.widths)
        self._last = names[-1]
        self._lean = options.min_count > 1 and outset.repeatable  # the second pass collects the selected classes
        assert outset.num_classes is not None
        self._num_classes = outset.num_classes
        budget, self.notes = outset.budget, []
        self.similarity: CrossMoments | FoldedCrossMoments | None = None
        self._similarity_folds: int | None = None
        if options.similarity:
            self._similarity_folds, needed = similarity_plan(outset.widths, budget, options.folds)
            budget -= needed
            if options.folds is not None and self._similarity_folds is None:
                self.notes.append("similarity has no standard errors: the products of folds exceed covariance_bytes.")
        self.plans = planned(
            outset.widths,
            self._num_classes,
            budget,
            self._last,
            covariance=options.covariance,
            per_class=options.per_class,
            folds=options.folds,
            keep=keep,
        )
        self.left_out = left_out(
            self.plans, self._num_classes, per_class=options.per_class, folds=options.folds, keep=keep
        )
        conventions = [CONVENTIONS[name] for name in options.conventions]
        self._unit = any(each.unit_features for each in conventions)
        self._bare = any(each.without_bias for each in conventions)
        self._buffer = _Buffer(0 if source.cheap_to_read else options.buffer_bytes)
        self._decisions = options.decisions if options.decides else None
        self._complete = _complete(source.classifier)
        provided = Provided.of(options, outset.splits, outset.classifier, decided=outset.decided)
        last = self.plans[-1]
        replace(provided, scatter=last.covariance, class_scatter=last.per_class).require(options)

    def _classifier(self, name: str) -> LinearClassifier | None:
        """The classifier on the features of a layer, or None."""
        return self._complete if name == self._last else None

    def _sums(self, plan: LayerPlan) -> Sums:
        return Sums(plan, self._num_classes, self._source.ignore_index, self._source.device, self._shared)

    # ------------------------------------------------------------------ passes over the training samples

    def first_pass(self, stream: Iterable[FeatureBatch]) -> dict[str, LayerMoments]:
        """The moments of each layer; features are buffered for the second pass."""
        looks = {}
        for plan in self.plans:
            if self._lean:  # the second pass collects folds and scatter per class, for the selected classes only
                plan = replace(plan, folds=None, per_class=False)
            looks[plan.name] = FirstLook(self._sums(plan), unit_features=self._unit and plan.name == self._last)
        similarity = None
        if self._options.similarity:
            similarity = SimilarityLook(self._sums(self.plans[-1]), self._outset.widths, self._similarity_folds)
        for batch in stream:
            rows = _aligned(batch, looks)
            for name, look in looks.items():
                look.add(*rows[name])
            if similarity is not None:
                similarity.add(rows)
            self._buffer.add(rows, batch.decided)
        if similarity is not None:
            self.similarity = similarity.finish()
        return {name: look.finish() for name, look in looks.items()}

    def second_pass(self, moments: Mapping[str, LayerMoments]) -> dict[str, LayerDecisions]:
        """The evidence that needs the final class means, by layer."""
        options, outset = self._options, self._outset
        overflowed = any(every_process(self._buffer.overflowed, "the first pass", shared=self._shared))
        project = options.covariance and (outset.again or not overflowed)
        room = outset.budget  # the accumulators of the first pass are freed
        looks: dict[str, SecondLook] = {}
        for plan in (self.plans[-1], *self.plans[:-1]):
            is_last = plan.name == self._last
            look = SecondLook(
                self._sums(plan),
                moments[plan.name],
                classifier=self._classifier(plan.name),
                decided=is_last and outset.decided,
                decisions=self._decisions,
                without_bias=is_last and self._bare,
                min_count=options.min_count if self._lean or not overflowed else 1,
                room=room,
                project=project,
            )
            room -= look.bytes
            looks[plan.name] = look
        looks = {plan.name: looks[plan.name] for plan in self.plans}
        if any(every_process(any(look.needed for look in looks.values()), "the second pass", shared=self._shared)):
            if overflowed and not outset.repeatable and not self._shared:  # with processes, `_require_same` checks
                raise EmptyBatchError(
                    "NC4 needs a second pass over the data, but a generator can be read only once. Pass a loader that "
                    "can be read again, a larger buffer_bytes, or decisions=None."
                )
            again = self._read_again(looks) if overflowed else self._buffer.emptied()
            for rows, decided in again:
                for name, look in looks.items():
                    look.add(*rows[name], decided if name == self._last else None)
            decisions = {name: look.finish(name) for name, look in looks.items()}
        else:
            decisions = {name: LayerDecisions({}) for name in looks}
        if isinstance(self._decisions, int):
            total = int(moments[self._last].statistics.num_samples)
            if total > self._decisions:
                self.notes.append(f"NC4 is measured on a random subset of about {self._decisions} of {total} samples.")
        return decisions

    def _read_again(self, names: Iterable[str]) -> Iterator[tuple[Rows, Tensor | None]]:
        for batch in map(FeatureBatch.of, self._source.batches(TRAIN)):
            yield _aligned(batch, names), batch.decided

    # ------------------------------------------------------------------ results

    def layers(
        self, moments: Mapping[str, LayerMoments], looks: Mapping[str, LayerDecisions]
    ) -> tuple[LayerEvidence, ...]:
        """The evidence of each layer, including held-out and out-of-distribution samples."""
        layers = {name: self._layer(name, moments[name], looks[name]) for name in moments}
        splits = self._outset.splits if self._keep is None else ()  # a ranking is of the training samples
        has_test, has_ood = TEST in splits, OOD in splits
        last = layers[self._last]
        scores = None
        if self._options.detectors and has_test and has_ood:
            try:
                scores = DetectorScores(last.evidence)
            except TightframeError as error:  # the measurement goes on without detectors
                self.notes.append(f"detectors are left out: {error}")
        if has_test:
            layers = self._with_held_out(layers, moments, scores)
        if has_ood:
            layers = self._with_outside(layers, scores)
        if scores is not None:
            layers[self._last] = self._with_detection(layers[self._last], scores)
        layers[self._last] = self._with_conventions(layers[self._last], moments[self._last], looks[self._last])
        return tuple(layers.values())

    def _layer(self, name: str, moments: LayerMoments, look: LayerDecisions) -> LayerEvidence:
        classifier = self._classifier(name)
        evidence = Evidence(
            moments.statistics,
            None if classifier is None else classifier.weight,
            None if classifier is None else classifier.bias,
            look.decisions.get(False),
            folds=moments.folds,
            consumer=None if name == self._last else self._source.consumer(name, moments.statistics.num_features),
            projected=None if look.selected is not None else look.projected,
        )
        selected = None
        if look.selected is not None:
            statistics, folds = look.selected
            selected = replace(evidence, statistics=statistics, folds=folds, projected=look.projected)
        return LayerEvidence(name, evidence, selected)

    def _with_conventions(self, layer: LayerEvidence, moments: LayerMoments, look: LayerDecisions) -> LayerEvidence:
        variants, notes = {}, []
        for name in self._options.conventions:
            convention = CONVENTIONS[name]
            whole = layer.selected is None or "decisions" in convention.metric.reads
            evidence = layer.evidence if whole or layer.selected is None else layer.selected
            variant = replace(evidence, decisions=look.decisions.get(convention.without_bias))
            if convention.without_bias:
                variant = replace(variant, bias=None)
            if convention.unit_features and layer.selected is not None:
                notes.append(f"{name} is left out: unit features are not available with min_count.")
                continue
            if convention.unit_features:
                variant = replace(variant, statistics=moments.unit, projected=None, folds=None)
                if not convention.metric.available(variant):
                    notes.append(f"{name} is left out: the scatter of unit features exceeds covariance_bytes.")
                    continue
            if variant.decisions is None and "decisions" in convention.metric.reads:
                notes.append(f"{name} is left out: no decisions were collected.")
                continue
            variants[name] = variant
        return replace(layer, conventions=variants, notes=(*layer.notes, *notes))

    # ------------------------------------------------------------------ other samples

    def _with_held_out(
        self,
        layers: Mapping[str, LayerEvidence],
        moments: Mapping[str, LayerMoments],
        scores: DetectorScores | None,
    ) -> dict[str, LayerEvidence]:
        plans = {plan.name: plan for plan in self.plans}
        sums = {name: self._sums(replace(plans[name], per_class=False)) for name in layers}
        collected: dict[str, Selected | StatisticsAccumulator] = {}
        for name, layer in layers.items():
            subset = None if layer.selected is None else layer.selected.statistics
            collected[name] = sums[name].accumulator() if subset is None else Selected(sums[name], subset.class_ids)
        rules = {}
        for name in layers if self._decisions is not None else ():
            decided = name == self._last and self._outset.decided
            classifier = self._classifier(name)
            rules[name] = DecisionRule(
                sums[name], moments[name].statistics, classifier, without_bias=False, decided=decided
            )
        for batch in map(FeatureBatch.of, self._source.batches(TEST)):
            rows = _aligned(batch, layers)
            for name, (features, labels) in rows.items():
                add = collected[name]
                add.add(features, labels) if isinstance(add, Selected) else add.update(features, labels, validate=True)
                if name in rules:
                    own = batch.decided.reshape(-1) if name == self._last and batch.decided is not None else None
                    rules[name].add(features.reshape(-1, features.shape[-1]), labels.reshape(-1), own)
                if scores is not None and name == self._last:
                    scores.add_inside(sums[name].counted(features, labels))
        result = {}
        for name, layer in layers.items():
            add = collected[name]
            statistics, folds = add.finish() if isinstance(add, Selected) else sums[name].finished(add)
            decisions = rules[name].finish() if name in rules else None
            result[name] = replace(layer, held_out=Evidence(statistics, decisions=decisions, folds=folds))
        return result

    def _with_outside(
        self, layers: Mapping[str, LayerEvidence], scores: DetectorScores | None
    ) -> dict[str, LayerEvidence]:
        plans = {plan.name: plan for plan in self.plans}
        sums = {name: self._sums(plans[name]) for name in layers}
        kind: dict[str, Any] = {"covariance": False, "per_class": False, "ignore_index": None}
        collected = {name: sums[name].accumulator(1, **kind) for name in layers}
        for batch in map(FeatureBatch.of, self._source.batches(OOD)):
            for name, accumulator in collected.items():
                features = batch.by_layer[name]
                labels = torch.zeros(features.shape[:-1], dtype=torch.int64, device=features.device)
                accumulator.update(features, labels, validate=True)
                if scores is not None and name == self._last:
                    scores.add_outside(features.reshape(-1, features.shape[-1]))
        result = {}
        for name, layer in layers.items():
            outside, folds = sums[name].finished(collected[name])
            evidence, selected = (
                None if each is None else replace(each, outside=outside, outside_folds=folds)
                for each in (layer.evidence, layer.selected)
            )
            assert evidence is not None
            result[name] = replace(layer, evidence=evidence, selected=selected)
        return result

    def _with_detection(self, layer: LayerEvidence, scores: DetectorScores) -> LayerEvidence:
        """The layer with the results of detectors on the samples of all processes; an error becomes a note."""
        if self._shared:
            by_process = every_process((scores.inside, scores.outside), "the detectors' scores")
            for place, own in enumerate((scores.inside, scores.outside)):
                for name in own:
                    own[name] = [batch for process in by_process for batch in process[place][name]]
        try:
            return replace(layer, detection=scores.table())
        except EmptyBatchError:
            raise
        except (MissingExtraError, TightframeError) as error:
            return replace(layer, notes=(*layer.notes, f"detectors are left out: {error}"))


Rows = dict[str, tuple[Tensor, Tensor]]
"""Features and labels by layer."""


def _outset(first: FeatureBatch | None, source: FeatureSource, options: Measuring) -> _Outset:
    budget = options.covariance_bytes
    features: Mapping[str, Tensor] = {} if first is None else first.by_layer
    return _Outset(
        {name: rows.shape[-1] for name, rows in features.items()},
        source.num_classes,
        list(source.notes),
        free_memory(source.device) // FREE_SHARE if budget is None else budget,
        source.repeatable,
        options.covariance and (options.second_pass or source.cheap_to_read) and source.repeatable,
        tuple(source.splits),
        first is not None and first.decided is not None,
        None if first is None else _complete(source.classifier),
    )


def _agreed(outsets: Sequence[_Outset]) -> _Outset:
    """The common settings of all processes. Raises: EmptyBatchError, MergeError, LayerError, LoaderError."""
    informed = next((outset for outset in outsets if outset.widths), None)
    if informed is None:
        raise EmptyBatchError(f"there are no training samples{' in any process' if len(outsets) > 1 else ''}.")
    classes = sorted({each.num_classes for each in outsets if each.num_classes is not None})
    if len(classes) > 1:
        raise MergeError(f"the models of all processes must have the same number of classes; got {listed(classes)}.")
    for other in outsets:
        if other.widths and other.widths != informed.widths:
            raise LayerError(
                f"the models of all processes must have the same layers and dimensions; got {informed.widths} and "
                f"{other.widths}."
            )
    if informed.num_classes is None:
        raise LoaderError("the number of classes is unknown; pass num_classes=, or set num_classes in the source.")
    splits = {split for outset in outsets for split in outset.splits}
    return replace(
        informed,
        budget=min(outset.budget for outset in outsets),
        repeatable=all(outset.repeatable for outset in outsets),
        again=all(outset.again for outset in outsets),
        splits=tuple(splits),
    )


def _names(names: Sequence[str], statistics: ClassStatistics | None) -> list[str] | dict[str, str]:
    """The class names; for very many classes a mapping from label to name, for classes with samples."""
    if len(names) <= _MANY_NAMES or statistics is None:
        return list(names)
    labels = statistics.class_ids[statistics.present].tolist()
    return {str(label): names[label] for label in labels if label < len(names)}


def _complete(classifier: LinearClassifier | None) -> LinearClassifier | None:
    """The classifier; None if rows are NaN, as in a head on class means for classes without samples."""
    if classifier is None or not math.isfinite(classifier.weight.sum()):
        return None
    return classifier


def _aligned(batch: FeatureBatch, names: Iterable[str]) -> Rows:
    """Features of each layer, with labels at their positions."""
    if batch.labels is None:
        raise LoaderError("every batch must have labels; the source returned a batch without labels.")
    rows: Rows = {}
    for name in names:
        features = batch.by_layer[name]
        labels = labels_at(batch.labels, features.shape[:-1])
        if labels is None:
            raise ShapeError(
                f"labels must have the features' shape without D, {tuple(features.shape[:-1])}; got "
                f"{tuple(batch.labels.shape)}."
            )
        rows[name] = features, labels
    return rows


class _Buffer:
    """Batches of features stored for the second pass; emptied when they exceed the budget."""

    def __init__(self, room: int):
        self.batches: deque[tuple[Rows, Tensor | None]] = deque()
        self.overflowed = False
        self._room = room

    def add(self, rows: Rows, decided: Tensor | None) -> None:
        labels = {id(each): each.nbytes for _, each in rows.values()}
        self._room -= sum(features.nbytes for features, _ in rows.values()) + sum(labels.values())
        self._room -= 0 if decided is None else decided.nbytes
        if self._room < 0:
            self.overflowed = True
            self.batches.clear()
            return
        flat = {id(y): y.flatten() for _, y in rows.values()}
        flat_rows = {name: (features.flatten(0, -2), flat[id(y)]) for name, (features, y) in rows.items()}
        self.batches.append((flat_rows, None if decided is None else decided.flatten()))

    def emptied(self) -> Iterator[tuple[Rows, Tensor | None]]:
        """Yield the batches, small ones concatenated, because each batch has an overhead."""
        while self.batches:
            group: list[tuple[Rows, Tensor | None]] = []
            size = 0
            while self.batches and (not group or size + _size(self.batches[0][0]) <= _TOGETHER):
                group.append(self.batches.popleft())
                size += _size(group[-1][0])
            if len(group) == 1:
                yield group[0]
                continue
            names = group[0][0]
            rows = {
                name: (torch.cat([r[name][0] for r, _ in group]), torch.cat([r[name][1] for r, _ in group]))
                for name in names
            }
            decided = [each for _, each in group if each is not None]
            yield rows, torch.cat(decided) if decided else None


def _size(rows: Rows) -> int:
    return len(next(reversed(rows.values()))[1])
