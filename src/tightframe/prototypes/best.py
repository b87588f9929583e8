"""`best`: the best available construction of K well separated vectors in D dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tightframe.bounds import cosine_bound
from tightframe.certificate import best_known
from tightframe.errors import DimensionError
from tightframe.prototypes.codes import Code, code, codes_for
from tightframe.prototypes.polytopes import orthoplex, polygon
from tightframe.prototypes.separated import separated
from tightframe.prototypes.simplex import simplex
from tightframe.prototypes.solver.search import Budget, Progress
from tightframe.prototypes.value import Prototypes

_EQUAL = 1e-9
_PATIENCE = 30.0  # default seconds of a huge search
_SEARCHABLE = 2e9  # K * K * D above which one pass over all pairs takes a second or more


def best(
    num_classes: int,
    dim: int,
    *,
    time: float | None = None,
    rounds: int | None = None,
    seed: int = 0,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[Progress], None] | None = None,
) -> Prototypes:
    """K unit vectors in R^D with the smallest largest cosine that this package can construct.

    In this order: a simplex for K <= D + 1, an orthoplex for K <= 2 D, a polygon for D = 2, a proven exact code.
    Otherwise the search of `separated`, which also starts from parts of exact codes, unless an exact code (or a part
    of it, padded with zeros) is as good. If K is so large that a pass over all pairs takes seconds, a search runs only
    if `time` or `rounds` is set; the default is a code of nearly D dimensions, or without one a search of 30 seconds.

    Returns: Prototypes of length `scale`; `reason` in the provenance explains the choice.
    Raises: DimensionError if K < 2 or D < 1 (for D = 1: K > 2), RangeError for a budget that isn't positive.

    >>> best(240, 8).provenance["name"]
    'e8'
    """
    K, D = num_classes, dim
    if K < 2 or D < 1:
        raise DimensionError(f"prototypes need at least 2 classes and 1 dimension; got {K} and {D}.")
    Budget(time, rounds)  # refuses a bad one whatever the route
    options: dict[str, Any] = {"scale": scale, "device": device, "dtype": dtype}
    if K <= D + 1:
        return _because(simplex(K, D, **options), f"K <= D + 1: a simplex meets Rankin's bound -1/{K - 1}")
    if K <= 2 * D:
        return _because(orthoplex(K, D, **options), "D + 2 <= K <= 2 D: an orthoplex meets Rankin's bound 0")
    if D == 2:
        return _because(polygon(K, **options), "on a circle, equal angles are optimal")
    record, exact = best_known(K, D), next(iter(codes_for(K, D)), None)
    proven = record is not None and record.optimal and (record.num_vectors, record.dim) == (K, D)
    if exact is not None and record is not None and proven and exact.cosine <= record.cosine + _EQUAL:
        return _because(_exact(exact, K, D, options), f"{_part(exact, K, D)}, proven optimal ({record.source})")
    huge = K * K * D > _SEARCHABLE
    left_to_code = exact is not None and is_left_to_code(K, D)
    if huge and time is None and rounds is None and not left_to_code:
        time = _PATIENCE
    if exact is not None and left_to_code and time is None and rounds is None:
        return _because(
            _exact(exact, K, D, options),
            f"{_part(exact, K, D)}, the smallest known cosine for this K; no search without time or rounds",
        )
    warm: Tensor | None = None
    if exact is not None and left_to_code:
        warm = _exact(exact, K, D, {**options, "scale": 1.0}).vectors
    result = separated(K, D, time=time, rounds=rounds, warm_start=warm, seed=seed, progress=progress, **options)
    if exact is not None and exact.cosine <= result.certificate.max_cosine + _EQUAL:
        return _because(
            _exact(exact, K, D, options),
            f"{_part(exact, K, D)}; a search of {result.provenance['rounds']} rounds was not better",
        )
    above = result.certificate.max_cosine - cosine_bound(K, D).value
    return _because(result, f"a search, better than every exact code; its cosine is {above:.3g} above the bound")


def is_left_to_code(num_classes: int, dim: int) -> bool:
    """Whether `best` without a budget takes an exact code unchanged, since a search would take minutes.

    A code of far fewer dimensions does not count, since it is hardly better than random vectors.
    """
    huge = num_classes * num_classes * dim > _SEARCHABLE
    codes = codes_for(num_classes, dim)
    return huge and bool(codes) and dim - codes[0].D <= 2


def _exact(exact: Code, K: int, D: int, options: dict[str, Any]) -> Prototypes:
    return code(exact.name, K, dim=D, **options)


def _part(exact: Code, K: int, D: int) -> str:
    name = f"the exact code {exact.name!r} ({exact.K} vectors in {exact.D} dimensions)"
    if exact.K > K:
        name = f"{K} vectors of {name}"
    return name if exact.D == D else f"{name}, padded with zeros"


def _because(prototypes: Prototypes, reason: str) -> Prototypes:
    return replace(prototypes, provenance={**prototypes.provenance, "reason": reason})
