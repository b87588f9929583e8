"""`measure`: from a model, features or a source to a report."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from tightframe.errors import LoaderError
from tightframe.hooks import find_classifier
from tightframe.measurement import Collected, LayerEvidence, collect
from tightframe.metrics import available
from tightframe.metrics.table import chosen
from tightframe.options import Measuring
from tightframe.report import Report
from tightframe.report.contents.detection import detection_entries
from tightframe.similarity import LayerSimilarity
from tightframe.sources import ArraySource, FeatureSource, ModelSource


def measure(model: Any, loader: Any = None, *, test: Any = None, ood: Any = None, **options: Any) -> Report:
    """Measure the neural collapse of a classifier's last layer, and of additional layers, in one pass over the data.

    Call `measure(model, loader)`, `measure(features, labels)` with arrays, or `measure(source)` with a `FeatureSource`.
    The features of a model are the inputs of its classifier. The model runs in eval mode, without gradients and without
    its wrapper (`torch.compile`, DataParallel, DistributedDataParallel); its state does not change. NC4 needs the final
    class means, so features are buffered; if they need more than `buffer_bytes`, the data are read a second time and
    must be the same. If the D x D scatter of wide features does not fit into memory, the second pass also projects the
    features on the span of the class means, where NC1 has the same value.

    Under `torch.distributed`, every process calls `measure` with its own part of the data, which may be empty, and gets
    the report of all samples. Samples that torch's DistributedSampler repeats to equalise the parts are left out.

    Args:
        model: a model, called with a batch's inputs on the device of its first parameter; or features (N, D); or a
            source.
        loader: training batches, (inputs, labels) or mappings with labels; a data set; (inputs, labels) of all samples;
            or, for features, their labels (N,).
        test: held-out data in the same form, for NC4 and variability on held-out samples.
        ood: out-of-distribution data, with or without labels, for NC5.
        options: fields of `tightframe.options.Measuring`: layers, classifier, metrics, ....

    Raises: TypeError for unknown options and the errors of `Measuring`, before the model runs; EvidenceError, before
    the pass, if a metric or convention that you name needs data that you did not pass; ClassifierError if no classifier
    is found or it does not fit; LayerError for unknown layers; LoaderError for batches in an unknown form or a loader
    that changes between passes; LabelError, DtypeError, ShapeError, NonFiniteError for invalid data;
    StateError if the model is already being measured; DistributedError if a process is lost.

    >>> from tightframe import measure
    >>> import torch
    >>> features, labels = torch.randn(60, 5), torch.arange(60) % 3
    >>> measure(features, labels)["nc1"].value > 0
    True
    """
    settings = Measuring.of(options)
    source = source_of(model, loader, test=test, ood=ood, options=settings)
    if settings.task != "classification":
        from tightframe.tasks import TASKS  # rarely needed

        return TASKS[settings.task](source, settings, classified)
    return classified(source, settings)


measure.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(each for each in inspect.signature(measure).parameters.values() if each.name != "options"),
        *(
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
            for each in fields(Measuring)
        ),
    ],
    return_annotation="Report",
)


def source_of(model: Any, loader: Any, *, test: Any, ood: Any, options: Measuring) -> FeatureSource:
    """The `FeatureSource` for the arguments of `measure`. Raises: LoaderError if they don't describe one."""
    if isinstance(model, FeatureSource):
        if loader is not None or test is not None or ood is not None:
            raise LoaderError("measure(source) takes no loader, test or ood: the source contains the data.")
        return model
    if isinstance(model, nn.Module):
        if loader is None:
            raise LoaderError("measure(model) needs a loader: pass batches, a data set, or (inputs, labels).")
        return ModelSource(model, loader, test=test, ood=ood, options=options)
    if isinstance(loader, nn.Module):
        raise LoaderError("the arguments are swapped; call measure(model, loader).")
    if isinstance(model, Tensor | np.ndarray | list):
        if loader is None:
            raise LoaderError("measure(features) needs labels; call measure(features, labels).")
        weight, bias = _rows_of(options.classifier)
        return ArraySource(model, loader, test=test, ood=ood, weight=weight, bias=bias, options=options)
    raise LoaderError(
        "measure takes (model, loader), (features, labels) or a FeatureSource; got "
        f"{type(model).__name__} as first argument."
    )


def _rows_of(classifier: Any) -> tuple[Any, Any]:
    """Weight and bias of a classifier passed with features. Raises: LoaderError for a classifier's name."""
    if isinstance(classifier, nn.Module):
        head = find_classifier(classifier)
        if not head.decides_linearly:
            raise LoaderError("with features, the classifier must be linear; pass the model and a loader instead.")
        return head.weight, head.bias
    if classifier is None or isinstance(classifier, Tensor | np.ndarray):
        return classifier, None
    raise LoaderError(
        f"with features, classifier must be a weight (K, D) or a linear layer; got {type(classifier).__name__}."
    )


def classified(source: FeatureSource, options: Measuring) -> Report:
    """The report of a source with class labels."""
    return reported(collect(source, options), options, title=source.title)


def reported(collected: Collected, options: Measuring, *, title: str | None = None) -> Report:
    """The report of the collected evidence; its `layers` are the reports of the additional layers."""
    facts: Mapping[str, Any] = {**collected.facts, **({"title": title} if title else {})}
    *others, last = collected.layers
    notes = list(collected.notes)
    if options.training is not None and collected.classifier is not None and collected.classifier.fixed:
        notes.append("the classifier is fixed; predictions of theory for a trained classifier are left out.")
    report = _report_of(last, collected, options, facts, last=True).extended(notes=notes)
    layers = tuple(_report_of(each, collected, options, facts, last=False) for each in others)
    similarity = None if collected.similarity is None else LayerSimilarity.of(collected.similarity)
    return replace(report, layers=layers, similarity=similarity)


def _report_of(
    layer: LayerEvidence, collected: Collected, options: Measuring, facts: Mapping[str, Any], *, last: bool
) -> Report:
    classifier = collected.classifier
    metrics = None if options.metrics is None else chosen(options.metrics)
    facts = {"layer": layer.name, **facts}
    if last and classifier is not None:
        facts |= {"classifier": classifier.name} | ({"classifier_fixed": True} if classifier.fixed else {})
    if not last:
        shown = [m for m in available(layer.evidence) if m.headline] if metrics is None else metrics
        metrics = [each for each in shown if each.available(layer.evidence)]
    trained = last and classifier is not None and not classifier.fixed
    report = Report.from_evidence(
        layer.evidence,
        selected=layer.selected,
        test=layer.held_out,
        metrics=metrics,
        conventions=layer.conventions,
        min_count=options.min_count,
        training=options.training if trained else None,
        facts=facts,
        context=options.context,
    ).extended(notes=layer.notes)
    if (table := layer.detection) is None:
        return report
    return replace(report.extended(detection_entries(table), table.notes), detection=table)
