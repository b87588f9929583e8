"""Log-probabilities over a tree: from scores of siblings down to the classes, and from classes up to the root."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tightframe.fixed import FixedTensors
from tightframe.hierarchy.tree import Hierarchy


class TreeInference(FixedTensors):
    """Log-probabilities of the M nodes of a tree, K of them classes, from scores; moves between devices, saves nothing.

    Shape: scores (..., M), including the root's, which is ignored; class values (..., K).
    Source: Redmon & Farhadi 2017 (YOLO9000), softmax per sibling group and product along the path.

    >>> import torch
    >>> from tightframe.hierarchy import Hierarchy, TreeInference
    >>> tree = Hierarchy.from_nested({"root": {"a": ["a1", "a2"], "b": {}}})
    >>> TreeInference(tree).log_probabilities(torch.zeros(tree.num_classes + 2)).exp()  # a1, a2, b, root, a
    tensor([0.2500, 0.2500, 0.5000, 1.0000, 0.5000])
    """

    def __init__(self, hierarchy: Hierarchy):
        super().__init__()
        self.hierarchy = hierarchy
        nodes, root = len(hierarchy), hierarchy.root
        parents = torch.tensor(hierarchy.parents, device="cpu")
        parents[root] = root  # the root is above itself: climbing further adds nothing
        group = torch.zeros(nodes, dtype=torch.int64, device="cpu")
        for number, siblings in enumerate(hierarchy.siblings):
            group[list(siblings)] = number
        self._groups = len(hierarchy.siblings) + 1
        group[root] = self._groups - 1  # alone, so that its conditional probability is one
        self.hold("group", group)
        self.hold("above", parents)
        self.hold("paths", hierarchy.paths)
        heights = replace(hierarchy, lengths=None).heights  # in hops
        ranks = torch.argsort(heights, stable=True).argsort()
        self.hold("order", ranks)  # where each node is, nodes by height
        self._steps: list[tuple[str, str, int]] = []
        inner: dict[int, list[int]] = {}  # by height, inner nodes in order; siblings are listed in that order too
        for number in range(len(hierarchy.siblings)):
            inner.setdefault(int(heights[hierarchy.num_classes + number]), []).append(number)
        for height, groups in sorted(inner.items()):
            below = [hierarchy.siblings[number] for number in groups]
            self.hold(f"children_{height}", ranks[[node for group in below for node in group]])
            places = [place for place, group in enumerate(below) for _ in group]
            self.hold(f"parents_{height}", torch.tensor(places, device="cpu"))
            self._steps.append((f"children_{height}", f"parents_{height}", len(below)))
        self._climbs = max(int(hierarchy.depths.max()) - 1, 0).bit_length()

    def conditional_log_probabilities(self, scores: Tensor) -> Tensor:
        """log P(node | its parent), (..., M): log-softmax over each group of siblings; 0 for the root."""
        group = self.indices("group", scores)
        largest, logs = _segment_logsumexp(scores, group, self._groups)
        return (scores - largest[..., group]) - logs[..., group]  # in this order large scores keep digits

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """log P(node), (..., M), from scores (..., M): conditional ones added up along the path from the root."""
        total, above = self.conditional_log_probabilities(scores), self.indices("above", scores)
        for _ in range(self._climbs):  # each step doubles the number of nodes up the path that are added
            total, above = total + total[..., above], above[above]
        return total

    def log_masses(self, class_log_probabilities: Tensor) -> Tensor:
        """log P(node), (..., M), from log P(class), (..., K): log-sum-exp over the classes below each node."""
        masses = class_log_probabilities
        for children, parents, number in self._steps:
            below = masses[..., self.indices(children, masses)]
            largest, logs = _segment_logsumexp(below, self.indices(parents, masses), number)
            masses = torch.cat([masses, largest + logs], -1)
        return masses[..., self.indices("order", masses)]

    def indices(self, name: str, values: Tensor) -> Tensor:
        """Index buffer by name, in any shape, on the meta device if the values are."""
        indices = self.get_buffer(name)
        return indices.to("meta") if values.is_meta else indices


def _segment_logsumexp(values: Tensor, segment: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """log-sum-exp of the entries (..., E) of each segment, (..., number), as two summands: the largest and the rest."""
    empty = values.new_full((*values.shape[:-1], number), -torch.inf)
    largest = empty.scatter_reduce(-1, segment.expand(values.shape), values.detach(), "amax")
    largest = torch.where(largest.isfinite(), largest, 0.0)  # all -inf stays -inf instead of becoming NaN
    shares = (values - largest[..., segment]).exp()
    sums = torch.zeros_like(empty).index_add(-1, segment, shares)
    some = sums > 0  # log(0) would be right, but its gradient is not
    return largest, torch.where(some, torch.where(some, sums, 1.0).log(), -torch.inf)
