"""`PROTOTYPES`: every construction of class prototypes by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from tightframe.prototypes.best import best
from tightframe.prototypes.empirical import class_means, guided, nearest_etf
from tightframe.prototypes.equiangular import equiangular
from tightframe.prototypes.exact import code
from tightframe.prototypes.gram_matching import gram_matching
from tightframe.prototypes.hierarchical import hierarchical
from tightframe.prototypes.hyperspherical import hyperspherical
from tightframe.prototypes.metric_guided import metric_guided
from tightframe.prototypes.poles import poles
from tightframe.prototypes.polytopes import hypercube, orthonormal, orthoplex, polygon
from tightframe.prototypes.semantic import semantic
from tightframe.prototypes.separated import separated
from tightframe.prototypes.simplex import simplex
from tightframe.prototypes.softmax_code import softmax_code
from tightframe.prototypes.value import Prototypes

SIZES, COST, SIMILARITY, STATISTICS, MEANS, NAME = "sizes", "cost", "similarity", "statistics", "means", "name"


@dataclass(frozen=True)
class Construction:
    """One way to make prototypes.

    Attributes:
        build: the function.
        needs: its input: "sizes" (K, D), "cost" (a cost matrix or a tree, and D), "similarity" (a matrix of
            similarities, and D), "statistics" or "means" of classes, or the "name" of an exact code.
        summary: its result, in one line.

    >>> from tightframe.prototypes import PROTOTYPES
    >>> row = PROTOTYPES["orthoplex"]
    >>> row.needs, row.searches, row.build(4).num_classes
    ('sizes', False, 4)
    """

    build: Callable[..., Prototypes]
    needs: str
    summary: str

    @property
    def source(self) -> str:
        """The paper."""
        return str(getattr(self.build, "source", ""))

    @property
    def searches(self) -> bool:
        """Whether it takes a `Search`."""
        return "search" in inspect.signature(self.build).parameters


PROTOTYPES: dict[str, Construction] = {
    "best": Construction(best, SIZES, "the most separated vectors by the best method for K and D"),
    "simplex": Construction(simplex, SIZES, "simplex ETF, all cosines -1/(K-1); K <= D + 1"),
    "orthonormal": Construction(orthonormal, SIZES, "all cosines 0; K <= D"),
    "orthoplex": Construction(orthoplex, SIZES, "cosines 0 and -1; K <= 2 D"),
    "hypercube": Construction(hypercube, SIZES, "corners of a cube; K <= 2^D"),
    "polygon": Construction(polygon, SIZES, "equal angles on a circle; D = 2"),
    "code": Construction(code, NAME, "an exact code, or a part of it"),
    "separated": Construction(separated, SIZES, "smallest largest cosine by search (Tammes problem)"),
    "hyperspherical": Construction(hyperspherical, SIZES, "smallest mean of each row's largest cosine"),
    "softmax-code": Construction(softmax_code, SIZES, "largest distance of a vector to the hull of the others"),
    "equiangular": Construction(equiangular, SIZES, "all |cosines| at most alpha"),
    "gram-matching": Construction(gram_matching, SIZES, "Gram matrix nearest to a target, by default the ETF's"),
    "semantic": Construction(semantic, SIMILARITY, "separated, cosines in the order of word similarities"),
    "metric-guided": Construction(metric_guided, COST, "distances follow a cost matrix"),
    "hierarchical": Construction(hierarchical, COST, "cosines follow a hierarchy"),
    "poles": Construction(poles, SIZES, "two opposite poles for each regression target"),
    "class-means": Construction(class_means, STATISTICS, "the measured class means"),
    "nearest-etf": Construction(nearest_etf, MEANS, "the simplex ETF nearest to class means"),
    "guided": Construction(guided, MEANS, "one update towards the nearest ETF"),
}
