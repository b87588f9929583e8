"""The sections of a report, in order. A new section is a function in a file here, and a row of `CONTENTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightframe.report.contents import classes, depth, detection, geometry, measures, similarity, training
from tightframe.report.findings import Findings
from tightframe.sections import Section


def _nothing(report: Findings) -> str:
    return ""


@dataclass(frozen=True)
class Content:
    """A section of a report.

    Attributes:
        key: the section's key; make: returns the section, or None if there is nothing to show.
        brief: returns the line that short forms print instead, or ""; cheap.
    """

    key: str
    make: Callable[[Findings], Section | None]
    brief: Callable[[Findings], str] = _nothing


CONTENTS = (
    Content("training", training.training),
    Content("geometry", geometry.geometry),
    Content("accuracies", classes.accuracies),
    Content("depth", depth.depth, depth.brief),
    Content("similarity", similarity.similarity, similarity.brief),
    Content("detection", detection.detection, detection.brief),
    Content("pairs", classes.pairs),
    Content("coverage", measures.coverage),
    Content("classes", classes.classes),
    Content("measures", measures.measures),
)

BY_CLASS = ("classes", "pairs")
"""Sections with one row per class or per pair of classes."""

__all__ = ["BY_CLASS", "CONTENTS", "Content"]
