"""`Aim`: what a construction optimises if that is not the smallest angle, and its place in a provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tightframe.sections import Tone, Verdict, as_text

_EXACT = 1e-9  # difference from the ideal value up to which an aim is met
_UNKNOWN: Tone = "unknown"


@dataclass(frozen=True)
class Aim:
    """The aim of a construction that doesn't maximise the smallest angle between its vectors.

    Attributes:
        noun: the aim in a word or a few, as "costs".
        goal: the aim in a phrase, as "cosines that fall with the costs".
        measure: name of the fact in the provenance that measures the success, as "residual"; "" without one.
        caption: the measure in a phrase.
        ideal: value of the measure if the aim is met exactly; None if that depends on the input.

    >>> import torch
    >>> from tightframe.prototypes import Aim, construction
    >>> @construction("my paper", aim=Aim("symmetry", "a symmetric matrix"))
    ... def symmetric(num_classes: int) -> torch.Tensor:
    ...     return torch.eye(num_classes)
    >>> symmetric(3).certificate.word
    'MADE FOR SYMMETRY'
    """

    noun: str
    goal: str
    measure: str = ""
    caption: str = ""
    ideal: float | None = None


def verdict_on_aim(provenance: Mapping[str, Any]) -> Verdict | None:
    """How well vectors serve the aim in their provenance; None without an aim, or with a damaged one.

    A part of the classes has no measure, since the measure in the provenance is that of all classes.

    >>> import torch
    >>> from tightframe.prototypes import hierarchical
    >>> from tightframe.prototypes.aim import verdict_on_aim
    >>> made = hierarchical(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    >>> verdict_on_aim(made.provenance).word
    'MADE FOR COSTS'
    """
    try:
        aim = Aim(**provenance["aim"])
        value = None if "classes" in provenance else provenance.get(aim.measure)
    except (KeyError, TypeError):
        return None
    text, tone = f"Made for {aim.goal}", _UNKNOWN
    if isinstance(value, float | int) and math.isfinite(value):
        text += f": {aim.caption} {value:.3g}{' before scaling' if 'scale' in provenance else ''}"
        if isinstance(aim.ideal, float | int):
            text += f" ({aim.ideal:g} is exact)"
            tone = "good" if abs(value - aim.ideal) <= _EXACT else _UNKNOWN
    return as_text(Verdict(f"MADE FOR {str(aim.noun).upper()}", f"{text}.", tone))  # the file may come from anywhere
