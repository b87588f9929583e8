"""Class prototypes: constructions for any number of classes K and dimension D, each with a certificate."""

from tightframe.codes import Progress, Search, searching
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.best import best
from tightframe.prototypes.construction import construction
from tightframe.prototypes.empirical import class_means, guided, nearest_etf
from tightframe.prototypes.equiangular import equiangular
from tightframe.prototypes.exact import code
from tightframe.prototypes.gram_matching import gram_matching
from tightframe.prototypes.hierarchical import hierarchical
from tightframe.prototypes.hyperspherical import hyperspherical
from tightframe.prototypes.metric_guided import metric_guided, metric_guided_nodes
from tightframe.prototypes.poles import pole_cosine, pole_value, poles
from tightframe.prototypes.polytopes import hypercube, orthonormal, orthoplex, polygon
from tightframe.prototypes.semantic import semantic, similarity_of
from tightframe.prototypes.separated import separated
from tightframe.prototypes.simplex import simplex
from tightframe.prototypes.softmax_code import softmax_code
from tightframe.prototypes.table import PROTOTYPES, Construction
from tightframe.prototypes.value import Prototypes

__all__ = [
    "PROTOTYPES",
    "Aim",
    "Construction",
    "Progress",
    "Prototypes",
    "Search",
    "best",
    "class_means",
    "code",
    "construction",
    "equiangular",
    "gram_matching",
    "guided",
    "hierarchical",
    "hypercube",
    "hyperspherical",
    "metric_guided",
    "metric_guided_nodes",
    "nearest_etf",
    "orthonormal",
    "orthoplex",
    "pole_cosine",
    "pole_value",
    "poles",
    "polygon",
    "searching",
    "semantic",
    "separated",
    "similarity_of",
    "simplex",
    "softmax_code",
]
