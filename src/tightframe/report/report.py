"""`Report`: the result of one measurement; every value with its target, shuffled level and source."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any, Self

from tightframe.errors import ChoiceError
from tightframe.evidence import Evidence
from tightframe.metrics import Metric
from tightframe.plain import csv_text, json_text, plain, restored, written_to
from tightframe.report import evaluation
from tightframe.report.cards import cards
from tightframe.report.contents import BY_CLASS, CONTENTS
from tightframe.report.contents.similarity import similarity_entries
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.report.verdict import oddities, verdict
from tightframe.sections import Card, Document, Remark, Section, Verdict, as_text, number
from tightframe.theory import Training
from tightframe.version import __version__


@dataclass(frozen=True, repr=False)
class Report(Findings):
    """The result of one measurement. Its attributes are those of `Findings`: entries, facts, notes, history, ...

        report["nc1"].value, report["nc1"].target, report["nc1"].shuffled, report["nc1"].standard_error
        report.verdict.word
        report.to_html("run.html")

    In a notebook, `report` shows the verdict and the cards.

    >>> import torch
    >>> from tightframe import ClassStatistics, Report
    >>> from tightframe.metrics import Evidence
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> report = Report.from_evidence(Evidence(statistics), metrics=["nc1"])
    >>> round(report["nc1"].value, 4), report["nc1"].target
    (0.02, 0.0)
    """

    written_oddities: tuple[Remark, ...] = ()

    @classmethod
    def from_evidence(
        cls,
        evidence: Evidence,
        *,
        selected: Evidence | None = None,
        test: Evidence | None = None,
        metrics: Sequence[str | Metric[Any]] | None = None,
        conventions: Mapping[str, Evidence] | None = None,
        min_count: int = 1,
        training: Training | None = None,
        facts: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """Evaluate metrics on evidence.

        Args:
            selected: evidence on the classes with `min_count` samples, if it was collected. Default: select them from
                `evidence`, without their pooled scatter.
            test: held-out evidence, for decisions (test NC4), variability and angles.
            metrics: names in `METRICS`, or metrics. Default: all that the evidence allows.
            conventions: names in `CONVENTIONS` to report as well, each with the evidence that it needs.
            min_count: minimum samples of a class; decisions stay those among all classes.
            training: loss and weight decays of the classifier, for the predictions of theory.
            facts: further fields of `Facts`; context: further values. Its title, epoch, session, data and class_names
                become facts.

        Raises: EmptyClassError if fewer than two classes have `min_count` samples; ChoiceError for unknown names.
        """
        result = evaluation.findings(
            evidence,
            selected=selected,
            test=test,
            metrics=metrics,
            conventions=conventions,
            min_count=min_count,
            training=training,
            facts=facts,
            context=context,
        )
        return cls(**{each.name: getattr(result, each.name) for each in fields(result)})

    # ------------------------------------------------------------------ conclusions

    @property
    def verdict(self) -> Verdict:
        """One word, such as COLLAPSED, with a sentence and advice; see docs/verdict.md."""
        return verdict(self)

    @property
    def oddities(self) -> tuple[Remark, ...]:
        """Unusual results, each with a name, a sentence and advice. A report without evidence, as read from JSON, has
        those that were written with it."""
        return self.written_oddities if self.evidence is None and self.written_oddities else oddities(self)

    @property
    def cards(self) -> tuple[Card, ...]:
        """One card per measured phenomenon, NC1 to NC5, each with one measure."""
        return cards(self)

    def with_sections(self, *sections: Section) -> Self:
        """A copy with additional sections, which every format shows.

        Raises: ChoiceError for the key of a built-in section, and if two sections have the same key.
        """
        taken = {content.key for content in CONTENTS}
        if built_in := [section.key for section in sections if section.key in taken]:
            raise ChoiceError(f"section keys must be new; {built_in[0]!r} is built in. Rename your section.")
        return super().with_sections(*sections)

    def section(self, key: str) -> Section | None:
        """The section with this key, from `CONTENTS` or the caller's own; None if there is nothing to show."""
        own = next((section for section in self.sections if section.key == key), None)
        made = next((content.make for content in CONTENTS if content.key == key), None)
        return own if made is None else made(self)

    def document(self, only: Collection[str] | None = None) -> Document:
        """The report as a document for any renderer.

        Args: only, keys of the built-in sections to make; the others give one line each. Default: all.
        """
        sections = []
        for content in CONTENTS:
            if only is None or content.key in only:
                if (section := content.make(self)) is not None:
                    sections.append(section)
            elif line := content.brief(self):
                sections.append(Section(content.key, content.key, brief=line, shown=False))
        downloads = {} if only is not None else {"report.json": self.to_json, "report.csv": self.to_csv}
        judged = self.verdict
        return Document(
            self.facts.title or "tightframe report",
            tuple(self._phrases()),
            judged,
            self.oddities,
            self.cards,
            (*sections, *self.sections),
            self.notes,
            tuple(self._footer()),
            downloads,
        )

    def _phrases(self) -> list[str]:
        """Short phrases on the subject of the measurement."""
        facts = self.facts
        phrases = [
            "" if facts.session is None else f"session {facts.session:g}",
            "" if facts.epoch is None else f"epoch {facts.epoch:g}",
            "" if facts.samples is None else f"{facts.samples:,} samples",
            "" if facts.classes is None else f"{facts.classes:,} classes",
            "" if facts.targets is None else f"{facts.targets:,} targets",
            "" if facts.dimension is None else f"{facts.dimension:,} dimensions",
        ]
        return [phrase for phrase in phrases if phrase]

    def _footer(self) -> list[tuple[str, str]]:
        """The origin of the numbers."""
        facts, run = self.facts, self.run
        arguments = run.get("arguments", {})
        seed = arguments.get("seed") if isinstance(arguments, Mapping) else None
        versions = run.get("versions", {"tightframe": __version__})
        seconds = facts.measuring_seconds
        rows = {
            "command": run.get("command"),
            "data": facts.data,
            "seed": seed,
            "layer": facts.layer,
            "mode": facts.mode,
            "classifier": facts.classifier,
            "samples per class": _range(facts.smallest_class, facts.largest_class),
            "measuring": None if seconds is None else f"{seconds:.1f} s",
            **{name: number(value) for name, value in self.context.items() if isinstance(value, float)},
            **{name: value for name, value in self.context.items() if isinstance(value, str | int)},
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "written": date.today().isoformat(),
        }
        return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]

    # ------------------------------------------------------------------ formats

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON (see `plain`), verdict and oddities first. Evidence and history are left out."""
        judged = {"verdict": plain(asdict(self.verdict)), "oddities": plain([asdict(each) for each in self.oddities])}
        return {**judged, **super().to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; reads what earlier versions wrote, too."""
        oddities = restored(tuple[Remark, ...], data.get("oddities", ()), "oddities")
        return replace(super().from_dict(data), written_oddities=oddities)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as JSON text, also written to `path` if given."""
        return written_to(json_text(self.to_dict(), indent=1), path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The entries, and the similarity of each pair of layers, as CSV text with a header; also written to `path` if
        given."""
        names = tuple(Entry.__dataclass_fields__)
        rows = (tuple(getattr(entry, name) for name in names) for entry in (*self.entries, *similarity_entries(self)))
        return written_to(csv_text(as_text((names, *rows))), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page with the verdict, cards, curves, Gram matrices and all tables."""
        return written_to(self.document().to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as Markdown, also written to `path` if given."""
        return written_to(self.document().to("markdown"), path)

    def to_figures(self) -> dict[str, Any]:
        """{name: matplotlib figure} for every figure of the page. Raises: MissingExtraError without matplotlib."""
        figures: dict[str, Any] = self.document().to("figures")
        return figures

    def to_terminal(self, *, everything: bool = False, classes: bool = False) -> None:
        """Print verdict and cards; `classes` adds the tables of classes and pairs, `everything` all sections."""
        self.document(shown(everything=everything, classes=classes)).to("terminal", printed=True)

    def __repr__(self) -> str:
        text: str = self._top().to("terminal")
        return text.rstrip("\n")

    __str__ = __repr__

    def _repr_html_(self) -> str:
        text: str = self._top().to("page", top=True)
        return text

    def _top(self) -> Document:
        """Verdict, oddities and cards only."""
        return replace(self.document(()), sections=(), notes=(), footer=(), downloads={})


def _range(low: int | None, high: int | None) -> str | None:
    if low is None or high is None:
        return None
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def shown(*, everything: bool = False, classes: bool = False) -> Collection[str] | None:
    """Keys of the sections that a terminal shows, for `Report.document`."""
    return None if everything else BY_CLASS if classes else ()
