"""`Profile`: the layers of a measurement in order of depth, and what their course says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.report.findings import Findings


@dataclass(frozen=True)
class Profile:
    """The reports of one measurement's layers, from the input to the classifier.

    Depth counts the layers measured from 1, whatever lies between them.
    """

    reports: tuple[Findings, ...]

    @classmethod
    def of(cls, report: Findings) -> Profile:
        """The layers of a report, its own the last."""
        return cls((*report.layers, report))

    @property
    def names(self) -> list[str]:
        """What the layers are called."""
        return [report.facts.layer or str(number) for number, report in enumerate(self.reports, start=1)]

    def values(self, key: str) -> list[float]:
        """The values of an entry by depth; NaN where a layer lacks it."""
        return [report.values.get(key, math.nan) for report in self.reports]

    def effective_depth(self, error: float = 0.01, *, split: str = "train") -> int | None:
        """Depth of the first layer whose nearest-centre error is at most `error`; None if there is none.

        Source: Galanti, György & Hutter 2022, epsilon-effective depth.
        """
        return self._first(1 - error, split)

    def tunnel_onset(self, share: float = 0.95, *, split: str = "train") -> int | None:
        """Depth of the first layer whose nearest-centre accuracy is at least `share` of the last layer's.

        Source: Masarczyk et al. 2023, who take the accuracy of linear probes.
        """
        return self._first(share * self.values(_accuracy(split))[-1], split)

    def _first(self, least: float, split: str) -> int | None:
        found = (depth for depth, value in enumerate(self.values(_accuracy(split)), start=1) if value >= least)
        return next(found, None)


def _accuracy(split: str) -> str:
    return "ncc_accuracy" if split == "train" else f"{split}/ncc_accuracy"


def depth_sentences(report: Findings) -> list[str]:
    """What the course over the layers says, in sentences; none for a report of one layer."""
    profile = Profile.of(report)
    if not report.layers or all(math.isnan(value) for value in profile.values(_accuracy("train"))):
        return []
    names, error, share = profile.names, 0.01, 0.95
    depth, onset = profile.effective_depth(error), profile.tunnel_onset(share)
    found = []
    if depth is None:
        found.append(f"No layer has a nearest-centre error of {error} or less.")
    else:
        where = f"{names[depth - 1]} is the first layer with a nearest-centre error of {error} or less"
        found.append(f"Effective depth {depth} of {len(names)}: {where}.")
    if onset is not None:
        found.append(
            f"The tunnel begins at {names[onset - 1]} ({onset} of {len(names)}), whose nearest-centre accuracy is at "
            f"least {share:.0%} of the last layer's."
        )
    return found
