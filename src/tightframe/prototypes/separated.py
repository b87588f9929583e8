"""`separated`: a search for the most separated unit vectors, for any K and D."""

from __future__ import annotations

from torch import Tensor

from tightframe.codes import Search, searching
from tightframe.codes.search.separate import separate
from tightframe.prototypes.construction import Facts, construction, require_classes


@searching
@construction("tightframe's search: log-sum-exp continuation on the sphere")
def separated(num_classes: int, dim: int, *, caps: bool = True, search: Search) -> tuple[Tensor, Facts]:
    """A search for K unit vectors in R^D with the smallest largest cosine (the Tammes problem).

    Rounds use different starts: uniform points, points with opposites, orbits of random groups. With `caps` also parts
    of exact codes: the points nearest to a direction (caps), or nearest to a plane in codes of up to two more
    dimensions (sections), and layers of these with fewer than K points and additional points in their holes. L-BFGS
    minimises a smoothed largest cosine while its exponent rises; starts of a round have different first exponents. An
    interior-point Newton method on the nearest pairs polishes the best points (for K * D <= 3000).

    Args:
        caps: whether to start also from caps, sections and layers of exact codes.
        search: limits, seed and warm start, or its fields as arguments. The score is the largest cosine.

    Returns: (K, D) unit vectors. Ctrl-C ends the search with the best result so far.
    Raises: DimensionError if K < 2 or D < 1 (for D = 1: K > 2) and the errors of `Search`.
    Source: log-sum-exp continuation of Mettes et al. 2019's objective; Hardin & Saff 2004 for the energies; bounds
        and exact codes as in `certify`.

    >>> from tightframe.prototypes import separated
    >>> round(separated(12, 3, rounds=1).certificate.max_cosine, 6)  # the icosahedron
    0.447214
    """
    K, D = require_classes(num_classes, dim)
    vectors, running = separate(K, D, search, caps=caps)
    return vectors, running.facts
