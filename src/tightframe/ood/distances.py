"""Detectors based on the distance to the nearest class mean: Euclidean, Mahalanobis and relative Mahalanobis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from tightframe.checks import Array
from tightframe.decisions import DecisionCounts
from tightframe.errors import ScatterError
from tightframe.numerics import condensed, norms
from tightframe.ood.detector import in_blocks
from tightframe.ood.spectrum import eigenvectors, require_scatter, rounding
from tightframe.statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class NearestCentre:
    """Minus the Euclidean distance to the nearest class mean, -min_k |x - mean_k|, over classes with samples.

    The nearest mean is decided as in exact arithmetic (`DecisionCounts`), and its distance is computed from the
    difference, without cancellation for features far from the origin or very near to their mean.

    Range of scores: (-inf, 0], in feature units. Invariant to rotation and translation.
    Shape: features (N, D); scores (N,), float64.
    Source: the Euclidean case of Lee et al. 2018.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import NearestCentre
    >>> statistics = ClassStatistics.from_features(torch.tensor([[0.0, 1.0], [4.0, 0.0]]), torch.tensor([0, 1]), 2)
    >>> NearestCentre.fit(statistics).scores(torch.tensor([[0.0, 3.0]]))
    tensor([-2.], dtype=torch.float64)
    """

    means: Tensor
    rows: Tensor
    decisions: DecisionCounts

    @classmethod
    def fit(cls, statistics: ClassStatistics) -> Self:
        """Fit to class means. Raises: EmptyClassError if fewer than two classes have samples."""
        statistics = statistics.detach().populated()
        assert statistics.class_ids is not None
        rows = torch.full((int(statistics.num_labels or 0),), -1, device=statistics.means.device)
        rows[statistics.class_ids] = torch.arange(statistics.num_classes, device=rows.device)
        return cls(statistics.means, rows, DecisionCounts(statistics))

    @property
    def settings(self) -> dict[str, Any]:
        """As in `Detector`."""
        return {}

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""

        def score(rows: Tensor) -> Tensor:
            _, nearest = self.decisions.decide(rows)
            return -norms(rows - self.means[self.rows[nearest]])

        return in_blocks(score, features, self.means, 1)


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """Minus the squared distance to the nearest class mean in the metric of the pooled within-class covariance.

    -min_k (x - mean_k)^T S_W^+ (x - mean_k) over classes with samples, S_W = within-class scatter / N. The
    pseudo-inverse has the true rank of S_W: directions in which only rounding varies within classes are ignored; `rank`
    is the number of the other directions.

    Range of scores: (-inf, 0], unitless. Invariant to invertible affine maps of the features, at full rank.
    Shape: features (N, D); scores (N,), float64.
    Source: Lee et al. 2018, eqs 1 and 2, on one layer, without their input noise.

    Attributes:
        centre: (D,), subtracted from features.
        whitening: (D, R), map from features to coordinates in which S_W is the identity.
        nearest: detector for the distance in these coordinates.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Mahalanobis
    >>> features = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -2.0], [0.0, 2.0]]).repeat(2, 1)
    >>> features[4:] += torch.tensor([10.0, 0.0])
    >>> statistics = ClassStatistics.from_features(features, torch.arange(8) // 4, 2)  # variances 0.5 and 2
    >>> scores = Mahalanobis.fit(statistics).scores(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> [round(score, 6) for score in scores.tolist()]  # -1/0.5, -4/2
    [-2.0, -2.0]
    """

    centre: Tensor
    whitening: Tensor
    nearest: NearestCentre

    @classmethod
    def fit(cls, statistics: ClassStatistics) -> Self:
        """Fit to means and pooled scatter. Raises: ScatterError if the scatter is missing or zero."""
        statistics = require_scatter(statistics, "the Mahalanobis distance")
        covariance = statistics.within_covariance()
        values, vectors = eigenvectors(covariance, rounding(statistics, covariance))
        if len(values) == 0:
            raise ScatterError("the Mahalanobis distance is undefined: the features do not vary within classes.")
        whitening = vectors / values.sqrt()
        centre = statistics.global_mean()
        means = (statistics.means - centre) @ whitening
        return cls(
            centre, whitening, NearestCentre.fit(replace(statistics, means=means, within=None, class_within=None))
        )

    @property
    def settings(self) -> dict[str, Any]:
        """As in `Detector`."""
        return {"rank": self.rank}

    @property
    def rank(self) -> int:
        """Number of directions in which training features vary within classes."""
        return self.whitening.shape[1]

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""

        def score(rows: Tensor) -> Tensor:
            return -self.nearest.scores((rows - self.centre) @ self.whitening).square()

        return in_blocks(score, features, self.centre, self.rank)


@dataclass(frozen=True, eq=False)
class RelativeMahalanobis:
    """The Mahalanobis distance to the mean of all samples minus that to the nearest class mean, max_k (MD_0 - MD_k).

    MD_k is `Mahalanobis` for class k. MD_0 is the squared distance to the mean of all samples in the metric of their
    covariance S_T. Directions without variation within classes are ignored in both, so that a sample is not rewarded
    for its distance in a direction that MD_k does not see; the released code inverts S_W and S_T separately, which is
    equal at full rank.

    In coordinates in which S_W is the identity, S_T is the identity plus the covariance of the class means. Both
    distances are equal outside the span of these means; only the span (at most K - 1 dimensions) is computed, without
    cancellation.

    Range of scores: (-inf, inf), unitless. Invariant to invertible affine maps of the features, at full rank.
    Source: Ren et al. 2021.

    Attributes:
        centre: (D,), mean of all samples.
        projection: (D, R), map from features to the span of the whitened class means.
        spread: (R,), variances of the class means in these coordinates.
        nearest: detector for the distance in these coordinates.
        rank: number of directions in which training features vary within classes.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import RelativeMahalanobis
    >>> rows = torch.tensor([[3.0, 1.0], [5.0, -1.0], [-3.0, 1.0], [-5.0, -1.0], [4.0, 0.0], [-4.0, 0.0]])
    >>> statistics = ClassStatistics.from_features(rows.double(), torch.tensor([0, 0, 1, 1, 0, 1]), 2)
    >>> RelativeMahalanobis.fit(statistics).scores(torch.tensor([[4.0, 0.0], [0.0, 0.0]])).round(decimals=2)
    tensor([  0.9600, -24.0000], dtype=torch.float64)
    """

    centre: Tensor
    projection: Tensor
    spread: Tensor
    nearest: NearestCentre
    rank: int

    @classmethod
    def fit(cls, statistics: ClassStatistics) -> Self:
        """Fit to means and pooled scatter. Raises: ScatterError if the scatter is missing or zero."""
        return cls.on(Mahalanobis.fit(statistics), statistics)

    @classmethod
    def on(cls, mahalanobis: Mahalanobis, statistics: ClassStatistics) -> Self:
        """Fit to the Mahalanobis detector of the same statistics. Raises: as `fit`."""
        statistics = statistics.detach().populated()
        centre = statistics.global_mean("sample")
        means = statistics.centred_means("sample") @ mahalanobis.whitening
        weights = statistics.class_weights("sample")
        _, values, span = torch.linalg.svd(condensed(weights.sqrt()[:, None] * means), full_matrices=False)
        within = replace(statistics, means=means @ span.mT, within=None, class_within=None)
        return cls(
            centre,
            mahalanobis.whitening @ span.mT,
            values.square(),
            NearestCentre.fit(within),
            mahalanobis.rank,
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {"rank": self.rank}

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""

        def score(rows: Tensor) -> Tensor:
            y = (rows - self.centre) @ self.projection
            return (y.square() / (1 + self.spread)).sum(1) - self.nearest.scores(y).square()

        return in_blocks(score, features, self.centre, len(self.spread))
