"""Exact spherical codes, generated from their mathematics: lattices, quaternions, finite fields."""

from tightframe.prototypes.codes.caps import Layers, cap, cap_starts, complete_layers, section_starts, undominated
from tightframe.prototypes.codes.table import CODES, Code, code, codes_for

__all__ = [
    "CODES",
    "Code",
    "Layers",
    "cap",
    "cap_starts",
    "code",
    "codes_for",
    "complete_layers",
    "section_starts",
    "undominated",
]
