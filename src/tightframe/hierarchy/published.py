"""Trees in the form of the released code of metric-guided prototypes: path matrices and sibling masks.

Nodes are the M - 1 nodes other than the root, classes first. Matrices have one column per node and write the root as 0,
which can't be confused with node 0, because that is a class and no parent.
Source: Sainte Fare Garnot & Landrieu 2021, released code (HierarchicalInference, HierarchicalCrossEntropy).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor, is_integer
from tightframe.errors import HierarchyError
from tightframe.hierarchy.tree import Hierarchy


def path_matrix(hierarchy: Hierarchy) -> Tensor:
    """Parents of every node but the root, from the top: entry (-i, k) is the i-th parent of node k, or 0 above the
    root.

    Shape: (depth - 1, M - 1), int64.

    >>> from tightframe.hierarchy import Hierarchy, path_matrix
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> path_matrix(tree).tolist()  # of cat, dog, saw, pet, tool; pet is node 3, tool is node 4
    [[3, 3, 4, 0, 0]]
    """
    rows, order = [], _without_root(hierarchy)
    place = {node: column for column, node in enumerate(order)}
    above = [hierarchy.parents[node] for node in order]
    while any(node in place for node in above):
        rows.append([place.get(node, 0) for node in above])
        above = [hierarchy.parents[node] if node in place else node for node in above]
    return torch.tensor(rows[::-1], dtype=torch.int64, device="cpu").reshape(len(rows), len(order))


def sibling_mask(hierarchy: Hierarchy) -> Tensor:
    """A number for the parent of every node but the root: nodes with the same parent have the same number.

    Shape: (M - 1,), int64.

    >>> from tightframe.hierarchy import Hierarchy, sibling_mask
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> sibling_mask(tree).tolist()  # of cat, dog, saw, pet, tool
    [0, 0, 1, 2, 2]
    """
    parents = [hierarchy.parents[node] for node in _without_root(hierarchy)]
    number = {parent: place for place, parent in enumerate(dict.fromkeys(parents))}
    return torch.tensor([number[parent] for parent in parents], dtype=torch.int64, device="cpu")


def from_path_matrix(matrix: Array, names: Sequence[str] | None = None) -> Hierarchy:
    """The tree of a `path_matrix` (depth - 1, M - 1); nodes are named "0", "1", ... by default, and the root "root".

    Raises: HierarchyError naming the column where the rows contradict each other, or an entry that is no node; and as
    for any tree.

    >>> import torch
    >>> from tightframe.hierarchy import from_path_matrix
    >>> tree = from_path_matrix(torch.tensor([[3, 3, 4, 0, 0]]), ["cat", "dog", "saw", "pet", "tool"])
    >>> tree.distances().tolist()[0]
    [0.0, 2.0, 4.0]
    """
    matrix = _require_matrix(matrix)
    nodes = matrix.shape[1]
    labels = _labels(names, nodes)
    if matrix.numel() and int(matrix.max()) >= nodes:
        column = int((matrix >= nodes).any(0).nonzero()[0])
        raise HierarchyError(
            f"the parents of node {column} must be in [0, {nodes}); got {int(matrix[:, column].max())}."
        )
    parents = matrix[-1].tolist() if len(matrix) else [0] * nodes
    for column, path in enumerate(matrix.flip(0).mT.tolist()):
        node, at_root = column, False
        for stated in path:
            node = 0 if at_root else parents[node]
            at_root = node == 0
            if stated != node:
                raise HierarchyError(
                    f"the path of node {column} goes through {stated}, but the parent there is {node} by the last row."
                )
    return Hierarchy.from_parents([*(parent or nodes for parent in parents), -1], [*labels, "root"])


def class_path_matrix(hierarchy: Hierarchy) -> Tensor:
    """Parents of every class, from the top: entry (-i, k) is the i-th parent of class k among the inner nodes; the root
    is 0.

    The form that the released hierarchical cross-entropy takes.

    Shape: (depth, K), int64.

    >>> from tightframe.hierarchy import Hierarchy, class_path_matrix
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> class_path_matrix(tree).tolist()  # of cat, dog, saw
    [[0, 0, 0], [1, 1, 2]]
    """
    number = {hierarchy.root: 0}
    for node in range(hierarchy.num_classes, len(hierarchy)):
        number.setdefault(node, len(number))
    depth = int(hierarchy.depths.max())
    matrix = torch.zeros(depth, hierarchy.num_classes, dtype=torch.int64, device="cpu")
    for column, path in enumerate(hierarchy.paths[: hierarchy.num_classes].tolist()):
        above = [number[node] for node in path if node >= 0 and node != column]
        matrix[depth - len(above) :, column] = torch.tensor(above, device="cpu")
    return matrix


def from_class_path_matrix(matrix: Array, names: Sequence[str] | None = None) -> Hierarchy:
    """The tree of a `class_path_matrix` (depth, K); classes are named "0", "1", ... by default, inner nodes "inner 1",
    ...

    Raises: HierarchyError naming an inner node with two parents; and as for any tree.

    >>> import torch
    >>> from tightframe.hierarchy import from_class_path_matrix
    >>> tree = from_class_path_matrix(torch.tensor([[0, 0, 0], [1, 1, 2]]), ["cat", "dog", "saw"])
    >>> tree.distances().tolist()[0]
    [0.0, 2.0, 4.0]
    """
    matrix = _require_matrix(matrix)
    labels = _labels(names, matrix.shape[1])
    inner = {0: "root"} | {int(node): f"inner {int(node)}" for node in matrix.unique() if node}
    edges: dict[tuple[str, str], None] = {}
    for column, label in enumerate(labels):
        below, path = label, matrix[:, column].flip(0).tolist()
        top = path.index(0) if 0 in path else len(path)
        if any(path[top:]):
            raise HierarchyError(f"the path of class {column} goes on above the root, 0: {path[::-1]} from the top.")
        for node in [*path[:top], 0]:
            edges[inner[node], below] = None
            below = inner[node]
    return Hierarchy.from_edges(edges, classes=labels)


def _labels(names: Sequence[str] | None, number: int) -> list[str]:
    """One name a column, by default its number."""
    labels = [str(column) for column in range(number)] if names is None else list(names)
    if len(labels) != number:
        raise HierarchyError(f"{number} columns need as many names; got {len(labels)}.")
    return labels


def _without_root(hierarchy: Hierarchy) -> list[int]:
    return [node for node in range(len(hierarchy)) if node != hierarchy.root]


def _require_matrix(given: Array) -> Tensor:
    matrix = as_tensor(given, "a path matrix")
    if matrix.ndim != 2 or not matrix.shape[1] or not is_integer(matrix):
        raise HierarchyError(
            f"a path matrix holds integers, one row a level and one column a node; got {matrix.dtype} of shape "
            f"{tuple(matrix.shape)}."
        )
    if matrix.numel() and int(matrix.min()) < 0:
        raise HierarchyError(f"a path matrix holds nodes, or 0 for the root; got {int(matrix.min())}.")
    return matrix
