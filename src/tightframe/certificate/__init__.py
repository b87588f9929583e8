"""Certificates of sets of vectors, and the best known codes."""

from tightframe.certificate.certificate import Certificate
from tightframe.certificate.certify import certification_seconds, certify
from tightframe.certificate.cosines import largest_cosine
from tightframe.certificate.known_codes import KnownCode, best_known
from tightframe.certificate.one_vs_rest import one_vs_rest_distances, smallest_one_vs_rest

__all__ = [
    "Certificate",
    "KnownCode",
    "best_known",
    "certification_seconds",
    "certify",
    "largest_cosine",
    "one_vs_rest_distances",
    "smallest_one_vs_rest",
]
