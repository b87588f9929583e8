"""`certify`: the certificate of K vectors in R^D as a spherical code, from the vectors alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor
from tightframe.codes.bounds import coherence_bound, cosine_bound
from tightframe.codes.certificate import Certificate
from tightframe.codes.cosines import Directions, Meter, extremes, gram_residual, near_coincidence, smallest_angle
from tightframe.codes.one_vs_rest import (
    LIMIT_SECONDS,
    one_vs_rest_limit,
    one_vs_rest_seconds,
    smallest_one_vs_rest,
)
from tightframe.codes.table import best_listed
from tightframe.codes.verdict import SHARED, closeness, judge
from tightframe.numerics import norms, on_cpu

_NEAR = 0.01  # vectors nearly coincide if their angle is less than this share of the angle that the bound allows
_GRAM_ENTRIES = 5e9  # maximum number of comparisons between cosines and inner products


@on_cpu
def certify(vectors: Array, *, one_vs_rest: bool | None = None, progress: Meter | None = None) -> Certificate:
    """The certificate of (K, D) vectors of any lengths, a tensor or a numpy array. In float64, in tiles, O(K D) memory.

    The one-vs-rest distance needs K quadratic programs: `one_vs_rest` forces (True) or omits (False) it; by default it
    is computed if it takes a few seconds at most. `progress` is called between tiles with the completed fraction; an
    exception in it, such as Ctrl-C, ends the work. `certification_seconds` estimates the time in advance.
    Raises: ShapeError unless K >= 2; DtypeError; NonFiniteError and ZeroVectorError, which name the row.

    >>> from tightframe import certify
    >>> import torch
    >>> certify(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])).optimal
    True
    """
    vectors = as_tensor(vectors, "vectors")
    directions = Directions.of(vectors)
    K, D = vectors.shape
    code = best_listed(K, D)
    skipped: list[str] = []

    programs_seconds = _programs_seconds(K, D, one_vs_rest)
    if one_vs_rest is False:
        skipped.append("The one-vs-rest distance was skipped on request.")
    elif not programs_seconds:
        skipped.append(
            f"The one-vs-rest distance is skipped for K > {one_vs_rest_limit(D)} in {D} dimensions, since its "
            f"quadratic programs can take more than {LIMIT_SECONDS:g} seconds. Pass one_vs_rest=True to compute it."
        )

    pairs_seconds = _cosine_seconds(len(directions.half), D)
    stages = _Stages(progress, 2 * pairs_seconds + programs_seconds)
    cosines = extremes(directions, stages.stage(pairs_seconds))
    max_cosine = min(max(cosines.largest, -1.0), 1.0)
    angle = smallest_angle(directions, cosines.row_maxima)

    residual, gram_of = None, None
    if K <= D + 1 and code is not None:  # all pairs of a simplex are equal
        residual, gram_of = max(cosines.largest - code.cosine, code.cosine - cosines.smallest), str(code)
    elif (
        code is not None
        and code.inner_products is not None
        and (code.K, code.D) == (K, D)
        and abs(max_cosine - code.cosine) <= closeness(code)
    ):
        entries = len(directions.half) ** 2 / 2 * len(code.inner_products)
        if entries <= _GRAM_ENTRIES:
            residual = gram_residual(directions, code.inner_products, stages.stage(pairs_seconds))
            gram_of = str(code)
        else:
            skipped.append(f"The Gram residual is skipped: it needs {entries:.1g} comparisons with the {code}.")

    distance = None
    if programs_seconds:
        distance = smallest_one_vs_rest(directions.unit, stages.stage(programs_seconds)).item()
    stages.finish()

    bound = cosine_bound(K, D)
    close = math.cos(_NEAR * math.acos(bound.value))
    mean = directions.unit.sum(0)
    mean_cosine = (mean.square().sum().item() / K - 1) / (K - 1)
    equal = near_coincidence(directions, cosines.row_maxima, close)
    optimal, verdict = judge(K, D, max_cosine, bound, code, residual=residual, equal=equal, mean_cosine=mean_cosine)
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
        mean_cosine=mean_cosine,
        best_listed=None if code is None else replace(code, build=None),  # plain data, for files
        optimal=optimal,
        word=verdict.word,
        reason=verdict.sentence,
        tone=verdict.tone,
        centred=_centred(directions.unit * directions.norms[:, None]) if mean_cosine >= SHARED else None,
        gram_residual=residual,
        gram_of=gram_of,
        skipped=tuple(skipped),
    )


def _centred(rows: Tensor) -> Certificate | None:
    """The certificate of rows minus their mean; None if a row is the mean, and has no direction then."""
    rows = rows - rows.mean(0)
    lengths = norms(rows)
    if bool((lengths < 1e-12 * lengths.max()).any()):
        return None
    return replace(certify(rows, one_vs_rest=False), skipped=())


def certification_seconds(num_vectors: int, dim: int, *, one_vs_rest: bool | None = None) -> float:
    """Rough estimate of `certify`'s time in seconds on this computer's threads; antipodal sets take a quarter.

    >>> from tightframe.codes import certification_seconds
    >>> certification_seconds(100, 16) < certification_seconds(100_000, 512)
    True
    """
    return _cosine_seconds(num_vectors, dim) + _programs_seconds(num_vectors, dim, one_vs_rest)


def _programs_seconds(num_vectors: int, dim: int, one_vs_rest: bool | None) -> float:
    """Time of the one-vs-rest distance; 0 if it is skipped."""
    skipped = one_vs_rest is False or (one_vs_rest is None and num_vectors > one_vs_rest_limit(dim))
    return 0.0 if skipped else one_vs_rest_seconds(num_vectors, dim)


def _cosine_seconds(rows: int, dim: int) -> float:
    """Time of one pass over the upper triangle; on one core a multiply-add costs 50 ps, a cosine's reductions 3 ns."""
    return rows**2 / 2 * (5e-11 * dim + 3e-9) / torch.get_num_threads()


class _Stages:
    """Converts the progress of stages of known cost to one increasing fraction."""

    def __init__(self, progress: Meter | None, total: float):
        self._progress, self._total, self._before = progress, total, 0.0

    def stage(self, seconds: float) -> Meter | None:
        start, self._before = self._before, self._before + seconds
        progress, total = self._progress, self._total
        if progress is None:
            return None
        return lambda fraction: progress((start + fraction * seconds) / total)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(1.0)
