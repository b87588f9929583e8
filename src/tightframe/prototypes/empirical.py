"""Prototypes from data: class means, and the simplex ETF nearest to them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from tightframe.checks import Array, as_tensor, listed, require_finite, require_non_negative
from tightframe.errors import DimensionError, EmptyClassError, GeometryWarning, ShapeError, ZeroVectorError
from tightframe.numerics import contrasts, from_contrasts, norms, rank_tolerance, unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import construction
from tightframe.prototypes.value import Prototypes
from tightframe.statistics import ClassStatistics

_GUIDING = "Markou, Ajanthan & Gould 2024"
_SHOWN = 8  # maximum number of classes listed in a message


@construction("Guerriero, Caputo & Mensink 2018", aim=Aim("nearest means", "classification by the nearest class mean"))
def class_means(statistics: ClassStatistics, *, centred: bool = False) -> Tensor:
    """The measured mean of each class, at its measured length.

    Args:
        centred: subtract the mean of the class means, as in neural collapse; this changes angles but not distances.

    Returns: (K, D) vectors, float64; row k is the mean of the statistics' row k.
    Raises: EmptyClassError that names the classes without samples.
    Source: Guerriero, Caputo & Mensink 2018 (DeepNCM).

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.prototypes import class_means
    >>> features = torch.tensor([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]])
    >>> class_means(ClassStatistics.from_features(features, torch.tensor([0, 0, 1]), 2)).vectors.tolist()
    [[1.0, 1.0], [5.0, 5.0]]
    """
    absent = statistics.class_ids[~statistics.present].tolist()
    if absent:
        raise EmptyClassError(
            f"every class must have samples; {len(absent)} of {statistics.num_classes} have none: "
            f"{listed(absent, _SHOWN)}. Pass statistics.populated() to leave them out."
        )
    return statistics.centred_means() if centred else statistics.means


@construction(_GUIDING)
def nearest_etf(means: Array) -> Tensor:
    """The simplex ETF nearest to the class means in Frobenius norm, over all rotations and sizes.

    With V the ETF's rows and M the centred means, |M - c V|_F is least where <M, V> is largest: for every c, V is the
    polar factor of M on the K - 1 contrasts of the classes. One thin SVD; differentiable in the means, even if they
    form an ETF already.

    Args:
        means: (K, D), 2 <= K <= D + 1; centred here.

    Returns: (K, D) unit vectors, in the means' dtype.
    Raises: ShapeError, NonFiniteError, DimensionError if no ETF exists, ZeroVectorError if all means are equal.
    GeometryWarning if the centred means span fewer than K - 1 dimensions: the nearest ETF is then not unique and has no
    gradient.
    Source: Markou, Ajanthan & Gould 2024 (Guiding Neural Collapse), in closed form.

    >>> import torch
    >>> from tightframe.prototypes import nearest_etf
    >>> nearest_etf(torch.tensor([[3.0, 1.0], [1.0, 1.0]])).vectors.round(decimals=6).tolist()  # along the difference
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    return _etf_rows(contrasts(_require_means(as_tensor(means, "means"))))


@construction(_GUIDING)
def guided(previous: Prototypes, means: Array, *, proximal: float = 1e-3) -> Tensor:
    """One update of nearest-ETF guiding: the ETF near the class means and near the previous ETF.

    Minimises |M - V / |V|_F|_F^2 + proximal / 2 |W - W'|_F^2 over ETFs V with orthonormal contrasts W, for the means M
    centred and at unit Frobenius norm: W is the polar factor of 2 / sqrt(K-1) M + proximal W' on the contrasts. The
    authors' term also fixes a K-th direction that no ETF uses; it is left out, so that K = D + 1 is possible.

    Args:
        previous: an ETF with the means' shape; the result has the same lengths.
        means: (K, D), 2 <= K <= D + 1.
        proximal: weight >= 0 of the previous ETF; 0 gives `nearest_etf`.

    Returns: (K, D) vectors, in the means' dtype.
    Raises: as `nearest_etf`, and RangeError for a bad weight.
    Source: Markou, Ajanthan & Gould 2024, in closed form.

    >>> import torch
    >>> from tightframe.prototypes import guided, simplex
    >>> start = simplex(2, 2)  # along e_1
    >>> means = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # along e_2
    >>> vectors = guided(start, means, proximal=2.0).vectors  # 2 = 2 / sqrt(K-1): half-way
    >>> [round(entry, 4) for entry in vectors[0].tolist()]
    [0.7071, 0.7071]
    """
    require_non_negative(proximal, "the proximal weight")
    means = as_tensor(means, "means")
    cross = contrasts(_require_means(means))
    if previous.vectors.shape != means.shape:
        raise ShapeError(
            f"the previous prototypes must have the means' shape, {tuple(means.shape)}; "
            f"got {tuple(previous.vectors.shape)}."
        )
    classes = len(means)
    before = contrasts(unit_rows(previous.vectors.to(means))) * math.sqrt((classes - 1) / classes)
    pull = 2 / math.sqrt(classes - 1) * cross / torch.linalg.matrix_norm(cross)
    return norms(previous.vectors.to(means)).mean() * _etf_rows(pull + proximal * before)


def _require_means(means: Tensor) -> Tensor:
    if means.ndim != 2 or len(means) < 2:
        raise ShapeError(f"means must be (K, D) with K >= 2; got {tuple(means.shape)}.")
    require_finite(means.detach(), "means")
    classes, dim = means.shape
    if classes > dim + 1:
        raise DimensionError(
            f"a simplex ETF of {classes} vectors needs {classes - 1} dimensions; got {dim}. "
            "Project to more dimensions, or guide different prototypes."
        )
    near = means - means[:1].detach()  # a large common offset would cost digits
    if not near.detach().any():
        raise ZeroVectorError("class means must differ to have a nearest ETF; all are equal. Pass means that differ.")
    return near


def _etf_rows(cross: Tensor) -> Tensor:
    """The unit ETF (K, D) with contrasts nearest to the given ones, (K-1, D)."""
    classes = len(cross) + 1
    return math.sqrt(classes / (classes - 1)) * from_contrasts(_Polar.apply(cross))


class _Polar(torch.autograd.Function):
    """The nearest matrix with orthonormal rows, (M, D) -> (M, D), M <= D.

    Gradients of `torch.linalg.svd` are NaN if singular values coincide, as they do at an ETF; the derivative of the
    polar factor divides only by sums of singular values.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, matrix: Tensor) -> Tensor:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        if values[-1] <= rank_tolerance(matrix) * values[0]:
            rank = int((values > rank_tolerance(matrix) * values[0]).sum())
            warnings.warn(
                f"the centred means span {rank} of {len(values)} dimensions, so the nearest ETF is not unique: "
                "two classes may have the same mean.",
                GeometryWarning,
                stacklevel=7,
            )
        ctx.save_for_backward(left, values, right)
        return left @ right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        left, values, right = ctx.saved_tensors
        across = left.mT @ grad
        inside = across @ right.mT
        turn = (inside - inside.mT) / (values[:, None] + values)
        return left @ (turn @ right + (across - inside @ right) / values[:, None])
