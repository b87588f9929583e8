"""Scores of held-out and out-of-distribution features, batch by batch, and the resulting table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor
from tightframe.errors import ChoiceError, EmptyBatchError, RangeError, ScatterError
from tightframe.evidence import Evidence
from tightframe.ood.curve import NUMBERS, ComponentCurve, component_curve, component_values, judge
from tightframe.ood.detector import Detector
from tightframe.ood.neco import Neco
from tightframe.ood.table import DETECTORS, Fitting
from tightframe.plain import plain

CURVE = "component_curve"
"""Name of the scores for all numbers of components, (n, P) per batch."""


@dataclass(frozen=True)
class DetectionRow:
    """The result of one detector: name, label and source from `DETECTORS`, settings, and values as in `Detection`."""

    name: str
    label: str
    settings: dict[str, Any]
    convention: str
    source: str
    auroc: float
    auroc_error: float
    fpr95: float
    fpr95_error: float


@dataclass(frozen=True)
class DetectionTable:
    """Results of detectors on one pair of data sets.

    Attributes:
        rows: one per detector.
        curve: NECO as a function of its number of components, or None.
        inside, outside: numbers of in-distribution and out-of-distribution samples.
        notes: remarks for the reader.
    """

    rows: tuple[DetectionRow, ...]
    curve: ComponentCurve | None
    inside: int
    outside: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> DetectionRow:
        """The row of a detector. Raises: KeyError for an unknown name."""
        return {row.name: row for row in self.rows}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with NaN as "nan"."""
        rows = [plain(asdict(row)) for row in self.rows]
        curve = None if self.curve is None else self.curve.to_dict()
        return {
            "rows": rows,
            "curve": curve,
            "inside": self.inside,
            "outside": self.outside,
            "notes": list(self.notes),
        }


class DetectorScores:
    """Score batches of features with several detectors, without storing the features.

    Memory: N numbers per detector, and N x P for the curve.

    Args:
        evidence: final statistics of the training features and, for detectors that read logits, the classifier.
        names: names in `DETECTORS`. Default: all that the evidence allows and that can be fitted; some can't if the
            features do not vary within classes, or if no logit is positive.
        curve: name of the NECO row whose number of components is varied; None for no curve. No curve if that row is
            not among the detectors.
        components: numbers of components of the curve. Default: `component_values`. The row's number is added.

    Attributes:
        detectors: by name.
        inside, outside: scores per batch, (n,) or (n, P), float64, for each name and for `CURVE`. To merge processes,
            concatenate these lists.

    Raises: ChoiceError for unknown names; ScatterError, ClassifierError or EvidenceError if the evidence lacks data
    that a named detector needs; RangeError for components outside [1, D].

    >>> import torch
    >>> from tightframe.metrics import Evidence
    >>> from tightframe.ood import DetectorScores
    >>> features, labels = torch.randn(60, 5).double(), torch.arange(60) % 3
    >>> from tightframe import ClassStatistics
    >>> evidence = Evidence(ClassStatistics.from_features(features, labels, 3))
    >>> scores = DetectorScores(evidence, ["neco", "mahalanobis"])
    >>> scores.add_inside(torch.randn(40, 5))
    >>> scores.add_outside(5 * torch.randn(40, 5))
    >>> [row.name for row in scores.table().rows]
    ['neco', 'mahalanobis']
    """

    def __init__(
        self,
        evidence: Evidence,
        names: Sequence[str] | None = None,
        *,
        curve: str | None = "neco",
        components: Sequence[int] | None = None,
    ):
        offered = [name for name, row in DETECTORS.items() if row.available(evidence)]
        for name in (*(names or ()), *([] if curve is None else [curve])):
            if name not in DETECTORS:
                raise ChoiceError(f"unknown detector {name!r}; choose from {', '.join(DETECTORS)}.")
        training = Fitting(evidence)
        self.detectors: dict[str, Detector] = {}
        self._notes: list[str] = []
        for name in offered if names is None else names:
            try:
                self.detectors[name] = DETECTORS[name](training)
            except (ScatterError, RangeError) as error:
                if names is not None:
                    raise
                self._notes.append(f"{DETECTORS[name].label} is left out: {error}")
        varied = self.detectors.get(curve) if curve is not None else None
        if varied is not None and not isinstance(varied, Neco):
            raise ChoiceError(f"curve must name a NECO detector, which has components; got {curve!r}.")
        self._varied: Neco | None = varied
        self.components: list[int] = []
        if varied is not None:
            statistics = training.statistics
            defaults = component_values(statistics.num_features, varied.spectrum.num_classes)
            self.components = sorted({varied.components, *(defaults if components is None else components)})
            varied.curve(statistics.means.new_empty(0, statistics.num_features), self.components)  # checks components
        scored = [*self.detectors, *([CURVE] if varied is not None else [])]
        self.inside: dict[str, list[Tensor]] = {name: [] for name in scored}
        self.outside: dict[str, list[Tensor]] = {name: [] for name in scored}

    def add_inside(self, features: Array) -> None:
        """Score held-out in-distribution features (N, D). Raises: DtypeError, ShapeError or NonFiniteError."""
        self._add(features, self.inside)

    def add_outside(self, features: Array) -> None:
        """Score out-of-distribution features (N, D). Raises: DtypeError, ShapeError or NonFiniteError."""
        self._add(features, self.outside)

    def table(self) -> DetectionTable:
        """The results so far. Raises: EmptyBatchError without samples of both kinds; MissingExtraError."""
        inside, outside = _joined(self.inside, "held-out in-distribution"), _joined(self.outside, "out-of-distribution")
        rows, notes = [], list(self._notes)
        for name, detector in self.detectors.items():
            row = DETECTORS[name]
            detection = judge(inside[name], outside[name])
            numbers = {key: getattr(detection, key) for key in NUMBERS}
            rows.append(DetectionRow(name, row.label, detector.settings, row.convention, row.source, **numbers))
            missing = sum(int((~scores[name].isfinite()).sum()) for scores in (inside, outside))
            if missing:
                notes.append(f"{row.label}: {missing} samples have no score, because they have no direction.")
        curve = None
        if self._varied is not None:
            curve = component_curve(inside[CURVE], outside[CURVE], self.components, self._varied.components)
        num_inside, num_outside = (len(next(iter(scores.values()), ())) for scores in (inside, outside))
        return DetectionTable(tuple(rows), curve, num_inside, num_outside, tuple(notes))

    def _add(self, features: Array, scores: dict[str, list[Tensor]]) -> None:
        features = as_tensor(features, "features")
        fresh = {name: detector.scores(features) for name, detector in self.detectors.items()}
        if self._varied is not None:
            fresh[CURVE] = self._varied.curve(features, self.components)
        for name, each in fresh.items():  # all or none if a detector raises
            scores[name].append(each)


def _joined(scores: Mapping[str, Sequence[Tensor]], kind: str) -> dict[str, Tensor]:
    if not all(parts and sum(map(len, parts)) for parts in scores.values()):
        raise EmptyBatchError(f"a detector is evaluated on both kinds of samples; no {kind} samples were added.")
    return {name: torch.cat(list(parts)).cpu() for name, parts in scores.items()}
