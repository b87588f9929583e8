"""Trees in every form give the same value; bad ones are named."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from trees import PETS, ancestors, chain, comb, random_tree, shortest_paths

from tightframe.errors import ChoiceError, HierarchyError, StateError
from tightframe.hierarchy import Hierarchy

EDGES = [("all", "pet"), ("pet", "cat"), ("pet", "dog"), ("all", "tool"), ("tool", "saw")]
# after the format of wndb(5WN): the licence, then offset, file, type, words (counted in hexadecimal), pointers, gloss
WORDNET = """\
  1 This stands for the licence.
00000001 03 n 01 thing 0 000 | everything
00000002 03 n 02 animal 0 beast 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | it lives | and moves
00000003 05 n 0a dog 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 hound 1 002 @ 00000002 n 0000 @ 00000005 n 0000 | it barks
00000004 05 n 01 dog 1 003 + 00000009 v 0101 ! 00000002 n 0101 @ 00000006 n 0000 | a hot one
00000005 03 n 01 pet 0 001 @ 00000001 n 0000 | it is kept
00000006 13 n 01 food 0 001 @ 00000001 n 0000 | it is eaten
00000007 18 n 01 Laika 0 001 @i 00000003 n 0000 | the first in orbit
"""


# ---------------------------------------------------------------------- the same tree in every form


def test_all_forms_agree(tmp_path: Path) -> None:
    tree = Hierarchy.from_nested(PETS)
    assert tree.names == ("cat", "dog", "saw", "all", "pet", "tool")
    assert tree.parents == (4, 4, 5, -1, 3, 3)
    assert Hierarchy.from_nested({"all": {"pet": {"cat": {}, "dog": None}, "tool": {"saw": []}}}) == tree
    assert Hierarchy.from_edges(EDGES) == tree
    assert Hierarchy.from_paths(["all/pet/cat", "all / pet / dog", "all/tool/saw"]) == tree
    assert Hierarchy.from_paths(["pet/cat", "pet/dog", "tool/saw"], root="all") == tree
    assert Hierarchy.from_parents([None, 0, 1, 1, 0, 4], ["all", "pet", "cat", "dog", "tool", "saw"]) == tree
    assert Hierarchy.from_parents(torch.tensor(tree.parents), tree.names) == tree
    (tmp_path / "tree.json").write_text(json.dumps(PETS))
    (tmp_path / "tree.txt").write_text("all/pet/cat\n\nall/pet/dog\nall/tool/saw\n")
    (tmp_path / "tree.csv").write_text("parent,child\n" + "".join(f"{a}, {b}\n" for a, b in EDGES))
    (tmp_path / "bare.csv").write_text("".join(f"{a},{b}\n" for a, b in EDGES))
    for name in ("tree.json", "tree.txt", "tree.csv", "bare.csv"):
        assert Hierarchy.read(tmp_path / name) == tree
    (tmp_path / "tops.json").write_text(json.dumps(PETS["all"]))
    assert Hierarchy.read(tmp_path / "tops.json", root="all") == tree


def test_the_stated_order_of_classes() -> None:
    tree = Hierarchy.from_edges(EDGES, classes=["saw", "cat", "dog"])
    assert tree.class_names == ("saw", "cat", "dog")
    assert tree.names[3:] == ("all", "pet", "tool")
    assert tree.distances().tolist() == [[0, 4, 4], [4, 0, 2], [4, 2, 0]]


def test_what_a_tree_knows() -> None:
    tree = Hierarchy.from_nested(PETS)
    assert (len(tree), tree.num_classes, tree.root) == (6, 3, 3)
    assert tree.siblings == ((4, 5), (0, 1), (2,))
    assert tree.depths.tolist() == [2, 2, 2, 0, 1, 1]
    assert tree.heights.tolist() == [0, 0, 0, 2, 1, 1]
    assert tree.paths.tolist() == [[3, 4, 0], [3, 4, 1], [3, 5, 2], [3, -1, -1], [3, 4, -1], [3, 5, -1]]
    assert tree.lowest_common_ancestors().tolist() == [[0, 4, 3], [4, 1, 3], [3, 3, 2]]
    assert repr(tree) == "Hierarchy(3 classes, 6 nodes, depth 2)"


def test_lengths(tmp_path: Path) -> None:
    (tmp_path / "tree.csv").write_text("parent,child,length\nall,pet,2\npet,cat,0.5\npet,dog,1.5\nall,saw,4\n")
    tree = Hierarchy.read(tmp_path / "tree.csv")
    assert tree.names == ("cat", "dog", "saw", "all", "pet")
    assert tree.distances().tolist() == [[0, 2, 6.5], [2, 0, 7.5], [6.5, 7.5, 0]]
    assert tree.heights.tolist() == [0, 0, 0, 4, 1.5]
    assert tree.restrict(["saw", "dog"]).distances()[0, 1] == 7.5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_distances_and_ancestors_against_walking(seed: int, weighted: bool) -> None:
    tree = random_tree(25, seed, weighted=weighted)
    K = tree.num_classes
    far = shortest_paths(tree)
    assert_close(tree.distances("all"), far, rtol=1e-13, atol=1e-13)
    assert_close(tree.distances(), far[:K, :K], rtol=1e-13, atol=1e-13)
    assert (tree.distances().diagonal() == 0).all() and torch.equal(tree.distances(), tree.distances().mT)
    lowest = tree.lowest_common_ancestors("all")
    for i, j in itertools.product(range(len(tree)), repeat=2):
        assert lowest[i, j] == next(node for node in ancestors(tree, i) if node in ancestors(tree, j))
    for node in range(len(tree)):
        assert tree.depths[node] == len(ancestors(tree, node)) - 1
        below = [leaf for leaf in range(K) if node in ancestors(tree, leaf)]
        assert tree.heights[node].item() == pytest.approx(max(far[node, leaf].item() for leaf in below), abs=1e-12)
    assert sorted([node for group in tree.siblings for node in group] + [tree.root]) == list(range(len(tree)))
    assert all(len({tree.parents[node] for node in group}) == 1 for group in tree.siblings)


def test_restricting_keeps_distances_and_cuts_below() -> None:
    tree = random_tree(40, 1, weighted=True)
    chosen = [4, 0, 7]
    part = tree.restrict([tree.names[node] for node in chosen])
    assert part.class_names == tuple(tree.names[node] for node in chosen)
    assert_close(part.distances(), tree.distances()[chosen][:, chosen], rtol=1e-13, atol=1e-13)
    assert Hierarchy.from_nested(PETS).restrict(["tool", "pet"]).names == ("tool", "pet", "all")


# ---------------------------------------------------------------------- cutting one across


@pytest.mark.parametrize("tree", [random_tree(30, 2), random_tree(30, 3, weighted=True), comb(6), chain(4)])
def test_a_cut_holds_the_one_node_at_its_depth_above_each_class(tree: Hierarchy) -> None:
    for depth in range(int(tree.depths.max()) + 3):
        cut = tree.cut(depth)
        assert cut.dtype is torch.int64
        above = []
        for leaf in range(tree.num_classes):
            way = ancestors(tree, leaf)[::-1]  # from the root
            above.append(way[min(depth, len(way) - 1)])
        assert cut.tolist() == sorted(set(above))
        for leaf in range(tree.num_classes):
            assert len(set(ancestors(tree, leaf)) & set(cut.tolist())) == 1


def test_cuts_from_the_root_to_the_classes() -> None:
    tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "saw": {}}})
    named = [[tree.names[node] for node in tree.cut(depth)] for depth in range(4)]
    assert named == [["all"], ["saw", "pet"], ["cat", "dog", "saw"], ["cat", "dog", "saw"]]
    with pytest.raises(HierarchyError, match=r"0 or more; got -1\."):
        tree.cut(-1)


# ---------------------------------------------------------------------- WordNet


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    (tmp_path / "data.noun").write_text(WORDNET)
    return tmp_path / "data.noun"


def test_wordnet(wordnet: Path) -> None:
    tree = Hierarchy.read(wordnet)
    assert tree.class_names == ("dog.n00000004", "pet.n00000005", "Laika.n00000007")
    above = {name: tree.names[parent] for name, parent in zip(tree.names, tree.parents, strict=True) if parent >= 0}
    assert above == {
        "animal.n00000002": "thing.n00000001",
        "dog.n00000003": "animal.n00000002",  # the first of two
        "dog.n00000004": "food.n00000006",
        "pet.n00000005": "thing.n00000001",
        "food.n00000006": "thing.n00000001",
        "Laika.n00000007": "dog.n00000003",
    }


def test_wordnet_classes_by_word_id_or_name(wordnet: Path) -> None:
    tree = Hierarchy.read(wordnet, classes=["hound", "n00000004", "pet.n00000005"])
    assert tree.class_names == ("dog.n00000003", "dog.n00000004", "pet.n00000005")
    assert tree.distances().tolist() == [[0, 4, 3], [4, 0, 3], [3, 3, 0]]
    with pytest.raises(HierarchyError, match=r"'dog' has 2 synsets, 'dog.n00000003', 'dog.n00000004'; name one"):
        Hierarchy.read(wordnet, classes=["dog"])
    with pytest.raises(HierarchyError, match="'unicorn' is not in"):
        Hierarchy.read(wordnet, classes=["unicorn"])
    with pytest.raises(HierarchyError, match=r"'Laika\.n00000007' lies below 'dog\.n00000003'"):
        Hierarchy.read(wordnet, classes=["hound", "Laika"])


@pytest.mark.parametrize(
    "line",
    [
        "00000008 03 v 01 run 0 000 | a verb",
        "00000008 03 n 01 cut 0 002 @ 00000001 n 0000 | one pointer short",
        "00000008 03 n xx cut 0 000 | no number of words",
        "synset 03 n 01 cut 0 000 | no offset",
        "",
    ],
)
def test_other_files_are_no_wordnet(wordnet: Path, line: str) -> None:
    wordnet.write_text(WORDNET + line + "\n")
    with pytest.raises(HierarchyError, match=r"line 9 of .*data\.noun is no noun synset"):
        Hierarchy.read(wordnet)


def test_a_hypernym_that_is_not_there(wordnet: Path) -> None:
    wordnet.write_text(WORDNET.replace("@ 00000006", "@ 00000066"))
    with pytest.raises(HierarchyError, match=r"the hypernym n00000066 of 'dog.n00000004' is not in"):
        Hierarchy.read(wordnet)


# ---------------------------------------------------------------------- what isn't a tree


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hierarchy.from_parents([]), "at least one node"),
        (lambda: Hierarchy.from_parents([-1, 2, 3, 1, 0]), r"going up: '1' -> '2' -> '3' -> '1'"),
        (lambda: Hierarchy.from_parents([0, 0]), r"going up: '0' -> '0'"),
        (lambda: Hierarchy.from_parents([-1, 0, -1, 2]), r"one root; got 2: '0', '2'"),
        (lambda: Hierarchy.from_parents([-1, 0, 5]), "parent of '2' must be the index of one of 3 nodes.*got 5"),
        (lambda: Hierarchy.from_parents([-1, 0, -3]), "parent of '2' .*got -3"),
        (lambda: Hierarchy.from_parents([-1, 0, 0], ["r", "x", "x"]), "'x' occurs twice"),
        (lambda: Hierarchy.from_parents([-1, 0, 0], ["r", "x"]), "3 parents need as many names; got 2"),
        (lambda: Hierarchy.from_parents([-1, 0], lengths=[0, -1]), "'1' has -1"),
        (lambda: Hierarchy.from_parents([-1, 0], lengths=[0, float("nan")]), "'1' has nan"),
        (lambda: Hierarchy(("a", "b"), (-1,)), "2 names need as many parents; got 1"),
        (lambda: Hierarchy(("r", "a"), (-1, 0)), "leaves come before inner nodes; 'a' comes after 'r'"),
        (lambda: Hierarchy.from_edges([("a", "b"), ("b", "c"), ("c", "a")]), "going up: .*'a'.*'c'.*'b'"),
        (lambda: Hierarchy.from_edges([("a", "b"), ("c", "d")]), "one root; got 2: 'a', 'c'"),
        (lambda: Hierarchy.from_edges([("a", "b"), ("c", "b")]), "'b' has 'a' and 'c'"),
        (lambda: Hierarchy.from_edges([("a", "b", 1.0), ("a", "c")]), "the one above 'c' has none"),
        (lambda: Hierarchy.from_edges([("a", "b", 1.0)], root="r"), "'r' would have none"),
        (lambda: Hierarchy.from_edges([("a", "b")], root="a"), "'a' is a node"),
        (lambda: Hierarchy.from_edges(EDGES, classes=["cat", "dog", "pet"]), "'pet' is not"),
        (lambda: Hierarchy.from_edges(EDGES, classes=["cat", "dog"]), "3 leaves once; got 2, without 'saw'"),
        (lambda: Hierarchy.from_edges(EDGES, classes=["cat", "dog", "saw", "saw"]), "3 leaves once; got 4"),
        (lambda: Hierarchy.from_nested({"a": ["x"], "b": ["y"]}), "one root; got 2: 'a', 'b'"),
        (lambda: Hierarchy.from_nested({"r": {"a": ["x"], "b": ["x"]}}), "'x' has 'a' and 'b'"),
        (lambda: Hierarchy.from_nested({"r": ["x", "x"]}), "'x' has 'r' and 'r'"),
        (lambda: Hierarchy.from_nested({"r": ["x", 3]}), "names must be strings; got int below 'r'"),
        (lambda: Hierarchy.from_nested({"r": "x"}), "below 'r' there must be a dict, a list of names or None; got str"),
        (lambda: Hierarchy.from_paths(["a/b", "a/c", "d/b"], root="r"), "'b' has 'a' and 'd'"),
        (lambda: Hierarchy.from_paths(["a/b", "a/b"]), "'b' occurs twice"),
        (lambda: Hierarchy.from_paths(["a/b", "a"]), "'a' lies on the path of another class"),
        (lambda: Hierarchy.from_paths(["a//b"]), "got 'a//b'"),
        (lambda: Hierarchy.from_paths(["a/b/a"]), "'a' has None and 'b'"),
        (lambda: Hierarchy.from_nested(PETS).restrict(["cat", "cow"]), "no node is called 'cow'"),
        (lambda: Hierarchy.from_nested(PETS).restrict([]), "at least one class"),
        (lambda: Hierarchy.from_nested(PETS).restrict(["cat", "cat"]), "'cat' occurs twice"),
        (lambda: Hierarchy.from_nested(PETS).restrict(["cat", "pet"]), "'cat' lies below 'pet'"),
    ],
)
def test_bad_trees_are_named(make: object, message: str) -> None:
    with pytest.raises(HierarchyError, match=message):
        make()  # type: ignore[operator]


def test_many_names_are_cut_short() -> None:
    with pytest.raises(HierarchyError, match=r"got 12: .*'7' and 4 more\. Join"):
        Hierarchy.from_parents([-1] * 12)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text('{"r": {"a": {}, "a": {"b": {}}}}')  # json would keep the last in silence
    with pytest.raises(HierarchyError, match="'a' occurs twice"):
        Hierarchy.read(path)
    path.write_text('{"r": ')
    with pytest.raises(StateError, match=r"can't read .*tree\.json as JSON: Expecting value"):
        Hierarchy.read(path)
    path = tmp_path / "tree.csv"
    for bad in ("a,c,d,e", "a", "a,", "a,c,far"):
        path.write_text(f"a,b\n{bad}\n")
        with pytest.raises(HierarchyError, match=r"line 2 of .*tree\.csv must be parent,child\[,length\]"):
            Hierarchy.read(path)


def test_other_nodes_than_leaves_or_all() -> None:
    with pytest.raises(ChoiceError, match='"leaves" or "all"; got \'inner\''):
        Hierarchy.from_nested(PETS).distances("inner")  # type: ignore[arg-type]
