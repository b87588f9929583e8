"""`Entry`: one value of a report, with its target and levels."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.sections import Standing, standing_of


@dataclass(frozen=True)
class Entry:
    """One value of a report.

    Attributes:
        name: the metric's name; label, family, convention and source are the metric's.
        split: the samples measured: "train", "test", or "ood" for train and outside samples together.
        value: NaN if undefined.
        target: value at perfect collapse; floor: best possible in this dimension, if not the target. None if unknown.
        shuffled: value with shuffled labels, the median of draws; shuffled_spread: half the range of the central 68 %
            of draws. None if labels don't matter or no draws are possible.
        standard_error: sampling error for the trained network as it is. None if unknown.
        level: how `shuffled` was drawn: "shuffled", labels of these features; "isotropic", without their scatter;
            "random", a classifier's rows in random directions.
        closeness: how many times nearer the best value than with shuffled labels; infinite at the best. None if
            undefined. least_closeness: the same for a value two standard errors farther from the best.
        remark: the closeness in words, or why it is undefined.
        classes: number of classes measured.

    >>> from tightframe.report import Entry
    >>> entry = Entry("nc1", "test", "NC1", "NC1", 0.02, 0.0, None, 3.5, None, "", "", True, remark="175× nearer")
    >>> entry.key, entry.title, entry.best, entry.standing
    ('test/nc1', 'NC1, held out', 0.0, 'nearer')
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
        """The label, with ", held out" for held-out samples."""
        return self.label + (", held out" if self.split == "test" else "")

    @property
    def best(self) -> float | None:
        """The best possible value: the floor if there is one, else the target."""
        return self.target if self.floor is None else self.floor

    @property
    def standing(self) -> Standing:
        """The value's place between its level with shuffled labels and the best."""
        return standing_of(self.remark)

    @property
    def key(self) -> str:
        """The name, prefixed with the split, as in "test/nc1", unless that is "train" or "ood"."""
        return self.name if self.split in ("train", "ood") else f"{self.split}/{self.name}"


def insert_by_family(entries: list[Entry], entry: Entry) -> None:
    """Put an entry after the last of its family, or at the end."""
    family = [place for place, other in enumerate(entries) if other.family == entry.family]
    entries.insert(family[-1] + 1 if family else len(entries), entry)
