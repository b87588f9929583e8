"""Regression on the sphere: a value is a cosine to a pole, alone or together with classes in one embedding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.checks import Array, can_look, require_non_negative
from tightframe.errors import DtypeError, EmptyBatchError, NonFiniteError, RangeError, ShapeError
from tightframe.fixed import FixedTensors
from tightframe.layout import features_last
from tightframe.losses.class_loss import EmbeddingLoss, require_on_empty, require_reduction
from tightframe.numerics import directions, norms, unit_embeddings, widened, without_autocast
from tightframe.prototypes import Prototypes, pole_cosine


class PoleRegression(FixedTensors):
    """Sum over targets t of (r_t - cos(z, upper pole of t))^2 with r = 2 (v - lower) / (upper - lower) - 1.

    Args:
        poles: `prototypes.poles(T, D)`: rows 2t and 2t + 1 are the lower and upper pole of target t.
        lower, upper: values at the lower and upper poles, the same for all targets.
        reduction: "mean" over rows, "sum", or "none".
        on_empty: result of "mean" for a batch without rows: "zero" or "error".

    Range: [0, 4 T].
    Call: (embeddings, values): (N, D) and (N,) or (N, T); layouts as for `ClassLoss`, values with T last.
    Raises: RangeError for values outside [lower, upper] (CPU only), ShapeError, NonFiniteError; ZeroVectorError for a
    pole of length zero.
    Warns: ZeroVectorWarning for an embedding of length zero, once (CPU only); its cosines are 0.
    With several targets on orthogonal axes, the squared cosines of an embedding to the poles sum to at most 1, so not
    all targets can be near their bounds at once.
    Source: Mettes, van der Pol & Snoek 2019, one target; the released code sums over the batch.
    `prototypes.pole_value` computes the value from a cosine.

    >>> from tightframe.losses import PoleRegression
    >>> import torch
    >>> from tightframe import prototypes
    >>> loss = PoleRegression(prototypes.poles(1, 2), lower=0.0, upper=10.0)
    >>> loss(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([10.0, 10.0]))  # aligned: 0, orthogonal: 1
    tensor(0.5000)
    """

    upper_poles: Tensor

    def __init__(
        self, poles: Prototypes | Array, lower: float, upper: float, *, reduction: str = "mean", on_empty: str = "zero"
    ):
        super().__init__()
        require_reduction(reduction)
        require_on_empty(on_empty)
        vectors = Prototypes.of(poles).vectors
        if len(vectors) % 2:
            raise ShapeError(f"poles must have two rows per target; got {len(vectors)} rows.")
        if not -math.inf < lower < upper < math.inf:
            raise RangeError(f"lower must be less than upper, both finite; got {lower} and {upper}.")
        self.lower, self.upper, self.reduction, self.on_empty = lower, upper, reduction, on_empty
        self.hold("upper_poles", directions(vectors.detach()[1::2], "poles"))

    def forward(self, embeddings: Tensor, values: Tensor) -> Tensor:
        targets, dim = self.upper_poles.shape
        last = features_last(embeddings, dim, "embeddings")
        target = values if values.shape == (*last.shape[:-1], targets) else values.unsqueeze(-1)
        if target.shape != (*last.shape[:-1], targets):
            raise ShapeError(
                f"values must be {(*last.shape[:-1], targets)}, one per row and target; got {tuple(values.shape)}."
            )
        empty = self.reduction == "mean" and not target.numel()
        if empty and self.on_empty == "error":
            raise EmptyBatchError(
                'the mean loss needs at least one row; the batch has none. Skip it, or pass on_empty="zero".'
            )
        if not values.dtype.is_floating_point:
            raise DtypeError(f"values must be floating point; got {values.dtype}.")
        with without_autocast(embeddings.device):
            rows = widened(last)
            target = target.to(rows)
            if can_look(target) and not target.isfinite().all():
                raise NonFiniteError("values must be finite; got NaN or infinity.")
            target = pole_cosine(target, self.lower, self.upper)
            cosines = unit_embeddings(rows, self)[0] @ self.upper_poles.to(rows).mT
            losses = (target - cosines).square().sum(-1)
            if self.reduction == "none":
                return losses
            return losses.sum() if self.reduction == "sum" or empty else losses.mean()

    def extra_repr(self) -> str:
        return f"{len(self.upper_poles)} targets in [{self.lower}, {self.upper}], reduction={self.reduction!r}"


class JointHyperspherical(nn.Module):
    """Classification and regression in one embedding: (1 - cos)^2 to the class plus `balance` times `PoleRegression`.

    The regression uses the whole embedding, the classification its part orthogonal to the poles' axes, so that both can
    be optimal at once: at the minimum, 0, all values are exact.

    Shape: embeddings (N, D), labels (N,), values (N,) or (N, T); 0-d. Range: [0, 4 + 4 balance T].
    Call: (embeddings, labels, values). A row with the label `ignore_index` still counts in the regression.
    Args: as for `Hyperspherical` and `PoleRegression`. Only the part of the prototypes orthogonal to the poles' axes is
    used; use prototypes without another part, `torch.cat([torch.zeros(K, T), simplex], 1)` for `poles(T, D)`.
    Raises: as these; ZeroVectorError for a prototype along the poles' axes, ShapeError for poles that span the whole
    space. An embedding along the poles' axes counts as orthogonal to its class.
    Source: Mettes, van der Pol & Snoek 2019, joint regression and classification, as in their code: a class weight w
    there is balance = (1 - w) / w here.

    >>> from tightframe.losses import JointHyperspherical
    >>> import torch
    >>> classes, poles = torch.eye(3)[:2], torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    >>> loss = JointHyperspherical(classes, poles, lower=0.0, upper=1.0)
    >>> loss(torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([0]), torch.tensor([0.9])).round(decimals=6)
    tensor(0.)
    """

    def __init__(
        self,
        prototypes: Prototypes | Array | nn.Module,
        poles: Prototypes | Array,
        lower: float,
        upper: float,
        *,
        balance: float = 1.0,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__()
        require_non_negative(balance, "balance")
        self.values = PoleRegression(poles, lower, upper, reduction=reduction, on_empty=on_empty)
        self.classes = _OrthogonalToPoles(
            prototypes, self.values, weight=weight, reduction=reduction, ignore_index=ignore_index, on_empty=on_empty
        )
        self.balance = balance

    def forward(self, embeddings: Tensor, labels: Tensor, values: Tensor) -> Tensor:
        total: Tensor = self.classes(embeddings, labels) + self.balance * self.values(embeddings, values)
        return total


class _OrthogonalToPoles(EmbeddingLoss):
    """(1 - cos(z, p_y))^2 for the parts of z and p_y orthogonal to the poles' axes."""

    axes: Tensor

    def __init__(self, prototypes: Prototypes | Array | nn.Module, values: PoleRegression, **options: Any):
        super().__init__(prototypes, **options)
        self._values, poles = (values,), values.upper_poles  # a tuple hides it from this module
        if poles.shape[1] != self.num_features:
            raise ShapeError(
                f"poles and prototypes must have the same dimension; got {poles.shape[1]} and {self.num_features}."
            )
        _, sizes, axes = torch.linalg.svd(poles.to(torch.float64), full_matrices=False)
        axes = axes[sizes > 8 * torch.finfo(poles.dtype).eps * sizes[0]]  # poles of two targets may share an axis
        if len(axes) == self.num_features:
            raise ShapeError(
                f"the poles' axes span all {len(axes)} dimensions, and the classes need further ones. Use more "
                "dimensions or fewer targets."
            )
        self.hold("axes", axes)
        directions(self._orthogonal(self.prototypes.detach().to(axes)), "prototypes orthogonal to the poles' axes")

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        targets = directions(self._orthogonal(self.own(rows, labels)), "prototypes orthogonal to the poles' axes")
        orthogonal = torch.where(kept[:, None], self._orthogonal(rows), targets)
        return self.gaps_to(targets, orthogonal, "embeddings orthogonal to the poles' axes").square()

    def unit(self, rows: Tensor, what: str = "embeddings") -> tuple[Tensor, Tensor | None]:
        return unit_embeddings(rows, self._values[0], what)  # one warning for both losses

    def _orthogonal(self, rows: Tensor) -> Tensor:
        axes = self.axes.to(rows)
        rest = rows - (rows @ axes.mT) @ axes
        # a vector along the axes leaves only rounding, which has no direction
        rounding = norms(rest.detach()) <= 4 * torch.finfo(rows.dtype).eps * norms(rows.detach())
        return torch.where(rounding[:, None], 0.0, rest)
