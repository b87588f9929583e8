"""`Entry`: one value of a report, beside what it should be."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.sections import Standing, standing_of


@dataclass(frozen=True)
class Entry:
    """One value of a report.

    Attributes:
        name: the metric's name; label, family, convention and source are the metric's.
        split: the samples it was taken on: "train", "test", or "ood" where both are needed.
        value: NaN where it is undefined.
        target: value at perfect collapse; floor: best possible in this dimension, if not the target. None if unknown.
        shuffled: what it would be with shuffled labels, the median of draws, and
        shuffled_spread: half of the range of 68 % of them; None where labels don't matter, or it can't be drawn.
        standard_error: of the samples drawn, for the trained network as it is. None where unknown.
        level: what labels were shuffled on: "shuffled" for these features, "isotropic" where their scatter wasn't kept;
            "random" for a classifier's rows in random directions, which has no labels.
        closeness: how many times nearer the best possible value than with shuffled labels; infinite at it. None where
            there is no such number. least_closeness: the same of a value two standard errors farther from the best.
        remark: the closeness in words, or why there is none.
        classes: how many classes it was taken over.
    """

    name: str
    split: str
    label: str
    family: str
    value: float
    target: float | None
    floor: float | None
    shuffled: float | None
    standard_error: float | None
    convention: str
    source: str
    headline: bool
    shuffled_spread: float | None = None
    level: str = ""
    closeness: float | None = None
    remark: str = ""
    classes: int | None = None
    least_closeness: float | None = None

    @property
    def title(self) -> str:
        """The label, with the samples it was taken on where these aren't the training samples."""
        return self.label + (", held out" if self.split == "test" else "")

    @property
    def best(self) -> float | None:
        """The best possible value: the floor where there is one, else the target."""
        return self.target if self.floor is None else self.floor

    @property
    def standing(self) -> Standing:
        """Where the value stands between its level with shuffled labels and the best."""
        return standing_of(self.remark)

    @property
    def key(self) -> str:
        """The name, with "test/" or the like before it for splits other than "train" and "ood"."""
        return self.name if self.split in ("train", "ood") else f"{self.split}/{self.name}"


def insert_by_family(entries: list[Entry], entry: Entry) -> None:
    """Put an entry after the last of its family, or at the end."""
    family = [place for place, other in enumerate(entries) if other.family == entry.family]
    entries.insert(family[-1] + 1 if family else len(entries), entry)
