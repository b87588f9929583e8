"""A certificate as a table in the terminal, and the pairs of vectors behind it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tightframe.bounds import random_cosine
from tightframe.errors import MissingExtraError
from tightframe.numerics import norms, unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tightframe.certificate import Certificate

try:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise MissingExtraError("rich", "cli") from None

_SHOWN = 40  # vectors and pairs listed before the rest is only counted
_LONG = 60  # characters of a value in a provenance
_TILE = 1 << 22  # cosines held at a time
_VERDICTS = {True: ("yes", "bold green"), False: ("no", "bold red"), None: ("unknown", "bold yellow")}


class Line(NamedTuple):
    """A value of a certificate beside one thing that it can be held against."""

    quantity: str
    value: str
    reference: str
    what: str


def print_provenance(provenance: Mapping[str, Any], console: Console) -> None:
    """Print how vectors were made: the constructor, its reasons and source, then its arguments in one line."""
    facts = dict(provenance)
    for key in ("constructor", "reason", "source"):
        if (value := facts.pop(key, None)) is not None:
            console.print(Text.assemble((f"{key:12}", "bold cyan"), str(value)))
    arguments = (f"{key} {_short(value)}" for key, value in facts.items() if value is not None)
    console.print(Text(" · ".join(arguments), style="dim"))


def print_certificate(certificate: Certificate, console: Console) -> None:
    """Print every field with what bounds it or what it should be, then the verdict and what was left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("quantity")
    for column in ("value", "reference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what that is", style="dim", overflow="fold")
    for line in certificate_lines(certificate):
        table.add_row(line.quantity, Text(line.value, "bold"), line.reference, Text(line.what))
    console.print(table)
    verdict, style = _VERDICTS[certificate.optimal]
    console.print(Text.assemble("optimal: ", (verdict, style), f". {certificate.reason}"))
    for sentence in certificate.skipped:
        console.print(Text(f"skipped: {sentence}", style="yellow"))


def certificate_lines(certificate: Certificate) -> list[Line]:
    """The lines of the table; a quantity with several references has its name and value in the first only."""
    K, D, bound = certificate.num_vectors, certificate.dim, certificate.bound
    lines = [
        Line("lengths", _range(certificate.min_norm, certificate.max_norm), "equal", "shortest and longest vector"),
        Line("largest cosine", _cosine(certificate.max_cosine), _cosine(bound.value), _named("at least", bound)),
    ]
    code = certificate.best_known
    if code is not None:
        named = f"best in the tables: {code.name} ({code.source})"
        lines.append(Line("", "", _cosine(code.cosine), named))
    lines += [
        Line("", "", _cosine(random_cosine(K, D)), "median of random vectors"),
        Line(
            "smallest angle",
            _angle(certificate.min_angle),
            _angle(_degrees(bound.value)),
            f"at most: {bound.name} bound",
        ),
    ]
    if code is not None:
        lines.append(Line("", "", _angle(_degrees(code.cosine)), f"best in the tables: {code.name}"))
    lines += [
        Line("gap to the bound, cosine", f"{certificate.gap_cosine:.3g}", "0", f"to the {bound.name} bound"),
        Line("gap to the bound, angle", f"{certificate.gap_degrees:.3g}°", "0°", f"to the {bound.name} bound"),
    ]
    if K <= D + 1:
        lines.append(
            Line(
                "mean of row maxima",
                _cosine(certificate.mean_max_cosine),
                _cosine(-1 / (K - 1)),
                "at least: the mean of all cosines",
            )
        )
    else:
        lines.append(
            Line(
                "mean of row maxima",
                _cosine(certificate.mean_max_cosine),
                _cosine(certificate.max_cosine),
                "at most: the largest cosine",
            )
        )
    lines.append(
        Line(
            "largest |cosine|",
            _cosine(certificate.coherence),
            _cosine(certificate.line_bound.value),
            _named("at least", certificate.line_bound),
        )
    )
    if certificate.one_vs_rest is not None:
        value, what = one_vs_rest_bound(K, D, bound.value)
        lines.append(Line("one-vs-rest distance", _cosine(certificate.one_vs_rest), _cosine(value), f"at most: {what}"))
    if certificate.gram_residual is not None:
        lines.append(Line("Gram residual", f"{certificate.gram_residual:.3g}", "0", f"to the {certificate.gram_of}"))
    return lines


def one_vs_rest_bound(num_vectors: int, dim: int, cosine: float) -> tuple[float, str]:
    """The most that the one-vs-rest distance of K unit vectors in R^D can be when two have this cosine, and why.

    Their chord is one bound. Another: for K > D + 1 some vector is outside of a simplex of others that either holds the
    centre, which is at distance 1, or has a nearest point p to the centre with <x, p> >= |p|^2 for all vectors x, so
    that |x - p| <= 1. For K <= D + 1 the simplex has the most.
    """
    if num_vectors <= dim + 1:
        return num_vectors / (num_vectors - 1), "the simplex ETF (Jiang et al. 2023)"
    chord = math.sqrt(2 - 2 * cosine)
    return (1.0, "any K > D + 1 (Jiang et al. 2023)") if chord >= 1 else (chord, "the chord of the largest angle")


def nearest_pairs(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` pairs i < j of (K, D) vectors with the smallest angles, (P, 2), and these angles in degrees, (P,).

    In order; P is less where there are fewer pairs. Angles come from distances, so that small ones keep their digits.
    """
    unit = unit_rows(vectors.detach().double())
    K = len(unit)
    best, pairs = unit.new_empty(0), torch.empty(0, 2, dtype=torch.int64)
    height = max(1, _TILE // K)
    for start in range(0, K - 1, height):
        rows = torch.arange(start, min(start + height, K))
        cosines = (unit[rows] @ unit.mT).masked_fill_(torch.arange(K) <= rows[:, None], -torch.inf).flatten()
        values, flat = cosines.topk(min(count, len(cosines)))
        best, pairs = torch.cat([best, values]), torch.cat([pairs, torch.stack([flat // K + start, flat % K], dim=1)])
        best, kept = best.topk(min(count, len(best)))
        pairs = pairs[kept]
    pairs = pairs[best > -torch.inf]
    one, other = unit[pairs.mT]
    angles = 2 * torch.atan2(norms(one - other), norms(one + other)).rad2deg()
    order = (pairs[:, 0] * K + pairs[:, 1]).argsort()  # pairs with equal angles go by their numbers
    order = order[angles[order].round(decimals=9).argsort(stable=True)]
    return pairs[order], angles[order]


def print_pairs(vectors: Tensor, console: Console) -> None:
    """Print the vectors' lengths, and the angles between pairs with the nearest first, 40 of each."""
    K = len(vectors)
    table = Table("vector", "length", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row, length in enumerate(norms(vectors[:_SHOWN].double()).tolist()):
        table.add_row(str(row), f"{length:.9g}")
    console.print(table)
    _tell_rest(K, "lengths", console)
    table = Table("pair", "cosine", "angle", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for (i, j), angle in zip(*(found.tolist() for found in nearest_pairs(vectors, _SHOWN)), strict=True):
        table.add_row(f"{i} {j}", _cosine(math.cos(math.radians(angle))), _angle(angle))
    console.print(table)
    _tell_rest(K * (K - 1) // 2, "pairs, with larger angles", console)


def _tell_rest(total: int, things: str, console: Console) -> None:
    if total > _SHOWN:
        console.print(Text(f"and {total - _SHOWN:,} more {things}", style="dim"))


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(cosine))


def _cosine(value: float) -> str:
    return f"{round(value, 9) + 0.0:.9f}"  # no minus before a zero


def _angle(degrees: float) -> str:
    return f"{degrees:.6f}°"


def _range(low: float, high: float) -> str:
    ends = [f"{end:.6g}" for end in (low, high)]
    return " – ".join(dict.fromkeys(ends))


def _named(relation: str, bound: Any) -> str:
    return f"{relation}: {bound.name} bound ({bound.source})"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
