"""Levels without class structure where the features are isotropic Gaussian ones: closed forms, limits of what is drawn.

Class means of n samples are then Gaussian with variance 1 / n in every direction, and independent of the scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import hyp2f1, log_ndtr, ndtri

Array = npt.NDArray[np.float64]


def expected(counts: Sequence[int], D: int) -> dict[str, float]:
    """What metrics give on average for classes of these sizes in D dimensions, K >= 3; ratios are of expectations."""
    n = np.asarray(counts, dtype=np.float64)
    K, N = len(n), n.sum()
    balanced = n.min() == n.max()
    rank = min(K - 1, D)
    between = (1 - 1 / K) * (1 / n).mean()  # E tr(S_B) / D
    ratio = _over_pairs(n, lambda a, b: ((a - 1) / a + (b - 1) / b) / (2 * (1 / a + 1 / b)))
    levels = {
        "trace_ratio": (N - K) / N / between,
        "trace_share": (N - K) / (N - 1),
        "cdnv": ratio * D / (D - 2),  # E 1/|gap|^2 is D/(D-2) times 1/E|gap|^2
        "within_in_mean_span": rank / D,
        "equinorm": _relative_spread_of_lengths(n, D),
        "participation_ratio": _participation(n, D),
        "etf_error": math.sqrt(2 - 2 * math.sqrt(_participation(n, D) / (K - 1))),
        "self_duality_distance": 2.0,
        "self_duality_error": math.sqrt(2),
        "duality_distance": math.sqrt(2),
        "nc3_cosine": 0.0,
        "principal_angle": principal_angle(rank, D),
        "ncc_accuracy": ncc_accuracy(n, D),
        **_of_angles(n, D),
    }
    if K < D:  # the mean of an inverse Wishart variable; tr (P diag(1/n) P)^+ = N - sum n^2 / N
        levels["nc1"] = (N - K) / N * (N - (n**2).sum() / N) / (D - K)
    elif balanced and D < K - 2:
        levels["nc1"] = (N / K - 1) * D / (K - D - 2)
    if balanced and N - K >= D:  # the mean of a matrix beta variable, E tr (B + W)^-1 B = D b / (b + w)
        levels["vci"] = 1 - D * between / (between + (N - K) / N) / rank
    if balanced:
        levels |= {"ncc_mismatch": 1 - 1 / K, "classifier_accuracy": 1 / K}
    if D > 2:
        levels["directional_cdnv"] = ratio / (D - 2)  # exact: variances (n-1)/n along any direction
    return levels


def _over_pairs(n: Array, value: Callable[[float, float], float]) -> float:
    return float(np.mean([value(a, b) for a, b in combinations(n, 2)]))


def _gram(n: Array) -> Array:
    """(K, K) covariance of the coordinates of the centred class means, P diag(1/n) P."""
    centring = np.eye(len(n)) - 1 / len(n)
    return np.asarray(centring @ (centring / n[:, None]))


def _relative_spread_of_lengths(n: Array, D: int) -> float:
    """Lengths are sqrt(c_k) times a chi variable with D degrees of freedom, c_k the variance of a centred mean."""
    chi = math.sqrt(2) * math.exp(math.lgamma((D + 1) / 2) - math.lgamma(D / 2))
    variances = _gram(n).diagonal()
    means = chi * np.sqrt(variances)
    return math.sqrt((D - chi**2) * variances.mean() + means.var(ddof=1)) / float(means.mean())


def _participation(n: Array, D: int) -> float:
    """(tr C)^2 / (tr C^2 + (tr C)^2 / D)."""
    gram = _gram(n)
    return float(gram.trace() ** 2 / ((gram**2).sum() + gram.trace() ** 2 / D))


def _of_angles(n: Array, D: int) -> dict[str, float]:
    """Means over the angles of all pairs; their smallest as if pairs were independent."""
    K = len(n)
    angles, shares = pair_angles(n, D)
    chords, cosines = 2 * np.sin(angles / 2), np.cos(angles)
    below = np.minimum(np.cumsum(shares) - shares / 2, 1 - 1e-15)
    none = np.exp(K * (K - 1) / 2 * np.log1p(-below))
    mean = float(shares @ cosines)
    return {
        "mean_cosine": mean,
        "equiangularity": math.sqrt(shares @ (cosines - mean) ** 2),
        "maximal_angle_deviation": float(shares @ np.abs(cosines + 1 / (K - 1))),
        "log_kernel": float(shares @ -np.log(chords)),
        "distance_kernel": float(shares @ chords),
        "riesz_kernel": float(shares @ (1 / chords)),
        "minimum_angle": math.degrees(float(none @ np.gradient(angles))),
    }


_STEPS = (np.arange(4096) + 0.5) / 4096
_ANGLES = math.pi * _STEPS**2 * (3 - 2 * _STEPS)  # of the midpoint rule, densest where pairs are nearest


def pair_angles(n: Array, D: int) -> tuple[Array, Array]:
    """Angles between two centred Gaussian means, D >= 2, and the share of pairs that has each.

    Hotelling's density of a correlation coefficient without means subtracted, up to the factor that makes it one:
    sin^(D-2) t (1 - rho r)^(1/2 - D) F(1/2, 1/2; D + 1/2; (1 + rho r)/2) with r = cos t.
    """
    gram = _gram(n)
    sizes = np.sqrt(gram.diagonal())
    values = (gram / sizes / sizes[:, None])[np.triu_indices(len(n), 1)].round(12)
    total = np.zeros(len(_ANGLES))
    for rho, number in zip(*np.unique(values, return_counts=True), strict=True):
        cosines = np.cos(_ANGLES)
        density = (D - 2) * np.log(np.sin(_ANGLES)) - (D - 0.5) * np.log1p(-rho * cosines)
        density = np.exp(density - density.max()) * hyp2f1(0.5, 0.5, D + 0.5, (1 + rho * cosines) / 2)
        density *= _STEPS * (1 - _STEPS)
        total += number * density / density.sum()
    return _ANGLES, total / total.sum()


def principal_angle(rank: int, D: int) -> float:
    """Mean in degrees over the limit law of the angles t between two random subspaces of dimension q D.

    Where c = 2 sqrt(q (1-q)) >= cos(t) its density is sqrt(c^2 - cos^2(t)) / (pi q sin(t)); other angles are 0.
    Integrated by the midpoint rule in u, with cos(t) = c sin(u).
    """
    q = rank / D
    widest = 2 * math.sqrt(q * (1 - q))
    u = (np.arange(1000) + 0.5) * (math.pi / 2000)
    cosines = widest * np.sin(u)
    density = (widest * np.cos(u)) ** 2 / (math.pi * q * (1 - cosines**2))
    return math.degrees(float(np.arccos(cosines) @ density) * math.pi / 2000)


def ncc_accuracy(n: Array, D: int, nodes: int = 101) -> float:
    """Share of the samples that are nearest to the mean of their class, which they are a part of.

    Given R = |x|^2, (n^2 / (n-1)) |x - own mean|^2 and m |x - other mean|^2 are non-central chi-squared variables of D
    degrees about (n-1) R and m R: their cube roots are nearly normal (Abdel-Aty 1954). All are integrated over.
    """

    def cube_root(about: Array | float) -> tuple[Array, Array, Array]:
        centre = np.asarray(D + about, dtype=np.float64)
        variance = 2 * (D + 2 * np.asarray(about)) / (9 * centre**2)
        return centre, 1 - variance, np.sqrt(variance)

    def quantiles(about: float) -> Array:
        centre, mean, deviation = cube_root(about)
        return np.asarray(centre * (mean + deviation * ndtri((np.arange(nodes) + 0.5) / nodes)).clip(0) ** 3)

    total = 0.0
    alike = list(zip(*np.unique(n, return_index=True, return_counts=True), strict=True))  # size, a class, how many
    for R in quantiles(0.0):
        centre, mean, deviation = cube_root(n * R)
        for size, k, classes in alike:
            own = quantiles((size - 1) * R) * (size - 1) / size**2
            gaps = (mean - np.cbrt(own[:, None] * n / centre)) / deviation
            logs = np.delete(log_ndtr(gaps), k, 1).sum(1)
            total += classes * size * float(np.exp(logs).mean())
    return total / nodes / float(n.sum())
