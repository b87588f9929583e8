"""`measure`: the main job as a function, from whatever people have to a report."""

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
from tightframe.sources import ArraySource, FeatureSource, ModelSource


def measure(model: Any, loader: Any = None, *, test: Any = None, ood: Any = None, **options: Any) -> Report:
    """Measure the neural collapse of a classifier's last layer, and of others, in one pass over the data.

    The forms are `measure(model, loader)`, `measure(features, labels)` with arrays, and `measure(source)` with a
    `FeatureSource`. Features of a model are what flows into its classifier. The model runs in eval mode without
    gradients, out of any wrapper (`torch.compile`, DataParallel, DistributedDataParallel), and is left exactly as it
    was. Features wait in a buffer for NC4, which needs the finished class means; beyond `buffer_bytes` the data are
    read a second time and must be the same. Where the D x D scatter of wide features doesn't fit, the second look also
    projects them on the span of the class means, in which NC1 is the same.

    Under `torch.distributed`, every process calls this with its own part of the data (none at all is fine), and all
    get the report of all samples; what torch's DistributedSampler repeats to make the parts equal is left out.

    Args:
        model: a model, called with a batch's inputs on the device of its first parameter; or features (N, D); or a
            source.
        loader: training batches, (inputs, labels) or mappings with labels; a data set; (inputs, labels) of all samples;
            for features, their labels (N,).
        test: held-out data of the same form, for NC4 and variability on held-out samples.
        ood: out-of-distribution data, with or without labels, for NC5.
        options: as in `tightframe.options.Measuring`: layers, classifier, metrics, ....

    Raises: TypeError for unknown options, and the errors of `Measuring`, before anything is run; ClassifierError if no
    classifier is found or it doesn't fit; LayerError for unknown layers; LoaderError for batches that can't be
    recognised or a loader that changes between passes; LabelError, DtypeError, ShapeError, NonFiniteError for data that
    can't be measured; StateError if the model is being measured already; DistributedError if a process is lost.

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
    """The source that `measure`'s arguments mean. Raises: LoaderError where they mean none."""
    if isinstance(model, FeatureSource):
        if loader is not None or test is not None or ood is not None:
            raise LoaderError("a source has its own data: measure(source) takes no loader, test or ood.")
        return model
    if isinstance(model, nn.Module):
        if loader is None:
            raise LoaderError("measure(model, loader) needs a loader: batches, a data set, or (inputs, labels).")
        return ModelSource(model, loader, test=test, ood=ood, options=options)
    if isinstance(loader, nn.Module):
        raise LoaderError("the arguments are swapped: measure(model, loader).")
    if isinstance(model, Tensor | np.ndarray | list):
        if loader is None:
            raise LoaderError("measure(features, labels) needs labels.")
        weight, bias = _rows_of(options.classifier)
        return ArraySource(model, loader, test=test, ood=ood, weight=weight, bias=bias, options=options)
    raise LoaderError(
        "measure takes (model, loader), (features, labels) or a FeatureSource; its first argument is a "
        f"{type(model).__name__}."
    )


def _rows_of(classifier: Any) -> tuple[Any, Any]:
    """Weight and bias of a classifier given beside features. Raises: LoaderError for one given by name."""
    if isinstance(classifier, nn.Module):
        found = find_classifier(classifier)
        if not found.decides_linearly:
            raise LoaderError("beside features, the classifier must decide linearly; pass the model and a loader.")
        return found.weight, found.bias
    if classifier is None or isinstance(classifier, Tensor | np.ndarray):
        return classifier, None
    raise LoaderError("beside features, classifier must be a weight (K, D) or a linear layer.")


def classified(source: FeatureSource, options: Measuring) -> Report:
    """The report of a source of classes."""
    return reported(collect(source, options), options, title=source.title)


def reported(collected: Collected, options: Measuring, *, title: str | None = None) -> Report:
    """The report of what was collected, with those of the other layers as its `layers`."""
    facts: Mapping[str, Any] = {**collected.facts, **({"title": title} if title else {})}
    *others, last = collected.layers
    notes = list(collected.notes)
    if options.training is not None and collected.classifier is not None and collected.classifier.fixed:
        notes.append("the classifier is fixed: what theory predicts of a trained one is left out.")
    report = _report_of(last, collected, options, facts, last=True).extended(notes=notes)
    layers = tuple(_report_of(each, collected, options, facts, last=False) for each in others)
    return replace(report, layers=layers)


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
