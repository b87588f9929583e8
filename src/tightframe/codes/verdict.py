"""The verdict of a certificate: whether a code is optimal, with the reason."""

from __future__ import annotations

from tightframe.codes.bounds import Bound
from tightframe.codes.code import Code, tolerance
from tightframe.codes.table import has_rows
from tightframe.sections import Verdict, signed

_CLOSE = 1e-3  # a code is met "to" a difference up to this share of `scale_of` its cosine
_ROUNDING = 1e-14  # in the cosine of equal vectors
SHARED = 0.2  # minimum mean cosine of vectors that share a direction


def judge(
    K: int,
    D: int,
    cosine: float,
    bound: Bound,
    listed: Code | None,
    *,
    residual: float | None,
    equal: tuple[int, int, int] | None,
    mean_cosine: float,
) -> tuple[bool | None, Verdict]:
    """Whether K vectors in R^D are optimal (None: unknown, or true to a tolerance only), and the verdict.

    The first that holds: optimal, coinciding vectors, a shared direction, nearly optimal, worse, equal or better.

    Args:
        cosine: the largest of two vectors.
        listed: the best code in the built-in table; None on a line only.
        residual: largest distance between a cosine and the nearest inner product of the listed code, if compared.
        equal: two rows that coincide or nearly do, and the number of rows with such a partner.
    """
    if cosine - bound.value <= tolerance(bound.value):
        reason = f"The largest cosine meets the {bound.name} bound, {_cosine(bound.value)}; no smaller one is possible."
        if equal is not None and 1 - cosine <= _ROUNDING:
            reason += f" Rows {equal[0]} and {equal[1]} coincide."
        return True, Verdict("OPTIMAL", reason, "good")
    own = listed if listed is not None and (listed.K, listed.D) == (K, D) else None
    if own is not None and own.proof and abs(cosine - own.cosine) <= tolerance(own.cosine):
        reason = f"The largest cosine equals that of the {own}, proven optimal ({own.proof})."
        return True, Verdict("OPTIMAL", reason, "good")
    better = listed is not None and cosine > listed.cosine + tolerance(listed.cosine)
    optimal = False if better else None
    if equal is not None:
        i, j, count = equal
        how = "coincide" if 1 - cosine <= _ROUNDING else "nearly coincide"
        reason = f"Rows {i} and {j} {how}; {count} of {K} rows have such a partner. Remove or separate them."
        return optimal, Verdict(f"VECTORS {how.upper()}", reason, "bad")
    if mean_cosine >= SHARED:
        centred = "The second table certifies the rows minus their mean."
        reason = f"The vectors share a direction: their mean cosine is {mean_cosine:.3g}. {centred}"
        return optimal, Verdict("COMMON DIRECTION", reason, "bad")
    if own is not None and better and cosine - own.cosine <= closeness(own):
        return _nearly(own, cosine - own.cosine, residual)
    unmet = f"The {bound.name} bound, {_cosine(bound.value)}, is not met."
    assert listed is not None, "on a line the bound is met"
    named = f"the {listed}" if own is not None else f"the {listed}, {listed.K:,} vectors in {listed.D:,} dimensions"
    if better:
        reason = f"A better code is listed: {named}, with largest cosine {_cosine(listed.cosine)} ({listed.source})."
        return False, Verdict("NOT OPTIMAL", reason, "bad")
    rest = f"the best in the built-in table. {unmet if own is not None else _gap(K, D)}"
    if cosine >= listed.cosine - tolerance(listed.cosine):
        reason = f"The largest cosine equals that of {named}, {rest}"
        return None, Verdict("BEST IN THE TABLE", reason, "near")
    reason = f"The largest cosine is smaller than that of {named}, {rest}"
    return None, Verdict("BETTER THAN THE TABLE", reason, "good")


def closeness(code: Code) -> float:
    """The difference of cosines up to which vectors are compared with a code: small against 1 - cosine, or -cosine."""
    return _CLOSE * (-code.cosine if code.cosine < 0 else 1 - code.cosine)


def _nearly(code: Code, excess: float, residual: float | None) -> tuple[bool | None, Verdict]:
    """The verdict on vectors whose largest cosine is slightly above that of a code of their size."""
    status = "OPTIMAL" if code.proof else "BEST IN THE TABLE"
    if residual is not None and residual <= closeness(code):
        within = _rounded_up(residual)
        reason = f"This is the {code} to {within}: every cosine lies within {within} of one of the exact code."
    else:
        within = _rounded_up(excess)
        reason = f"The largest cosine is at most {within} above that of the {code}, {_cosine(code.cosine)}."
    return None, Verdict(f"{status} TO {within}", reason, "good")


def _cosine(value: float) -> str:
    return signed(f"{value:.9g}")


def _rounded_up(value: float) -> str:
    """The smallest number of one significant digit that is at least a positive value."""
    text = f"{value:.0e}"
    if float(text) < value:
        digit, exponent = text.split("e")
        text = f"{int(digit) + 1}e{exponent}"
    return f"{float(text):.0e}" if float(text) < 1e-4 else f"{float(text):g}"


def _gap(K: int, D: int) -> str:
    missing = f"{K:,} vectors in {D:,} dimensions" if has_rows(D) else f"D = {D:,}"
    return f"The table has no row for {missing}, so better codes may be known."
