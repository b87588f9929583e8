"""`REFERENCES`: for every metric its target at collapse, the floor where D < K - 1, and its null level.

The null level is the expected value without class structure: same counts and dimension, all features drawn from one
isotropic Gaussian, a classifier unrelated to the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What to compare a metric's value with; None where no value is known.

    Attributes:
        target: value at perfect collapse onto a simplex ETF, or None for numbers without an ideal.
        floor: best value that D dimensions allow, where that is not the target.
        null: expected value without class structure.
    """

    target: float | None
    floor: float | None = None
    null: float | None = None


@dataclass(frozen=True)
class Setting:
    """Counts and dimension of a data set, classes without samples left out: K classes, N samples, D dimensions.

    Attributes:
        sizes: the distinct class sizes; many: how many classes have each.
    """

    sizes: Array
    many: Array
    D: int

    @classmethod
    def of(cls, counts: Sequence[int] | Tensor, dim: int) -> Setting:
        values = np.asarray(counts.tolist() if isinstance(counts, Tensor) else counts, dtype=np.float64)
        sizes, many = np.unique(values[values > 0], return_counts=True)
        return cls(sizes, many.astype(np.float64), dim)

    @cached_property
    def K(self) -> int:
        return int(self.many.sum())

    @cached_property
    def N(self) -> int:
        return int(self.many @ self.sizes)

    @property
    def balanced(self) -> bool:
        return len(self.sizes) == 1

    @property
    def rank(self) -> int:
        """Largest possible rank of the centred class means."""
        return min(self.K - 1, self.D)

    def inverse_sum(self, power: int) -> float:
        """Sum over classes of 1 / n_k^power: class means of unit Gaussians have variance 1 / n_k."""
        return float(self.many @ self.sizes**-power)

    def mean_of_pairs(self, value: Callable[[Array, Array], Array]) -> float:
        """Mean over pairs of classes of a symmetric function of their sizes, a row of sizes at a time."""
        total = 0.0
        for index, size in enumerate(self.sizes):
            weights = self.many * self.many[index]
            weights[index] -= self.many[index]
            total += float(weights @ value(np.full_like(self.sizes, size), self.sizes))
        return total / (self.K * (self.K - 1))


_Level = Callable[[Setting], float | None]


def reference(name: str, counts: Sequence[int] | Tensor, dim: int) -> Reference:
    """Target, floor and null level of the metric `name` for classes of these sizes in `dim` dimensions.

    Classes without samples are left out; with fewer than two left, nothing is known. Null levels of ratios are ratios
    of expectations, good to a few per cent. Raises: KeyError for a name not in `REFERENCES`.
    """
    target, null = REFERENCES[name]
    setting = Setting.of(counts, dim)
    if setting.K < 2:
        return Reference(None)
    floor = _FLOORS[name](setting) if name in _FLOORS and dim < setting.K - 1 else None
    return Reference(target(setting), floor, null(setting))


# ---------------------------------------------------------------------- levels


def _constant(value: float) -> _Level:
    return lambda s: value


def _unknown(s: Setting) -> float | None:
    return None


def _null_nc1(s: Setting) -> float | None:
    """Inverse-Wishart mean: tr (P diag(1/n) P)^+ = N - sum n^2 / N, which for equal counts is n (K-1)."""
    if s.K < s.D:
        return (s.N - s.K) / s.N * (s.N - float(s.many @ s.sizes**2) / s.N) / (s.D - s.K)
    if s.balanced and s.D < s.K - 2:
        return (s.N / s.K - 1) * s.D / (s.K - s.D - 2)
    return None


def _null_nc1_undivided(s: Setting) -> float | None:
    level = _null_nc1(s)
    return None if level is None else level * s.K


def _null_nc1_balanced(s: Setting) -> float | None:
    return _null_nc1(s) if s.balanced else None


def _between(s: Setting) -> float:
    """E tr(S_B) / D for unit Gaussian features."""
    return (1 - 1 / s.K) * s.inverse_sum(1) / s.K


def _null_trace_ratio(s: Setting) -> float:
    return (s.N - s.K) / s.N / _between(s)


def _null_cdnv(s: Setting) -> float:
    """For equal counts (n-1)/2; the expectation of the ratio is D/(D-2) times this ratio of expectations."""
    return s.mean_of_pairs(lambda n, m: ((n - 1) / n + (m - 1) / m) / (2 * (1 / n + 1 / m)))


def _null_vci(s: Setting) -> float | None:
    """Mean of the matrix beta distribution, E tr (B + W)^-1 B = D b / (b + w); exact for equal counts."""
    if s.N - s.K < s.D or s.sizes[-1] > 2 * s.sizes[0]:
        return None
    return 1 - s.D * _between(s) / (_between(s) + (s.N - s.K) / s.N) / s.rank


def _null_equinorm(s: Setting) -> float:
    """Lengths are sqrt(c_k) times a chi variable with D degrees of freedom, c_k the variance of a centred mean."""
    chi = math.sqrt(2) * math.exp(math.lgamma((s.D + 1) / 2) - math.lgamma(s.D / 2))
    variances = (1 - 2 / s.K) / s.sizes + s.inverse_sum(1) / s.K**2
    mean_root, mean = s.many @ np.sqrt(variances) / s.K, s.many @ variances / s.K
    return math.sqrt(max(float(s.D * mean - (chi * mean_root) ** 2), 0.0)) / float(chi * mean_root)


def _null_participation_ratio(s: Setting) -> float:
    """(tr C)^2 / (tr C^2 + (tr C)^2 / D) with C = P diag(1/n) P, the Gram matrix's expectation."""
    trace = (1 - 1 / s.K) * s.inverse_sum(1)
    square = (1 - 2 / s.K) * s.inverse_sum(2) + s.inverse_sum(1) ** 2 / s.K**2
    return trace**2 / (square + trace**2 / s.D)


def _null_etf_error(s: Setting) -> float:
    return math.sqrt(max(2 - 2 * math.sqrt(_null_participation_ratio(s) / (s.K - 1)), 0.0))


def _null_rows_etf_error(s: Setting) -> float:
    """`_null_etf_error` of rows with equal variances, whatever the counts."""
    return math.sqrt(2 - 2 / math.sqrt(1 + (s.K - 1) / s.D))


def _null_log_kernel(s: Setting) -> float:
    """-ln(2 - 2 rho)/2 at the expected cosine rho, plus (1 + rho)^2 / 4D for its variance (1 - rho^2)^2 / D."""
    first, second = s.inverse_sum(1) / s.K**2, 1 / s.K

    def value(n: Array, m: Array) -> Array:
        own, other = ((1 - 2 * second) / x + first for x in (n, m))
        cosine = (first - second / n - second / m) / np.sqrt(own * other)
        return -np.log(2 - 2 * cosine) / 2 + (1 + cosine) ** 2 / (4 * s.D)

    return s.mean_of_pairs(value)


def _collapsed_rank(s: Setting) -> float | None:
    """K-1 eigenvalues of diag(p) - p p^T, p = n/N, interlace with p: all exceed 1e-3 of the largest if p does."""
    return s.K - 1 if s.sizes[0] > 1e-3 * s.sizes[-1] else None


def _null_rank(s: Setting) -> float | None:
    """Full rank where the edges of the Marchenko-Pastur law are less than 1e-3 apart in ratio."""
    few, many = sorted((s.D, s.N - 1))
    lowest, highest = math.sqrt(many) - math.sqrt(few), math.sqrt(many) + math.sqrt(few)
    return few if lowest**2 > 1e-3 * highest**2 else None


def _null_mean_angle(s: Setting) -> float:
    """Mean over the limit law of the angles t between two random subspaces of dimension qD.

    Where c = 2 sqrt(q (1-q)) >= cos(t) its density is sqrt(c^2 - cos^2(t)) / (pi q sin(t)); other angles are 0.
    Integrated by the midpoint rule in u, with cos(t) = c sin(u).
    """
    share = s.rank / s.D
    widest = 2 * math.sqrt(share * (1 - share))
    u = (np.arange(1000) + 0.5) * (math.pi / 2000)
    cosines = widest * np.sin(u)
    density = (widest * np.cos(u)) ** 2 / (math.pi * share * (1 - cosines**2))
    return math.degrees(float(np.arccos(cosines) @ density) * math.pi / 2000)


def _null_largest_angle(s: Setting) -> float:
    """90 degrees less E sigma / sqrt(r (D-r)), sigma the smallest singular value at the hard edge (Edelman 1988)."""
    if s.rank == s.D:
        return 0.0
    edge = math.sqrt(math.pi * math.e / 2) * math.erfc(math.sqrt(0.5))
    return 90 - math.degrees(edge / math.sqrt(s.rank * (s.D - s.rank)))


def _rank_floor(s: Setting) -> float:
    return math.sqrt(2 - 2 * math.sqrt(s.rank / (s.K - 1)))


def _edge(s: Setting) -> float:
    """Squared distance between two unit vectors of a simplex ETF."""
    return 2 * s.K / (s.K - 1)


def _random_cosine(s: Setting) -> float:
    """E|cos| of a random direction in D dimensions."""
    return math.exp(math.lgamma(s.D / 2) - math.lgamma((s.D + 1) / 2)) / math.sqrt(math.pi)


_zero, _one = _constant(0.0), _constant(1.0)

REFERENCES: dict[str, tuple[_Level, _Level]] = {
    "nc1": (_zero, _null_nc1),
    "nc1_undivided": (_zero, _null_nc1_undivided),
    "nc1_sample_centred": (_zero, _null_nc1_balanced),
    "nc1_discriminant": (_zero, _null_nc1_balanced),
    "nc1_class_balanced": (_zero, _null_nc1_balanced),
    "trace_ratio": (_zero, _null_trace_ratio),
    "trace_share": (_zero, lambda s: (s.N - s.K) / (s.N - 1)),
    "cdnv": (_zero, _null_cdnv),
    "cdnv_dist4": (_zero, _unknown),
    "directional_cdnv": (_zero, _unknown),
    "vci": (_zero, _null_vci),
    "within_trace": (_zero, _unknown),
    "between_trace": (_unknown, _unknown),
    "within_in_mean_span": (_unknown, lambda s: s.rank / s.D),
    "numerical_rank": (_collapsed_rank, _null_rank),
    "equinorm": (_zero, _null_equinorm),
    "equinorm_ddof0": (_zero, _null_equinorm),
    "classifier_equinorm": (_zero, _unknown),
    "equiangularity": (_zero, _unknown),
    "equiangularity_ddof0": (_zero, _unknown),
    "classifier_equiangularity": (_zero, _unknown),
    "maximal_angle_deviation": (_zero, _unknown),
    "mean_cosine": (lambda s: -1 / (s.K - 1), _unknown),
    "minimum_angle": (lambda s: math.degrees(math.acos(-1 / (s.K - 1))), _unknown),
    "etf_error": (_zero, _null_etf_error),
    "classifier_etf_error": (_zero, _unknown),
    "classifier_etf_error_centred": (_zero, _null_rows_etf_error),
    "etf_distance": (_zero, _unknown),
    "one_vs_rest_distance": (lambda s: s.K / (s.K - 1) if s.D >= s.K - 1 else None, _unknown),
    "participation_ratio": (lambda s: s.K - 1, _null_participation_ratio),
    "log_kernel_mean": (
        lambda s: -math.log(_edge(s)) / 2,
        _null_log_kernel,
    ),
    "log_kernel_variance": (_zero, _unknown),
    "log_kernel_cv": (_zero, _unknown),
    "distance_mean": (lambda s: math.sqrt(_edge(s)), _unknown),
    "distance_variance": (_zero, _unknown),
    "distance_cv": (_zero, _unknown),
    "riesz_mean": (lambda s: 1 / math.sqrt(_edge(s)), _unknown),
    "riesz_cv": (_zero, _unknown),
    "self_duality_distance": (_zero, _constant(2.0)),
    "self_duality_distance_root": (_zero, _constant(math.sqrt(2))),
    "self_duality_error": (_zero, _constant(math.sqrt(2))),
    "self_duality_error_sample_centred": (_zero, _constant(math.sqrt(2))),
    "nc3_cosine": (_one, _zero),
    "nc3_misalignment": (_zero, _one),
    "unc3_variance": (_zero, lambda s: (1 - 1 / s.K) / s.D),
    "unc3_cv": (_zero, _unknown),
    "duality_distance": (_zero, _constant(math.sqrt(2))),
    "mean_principal_angle": (_zero, _null_mean_angle),
    "largest_principal_angle": (_zero, _null_largest_angle),
    "bias_collapse": (_zero, _unknown),
    "bias_collapse_sample_centred": (_zero, _unknown),
    "ncc_mismatch": (_zero, lambda s: 1 - 1 / s.K),
    "ncc_agreement": (_one, lambda s: 1 / s.K),
    "ncc_mismatch_class_weighted": (_zero, lambda s: 1 - 1 / s.K),
    "ncc_agreement_class_weighted": (_one, lambda s: 1 / s.K),
    "ncc_accuracy": (_one, _unknown),
    "classifier_accuracy": (_one, lambda s: 1 / s.K),
    "ood_orthogonality": (_zero, _random_cosine),
}
"""Target and null level of every metric, as functions of the setting."""

_FLOORS: dict[str, Callable[[Setting], float | None]] = {
    "etf_error": _rank_floor,
    "classifier_etf_error": _rank_floor,
    "classifier_etf_error_centred": _rank_floor,
    "etf_distance": _rank_floor,
    "self_duality_error": _rank_floor,
    "self_duality_error_sample_centred": _rank_floor,
    "participation_ratio": lambda s: s.rank,
    "numerical_rank": lambda s: s.rank,
    "one_vs_rest_distance": lambda s: 1.0 if s.K <= 2 * s.D else None,
}
