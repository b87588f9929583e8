"""`DETECTORS`: all detectors by name, with fixed settings, fitted to the evidence of a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from tightframe.errors import EvidenceError
from tightframe.evidence import Evidence
from tightframe.ood.detector import Detector
from tightframe.ood.distances import Mahalanobis, NearestCentre, RelativeMahalanobis
from tightframe.ood.logits import Energy, GeneralizedEntropy, Logits, MaxLogit, MaxSoftmax
from tightframe.ood.nci import Nci
from tightframe.ood.neco import Neco
from tightframe.ood.residual import Residual, Vim
from tightframe.ood.spectrum import Spectrum
from tightframe.statistics import ClassStatistics


@dataclass(eq=False)
class Fitting:
    """The evidence that detectors are fitted to; shared decompositions are computed once.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.metrics import Evidence
    >>> from tightframe.ood import Fitting
    >>> features = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    >>> fitting = Fitting(Evidence(ClassStatistics.from_features(features, torch.arange(4) // 2, 2)))
    >>> fitting.spectrum(scaled=False).directions.abs().round().tolist()  # the first axis varies most
    [[1.0, 0.0], [0.0, 1.0]]
    """

    evidence: Evidence
    _spectra: dict[bool, Spectrum] = field(default_factory=dict)

    @property
    def statistics(self) -> ClassStatistics:
        """The moments of the training features. Raises: EvidenceError without statistics."""
        if self.evidence.statistics is None:
            raise EvidenceError("detectors need class statistics; the evidence has none.")
        return self.evidence.statistics

    def spectrum(self, scaled: bool) -> Spectrum:
        """The principal directions. Raises: ScatterError without the scatter."""
        if scaled not in self._spectra:
            self._spectra[scaled] = Spectrum.of(self.statistics, scaled=scaled)
        return self._spectra[scaled]

    def logits(self) -> Logits:
        """The classifier. Raises: ClassifierError without one."""
        return Logits.of(self.evidence.weight, self.evidence.bias)

    @cached_property
    def mahalanobis(self) -> Mahalanobis:
        """The Mahalanobis detector. Raises: ScatterError without the scatter."""
        return Mahalanobis.fit(self.statistics)

    @cached_property
    def residual(self) -> Residual:
        """The residual detector. Raises: ScatterError without the scatter; ClassifierError without a classifier."""
        return Residual.on(self.statistics, self.logits())


@dataclass(frozen=True)
class DetectorRow:
    """A detector with explicit settings.

    Attributes:
        label: short name for tables.
        convention: the difference from its variants, in a few words.
        source: the paper.
        make: function that fits it.
        requires: names of fields of `Evidence`, and "scatter" or "class scatter" of its statistics.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.metrics import Evidence
    >>> from tightframe.ood import DETECTORS
    >>> evidence = Evidence(ClassStatistics.from_features(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), 2))
    >>> row = DETECTORS["nearest_centre"]
    >>> row.available(evidence), row(evidence).scores(torch.tensor([[1.0]])).tolist()
    (True, [-1.0])
    """

    label: str
    convention: str
    source: str
    make: Callable[[Fitting], Detector]
    requires: tuple[str, ...]

    def available(self, evidence: Evidence) -> bool:
        """Whether the evidence has all required data."""
        statistics = evidence.statistics
        scatters = {
            "scatter": None if statistics is None else statistics.within,
            "class scatter": None if statistics is None else statistics.class_within,
        }
        return all(scatters.get(need, getattr(evidence, need, None)) is not None for need in self.requires)

    def __call__(self, training: Fitting | Evidence) -> Detector:
        """The detector fitted to the evidence, with the default number of components.

        Raises: EvidenceError, ScatterError or ClassifierError if the evidence lacks required data.
        """
        return self.make(training if isinstance(training, Fitting) else Fitting(training))


def _max_softmax(training: Fitting) -> Detector:
    return MaxSoftmax(training.logits())


def _max_logit(training: Fitting) -> Detector:
    return MaxLogit(training.logits())


def _energy(training: Fitting) -> Detector:
    return Energy(training.logits())


def _generalized_entropy(training: Fitting) -> Detector:
    return GeneralizedEntropy(training.logits())


def _nearest_centre(training: Fitting) -> Detector:
    return NearestCentre.fit(training.statistics)


def _mahalanobis(training: Fitting) -> Detector:
    return training.mahalanobis


def _relative_mahalanobis(training: Fitting) -> Detector:
    return RelativeMahalanobis.on(training.mahalanobis, training.statistics)


def _residual(training: Fitting) -> Detector:
    return training.residual


def _vim(training: Fitting) -> Detector:
    return Vim.on(training.statistics, training.residual, training.logits())


def _nci(training: Fitting) -> Detector:
    return Nci.on(training.statistics, training.logits())


def _neco(training: Fitting) -> Detector:
    return Neco.on(training.spectrum(scaled=True))


def _neco_max_logit(training: Fitting) -> Detector:
    return Neco.on(training.spectrum(scaled=True), logits=training.logits())


def _neco_centred(training: Fitting) -> Detector:
    return Neco.on(training.spectrum(scaled=False))


def _neco_raw(training: Fitting) -> Detector:
    return Neco.on(training.spectrum(scaled=False), centred=False)


_BEN_AMMAR = "Ben Ammar et al. 2024"

DETECTORS: dict[str, DetectorRow] = {
    "max_softmax": DetectorRow(
        "MSP",
        "log of the probability",
        "Hendrycks & Gimpel 2017",
        _max_softmax,
        ("weight",),
    ),
    "max_logit": DetectorRow("MaxLogit", "with bias", "Hendrycks et al. 2022", _max_logit, ("weight",)),
    "energy": DetectorRow("Energy", "temperature 1", "Liu et al. 2020", _energy, ("weight",)),
    "gen": DetectorRow(
        "GEN",
        "gamma 0.1, 100 largest probabilities",
        "Liu et al. 2023",
        _generalized_entropy,
        ("weight",),
    ),
    "nearest_centre": DetectorRow(
        "nearest class mean",
        "Euclidean",
        "Lee et al. 2018, S_W = I",
        _nearest_centre,
        ("statistics",),
    ),
    "mahalanobis": DetectorRow(
        "Mahalanobis",
        "pooled S_W at its rank, one layer",
        "Lee et al. 2018",
        _mahalanobis,
        ("scatter",),
    ),
    "relative_mahalanobis": DetectorRow(
        "relative Mahalanobis",
        "S_W and S_T at the rank of S_W",
        "Ren et al. 2021",
        _relative_mahalanobis,
        ("scatter",),
    ),
    "residual": DetectorRow(
        "Residual",
        "about the classifier's origin, p = half the rank",
        "Wang et al. 2022",
        _residual,
        ("scatter", "weight"),
    ),
    "vim": DetectorRow(
        "ViM",
        "scale from moments, p = half the rank",
        "Wang et al. 2022",
        _vim,
        ("scatter", "weight"),
    ),
    "nci": DetectorRow(
        "NCI",
        "alpha = 1e-4",
        "Liu & Qin 2025",
        _nci,
        ("statistics", "weight"),
    ),
    "neco": DetectorRow(
        "NECO",
        "centred, scaled, p = K − 1",
        f"{_BEN_AMMAR} (code, ResNet)",
        _neco,
        ("scatter",),
    ),
    "neco_max_logit": DetectorRow(
        "NECO × MaxLogit",
        "centred, scaled, p = K − 1",
        f"{_BEN_AMMAR} (code, others)",
        _neco_max_logit,
        ("scatter", "weight"),
    ),
    "neco_centred": DetectorRow(
        "NECO, not scaled",
        "centred, not scaled, p = K − 1",
        f"{_BEN_AMMAR}, its advice for NC1",
        _neco_centred,
        ("scatter",),
    ),
    "neco_raw": DetectorRow(
        "NECO, raw features",
        "not centred, not scaled, p = K − 1",
        f"{_BEN_AMMAR} (formula)",
        _neco_raw,
        ("scatter",),
    ),
}
"""All detectors by name; higher scores always mean more in-distribution."""
