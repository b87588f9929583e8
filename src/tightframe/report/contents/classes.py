"""A row for every class, and for the pairs of classes that are nearest to each other."""

from __future__ import annotations

import math

import torch

from tightframe.metrics import class_table, pair_table
from tightframe.report.findings import Findings
from tightframe.report.predicted import LARGEST, MERGED, measured, predicted
from tightframe.sections import Bars, Cell, Column, Section, Table
from tightframe.statistics import ClassStatistics

PAIRS = 20  # shown at most
_FEW = 20  # classes shown where all are too many
_ENOUGH = 10  # samples that a class must have to be among them
_COINCIDE = 1e-6  # 1 less a predicted cosine below which classifier rows are the same


def accuracies(report: Findings) -> Section | None:
    """The held-out accuracy of each class; None where it wasn't measured, and for many classes."""
    shares = {label: share for label, share in report.class_accuracies.items() if not math.isnan(share)}
    if len(shares) < 2:
        return None
    labels = [int(label) for label in shares]
    counts = _counts(report)
    notes = tuple(f"{counts[label]:,}" if label in counts else "–" for label in labels) if counts else ()
    note = "After each name: the training samples of the class." if notes else ""
    names = tuple(report.facts.names_of(labels))
    bars = Bars("accuracy on held-out data", names, tuple(shares.values()), notes, note=note)
    hint = "Accuracy of the classifier on held-out samples of each class."
    worst = min(shares, key=lambda label: shares[label])
    (name,) = report.facts.names_of([int(worst)])
    said = f"The lowest is {100 * shares[worst]:.1f} %, of class {name}."
    return Section("accuracies", "Accuracy by class", (hint, said), figures=(bars,))


def _counts(report: Findings) -> dict[int, int]:
    statistics = None if report.evidence is None else report.evidence.statistics
    if statistics is None:
        return {}
    return dict(zip(statistics.class_ids.tolist(), statistics.counts.tolist(), strict=True))


def classes(report: Findings) -> Section | None:
    """A row for every class; of more than `LARGEST`, those with enough samples that scatter most. None without
    statistics."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics, enough = _with_enough(evidence.statistics)
    widest = None
    if statistics.num_classes > LARGEST:
        widest = statistics.variances.nan_to_num(-1.0).argsort(descending=True)[:_FEW]
    table = class_table(statistics, evidence.weight, rows=widest)
    columns: dict[Column, list[Cell]] = {
        Column("class", "name"): list(report.facts.names_of(table.labels.tolist())),
        Column("samples", "count"): table.counts.tolist(),
        Column("‖μ − μ_G‖", "number"): table.mean_norms.tolist(),
        Column("variance", "number"): table.variances.tolist(),
        Column("nearest by angle"): _nearest(report, table.nearest_by_angle),
        Column("cosine", "cosine"): table.nearest_cosines.tolist(),
    }
    if table.classifier_norms is not None and table.classifier_cosines is not None:
        columns[Column("‖w‖", "number", optional=True)] = table.classifier_norms.tolist()
        columns[Column("cos(w, μ)", "cosine")] = table.classifier_cosines.tolist()
    columns[Column("nearest by distance", optional=True)] = _nearest(report, table.nearest_by_distance)
    columns[Column("distance", "number", optional=True)] = table.nearest_distances.tolist()
    if len(report.class_errors.get("norm", ())) == len(table.labels):
        columns[Column("± ‖μ − μ_G‖", "number", optional=True)] = list(report.class_errors["norm"])
        columns[Column("± variance", "number", optional=True)] = list(report.class_errors["variance"])
    rows = list(zip(*columns.values(), strict=True))
    said = (
        "Each class: its number of samples, the distance of its mean to the mean of all class means, the variance "
        "about its own mean, and the nearest class. In a simplex ETF the distances are equal and every cosine is "
        "−1/(K − 1)."
    )
    sentences = [said]
    if widest is not None:
        sentences.append(f"Of {statistics.num_classes:,} classes{enough}, the {_FEW} that scatter most are shown.")
    elif enough:
        sentences.append(f"The {len(rows)} classes{enough} are shown.")
    return Section(
        "classes",
        "Classes",
        tuple(sentences),
        Table(tuple(columns), tuple(rows)),
        folded=len(rows) > _FEW,
        searchable=True,
    )


def pairs(report: Findings) -> Section | None:
    """A row for each of the nearest pairs of classes; None without statistics."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics, enough = _with_enough(evidence.statistics)
    geometry, theory = measured(report), predicted(report)
    expected = theory[-1] if theory else None
    table = pair_table(statistics, None, PAIRS, predicted=None if expected is None else expected.mean_cosines)
    place = {label: row for row, label in enumerate(statistics.class_ids.tolist())}
    first, second = ([place[label] for label in labels] for labels in table.labels.mT.tolist())
    names = [" – ".join(report.facts.names_of(labels)) for labels in table.labels.tolist()]
    columns: dict[Column, list[Cell]] = {
        Column("pair", "name"): list(names),
        Column("cos(μ, μ′)", "cosine"): table.cosines.tolist(),
    }
    if table.predicted_cosines is not None:
        columns[Column("predicted", "cosine")] = table.predicted_cosines.tolist()
    rows = None if geometry is None else geometry.classifier_cosines
    ideal = None if expected is None else expected.classifier_cosines
    if rows is not None and ideal is not None:
        found_cosines, predicted_cosines = rows[first, second], ideal[first, second]
        columns[Column("cos(w, w′)", "cosine")] = found_cosines.tolist()
        columns[Column("predicted w", "cosine")] = predicted_cosines.tolist()
        merged, to_merge = found_cosines >= MERGED, 1 - predicted_cosines < _COINCIDE
        if merged.any() or to_merge.any():
            columns[Column("merged")] = _yes(merged)
            columns[Column("to merge")] = _yes(to_merge)
    columns |= {
        Column("angle °", "number"): table.angles.tolist(),
        Column("distance", "number"): table.distances.tolist(),
        Column("CDNV", "number"): table.cdnv.tolist(),
    }
    which = "The pair of classes" if len(names) == 1 else f"The {len(names)} pairs of classes"
    said = [
        f"{which}{enough} with the smallest angle{'' if len(names) == 1 else 's'} between centred means, which a "
        "classifier is likely to confuse."
    ]
    if expected is not None:
        said.append(f"Predicted: {expected.name}.")
    if Column("merged") in columns:
        said.append(
            f"Merged: the centred classifier rows have a cosine of at least {MERGED}. To merge: theory merges them."
        )
    lines = tuple(zip(*columns.values(), strict=True))
    return Section("pairs", "Nearest pairs of classes", tuple(said), Table(tuple(columns), lines), searchable=True)


def _with_enough(statistics: ClassStatistics) -> tuple[ClassStatistics, str]:
    """The classes with samples; of more than `LARGEST` those with enough of them, and words that say so."""
    statistics = statistics.detach().populated()
    if statistics.num_classes > LARGEST and int((statistics.counts >= _ENOUGH).sum()) > _FEW:
        return statistics.select(min_count=_ENOUGH), f" with at least {_ENOUGH} samples"
    return statistics, ""


def _nearest(report: Findings, labels: torch.Tensor) -> list[Cell]:
    return [None if label < 0 else report.facts.names_of([label])[0] for label in labels.tolist()]


def _yes(flags: torch.Tensor) -> list[Cell]:
    return ["yes" if flag else "" for flag in flags.tolist()]
