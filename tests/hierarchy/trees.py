"""Trees for the tests of hierarchies, and walks through them that use nothing but the parents."""

import random

import torch
from torch import Tensor

from tightframe.hierarchy import Hierarchy

DIGITS = {
    "digits": {
        "straight": {"strokes": ["1", "7"], "crossed": ["4"]},
        "round": {"loops": ["0", "6", "9"], "pairs": ["3", "8"]},
        "bent": {"hooks": ["2", "5"]},
    }
}
"""A tree whose distances are the published visual costs of the digits."""

PETS = {"all": {"pet": ["cat", "dog"], "tool": ["saw"]}}


def random_tree(number: int, seed: int, *, weighted: bool = False) -> Hierarchy:
    draw = random.Random(seed)
    parents = [-1] + [draw.randrange(node) for node in range(1, number)]
    order = list(range(number))
    draw.shuffle(order)
    shuffled = [-1] * number
    for node, parent in enumerate(parents):
        shuffled[order[node]] = -1 if parent < 0 else order[parent]
    lengths = [draw.uniform(0.1, 2) for _ in range(number)] if weighted else None
    return Hierarchy.from_parents(shuffled, lengths=lengths)


def shortest_paths(tree: Hierarchy) -> Tensor:
    """Floyd and Warshall over the edges."""
    far = torch.full((len(tree), len(tree)), float("inf"), dtype=torch.float64).fill_diagonal_(0)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            far[node, parent] = far[parent, node] = 1.0 if tree.lengths is None else tree.lengths[node]
    for middle in range(len(tree)):
        far = torch.minimum(far, far[:, middle, None] + far[middle])
    return far


def ancestors(tree: Hierarchy, node: int) -> list[int]:
    way = [node]
    while tree.parents[way[-1]] >= 0:
        way.append(tree.parents[way[-1]])
    return way


def chain(depth: int) -> Hierarchy:
    """One class, so many hops below the root."""
    return Hierarchy.from_parents(range(-1, depth))


def comb(depth: int) -> Hierarchy:
    """At every depth but the last one inner node and one class: depth + 1 classes."""
    parents = [-1]
    for level in range(depth):
        parents += [2 * level - 1 if level else 0] * 2  # the first of the two goes on
    return Hierarchy.from_parents(parents)
