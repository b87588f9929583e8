"""`PROTOTYPES`: every construction of class prototypes by name."""

from __future__ import annotations

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
        source: the paper.
        searches: whether it takes `time`, `rounds`, `seed` and `progress`.
    """

    build: Callable[..., Prototypes]
    needs: str
    summary: str
    source: str
    searches: bool = False


PROTOTYPES: dict[str, Construction] = {
    "best": Construction(best, SIZES, "the most separated vectors by the best method for K and D", "tightframe", True),
    "simplex": Construction(simplex, SIZES, "simplex ETF, all cosines -1/(K-1); K <= D + 1", "Papyan et al. 2020"),
    "orthonormal": Construction(orthonormal, SIZES, "all cosines 0; K <= D", "Saxe et al. 2014"),
    "orthoplex": Construction(orthoplex, SIZES, "cosines 0 and -1; K <= 2 D", "Pernici et al. 2021"),
    "hypercube": Construction(hypercube, SIZES, "corners of a cube; K <= 2^D", "Pernici et al. 2021"),
    "polygon": Construction(polygon, SIZES, "equal angles on a circle; D = 2", "Fejes Tóth 1943"),
    "code": Construction(code, NAME, "an exact code, or a part of it", "Conway & Sloane 1999"),
    "separated": Construction(
        separated, SIZES, "smallest largest cosine by search (Tammes problem)", "tightframe", True
    ),
    "hyperspherical": Construction(
        hyperspherical, SIZES, "smallest mean of each row's largest cosine", "Mettes et al. 2019", True
    ),
    "softmax-code": Construction(
        softmax_code, SIZES, "largest distance of a vector to the hull of the others", "Jiang et al. 2023", True
    ),
    "equiangular": Construction(equiangular, SIZES, "all |cosines| at most alpha", "Shen et al. 2023", True),
    "gram-matching": Construction(
        gram_matching, SIZES, "Gram matrix nearest to a target, by default the ETF's", "Eckart & Young 1936", True
    ),
    "semantic": Construction(
        semantic, SIMILARITY, "separated, cosines in the order of word similarities", "Mettes et al. 2019", True
    ),
    "metric-guided": Construction(
        metric_guided, COST, "distances follow a cost matrix", "Sainte Fare Garnot & Landrieu 2021"
    ),
    "hierarchical": Construction(hierarchical, COST, "cosines follow a hierarchy", "Liang & Davis 2023"),
    "poles": Construction(poles, SIZES, "two opposite poles for each regression target", "Mettes et al. 2019"),
    "class-means": Construction(class_means, STATISTICS, "the measured class means", "Guerriero et al. 2018"),
    "nearest-etf": Construction(nearest_etf, MEANS, "the simplex ETF nearest to class means", "Markou et al. 2024"),
    "guided": Construction(guided, MEANS, "one update towards the nearest ETF", "Markou et al. 2024"),
}
