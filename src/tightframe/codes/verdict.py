"""What the certificate of a code says first: whether it is optimal, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.codes.bounds import Bound
from tightframe.codes.code import Code
from tightframe.codes.table import has_rows
from tightframe.sections import Tone

TOLERANCE = 1e-9  # a bound is met, or a listed code equalled, within this difference in cosine
CLOSE = 1e-3  # an optimum is met "to" a difference up to this share of 1 − cosine
SHARED = 0.2  # mean cosine from which vectors are said to share a direction


@dataclass(frozen=True)
class Facts:
    """What a verdict on K vectors in R^D is based on."""

    K: int
    D: int
    cosine: float
    """Largest cosine of two vectors."""
    bound: Bound
    listed: Code | None
    """The best code in the built-in table."""
    residual: float | None
    """Largest distance between a cosine and the nearest inner product of the listed code, if compared."""
    equal: tuple[int, int, int] | None
    """Two rows that coincide or nearly do, and the number of rows with such a partner."""
    mean_cosine: float


@dataclass(frozen=True)
class Judgement:
    """A verdict in a word and a sentence; `optimal` is None where it isn't known, or true to a tolerance only."""

    optimal: bool | None
    word: str
    reason: str
    tone: Tone


def judge(facts: Facts) -> Judgement:
    """The first that holds: optimal, coinciding vectors, a shared direction, nearly optimal, worse or better than listed."""
    K, D, cosine, bound, listed = facts.K, facts.D, facts.cosine, facts.bound, facts.listed
    exact = listed is not None and (listed.K, listed.D) == (K, D)
    if cosine - bound.value <= tolerance(bound.value):
        reason = f"The largest cosine meets the {bound.name} bound, {bound.value:.9g}; no smaller one is possible."
        return Judgement(True, "OPTIMAL", reason, "good")
    if listed is not None and exact and listed.proof and abs(cosine - listed.cosine) <= tolerance(listed.cosine):
        reason = f"The largest cosine equals that of the {listed}, proven optimal: {listed.proof}."
        return Judgement(True, "OPTIMAL", reason, "good")
    better = listed is not None and cosine > listed.cosine + tolerance(listed.cosine)
    not_optimal = False if better else None
    if facts.equal is not None:
        i, j, count = facts.equal
        how = "coincide" if 1 - cosine <= _ROUNDING else "nearly coincide"
        reason = f"Rows {i} and {j} {how}: {count} of {K} rows have such a partner. Remove or separate them."
        return Judgement(not_optimal, f"VECTORS {how.upper()}", reason, "bad")
    if facts.mean_cosine >= SHARED:
        reason = (
            f"The vectors share a direction: the mean cosine is {facts.mean_cosine:.3g}. "
            "The second table certifies the rows minus their mean."
        )
        return Judgement(not_optimal, "COMMON DIRECTION", reason, "bad")
    attained = exact and listed is not None and listed.proof is not None
    optimum = listed.cosine if attained and listed is not None else bound.value
    if attained and cosine - optimum <= CLOSE * (1 - optimum):
        distance = cosine - optimum if facts.residual is None else facts.residual
        if distance <= CLOSE * (1 - optimum):
            reason = f"{_a(str(listed))} to {distance:.1g}: no cosine differs more from the exact code's."
            return Judgement(None, f"OPTIMAL TO {distance:.1g}", reason, "good")
        reason = f"The largest cosine is {cosine - optimum:.1g} above the smallest possible, that of the {listed}."
        return Judgement(None, f"OPTIMAL TO {cosine - optimum:.1g}", reason, "good")
    if listed is None:
        reason = f"The {bound.name} bound, {bound.value:.9g}, is not met; the built-in table has no code of this size."
        return Judgement(None, "NOT KNOWN TO BE OPTIMAL", reason, "near")
    named = f"the {listed}" if exact else f"the {listed}, {listed.K:,} vectors in {listed.D:,} dimensions"
    if better:
        reason = f"A better code is listed: {named}, with largest cosine {listed.cosine:.9g} ({listed.source})."
        return Judgement(False, "NOT OPTIMAL", reason, "bad")
    gap = "" if exact else f" {_gap(K, D)}"
    if cosine >= listed.cosine - tolerance(listed.cosine):
        reason = f"The largest cosine equals that of {named}, the best in the built-in table.{gap}"
        return Judgement(None, "BEST IN THE TABLE", f"{reason} The {bound.name} bound is not met.", "near")
    reason = f"The largest cosine is smaller than that of {named}, the best in the built-in table.{gap}"
    return Judgement(None, "BETTER THAN THE TABLE", f"{reason} The {bound.name} bound is not met.", "good")


_ROUNDING = 1e-14


def tolerance(cosine: float) -> float:
    """The difference up to which two largest cosines are equal; for nearly parallel vectors less than `TOLERANCE`."""
    return max(TOLERANCE * min(1.0, 1 - cosine), 1e-15)  # rounding sets the floor


def _gap(K: int, D: int) -> str:
    missing = f"{K:,} vectors in {D:,} dimensions" if has_rows(D) else f"D = {D:,}"
    return f"The table has no row for {missing}, so better codes may be known."


def _a(name: str) -> str:
    return f"{'An' if name[0].lower() in 'aeiou' else 'A'} {name}"
