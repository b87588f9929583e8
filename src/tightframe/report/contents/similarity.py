"""Similarity of all pairs of layers: a table, a matrix, and entries for CSV."""

from __future__ import annotations

import math

from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.sections import Cell, Column, Matrix, Section, Table, error_text, short, signed
from tightframe.similarity import LayerSimilarity

HEADING = "Similarity of layers"
SOURCE = "Kornblith et al. 2019; Nguyen et al. 2021"

_TABLED = 16  # maximum number of layers in the table


def similarity(report: Findings) -> Section | None:
    """Debiased linear CKA of all pairs of layers; None if it was not measured."""
    value = report.similarity
    if value is None:
        return None
    hint = (
        "Debiased linear CKA: 1 if two layers arrange the samples equally up to rotation and scale, 0 on average for "
        "unrelated layers."
    )
    note = "White: no similarity."
    figure = Matrix("debiased linear CKA", value.values, value.names, -1.0, 0.0, 1.0, note=note)
    return Section("similarity", HEADING, (hint, *_sentences(value)), _table(value), (figure,))


def brief(report: Findings) -> str:
    """One line with the greatest change between neighbouring layers."""
    value = report.similarity
    return "" if value is None else " ".join(_sentences(value)[:1])


def similarity_entries(report: Findings) -> tuple[Entry, ...]:
    """One entry for each pair of layers, named "cka[first, second]"; empty if it was not measured."""
    value = report.similarity
    if value is None:
        return ()
    return tuple(
        Entry(
            f"cka[{value.names[a]}, {value.names[b]}]",
            "train",
            f"CKA of {value.names[a]} and {value.names[b]}",
            "similarity",
            value.values[a][b],
            target=None,
            floor=None,
            shuffled=0.0,
            standard_error=error,
            convention="linear, debiased",
            source=SOURCE,
            headline=False,
        )
        for a in range(len(value.names))
        for b in range(a + 1, len(value.names))
        for error in [None if value.errors is None or math.isnan(value.errors[a][b]) else value.errors[a][b]]
    )


def _sentences(value: LayerSimilarity) -> list[str]:
    sentences = []
    steps = [(value.values[place][place + 1], place) for place in range(len(value.names) - 1)]
    if defined := [step for step in steps if not math.isnan(step[0])]:
        least, place = min(defined)
        error = "" if value.errors is None else f" ± {error_text(value.errors[place][place + 1])}"
        first, second = value.names[place : place + 2]
        sentences.append(f"The least similar neighbours are {first} and {second}: CKA {short(least)}{error}.")
    errors = [error for row in value.errors or () for error in row if not math.isnan(error)]
    if errors:
        sentences.append(f"Standard errors, by a jackknife over {value.folds} folds, are at most {short(max(errors))}.")
    return sentences


def _table(value: LayerSimilarity) -> Table | None:
    """One row and one column per layer, the columns by the number of the layer; None for too many layers."""
    if len(value.names) > _TABLED:
        return None
    columns = [
        Column("layer", "name"),
        *(Column(str(place), optional=place > 2) for place in range(1, len(value.names) + 1)),
    ]
    rows: list[tuple[Cell, ...]] = []
    for place, (name, row) in enumerate(zip(value.names, value.values, strict=True), 1):
        cells = ["–" if math.isnan(each) else signed(f"{each:.2f}") for each in row]
        rows.append((f"{place} {name}", *cells))
    return Table(tuple(columns), tuple(rows))
