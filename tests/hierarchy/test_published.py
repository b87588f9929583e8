"""The published forms of a tree say what their definitions say, give the tree back, and name what contradicts it."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from trees import DIGITS, ancestors, chain, comb, random_tree

from tightframe.errors import HierarchyError
from tightframe.hierarchy import (
    Hierarchy,
    TreeInference,
    class_path_matrix,
    from_class_path_matrix,
    from_path_matrix,
    path_matrix,
    sibling_mask,
)

Shape = int | tuple["Shape", ...]

TREES = {
    "visual digits": Hierarchy.from_nested(DIGITS, classes=[str(digit) for digit in range(10)]),
    "star": Hierarchy.from_nested({"all": ["a", "b", "c"]}),
    "unbalanced": Hierarchy.from_nested({"root": {"right": {"low": ["a", "b"], "c": {}}, "d": {}}}),
    "random": random_tree(30, 0),
    "random with lengths": random_tree(30, 1, weighted=True),
    "comb": comb(20),
    "chain": chain(20),
}
# of "unbalanced": a, b, c, d, then right and low, which are nodes 4 and 5, and inner nodes 1 and 2
PATHS = [[4, 4, 0, 0, 0, 0], [5, 5, 4, 0, 0, 4]]
SIBLINGS = [0, 0, 1, 2, 2, 1]
CLASS_PATHS = [[0, 0, 0, 0], [1, 1, 0, 0], [2, 2, 1, 0]]

every_tree = pytest.mark.parametrize("tree", TREES.values(), ids=TREES)


def columns(tree: Hierarchy) -> list[int]:
    return [node for node in range(len(tree)) if tree.parents[node] >= 0]


def edges(tree: Hierarchy) -> set[tuple[str, str]]:
    """(parent, child) by name; the root is "root"."""
    called = ["root" if parent < 0 else name for name, parent in zip(tree.names, tree.parents, strict=True)]
    return {(called[parent], called[node]) for node, parent in enumerate(tree.parents) if parent >= 0}


def shape(tree: Hierarchy, node: int) -> Shape:
    """What lies below a node, whatever the order and the names of the inner nodes; a class is its index."""
    children = [child for child, parent in enumerate(tree.parents) if parent == node]
    return tuple(sorted((shape(tree, child) for child in children), key=repr)) if children else node


# ---------------------------------------------------------------------- nodes, each a column


def test_a_path_matrix_and_a_sibling_mask_by_hand() -> None:
    tree = TREES["unbalanced"]
    assert tree.names == ("a", "b", "c", "d", "root", "right", "low")
    assert path_matrix(tree).tolist() == PATHS
    assert sibling_mask(tree).tolist() == SIBLINGS
    back = from_path_matrix(torch.tensor(PATHS), ["a", "b", "c", "d", "right", "low"])
    assert back.names == ("a", "b", "c", "d", "right", "low", "root")
    assert back.parents == (5, 5, 4, 6, 6, 4, -1)
    assert from_path_matrix(torch.tensor(PATHS)).names == ("0", "1", "2", "3", "4", "5", "root")


@every_tree
def test_a_path_matrix_holds_the_parents_of_every_node(tree: Hierarchy) -> None:
    matrix, order = path_matrix(tree), columns(tree)
    assert matrix.dtype is torch.int64
    assert matrix.shape == (int(tree.depths.max()) - 1, len(tree) - 1)
    for column, node in enumerate(order):
        above = ancestors(tree, node)[1:-1]  # without the node and the root
        for i in range(1, len(matrix) + 1):
            assert matrix[-i, column] == (order.index(above[i - 1]) if i <= len(above) else 0)


@every_tree
def test_a_sibling_mask_numbers_the_parents(tree: Hierarchy) -> None:
    mask, order = sibling_mask(tree).tolist(), columns(tree)
    assert sibling_mask(tree).dtype is torch.int64
    assert set(mask) == set(range(len(tree) - tree.num_classes))  # every inner node is a parent
    for first, left in zip(order, mask, strict=True):
        for second, right in zip(order, mask, strict=True):
            assert (left == right) == (tree.parents[first] == tree.parents[second])


@every_tree
def test_a_path_matrix_gives_the_tree_back(tree: Hierarchy) -> None:
    matrix = path_matrix(tree)
    back = from_path_matrix(matrix, [tree.names[node] for node in columns(tree)])
    assert back.class_names == tree.class_names
    assert edges(back) == edges(tree)
    assert torch.equal(path_matrix(back), matrix)
    assert torch.equal(sibling_mask(back), sibling_mask(tree))
    taller = torch.cat([torch.zeros(2, matrix.shape[1], dtype=torch.int64), matrix])  # the root's root is the root
    assert torch.equal(path_matrix(from_path_matrix(taller)), matrix)


@every_tree
def test_the_released_inference_over_both_gives_the_same_probabilities(tree: Hierarchy) -> None:
    """Scores less the log-sum-exp of their sibling group, plus those of all parents that aren't 0."""
    order = columns(tree)
    matrix, mask = path_matrix(tree), sibling_mask(tree)
    scores = torch.randn(len(tree), dtype=torch.float64)
    stated = scores[order]
    conditional = [stated[k] - stated[mask == mask[k]].logsumexp(0) for k in range(len(order))]
    marginal = []
    for k in range(len(order)):
        above = [int(node) for node in matrix[:, k] if node != 0]
        marginal.append(sum((conditional[node] for node in above), conditional[k]))
    assert_close(TreeInference(tree).log_probabilities(scores)[order], torch.stack(marginal), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- classes, each a column


def test_a_class_path_matrix_by_hand() -> None:
    tree = TREES["unbalanced"]
    assert class_path_matrix(tree).tolist() == CLASS_PATHS
    back = from_class_path_matrix(torch.tensor(CLASS_PATHS), ["a", "b", "c", "d"])
    assert back.class_names == ("a", "b", "c", "d")
    assert edges(back) == {
        ("root", "inner 1"),
        ("root", "d"),
        ("inner 1", "inner 2"),
        ("inner 1", "c"),
        ("inner 2", "a"),
        ("inner 2", "b"),
    }
    assert from_class_path_matrix(torch.tensor(CLASS_PATHS)).class_names == ("0", "1", "2", "3")
    assert class_path_matrix(chain(20)).flatten().tolist() == list(range(20))


@every_tree
def test_a_class_path_matrix_holds_the_parents_of_every_class(tree: Hierarchy) -> None:
    matrix = class_path_matrix(tree)
    inner = [tree.root] + [node for node in range(tree.num_classes, len(tree)) if node != tree.root]
    assert matrix.dtype is torch.int64
    assert matrix.shape == (int(tree.depths.max()), tree.num_classes)
    for leaf in range(tree.num_classes):
        above = ancestors(tree, leaf)[1:]
        for i in range(1, len(matrix) + 1):
            assert matrix[-i, leaf] == (inner.index(above[i - 1]) if i <= len(above) else 0)


@every_tree
def test_a_class_path_matrix_gives_the_tree_back(tree: Hierarchy) -> None:
    matrix = class_path_matrix(tree)
    back = from_class_path_matrix(matrix, tree.class_names)
    assert back.class_names == tree.class_names
    assert shape(back, back.root) == shape(tree, tree.root)
    taller = torch.cat([torch.zeros(2, matrix.shape[1], dtype=torch.int64), matrix])
    assert from_class_path_matrix(taller, tree.class_names) == back
    if len(matrix) > 1:  # the root's own row may be left out
        bare = from_class_path_matrix(matrix[1:], tree.class_names)
        assert shape(bare, bare.root) == shape(tree, tree.root)


# ---------------------------------------------------------------------- what is neither


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[3, 0, 0, 0], [3, 3, 0, 0]], "path of node 0 goes through 3, but the parent there is 0 by the last row"),
        ([[4, 3, 0, 0, 0], [3, 3, 4, 4, 0]], "path of node 1 goes through 3, but the parent there is 4"),
        ([[0, 0, 0, 0, 0], [3, 3, 4, 4, 0]], "path of node 0 goes through 0, but the parent there is 4"),
        ([[2, 2, 3]], r"parents of node 2 must be in \[0, 3\); got 3"),
        ([[9, 2, 0]], r"parents of node 0 must be in \[0, 3\); got 9"),
        ([[2, 9, 0], [2, 2, 0]], r"parents of node 1 must be in \[0, 3\); got 9"),
        ([[0, 2, 0], [2, 0, 0]], "path of node 1 goes through 2, but the parent there is 0"),  # 2 is class 0's parent
        ([[2, 2, -1]], r"nodes, or 0 for the root; got -1"),
        ([[-3, 0, 0], [2, 2, 0]], r"nodes, or 0 for the root; got -3"),
        ([[2, 2, 3, 2]], "no cycle; going up: '2' -> '3' -> '2'"),
        ([[0, 1]], "no cycle; going up: '1' -> '1'"),
        ([[2.0, 2.0, 0.0]], r"holds integers, .* one column a node; got torch.float32 of shape \(1, 3\)"),
        ([[False, True, True]], "got torch.bool"),
        ([[0j, 0j]], "got torch.complex64"),
        ([2, 2, 0], r"one row a level and one column a node; got torch.int64 of shape \(3,\)"),
        ([[]], r"got torch.float32 of shape \(1, 0\)"),
    ],
)
def test_what_is_no_path_matrix_is_named(matrix: list[object], message: str) -> None:
    with pytest.raises(HierarchyError, match=message):
        from_path_matrix(torch.tensor(matrix))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0, 0, 0], [1, 2, 0], [3, 3, 1]], "one parent; 'inner 3' has 'inner 1' and 'inner 2'"),
        ([[0, 0], [0, 2], [1, 1]], "one parent; 'inner 1' has 'root' and 'inner 2'"),
        ([[0, 0], [1, 2], [2, 1]], "one parent; 'inner 1' has 'root' and 'inner 2'"),
        ([[1], [2], [1]], "one parent; 'inner 1' has 'inner 2' and 'root'"),  # round and round
        ([[0], [1], [1]], "one parent; 'inner 1' has 'inner 1' and 'root'"),
        ([[1, 0], [0, 1]], r"path of class 0 goes on above the root, 0: \[1, 0\] from the top"),
        ([[0, 0], [1, -1]], r"nodes, or 0 for the root; got -1"),
        ([[0.0, 0.0], [1.0, 1.0]], r"holds integers, .*; got torch.float32 of shape \(2, 2\)"),
        ([0, 1], r"got torch.int64 of shape \(2,\)"),
        ([[]], r"of shape \(1, 0\)"),
    ],
)
def test_what_is_no_class_path_matrix_is_named(matrix: list[object], message: str) -> None:
    with pytest.raises(HierarchyError, match=message):
        from_class_path_matrix(torch.tensor(matrix))


def test_two_columns_of_one_name_are_named() -> None:
    with pytest.raises(HierarchyError, match="'a' occurs twice"):
        from_path_matrix(torch.tensor([[0, 0, 0]]), ["a", "b", "a"])
    with pytest.raises(HierarchyError, match="'a' has 'inner 1' and 'root'"):
        from_class_path_matrix(torch.tensor([[0, 0, 0], [1, 1, 0]]), ["a", "b", "a"])
    for read in (from_path_matrix, from_class_path_matrix):
        with pytest.raises(HierarchyError, match="3 columns need as many names; got 2"):
            read(torch.tensor([[0, 0, 0]]), ["a", "b"])


def test_a_lone_root() -> None:
    assert sibling_mask(Hierarchy.from_parents([-1])).dtype is torch.int64
