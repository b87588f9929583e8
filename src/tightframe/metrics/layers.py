"""Measures of layers: numerical rank, alignment of the next weight with the class means, and separation by depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tightframe import checks, numerics
from tightframe.errors import EmptyClassError, ShapeError
from tightframe.metrics.metric import Setting, metric
from tightframe.metrics.span import Factors, means_rounding, spanning_factors, spanning_rows, warn_of_lost_rank
from tightframe.sharing import once
from tightframe.statistics import ClassStatistics

__all__ = ["numerical_rank", "principal_angle", "principal_angles", "EquiSeparation", "equi_separation"]

_FAR = 1 - 1e-6  # below this cosine acos is exact to nine digits

# ---------------------------------------------------------------------- rank


def _collapsed_rank(setting: Setting) -> float | None:
    """K-1 eigenvalues of diag(p) - p p^T, p = n/N, interlace with p: all exceed 1e-3 of the largest if p does."""
    if setting.crowded:
        return min(setting.K - 1, setting.D)
    return setting.K - 1 if setting.counts.min() > 1e-3 * setting.counts.max() else None


@metric(
    "numerical rank of Σ_T",
    "scale",
    source="Masarczyk et al. 2023",
    convention="variances > 10⁻³ of the largest",
    target=_collapsed_rank,
    needs="scatter",
    headline=True,
    smooth=False,
    labelled=False,
)
def numerical_rank(statistics: ClassStatistics, *, threshold: float = 1e-3) -> Tensor:
    """Number of singular values of the covariance of all samples that exceed `threshold` times the largest.

    The covariance weights samples equally. Its singular values are variances, so a direction counts if its standard
    deviation exceeds sqrt(threshold) times the largest.

    Shape: scalar, a count in float64, without gradient. Range: [0, min(N - 1, D)]; 0 if all samples coincide; K - 1 for
    a collapsed simplex, unless class sizes differ by more than a factor 1 / threshold. A single class is allowed.
    Invariant to rotation, translation and common scale.
    Misleads: variances are compared with the largest: one direction of very large variance lowers the count of all
    others.

    Args:
        threshold: >= 0, a ratio of variances.

    Raises: EmptyClassError without samples; ScatterError without the scatter; RangeError for a threshold below 0.
    Source: Masarczyk et al. 2023 (the tunnel effect), numerical rank of representations, with their threshold.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> features = torch.cat([cross, cross + torch.tensor([10.0, 0.0])])
    >>> statistics = ClassStatistics.from_features(features, torch.arange(8) // 4, 2)
    >>> [int(metrics.numerical_rank(statistics, threshold=each)) for each in (1e-3, 0.1)]  # variances 25.5 and 2
    [2, 1]
    """
    checks.require_non_negative(threshold, "threshold")
    if not statistics.present.any():
        raise EmptyClassError("the numerical rank needs at least one class with samples; all classes are empty.")
    variances = torch.linalg.eigvalsh(statistics.total_covariance().detach())
    return (variances > threshold * variances[-1]).sum().to(variances)


# ---------------------------------------------------------------------- angles


def principal_angles(statistics: ClassStatistics, reader: checks.Array) -> Tensor:
    """(r,) principal angles in radians, ascending, between the class means and the next layer's weight.

    The first subspace is the span of the centred class means, of rank r; the second is spanned by the top r right
    singular vectors of `reader`. If r exceeds the rank of `reader`, the remaining angles are pi/2. If the weight
    responds strongly to the common mean, that direction is one of the r. For r = D both subspaces are the whole space,
    and the angles are 0 for any weight of full rank.

    Range: [0, pi/2]; 0 = aligned; tiny angles are exact. Invariant to translation of the features, to a common rotation
    of features and weight, and to the scale of either. Gradients are first-order only.

    Args:
        reader: (M, D), the weight of the layer that reads these features, not centred. Softmax does not depend on a row
            common to all classes: for a classifier, subtract the mean row, as `Evidence.reader` does.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError unless the weight is (M, D).
    Source: Rangamani, Lindegaard, Galanti & Poggio 2023; their code leaves means and classifier uncentred, compares K
    directions and reports the mean cosine. Sines and cosines: Björck & Golub 1973; Knyazev & Argentati 2002.

    >>> import math, torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> angles = metrics.principal_angles(statistics, torch.tensor([[1.0, 1.0]]))
    >>> [round(angle / math.pi, 4) for angle in angles.tolist()]  # 45 degrees
    [0.25]
    """
    statistics, reader = statistics.populated(), checks.as_tensor(reader, "the weight")
    if reader.ndim != 2 or reader.shape[1] != statistics.num_features:
        raise ShapeError(
            f"the weight of the layer that reads the features must have shape (outputs, {statistics.num_features}); "
            f"got {tuple(reader.shape)}."
        )
    span = span_of_means(statistics)
    reader = reader.to(span)
    return angles_to(span, _top_directions(reader, partial(weight_factors, reader), span.shape[1]))


def span_of_means(statistics: ClassStatistics) -> Tensor:
    """(D, r) orthonormal basis of the span of the centred class means; r is their rank.

    Warns: GeometryWarning if the rank is below min(K - 1, D). Raises: EmptyClassError if fewer than two classes have
    samples.
    """
    statistics = statistics.populated()
    rows = spanning_rows(statistics)
    floor, classes = means_rounding(statistics), statistics.num_classes
    span = _top_directions(rows, partial(spanning_factors, statistics), min(rows.shape), floor, classes - 1)
    warn_of_lost_rank(statistics, span.shape[1], min(rows.shape))
    return span


def angles_to(span: Tensor, read: Tensor) -> Tensor:
    """(r,) principal angles, ascending, of a subspace with orthonormal basis (D, r) to one with basis (D, q), q any.

    For q < r the last r - q angles are pi/2. Source: Björck & Golub 1973; Knyazev & Argentati 2002.
    """
    rank = span.shape[1]
    if rank == read.shape[1] == span.shape[0] and not (span.requires_grad or read.requires_grad):
        return torch.zeros_like(span[0])  # both subspaces are the whole space
    overlap = read.mT @ span
    cosines = torch.linalg.svdvals(overlap)
    cosines = torch.nn.functional.pad(cosines, (0, rank - len(cosines)))
    if not overlap.requires_grad and (cosines < _FAR).all():
        return torch.acos(cosines)  # equally exact; the sines cost most
    sines = torch.linalg.svdvals(span - read @ overlap).flip(0)
    return torch.atan2(sines, cosines)


@metric(
    "angle to weights, mean (°)",
    "NC3",
    source="Rangamani et al. 2023",
    convention="span of means, top singular vectors",
    target=lambda s: 0.0 if s.K - 1 < s.D else None,  # means that span the whole space: 0 for any weight
    headline=True,
)
def principal_angle(statistics: ClassStatistics, reader: Tensor, *, largest: bool = False) -> Tensor:
    """Mean of `principal_angles` between the class means and the next layer's weight, or the largest.

    Shape: reader (M, D); scalar, float64. Range: [0, 90], in degrees; 0 = aligned; NaN if all class means coincide.
    Misleads: it compares subspaces, not directions: a classifier whose rows are permuted among the classes has the same
    value, and for K-1 >= D it is 0 for any weight of full rank.

    Args:
        reader: the weight of the layer that reads these features; of a classifier, the rows minus their mean.
        largest: return the largest angle instead of the mean.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError unless the weight is (M, D).
    Source: Rangamani et al. 2023, who average cosines instead.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    >>> round(metrics.principal_angle(statistics, torch.tensor([[1.0, 1.0]])).item(), 4)
    45.0
    """
    angles = principal_angles(statistics, reader)
    if largest:
        angles = angles[-1:]
    return torch.rad2deg(angles.mean())


def weight_factors(weight: Tensor) -> Factors:
    """The singular value decomposition of a weight, recomputed if the weight has changed.

    Without a graph it may be of the `condensed` weight, which has different left singular vectors.
    """
    values = weight.detach()
    name = "factors" if weight.requires_grad else "condensed factors"

    def make() -> Factors:
        return Factors.of(values if weight.requires_grad else numerics.condensed(values))

    cached_values, factors = once(weight, name, lambda: (values.clone(), make()))
    return factors if torch.equal(cached_values, values) else make()


def _top_directions(
    matrix: Tensor, factors: Callable[[], Factors], most: int, floor: float = 0.0, rows: int = 0
) -> Tensor:
    """(D, r) top right singular vectors of an (M, D) matrix; r is its rank, limited to `most`.

    Singular values up to `floor` count as zero. The vectors are constants plus their first-order change with the
    matrix, up to a common rotation; unlike the derivative of an SVD this is finite where singular values are equal.
    """
    if not matrix.requires_grad and len(matrix) <= min(most, matrix.shape[1]):  # any basis of the row space will do
        basis = numerics.row_space(matrix, floor, rows)
        if basis is not None:
            return basis
    left, sizes, right = factors()
    rank = min(most, int((sizes > (numerics.rank_tolerance(matrix, rows) * sizes[:1]).clamp(min=floor)).sum()))
    if not matrix.requires_grad:
        return right[:rank].mT
    top, rest = right[:rank].mT, right[rank:].mT
    change = matrix - matrix.detach()
    outwards = change.mT @ left[:, :rank]
    inside = rest.mT @ outwards * sizes[:rank] + sizes[rank:, None] * (left[:, rank:].mT @ change @ top)
    gaps = sizes[:rank].square() - sizes[rank:, None].square()
    gaps = torch.where(gaps > 0, gaps, math.inf)  # at a tie the directions jump: derivative 0, not NaN
    outside = outwards / sizes[:rank]
    return top + rest @ (inside / gaps) + outside - right.mT @ (right @ outside)


# ---------------------------------------------------------------------- depth


@dataclass(frozen=True)
class EquiSeparation:
    """The line through the logarithms of a measure of separation by depth; NaN where undefined.

    Attributes:
        rate: factor of the measure from a layer to the next, exp of the slope; below 1 if layers separate classes.
        correlation: Pearson correlation of the logarithm with depth, in [-1, 1]; -1 = the law of equi-separation. NaN
            for two layers, which always lie on a line, and for equal values.
        fitted: (L,) values of the line, exp of its logarithm.
        worst: index of the layer farthest from the line, from 0; None for fewer than three layers.

    >>> from tightframe import metrics
    >>> law = metrics.equi_separation([16.0, 8.0, 2.0, 1.0])
    >>> round(law.rate, 4), [round(value, 2) for value in law.fitted]  # 2^(3.85 - 1.4 depth)
    (0.3789, [17.15, 6.5, 2.46, 0.93])
    """

    rate: float
    correlation: float
    fitted: tuple[float, ...]
    worst: int | None


def equi_separation(values: Sequence[float]) -> EquiSeparation:
    """How closely a measure of separation falls by one factor per layer, as the law of equi-separation says.

    The law is of tr(S_W S_B^+) with classes weighted by size (`CONVENTIONS["he-su-2023/separation"]`); a common factor,
    as K in `nc1`, changes neither rate nor correlation. Layers are the blocks that transform features, in order.
    Undefined (NaN) for fewer than two layers, and if a value is not positive and finite. It misleads where layers are
    left out unevenly, for depth then is not the number of transformations.

    Source: He & Su 2023 (a law of data separation in deep learning).

    >>> from tightframe import metrics
    >>> law = metrics.equi_separation([8.0, 4.0, 2.0, 1.0])
    >>> round(law.rate, 12), round(law.correlation, 12)
    (0.5, -1.0)
    """
    count = len(values)
    if count < 2 or not all(0 < value < math.inf for value in values):
        return EquiSeparation(math.nan, math.nan, (math.nan,) * count, None)
    depths = torch.arange(count, dtype=torch.float64)
    heights = torch.tensor([float(value) for value in values], dtype=torch.float64).log()
    places, rises = depths - depths.mean(), heights - heights.mean()
    slope = (places @ rises) / (places @ places)
    spread = torch.linalg.vector_norm(rises)
    varied = count > 2 and bool(spread > count * numerics.EPS * heights.abs().max())
    correlation = float(places @ rises / (torch.linalg.vector_norm(places) * spread)) if varied else math.nan
    line = heights.mean() + slope * places
    worst = int((heights - line).abs().argmax()) if count > 2 else None
    return EquiSeparation(math.exp(slope), correlation, tuple(line.exp().tolist()), worst)
