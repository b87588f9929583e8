"""`best`: the best available construction of K well separated vectors in D dimensions."""

from __future__ import annotations

from torch import Tensor

from tightframe.codes import Code, Search, best_built, best_listed, searching
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.code import tolerance
from tightframe.codes.random_vectors import random_cosine
from tightframe.codes.search.running import warm_directions
from tightframe.codes.search.separate import separate
from tightframe.prototypes.construction import Facts, construction, require_classes

_SEARCHABLE = 2e9  # K * K * D above which one pass over all pairs takes a second or more


@searching
@construction("tightframe")
def best(num_classes: int, dim: int, *, search: Search) -> tuple[Tensor, Facts]:
    """K unit vectors in R^D with the smallest largest cosine that this package can construct.

    The best code that the package can build: a simplex for K <= D + 1, an orthoplex for K <= 2 D, a polygon for D = 2,
    an exact code, or one found by a long search, with at least K vectors in at most D dimensions. Unless it is proven
    optimal, the search of `separated` starts from it, so the result is never worse: `best(K, D)` is at least as good as
    the built code for any K' >= K and D' <= D. (If one pass over all pairs takes more than half of the search's time,
    the search compares samples of pairs; `reason` says so.)

    Args:
        search: limits, seed and warm start, or its fields as arguments. The score is the largest cosine. By default the
            search ends after 8 rounds or 10 seconds, and if a pass over all pairs takes seconds, a code of nearly D
            dimensions is taken without search. `rounds=0` never searches.

    Returns: (K, D) unit vectors. The provenance has the `code`, and the `reason` for the choice.
    Raises: DimensionError if K < 2 or D < 1 (for D = 1: K > 2), and the errors of `Search`.

    >>> from tightframe.prototypes import best
    >>> best(240, 8).provenance["code"]
    'e8'
    """
    K, D = require_classes(num_classes, dim)
    warm = warm_directions(search, K, D)
    code = best_built(K, D)
    facts = {"code": code.name, "source": code.source}
    part = _part(code, K, D)
    bound = cosine_bound(K, D).value
    if code.cosine <= bound + tolerance(bound):
        return code.vectors(K), {**facts, "reason": f"{part}; no smaller largest cosine is possible"}
    listed = best_listed(K, D)
    if (
        listed is not None
        and (listed.K, listed.D) == (K, D)
        and listed.proof
        and code.cosine <= listed.cosine + tolerance(listed.cosine)
    ):
        return code.vectors(K), {**facts, "reason": f"{part}, proven optimal ({listed.proof})"}
    near = D - code.D <= 2 and code.cosine < random_cosine(K, D)
    long = K * K * D > _SEARCHABLE and near and (search.time, search.rounds, warm) == (None, None, None)
    if search.rounds == 0 or long:
        return code.vectors(K), {**facts, "reason": f"{part}, without search"}
    vectors, running = separate(K, D, search, code=code)
    facts |= running.facts
    if running.start == code.name:
        return vectors, {**facts, "reason": f"{part}; a search ({_count(running.round, 'round')}) found nothing better"}
    above = running.best - bound
    reason = (
        f"a search{running.remark}, better than {part} ({code.cosine:.6f}); its cosine is {above:.3g} above the bound"
    )
    return vectors, {**running.facts, "reason": reason}


def _part(code: Code, K: int, D: int) -> str:
    name = f"the {code} ({code.K} vectors in {_count(code.D, 'dimension')})"
    if code.K > K:
        name = f"{K} vectors of {name}"
    return name if code.D == D else f"{name}, padded with zeros"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
