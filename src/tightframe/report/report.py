"""`Report`: the outcome of one measurement, every value beside its target, level with shuffled labels and source."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from typing import Any, Self

from tightframe.errors import ChoiceError
from tightframe.evidence import Evidence
from tightframe.metrics import Metric
from tightframe.plain import json_text, plain, restored, written_to
from tightframe.report import evaluation
from tightframe.report.cards import cards
from tightframe.report.contents import BY_CLASS, CONTENTS
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.report.verdict import oddities, verdict
from tightframe.sections import Card, Document, Remark, Section, Verdict, number
from tightframe.theory import Training
from tightframe.version import __version__


@dataclass(frozen=True, repr=False)
class Report(Findings):
    """The outcome of one measurement. Its attributes are those of `Findings`: entries, facts, notes, history, ...

        report["nc1"].value, report["nc1"].target, report["nc1"].shuffled, report["nc1"].standard_error
        report.verdict.word
        report.to_html("run.html")

    In a notebook, `report` shows the verdict and the cards.
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
            selected: the same on the classes with `min_count` samples alone, where that was collected; otherwise they
                are selected here, without their pooled scatter.
            test: held-out evidence; of it, decisions (test NC4), variability and angles are reported.
            metrics: what to evaluate, names in `METRICS` or metrics; default: all that the evidence allows.
            conventions: names in `CONVENTIONS` to report as well, each with evidence collected as it says.
            min_count: leave out classes with fewer samples; decisions stay those among all classes.
            training: how the classifier was trained, for what theory predicts at these weight decays.
            facts: further fields of `Facts`; context: what the caller says of the measurement: title, epoch, session,
                data and class_names become facts.

        Raises: EmptyClassError where fewer than two classes have so many samples; ChoiceError for unknown names.
        """
        found = evaluation.findings(
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
        return cls(**{each.name: getattr(found, each.name) for each in fields(found)})

    # ------------------------------------------------------------------ what it says

    @property
    def verdict(self) -> Verdict:
        """One word, such as COLLAPSED, with a sentence and advice; see docs/verdict.md."""
        return verdict(self)

    @property
    def oddities(self) -> tuple[Remark, ...]:
        """What is odd about this measurement: each with a name, a sentence and advice. Without evidence, as in a report
        read from JSON, those that were written with it."""
        return self.written_oddities if self.evidence is None and self.written_oddities else oddities(self)

    @property
    def cards(self) -> tuple[Card, ...]:
        """NC1 to NC5, as far as they were measured, each by one measure."""
        return cards(self)

    def with_sections(self, *sections: Section) -> Self:
        """The same with sections of one's own, which every format shows.

        Raises: ChoiceError for a key that a built-in section or another of them has.
        """
        taken = {content.key for content in CONTENTS}
        if built_in := [section.key for section in sections if section.key in taken]:
            raise ChoiceError(f"the key {built_in[0]!r} is a built-in section's; give yours another.")
        return super().with_sections(*sections)

    def section(self, key: str) -> Section | None:
        """A section by its key: one of `CONTENTS`, or of one's own; None where there is nothing to show."""
        own = next((section for section in self.sections if section.key == key), None)
        made = next((content.make for content in CONTENTS if content.key == key), None)
        return own if made is None else made(self)

    def document(self, only: Collection[str] | None = None) -> Document:
        """The report as any renderer takes it.

        Args: only, keys of the built-in sections to make; the others are left to their briefs. Default: all.
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
        """What was measured, in short phrases."""
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
        """Where the numbers come from."""
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
        """Plain data for JSON, the verdict and the oddities first: see `plain`. Evidence and history are left out."""
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
        """The entries as CSV text with a header, also written to `path` if given."""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(Entry.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in self.entries)
        return written_to(out.getvalue(), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A self-contained page with the verdict, cards, curves, Gram matrices and all tables."""
        return written_to(self.document().to("page"), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as Markdown, also written to `path` if given."""
        return written_to(self.document().to("markdown"), path)

    def to_figures(self) -> dict[str, Any]:
        """{name: matplotlib figure} of all that the page draws. Raises: MissingExtraError without matplotlib."""
        figures: dict[str, Any] = self.document().to("figures")
        return figures

    def to_terminal(self, *, everything: bool = False, classes: bool = False) -> None:
        """Print the verdict and the cards; with `classes` the tables of classes and pairs, with `everything` all."""
        self.document(shown(everything=everything, classes=classes)).to("terminal", printed=True)

    def __repr__(self) -> str:
        text: str = self._top().to("terminal")
        return text.rstrip("\n")

    __str__ = __repr__

    def _repr_html_(self) -> str:
        text: str = self._top().to("page", top=True)
        return text

    def _top(self) -> Document:
        """The verdict and the cards alone."""
        return replace(self.document(()), sections=(), notes=(), footer=(), downloads={})


def _range(low: int | None, high: int | None) -> str | None:
    if low is None or high is None:
        return None
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def shown(*, everything: bool = False, classes: bool = False) -> Collection[str] | None:
    """Keys of the sections that a terminal shows, for `Report.document`."""
    return None if everything else BY_CLASS if classes else ()
