"""What the numbers should be: targets at collapse, floors forced by the dimension, levels without class structure."""

from tightframe.theory.floors import cross_entropy_floor
from tightframe.theory.references import REFERENCES, Reference, reference

__all__ = ["REFERENCES", "Reference", "cross_entropy_floor", "reference"]
