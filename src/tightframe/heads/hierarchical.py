"""`HierarchicalHead`: class probabilities as products of conditional ones along a tree."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tightframe.errors import ShapeError
from tightframe.head import is_head
from tightframe.heads.comparison import reset_all
from tightframe.hierarchy import Hierarchy, TreeInference
from tightframe.layout import features_last, like_features
from tightframe.numerics import widened


class HierarchicalHead(nn.Module):
    """Softmax over the siblings below each node of a tree, multiplied along the path from the root.

    Its logits are the log-probabilities of the K classes, normalised already: cross-entropy, as for any head.

    Args:
        hierarchy: a tree of M nodes over the K classes.
        in_features: width of the features, for a linear layer that scores all M nodes (the root's score is not used).
        scores: any module (N, D_in) -> (N, M) in its place, for instance a `PrototypeHead` on
            `prototypes.metric_guided_nodes`; in_features then only where the module doesn't say.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> (N, K), (N, T, K) or (N, K, H, W).
    Raises: ShapeError for scores of another width.
    Source: Redmon & Farhadi 2017 (YOLO9000).

    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> head = HierarchicalHead(tree, 8)
    >>> head(torch.randn(2, 8)).exp().sum(1).round(decimals=3)
    tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    decides_linearly = False  # its decisions are no argmax of weight z + bias
    follows_labels = False
    prototypes = None

    def __init__(
        self,
        hierarchy: Hierarchy,
        in_features: int | None = None,
        *,
        scores: nn.Module | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        width = in_features if in_features is not None else getattr(scores, "in_features", None)
        if not isinstance(width, int):
            raise ShapeError("a hierarchical head needs in_features, or scores with an attribute of that name.")
        if scores is None:
            scores = nn.Linear(width, len(hierarchy), bias=bias, device=device, dtype=dtype)
        self.hierarchy, self.scores, self.in_features = hierarchy, scores, width
        self.out_features = hierarchy.num_classes
        self.tree = TreeInference(hierarchy).to(device)

    @property
    def weight(self) -> Tensor:
        """(K, D): the part of each class's log-probability that is linear in the features, summed along its path."""
        return self._along_paths(self.scores.weight)  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        """(K,) or None, as `weight`."""
        bias = self.scores.bias
        return None if bias is None else self._along_paths(bias[:, None])[:, 0]  # type: ignore[index]

    def embed(self, features: Tensor) -> Tensor:
        """What the scores are linear in: the features themselves, or their embedding by a head that scores."""
        scores = self.scores
        return scores.embed(features) if is_head(scores) else features

    def log_probabilities(self, features: Tensor) -> Tensor:
        """log P(node) of all M nodes, (N, M) and so on: marginal, the root's is 0."""
        return like_features(self.tree.log_probabilities(self._scores(features)))

    def conditional_log_probabilities(self, features: Tensor) -> Tensor:
        """log P(node | its parent) of all M nodes, (N, M) and so on."""
        return like_features(self.tree.conditional_log_probabilities(self._scores(features)))

    def predict(self, features: Tensor, depth: int | None = None) -> Tensor:
        """The most probable node, (N,) and so on: a class, or by `depth` a node at most so many hops below the root.

        Nodes at that depth and classes above it compete: a partition of all classes. Depth 0 is the root.
        Raises: HierarchyError for a negative depth.
        """
        log_probabilities = self.tree.log_probabilities(self._scores(features))
        nodes = self.hierarchy.cut(int(self.hierarchy.depths.max()) if depth is None else depth)
        nodes = nodes.to(log_probabilities.device)
        return nodes[log_probabilities[..., nodes].argmax(-1)]

    def forward(self, features: Tensor) -> Tensor:
        log_probabilities = self.tree.log_probabilities(self._scores(features))
        return like_features(log_probabilities[..., : self.out_features])

    def reset_parameters(self) -> None:
        """The scores' parameters anew."""
        reset_all(self.scores)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.hierarchy!r}"

    def _scores(self, features: Tensor) -> Tensor:
        rows = features_last(features, self.in_features)
        scores = self.scores(rows.reshape(-1, self.in_features))
        if scores.shape[-1] != len(self.hierarchy):
            raise ShapeError(
                f"scores must be (N, {len(self.hierarchy)}), one for each node; got {tuple(scores.shape)}."
            )
        return widened(scores).unflatten(0, rows.shape[:-1])

    def _along_paths(self, rows: Tensor) -> Tensor:
        paths = self.tree.indices("paths", rows)[: self.out_features, 1:]
        padded = torch.cat([rows, torch.zeros_like(rows[:1])])  # -1, the padding of paths, is its last row
        return padded[paths].sum(1)
