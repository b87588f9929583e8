"""Reductions over pairs that merge: moments of values, moments of values from their logarithms, the smallest value."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of the finite values over pairs; population variance.

    `left_out` is the number of values that are not finite, and `rest` their sum: infinity or NaN.
    """

    number: Tensor
    mean: Tensor
    deviations: Tensor
    left_out: Tensor
    rest: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        none = values.new_zeros(())
        mean = values.mean()
        left_out, rest = none, none
        if not mean.isfinite():
            finite = values.isfinite()
            left_out, rest = (~finite).sum().to(values), values.detach()[~finite].sum()
            values = values[finite]
            mean = values.mean() if len(values) else values.sum()
        deviations = values - mean
        return cls(values.new_full((), values.numel()), mean, deviations @ deviations, left_out, rest)

    def merge(self, other: Moments) -> Moments:
        number = self.number + other.number
        gap, share = other.mean - self.mean, other.number / number.clamp(min=1)
        return Moments(
            number,
            self.mean + gap * share,
            self.deviations + other.deviations + gap.square() * (self.number * share),
            self.left_out + other.left_out,
            self.rest + other.rest,
        )

    @property
    def result(self) -> Moments:
        """The moments; NaN if no pair has a value."""
        return self._replace(mean=torch.where(self.number > 0, self.mean, math.nan))

    @property
    def exact(self) -> Moments:
        """The moments of all pairs; infinite or NaN if one value is."""
        several = torch.where(self.left_out > 0, math.nan, 0.0)
        mean = torch.where(self.number > 0, self.mean, 0.0)
        return self._replace(mean=mean + self.rest, deviations=self.deviations + several)

    def standard_deviation(self, ddof: int) -> Tensor:
        """sqrt(deviations / (number - ddof)); its gradient is 0, not NaN, if all values are equal."""
        flat = self.deviations == 0
        root = torch.where(flat, 1.0, self.deviations).sqrt()
        free = self.number - ddof
        return torch.where(free > 0, torch.where(flat, 0.0, root) / free.clamp(min=1).sqrt(), math.nan)

    @property
    def variance(self) -> Tensor:
        return self.deviations / self.number

    @property
    def cv(self) -> Tensor:
        """Population standard deviation over the absolute mean; NaN for a mean of 0."""
        return self.standard_deviation(0) / torch.where(self.mean == 0, math.nan, self.mean.abs())


class LogMoments(NamedTuple):
    """Moments of values from their logarithms, in units of exp(scale), without overflow for any exponent."""

    scale: Tensor
    moments: Moments

    @classmethod
    def of(cls, values: Tensor) -> LogMoments:
        scale = values.detach().amax()
        if not scale.isfinite():
            finite = values.detach()[values.detach().isfinite()]
            if not len(finite):
                return cls(torch.full_like(scale, -math.inf), Moments.of(values.exp()))
            scale = finite.amax()
        return cls(scale, Moments.of((values - scale).exp()))

    def merge(self, other: LogMoments) -> LogMoments:
        scale = torch.maximum(self.scale, other.scale)
        return LogMoments(scale, self._in(scale).merge(other._in(scale)))

    def _in(self, scale: Tensor) -> Moments:
        factor = torch.where(self.moments.number > 0, (self.scale - scale).exp(), 1.0)
        return self.moments._replace(
            mean=self.moments.mean * factor, deviations=self.moments.deviations * factor.square()
        )

    @property
    def result(self) -> LogMoments:
        """The moments; NaN if no pair has a value."""
        scale = torch.where(self.moments.number > 0, self.scale, 0.0)
        return LogMoments(scale, self.moments.result)

    @property
    def exact(self) -> LogMoments:
        """The moments of all pairs; infinite or NaN if one value is."""
        return self._replace(moments=self.moments.exact)

    @property
    def log_mean(self) -> Tensor:
        return self.scale + self.moments.mean.log()

    @property
    def mean(self) -> Tensor:
        """The mean, which may overflow to infinity although its logarithm is finite."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.moments.variance * (2 * self.scale).exp()

    @property
    def cv(self) -> Tensor:
        """Population standard deviation over the mean."""
        return self.moments.cv


class Smallest(NamedTuple):
    """The smallest value over pairs; NaN values are ignored."""

    value: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Smallest:
        least = values.amin()
        return cls(torch.where(values.isnan(), math.inf, values).amin() if least.isnan() else least)

    def merge(self, other: Smallest) -> Smallest:
        return Smallest(torch.minimum(self.value, other.value))

    @property
    def result(self) -> Smallest:
        """The smallest value; NaN if no pair has a value."""
        return Smallest(torch.where(self.value.isfinite(), self.value, math.nan))


Reduction = Moments | LogMoments | Smallest
