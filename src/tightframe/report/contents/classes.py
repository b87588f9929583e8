"""Tables with one row per class, and one row per nearest pair of classes."""

from __future__ import annotations

import math

import torch

from tightframe.metrics import class_table, pair_table
from tightframe.report.findings import Findings
from tightframe.report.predicted import LARGEST, MERGED, measured, predicted
from tightframe.sections import Bars, Cell, Column, Section, Table
from tightframe.statistics import ClassStatistics

PAIRS = 20  # maximum number of pairs shown
_FEW = 20  # number of classes shown if there are more than LARGEST
_ENOUGH = 10  # minimum samples of these classes
_SPECTRA = 3e9  # largest number of rows times D^3 for the eigenvalues of each class: a few seconds
_COINCIDE = 1e-6  # predicted rows coincide if 1 − cosine is below this


def accuracies(report: Findings) -> Section | None:
    """The held-out accuracy of each class; None if it was not measured or there are too many classes."""
    shares = {label: share for label, share in report.class_accuracies.items() if not math.isnan(share)}
    if len(shares) < 2:
        return None
    labels = [int(label) for label in shares]
    counts = _counts(report)
    notes = tuple(f"{counts[label]:,}" if label in counts else "–" for label in labels) if counts else ()
    note = "The number after each name counts the class's training samples." if notes else ""
    names = tuple(report.facts.names_of(labels))
    bars = Bars("accuracy on held-out data", names, tuple(shares.values()), notes, note=note)
    hint = "Accuracy of the classifier on the held-out samples of each class."
    worst = min(shares, key=lambda label: shares[label])
    (name,) = report.facts.names_of([int(worst)])
    lowest = f"Class {name} has the lowest accuracy: {100 * shares[worst]:.1f} %."
    return Section("accuracies", "Accuracy by class", (hint, lowest), figures=(bars,))


def _counts(report: Findings) -> dict[int, int]:
    statistics = None if report.evidence is None else report.evidence.statistics
    if statistics is None:
        return {}
    return dict(zip(statistics.class_ids.tolist(), statistics.counts.tolist(), strict=True))


def classes(report: Findings) -> Section | None:
    """One row per class; with more than `LARGEST` classes, those with the largest variance among the classes with
    enough samples. None without statistics."""
    evidence = report.evidence
    if evidence is None or evidence.statistics is None:
        return None
    statistics, enough = _with_enough(evidence.statistics)
    widest = None
    if statistics.num_classes > LARGEST:
        widest = statistics.variances.nan_to_num(-1.0).argsort(descending=True)[:_FEW]
    number = statistics.num_classes if widest is None else _FEW
    affordable = number * statistics.num_features**3 <= _SPECTRA
    table = class_table(statistics, evidence.weight, rows=widest, spectra=affordable)
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
    for heading, values in (
        ("effective rank", table.effective_ranks),
        ("participation ratio", table.participation_ratios),
        ("α-ReQ", table.alphas),
    ):
        if values is not None:
            columns[Column(heading, "number", optional=True)] = values.tolist()
    if len(report.class_errors.get("norm", ())) == len(table.labels):
        columns[Column("± ‖μ − μ_G‖", "error", optional=True)] = list(report.class_errors["norm"])
        columns[Column("± variance", "error", optional=True)] = list(report.class_errors["variance"])
    rows = list(zip(*columns.values(), strict=True))
    hint = (
        "Each row shows a class's number of samples, the distance of its mean to the mean of all class means, the "
        "variance about its mean, and the nearest class. In a simplex ETF all distances are equal and every cosine "
        "is −1/(K − 1)."
    )
    sentences = [hint]
    if table.effective_ranks is not None:
        sentences.append(
            "Effective rank and participation ratio count the directions along which a class varies; α-ReQ is the "
            "exponent of the decay of its variances. A class of n samples has at most n − 1 directions."
        )
    if widest is not None:
        sentences.append(
            f"The table shows {_FEW} of {statistics.num_classes:,} classes{enough}: those with the largest variance."
        )
    elif enough:
        sentences.append(f"The table shows the {len(rows)} classes{enough}.")
    return Section(
        "classes",
        "Classes",
        tuple(sentences),
        Table(tuple(columns), tuple(rows)),
        folded=len(rows) > _FEW,
        searchable=True,
    )


def pairs(report: Findings) -> Section | None:
    """One row per nearest pair of classes; None without statistics."""
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
        measured_cosines, predicted_cosines = rows[first, second], ideal[first, second]
        columns[Column("cos(w, w′)", "cosine")] = measured_cosines.tolist()
        columns[Column("predicted w", "cosine")] = predicted_cosines.tolist()
        merged, to_merge = measured_cosines >= MERGED, 1 - predicted_cosines < _COINCIDE
        if merged.any() or to_merge.any():
            columns[Column("merged")] = _yes(merged)
            columns[Column("to merge")] = _yes(to_merge)
    columns |= {
        Column("angle °", "number"): table.angles.tolist(),
        Column("distance", "number"): table.distances.tolist(),
        Column("CDNV", "number"): table.cdnv.tolist(),
    }
    which = "The pair of classes" if len(names) == 1 else f"The {len(names)} pairs of classes"
    sentences = [
        f"{which}{enough} with the smallest angle{'' if len(names) == 1 else 's'} between centred means. A classifier "
        "is likely to confuse them."
    ]
    if expected is not None:
        sentences.append(f"Predicted: {expected.name}.")
    if Column("merged") in columns:
        sentences.append(
            f"Merged: the centred classifier rows have a cosine of at least {MERGED}. To merge: theory predicts it."
        )
    lines = tuple(zip(*columns.values(), strict=True))
    return Section("pairs", "Nearest pairs of classes", tuple(sentences), Table(tuple(columns), lines), searchable=True)


def _with_enough(statistics: ClassStatistics) -> tuple[ClassStatistics, str]:
    """The classes with samples, only those with enough if there are more than `LARGEST`; and a clause that says so."""
    statistics = statistics.detach().populated()
    if statistics.num_classes > LARGEST and int((statistics.counts >= _ENOUGH).sum()) > _FEW:
        return statistics.select(min_count=_ENOUGH), f" with at least {_ENOUGH} samples"
    return statistics, ""


def _nearest(report: Findings, labels: torch.Tensor) -> list[Cell]:
    return [None if label < 0 else report.facts.names_of([label])[0] for label in labels.tolist()]


def _yes(flags: torch.Tensor) -> list[Cell]:
    return ["yes" if flag else "" for flag in flags.tolist()]
