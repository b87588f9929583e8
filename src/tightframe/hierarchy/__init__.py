"""Trees over the classes: made from any form, measured, inferred over; and costs between classes."""

from tightframe.hierarchy.costs import (
    absolute_difference_cost,
    cost_of,
    lca_height_cost,
    require_cost,
    require_decision_cost,
    tree_cost,
)
from tightframe.hierarchy.inference import TreeInference
from tightframe.hierarchy.published import (
    class_path_matrix,
    from_class_path_matrix,
    from_path_matrix,
    path_matrix,
    sibling_mask,
)
from tightframe.hierarchy.tree import Hierarchy, Nodes

__all__ = [
    "Hierarchy",
    "Nodes",
    "TreeInference",
    "absolute_difference_cost",
    "class_path_matrix",
    "cost_of",
    "from_class_path_matrix",
    "from_path_matrix",
    "lca_height_cost",
    "path_matrix",
    "require_cost",
    "require_decision_cost",
    "sibling_mask",
    "tree_cost",
]
