"""`REFERENCES`: for every metric its target at collapse, the floor where D < K - 1, its null and its random level.

The null level is the expected value without class structure: same counts and dimension, all features drawn from one
isotropic Gaussian about the origin, a classifier unrelated to the features. The class means are then Gaussian too, with
variances 1 / n_k. The random level is the expected value of a measure of shape for class means in K independent random
Gaussian directions: of one variance, whatever the counts. The two are equal where the counts are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tightframe.bounds import cosine_bound
from tightframe.certificate import best_known
from tightframe.theory.seli import seli
from tightframe.theory.setting import Array, Setting


@dataclass(frozen=True)
class Reference:
    """What to compare a metric's value with; None where no value is known.

    Attributes:
        target: value at perfect collapse onto a simplex ETF, or None for numbers without an ideal.
        floor: best value that D dimensions allow, where that is not the target.
        null: expected value without class structure.
        random: expected value for K random Gaussian directions as class means, for measures of the means' shape only.
    """

    target: float | None
    floor: float | None = None
    null: float | None = None
    random: float | None = None


_Level = Callable[[Setting], float | None]

_LARGEST_GRAM = 500  # classes up to which K x K matrices are decomposed for a level


def reference(name: str, counts: Sequence[int] | Tensor, dim: int) -> Reference:
    """Target, floor, null and random level of the metric `name` for classes of these sizes in `dim` dimensions.

    Classes without samples are left out; with fewer than two left, nothing is known. Null levels of ratios are ratios
    of expectations, good to a few per cent. Raises: KeyError for a name not in `REFERENCES`.
    """
    return reference_in(Setting.of(counts, dim), name)


@lru_cache(maxsize=1024)  # the measurements of a run have the same counts
def reference_in(setting: Setting, name: str) -> Reference:
    """`reference` where the setting is known."""
    target, null = REFERENCES[name]
    if setting.K < 2:
        return Reference(None)
    floor = _FLOORS[name](setting) if name in _FLOORS and setting.D < setting.K - 1 else None
    random = null(setting.evened) if name in _OF_SHAPE else None
    levels = (target(setting), floor, null(setting), random)
    return Reference(*(None if level is None else float(level) for level in levels))  # no numpy scalar: they're saved


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
    if s.K == 2:
        return 1.0
    trace = (1 - 1 / s.K) * s.inverse_sum(1)
    square = (1 - 2 / s.K) * s.inverse_sum(2) + s.inverse_sum(1) ** 2 / s.K**2
    return trace**2 / (square + trace**2 / s.D)


def _null_etf_error(s: Setting) -> float:
    return math.sqrt(max(2 - 2 * math.sqrt(_null_participation_ratio(s) / (s.K - 1)), 0.0))


def _null_seli_error(s: Setting) -> float | None:
    """sqrt(2 - 2 <C, T> / (|T| sqrt(E|G|^2))) with C = P diag(1/n) P, the Gram matrix's expectation, and T SELI's."""
    if s.K > _LARGEST_GRAM:
        return None
    target = seli(s.counts.tolist()).means.numpy()
    centring = np.eye(s.K) - 1 / s.K
    expected = centring @ (centring / s.counts[:, None])
    square = float((expected**2).sum() + expected.trace() ** 2 / s.D)  # about, as in the participation ratio
    overlap = float((expected * target).sum()) / math.sqrt(square * float((target**2).sum()))
    return math.sqrt(max(2 - 2 * overlap, 0.0))


def _null_classifier_seli_error(s: Setting) -> float | None:
    """The same for rows of one variance, whose expected Gram matrix is a multiple of P."""
    if s.K > _LARGEST_GRAM:
        return None
    target = seli(s.counts.tolist()).classifiers.numpy()
    overlap = float(target.trace()) / math.sqrt((s.K - 1) * (1 + (s.K - 1) / s.D) * float((target**2).sum()))
    return math.sqrt(max(2 - 2 * overlap, 0.0))


def _null_rows_etf_error(s: Setting) -> float:
    """`_null_etf_error` of rows with equal variances, whatever the counts: sqrt(2 - 2 / sqrt(1 + (K-1)/D))."""
    return _null_etf_error(s.evened)


def _null_classifier_etf_error(s: Setting) -> float:
    """Of K Gaussian rows with Gram matrix G: E tr(P G) = (K-1) D and E |G|^2 = K D (K + D + 1)."""
    return math.sqrt(2 - 2 * math.sqrt((s.K - 1) * s.D / (s.K * (s.K + s.D + 1))))


def _null_etf_distance(s: Setting) -> float | None:
    """From the mean singular value of a p x q Gaussian matrix, over the Marchenko-Pastur law of ratio c <= 1.

    c is such that the law has the variance that squared singular values have, relative to their mean, at finite sizes.
    """
    if not s.balanced:
        return None
    p, q = sorted((s.K - 1, s.D))
    ratio = min((p + 2) * (p - 1) / (p * q + 2), 1.0)
    if ratio == 0:
        return _rank_floor(s)
    t = (np.arange(1000) + 0.5) * (math.pi / 1000)
    squares = 1 + ratio - 2 * math.sqrt(ratio) * np.cos(t)
    root = float((2 * np.sin(t) ** 2 / squares) @ np.sqrt(squares)) / 1000
    return math.sqrt(max(2 - 2 * root * math.sqrt(p / (s.K - 1)), 0.0))


def _null_classifier_equinorm(s: Setting) -> float:
    """Lengths of K Gaussian rows are chi variables; the standard deviation of few is low by the factor c4(K)."""
    chi = math.sqrt(2) * math.exp(math.lgamma((s.D + 1) / 2) - math.lgamma(s.D / 2))
    low = math.sqrt(2 / (s.K - 1)) * math.exp(math.lgamma(s.K / 2) - math.lgamma((s.K - 1) / 2))
    return low * math.sqrt(s.D - chi**2) / chi


def _null_directional_cdnv(s: Setting) -> float | None:
    """Exact: variances (n-1)/n along any direction, and E 1/|gap|^2 = 1 / ((1/n + 1/m) (D - 2))."""
    return _null_cdnv(s) / (s.D - 2) if s.D > 2 else None


def _null_minimum_angle(s: Setting) -> float:
    """Expected smallest angle of K(K-1)/2 pairs taken as independent: the integral of P[none is smaller]."""
    angles, shares = s.angles
    below = np.minimum(np.cumsum(shares) - shares / 2, 1 - 1e-15)
    none = np.exp(s.K * (s.K - 1) / 2 * np.log1p(-below))
    return math.degrees(float(none @ np.gradient(angles)))


def _null_ncc_accuracy(s: Setting) -> float:
    """By chance a sample of the statistics is nearer to its own class's mean, which it is a part of, than to another.

    Given R = |x|^2, (n^2 / (n-1)) |x - own mean|^2 and m |x - other mean|^2 are non-central chi-squared variables of D
    degrees, about (n-1) R and m R. Cube roots of such are nearly normal (Abdel-Aty 1954): integrated over both.
    """
    total = 0.0
    z = np.linspace(-6, 6, 121)
    mass = np.exp(-(z**2) / 2)
    roots, shares = np.polynomial.hermite_e.hermegauss(9)
    for root, share in zip(roots, shares / shares.sum(), strict=True):
        centre, mean, deviation = _cube_root(s.D, np.zeros(1))
        R = float(centre[0] * max(mean[0] + deviation[0] * root, 0.0) ** 3)
        centre, mean, deviation = _cube_root(s.D, (s.sizes - 1) * R)
        own = (mean[:, None] + deviation[:, None] * z).clip(0) ** 3 * (centre * (s.sizes - 1) / s.sizes**2)[:, None]
        table = np.linspace(0, own.max(), 1000)
        logs = _log_farther(s, R, table, slice(None)) @ s.many
        for index, (size, number) in enumerate(zip(s.sizes, s.many, strict=True)):
            itself = _log_farther(s, R, own[index], slice(index, index + 1))[:, 0]
            total += share * float(number * size * (mass @ np.exp(np.interp(own[index], table, logs) - itself)))
    return total / mass.sum() / s.N


def _log_farther(s: Setting, R: float, squares: Array, rows: slice) -> Array:
    """log P[|x - mean of m others|^2 > square], (squares, sizes m), for |x|^2 = R."""
    centre, mean, deviation = _cube_root(s.D, s.sizes[rows] * R)
    gaps = (mean - np.cbrt(squares[:, None] * s.sizes[rows] / centre)) / deviation
    return np.asarray(torch.special.log_ndtr(torch.from_numpy(gaps)).numpy())


def _cube_root(dim: int, about: Array) -> tuple[Array, Array, Array]:
    """c = D + l of a non-central chi-squared variable x, and mean and standard deviation of (x / c)^(1/3)."""
    centre = dim + about
    variance = 2 * (dim + 2 * about) / (9 * centre**2)
    return centre, 1 - variance, np.sqrt(variance)


def _over_pairs(value: Callable[[Array], Array]) -> _Level:
    """Mean over pairs of a function of the angle; None where it is infinite."""

    def level(s: Setting) -> float | None:
        mean = s.mean_of_angles(value)
        return mean if math.isfinite(mean) else None

    return level


def _variance_over_pairs(value: Callable[[Array], Array]) -> Callable[[Setting], float]:
    def level(s: Setting) -> float:
        mean = s.mean_of_angles(value)
        return s.mean_of_angles(lambda t: value(t) - mean, moment=2)

    return level


def _deviation_over_pairs(value: Callable[[Array], Array], relative: bool) -> _Level:
    """Standard deviation over pairs of a function of the angle, or that over the absolute mean."""
    variance = _variance_over_pairs(value)
    return lambda s: math.sqrt(variance(s)) / (abs(s.mean_of_angles(value)) if relative else 1.0)


def _from(classes: int, dims: int, level: _Level) -> _Level:
    """The level from so many classes and dimensions on, below which it isn't good to a few per cent."""

    def where_good(s: Setting) -> float | None:
        return None if classes > s.K or dims > s.D else level(s)

    return where_good


def _chord(angles: Array) -> Array:
    return 2 * np.sin(angles / 2)


def _log_chord(angles: Array) -> Array:
    return -np.log(_chord(angles))


def _reciprocal_chord(angles: Array) -> Array:
    return 1 / _chord(angles)


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


def _angle_floor(s: Setting) -> float:
    """The largest angle that K vectors in R^D can keep: of a proven optimum, or else a bound on it."""
    cosine = cosine_bound(s.K, s.D).value
    code = best_known(s.K, s.D) if s.D > 1 else None
    if code is not None and code.optimal and (code.num_vectors, code.dim) == (s.K, s.D):
        cosine = max(cosine, code.cosine)
    return math.degrees(math.acos(min(cosine, 1.0)))


def _one_vs_rest_floor(s: Setting) -> float | None:
    """0 on a line, where two rows coincide; 1 - cos(2 pi/K) on the circle; 1 for D + 2 <= K <= 2D; else open."""
    if s.D <= 2:
        return 0.0 if s.D == 1 else 1 - math.cos(2 * math.pi / s.K)
    return 1.0 if s.K <= 2 * s.D else None


def _edge(s: Setting) -> float:
    """Squared distance between two unit vectors of a simplex ETF."""
    return 2 * s.K / (s.K - 1)


def _random_cosine(s: Setting) -> float:
    """E|cos| of a random direction in D dimensions."""
    return math.exp(math.lgamma(s.D / 2) - math.lgamma((s.D + 1) / 2)) / math.sqrt(math.pi)


def _simplex_cosine(s: Setting) -> float:
    return -1 / (s.K - 1)


_zero, _one = _constant(0.0), _constant(1.0)

REFERENCES: dict[str, tuple[_Level, _Level]] = {
    "nc1": (_zero, _null_nc1),
    "nc1_undivided": (_zero, _null_nc1_undivided),
    "nc1_sample_centred": (_zero, _null_nc1_balanced),
    "nc1_discriminant": (_zero, _null_nc1_balanced),
    "nc1_class_balanced": (_zero, _null_nc1_balanced),
    "trace_ratio": (_zero, _null_trace_ratio),
    "trace_ratio_debiased": (_zero, _unknown),
    "trace_share": (_zero, lambda s: (s.N - s.K) / (s.N - 1)),
    "cdnv": (_zero, _null_cdnv),
    "cdnv_debiased": (_zero, _unknown),
    "cdnv_dist4": (_zero, _unknown),
    "directional_cdnv": (_zero, _null_directional_cdnv),
    "vci": (_zero, _null_vci),
    "within_trace": (_zero, _unknown),
    "between_trace": (_unknown, _unknown),
    "between_trace_debiased": (_unknown, _zero),
    "within_in_mean_span": (_unknown, lambda s: s.rank / s.D),
    "numerical_rank": (_collapsed_rank, _null_rank),
    "equinorm": (_zero, _null_equinorm),
    "equinorm_ddof0": (_zero, _null_equinorm),
    "classifier_equinorm": (_zero, _null_classifier_equinorm),
    "equiangularity": (_zero, _from(5, 2, _deviation_over_pairs(np.cos, False))),
    "equiangularity_ddof0": (_zero, _from(5, 2, _deviation_over_pairs(np.cos, False))),
    "classifier_equiangularity": (_zero, _from(5, 2, lambda s: s.D**-0.5)),
    "maximal_angle_deviation": (
        _zero,
        lambda s: s.mean_of_angles(lambda t: np.abs(np.cos(t) + 1 / (s.K - 1))),
    ),
    "mean_cosine": (_simplex_cosine, _over_pairs(np.cos)),
    "mean_cosine_uncentred": (_unknown, _zero),
    "classifier_mean_cosine": (_unknown, _zero),
    "classifier_mean_cosine_centred": (_simplex_cosine, lambda s: _over_pairs(np.cos)(s.evened)),
    "minimum_angle": (lambda s: math.degrees(math.acos(-1 / (s.K - 1))), _from(6, 3, _null_minimum_angle)),
    "etf_error": (_zero, _null_etf_error),
    "classifier_etf_error": (_zero, _from(6, 2, _null_classifier_etf_error)),
    "classifier_etf_error_centred": (_zero, _null_rows_etf_error),
    "etf_distance": (_zero, _from(6, 2, _null_etf_distance)),
    "seli_error": (_zero, _null_seli_error),
    "classifier_seli_error": (_zero, _null_classifier_seli_error),
    "one_vs_rest_distance": (lambda s: s.K / (s.K - 1) if s.D >= s.K - 1 else None, _unknown),
    "participation_ratio": (lambda s: s.K - 1, _null_participation_ratio),
    "log_kernel_mean": (
        lambda s: -math.log(_edge(s)) / 2,
        _over_pairs(_log_chord),
    ),
    "log_kernel_variance": (_zero, _from(5, 3, _variance_over_pairs(_log_chord))),
    "log_kernel_cv": (_zero, _from(6, 4, _deviation_over_pairs(_log_chord, True))),
    "distance_mean": (lambda s: math.sqrt(_edge(s)), _over_pairs(_chord)),
    "distance_variance": (_zero, _from(5, 2, _variance_over_pairs(_chord))),
    "distance_cv": (_zero, _from(5, 2, _deviation_over_pairs(_chord, True))),
    "riesz_mean": (lambda s: 1 / math.sqrt(_edge(s)), _from(2, 3, _over_pairs(_reciprocal_chord))),
    "riesz_cv": (_zero, _from(6, 8, _deviation_over_pairs(_reciprocal_chord, True))),
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
    "ncc_accuracy": (_one, _null_ncc_accuracy),
    "classifier_accuracy": (_one, lambda s: 1 / s.K),
    "ood_orthogonality": (_zero, _random_cosine),
}
"""Target and null level of every metric, as functions of the setting."""

_OF_SHAPE = frozenset(REFERENCES) - {
    *("nc1", "nc1_undivided", "nc1_sample_centred", "nc1_discriminant", "nc1_class_balanced", "trace_ratio"),
    *("trace_ratio_debiased", "trace_share", "cdnv", "cdnv_debiased", "cdnv_dist4", "directional_cdnv", "vci"),
    *("within_trace", "between_trace", "between_trace_debiased", "within_in_mean_span", "numerical_rank"),
    *("ncc_mismatch", "ncc_agreement", "ncc_mismatch_class_weighted", "ncc_agreement_class_weighted"),
    *("ncc_accuracy", "classifier_accuracy", "seli_error", "classifier_seli_error"),
}
"""Metrics of the directions of class means and classifier rows alone; the others compare samples with them, or go by
the counts."""

_FLOORS: dict[str, Callable[[Setting], float | None]] = {
    "etf_error": _rank_floor,
    "classifier_etf_error": _rank_floor,
    "classifier_etf_error_centred": _rank_floor,
    "etf_distance": _rank_floor,
    "self_duality_error": _rank_floor,
    "self_duality_error_sample_centred": _rank_floor,
    "participation_ratio": lambda s: s.rank,
    "numerical_rank": lambda s: s.rank,
    "one_vs_rest_distance": _one_vs_rest_floor,
    "minimum_angle": _angle_floor,
}
