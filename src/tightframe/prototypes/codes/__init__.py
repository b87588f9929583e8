"""Exact spherical codes, generated from their mathematics: lattices, quaternions, finite fields."""

from tightframe.prototypes.codes.caps import cap, cap_starts, section_starts
from tightframe.prototypes.codes.table import CODES, Code, code, codes_for

__all__ = ["CODES", "Code", "cap", "cap_starts", "code", "codes_for", "section_starts"]
