"""`rank`: encoders or layers, ordered by how well their features will serve to classify."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tightframe.errors import ChoiceError, LoaderError, MissingExtraError, OptionError, RangeError, TightframeError
from tightframe.evidence import Evidence
from tightframe.measurement import Keep, collect
from tightframe.measuring import source_of
from tightframe.options import RANKED_SCATTER, Measuring
from tightframe.report import Report
from tightframe.report.ranking import SHOTS, Ranked, Ranking, require_measures
from tightframe.sources import FeatureSource
from tightframe.statistics import ClassStatistics, FoldedStatistics


def rank(
    subjects: Mapping[str, Any],
    *,
    shots: Sequence[int] = SHOTS,
    by: str | None = None,
    per_class: bool | None = None,
    **options: Any,
) -> Ranking:
    """Order encoders or layers by forecasts from the moments of their features; no classifier is trained.

    Args:
        subjects: {name: subject}. A subject is (features, labels), (model, loader), a `FeatureSource`, a `Report` with
            its evidence, a `ClassStatistics` or a `FoldedStatistics`. With layers=..., each layer becomes a row.
        shots: numbers of samples per class for the forecast accuracy of the nearest class mean.
        by: the measure that orders the rows: "5-shot" and the like, "log_me" or "h_score". Default: "5-shot".
        per_class: whether the forecast uses the scatter of each class, about K D^2 numbers per fold; without it classes
            have the shape of the pooled scatter, and the forecast may be several points too high. Default: where all
            rows have it, with K D^2 of at most 6 million numbers; a note says if not.
        options: fields of `tightframe.options.Measuring`, for subjects that are yet to be measured.

    Errors need sample folds: those of `FoldedStatistics` and reports, or of the measurement: all layers have folds if
    their scatter, about 22 F D^2 bytes per layer for F folds, fits into `covariance_bytes`; a note says if not. Two
    rows with the same samples in the same order are compared without their common error.
    Raises: OptionError for fewer than two rows; RangeError for shots below 1; LoaderError for subjects of another kind,
    and the errors of `measure`, which name the subject.

    >>> import torch
    >>> from tightframe import rank
    >>> labels = torch.arange(300) % 3
    >>> clean = torch.eye(3)[labels] + 0.5 * torch.randn(300, 3)
    >>> ranking = rank({"clean": (clean, labels), "noise": (torch.randn(300, 3), labels)}, progress=False)
    >>> ranking.best.name, ranking.ties()
    ('clean', [])
    """
    settings = Measuring.of(options).having(decisions=None, detectors=False, metrics=None, conventions=())
    require_measures(shots, by)
    rows: list[Ranked] = []
    for name, subject in subjects.items():
        with failures_of_subject(f"the subject {name!r}"):
            rows += ranked(name, subject, settings, shots, per_class)
    return Ranking.of(rows, by)


@contextmanager
def failures_of_subject(name: str) -> Iterator[None]:
    """Begin each error with the subject's name, unless the message has it or is about an argument of the ranking."""
    try:
        yield
    except (ChoiceError, MissingExtraError, OptionError, RangeError):
        raise
    except TightframeError as error:
        if not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", str(error)):
            error.args = (f"{name}: {error}",)
        raise


def ranked(
    name: str, subject: Any, settings: Measuring, shots: Sequence[int], per_class: bool | None
) -> Iterator[Ranked]:
    """The row of a subject, or its rows if layers are measured. Raises: as `rank`."""
    if isinstance(subject, Report):
        yield Ranked.of(name, _moments(_evidence(subject)), shots, per_class=per_class)
    elif isinstance(subject, ClassStatistics | FoldedStatistics):
        yield Ranked.of(name, subject, shots, per_class=per_class)
    else:
        settings = settings.having(per_class=per_class is not False)
        keep = Keep(class_scatter=math.inf if per_class else RANKED_SCATTER)
        collected = collect(_source(subject, settings), settings, keep)
        several = len(collected.layers) > 1
        for layer in collected.layers:
            moments = _moments(layer.evidence if layer.selected is None else layer.selected)
            if settings.min_count > 1:
                moments = moments.select(min_count=settings.min_count)
            named = f"{name}/{layer.name}" if several else name
            yield Ranked.of(named, moments, shots, (*collected.notes, *layer.notes), per_class=per_class)


def _moments(evidence: Evidence) -> ClassStatistics | FoldedStatistics:
    """The folds if they have scatter, else the statistics."""
    folds, statistics = evidence.folds, evidence.statistics
    assert statistics is not None
    if folds is None or (folds.parts[0].within is None and folds.parts[0].class_within is None):
        return statistics
    return folds


def _source(subject: Any, settings: Measuring) -> FeatureSource:
    if isinstance(subject, FeatureSource):
        return subject
    if isinstance(subject, tuple | list) and len(subject) == 2:
        return source_of(subject[0], subject[1], test=None, ood=None, options=settings)
    raise LoaderError(
        "it must be (features, labels), (model, loader), a FeatureSource, a Report, or statistics; got "
        f"{type(subject).__name__}."
    )


def _evidence(report: Report) -> Evidence:
    evidence = report.evidence
    statistics = None if evidence is None else evidence.statistics
    if evidence is None or statistics is None or (statistics.within is None and statistics.class_within is None):
        raise LoaderError(
            "the report has no statistics with scatter. Pass a report that measure() returned, or a run folder that "
            "was written with covariance=True."
        )
    return evidence
