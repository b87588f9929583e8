"""What the numbers should be: targets at collapse, floors forced by the dimension, levels without class structure."""

from tightframe.theory.floors import cross_entropy_floor
from tightframe.theory.minority_collapse import estimated_feature_decay, minority_collapse_threshold
from tightframe.theory.references import REFERENCES, Reference, reference
from tightframe.theory.seli import Seli, seli

__all__ = [
    "REFERENCES",
    "Reference",
    "Seli",
    "cross_entropy_floor",
    "estimated_feature_decay",
    "minority_collapse_threshold",
    "reference",
    "seli",
]
