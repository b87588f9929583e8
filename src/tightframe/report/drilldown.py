"""A row for every class, and for the pairs of classes that are nearest to each other, as cells of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from tightframe.evidence import Evidence
from tightframe.metrics import class_table, jackknife, mean_norms, pair_table
from tightframe.report import geometry
from tightframe.report.wording import number
from tightframe.statistics import ClassStatistics

if TYPE_CHECKING:
    from tightframe.report.report import Report

PAIRS = 20  # shown at most
_FEW = 20  # classes shown where all are too many
_ENOUGH = 10  # samples that a class must have to be among them
_COINCIDE = 1e-6  # 1 less a predicted cosine below which classifier rows are the same


def class_names(report: Report, labels: Sequence[int]) -> list[str]:
    """What classes are called, or their labels."""
    known = report.context.get("class_names") or {}
    if not isinstance(known, Mapping):
        known = {str(label): name for label, name in enumerate(known)}
    return [str(known.get(str(label), label)) for label in labels]


def class_cells(report: Report) -> tuple[str, list[str], list[list[str]]] | None:
    """A sentence, headings and a line of cells for every class; None without statistics.

    Of more than `geometry.LARGEST` classes those with enough samples that scatter most.
    """
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics, enough = _with_enough(evidence.statistics)
    table = class_table(statistics, evidence.weight)
    columns: dict[str, list[str]] = {
        "class": class_names(report, table.labels.tolist()),
        "samples": [f"{count:,}" for count in table.counts.tolist()],
        "‖μ − μ_G‖": _numbers(table.mean_norms),
        "variance": _numbers(table.variances),
        "nearest": _nearest(report, table.nearest_by_angle),
        "cos": _cosines(table.nearest_cosines),
    }
    if table.classifier_norms is not None and table.classifier_cosines is not None:
        columns |= {"‖w‖": _numbers(table.classifier_norms), "cos(w, μ)": _cosines(table.classifier_cosines)}
    columns["in distance"] = _nearest(report, table.nearest_by_distance)
    columns["distance"] = _numbers(table.nearest_distances)
    for name, errors in report.context.get("class_errors", {}).items():
        columns[f"± {name}"] = [number(float(error)) for error in errors]
    lines = [list(line) for line in zip(*columns.values(), strict=True)]
    said = "Each class: its samples, how far its mean is from the mean of means, how it scatters, and who is nearest."
    if len(lines) > geometry.LARGEST:
        widest = table.variances.nan_to_num(-1.0).argsort(descending=True)[:_FEW].tolist()
        lines = [lines[row] for row in widest]
        said += f" Of {len(table.labels):,} classes{enough} the {_FEW} that scatter most."
    return said, list(columns), lines


def class_errors(evidence: Evidence) -> dict[str, list[float]]:
    """Standard errors of the columns of `class_cells` that have them, a number for each class with samples; empty
    without folds and for more classes than are shown. NaN for a class whose samples are all in one fold."""
    folds = evidence.folds
    if folds is None or int(folds.total.present.sum()) > geometry.LARGEST:
        return {}
    errors = jackknife(_norms_and_variances, folds.without_scatter).standard_error
    errors[:, torch.isin(folds.total.class_ids[folds.total.present], folds.undivided)] = torch.nan
    norms, variances = errors.tolist()
    return {"‖μ − μ_G‖": norms, "variance": variances}


def pair_cells(report: Report) -> tuple[str, list[str], list[list[str]]] | None:
    """A sentence, headings and a line of cells for each of the nearest pairs of classes; None without statistics."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics, enough = _with_enough(evidence.statistics)
    found, theory = geometry.measured(report), geometry.predicted(report)
    expected = theory[-1] if theory else None
    table = pair_table(statistics, None, PAIRS, predicted=None if expected is None else expected.mean_cosines)
    place = {label: row for row, label in enumerate(statistics.class_ids.tolist())}
    first, second = ([place[label] for label in labels] for labels in table.labels.mT.tolist())
    pairs = [" – ".join(class_names(report, labels)) for labels in table.labels.tolist()]
    columns = {
        "pair": pairs,
        "cos(μ, μ′)": _cosines(table.cosines),
    }
    if table.predicted_cosines is not None:
        columns["predicted"] = _cosines(table.predicted_cosines)
    rows = None if found is None else found.classifier_cosines
    ideal = None if expected is None else expected.classifier_cosines
    if rows is not None and ideal is not None:
        measured, predicted = rows[first, second], ideal[first, second]
        columns["cos(w, w′)"] = _cosines(measured)
        columns["predicted w"] = _cosines(predicted)
        columns["merged"] = _yes(measured >= geometry.MERGED)
        columns["to merge"] = _yes(1 - predicted < _COINCIDE)
    columns |= {"angle °": _numbers(table.angles), "distance": _numbers(table.distances), "CDNV": _numbers(table.cdnv)}
    said = f"The {len(pairs)} pairs of classes{enough} whose centred means are at the smallest angles."
    if expected is not None:
        said += f" Predicted: {expected.name}."
    if rows is not None:
        said += f" Merged: centred classifier rows with a cosine of at least {geometry.MERGED}; to merge: predicted to."
    return said, list(columns), [list(line) for line in zip(*columns.values(), strict=True)]


def _with_enough(statistics: ClassStatistics) -> tuple[ClassStatistics, str]:
    """The classes with samples; of more than `geometry.LARGEST` those with enough of them, and words that say so."""
    statistics = statistics.detach().populated()
    if statistics.num_classes > geometry.LARGEST and int((statistics.counts >= _ENOUGH).sum()) > _FEW:
        return statistics.select(min_count=_ENOUGH), f" with at least {_ENOUGH} samples"
    return statistics, ""


def _norms_and_variances(statistics: ClassStatistics) -> torch.Tensor:
    return torch.stack([mean_norms(statistics), statistics.populated().variances])


def _nearest(report: Report, labels: torch.Tensor) -> list[str]:
    return ["–" if label < 0 else class_names(report, [label])[0] for label in labels.tolist()]


def _numbers(values: torch.Tensor) -> list[str]:
    return [number(value) for value in values.tolist()]


def _cosines(values: torch.Tensor) -> list[str]:
    return [f"{value:.4f}" if math.isfinite(value) else "–" for value in values.tolist()]


def _yes(flags: torch.Tensor) -> list[str]:
    return ["yes" if flag else "" for flag in flags.tolist()]
