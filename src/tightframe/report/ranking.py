"""`Ranking`: encoders or layers in the order of a forecast, with errors, and which of them cannot be told apart."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.errors import GeometryWarning, OptionError
from tightframe.metrics import h_score, log_me
from tightframe.options import RANKED_SCATTER
from tightframe.plain import csv_text, json_text, written_to
from tightframe.sections import Cell, Column, Document, Kind, Section, Table, as_text, signed
from tightframe.statistics import ClassStatistics, FoldedStatistics
from tightframe.theory import few_shot
from tightframe.theory.few_shot import require_shots

SHOTS = (1, 5, 20)
LOG_ME, H_SCORE = "log_me", "h_score"
_CERTAIN = 2.0  # standard errors of a difference from which two values are told apart


def measures_of(shots: Sequence[int]) -> list[str]:
    """The names of a row's measures, which can order a ranking. Raises: RangeError for wrong numbers of shots."""
    return [*(f"{m}-shot" for m in require_shots(shots)), LOG_ME, H_SCORE]


def require_measures(shots: Sequence[int], by: str | None) -> None:
    """Raises: RangeError for wrong numbers of shots; ChoiceError for an order by a measure that rows won't have."""
    measures = measures_of(shots)
    if by is not None:
        require_choice(by, measures, "by")


@dataclass(frozen=True)
class Score:
    """A value of one encoder, and its standard error.

    Attributes:
        standard_error: from the samples (delete-a-fold jackknife) and the forecast's draws; None without folds.
        replicates: (F,) values without each fold, for errors of differences; empty without folds.
        draw_error: the part of the error that comes from the forecast's draws.
    """

    value: float
    standard_error: float | None = None
    replicates: tuple[float, ...] = ()
    draw_error: float = 0.0

    def difference(self, other: Score) -> tuple[float, float | None]:
        """This value minus another, and its standard error; None without folds, or if the numbers of folds differ.

        The jackknife pairs the folds: where both encoders saw the same samples in the same order, their common error
        cancels; for other samples it is the error of independent values.
        """
        change = self.value - other.value
        if not self.replicates or len(self.replicates) != len(other.replicates):
            return change, None
        pairs = zip(self.replicates, other.replicates, strict=True)
        error = _jackknife_error(torch.tensor([a - b for a, b in pairs], dtype=torch.float64))
        return change, math.hypot(error, self.draw_error, other.draw_error)


@dataclass(frozen=True)
class Ranked:
    """One encoder or layer.

    Attributes:
        scores: {measure: score}: "1-shot", ... (accuracy in [0, 1]), "log_me" (nats per sample), "h_score" (shrunk).
        notes: sentences that qualify the numbers.
        pooled: the forecasts with the scatter pooled over classes, if those in `scores` use that of each class.
    """

    name: str
    samples: int
    classes: int
    dimension: int
    scores: Mapping[str, Score]
    notes: tuple[str, ...] = ()
    pooled: Mapping[str, Score] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        moments: ClassStatistics | FoldedStatistics,
        shots: Sequence[int] = SHOTS,
        notes: Sequence[str] = (),
        *,
        per_class: bool | None = None,
    ) -> Ranked:
        """The scores of the moments of one encoder's features; errors if they are folded.

        Args:
            per_class: as in `rank`.

        Raises: EmptyClassError for fewer than two classes; ScatterError without the scatter; RangeError for shots.
        """
        folded = moments if isinstance(moments, FoldedStatistics) else None
        total = moments.total if isinstance(moments, FoldedStatistics) else moments
        populated = total.populated()
        shots, remarks = tuple(shots), []
        if lack := _lack_of_own_scatter(populated, per_class):
            remarks.append(f"the forecast uses the scatter pooled over classes, because {lack}.")
        kinds = [False] if lack or per_class is False else [None, False]  # as in `few_shot`; each class's first

        def measured(statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
            """The values, those with the pooled scatter last, and their errors from the draws."""
            others = torch.stack([log_me(statistics), h_score(statistics, shrinkage="ledoit-wolf")])
            forecasts = [few_shot(statistics, shots, per_class=kind) for kind in kinds]
            accuracies = [each.accuracy.to(others) for each in forecasts]
            errors = [each.draw_error.to(others) for each in forecasts]
            values = torch.cat([accuracies[0], others, *accuracies[1:]])
            return values, torch.cat([errors[0], torch.zeros_like(others), *errors[1:]])

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GeometryWarning)
            values, draw_errors = (each.tolist() for each in measured(total))
            rows = []
            if folded is not None and len(folded.undivided) < populated.num_classes:  # else no class varies
                rows = [measured(folded.without(fold))[0].tolist() for fold in range(folded.folds)]
        if not rows:
            lack = "there are no sample folds" if folded is None else "all samples of each class are in one fold"
            remarks.append(f"no error: {lack}.")
        remarks += [str(each.message) for each in caught if issubclass(each.category, GeometryWarning)]
        replicates = list(zip(*rows, strict=True)) if rows else [()] * len(values)
        scores = []
        for value, others, error in zip(values, replicates, draw_errors, strict=True):
            both = math.hypot(_jackknife_error(torch.tensor(others, dtype=torch.float64)), error) if others else None
            scores.append(Score(value, both, others, error))
        return cls(
            name,
            int(populated.num_samples),
            populated.num_classes,
            populated.num_features,
            dict(zip(measures_of(shots), scores, strict=False)),
            tuple(dict.fromkeys([*notes, *remarks])),
            dict(zip(measures_of(shots), scores[len(shots) + 2 :], strict=False)),
        )

    def with_pooled_scatter(self) -> Ranked:
        """The same row with forecasts from the scatter pooled over classes."""
        if not self.pooled:
            return self
        note = "the forecast uses the scatter pooled over classes, as that of other rows does."
        return replace(self, scores={**self.scores, **self.pooled}, pooled={}, notes=(*self.notes, note))


def _lack_of_own_scatter(statistics: ClassStatistics, per_class: bool | None) -> str | None:
    """Why the forecast can't use the scatter of each class; None if it can, or should not."""
    if per_class is False:
        return None
    if statistics.class_within is None:
        return "that of each class was not kept"
    numbers = statistics.num_classes * statistics.num_features**2
    if per_class is None and numbers > RANKED_SCATTER:
        return f"that of each class has {numbers:,} numbers, more than {RANKED_SCATTER:,}"
    return None


def _jackknife_error(replicates: Tensor) -> float:
    deviations = replicates - replicates.mean()
    return math.sqrt(float(deviations.square().sum()) * (len(replicates) - 1) / len(replicates))


@dataclass(frozen=True)
class Ranking:
    """Encoders or layers, best first.

    Attributes:
        rows: best first; rows with a NaN come last.
        by: the measure that orders them.

    >>> import torch
    >>> from tightframe import rank
    >>> labels = torch.arange(300) % 3
    >>> clean, noise = torch.eye(3)[labels] + 0.5 * torch.randn(300, 3), torch.randn(300, 3)
    >>> ranking = rank({"noise": (noise, labels), "clean": (clean, labels)}, progress=False)
    >>> [row.name for row in ranking.rows], ranking.tied(*ranking.rows)
    (['clean', 'noise'], False)
    """

    rows: tuple[Ranked, ...]
    by: str

    @classmethod
    def of(cls, rows: Sequence[Ranked], by: str | None = None) -> Ranking:
        """The ranking by a measure, by default the accuracy with five shots, or with the middle one of the shots.

        If some forecasts use the scatter pooled over classes, all do: otherwise they would not be comparable.
        Raises: OptionError for fewer than two rows, names that occur twice, or rows with different measures;
            ChoiceError for a measure that the rows lack.
        """
        if len(rows) < 2:
            raise OptionError(f"a ranking needs at least two encoders or layers; got {len(rows)}.")
        names = [row.name for row in rows]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise OptionError(f"names must be unique; {repeated[0]!r} occurs twice.")
        keys = list(rows[0].scores)
        if other := next((row for row in rows if list(row.scores) != keys), None):
            raise OptionError(
                f"all rows must have the same measures; {rows[0].name!r} has {', '.join(keys)}, but {other.name!r} has "
                f"{', '.join(other.scores)}. Pass the same shots for all."
            )
        shots = [key for key in keys if key.endswith("-shot")]
        chosen = by or ("5-shot" if "5-shot" in shots else shots[len(shots) // 2])
        require_choice(chosen, keys, "by")
        if not all(row.pooled for row in rows):
            rows = [row.with_pooled_scatter() for row in rows]
        return cls(tuple(sorted(rows, key=lambda row: _descending(row.scores[chosen].value))), chosen)

    @property
    def best(self) -> Ranked:
        """The first row."""
        return self.rows[0]

    def tied(self, first: Ranked, second: Ranked) -> bool:
        """Whether two rows cannot be told apart: their difference is at most two standard errors, or has no error."""
        change, error = first.scores[self.by].difference(second.scores[self.by])
        return error is None or not abs(change) > _CERTAIN * error

    def ties(self) -> list[tuple[str, str]]:
        """The pairs of names that cannot be told apart; all pairs without errors."""
        pairs = [(a, b) for place, a in enumerate(self.rows) for b in self.rows[place + 1 :]]
        return [(a.name, b.name) for a, b in pairs if self.tied(a, b)]

    # ------------------------------------------------------------------ output

    def sentences(self) -> list[str]:
        """What the ranking says: the best, and which neighbours cannot be told apart."""
        best, label = self.best, _label(self.by)
        if math.isnan(best.scores[self.by].value):
            return [f"No {label} is defined; see the notes."]
        if all(score.standard_error is None for score in (row.scores[self.by] for row in self.rows)):
            return [
                f"{best.name} has the highest {label}. Without sample folds there are no errors to tell rows apart."
            ]
        equals = [row.name for row in self.rows[1:] if self.tied(best, row)]
        if equals:
            first = f"{best.name} has the highest {label}, but cannot be told apart from {_listed(equals)}."
        else:
            first = f"{best.name} is the best by {label}."
        return [first, *(self._tie(a, b) for a, b in pairwise(self.rows[1:]) if self.tied(a, b))]

    def _tie(self, first: Ranked, second: Ranked) -> str:
        change, error = first.scores[self.by].difference(second.scores[self.by])
        if error is None or math.isnan(change):
            return f"{first.name} and {second.name} cannot be told apart: the error of their difference is unknown."
        scale, unit = (100, " points") if self.by.endswith("-shot") else (1, "")
        size = signed(f"{scale * change:.2g} ± {scale * error:.2g}{unit}")
        return f"{first.name} and {second.name} cannot be told apart (difference {size})."

    def document(self) -> Document:
        """The ranking as a document for any renderer."""
        sizes = (Column(heading, "count", optional=True, spare=True) for heading in ("D", "samples"))
        columns = [Column("encoder", "name"), *sizes]
        for key in self.best.scores:
            kind: Kind = "percent" if key.endswith("-shot") else "number"
            other = key != self.by
            spread: Kind = "percent" if kind == "percent" else "error"
            columns += [Column(_heading(key), kind, other), Column("±", spread, other, spare=other)]
        columns.append(Column("tied with"))
        rows = []
        for row in self.rows:
            cells: list[Cell] = [row.name, row.dimension, row.samples]
            for score in row.scores.values():
                cells += [score.value, score.standard_error]
            equals = [other.name for other in self.rows if other is not row and self.tied(row, other)]
            rows.append((*cells, ", ".join(equals) or "–"))
        hint = (
            f"Ordered by {_label(self.by)}. m-shot: forecast accuracy, in per cent, of the nearest class mean with m "
            "labelled samples per class. LogME: log evidence in nats per sample. H-score: with a shrunk covariance. "
            "±: standard error. Tied: the difference is at most two of its standard errors, or its error is unknown."
        )
        table = Section("ranking", "Ranking", (*self.sentences(), hint), Table(tuple(columns), tuple(rows)))
        downloads = {"ranking.json": self.to_json, "ranking.csv": self.to_csv}
        subjects = f"{len(self.rows)} encoders or layers"
        return Document("Ranking", (subjects,), sections=(table,), notes=tuple(self._notes()), downloads=downloads)

    def _notes(self) -> Iterator[str]:
        for what, values in (
            ("samples", {row.samples for row in self.rows}),
            ("classes", {row.classes for row in self.rows}),
        ):
            if len(values) > 1:
                numbers = f"{min(values):,} to {max(values):,}"
                yield f"the numbers of {what} differ ({numbers}): values of different rows are hardly comparable."
        for row in self.rows:
            yield from (f"{row.name}: {note}" for note in row.notes)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """CSV text, one line per row: name, D, samples, classes, and each measure with its standard error."""
        keys = list(self.best.scores)
        heading = ("name", "D", "samples", "classes", *(part for key in keys for part in (key, f"{key} s.e.")))
        lines = [heading]
        for row in self.rows:
            scores = [row.scores[key] for key in keys]
            numbers = (part for score in scores for part in (score.value, score.standard_error))
            lines.append((row.name, row.dimension, row.samples, row.classes, *numbers))  # type: ignore[arg-type]
        return written_to(csv_text(as_text(tuple(lines))), path)

    def to_dict(self) -> dict[str, object]:
        """Plain data: the measure, the rows in order, and the pairs that cannot be told apart."""
        rows = [
            {
                "name": row.name,
                "dimension": row.dimension,
                "samples": row.samples,
                "classes": row.classes,
                "scores": {
                    key: {"value": score.value, "standard_error": score.standard_error}
                    for key, score in row.scores.items()
                },
                "notes": list(row.notes),
            }
            for row in self.rows
        ]
        return {"by": self.by, "rows": rows, "not_told_apart": [list(pair) for pair in self.ties()]}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`to_dict` as JSON text."""
        return written_to(json_text(self.to_dict(), indent=1), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page."""
        return written_to(self.document().to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The ranking as Markdown."""
        return written_to(self.document().to("markdown"), path)

    def to_terminal(self) -> None:
        """Print the ranking."""
        self.document().to("terminal", printed=True)


def _descending(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def _label(key: str) -> str:
    return {LOG_ME: "LogME", H_SCORE: "H-score"}.get(key, f"{key} accuracy")


def _heading(key: str) -> str:
    return {LOG_ME: "LogME", H_SCORE: "H-score"}.get(key, f"{key} %")


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
