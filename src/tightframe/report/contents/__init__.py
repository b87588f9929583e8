"""What a report shows: its sections, in order. A new one is a function in a file here, and a row of `CONTENTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightframe.report.contents import classes, depth, detection, geometry, measures, training
from tightframe.report.findings import Findings
from tightframe.sections import Section


def _nothing(report: Findings) -> str:
    return ""


@dataclass(frozen=True)
class Content:
    """A section of a report.

    Attributes:
        key: the section's; make: the section, or None where there is nothing to show.
        brief: what short forms print in its place, a line or nothing; cheap.
    """

    key: str
    make: Callable[[Findings], Section | None]
    brief: Callable[[Findings], str] = _nothing


CONTENTS = (
    Content("training", training.training),
    Content("geometry", geometry.geometry),
    Content("accuracies", classes.accuracies),
    Content("depth", depth.depth, depth.brief),
    Content("detection", detection.detection, detection.brief),
    Content("pairs", classes.pairs),
    Content("coverage", measures.coverage),
    Content("classes", classes.classes),
    Content("measures", measures.measures),
)

BY_CLASS = ("classes", "pairs")
"""Sections with a row for a class or a pair of classes."""

__all__ = ["BY_CLASS", "CONTENTS", "Content"]
