"""`Profile`: the layers of a measurement in order of depth, and conclusions from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightframe.metrics import EquiSeparation, equi_separation
from tightframe.report.findings import Findings
from tightframe.sections import signed

SEPARATION = "he-su-2023/separation"
"""The convention that the law of equi-separation is about; where layers lack it, NC1 is used."""


@dataclass(frozen=True)
class Profile:
    """The reports of all layers of a measurement, from the input to the classifier.

    Depth counts measured layers only, from 1.

    >>> from tightframe.report import Entry, Facts, Profile, Report
    >>> def layer(name: str, accuracy: float) -> Report:
    ...     entry = Entry("ncc_accuracy", "train", "", "NC4", accuracy, 1.0, None, None, None, "", "", True)
    ...     return Report((entry,), Facts(layer=name))
    >>> profile = Profile((layer("conv1", 0.5), layer("conv2", 0.96), layer("conv3", 1.0)))
    >>> profile.names, profile.effective_depth(error=0.01), profile.tunnel_onset(share=0.95)
    (['conv1', 'conv2', 'conv3'], 3, 2)
    """

    reports: tuple[Findings, ...]

    @classmethod
    def of(cls, report: Findings) -> Profile:
        """The profile of a report; the report's own layer is last."""
        return cls((*report.layers, report))

    @property
    def names(self) -> list[str]:
        """The names of the layers, or their depth if unnamed."""
        return [report.facts.layer or str(number) for number, report in enumerate(self.reports, start=1)]

    def values(self, key: str) -> list[float]:
        """The values of an entry by depth; NaN if a layer lacks it."""
        return [report.values.get(key, math.nan) for report in self.reports]

    def effective_depth(self, error: float = 0.01, *, split: str = "train") -> int | None:
        """Depth, from 1, of the first layer whose nearest-centre error is at most `error`; None if there is none.

        Source: Galanti, György & Hutter 2022, epsilon-effective depth.
        """
        return self._first(1 - error, split)

    def tunnel_onset(self, share: float = 0.95, *, split: str = "train") -> int | None:
        """Depth, from 1, of the first layer whose nearest-centre accuracy is at least `share` of the last layer's.

        Source: Masarczyk et al. 2023; they use the accuracy of linear probes.
        """
        return self._first(share * self.values(_accuracy(split))[-1], split)

    def separation(self) -> EquiSeparation:
        """The law of equi-separation over the layers: of `SEPARATION` if all layers have it, else of NC1.

        NC1 weights classes equally; for classes of equal size the two have the same rate and correlation.
        Source: He & Su 2023.
        """
        values = self.values(SEPARATION)
        return equi_separation(self.values("nc1") if any(map(math.isnan, values)) else values)

    def parting(self) -> int | None:
        """Depth, from 1, from which nearest-centre accuracy is lower on held-out than on training samples, by more than
        two standard errors of the difference, in every layer; None if it is not in the last."""
        depth = None
        for place, report in reversed(list(enumerate(self.reports, start=1))):
            train, test = report.get("ncc_accuracy"), report.get("test/ncc_accuracy")
            if train is None or test is None or train.standard_error is None or test.standard_error is None:
                break
            if not train.value - test.value > 2 * math.hypot(train.standard_error, test.standard_error):
                break
            depth = place
        return depth

    def _first(self, least: float, split: str) -> int | None:
        depths = (depth for depth, value in enumerate(self.values(_accuracy(split)), start=1) if value >= least)
        return next(depths, None)


def _accuracy(split: str) -> str:
    return "ncc_accuracy" if split == "train" else f"{split}/ncc_accuracy"


def depth_sentences(report: Findings) -> list[str]:
    """Sentences on the effective depth, the tunnel, equi-separation and held-out samples; empty for one layer."""
    profile = Profile.of(report)
    if not report.layers or all(math.isnan(value) for value in profile.values(_accuracy("train"))):
        return []
    names, error, share = profile.names, 0.01, 0.95
    depth, onset = profile.effective_depth(error), profile.tunnel_onset(share)
    sentences = []
    if depth is None:
        sentences.append(f"No layer has a nearest-centre error of {error} or less.")
    else:
        where = f"{names[depth - 1]} is the first layer with a nearest-centre error of {error} or less"
        sentences.append(f"Effective depth {depth} of {len(names)}: {where}.")
    if onset is not None:
        sentences.append(
            f"The tunnel begins at {names[onset - 1]} ({onset} of {len(names)}): its nearest-centre accuracy is at "
            f"least {share:.0%} of the last layer's."
        )
    law = profile.separation()
    if law.worst is not None and not math.isnan(law.correlation):
        sentences.append(
            f"Equi-separation: NC1 changes by a factor of {law.rate:.2g} per layer; its logarithm has the correlation "
            f"{signed(f'{law.correlation:.2f}')} with depth, and {names[law.worst]} lies farthest from the line."
        )
    parting = profile.parting()
    if parting is not None:
        report_there = profile.reports[parting - 1]
        train, test = report_there.value("ncc_accuracy"), report_there.value("test/ncc_accuracy")
        sentences.append(
            f"Training and held-out samples part ways at {names[parting - 1]} ({parting} of {len(names)}): from there "
            f"on, nearest-centre accuracy is higher in training ({train:.3f}) than on held-out samples ({test:.3f})."
        )
    return sentences
