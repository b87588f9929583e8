"""Spherical codes: tables, exact constructions, bounds, certificates and search."""

from tightframe.codes.certificate import Certificate
from tightframe.codes.certify import certification_seconds, certify
from tightframe.codes.code import Code
from tightframe.codes.cosines import largest_cosine
from tightframe.codes.one_vs_rest import one_vs_rest_distances, smallest_one_vs_rest
from tightframe.codes.search.running import searching
from tightframe.codes.table import CODES, best_built, best_listed, codes_for
from tightframe.search import Progress, Search

__all__ = [
    "CODES",
    "Certificate",
    "Code",
    "Progress",
    "Search",
    "best_built",
    "best_listed",
    "certification_seconds",
    "certify",
    "codes_for",
    "largest_cosine",
    "one_vs_rest_distances",
    "searching",
    "smallest_one_vs_rest",
]
