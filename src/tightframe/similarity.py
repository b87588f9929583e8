"""Similarity of representations: CKA of layers and models, and CKA, Procrustes distance and angles of class means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tightframe.errors import EmptyClassError, ShapeError
from tightframe.metrics.jackknife import jackknife
from tightframe.metrics.layers import angles_to, span_of_means
from tightframe.numerics import EPS, condensed
from tightframe.plain import restored_fields
from tightframe.statistics import ClassStatistics, CrossMoments, FoldedCrossMoments

__all__ = [
    "ClassMeanSimilarity",
    "LayerSimilarity",
    "cka",
    "class_mean_angles",
    "class_mean_cka",
    "class_mean_moments",
    "procrustes_distance",
    "shuffled_cka",
]

_RESOLVED = 32.0  # smallest HSIC of a layer with itself, in roundings of its largest term

# ---------------------------------------------------------------------- samples


def cka(moments: CrossMoments, *, debiased: bool = True) -> Tensor:
    """Linear centred kernel alignment of each pair of layers: how similarly they arrange the samples.

    CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) for HSIC with linear kernels.

    Shape: (L, L), symmetric, in float64; without a graph. Range: [-1, 1] debiased, [0, 1] biased; 1 = equal up to
    rotation, translation and common scale. NaN for pairs that were not measured, for a layer with equal features of all
    samples, and debiased for fewer than 4 samples, or where distances between samples are all equal.

    Args:
        debiased: use the unbiased HSIC of a sample (U-statistic). Unrelated layers then have CKA 0 on average; with the
            biased HSIC they have `shuffled_cka`, which is near 1 if there are few samples per feature. Both assume
            independent samples.

    Source: Kornblith, Norouzi, Lee & Hinton 2019, eqs 3 and 4; unbiased: Song et al. 2012, eq. 5, first used for
    CKA by Nguyen, Raghu & Kornblith 2021.

    >>> import torch
    >>> from tightframe.similarity import cka
    >>> from tightframe.statistics import CrossMoments
    >>> x = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, 1]])
    >>> moments = CrossMoments.from_features({"x": x, "y": torch.tensor([[0.0], [1], [1], [2], [3]])})
    >>> [round(float(cka(moments, debiased=each)[0, 1]), 7) for each in (True, False)]
    [0.8783101, 0.9000329]
    """
    norms = _squared_norms(moments)
    hsic, terms = norms, norms.diagonal()
    if debiased:
        n = moments.count.to(torch.float64)
        own, other = n / (n - 2) * moments.squares, _outer(moments.spread) / ((n - 1) * (n - 2))
        hsic, terms = norms - own + other, (norms + own + other).diagonal()
        hsic = torch.where(n > 3, hsic, torch.nan)
    sizes = hsic.diagonal()
    limit = _RESOLVED * max(moments.product_epsilon, EPS) * terms
    roots = torch.where((sizes > limit) & _varies(moments), sizes, torch.nan).sqrt()
    return hsic / _outer(roots)


def shuffled_cka(moments: CrossMoments) -> Tensor:
    """Biased CKA of each pair of layers if the samples of one were shuffled: its exact mean over all orders.

    tr(K) tr(L) / ((N - 1) |K| |L|) for the centred Gram matrices K, L of the two layers. Debiased CKA has mean 0.

    Shape: (L, L), symmetric, in float64. Range: (0, 1]; 1 for N = 2, and where each layer puts all samples at equal
    distances. NaN as for `cka`.
    Source: permutation mean of the RV coefficient, which is biased linear CKA: Kazi-Aoual et al. 1995; Heo & Gabriel
    1998.

    >>> import torch
    >>> from tightframe.similarity import shuffled_cka
    >>> from tightframe.statistics import CrossMoments
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])  # one feature: tr(K) = |K|, so 1 / (N - 1)
    >>> moments = CrossMoments.from_features({"x": x, "y": x.square()})
    >>> round(shuffled_cka(moments)[0, 1].item(), 6)
    0.5
    """
    roots = torch.where(_varies(moments), _squared_norms(moments).diagonal(), torch.nan).sqrt()
    value = _outer(moments.spread / roots) / (moments.count.to(torch.float64) - 1)
    return torch.where(moments.squares.isnan(), torch.nan, value)


def _squared_norms(moments: CrossMoments) -> Tensor:
    """(L, L), |P_ab|^2 of the products; NaN for pairs that were not measured."""
    norms = torch.full_like(moments.squares, torch.nan)
    for (a, b), product in moments.products.items():
        norms[a, b] = norms[b, a] = torch.linalg.vector_norm(product).square()
    return norms


def _varies(moments: CrossMoments) -> Tensor:
    """(L,) bool, whether the samples differ by more than their rounding."""
    return (moments.spread / moments.count).sqrt() > moments.rounding


def _outer(values: Tensor) -> Tensor:
    return torch.outer(values, values)


# ---------------------------------------------------------------------- class means


def class_mean_moments(first: ClassStatistics, second: ClassStatistics) -> CrossMoments:
    """The moments of two sets of class means, with the classes as samples; for `cka` and `shuffled_cka`.

    Only classes with samples in both count. The layers "first" and "second" may have different widths. Each is rotated
    into at most K dimensions, which does not change any similarity.

    Raises: EmptyClassError if fewer than two classes have samples in both.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.similarity import class_mean_moments
    >>> statistics = ClassStatistics.from_features(torch.eye(3), torch.arange(3), 3)
    >>> moments = class_mean_moments(statistics, statistics)
    >>> moments.names, int(moments.count)
    (('first', 'second'), 3)
    """
    x, y = _centred_pair(first, second)
    return CrossMoments.from_features({"first": x, "second": y})


def class_mean_cka(first: ClassStatistics, second: ClassStatistics, *, debiased: bool = False) -> Tensor:
    """Linear CKA of two sets of class means: how similarly two models or layers arrange the classes.

    Needs saved statistics only, no features. Every class counts equally. Compare the value with
    `shuffled_cka(class_mean_moments(first, second))`, its mean if classes were shuffled: collapsed class means are a
    simplex in any model, where every order of the classes has CKA 1.

    Shape: scalar, in float64; without a graph. Range: [0, 1], debiased [-1, 1]; 1 = equal up to rotation, translation
    and common scale. NaN if all class means coincide, debiased also for fewer than 4 classes or an exact simplex.

    Args:
        debiased: as in `cka`, for classes as a sample of more classes. Default: these classes are all that matter.

    Raises: as `class_mean_moments`.
    Source: Kornblith et al. 2019, with class means as samples.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.similarity import class_mean_cka
    >>> features, labels = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 6
    >>> statistics = [ClassStatistics.from_features(each, labels, 6) for each in (features, 3 * features.flip(1) + 1)]
    >>> bool((class_mean_cka(*statistics) - 1).abs() < 1e-9)
    True
    """
    return cka(class_mean_moments(first, second), debiased=debiased)[0, 1]


def procrustes_distance(first: ClassStatistics, second: ClassStatistics, *, angular: bool = False) -> Tensor:
    """Smallest distance of two sets of class means, centred and scaled to |X| = 1, after the best rotation.

    min over orthogonal Q of |X Q - Y|; the narrower set is padded with zeros. Only classes with samples in both count.

    Shape: scalar, in float64; without a graph. Range: [0, sqrt 2]; angular [0, pi/2] in radians; 0 = equal up to
    rotation, reflection, translation and scale. Small distances are exact. A metric: symmetric, with the triangle
    inequality. NaN if all class means of one coincide.

    Args:
        angular: return the angle arccos |X^T Y|_* in radians; the distance is its chord.

    Raises: as `class_mean_moments`.
    Source: Williams, Kunz, Kornblith & Linderman 2021, eq. for the angular and the Procrustes distance, alpha = 1.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.similarity import procrustes_distance
    >>> first, second = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[1.0], [-2.0], [1.0]])
    >>> pair = [ClassStatistics.from_features(each, torch.arange(3), 3) for each in (first, second)]
    >>> round(procrustes_distance(*pair).item(), 6)  # orthogonal: sqrt(2)
    1.414214
    """
    x, y = _centred_pair(first, second)
    x, y = (each / torch.linalg.vector_norm(each) for each in (x, y))
    if bool(x.isnan().any() | y.isnan().any()):
        return x.new_full((), math.nan)
    left, _, right = torch.linalg.svd(x.mT @ y, full_matrices=False)
    distance = torch.linalg.vector_norm(_rotated(x, y, left, right))
    return 2 * torch.arcsin((distance / 2).clamp(max=math.sqrt(0.5))) if angular else distance


def _rotated(x: Tensor, y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """X Q - Y for the best Q, in coordinates where it needs no padding: what the wider set has beyond is last."""
    rest = x - x @ left @ left.mT if x.shape[1] > y.shape[1] else y - y @ right.mT @ right
    return torch.cat([x @ left - y @ right.mT, rest], 1)


def class_mean_angles(first: ClassStatistics, second: ClassStatistics) -> Tensor:
    """Principal angles between the spans of two sets of centred class means in the same feature space.

    For a model at two times, or two layers with a common basis, such as a residual stream. Two networks trained from
    different starts have unrelated bases: compare these with `class_mean_cka`.

    Shape: (r,) radians, ascending, in float64; r is the smaller of the two ranks. Range: [0, pi/2]; 0 = the same span.
    Small angles are exact. For K - 1 >= D both spans are the whole space, and the angles are 0.
    Raises: ShapeError for different widths; as `class_mean_moments`.
    Source: Björck & Golub 1973; sines for small angles: Knyazev & Argentati 2002.

    >>> import math, torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.similarity import class_mean_angles
    >>> first, second = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> pair = [ClassStatistics.from_features(each, torch.arange(2), 2) for each in (first, second)]
    >>> [round(math.degrees(angle), 4) for angle in class_mean_angles(*pair).tolist()]
    [45.0]
    """
    if first.num_features != second.num_features:
        raise ShapeError(
            f"angles need the same feature space; got {first.num_features} and {second.num_features} dimensions. "
            "Compare with class_mean_cka or procrustes_distance."
        )
    bases = [span_of_means(each) for each in _common(first, second)]
    smaller, larger = sorted(bases, key=lambda basis: basis.shape[1])
    return angles_to(smaller, larger)


def _common(first: ClassStatistics, second: ClassStatistics) -> tuple[ClassStatistics, ClassStatistics]:
    """The statistics of the classes with samples in both, without graphs, on the CPU."""
    first, second = first.detach().to("cpu"), second.detach().to("cpu")
    classes = set(first.class_ids[first.present].tolist()) & set(second.class_ids[second.present].tolist())
    if len(classes) < 2:
        raise EmptyClassError(f"at least two classes must have samples in both; {len(classes)} do.")
    return first.select(sorted(classes)), second.select(sorted(classes))


def _centred_pair(first: ClassStatistics, second: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Centred class means (K, min(K, D)) of the common classes, each in a basis of its own."""
    x, y = (condensed(each.centred_means().mT).mT for each in _common(first, second))
    return x, y


# ---------------------------------------------------------------------- report


@dataclass(frozen=True)
class LayerSimilarity:
    """Debiased linear CKA of all pairs of layers, as plain values for a report.

    Attributes:
        names: L names of the layers, in order of depth.
        values: L rows of L values; NaN if undefined.
        errors: their jackknife standard errors, with NaN on the diagonal; None without folds.
        samples: N. folds: number of folds of the errors, or None.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float, ...], ...] | None = None
    samples: int = 0
    folds: int | None = None

    @classmethod
    def of(cls, moments: CrossMoments | FoldedCrossMoments) -> LayerSimilarity:
        """The similarity of the layers of these moments; with errors if there are folds."""
        if isinstance(moments, CrossMoments):
            return cls(moments.names, _rows(cka(moments)), None, int(moments.count))
        value, error = jackknife(cka, moments)
        error = error.masked_fill(torch.eye(len(error), dtype=torch.bool, device=error.device), torch.nan)
        total = moments.total
        return cls(total.names, _rows(value), _rows(error), int(total.count), moments.folds)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerSimilarity:
        """Inverse of `asdict`, also after JSON. Raises: StateError."""
        value: LayerSimilarity = restored_fields(cls, data, "similarity")
        return value

    def __getitem__(self, pair: tuple[str, str]) -> float:
        """The value of two layers by name."""
        a, b = (self.names.index(name) for name in pair)
        return self.values[a][b]


@dataclass(frozen=True)
class ClassMeanSimilarity:
    """Similarity of the class means of two models, as plain values for a comparison.

    Attributes:
        first, second: names of the models.
        classes: number of classes with samples in both.
        cka: `class_mean_cka`. shuffled: its mean if the classes of one model were shuffled.
        distance: `procrustes_distance`.
        angle: mean of `class_mean_angles` in degrees; None for different widths, and where class means span the whole
            space.
    """

    first: str
    second: str
    classes: int
    cka: float
    shuffled: float
    distance: float
    angle: float | None = None

    @classmethod
    def of(cls, first: ClassStatistics, second: ClassStatistics, names: tuple[str, str]) -> ClassMeanSimilarity:
        """The similarity of two sets of class means. Raises: EmptyClassError as `class_mean_moments`."""
        moments, angle = class_mean_moments(first, second), None
        if first.num_features == second.num_features >= int(moments.count):
            angle = float(torch.rad2deg(class_mean_angles(first, second).mean()))
        return cls(
            *names,
            int(moments.count),
            float(cka(moments, debiased=False)[0, 1]),
            float(shuffled_cka(moments)[0, 1]),
            float(procrustes_distance(first, second)),
            angle,
        )


def _rows(grid: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, grid.tolist()))
