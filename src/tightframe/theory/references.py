"""`REFERENCES`: for every metric its target at collapse, the floor where D < K - 1, and its null level.

The null level is the expected value without class structure: same counts and dimension, all features drawn from one
isotropic Gaussian, a classifier unrelated to the features. Levels marked "balanced" are None for unequal counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


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
    """Counts and dimension of a data set, classes without samples left out: K classes, N samples, D dimensions."""

    counts: tuple[int, ...]
    D: int

    @property
    def K(self) -> int:
        return len(self.counts)

    @property
    def N(self) -> int:
        return sum(self.counts)

    @property
    def balanced(self) -> bool:
        return len(set(self.counts)) == 1

    @property
    def rank(self) -> int:
        """Largest possible rank of the centred class means."""
        return min(self.K - 1, self.D)


_Level = Callable[[Setting], float | None]


def reference(name: str, counts: Sequence[int] | Tensor, dim: int) -> Reference:
    """Target, floor and null level of the metric `name` for classes of these sizes in `dim` dimensions.

    Classes without samples are left out; at least two must remain. Raises: KeyError for a name not in `REFERENCES`.
    """
    sizes = counts.tolist() if isinstance(counts, Tensor) else counts
    setting = Setting(tuple(int(size) for size in sizes if size > 0), dim)
    target, null = REFERENCES[name]
    if setting.K < 2:
        return Reference(None)
    floor = _FLOORS[name](setting) if name in _FLOORS and dim < setting.K - 1 else None
    return Reference(target(setting), floor, null(setting))


# ---------------------------------------------------------------------- levels


def _constant(value: float) -> _Level:
    return lambda s: value


def _unknown(s: Setting) -> float | None:
    return None


def _balanced(level: Callable[[Setting], float]) -> _Level:
    return lambda s: level(s) if s.balanced else None


def _null_nc1(s: Setting) -> float | None:
    """Inverse-Wishart mean: tr (P diag(1/n) P)^+ = N - sum n^2 / N, which for equal counts is n (K-1)."""
    if s.K < s.D:
        return (s.N - s.K) / s.N * (s.N - sum(n * n for n in s.counts) / s.N) / (s.D - s.K)
    if s.balanced and s.D < s.K - 2:
        return (s.N / s.K - 1) * s.D / (s.K - s.D - 2)
    return None


def _null_nc1_undivided(s: Setting) -> float | None:
    level = _null_nc1(s)
    return None if level is None else level * s.K


def _null_trace_ratio(s: Setting) -> float:
    return (s.N - s.K) / s.N * s.K / ((1 - 1 / s.K) * sum(1 / n for n in s.counts))


def _null_cdnv(s: Setting) -> float:
    """Mean over pairs of the ratio of expectations; pairs of classes are grouped by their sizes."""
    sizes: dict[int, int] = {}
    for n in s.counts:
        sizes[n] = sizes.get(n, 0) + 1
    total = 0.0
    for n, many in sizes.items():
        for m, others in sizes.items():
            pairs = many * (others - (n == m)) / 2
            total += pairs * ((n - 1) / n + (m - 1) / m) / (2 * (1 / n + 1 / m))
    return total / (s.K * (s.K - 1) / 2)


def _null_vci(s: Setting) -> float | None:
    """Mean of the matrix beta distribution of B (B + W)^-1."""
    return 1 - s.D * (s.K - 1) / ((s.N - 1) * s.rank) if s.balanced and s.N - 1 > s.D else None


def _null_equinorm(s: Setting) -> float:
    """Coefficient of variation of the chi distribution with D degrees of freedom."""
    mean = math.sqrt(2) * math.exp(math.lgamma((s.D + 1) / 2) - math.lgamma(s.D / 2))
    return math.sqrt(max(s.D - mean * mean, 0.0)) / mean


def _random_etf_error(s: Setting) -> float:
    return math.sqrt(2 - 2 / math.sqrt(1 + (s.K - 1) / s.D))


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
    "nc1_sample_centred": (_zero, lambda s: _null_nc1(s) if s.balanced else None),
    "nc1_discriminant": (_zero, lambda s: _null_nc1(s) if s.balanced else None),
    "nc1_class_balanced": (_zero, lambda s: _null_nc1(s) if s.balanced else None),
    "trace_ratio": (_zero, _null_trace_ratio),
    "trace_share": (_zero, lambda s: (s.N - s.K) / (s.N - 1)),
    "cdnv": (_zero, _null_cdnv),
    "cdnv_dist4": (_zero, _unknown),
    "directional_cdnv": (_zero, _unknown),
    "vci": (_zero, _null_vci),
    "within_trace": (_zero, _unknown),
    "between_trace": (_unknown, _unknown),
    "within_in_mean_span": (_unknown, lambda s: s.rank / s.D),
    "equinorm": (_zero, _balanced(_null_equinorm)),
    "equinorm_ddof0": (_zero, _balanced(_null_equinorm)),
    "classifier_equinorm": (_zero, _unknown),
    "equiangularity": (_zero, _unknown),
    "equiangularity_ddof0": (_zero, _unknown),
    "classifier_equiangularity": (_zero, _unknown),
    "maximal_angle_deviation": (_zero, _unknown),
    "mean_cosine": (lambda s: -1 / (s.K - 1), _unknown),
    "minimum_angle": (lambda s: math.degrees(math.acos(-1 / (s.K - 1))), _unknown),
    "etf_error": (_zero, _balanced(_random_etf_error)),
    "classifier_etf_error": (_zero, _unknown),
    "classifier_etf_error_centred": (_zero, _random_etf_error),
    "etf_distance": (_zero, _unknown),
    "participation_ratio": (lambda s: s.K - 1, _balanced(lambda s: (s.K - 1) / (1 + (s.K - 1) / s.D))),
    "log_kernel_mean": (
        lambda s: -math.log(_edge(s)) / 2,
        _balanced(lambda s: -math.log(_edge(s)) / 2 + 1 / (4 * s.D)),
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

_FLOORS: dict[str, Callable[[Setting], float]] = {
    "etf_error": _rank_floor,
    "classifier_etf_error": _rank_floor,
    "classifier_etf_error_centred": _rank_floor,
    "etf_distance": _rank_floor,
    "self_duality_error": _rank_floor,
    "self_duality_error_sample_centred": _rank_floor,
    "participation_ratio": lambda s: s.rank,
}
