"""Detectors based on a feature's part outside the principal subspace of the training features: Residual and ViM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_positive
from tightframe.errors import RangeError, ScatterError
from tightframe.numerics import EPS, norms
from tightframe.ood.detector import in_blocks
from tightframe.ood.logits import Energy, Logits, MaxLogit
from tightframe.ood.spectrum import eigenvectors, require_components, require_scatter, rounding
from tightframe.statistics import ClassStatistics

_DIMENSIONS = ((2048, 1000), (768, 512))  # from this many dimensions, that many components; otherwise half


def principal_dimension(rank: int) -> int:
    """Number of components of the released ViM for a number of dimensions: 1000 from 2048, 512 from 768, else half.

    >>> from tightframe.ood.residual import principal_dimension
    >>> [principal_dimension(rank) for rank in (4096, 1024, 64, 1)]
    [1000, 512, 32, 1]

    Source: Wang et al. 2022, released benchmark.
    """
    return next((components for least, components in _DIMENSIONS if rank >= least), max(1, rank // 2))


def origin(logits: Logits) -> Tensor:
    """(D,), the shortest vector u that minimises |W u + b|: the classifier's logits vanish there if K <= D.

    Singular values of W within the rounding of its entries are ignored, so that rows with a common sum of zero (a
    simplex) do not send u to infinity.
    Source: Wang et al. 2022, u = -W^+ b, above eq. 1.
    """
    weight = logits.weight
    single = bool((weight.to(torch.float32).to(weight) == weight).all())
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    # rounding moves a singular value by at most the Frobenius norm of the errors
    limit = (torch.finfo(torch.float32).eps if single else EPS) * torch.linalg.vector_norm(weight)
    inverse = torch.where(values > limit, 1 / values, 0.0)
    return -(right.mT @ (inverse * (left.mT @ logits.bias)))


@dataclass(frozen=True, eq=False)
class Residual:
    """Minus the length of the feature's part outside the principal subspace, -|(I - P P^T)(x - u)|.

    P are the first p principal directions of the training features about u, the classifier's origin (`origin`): the
    eigenvectors of S_T + (mean - u)(mean - u)^T. The default p follows the released ViM (`principal_dimension`), on the
    rank of this matrix instead of D: dead units and few samples then leave directions for the residual. At full rank
    both are equal.

    Attributes:
        origin: (D,), u.
        directions: (D, p), orthonormal columns.
        rank: number of directions in which training features vary about u.
        mean_square: mean of the squared residuals of the training samples.

    Range of scores: (-inf, 0], in feature units.
    Invariant to rotation, and to a common scale of features and classifier up to that scale.
    Source: Wang et al. 2022, eq. 3 (Residual).

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Residual
    >>> rows = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 2.0, 0.1], [0.0, -2.0, -0.1]]).double()
    >>> statistics = ClassStatistics.from_features(rows, torch.tensor([0, 1, 0, 1]), 2)
    >>> Residual.fit(statistics, torch.eye(2, 3), components=2).scores(torch.tensor([[9.0, 0.0, 0.0]]))
    tensor([-0.], dtype=torch.float64)
    """

    origin: Tensor
    directions: Tensor
    rank: int
    mean_square: Tensor

    @classmethod
    def fit(
        cls,
        statistics: ClassStatistics,
        weight: Array | None,
        bias: Array | None = None,
        *,
        components: int | None = None,
    ) -> Self:
        """Fit to the statistics of the training features and to the classifier's weight (K, D) and bias (K,) or None.

        Raises: ScatterError without the scatter; ClassifierError without a fitting classifier; RangeError for
        components outside [1, D]; EmptyClassError if fewer than two classes have samples.
        """
        return cls.on(statistics, Logits.of(weight, bias), components)

    @classmethod
    def on(cls, statistics: ClassStatistics, logits: Logits, components: int | None = None) -> Self:
        """Fit to a classifier that several detectors share. Raises: as `fit`."""
        statistics = require_scatter(statistics, "the residual (Residual, ViM)")
        D = statistics.num_features
        logits.require_features(D)
        if components is not None:
            require_components([components], D)
        start = origin(logits).to(statistics.means)
        offset = statistics.global_mean("sample") - start
        moment = statistics.total_covariance("sample") + offset.outer(offset)
        values, directions = eigenvectors(moment, rounding(statistics, statistics.within_covariance()))
        if len(values) == 0:
            raise ScatterError("the residual is undefined: all training features are equal to the classifier's origin.")
        p = min(principal_dimension(len(values)) if components is None else components, len(values))
        return cls(start, directions[:, :p].contiguous(), len(values), values[p:].sum())

    @property
    def settings(self) -> dict[str, Any]:
        return {"components": self.directions.shape[1], "rank": self.rank}

    def residuals(self, features: Array) -> Tensor:
        """Lengths of the features' parts outside the principal subspace, (N, D) -> (N,)."""

        def score(rows: Tensor) -> Tensor:
            z = rows - self.origin
            return norms(z - (z @ self.directions) @ self.directions.mT)

        return in_blocks(score, features, self.origin, len(self.origin))

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""
        return -self.residuals(features)


@dataclass(frozen=True, eq=False)
class Vim:
    """The energy minus the scaled residual, log sum_k exp(logit_k) - scale |(I - P P^T)(x - u)|.

    The residual, a virtual logit, is scaled to the size of the largest logits of training samples. The released scale
    is the mean of the largest logits over the mean of the residuals, from stored training features; `matched` computes
    it from features. `fit` has only moments: it takes the largest logits of the class means (weighted by their counts)
    over the root mean square of the residuals. The mean of largest logits is not below the first and the mean residual
    not above the second, so this scale is at most the released one; both are equal for collapsed features of equal
    residual.

    Attributes:
        residual: the residual, with its subspace.
        logits: the classifier.
        scale: 0-d, factor of the residual, in logits per feature unit.

    Shape: features (N, D); scores (N,), float64. Range of scores: (-inf, inf), in logits.
    Invariant to rotation and to a common scale of features (the classifier divided by it).
    Source: Wang et al. 2022, eq. 8, with the scale of eq. 6.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.ood import Vim
    >>> rows = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [3.0, 0.0, 0.5], [-3.0, 0.0, -0.5]]).double()
    >>> statistics = ClassStatistics.from_features(rows, torch.tensor([0, 1, 0, 1]), 2)
    >>> detector = Vim.fit(statistics, torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), components=1)
    >>> inside, outside = detector.scores(torch.tensor([[3.0, 0.0, 0.5], [3.0, 9.0, 0.0]])).tolist()
    >>> inside > outside
    True
    """

    residual: Residual
    logits: Logits
    scale: Tensor

    @classmethod
    def fit(
        cls,
        statistics: ClassStatistics,
        weight: Array | None,
        bias: Array | None = None,
        *,
        components: int | None = None,
        scale: float | None = None,
    ) -> Self:
        """Fit to the statistics of the training features and to the classifier; `scale` replaces the computed scale.

        Raises: as `Residual.fit`; ScatterError if training features have no residual, and RangeError if the largest
        logits of the class means are not positive on average: the scale is undefined then.
        """
        logits = Logits.of(weight, bias)
        return cls.on(statistics, Residual.on(statistics, logits, components), logits, scale)

    @classmethod
    def on(cls, statistics: ClassStatistics, residual: Residual, logits: Logits, scale: float | None = None) -> Self:
        """Fit to a residual that several detectors share. Raises: as `fit`."""
        if scale is not None:
            require_positive(scale, "ViM's scale")
            return cls(residual, logits, residual.mean_square.new_tensor(scale))
        statistics = statistics.detach().populated()
        largest = logits(statistics.means.to(logits.weight)).amax(1)
        mean = statistics.class_weights("sample").to(largest) @ largest
        return cls(residual, logits, _scale(mean.to(residual.mean_square), residual.mean_square.sqrt()))

    def matched(self, features: Array) -> Self:
        """The detector with the released scale, from training features (N, D).

        Raises: as `fit`, about these features; DtypeError, ShapeError or NonFiniteError.
        """
        features = as_tensor(features, "features")
        largest = MaxLogit(self.logits).scores(features).mean()
        return replace(self, scale=_scale(largest.to(self.scale), self.residual.residuals(features).mean()))

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.residual.settings, "scale": float(self.scale)}

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""
        energy = Energy(self.logits).scores(features)
        return energy - (self.scale * self.residual.residuals(features)).to(energy)


def _scale(largest: Tensor, residual: Tensor) -> Tensor:
    if not bool(residual > 0):
        raise ScatterError(
            "ViM's scale is undefined: training features do not leave the principal subspace. Pass fewer components."
        )
    if not bool(largest > 0):
        raise RangeError(
            f"ViM's scale is undefined: the largest logits must be positive on average; their mean is {largest:.4g}."
        )
    return largest / residual
