"""`certify`: the certificate of K vectors in R^D as a spherical code, from the vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tightframe.bounds import Bound, coherence_bound, cosine_bound
from tightframe.certificate.certificate import Certificate
from tightframe.certificate.cosines import Directions, Progress, extremes, gram_residual, smallest_angle
from tightframe.certificate.known_codes import KnownCode, best_known
from tightframe.certificate.one_vs_rest import (
    LIMIT_SECONDS,
    one_vs_rest_limit,
    one_vs_rest_seconds,
    smallest_one_vs_rest,
)
from tightframe.checks import Array, as_tensor

TOLERANCE = 1e-9  # a bound is met, or a known code equalled, within this difference in cosine
_RECOGNISED = 1e-6  # vectors are compared with a known code's inner products within this difference in cosine
_GRAM_ENTRIES = 5e9  # maximum number of comparisons between cosines and inner products


def certify(vectors: Array, *, one_vs_rest: bool | None = None, progress: Progress | None = None) -> Certificate:
    """The certificate of (K, D) vectors of any lengths, a tensor or a numpy array. In float64, in tiles, O(K D) memory.

    The one-vs-rest distance needs K quadratic programs: `one_vs_rest` forces (True) or omits (False) it; by default it
    is computed if it takes a few seconds at most. `progress` is called between tiles with the completed fraction; an
    exception in it, such as Ctrl-C, ends the work. `certification_seconds` estimates the time in advance.
    Raises: ShapeError unless K >= 2; DtypeError; NonFiniteError and ZeroVectorError, which name the row.

    >>> import torch
    >>> certify(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])).optimal
    True
    """
    vectors = as_tensor(vectors, "vectors")
    directions = Directions.of(vectors)
    K, D = vectors.shape
    code = best_known(K, D)
    skipped: list[str] = []

    limit = one_vs_rest_limit(D)
    if one_vs_rest is False:
        skipped.append("The one-vs-rest distance was skipped on request.")
    elif one_vs_rest is None and limit < K:
        skipped.append(
            f"The one-vs-rest distance is skipped for K > {limit} in {D} dimensions, since its quadratic programs "
            f"can take more than {LIMIT_SECONDS:g} seconds. Pass one_vs_rest=True to compute it."
        )
    run_programs = one_vs_rest or (one_vs_rest is None and limit >= K)
    programs_seconds = one_vs_rest_seconds(K, D) if run_programs else 0.0

    pairs_seconds = _cosine_seconds(len(directions.half), D)
    watch = _Watch(progress, 2 * pairs_seconds + programs_seconds)
    cosines = extremes(directions, watch.stage(pairs_seconds))
    max_cosine = min(max(cosines.largest, -1.0), 1.0)
    angle = smallest_angle(directions, cosines.row_maxima)

    residual, gram_of = None, None
    if K <= D + 1 and code is not None:  # all pairs of a simplex are equal
        residual, gram_of = max(cosines.largest - code.cosine, code.cosine - cosines.smallest), code.name
    elif code is not None and code.inner_products is not None and _is(code, K, D, max_cosine, _RECOGNISED):
        entries = len(directions.half) ** 2 / 2 * len(code.inner_products)
        if entries <= _GRAM_ENTRIES:
            residual = gram_residual(directions, code.inner_products, watch.stage(pairs_seconds))
            gram_of = code.name
        else:
            skipped.append(f"The Gram residual is skipped: it needs {entries:.1g} comparisons with the {code.name}.")

    distance = None
    if run_programs:
        distance = smallest_one_vs_rest(directions.unit, watch.stage(programs_seconds)).item()
    watch.finish()

    bound = cosine_bound(K, D)
    optimal, reason = _verdict(K, D, max_cosine, bound, code)
    return Certificate(
        num_vectors=K,
        dim=D,
        min_norm=directions.norms.min().item(),
        max_norm=directions.norms.max().item(),
        max_cosine=max_cosine,
        min_angle=math.degrees(angle),
        mean_max_cosine=cosines.row_maxima.mean().item(),
        coherence=min(cosines.coherence, 1.0),
        one_vs_rest=distance,
        bound=bound,
        line_bound=coherence_bound(K, D),
        gap_cosine=max_cosine - bound.value,
        gap_degrees=math.degrees(math.acos(bound.value) - angle),
        best_known=code,
        optimal=optimal,
        reason=reason,
        gram_residual=residual,
        gram_of=gram_of,
        skipped=tuple(skipped),
    )


def certification_seconds(num_vectors: int, dim: int, *, one_vs_rest: bool | None = None) -> float:
    """Rough estimate of `certify`'s time in seconds on this computer's threads; antipodal sets take a quarter."""
    seconds = _cosine_seconds(num_vectors, dim)
    if one_vs_rest or (one_vs_rest is None and num_vectors <= one_vs_rest_limit(dim)):
        seconds += one_vs_rest_seconds(num_vectors, dim)
    return seconds


def _verdict(K: int, D: int, cosine: float, bound: Bound, code: KnownCode | None) -> tuple[bool | None, str]:
    if cosine - bound.value <= _tolerance(bound.value):
        return True, f"The largest cosine meets the {bound.name} bound, {bound.value:.9g}; no smaller one is possible."
    if code is None:
        return None, f"The {bound.name} bound, {bound.value:.9g}, is not met; the tables list no code of this size."
    if code.optimal and _is(code, K, D, cosine, _tolerance(code.cosine)):
        return True, f"The largest cosine equals that of the {code.name}, proven optimal by {code.source}."
    named = f"the {code.name}, {code.num_vectors} vectors in {code.dim} dimensions"
    excess = cosine - code.cosine
    if excess > _tolerance(code.cosine):
        return False, f"A better code is known: {named} with largest cosine {code.cosine:.9g} ({code.source})."
    if excess >= -_tolerance(code.cosine):
        return None, f"The largest cosine equals the best known ({named}); the {bound.name} bound is not met."
    return None, f"The tables list no better code ({named}: {code.cosine:.9g}); the {bound.name} bound is not met."


def _is(code: KnownCode, K: int, D: int, cosine: float, tolerance: float) -> bool:
    return (code.num_vectors, code.dim) == (K, D) and abs(cosine - code.cosine) <= tolerance


def _tolerance(cosine: float) -> float:
    # for nearly parallel vectors 1e-9 in cosine could be most of the angle; rounding sets the floor
    return max(TOLERANCE * min(1.0, 1 - cosine), 1e-15)


def _cosine_seconds(rows: int, dim: int) -> float:
    """Time of one pass over the upper triangle; on one core a multiply-add costs 50 ps, a cosine's reductions 3 ns."""
    return rows**2 / 2 * (5e-11 * dim + 3e-9) / torch.get_num_threads()


class _Watch:
    """Converts the progress of stages of known cost to one increasing fraction."""

    def __init__(self, progress: Progress | None, total: float):
        self._progress, self._total, self._before = progress, total, 0.0

    def stage(self, seconds: float) -> Callable[[float], None] | None:
        start, self._before = self._before, self._before + seconds
        progress, total = self._progress, self._total
        if progress is None:
            return None
        return lambda fraction: progress((start + fraction * seconds) / total)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(1.0)
