"""Baseline detectors on the logits W x + b of a linear classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tightframe import checks
from tightframe.checks import Array
from tightframe.errors import ClassifierError
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
    Source: Hendrycks & Gimpel 2017 (MSP).

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

    Source: Hendrycks et al. 2022.
    """

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def score(self, logits: Tensor) -> Tensor:
        return logits.amax(1)


class Energy(OfLogits):
    """The negative free energy at temperature 1, log sum_k exp(<w_k, x> + b_k).

    Source: Liu et al. 2020.
    """

    @property
    def settings(self) -> dict[str, Any]:
        return {"temperature": 1.0}

    def score(self, logits: Tensor) -> Tensor:
        return logits.logsumexp(1)
