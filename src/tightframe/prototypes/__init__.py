"""Class prototypes: constructions for any number of classes K and dimension D, each with a certificate."""

from tightframe.prototypes.value import Prototypes

__all__ = ["Prototypes"]
