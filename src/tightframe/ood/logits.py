"""Baseline detectors on the logits W x + b of a linear classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tightframe import checks
from tightframe.checks import Array, require_positive
from tightframe.errors import ClassifierError, RangeError
from tightframe.numerics import float64_device
from tightframe.ood.detector import in_blocks


@dataclass(frozen=True, eq=False)
class Logits:
    """A linear classifier in float64: weight (K, D) and bias (K,).

    Raises: ClassifierError, DtypeError or NonFiniteError for an invalid classifier.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, weight: Array | None, bias: Array | None = None) -> Self:
        """The logits for tensors of any float dtype; a bias of None is zero.

        Raises: ClassifierError without a weight.
        """
        if weight is None:
            raise ClassifierError("the detector needs logits; pass the classifier's weight (K, D) and bias (K,).")
        weight = checks.as_tensor(weight, "the classifier's weight")
        bias = None if bias is None else checks.as_tensor(bias, "the classifier's bias")
        if weight.ndim != 2:
            raise ClassifierError(f"the classifier's weight must have shape (K, D); got {tuple(weight.shape)}.")
        checks.require_classifier(weight, bias, *weight.shape)
        rows = weight.detach().to(float64_device(weight.device), torch.float64)
        return cls(rows, rows.new_zeros(len(rows)) if bias is None else bias.detach().to(rows))

    def require_features(self, num_features: int) -> None:
        """Raise ClassifierError unless it reads features of this dimension, those of the statistics."""
        if self.weight.shape[1] != num_features:
            raise ClassifierError(
                f"the classifier's weight must be (K, {num_features}) to fit the statistics; "
                f"got {tuple(self.weight.shape)}."
            )

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits (N, K) of float64 rows (N, D)."""
        return torch.addmm(self.bias, rows, self.weight.mT)


@dataclass(frozen=True, eq=False)
class OfLogits(ABC):
    """A detector that reads only a classifier's logits."""

    logits: Logits

    @classmethod
    def fit(cls, weight: Array | None, bias: Array | None = None) -> Self:
        """The detector for a classifier's weight (K, D) and bias (K,) or None. Raises: ClassifierError."""
        return cls(Logits.of(weight, bias))

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """As in `Detector`."""

    @abstractmethod
    def score(self, logits: Tensor) -> Tensor:
        """Logits (N, K), which may be overwritten -> scores (N,)."""

    def scores(self, features: Array) -> Tensor:
        """(N, D) -> (N,)."""
        weight = self.logits.weight
        return in_blocks(lambda rows: self.score(self.logits(rows)), features, weight, len(weight))


class MaxSoftmax(OfLogits):
    """The logarithm of the largest softmax probability, with the same ranking of samples.

    The probability itself is rounded to 1, also in float64, if a logit exceeds the others by 37 or more; such samples
    would tie. Their logarithms differ.

    Range of scores: [-log K, 0].
    Shape: features (N, D); scores (N,), float64.
    Source: Hendrycks & Gimpel 2017 (MSP).

    >>> import torch
    >>> from tightframe.ood import MaxSoftmax
    >>> detector = MaxSoftmax.fit(torch.eye(2))
    >>> detector.scores(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).exp()
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    @property
    def settings(self) -> dict[str, Any]:
        return {"temperature": 1.0}

    def score(self, logits: Tensor) -> Tensor:
        largest, index = logits.max(1)
        others = logits.scatter_(1, index[:, None], -torch.inf).logsumexp(1)
        return -torch.nn.functional.softplus(others - largest, threshold=torch.inf)


class MaxLogit(OfLogits):
    """The largest logit, max_k <w_k, x> + b_k.

    Shape: features (N, D); scores (N,), float64. Range of scores: (-inf, inf), in logit units.
    Source: Hendrycks et al. 2022.

    >>> import torch
    >>> from tightframe.ood import MaxLogit
    >>> MaxLogit.fit(torch.eye(2), torch.tensor([0.0, 1.0])).scores(torch.tensor([[3.0, 1.0], [0.0, 4.0]])).tolist()
    [3.0, 5.0]
    """

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def score(self, logits: Tensor) -> Tensor:
        return logits.amax(1)


@dataclass(frozen=True, eq=False)
class Energy(OfLogits):
    """The negative free energy, T log sum_k exp((<w_k, x> + b_k) / T).

    The temperature T is 1 by default, and is not tuned.

    Range of scores: not below the largest logit, and at most T log K above it.
    Shape: features (N, D); scores (N,), float64. Range of scores: (-inf, inf), in logit units.
    Source: Liu et al. 2020.

    >>> import torch
    >>> from tightframe.ood import Energy
    >>> Energy.fit(torch.eye(2)).scores(torch.zeros(1, 2)).exp().round(decimals=4)
    tensor([2.], dtype=torch.float64)
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self.temperature, "the temperature")

    @classmethod
    def fit(cls, weight: Array | None, bias: Array | None = None, *, temperature: float = 1.0) -> Self:
        """The detector for a classifier's weight (K, D) and bias (K,) or None. Raises: ClassifierError, RangeError."""
        return cls(Logits.of(weight, bias), temperature)

    @property
    def settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def score(self, logits: Tensor) -> Tensor:
        return logits.div_(self.temperature).logsumexp(1) * self.temperature


@dataclass(frozen=True, eq=False)
class GeneralizedEntropy(OfLogits):
    """Minus the generalised entropy of the largest softmax probabilities, -sum_k (p_k (1 - p_k))^gamma over M of them.

    The released code rounds a probability near 1 to 1 and one near 0 to 0, which then count nothing; here both factors
    are computed as logarithms, so that confident samples do not tie.

    Attributes:
        logits: the classifier.
        gamma: exponent in (0, 1]; small values weigh small probabilities more.
        largest: M, the number of largest probabilities in the sum; all if M is K or more.

    Range of scores: [-M / 4^gamma, 0].
    Source: Liu et al. 2023 (GEN), with the gamma = 0.1 and M = 100 of its released code.

    >>> import torch
    >>> from tightframe.ood import GeneralizedEntropy
    >>> GeneralizedEntropy.fit(torch.eye(2), gamma=0.5).scores(torch.zeros(1, 2))
    tensor([-1.], dtype=torch.float64)
    """

    gamma: float = 0.1
    largest: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise RangeError(f"gamma must be in (0, 1]; got {self.gamma}.")
        if self.largest < 1:
            raise RangeError(f"largest must be at least 1; got {self.largest}.")

    @classmethod
    def fit(cls, weight: Array | None, bias: Array | None = None, *, gamma: float = 0.1, largest: int = 100) -> Self:
        """The detector for a classifier's weight (K, D) and bias (K,) or None. Raises: ClassifierError, RangeError."""
        return cls(Logits.of(weight, bias), gamma, largest)

    @property
    def settings(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "largest": self.largest}

    def score(self, logits: Tensor) -> Tensor:
        top = logits.topk(min(self.largest, logits.shape[1]), 1)
        total = logits.logsumexp(1, keepdim=True)
        logs = top.values - total
        complements = torch.log(-torch.expm1(logs))
        others = logits.scatter_(1, top.indices[:, :1], -torch.inf).logsumexp(1)
        complements[:, 0] = others - total[:, 0]  # 1 - p of the largest cancels
        return -((logs + complements) * self.gamma).exp().sum(1)
