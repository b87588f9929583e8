"""Margins of a class's own logit in training: ArcFace, CosFace, and margins per class for long tails."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, require_positive
from tightframe.choices import require_choice
from tightframe.codes import one_vs_rest_distances
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.cosines import Directions, extremes
from tightframe.codes.one_vs_rest import one_vs_rest_seconds
from tightframe.errors import MarginWarning, RangeError, ShapeError
from tightframe.heads.similarity import root
from tightframe.numerics import unit_rows
from tightframe.prototypes import Prototypes

_PRODUCTS = 1 << 32  # most multiplications for the cosines of all pairs, about a second
_SECONDS = 1.0  # most time for the distances to convex hulls
_SLACK = 1e-6  # rounding of prototypes in single precision


@dataclass(frozen=True)
class MarginKind:
    """A kind of margin.

    Attributes:
        moved: (own cosines (N,), margins (N,), easy) -> own cosines with the margin, (N,).
        unit: unit of the margin. limit: the margin must be below it.
        attainable: largest cosines (K,) of each prototype with another one -> an upper bound on each class's margin:
            the largest by which a sample's own similarity can exceed all others.
        summary: formula. source: the paper.

    >>> import torch
    >>> from tightframe.heads import MARGINS
    >>> cosines, margins = torch.tensor([1.0, 0.5]), torch.tensor([0.2, 0.2])
    >>> MARGINS["cosine"].moved(cosines, margins, False)
    tensor([0.8000, 0.3000])
    """

    moved: Callable[[Tensor, Tensor, bool], Tensor]
    unit: str
    limit: float
    attainable: Callable[[Tensor], Tensor]
    summary: str
    source: str


def _angular(own: Tensor, margins: Tensor, easy: bool) -> Tensor:
    cos = margins.cos()
    sine = root((1 - own.square()).clamp_min(0))
    moved = own * cos - sine * margins.sin()
    if easy:
        return torch.where(own > 0, moved, own)
    return torch.where(own > -cos, moved, own - (1 - cos))


def _largest_angle(cosines: Tensor) -> Tensor:
    return cosines.clamp(-1, 1).arccos()


def _cosine(own: Tensor, margins: Tensor, easy: bool) -> Tensor:
    return own - margins


def _largest_difference(cosines: Tensor) -> Tensor:
    return (2 - 2 * cosines.clamp(-1, 1)).sqrt()


MARGINS: dict[str, MarginKind] = {
    "angular": MarginKind(
        _angular,
        "rad",
        math.pi,
        _largest_angle,
        "cos(theta + m); cos(theta) - (1 - cos m) for theta + m > pi",
        "Deng et al. 2019, eq. 3 (ArcFace)",
    ),
    "cosine": MarginKind(
        _cosine,
        "in cosine",
        2.0,
        _largest_difference,
        "cos(theta) - m",
        "Wang et al. 2018, eq. 4 (CosFace)",
    ),
}
"""Kinds of margins by name, as in the `margin_kind` argument of `PrototypeHead`."""


def class_margins(counts: Array, largest: float = 0.5) -> Tensor:
    """Margins per class for a long tail, m_k proportional to n_k^(-1/4), with `largest` for the rarest class.

    Shape: counts (K,) -> margins (K,), float64. Range: (0, largest].
    Raises: ShapeError unless counts are (K,); RangeError for a count below 1 or a largest margin that is not positive.
    Source: Cao et al. 2019 (LDAM), eqs 8 and 13; their code has `largest` = 0.5, the kind "cosine" and the scale 30.

    >>> import torch
    >>> from tightframe.heads import class_margins
    >>> class_margins(torch.tensor([1600, 100, 1])).round(decimals=3)
    tensor([0.0790, 0.1580, 0.5000], dtype=torch.float64)
    """
    numbers = as_tensor(counts, "counts").to(torch.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ShapeError(f"counts must have shape (K,) with K >= 1; got {tuple(numbers.shape)}.")
    if not bool((numbers >= 1).all()):
        raise RangeError(
            f"counts must be at least 1, as rarer classes have larger margins; got {float(numbers.min())}."
        )
    require_positive(largest, "the largest margin")
    return largest * (numbers.min() / numbers) ** 0.25


def margins_of(margin: float | Array, num_classes: int, kind: str, logits: str) -> Tensor:
    """A margin (0-d) or margins per class (K,) as a float64 tensor, checked.

    Raises: ChoiceError for an unknown kind; RangeError for logits other than cosines and for margins out of range;
    ShapeError.
    """
    require_choice(kind, MARGINS, "margin_kind")
    if logits != "cosine":
        raise RangeError(f'margins are defined on cosines; pass logits="cosine" or margin=None; got logits={logits!r}.')
    if isinstance(margin, int | float):
        values = torch.tensor(float(margin), dtype=torch.float64, device="cpu")
    else:
        values = as_tensor(margin, "margin").detach().to(torch.float64)
    if values.shape not in ((), (num_classes,)):
        raise ShapeError(f"margin must be a number or have shape ({num_classes},); got {tuple(values.shape)}.")
    row = MARGINS[kind]
    if not bool(((values >= 0) & (values < row.limit)).all()):
        raise RangeError(f"a margin must be in [0, {row.limit:.4g}) {row.unit}; got {_extreme(values, row.limit)}.")
    return values


def warn_unattainable(prototypes: Prototypes, margins: Tensor, kind: str) -> None:
    """Warn if fixed prototypes do not allow the margins.

    A sample's own similarity can exceed all others by at most: arccos(c) for angles, at the prototype, where c is the
    largest cosine with another prototype; the distance of the prototype from the convex hull of the others for cosines.
    Per class if the cosines of all pairs take about a second; otherwise from the certificate, if it is computed, or
    from the bound for K and D. Computed from directions only.

    Warns: MarginWarning with the largest margin that these prototypes, and any of their number and dimension, allow.
    """
    K, D, row = prototypes.num_classes, prototypes.dim, MARGINS[kind]
    if K < 2:
        return
    vectors, margins = prototypes.vectors.detach(), margins.cpu()
    if K * K * D <= _PRODUCTS:
        cosines = extremes(Directions.of(vectors)).row_maxima.cpu()
        attainable = row.attainable(cosines)
        near = (margins > 1 - cosines) & (margins <= attainable)  # 1 - cosine is attained at the prototype itself
        if kind == "cosine" and bool(near.any()) and one_vs_rest_seconds(K, D) <= _SECONDS:
            attainable = one_vs_rest_distances(unit_rows(vectors.cpu().double()))
        wrong = margins > attainable + _SLACK
    else:
        certified = "certificate" in vars(prototypes)
        cosine = prototypes.certificate.max_cosine if certified else cosine_bound(K, D).value
        attainable = row.attainable(torch.tensor([cosine], dtype=torch.float64))
        wrong = margins.amin() > attainable + _SLACK
    if not bool(wrong.any()):
        return
    bound = cosine_bound(K, D)
    most = float(row.attainable(torch.tensor([bound.value], dtype=torch.float64)))
    classes = f"{int(wrong.sum())} of {K} classes" if wrong.numel() == K else "some class"
    warnings.warn(
        f"{classes} can't reach the margin: these prototypes allow {float(attainable.min()):.4g} {row.unit} for the "
        f"nearest pair, the margin is {float(margins.max()):.4g}. The best {K} vectors in {D} dimensions allow at most "
        f"{most:.4g} ({bound.name} bound). Lower the margin, or use prototypes with a smaller largest cosine.",
        MarginWarning,
        stacklevel=3,
    )


def _extreme(values: Tensor, limit: float) -> float:
    low, high = float(values.min()), float(values.max())
    return low if not 0 <= low < limit else high
