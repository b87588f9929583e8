"""NECO: share of a feature's length in the principal subspace of the training features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tightframe.checks import Array
from tightframe.ood.detector import in_blocks
from tightframe.ood.logits import Logits
from tightframe.ood.spectrum import Spectrum, require_components
from tightframe.statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class Neco:
    """|P^T z| / |z|, the share of a feature's length in the first p principal directions of the training features.

    z is the feature, minus the mean of all training samples if `centred`, with each entry divided by its standard
    deviation if `scaled`. P are the principal directions of all training samples, with the same scaling, always about
    their mean. With `max_logit` the share is multiplied by the largest logit, which may be negative.

    These options and p matter: together they change the AUROC by 10 points and more. The paper writes |P h| / |h| with
    P from a PCA. The released function standardises (centred and scaled), uses p = 100 by default, and multiplies by
    the largest logit except for ResNets; for DeiT and Swin it divides by the length of the feature that is neither
    centred nor scaled, which is not supported here.

    p is a hyper-parameter, tuned in the paper for each data set and network. The default is K - 1 (at most D) for K
    classes with samples: the dimension of collapsed class means (NC2), the only value from theory. A larger p is often
    better if features have not collapsed; select it on other samples than those of the reported result.

    Directions beyond the rank of the covariance, in which no training sample varies, are not in P, so a p above the
    rank has no effect. A constant training feature (a dead unit) is not divided, as in scikit-learn, and enters z in
    its own unit if it is active in other samples.

    Attributes:
        spectrum: mean, standard deviations and principal directions.
        components: p.
        centred: whether the mean is subtracted from z.
        logits: the classifier; None without the factor.

    Range of scores: [0, 1] without the factor; NaN for z = 0.
    Invariant to a common scale of all features; if not scaled, also to rotation; if scaled, to the scale of each.
    Shape: features (N, D); scores (N,), float64.
    Source: Ben Ammar et al. 2024, eq. 6, and released function `neco`.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Neco
    >>> features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.1], [-3.0, -0.1]]).double()
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 1, 0, 1]), 2)
    >>> detector = Neco.fit(statistics, 1, scaled=False)
    >>> detector.scores(torch.tensor([[5.0, 0.0], [0.0, 5.0]])).round(decimals=2)
    tensor([1.0000, 0.0300], dtype=torch.float64)
    """

    spectrum: Spectrum
    components: int
    centred: bool
    logits: Logits | None

    @classmethod
    def fit(
        cls,
        statistics: ClassStatistics,
        components: int | None = None,
        *,
        centred: bool = True,
        scaled: bool = True,
        max_logit: bool = False,
        weight: Array | None = None,
        bias: Array | None = None,
    ) -> Self:
        """Fit to the statistics of the training features and, for `max_logit`, to the classifier.

        Args:
            components: p. Default: K - 1, at most D.
            weight, bias: (K, D) and (K,) of the classifier, for `max_logit`.

        Raises: ScatterError without the scatter; RangeError for components outside [1, D]; ClassifierError for
        `max_logit` without a fitting classifier; EmptyClassError if fewer than two classes have samples.
        """
        return cls.on(
            Spectrum.of(statistics, scaled=scaled),
            components,
            centred=centred,
            logits=Logits.of(weight, bias) if max_logit else None,
        )

    @classmethod
    def on(
        cls, spectrum: Spectrum, components: int | None = None, *, centred: bool = True, logits: Logits | None = None
    ) -> Self:
        """Fit to a computed spectrum, which several detectors can share. Raises: as `fit`."""
        D = len(spectrum.mean)
        components = min(spectrum.num_classes - 1, D) if components is None else components
        require_components([components], D)
        if logits is not None:
            logits.require_features(D)
        return cls(spectrum, components, centred, logits)

    @property
    def settings(self) -> dict[str, Any]:
        """As in `Detector`."""
        return {
            "components": self.components,
            "centred": self.centred,
            "scaled": self.spectrum.scaled,
            "max_logit": self.logits is not None,
            "rank": self.rank,
        }

    @property
    def rank(self) -> int:
        """Number of directions in which training features vary."""
        return self.spectrum.directions.shape[1]

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""
        return self.curve(features, [self.components])[:, 0]

    def curve(self, features: Array, components: Sequence[int]) -> Tensor:
        """Scores for P numbers of components, (N, D) -> (N, P), from one projection.

        Raises: RangeError for components outside [1, D].
        """
        D = len(self.spectrum.mean)
        require_components(components, D)
        last = torch.tensor([min(p, self.rank) - 1 for p in components], device=self.spectrum.mean.device)
        directions = self.spectrum.directions[:, : max(components)]
        whole = torch.tensor([p == D == self.rank for p in components], device=self.spectrum.mean.device)

        def score(rows: Tensor) -> Tensor:
            z = (rows - self.spectrum.mean if self.centred else rows) / self.spectrum.scale
            energy = z.square().sum(1, keepdim=True)
            captured = (z @ directions).square().cumsum(1)[:, last]
            captured = torch.where(whole, energy, captured)  # a share of exactly 1: rounding must not rank samples
            shares = (captured / energy).clamp(max=1).sqrt()
            return shares if self.logits is None else shares * self.logits(rows).amax(1, keepdim=True)

        width = directions.shape[1] if self.logits is None else max(directions.shape[1], len(self.logits.weight))
        return in_blocks(score, features, self.spectrum.mean, width)
