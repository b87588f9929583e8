"""`HierarchicalHead`: class probabilities as products of conditional probabilities along a tree."""

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
    """Softmax over the children of each node of a tree, multiplied along the path from the root.

    The logits are the normalised log-probabilities of the K classes; train with cross-entropy.

    Args:
        hierarchy: a tree of M nodes over the K classes.
        in_features: width of the features, for a linear layer that scores all M nodes (the root's score is unused).
        scores: a module (N, D_in) -> (N, M) instead of the linear layer, for example a `PrototypeHead` on
            `prototypes.metric_guided_nodes`; in_features is then needed only if the module has no such attribute.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> (N, K), (N, T, K) or (N, K, H, W).
    Raises: ShapeError unless there is one score per node.
    Source: Redmon & Farhadi 2017 (YOLO9000).

    >>> import torch
    >>> from tightframe.heads import HierarchicalHead
    >>> from tightframe.hierarchy import Hierarchy
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> head = HierarchicalHead(tree, 8)
    >>> head(torch.randn(2, 8)).exp().sum(1).round(decimals=3)
    tensor([1., 1.], grad_fn=<RoundBackward1>)
    """

    decides_linearly = False  # decisions are not an argmax of weight z + bias
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
            raise ShapeError("pass in_features=, or a scores module with an attribute in_features.")
        if scores is None:
            scores = nn.Linear(width, len(hierarchy), bias=bias, device=device, dtype=dtype)
        self.hierarchy, self.scores, self.in_features = hierarchy, scores, width
        self.out_features = hierarchy.num_classes
        self.tree = TreeInference(hierarchy).to(device)

    @property
    def weight(self) -> Tensor:
        """(K, D): linear part of each class's log-probability, summed along the path."""
        return self._along_paths(self.scores.weight)  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        """(K,) or None, as `weight`."""
        bias = self.scores.bias
        return None if bias is None else self._along_paths(bias[:, None])[:, 0]  # type: ignore[index]

    def embed(self, features: Tensor) -> Tensor:
        """The inputs (N, D) of the linear scores: the features, or their embeddings if `scores` is a head."""
        scores = self.scores
        return scores.embed(features) if is_head(scores) else features

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Marginal log P(node) of all M nodes, (N, M) or (N, M, H, W); 0 for the root."""
        return like_features(self.tree.log_probabilities(self._scores(features)))

    def conditional_log_probabilities(self, features: Tensor) -> Tensor:
        """log P(node | parent) of all M nodes, (N, M) or (N, M, H, W)."""
        return like_features(self.tree.conditional_log_probabilities(self._scores(features)))

    def predict(self, features: Tensor, depth: int | None = None) -> Tensor:
        """The most probable node, (N,) or (N, H, W): a class or, with `depth`, a node at most that deep.

        Candidates are the nodes at that depth and the classes above it. Depth 0 is the root.
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
        """Reset the parameters of the scores."""
        reset_all(self.scores)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.hierarchy!r}"

    def _scores(self, features: Tensor) -> Tensor:
        rows = features_last(features, self.in_features)
        scores = self.scores(rows.reshape(-1, self.in_features))
        if scores.shape[-1] != len(self.hierarchy):
            raise ShapeError(f"scores must be (N, {len(self.hierarchy)}), one per node; got {tuple(scores.shape)}.")
        return widened(scores).unflatten(0, rows.shape[:-1])

    def _along_paths(self, rows: Tensor) -> Tensor:
        paths = self.tree.indices("paths", rows)[: self.out_features, 1:]
        padded = torch.cat([rows, torch.zeros_like(rows[:1])])  # paths are padded with -1, the last row
        return padded[paths].sum(1)
