"""`rank`: encoders or layers, ordered by how well their features will serve to classify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tightframe.errors import LoaderError
from tightframe.measurement import collect
from tightframe.measuring import source_of
from tightframe.options import Measuring
from tightframe.report import Report
from tightframe.report.ranking import SHOTS, Ranked, Ranking
from tightframe.sources import FeatureSource
from tightframe.statistics import ClassStatistics, FoldedStatistics


def rank(
    subjects: Mapping[str, Any], *, shots: Sequence[int] = SHOTS, by: str | None = None, **options: Any
) -> Ranking:
    """Order encoders or layers by forecasts from the moments of their features; no classifier is trained.

    Args:
        subjects: {name: subject}. A subject is (features, labels), (model, loader), a `FeatureSource`, a `Report` with
            its evidence, a `ClassStatistics` or a `FoldedStatistics`. With layers=..., each layer becomes a row.
        shots: numbers of samples per class for the forecast accuracy of the nearest class mean.
        by: the measure that orders the rows: "5-shot" and the like, "log_me" or "h_score". Default: "5-shot".
        options: fields of `tightframe.options.Measuring`, for subjects that are yet to be measured.

    Errors need sample folds: they exist for features, for the classifier's input of a model, and for
    `FoldedStatistics`; two rows with the same samples in the same order are compared without their common error.
    Raises: OptionError for fewer than two rows; LoaderError for subjects of another kind, and the errors of `measure`.

    >>> import torch
    >>> from tightframe import rank
    >>> labels = torch.arange(300) % 3
    >>> clean = torch.eye(3)[labels] + 0.5 * torch.randn(300, 3)
    >>> ranking = rank({"clean": (clean, labels), "noise": (torch.randn(300, 3), labels)}, progress=False)
    >>> ranking.best.name, ranking.ties()
    ('clean', [])
    """
    settings = Measuring.of(options).having(decisions=None, detectors=False, metrics=None, conventions=())
    rows = [row for name, subject in subjects.items() for row in ranked(name, subject, settings, shots)]
    return Ranking.of(rows, by)


def ranked(name: str, subject: Any, settings: Measuring, shots: Sequence[int]) -> Iterator[Ranked]:
    """The row of a subject, or its rows if layers are measured. Raises: as `rank`."""
    if isinstance(subject, Report):
        yield _of_report(name, subject, shots)
    elif isinstance(subject, ClassStatistics | FoldedStatistics):
        yield Ranked.of(name, subject, shots)
    else:
        collected = collect(_source(name, subject, settings), settings)
        *others, last = collected.layers
        for layer in (*others, last):
            evidence = layer.evidence
            moments = evidence.statistics if evidence.folds is None else evidence.folds
            assert moments is not None
            row = Ranked.of(f"{name}/{layer.name}" if others else name, moments, shots, collected.notes)
            yield row if layer is last else replace(row, notes=(*row.notes, *layer.notes))


def _source(name: str, subject: Any, settings: Measuring) -> FeatureSource:
    if isinstance(subject, FeatureSource):
        return subject
    if isinstance(subject, tuple | list) and len(subject) == 2:
        return source_of(subject[0], subject[1], test=None, ood=None, options=settings)
    raise LoaderError(
        f"the subject {name!r} must be (features, labels), (model, loader), a FeatureSource, a Report, or statistics; "
        f"got {type(subject).__name__}."
    )


def _of_report(name: str, report: Report, shots: Sequence[int]) -> Ranked:
    evidence = report.evidence
    statistics = None if evidence is None else evidence.statistics
    if evidence is None or statistics is None or (statistics.within is None and statistics.class_within is None):
        raise LoaderError(
            f"the report {name!r} has no statistics with scatter. Pass a report that measure() returned, or a run "
            "folder that was written with covariance=True."
        )
    return Ranked.of(name, statistics if evidence.folds is None else evidence.folds, shots)
