"""`Hierarchy`: a tree over the classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tightframe.errors import ChoiceError, HierarchyError
from tightframe.reading import read_json, read_rows, read_text

Nodes = Literal["leaves", "all"]
"""Which nodes of a hierarchy: the classes, or the inner nodes after them as well."""

DEEPEST = 1000
"""Levels below the root that a hierarchy can have: what is computed of it takes memory for each node and level."""

_NO_MORE = object()
_SHOWN = 8  # names in a message before it says how many more there are


@dataclass(frozen=True)
class Hierarchy:
    """A rooted tree whose leaves are the K classes: nodes 0..K-1 in class order, then the inner nodes.

    The constructors below read several formats and move the leaves to the front; otherwise nodes keep their order.
    Names are distinct.

    Attributes:
        names: (M,) one per node.
        parents: (M,) the index of each node's parent; -1 for the root.
        lengths: (M,) of the edge from each node to its parent, >= 0; the root's is ignored. None: every edge is one
            hop.

    Raises: HierarchyError for a duplicate name, an unknown parent, a cycle, no root or several, or a negative length;
    the message names the nodes.

    >>> from tightframe.hierarchy import Hierarchy
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> tree.names
    ('cat', 'dog', 'saw', 'all', 'pet', 'tool')
    >>> tree.distances().tolist()
    [[0.0, 2.0, 4.0], [2.0, 0.0, 4.0], [4.0, 4.0, 0.0]]
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    lengths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("names", "parents") if self.lengths is None else ("names", "parents", "lengths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != len(self.names):
                raise HierarchyError(f"{len(self.names)} names need as many {name}; got {len(getattr(self, name))}.")
        self._require_distinct_names()
        self._require_known_parents()
        self._require_no_cycle()
        self._require_one_root()
        for name, length in zip(self.names, self.lengths or (), strict=False):
            if not 0 <= length < float("inf"):
                raise HierarchyError(f"edges must have finite lengths >= 0; the one above {name!r} has {length}.")
        inner = set(self.parents)
        misplaced = [node for node in range(1, len(self.names)) if node not in inner and node - 1 in inner]
        if misplaced:
            raise HierarchyError(
                f"leaves come before inner nodes; {self.names[misplaced[0]]!r} comes after "
                f"{self.names[misplaced[0] - 1]!r}. Hierarchy.from_parents sorts them."
            )

    # ------------------------------------------------------------------ making one

    @classmethod
    def from_parents(
        cls,
        parents: Sequence[int | None] | Tensor,
        names: Sequence[str] | None = None,
        *,
        lengths: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
    ) -> Hierarchy:
        """A tree from the index of each node's parent, (M,), -1 or None for the root, the nodes in any order.

        Args:
            names: of the nodes; by default "0", "1", ...
            lengths: of the edge above each node; by default 1.
            classes: all names of leaves, in class order; by default their order among the nodes.

        >>> from tightframe.hierarchy import Hierarchy
        >>> tree = Hierarchy.from_parents([2, 2, -1], ["cat", "dog", "all"])
        >>> tree.class_names, tree.num_classes
        (('cat', 'dog'), 2)
        """
        above = [-1 if parent is None else int(parent) for parent in parents]
        named = [str(node) for node in range(len(above))] if names is None else list(names)
        if len(named) != len(above):
            raise HierarchyError(f"{len(above)} parents need as many names; got {len(named)}.")
        inner = set(above)
        leaves = [node for node in range(len(above)) if node not in inner]
        if classes is not None:
            position = {named[leaf]: leaf for leaf in leaves}
            wrong = [name for name in classes if name not in position]
            if wrong:
                raise HierarchyError(f"classes must be leaves of the tree; {_list(wrong)} {_are(wrong)} not.")
            missing = [name for name in position if name not in set(classes)]
            if missing or len(classes) != len(leaves):
                raise HierarchyError(
                    f"classes must name each of the {len(leaves)} leaves once; got {len(classes)}"
                    + (f", without {_list(missing)}." if missing else ".")
                    + " Hierarchy.restrict cuts a tree to some classes."
                )
            leaves = [position[name] for name in classes]
        order = leaves + [node for node in range(len(above)) if node in inner]
        place = {node: index for index, node in enumerate(order)}
        return cls(
            tuple(named[node] for node in order),
            tuple(place.get(above[node], above[node]) for node in order),
            None if lengths is None else tuple(float(lengths[node]) for node in order),
        )

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[tuple[str, str] | tuple[str, str, float]],
        *,
        root: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> Hierarchy:
        """A tree from (parent, child) or (parent, child, length) edges; nodes keep the order of their first occurrence.

        Args:
            root: name of a root to add above several top nodes; not for edges with lengths.
            classes: all names of leaves, in class order. Default: their order among the edges.

        Raises: as the class; HierarchyError for a child with two parents, and if only some edges have lengths.

        >>> from tightframe.hierarchy import Hierarchy
        >>> tree = Hierarchy.from_edges([("pet", "cat", 1.0), ("pet", "dog", 2.5)])
        >>> tree.distances().tolist()
        [[0.0, 3.5], [3.5, 0.0]]
        """
        above: dict[str, str | None] = {}
        lengths: dict[str, float] = {}
        count = 0
        for parent, child, *length in edges:
            count += 1
            above.setdefault(parent, None)
            before = above.get(child)
            if before is not None:
                raise HierarchyError(f"a node has one parent; {child!r} has {before!r} and {parent!r}.")
            above[child] = parent
            if length:
                lengths[child] = float(length[0])
        if lengths and len(lengths) != count:
            bare = next(child for child, parent in above.items() if parent is not None and child not in lengths)
            raise HierarchyError(f"either all edges have lengths or none; the one above {bare!r} has none.")
        return _assemble(above, lengths or None, root, classes)

    @classmethod
    def from_nested(
        cls, tree: Mapping[str, Any], *, root: str | None = None, classes: Sequence[str] | None = None
    ) -> Hierarchy:
        """A tree from nested dicts; a leaf's value is {}, [] or None, and a list of names is a group of leaves.

        Args, errors: as for `from_edges`.

        >>> from tightframe.hierarchy import Hierarchy
        >>> Hierarchy.from_nested({"pet": ["cat", "dog"], "saw": None}, root="all").class_names
        ('cat', 'dog', 'saw')
        """
        above: dict[str, str | None] = {}
        waiting: list[tuple[str | None, Iterator[tuple[str, Any]]]] = [(None, _children(tree, None))]
        while waiting:
            parent, children = waiting[-1]
            name, branch = next(children, ("", _NO_MORE))
            if branch is _NO_MORE:
                waiting.pop()
                continue
            if name in above:
                raise HierarchyError(f"a node has one parent; {name!r} has {above[name]!r} and {parent!r}.")
            above[name] = parent
            waiting.append((name, _children(branch, name)))
        return _assemble(above, None, root, classes)

    @classmethod
    def from_paths(
        cls,
        paths: Iterable[str],
        *,
        separator: str = "/",
        root: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> Hierarchy:
        """A tree from one path per class, "animal/dog/husky", in class order; the last part of a path is the node's
        name.

        Args: as for `from_edges`.
        Raises: as the class; HierarchyError for a class that occurs twice or lies on the path of another.

        >>> from tightframe.hierarchy import Hierarchy
        >>> Hierarchy.from_paths(["all/pet/cat", "all/pet/dog", "all/saw"]).names
        ('cat', 'dog', 'saw', 'all', 'pet')
        """
        above: dict[str, str | None] = {}
        leaves: list[str] = []
        for path in paths:
            parts = [part.strip() for part in path.split(separator)]
            if not all(parts):
                raise HierarchyError(f"every part of a path has a name; got {path!r}.")
            for parent, name in zip([None, *parts], parts, strict=False):
                if above.setdefault(name, parent) != parent:
                    raise HierarchyError(f"a node has one parent; {name!r} has {above[name]!r} and {parent!r}.")
            leaves.append(parts[-1])
        _without_duplicates([(name, None) for name in leaves])
        inner = set(above.values())
        for name in leaves:
            if name in inner:
                raise HierarchyError(f"a class is a leaf; {name!r} lies on the path of another class.")
        return _assemble(above, None, root, classes)

    @classmethod
    def from_wordnet(cls, path: str | Path, classes: Sequence[str] | None = None) -> Hierarchy:
        """The noun hierarchy of a WordNet `data.noun` file (Debian: wordnet-base, /usr/share/wordnet/data.noun).

        A node is named by its first word and its WordNet ID, "dog.n02084071"; the IDs of WordNet 3.0 are ImageNet's.
        A synset may have several hypernyms (or, for an instance, several kinds): the first makes it a tree.

        Args:
            classes: the tree's leaves in class order, each a name, an ID or a word that only one synset has; what lies
                below them is cut away. By default all synsets without hyponyms.

        Raises: HierarchyError for a word that is unknown or has several synsets (it lists them), and for a file in
        another format.
        Source: wndb(5WN), Princeton WordNet.
        """
        names: dict[str, str] = {}
        hypernyms: dict[str, str | None] = {}
        synsets: dict[str, list[str]] = {}  # by what a class may be called
        for number, line in enumerate(read_text(Path(path)).removesuffix("\n").split("\n"), 1):
            if line.startswith("  "):
                continue  # the licence
            try:
                offset, words, hypernym = _read_synset(line)
            except (ValueError, IndexError):
                raise HierarchyError(f"line {number} of {path} is no noun synset: {line[:60].rstrip()!r}.") from None
            names[offset] = f"{words[0]}.n{offset}"
            hypernyms[offset] = hypernym
            for key in {names[offset], f"n{offset}", *words}:
                synsets.setdefault(key, []).append(names[offset])
        for offset, hypernym in hypernyms.items():
            if hypernym is not None and hypernym not in names:
                raise HierarchyError(f"the hypernym n{hypernym} of {names[offset]!r} is not in {path}.")
        above = {names[offset]: None if up is None else names[up] for offset, up in hypernyms.items()}
        tree = _assemble(above, None, None, None)
        if classes is None:
            return tree
        chosen = []
        for name in classes:
            found = synsets.get(name, [])
            if len(found) != 1:
                several = f"has {len(found)} synsets, {_list(found)}; name one" if found else f"is not in {path}"
                raise HierarchyError(f"{name!r} {several}.")
            chosen.append(found[0])
        return tree.restrict(chosen)

    @classmethod
    def read(cls, path: str | Path, *, root: str | None = None, classes: Sequence[str] | None = None) -> Hierarchy:
        """A tree from a file. Its name determines the format: .json (nested dicts), .csv (edges parent,child[,length],
        with or without that header), data.noun (WordNet); other files are text with one path per line.

        Args: as for `from_edges`; as for `from_wordnet` with its file.
        Raises: HierarchyError naming the line that can't be read.
        """
        path = Path(path)
        if path.name == "data.noun":
            return cls.from_wordnet(path, classes)
        if path.suffix == ".json":
            return cls.from_nested(read_json(path, _without_duplicates), root=root, classes=classes)
        if path.suffix == ".csv":
            return cls.from_edges(_read_edges(path), root=root, classes=classes)
        return cls.from_paths(filter(str.strip, read_text(path).splitlines()), root=root, classes=classes)

    # ------------------------------------------------------------------ reading it

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Hierarchy({self.num_classes} classes, {len(self)} nodes, depth {int(self.depths.max())})"

    @cached_property
    def num_classes(self) -> int:
        """K, the number of leaves."""
        return len(self) - len(set(self.parents) - {-1})

    @property
    def root(self) -> int:
        """The index of the root."""
        return self.parents.index(-1)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the K leaves, in class order."""
        return self.names[: self.num_classes]

    @cached_property
    def siblings(self) -> tuple[tuple[int, ...], ...]:
        """The children of each inner node, inner nodes in order: groups that hold every node but the root once."""
        groups: dict[int, list[int]] = {node: [] for node in range(self.num_classes, len(self))}
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                groups[parent].append(node)
        return tuple(tuple(group) for group in groups.values())

    @cached_property
    def paths(self) -> Tensor:
        """(M, depth + 1) int64, the nodes from the root to each node, itself included, then -1s."""
        chains: dict[int, list[int]] = {-1: []}
        for node in range(len(self)):
            climb = [node]
            while self.parents[climb[-1]] not in chains:
                climb.append(self.parents[climb[-1]])
            for below in reversed(climb):
                chains[below] = [*chains[self.parents[below]], below]
        paths = torch.full((len(self), max(map(len, chains.values()))), -1, device="cpu")
        for node in range(len(self)):
            paths[node, : len(chains[node])] = torch.tensor(chains[node], device="cpu")
        return paths

    @property
    def depths(self) -> Tensor:
        """(M,) int64, hops from the root to each node."""
        return (self.paths >= 0).sum(1) - 1

    @cached_property
    def heights(self) -> Tensor:
        """(M,) float64, the largest distance from each node to a leaf below it; 0 for leaves."""
        heights = torch.zeros(len(self), dtype=torch.float64, device="cpu")
        reached = self._reached
        for level in self.paths[: self.num_classes].mT:
            leaves = (level >= 0).nonzero()[:, 0]
            nodes = level[leaves]
            heights.scatter_reduce_(0, nodes, reached[leaves] - reached[nodes], "amax")
        return heights

    def lowest_common_ancestors(self, nodes: Nodes = "leaves") -> Tensor:
        """(K, K) int64 for the leaves, (M, M) for all nodes: the deepest node above both (a node is above itself)."""
        paths = self.paths[: self._count(nodes)]
        shared = torch.zeros(len(paths), len(paths), dtype=torch.int64, device="cpu")
        for level in paths.mT:
            shared += (level[:, None] == level) & (level >= 0)  # once apart, two paths never meet again
        return paths.gather(1, shared - 1)

    def distances(self, nodes: Nodes = "leaves") -> Tensor:
        """Distance between two nodes through the tree, in hops or in edge lengths.

        Shape: (K, K) float64 for the leaves, (M, M) for all nodes; symmetric, 0 on the diagonal.

        >>> from tightframe.hierarchy import Hierarchy
        >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
        >>> tree.distances().tolist()
        [[0.0, 2.0, 4.0], [2.0, 0.0, 4.0], [4.0, 4.0, 0.0]]
        """
        reached = self._reached
        ends = reached[: self._count(nodes)]
        return ends[:, None] + ends - 2 * reached[self.lowest_common_ancestors(nodes)]

    def cut(self, depth: int) -> Tensor:
        """The nodes at a depth, in hops from the root, and the classes above it: every class lies below exactly one.

        Shape: (S,) int64.
        Raises: HierarchyError for a negative depth.

        >>> from tightframe.hierarchy import Hierarchy
        >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "saw": None}})
        >>> [tree.names[node] for node in tree.cut(1)]
        ['saw', 'pet']
        """
        if depth < 0:
            raise HierarchyError(f"a depth counts hops from the root, 0 or more; got {depth}.")
        inner = torch.arange(len(self), device="cpu") >= self.num_classes
        return ((self.depths == depth) | ((self.depths < depth) & ~inner)).nonzero().flatten()

    def restrict(self, classes: Sequence[str]) -> Hierarchy:
        """The tree over the given nodes, which become its leaves in this order, and the nodes above them.

        Raises: HierarchyError for an unknown or repeated name, and for a class that lies below another.

        >>> from tightframe.hierarchy import Hierarchy
        >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
        >>> tree.restrict(["tool", "cat"]).names
        ('tool', 'cat', 'all', 'pet')
        """
        index = {name: node for node, name in enumerate(self.names)}
        _without_duplicates([(name, None) for name in classes])
        unknown = [name for name in classes if name not in index]
        if unknown:
            raise HierarchyError(f"no node is called {_list(unknown)}.")
        if not classes:
            raise HierarchyError("a hierarchy has at least one class; got none.")
        chosen = [index[name] for name in classes]
        paths = self.paths[chosen]
        above = set(paths.flatten().tolist()) - {-1}
        for path, name in zip(paths, classes, strict=True):
            for upper in set(path[path >= 0][:-1].tolist()) & set(chosen):
                raise HierarchyError(f"no class lies below another; {name!r} lies below {self.names[upper]!r}.")
        order = chosen + sorted(above - set(chosen))
        place = {node: position for position, node in enumerate(order)}
        return Hierarchy(
            tuple(self.names[node] for node in order),
            tuple(place.get(self.parents[node], -1) for node in order),
            None if self.lengths is None else tuple(self.lengths[node] for node in order),
        )

    @cached_property
    def _reached(self) -> Tensor:
        """(M,) float64, the length of the way from the root to each node."""
        if self.lengths is None:
            return self.depths.to(torch.float64)
        lengths = torch.tensor([*self.lengths, 0.0], dtype=torch.float64, device="cpu")  # the last for the padding, -1
        lengths[self.root] = 0.0
        return lengths[self.paths].sum(1)

    def _count(self, nodes: Nodes) -> int:
        if nodes not in ("leaves", "all"):
            raise ChoiceError(f'nodes are "leaves" or "all"; got {nodes!r}.')
        return self.num_classes if nodes == "leaves" else len(self)

    # ------------------------------------------------------------------ what makes it a tree

    def _require_distinct_names(self) -> None:
        if not self.names:
            raise HierarchyError("a hierarchy has at least one node; got none.")
        _without_duplicates([(name, None) for name in self.names])

    def _require_known_parents(self) -> None:
        for name, parent in zip(self.names, self.parents, strict=True):
            if not -1 <= parent < len(self.names):
                raise HierarchyError(
                    f"the parent of {name!r} must be the index of one of {len(self.names)} nodes, or -1 for the root; "
                    f"got {parent}."
                )

    def _require_no_cycle(self) -> None:
        """Raise HierarchyError for a cycle, and for a tree that is too deep to be kept as paths."""
        depths = {-1: -1}
        for start in range(len(self.parents)):
            climb: dict[int, None] = {}
            node = start
            while node not in depths and node not in climb:
                climb[node] = None
                node = self.parents[node]
            if node not in depths:
                way = list(climb)
                cycle = [self.names[index] for index in [*way[way.index(node) :], node]]
                raise HierarchyError(f"a tree has no cycle; going up: {' -> '.join(map(repr, cycle))}.")
            for below in reversed(climb):
                depths[below] = depths[self.parents[below]] + 1
        if (depth := max(depths.values())) > DEEPEST:
            raise HierarchyError(f"a hierarchy must be at most {DEEPEST} levels deep; this one has {depth}.")

    def _require_one_root(self) -> None:
        roots = [name for name, parent in zip(self.names, self.parents, strict=True) if parent == -1]
        if len(roots) > 1:
            raise HierarchyError(f"a tree has one root; got {len(roots)}: {_list(roots)}. Join them below one.")


def _children(branch: Any, parent: str | None) -> Iterator[tuple[str, Any]]:
    """Names and branches below a node of nested dicts."""
    if not isinstance(branch, Mapping | list | None):
        raise HierarchyError(
            f"below {parent!r} there must be a dict, a list of names or None; got {type(branch).__name__}."
        )
    for name, below in branch.items() if isinstance(branch, Mapping) else ((name, None) for name in branch or ()):
        if not isinstance(name, str):
            raise HierarchyError(f"names must be strings; got {type(name).__name__} below {parent!r}.")
        yield name, below


def _assemble(
    above: Mapping[str, str | None],
    lengths: Mapping[str, float] | None,
    root: str | None,
    classes: Sequence[str] | None,
) -> Hierarchy:
    """The tree in which each name has the given parent; `root`, if given, joins the names that have none."""
    if root is not None:
        if root in above:
            raise HierarchyError(f"the root that joins the tops needs a name of its own; {root!r} is a node.")
        if lengths is not None:
            raise HierarchyError(f"edges with lengths must include those below the root; {root!r} would have none.")
        above = {root: None} | {name: root if parent is None else parent for name, parent in above.items()}
    index = {name: node for node, name in enumerate(above)}
    return Hierarchy.from_parents(
        [None if parent is None else index[parent] for parent in above.values()],
        list(above),
        lengths=None if lengths is None else [lengths.get(name, 0.0) for name in above],
        classes=classes,
    )


def _read_synset(line: str) -> tuple[str, list[str], str | None]:
    """Offset, words and first hypernym's offset of a line of data.noun."""
    fields = line.split(" | ")[0].split()
    offset, kind, num_words = fields[0], fields[2], int(fields[3], 16)  # words are counted in hexadecimal
    if kind != "n" or not (len(offset) == 8 and offset.isdigit()) or num_words < 1:
        raise ValueError(line)
    words = fields[4 : 4 + 2 * num_words : 2]
    pointers = fields[5 + 2 * num_words :]
    if len(pointers) != 4 * int(fields[4 + 2 * num_words]):
        raise ValueError(line)
    for symbol, target in zip(pointers[::4], pointers[1::4], strict=True):
        if symbol in ("@", "@i"):  # hypernym, instance hypernym
            return offset, words, target
    return offset, words, None


def _read_edges(path: Path) -> Iterable[tuple[str, str] | tuple[str, str, float]]:
    for place, (number, row) in enumerate(read_rows(path)):
        if place == 0 and row[:2] == ["parent", "child"]:
            continue
        try:
            parent, child, *length = row
            if not (parent and child) or len(length) > 1:
                raise ValueError
            yield (parent, child, float(length[0])) if length else (parent, child)
        except ValueError:
            raise HierarchyError(
                f"line {number} of {path} must be parent,child[,length]; got {','.join(row):.100}."
            ) from None


def _without_duplicates(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict of the pairs, or HierarchyError naming a key that occurs twice."""
    result: dict[Any, Any] = {}
    for name, value in pairs:
        if name in result:
            raise HierarchyError(f"names must be distinct; {name!r} occurs twice.")
        result[name] = value
    return result


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
