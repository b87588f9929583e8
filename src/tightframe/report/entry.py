"""`Entry`: one value of a report, beside what it should be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One value of a report.

    Attributes:
        name: the metric's name; label, family, convention and source are the metric's.
        split: the samples it was taken on: "train", "test", or "ood" where both are needed.
        value: NaN where it is undefined.
        target: value at perfect collapse; floor: best possible in this dimension, if not the target;
            null: expected without class structure; random: for class means, and classifier rows, in independent random
            directions. None where unknown.
        standard_error: of the samples drawn, for the trained network as it is. None where unknown.
        classes: how many classes it was taken over.
    """

    name: str
    split: str
    label: str
    family: str
    value: float
    target: float | None
    floor: float | None
    null: float | None
    standard_error: float | None
    convention: str
    source: str
    headline: bool
    random: float | None = None
    classes: int | None = None

    @property
    def position(self) -> float | None:
        """Where the value lies on the way from the null level, 0, to the best possible value, 1: the target, or the
        floor where the dimension forces one. Below 0 or above 1 beyond them; None unless both are known and differ."""
        best = self.target if self.floor is None else self.floor
        if best is None or self.null is None or best == self.null:
            return None
        return (self.null - self.value) / (self.null - best)

    @property
    def key(self) -> str:
        """The name, with "test/" or the like before it for splits other than "train" and "ood"."""
        return self.name if self.split in ("train", "ood") else f"{self.split}/{self.name}"


def insert_by_family(entries: list[Entry], entry: Entry) -> None:
    """Put an entry after the last of its family, or at the end."""
    family = [place for place, other in enumerate(entries) if other.family == entry.family]
    entries.insert(family[-1] + 1 if family else len(entries), entry)
