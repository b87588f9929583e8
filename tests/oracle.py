"""Slow, plain second implementation of every metric, to test the package against.

Nothing here comes from the package. Each metric is written as its definition, with loops over classes,
pairs and samples. Arithmetic is in `np.longdouble`; every class is shifted by one of its own samples before
it is averaged, so data far from the origin lose nothing. Undefined values come out as nan or inf.
What many metrics read of a sample or a matrix is computed once: arrays of a sample must not be changed.

N samples, K classes that have at least one sample, D dims, M out-of-distribution samples.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

REAL = np.longdouble


@dataclass(frozen=True, eq=False)  # a key of caches
class Sample:
    """A labelled data set; a linear classifier and out-of-distribution features where a metric needs them."""

    features: Array  # (N, D)
    labels: Array  # (N,), each in 0 .. num_classes - 1
    num_classes: int
    weight: Array | None = None  # (num_classes, D)
    bias: Array | None = None  # (num_classes,)
    outside: Array | None = None  # (M, D)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if len(labels) != len(self.features):
            raise ValueError("features and labels differ in length")
        if np.any(labels < 0) or np.any(labels >= self.num_classes):
            raise ValueError("a label lies outside 0 .. num_classes - 1")


ORACLE: dict[str, Callable[[Sample], float]] = {}


def _metric(name: str) -> Callable[[Callable[[Sample], Any]], Callable[[Sample], float]]:
    """Enter a function into ORACLE under `name`: its result a float, its divisions by zero silent."""

    def enter(function: Callable[[Sample], Any]) -> Callable[[Sample], float]:
        def evaluate(sample: Sample) -> float:
            with np.errstate(all="ignore"):
                return float(function(sample))

        evaluate.__name__ = function.__name__
        evaluate.__doc__ = function.__doc__
        ORACLE[name] = evaluate
        return evaluate

    return enter


# ---------------------------------------------------------------------------------------------- numbers


def _real(values: Any) -> Array:
    return np.asarray(values, dtype=REAL)


def _total(values: Sequence[Any]) -> Any:
    total = REAL(0)
    for value in values:
        total = total + value
    return total


def _mean(values: Sequence[Any]) -> Any:
    """Arithmetic mean; nan for an empty list."""
    return _total(values) / REAL(len(values))


def _defined(values: Sequence[Any]) -> list[Any]:
    """Those that are numbers: of pairs whose means coincide, or have no direction, there is none."""
    return [value for value in values if np.isfinite(value)]


def _variance(values: Sequence[Any], ddof: int) -> Any:
    """Two-pass variance; nan when fewer than ddof + 1 values are given."""
    centre = _mean(values)
    return _total([(value - centre) ** 2 for value in values]) / REAL(max(len(values) - ddof, 0))


def _std(values: Sequence[Any], ddof: int) -> Any:
    return np.sqrt(_variance(values, ddof))


def _dot(a: Array, b: Array) -> Any:
    return (a * b).sum()


def _norm(a: Array) -> Any:
    """Euclidean norm of a vector, Frobenius norm of a matrix."""
    return np.sqrt((a * a).sum())


def _unit(a: Array) -> Array:
    return _real(a / _norm(a))


def _cosine(a: Array, b: Array) -> Any:
    return _dot(a, b) / (_norm(a) * _norm(b))


_DECOMPOSED: deque[tuple[Array, tuple[Array, Array]]] = deque(maxlen=16)


def _singular(matrix: Array) -> tuple[Array, Array]:
    """Singular values, descending, and right singular vectors as rows; those of the last few matrices are kept."""
    for before, parts in _DECOMPOSED:
        if np.array_equal(before, matrix):
            return parts
    _DECOMPOSED.append((matrix.copy(), _rotated(matrix)))
    return _DECOMPOSED[-1][1]


def _rotated(matrix: Array) -> tuple[Array, Array]:
    """Singular values, descending, and right singular vectors as rows (one-sided Jacobi, extended precision).

    The shorter side is rotated, two vectors at a time, until all are orthogonal: their norms are the values.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    rows = matrix.copy() if wide else matrix.T.copy()
    turned = np.eye(len(rows), dtype=REAL)
    tolerance = max(matrix.shape) * np.finfo(REAL).eps
    negligible = tolerance * _norm(matrix)
    for _ in range(100):
        done = True
        for i, j in combinations(range(len(rows)), 2):
            a, b, g = _dot(rows[i], rows[i]), _dot(rows[j], rows[j]), _dot(rows[i], rows[j])
            if np.sqrt(min(a, b)) <= negligible or abs(g) <= tolerance * np.sqrt(a * b):
                continue
            done = False
            zeta = (b - a) / (2 * g)
            tangent = (1 if zeta >= 0 else -1) / (abs(zeta) + np.sqrt(1 + zeta * zeta))
            cosine = 1 / np.sqrt(1 + tangent * tangent)
            sine = cosine * tangent
            for block in (rows, turned):
                block[i], block[j] = cosine * block[i] - sine * block[j], sine * block[i] + cosine * block[j]
        if done:
            break
    else:
        raise RuntimeError("the Jacobi rotations did not settle")
    values = _real([_norm(row) for row in rows])
    order = np.argsort(-values, kind="stable")
    vectors = rows / values[:, None] if wide else turned
    return values[order], vectors[order]


def _rank(values: Array, shape: tuple[int, ...]) -> int:
    """How many singular values exceed max(shape) * eps (of float64) times the largest."""
    if len(values) == 0 or values[0] == 0:
        return 0
    cut = max(shape) * np.finfo(np.float64).eps * values[0]
    return sum(1 for value in values if value > cut)


# ---------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True, eq=False)  # a key of caches
class _Classes:
    """What a sample says of the classes present in it; `means` are relative to `origin`."""

    present: list[int]
    counts: list[int]
    origin: Array  # (D,), one sample
    means: Array  # (K, D)
    deviations: list[Array]  # per class (n_k, D): x - mu_k

    @property
    def num(self) -> int:
        return len(self.present)

    @property
    def num_samples(self) -> int:
        return sum(self.counts)

    @cached_property
    def mean_of_means(self) -> Array:
        return _real(_total(list(self.means)) / REAL(self.num))

    @cached_property
    def mean_of_samples(self) -> Array:
        sums = [n * mean for n, mean in zip(self.counts, self.means, strict=True)]
        return _real(_total(sums) / REAL(self.num_samples))

    @cached_property
    def centred(self) -> Array:
        """mu_k - (mean of class means), (K, D)."""
        return self.means - self.mean_of_means

    @cached_property
    def sample_centred(self) -> Array:
        """mu_k - (mean of all samples), (K, D)."""
        return self.means - self.mean_of_samples

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        return combinations(range(self.num), 2)


@lru_cache(maxsize=4)
def _classes(sample: Sample) -> _Classes:
    features, labels = _real(sample.features), np.asarray(sample.labels)
    origin = features[0]
    present: list[int] = []
    counts: list[int] = []
    means: list[Array] = []
    deviations: list[Array] = []
    for k in range(sample.num_classes):
        members = features[labels == k]
        if len(members) == 0:
            continue
        shifted = members - members[0]
        mean = _total(list(shifted)) / REAL(len(members))
        present.append(k)
        counts.append(len(members))
        means.append((members[0] - origin) + mean)
        deviations.append(shifted - mean)
    return _Classes(present, counts, origin, _real(means), deviations)


def _weight(sample: Sample, classes: _Classes) -> Array:
    """Classifier rows of the classes present, (K, D)."""
    if sample.weight is None:
        raise ValueError("this metric needs a classifier weight")
    return _real(sample.weight)[classes.present]


def statistics(sample: Sample) -> dict[str, Array]:
    """Per-class sums in float64, over all `num_classes` classes; a class without samples has a nan mean.

    counts (num_classes,), means (num_classes, D), spread (num_classes,): sum of ||x - mu||^2,
    within (D, D): sum over all samples of (x - mu)(x - mu)^T.
    """
    classes = _classes(sample)
    dims = np.asarray(sample.features).shape[1]
    counts = np.zeros(sample.num_classes, dtype=np.int64)
    means = np.full((sample.num_classes, dims), np.nan)
    spread = np.zeros(sample.num_classes)
    within = np.zeros((dims, dims), dtype=REAL)
    for row, k in enumerate(classes.present):
        deviations = classes.deviations[row]
        counts[k] = classes.counts[row]
        means[k] = classes.origin + classes.means[row]
        spread[k] = _total([_dot(d, d) for d in deviations])
        for d in deviations:
            within += np.outer(d, d)
    return {"counts": counts, "means": means, "spread": spread, "within": within.astype(np.float64)}


# ------------------------------------------------------------------- within- and between-class variability


def _mean_rank(classes: _Classes) -> int:
    """Rank of the centred class means; any other weighting or centre of gravity of them has the same."""
    return _rank(_singular(classes.centred)[0], classes.centred.shape)


def _trace_of_quotient(classes: _Classes, between: Array, balanced: bool) -> Any:
    """tr(Sigma_W Sigma_B^+), with Sigma_B = between^T between.

    Sigma_W is the pooled covariance, or the plain mean of the class covariances if `balanced`.
    """
    rank = _mean_rank(classes)
    values, vectors = _singular(between)
    total = REAL(0)
    for n, deviations in zip(classes.counts, classes.deviations, strict=True):
        share = 1 / REAL(classes.num * n) if balanced else 1 / REAL(classes.num_samples)
        for d in deviations:
            for r in range(rank):
                total += share * (_dot(d, vectors[r]) / values[r]) ** 2
    return total


def _between_trace(classes: _Classes) -> Any:
    """tr Sigma_B, Sigma_B the mean over classes of the outer products of the centred means."""
    return _mean([_dot(m, m) for m in classes.centred])


def _within_trace(classes: _Classes) -> Any:
    """tr Sigma_W, pooled over samples."""
    return _mean([_dot(d, d) for deviations in classes.deviations for d in deviations])


def _class_variances(classes: _Classes) -> list[Any]:
    """v_k, the mean squared distance of the samples of class k to mu_k."""
    return [_mean([_dot(d, d) for d in deviations]) for deviations in classes.deviations]


@_metric("nc1")
def _nc1(sample: Sample) -> Any:
    """tr(Sigma_W Sigma_B^+) / K, Sigma_B about the mean of means."""
    classes = _classes(sample)
    between = classes.centred / np.sqrt(REAL(classes.num))
    return _trace_of_quotient(classes, between, balanced=False) / classes.num


@_metric("nc1_undivided")
def _nc1_undivided(sample: Sample) -> Any:
    """tr(Sigma_W Sigma_B^+)."""
    classes = _classes(sample)
    between = classes.centred / np.sqrt(REAL(classes.num))
    return _trace_of_quotient(classes, between, balanced=False)


@_metric("nc1_sample_centred")
def _nc1_sample_centred(sample: Sample) -> Any:
    """As nc1, Sigma_B about the mean of all samples, each class weighing 1/K."""
    classes = _classes(sample)
    between = classes.sample_centred / np.sqrt(REAL(classes.num))
    return _trace_of_quotient(classes, between, balanced=False) / classes.num


@_metric("nc1_discriminant")
def _nc1_discriminant(sample: Sample) -> Any:
    """As nc1, Sigma_B about the mean of all samples, each class weighing n_k/N."""
    classes = _classes(sample)
    shares = _real(classes.counts) / REAL(classes.num_samples)
    between = classes.sample_centred * np.sqrt(shares)[:, None]
    return _trace_of_quotient(classes, between, balanced=False) / classes.num


@_metric("nc1_separation")
def _nc1_separation(sample: Sample) -> Any:
    """As nc1_discriminant, not divided by K."""
    return _nc1_discriminant(sample) * _classes(sample).num


@_metric("nc1_class_balanced")
def _nc1_class_balanced(sample: Sample) -> Any:
    """As nc1, Sigma_W the plain mean of the class covariances."""
    classes = _classes(sample)
    between = classes.centred / np.sqrt(REAL(classes.num))
    return _trace_of_quotient(classes, between, balanced=True) / classes.num


@_metric("within_trace")
def _within_trace_metric(sample: Sample) -> Any:
    """tr Sigma_W."""
    return _within_trace(_classes(sample))


@_metric("between_trace")
def _between_trace_metric(sample: Sample) -> Any:
    """tr Sigma_B, about the mean of means, each class weighing 1/K."""
    return _between_trace(_classes(sample))


@_metric("trace_ratio")
def _trace_ratio(sample: Sample) -> Any:
    """tr Sigma_W / tr Sigma_B."""
    classes = _classes(sample)
    return _within_trace(classes) / _between_trace(classes)


@_metric("trace_share")
def _trace_share(sample: Sample) -> Any:
    """tr Sigma_W / (tr Sigma_W + tr Sigma_B), Sigma_B about the mean of samples, weights n_k/N."""
    classes = _classes(sample)
    within = _within_trace(classes)
    scatter = _total([n * _dot(m, m) for n, m in zip(classes.counts, classes.sample_centred, strict=True)])
    return within / (within + scatter / REAL(classes.num_samples))


@_metric("within_in_mean_span")
def _within_in_mean_span(sample: Sample) -> Any:
    """Share of tr Sigma_W inside the span of the centred means."""
    classes = _classes(sample)
    rank = _mean_rank(classes)
    _, vectors = _singular(classes.centred)
    inside, whole = REAL(0), REAL(0)
    for deviations in classes.deviations:
        for d in deviations:
            whole += _dot(d, d)
            for r in range(rank):
                inside += _dot(d, vectors[r]) ** 2
    return inside / whole


def _cdnv(sample: Sample, exponent: int) -> Any:
    classes = _classes(sample)
    v = _class_variances(classes)
    ratios = []
    for i, j in classes.pairs:
        distance = _norm(classes.means[i] - classes.means[j])
        ratios.append((v[i] + v[j]) / (2 * distance**exponent))
    return _mean(_defined(ratios))


@_metric("cdnv")
def _cdnv_dist2(sample: Sample) -> Any:
    """Mean over pairs of (v_i + v_j) / (2 ||mu_i - mu_j||^2)."""
    return _cdnv(sample, 2)


@_metric("cdnv_dist4")
def _cdnv_dist4(sample: Sample) -> Any:
    """Mean over pairs of (v_i + v_j) / (2 ||mu_i - mu_j||^4)."""
    return _cdnv(sample, 4)


@lru_cache(maxsize=4)
def _several(sample: Sample) -> _Classes:
    """Only the classes of two samples or more."""
    labels = np.asarray(sample.labels)
    kept = np.array([np.sum(labels == label) > 1 for label in labels])
    return _classes(Sample(np.asarray(sample.features)[kept], labels[kept], sample.num_classes))


def _unbiased_variances(classes: _Classes) -> list[Any]:
    """s_k^2, the sum of squared distances of the samples of class k to mu_k over n_k - 1."""
    return [_total([_dot(d, d) for d in deviations]) / REAL(len(deviations) - 1) for deviations in classes.deviations]


@_metric("cdnv_debiased")
def _cdnv_debiased(sample: Sample) -> Any:
    """Mean over pairs of (s_i^2 + s_j^2) / (2 (||mu_i - mu_j||^2 - s_i^2/n_i - s_j^2/n_j)) where that is positive.

    Classes with one sample are left out.
    """
    classes = _several(sample)
    s, n = _unbiased_variances(classes), classes.counts
    ratios = []
    for i, j in classes.pairs:
        gap = classes.means[i] - classes.means[j]
        corrected = _dot(gap, gap) - s[i] / n[i] - s[j] / n[j]
        ratios.append((s[i] + s[j]) / (2 * corrected) if corrected > 0 else REAL("nan"))
    return _mean(_defined(ratios))


def _between_trace_corrected(classes: _Classes) -> Any:
    errors = [s / n for s, n in zip(_unbiased_variances(classes), classes.counts, strict=True)]
    return _between_trace(classes) - (1 - 1 / REAL(classes.num)) * _mean(errors)


@_metric("between_trace_debiased")
def _between_trace_debiased(sample: Sample) -> Any:
    """tr Sigma_B less (1/K) (1 - 1/K) sum_k s_k^2 / n_k; classes with one sample are left out."""
    return _between_trace_corrected(_several(sample))


@_metric("trace_ratio_debiased")
def _trace_ratio_debiased(sample: Sample) -> Any:
    """Sum of squared distances to the class means, over N - K, over the corrected tr Sigma_B; nan if not positive."""
    classes = _several(sample)
    within = _total([_dot(d, d) for deviations in classes.deviations for d in deviations])
    between = _between_trace_corrected(classes)
    return within / REAL(classes.num_samples - classes.num) / between if between > 0 else REAL("nan")


@_metric("directional_cdnv")
def _directional_cdnv(sample: Sample) -> Any:
    """As cdnv, with each class's variance along mu_i - mu_j only."""
    classes = _classes(sample)
    ratios = []
    for i, j in classes.pairs:
        gap = classes.means[i] - classes.means[j]
        u = _unit(gap)
        along_i = _mean([_dot(u, d) ** 2 for d in classes.deviations[i]])
        along_j = _mean([_dot(u, d) ** 2 for d in classes.deviations[j]])
        ratios.append((along_i + along_j) / (2 * _dot(gap, gap)))
    return _mean(_defined(ratios))


@_metric("vci")
def _vci(sample: Sample) -> Any:
    """1 - tr(Sigma_T^+ Sigma_B) / rank(Sigma_B), Sigma_T = Sigma_W + Sigma_B.

    A difference from 1, good to a few 1e-19, so a value below 1e-6 has fewer than 13 digits. nan for N <= D + 1, where
    it is 0 whatever the samples are.
    """
    classes = _classes(sample)
    if classes.num_samples <= np.asarray(sample.features).shape[1] + 1:
        return np.nan
    between = classes.centred / np.sqrt(REAL(classes.num))
    within = np.concatenate(classes.deviations) / np.sqrt(REAL(classes.num_samples))
    total = np.concatenate([within, between])  # Sigma_T = total^T total
    values, vectors = _singular(total)
    trace = REAL(0)
    for r in range(_rank(values, total.shape)):
        for m in between:
            trace += (_dot(m, vectors[r]) / values[r]) ** 2
    return 1 - trace / REAL(_mean_rank(classes))


@_metric("h_score")
def _h_score(sample: Sample) -> Any:
    """tr(Sigma_T^+ Sigma_B), both over samples; nan for N <= D + 1, where it is as large as can be for any samples."""
    classes = _classes(sample)
    if classes.num_samples <= np.asarray(sample.features).shape[1] + 1:
        return np.nan
    shares = [len(d) / REAL(classes.num_samples) for d in classes.deviations]
    between = [np.sqrt(p) * (m - classes.mean_of_samples) for p, m in zip(shares, classes.means, strict=True)]
    within = np.concatenate(classes.deviations) / np.sqrt(REAL(classes.num_samples))
    total = np.concatenate([within, _real(between)])
    values, vectors = _singular(total)
    return _total([(_dot(m, vectors[r]) / values[r]) ** 2 for r in range(_rank(values, total.shape)) for m in between])


@_metric("numerical_rank")
def _numerical_rank(sample: Sample) -> Any:
    """Singular values of the features, less their mean, whose square exceeds 1e-3 of the largest one's."""
    classes = _classes(sample)
    rows = [
        mean + d - classes.mean_of_samples
        for mean, deviations in zip(classes.means, classes.deviations, strict=True)
        for d in deviations
    ]
    values, _ = _singular(_real(rows))
    return sum(value**2 > values[0] ** 2 / 1000 for value in values)


# ---------------------------------------------------------------------------------------------- spectra


@lru_cache(maxsize=4)
def _centred_rows(classes: _Classes) -> Array:
    """x - (mean of all samples), (N, D)."""
    rows = zip(classes.means, classes.deviations, strict=True)
    return _real([mean + d - classes.mean_of_samples for mean, deviations in rows for d in deviations])


def _variances(rows: Array) -> list[Any]:
    """Squared singular values above rounding, descending."""
    values, _ = _singular(rows)
    return [value**2 for value in values[: _rank(values, rows.shape)]]


@lru_cache(maxsize=4)
def _spectrum(sample: Sample, of: str) -> list[Any]:
    """Eigenvalues above rounding of N S_T, N S_W or K S_B."""
    classes = _classes(sample)
    parts = {
        "total": lambda: _centred_rows(classes),
        "within": lambda: np.concatenate(classes.deviations),
        "between": lambda: classes.centred,
    }
    return _variances(parts[of]())


def _perplexity(sizes: Sequence[Any]) -> Any:
    """exp of the entropy of sizes divided by their sum; nan for none."""
    shares = [size / _total(sizes) for size in sizes]
    return np.exp(-_total([share * np.log(share) for share in shares])) if shares else np.nan


def _participation(values: Sequence[Any]) -> Any:
    return _total(values) ** 2 / _total([value**2 for value in values])


def _decay(values: Sequence[Any], first: int, last: int | None, weighted: bool) -> Any:
    """Minus the slope of the weighted least-squares line through (log i, log value)."""
    points = [(REAL(i), value) for i, value in enumerate(values, start=1)][first - 1 : last]
    if len(points) < 2:
        return np.nan
    weights = [1 / i if weighted else REAL(1) for i, _ in points]
    x, y = [np.log(i) for i, _ in points], [np.log(value) for _, value in points]
    w, wx, wy = _total(weights), _total([a * b for a, b in zip(weights, x, strict=True)]), REAL(0)
    wxx = wxy = REAL(0)
    for a, b, c in zip(weights, x, y, strict=True):
        wy, wxx, wxy = wy + a * c, wxx + a * b * b, wxy + a * b * c
    return -(w * wxy - wx * wy) / (w * wxx - wx**2)


@_metric("rankme")
def _rankme(sample: Sample) -> Any:
    """Perplexity of the singular values of the features as they are."""
    return _perplexity([np.sqrt(value) for value in _variances(_real(sample.features))])


@_metric("effective_rank")
def _effective_rank(sample: Sample) -> Any:
    """Perplexity of the eigenvalues of Sigma_T."""
    return _perplexity(_spectrum(sample, "total"))


@_metric("effective_rank_within")
def _effective_rank_within(sample: Sample) -> Any:
    """Perplexity of the eigenvalues of Sigma_W."""
    return _perplexity(_spectrum(sample, "within"))


@_metric("effective_rank_between")
def _effective_rank_between(sample: Sample) -> Any:
    """Perplexity of the eigenvalues of Sigma_B."""
    return _perplexity(_spectrum(sample, "between"))


@_metric("participation_ratio_total")
def _participation_ratio_total(sample: Sample) -> Any:
    """(tr Sigma_T)^2 / tr Sigma_T^2."""
    return _participation(_spectrum(sample, "total"))


@_metric("participation_ratio_within")
def _participation_ratio_within(sample: Sample) -> Any:
    """(tr Sigma_W)^2 / tr Sigma_W^2."""
    return _participation(_spectrum(sample, "within"))


@_metric("alpha_req")
def _alpha_req(sample: Sample) -> Any:
    """-slope of log eigenvalue against log rank, weights 1/rank."""
    return _decay(_spectrum(sample, "total"), 1, None, weighted=True)


@_metric("alpha_req_equal_weights")
def _alpha_req_equal_weights(sample: Sample) -> Any:
    """As alpha_req, with equal weights."""
    return _decay(_spectrum(sample, "total"), 1, None, weighted=False)


@_metric("alpha_req_range")
def _alpha_req_range(sample: Sample) -> Any:
    """As alpha_req, of the ranks 1 to 3."""
    return _decay(_spectrum(sample, "total"), 1, 3, weighted=True)


# ---------------------------------------------------------------------------------------------- transfer


def _shrunk(sample: Sample, shrinkage: Any) -> Any:
    """(1 - a) tr(((1 - a) Sigma_T + a m I)^-1 Sigma_B), m the mean eigenvalue of Sigma_T."""
    classes = _classes(sample)
    rows = _centred_rows(classes) / np.sqrt(REAL(classes.num_samples))
    values, vectors = _singular(rows)
    mean = _total([value**2 for value in values]) / REAL(rows.shape[1])
    value = REAL(0)
    for n, m in zip(classes.counts, classes.sample_centred, strict=True):
        share = n / REAL(classes.num_samples)
        for size, vector in zip(values, vectors, strict=True):
            ridge = (1 - shrinkage) * size**2 + shrinkage * mean
            value += (1 - shrinkage) * share * _dot(m, vector) ** 2 / ridge
    return value


@_metric("h_score_shrunk")
def _h_score_shrunk(sample: Sample) -> Any:
    """Shrinkage 0.3."""
    return _shrunk(sample, REAL(3) / 10)


def _outer(rows: Array) -> Array:
    """Sum of outer products."""
    return _real(rows.T @ rows)


@_metric("h_score_ledoit_wolf")
def _h_score_ledoit_wolf(sample: Sample) -> Any:
    """Shrinkage of Ledoit and Wolf, with the fourth moments of Gaussian classes that all have the pooled shape."""
    classes = _classes(sample)
    number, dim = REAL(classes.num_samples), REAL(classes.means.shape[1])
    pooled, total = _outer(np.concatenate(classes.deviations)), _outer(_centred_rows(classes)) / number
    fourth = REAL(0)
    for n, gap, variance in zip(classes.counts, classes.sample_centred, _class_variances(classes), strict=True):
        own = variance * pooled / np.trace(pooled)  # E|g + z|^4 = (|g|^2 + tr C)^2 + 2 tr C^2 + 4 g C g
        fourth += n * ((_dot(gap, gap) + variance) ** 2 + 2 * np.sum(own * own) + 4 * gap @ own @ gap)
    error = (fourth / number - np.sum(total * total)) / number
    distance = np.sum(total * total) - np.trace(total) ** 2 / dim
    return _shrunk(sample, min(max(error / distance, REAL(0)), REAL(1)))


@_metric("log_me")
def _log_me(sample: Sample) -> Any:
    """The evidence, by its definition, at the best of MacKay's fixed points of the two precisions, per class."""
    features, labels = _real(sample.features), np.asarray(sample.labels)
    number = len(features)
    values, vectors = _singular(features)
    kept = _rank(values, features.shape)
    left, eigen = [features @ vectors[r] / values[r] for r in range(kept)], values[:kept] ** 2
    evidences = []
    for k in np.unique(labels):
        y = _real(labels == k)
        along = _real([_dot(u, y) for u in left])
        beyond = y - _total([a * u for a, u in zip(along, left, strict=True)])
        best = REAL(-np.inf)
        for start in (eigen[-1] / 100, np.sqrt(eigen[0] * eigen[-1]), eigen[0] * 100):  # there may be several
            alpha, beta = REAL(start), REAL(1)
            for _ in range(3000):
                before = alpha / beta
                weights = beta * values[:kept] * along / (alpha + beta * eigen)
                free = np.sum(beta * eigen / (alpha + beta * eigen))
                misfit = _dot(beyond, beyond) + np.sum((along - values[:kept] * weights) ** 2)
                alpha, beta = free / _dot(weights, weights), (number - free) / misfit
                if abs(alpha / beta - before) <= 1e-9 * before:
                    break
            weights = beta * values[:kept] * along / (alpha + beta * eigen)
            misfit = _dot(beyond, beyond) + np.sum((along - values[:kept] * weights) ** 2)
            evidence = kept * np.log(alpha) + number * np.log(beta) - beta * misfit - alpha * _dot(weights, weights)
            evidence -= np.sum(np.log(alpha + beta * eigen)) + number * np.log(2 * REAL(np.pi))
            best = max(best, evidence / (2 * number))
        evidences.append(best)
    return _mean(evidences)


def _few_shot_error(sample: Sample, shots: int) -> Any:
    """Mean over ordered pairs of P(h < 0), h Gaussian; class covariances are the pooled one at the class's variance."""
    classes = _classes(sample)
    pooled, m = _outer(np.concatenate(classes.deviations)), REAL(shots)
    freedom = classes.num_samples - classes.num
    covariances = []
    for n, deviations in zip(classes.counts, classes.deviations, strict=True):
        size = np.trace(pooled) / REAL(freedom)
        if n > 1:
            size = _total([_dot(d, d) for d in deviations]) / REAL(n - 1)
        covariances.append(size * pooled / np.trace(pooled))
    errors = []
    for a, b in ((a, b) for a in range(classes.num) for b in range(classes.num) if a != b):
        d, one, other = classes.means[a] - classes.means[b], covariances[a], covariances[b]
        centre = _dot(d, d) + (np.trace(other) - np.trace(one)) / m
        variance = 4 * d @ one @ d + 4 * d @ other @ d / m
        variance += 2 * (np.sum(other * other) + np.sum(one * one)) / m**2
        variance += 4 * (np.sum(one * other) + np.sum(one * one)) / m
        errors.append(REAL(math.erfc(float(centre / np.sqrt(2 * variance))) / 2))
    return _mean(errors)


@_metric("few_shot_error")
def _few_shot_error_5(sample: Sample) -> Any:
    """Five shots."""
    return _few_shot_error(sample, 5)


@_metric("few_shot_error_1")
def _few_shot_error_1(sample: Sample) -> Any:
    """One shot."""
    return _few_shot_error(sample, 1)


# ------------------------------------------------------------------------------- shape of the class means


def _cosines(rows: Array) -> list[Any]:
    return _defined([_cosine(rows[i], rows[j]) for i, j in combinations(range(len(rows)), 2)])


def _equinorm(rows: Array, ddof: int) -> Any:
    norms = [_norm(row) for row in rows]
    return _std(norms, ddof) / _mean(norms)


def _etf_error(a: Array, b: Array) -> Any:
    """E(A, B): Frobenius distance from B A^T to the simplex Gram matrix, both of norm one."""
    num = len(a)
    product = _real([[_dot(b[i], a[j]) for j in range(num)] for i in range(num)])
    simplex = (np.eye(num, dtype=REAL) - 1 / REAL(num)) / np.sqrt(REAL(num - 1))
    return _norm(product / _norm(product) - simplex)


@_metric("equinorm")
def _equinorm_ddof1(sample: Sample) -> Any:
    """std (ddof 1) / mean of the norms of the centred means."""
    return _equinorm(_classes(sample).centred, 1)


@_metric("equinorm_ddof0")
def _equinorm_ddof0(sample: Sample) -> Any:
    """std (ddof 0) / mean of the norms of the centred means."""
    return _equinorm(_classes(sample).centred, 0)


@_metric("equinorm_sample_centred")
def _equinorm_sample_centred(sample: Sample) -> Any:
    """std (ddof 0) / mean of the norms of the means less the mean of all samples."""
    return _equinorm(_classes(sample).sample_centred, 0)


@_metric("equinorm_logarithmic")
def _equinorm_logarithmic(sample: Sample) -> Any:
    """std (ddof 1) / |mean| of the logarithms of the norms of the centred means."""
    logarithms = [np.log(_norm(row)) for row in _classes(sample).centred]
    return _std(logarithms, 1) / abs(_mean(logarithms))


@_metric("equiangularity")
def _equiangularity(sample: Sample) -> Any:
    """std (ddof 1) over pairs of the cosine of centred means."""
    return _std(_cosines(_classes(sample).centred), 1)


@_metric("equiangularity_ddof0")
def _equiangularity_ddof0(sample: Sample) -> Any:
    """std (ddof 0) over pairs of the cosine of centred means."""
    return _std(_cosines(_classes(sample).centred), 0)


@_metric("maximal_angle_deviation")
def _maximal_angle_deviation(sample: Sample) -> Any:
    """Mean over pairs of |cos + 1/(K - 1)|."""
    classes = _classes(sample)
    best = 1 / REAL(classes.num - 1)
    return _mean([abs(cosine + best) for cosine in _cosines(classes.centred)])


@_metric("mean_cosine")
def _mean_cosine(sample: Sample) -> Any:
    """Mean over pairs of the cosine of centred means."""
    return _mean(_cosines(_classes(sample).centred))


@_metric("mean_cosine_uncentred")
def _mean_cosine_uncentred(sample: Sample) -> Any:
    """Mean over pairs of the cosine of the means, seen from the origin."""
    classes = _classes(sample)
    return _mean(_cosines(_real([classes.origin + mean for mean in classes.means])))


@_metric("minimum_angle")
def _minimum_angle(sample: Sample) -> Any:
    """Smallest angle between two centred means, in degrees."""
    classes = _classes(sample)
    units = [_unit(m) for m in classes.centred]
    smallest = REAL("nan")
    for i, j in classes.pairs:
        angle = 2 * np.arctan2(_norm(units[i] - units[j]), _norm(units[i] + units[j]))
        smallest = np.fmin(smallest, angle)
    return math.degrees(smallest)


@_metric("etf_error")
def _etf_error_means(sample: Sample) -> Any:
    """E(centred means, centred means)."""
    centred = _classes(sample).centred
    return _etf_error(centred, centred)


@_metric("etf_distance")
def _etf_distance(sample: Sample) -> Any:
    """Distance of the centred means, at norm one, to the nearest simplex of norm one (any rotation)."""
    classes = _classes(sample)
    values, _ = _singular(classes.centred)
    if classes.num == 1:
        return np.nan
    whole = _norm(classes.centred)
    total = REAL(0)
    for r in range(classes.num - 1):
        value = values[r] if r < len(values) else REAL(0)
        total += (value / whole - 1 / np.sqrt(REAL(classes.num - 1))) ** 2
    return np.sqrt(total)


def _gram_distance(rows: Array, target: Array) -> Any:
    """Frobenius distance of the centred rows' Gram matrix and a centred target, both of norm one."""
    centred = rows - _total(list(rows)) / REAL(len(rows))
    gram = centred @ centred.T
    return _norm(gram / _norm(gram) - target / _norm(target))


def _seli(classes: _Classes, power: int) -> Array:
    """V S^power V^T of the labels' matrix, centred over classes, Z = P Y = V S U^T: classifiers for 1, means for -1."""
    size = classes.num
    roots = [np.sqrt(REAL(n)) for n in classes.counts]  # equal columns of Z, n_k of each, put into one
    z = _real([[((i == j) - 1 / REAL(size)) * roots[j] for j in range(size)] for i in range(size)])
    values, vectors = _singular(z.T)
    return _real(_total([values[r] ** power * np.outer(vectors[r], vectors[r]) for r in range(size - 1)]))


@_metric("seli_error")
def _seli_error(sample: Sample) -> Any:
    """Of the centred means."""
    classes = _classes(sample)
    return _gram_distance(classes.centred, _seli(classes, -1))


@_metric("classifier_seli_error")
def _classifier_seli_error(sample: Sample) -> Any:
    """Of the classifier's rows."""
    classes = _classes(sample)
    return _gram_distance(_weight(sample, classes), _seli(classes, 1))


@_metric("participation_ratio")
def _participation_ratio(sample: Sample) -> Any:
    """(tr S)^2 / tr S^2, S the scatter of the centred means."""
    centred = _classes(sample).centred
    scatter = _total([np.outer(m, m) for m in centred])
    return np.trace(scatter) ** 2 / np.sum(scatter * scatter)


def _pair_distances(sample: Sample) -> list[Any]:
    """Distances between the normalised centred means, over pairs."""
    classes = _classes(sample)
    units = [_unit(m) for m in classes.centred]
    return _defined([_norm(units[i] - units[j]) for i, j in classes.pairs])


def _log_kernel(sample: Sample) -> list[Any]:
    return _defined([-np.log(distance) for distance in _pair_distances(sample)])


def _riesz_kernel(sample: Sample, s: int) -> list[Any]:
    return _defined([1 / distance**s for distance in _pair_distances(sample)])


def _cv(values: Sequence[Any]) -> Any:
    """std (ddof 0) / |mean|."""
    return _std(values, 0) / abs(_mean(values))


@_metric("distance_kernel")
def _distance_mean(sample: Sample) -> Any:
    """Mean pair distance of normalised centred means."""
    return _mean(_pair_distances(sample))


@_metric("distance_kernel_variance")
def _distance_variance(sample: Sample) -> Any:
    """Population variance of the pair distances."""
    return _variance(_pair_distances(sample), 0)


@_metric("distance_kernel_cv")
def _distance_cv(sample: Sample) -> Any:
    """std (ddof 0) / |mean| of the pair distances."""
    return _cv(_pair_distances(sample))


@_metric("log_kernel")
def _log_kernel_mean(sample: Sample) -> Any:
    """Mean of -log of the pair distances."""
    return _mean(_log_kernel(sample))


@_metric("log_kernel_variance")
def _log_kernel_variance(sample: Sample) -> Any:
    """Population variance of -log of the pair distances."""
    return _variance(_log_kernel(sample), 0)


@_metric("log_kernel_cv")
def _log_kernel_cv(sample: Sample) -> Any:
    """std (ddof 0) / |mean| of -log of the pair distances."""
    return _cv(_log_kernel(sample))


@_metric("riesz_kernel")
def _riesz_mean(sample: Sample) -> Any:
    """Mean reciprocal pair distance."""
    return _mean(_riesz_kernel(sample, 1))


@_metric("riesz_kernel_variance")
def _riesz_variance(sample: Sample) -> Any:
    """Population variance of the reciprocal pair distances."""
    return _variance(_riesz_kernel(sample, 1), 0)


@_metric("riesz_kernel_cv")
def _riesz_cv(sample: Sample) -> Any:
    """std (ddof 0) / |mean| of the reciprocal pair distances."""
    return _cv(_riesz_kernel(sample, 1))


@_metric("riesz2_kernel")
def _riesz2_mean(sample: Sample) -> Any:
    """Mean reciprocal squared pair distance."""
    return _mean(_riesz_kernel(sample, 2))


# ---------------------------------------------------------------------------------------------- classifier


@_metric("classifier_equinorm")
def _classifier_equinorm(sample: Sample) -> Any:
    """std (ddof 1) / mean of the norms of the classifier rows."""
    return _equinorm(_weight(sample, _classes(sample)), 1)


@_metric("classifier_equinorm_ddof0")
def _classifier_equinorm_ddof0(sample: Sample) -> Any:
    """std (ddof 0) / mean of the norms of the classifier rows."""
    return _equinorm(_weight(sample, _classes(sample)), 0)


@_metric("classifier_equiangularity")
def _classifier_equiangularity(sample: Sample) -> Any:
    """std (ddof 1) over pairs of the cosine of classifier rows."""
    return _std(_cosines(_weight(sample, _classes(sample))), 1)


@_metric("classifier_equiangularity_ddof0")
def _classifier_equiangularity_ddof0(sample: Sample) -> Any:
    """std (ddof 0) over pairs of the cosine of classifier rows."""
    return _std(_cosines(_weight(sample, _classes(sample))), 0)


@_metric("classifier_mean_cosine")
def _classifier_mean_cosine(sample: Sample) -> Any:
    """Mean over pairs of the cosine of classifier rows."""
    return _mean(_cosines(_weight(sample, _classes(sample))))


@_metric("classifier_mean_cosine_centred")
def _classifier_mean_cosine_centred(sample: Sample) -> Any:
    """Mean over pairs of the cosine of classifier rows, the mean row subtracted from each."""
    weight = _weight(sample, _classes(sample))
    return _mean(_cosines(weight - _total(list(weight)) / REAL(len(weight))))


@_metric("classifier_etf_error")
def _classifier_etf_error(sample: Sample) -> Any:
    """E(W, W), rows as they are."""
    weight = _weight(sample, _classes(sample))
    return _etf_error(weight, weight)


@_metric("classifier_etf_error_centred")
def _classifier_etf_error_centred(sample: Sample) -> Any:
    """E(W, W), the mean row subtracted from every row."""
    weight = _weight(sample, _classes(sample))
    centred = weight - _total(list(weight)) / REAL(len(weight))
    return _etf_error(centred, centred)


# -------------------------------------------------------------------------------- classifier against means


def _self_duality_distance_squared(sample: Sample) -> Any:
    classes = _classes(sample)
    weight, centred = _weight(sample, classes), classes.centred
    difference = weight / _norm(weight) - centred / _norm(centred)
    return _norm(difference) ** 2


@_metric("self_duality_distance")
def _self_duality_distance(sample: Sample) -> Any:
    """Squared Frobenius distance of W and the centred means, both of norm one."""
    return _self_duality_distance_squared(sample)


@_metric("self_duality_distance_root")
def _self_duality_distance_root(sample: Sample) -> Any:
    """Frobenius distance of W and the centred means, both of norm one."""
    return np.sqrt(_self_duality_distance_squared(sample))


@_metric("self_duality_distance_sample_centred")
def _self_duality_distance_sample_centred(sample: Sample) -> Any:
    """Squared Frobenius distance of W and the means less the mean of all samples, both of norm one."""
    classes = _classes(sample)
    weight, centred = _weight(sample, classes), classes.sample_centred
    return _norm(weight / _norm(weight) - centred / _norm(centred)) ** 2


@_metric("self_duality_error")
def _self_duality_error(sample: Sample) -> Any:
    """E(centred means, W)."""
    classes = _classes(sample)
    return _etf_error(classes.centred, _weight(sample, classes))


@_metric("self_duality_error_sample_centred")
def _self_duality_error_sample_centred(sample: Sample) -> Any:
    """E(means less the mean of all samples, W)."""
    classes = _classes(sample)
    return _etf_error(classes.sample_centred, _weight(sample, classes))


@_metric("self_duality_error_both_centred")
def _self_duality_error_both_centred(sample: Sample) -> Any:
    """E(means less the mean of all samples, W less its mean row)."""
    classes = _classes(sample)
    weight = _weight(sample, classes)
    return _etf_error(classes.sample_centred, weight - _total(list(weight)) / REAL(len(weight)))


def _alignments(sample: Sample) -> list[Any]:
    """cos(w_k, centred mean k), per class."""
    classes = _classes(sample)
    return [_cosine(w, m) for w, m in zip(_weight(sample, classes), classes.centred, strict=True)]


@_metric("nc3_cosine")
def _nc3_cosine(sample: Sample) -> Any:
    """Mean over classes of cos(w_k, centred mean k)."""
    return _mean(_alignments(sample))


@_metric("nc3_misalignment")
def _nc3_misalignment(sample: Sample) -> Any:
    """Mean over classes of 1 - cos(w_k, centred mean k)."""
    return _mean([1 - cosine for cosine in _alignments(sample)])


@_metric("unc3_variance")
def _unc3_variance(sample: Sample) -> Any:
    """Population variance over classes of those cosines."""
    return _variance(_alignments(sample), 0)


@_metric("unc3")
def _unc3_cv(sample: Sample) -> Any:
    """std (ddof 0) / mean of those cosines; has the sign of the mean."""
    return _std(_alignments(sample), 0) / _mean(_alignments(sample))


@_metric("unc3_ddof1")
def _unc3_ddof1(sample: Sample) -> Any:
    """std (ddof 1) / mean of those cosines."""
    return _std(_alignments(sample), 1) / _mean(_alignments(sample))


@_metric("unc3_of_products")
def _unc3_of_products(sample: Sample) -> Any:
    """Variance (ddof 1) over classes of the inner products <w_k, centred mean k>."""
    classes = _classes(sample)
    return _variance([_dot(w, m) for w, m in zip(_weight(sample, classes), classes.centred, strict=True)], 1)


@_metric("duality_distance")
def _duality_distance(sample: Sample) -> Any:
    """Mean over classes of the distance between w_k and centred mean k, both of norm one."""
    classes = _classes(sample)
    weight = _weight(sample, classes)
    return _mean([_norm(_unit(w) - _unit(m)) for w, m in zip(weight, classes.centred, strict=True)])


def principal_angles(rows: Array, weight: Array) -> list[float]:
    """Degrees, ascending, between the span of `rows` and as many top right singular vectors of `weight`.

    The angle of two principal vectors, of length one, is that of their difference and their sum; 90 without a partner.
    """
    values, vectors = _singular(_real(rows))
    span = vectors[: _rank(values, rows.shape)]
    values, vectors = _singular(_real(weight))
    read = vectors[: min(len(span), _rank(values, weight.shape))]
    overlap = _real([[_dot(a, b) for b in read] for a in span])
    angles = []
    for right in _singular(overlap)[1]:
        a, b = _unit(_total(list((overlap @ right)[:, None] * span))), _total(list(right[:, None] * read))
        angles.append(math.degrees(2 * np.arctan2(_norm(a - b), _norm(a + b))))
    return sorted(angles) + [90.0] * (len(span) - len(read))


def _classifier_angles(sample: Sample) -> list[float]:
    classes = _classes(sample)
    weight = _weight(sample, classes)
    return principal_angles(classes.centred, weight - _total(list(weight)) / REAL(len(weight)))


@_metric("principal_angle")
def _mean_principal_angle(sample: Sample) -> Any:
    """Mean angle between the span of the centred means and that of the classifier's rows, less their mean."""
    return _mean(_classifier_angles(sample))


@_metric("largest_principal_angle")
def _largest_principal_angle(sample: Sample) -> Any:
    """Largest of those angles."""
    return max(_classifier_angles(sample))


def _bias_collapse_at(sample: Sample, classes: _Classes, centre: Array) -> Any:
    weight = _weight(sample, classes)
    bias = _real(np.zeros(sample.num_classes) if sample.bias is None else sample.bias)[classes.present]
    return _norm(_real([_dot(w, centre) + b for w, b in zip(weight, bias, strict=True)]))


@_metric("bias_collapse")
def _bias_collapse(sample: Sample) -> Any:
    """||W mu + b||, mu the mean of means."""
    classes = _classes(sample)
    return _bias_collapse_at(sample, classes, classes.origin + classes.mean_of_means)


@_metric("bias_collapse_sample_centred")
def _bias_collapse_sample_centred(sample: Sample) -> Any:
    """||W mu + b||, mu the mean of all samples."""
    classes = _classes(sample)
    return _bias_collapse_at(sample, classes, classes.origin + classes.mean_of_samples)


# ---------------------------------------------------------------------------------------------- decisions


@lru_cache(maxsize=4)
def _nearest(sample: Sample) -> list[int]:
    """Class of the nearest mean, for each sample; of equally near ones the lowest index."""
    classes = _classes(sample)
    decisions = []
    for x in _real(sample.features) - classes.origin:
        distances = [_dot(x - mean, x - mean) for mean in classes.means]
        decisions.append(classes.present[distances.index(min(distances))])
    return decisions


@lru_cache(maxsize=4)
def _predicted(sample: Sample) -> list[int]:
    """argmax of W x + b over all `num_classes` classes, for each sample; of equal ones the lowest index."""
    if sample.weight is None:
        raise ValueError("this metric needs a classifier weight")
    weight = _real(sample.weight)
    bias = _real(np.zeros(sample.num_classes) if sample.bias is None else sample.bias)
    decisions = []
    for x in _real(sample.features):
        scores = [_dot(w, x) + b for w, b in zip(weight, bias, strict=True)]
        decisions.append(scores.index(max(scores)))
    return decisions


def _agreements(sample: Sample) -> list[bool]:
    return [a == b for a, b in zip(_predicted(sample), _nearest(sample), strict=True)]


@_metric("ncc_mismatch")
def _ncc_mismatch(sample: Sample) -> Any:
    """Fraction of samples where classifier and nearest mean differ."""
    return _mean([REAL(not agrees) for agrees in _agreements(sample)])


@_metric("ncc_agreement")
def _ncc_agreement(sample: Sample) -> Any:
    """Fraction of samples where classifier and nearest mean agree."""
    return _mean([REAL(agrees) for agrees in _agreements(sample)])


def _over_classes(sample: Sample, hits: Sequence[bool]) -> Any:
    """Plain mean over the classes present of the share of hits among their samples."""
    labels = np.asarray(sample.labels)
    members = [np.flatnonzero(labels == k) for k in _classes(sample).present]
    return _mean([_mean([REAL(hits[i]) for i in each]) for each in members])


@_metric("ncc_agreement_class_weighted")
def _ncc_agreement_class_weighted(sample: Sample) -> Any:
    """Plain mean over the classes present of the agreement among their samples."""
    return _over_classes(sample, _agreements(sample))


@_metric("ncc_mismatch_class_weighted")
def _ncc_mismatch_class_weighted(sample: Sample) -> Any:
    """Plain mean over the classes present of the disagreement among their samples."""
    return _over_classes(sample, [not agrees for agrees in _agreements(sample)])


@_metric("ncc_accuracy")
def _ncc_accuracy(sample: Sample) -> Any:
    """Fraction of samples whose nearest mean is that of their label."""
    labels = np.asarray(sample.labels)
    return _mean([REAL(k == label) for k, label in zip(_nearest(sample), labels, strict=True)])


@_metric("ncc_accuracy_class_weighted")
def _ncc_accuracy_class_weighted(sample: Sample) -> Any:
    """The same within each class present, plainly averaged."""
    return _over_classes(sample, [k == label for k, label in zip(_nearest(sample), sample.labels, strict=True)])


@_metric("classifier_accuracy")
def _classifier_accuracy(sample: Sample) -> Any:
    """Fraction of samples whose classifier decision is their label."""
    labels = np.asarray(sample.labels)
    return _mean([REAL(k == label) for k, label in zip(_predicted(sample), labels, strict=True)])


@_metric("balanced_accuracy")
def _balanced_accuracy(sample: Sample) -> Any:
    """The same within each class present, plainly averaged."""
    return _over_classes(sample, [k == label for k, label in zip(_predicted(sample), sample.labels, strict=True)])


# ---------------------------------------------------------------------------------- out of distribution


@_metric("ood_orthogonality")
def _ood_orthogonality(sample: Sample) -> Any:
    """Mean over classes of |cos(mu_k, mean of `outside`)|, nothing centred."""
    if sample.outside is None:
        raise ValueError("this metric needs outside features")
    classes = _classes(sample)
    outside = _mean(list(_real(sample.outside)))
    return _mean([abs(_cosine(classes.origin + mean, outside)) for mean in classes.means])
