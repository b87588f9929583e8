"""`Head`: what a classifier head says about itself; `is_head` checks it. A head of any package needs no more."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from torch import Tensor, nn


class Head(Protocol):
    """A classifier head: an `nn.Module` that makes embeddings of features and logits of embeddings.

    Nothing is inherited: any module with these members is a head. `measure` then measures what `embed` makes,
    `replace_classifier` puts the head into a model, and losses on prototypes take it.

    >>> import torch
    >>> class Angles(nn.Module):
    ...     follows_labels, decides_linearly, bias = False, True, None
    ...
    ...     def __init__(self, in_features: int, out_features: int):
    ...         super().__init__()
    ...         self.in_features, self.out_features = in_features, out_features
    ...         self.weight = nn.Parameter(torch.randn(out_features, in_features))
    ...
    ...     @property
    ...     def prototypes(self):
    ...         return self.weight
    ...
    ...     def embed(self, features):
    ...         return features.atan()
    ...
    ...     def forward(self, features):
    ...         return self.embed(features) @ self.weight.mT
    >>> is_head(Angles(8, 3)), is_head(nn.Linear(8, 3))
    (True, False)
    """

    @property
    def prototypes(self) -> Tensor | None:
        """(K, D), the vectors that embeddings are compared with; None for a head that has none."""

    @property
    def out_features(self) -> int:
        """The number of logits; if there are more prototypes, those of the first classes have logits."""

    @property
    def weight(self) -> Tensor | None:
        """(K, D), with `bias` the linear rule on embeddings, or the linear part of one that isn't; None without one."""

    @property
    def bias(self) -> Tensor | None:
        """(K,), or None for a rule without bias."""

    @property
    def decides_linearly(self) -> bool:
        """Whether the head decides for argmax of weight z + bias on an embedding z."""

    @property
    def follows_labels(self) -> bool:
        """Whether the head is called with features and labels in training, to follow the class means."""

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings of features, (N, D), (N, T, D) or (N, D, H, W) like these."""


MEMBERS = tuple(name for name in vars(Head) if not name.startswith("_"))


def is_head(module: object) -> TypeGuard[Head]:
    """Whether a module has all members of `Head`.

    `isinstance` of a protocol can't tell: from Python 3.12 on it doesn't see parameters and buffers.
    """
    return isinstance(module, nn.Module) and all(
        hasattr(type(module), name) or hasattr(module, name) for name in MEMBERS
    )


def follows_labels(module: nn.Module) -> bool:
    """Whether a module is a head that is called with labels in training."""
    return is_head(module) and module.follows_labels
