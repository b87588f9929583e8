"""`Head`: the protocol of classifier heads, from any package; `is_head` checks it."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from torch import Tensor, nn


class Head(Protocol):
    """A classifier head: an `nn.Module` that maps features to embeddings and embeddings to logits.

    Any module with these members is a head; no base class is needed. `measure` then measures the output of `embed`,
    `replace_classifier` puts the head into a model, and losses on prototypes accept it.

    >>> from torch import nn
    >>> from tightframe.heads import is_head
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
        """(K, D), the vectors that embeddings are compared with; None for a head without prototypes."""

    @property
    def out_features(self) -> int:
        """Number of logits; if there are more prototypes, the first ones have logits."""

    @property
    def weight(self) -> Tensor | None:
        """(K, D), with `bias` the linear rule on embeddings, or the linear part of the rule; None if there is none."""

    @property
    def bias(self) -> Tensor | None:
        """(K,), or None without a bias."""

    @property
    def decides_linearly(self) -> bool:
        """Whether the head's decision on an embedding z is the argmax of weight z + bias."""

    @property
    def follows_labels(self) -> bool:
        """Whether the head takes features and labels in training, to follow the class means or for a margin."""

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings of features, (N, D), (N, T, D) or (N, D, H, W), in the layout of the features."""


MEMBERS = tuple(name for name in vars(Head) if not name.startswith("_"))


def is_head(module: object) -> TypeGuard[Head]:
    """Whether a module has all members of `Head`.

    `isinstance` with a protocol does not work: since Python 3.12 it ignores parameters and buffers.

    >>> from torch import nn
    >>> from tightframe import PrototypeHead, prototypes
    >>> from tightframe.heads import is_head
    >>> is_head(PrototypeHead(prototypes.simplex(3))), is_head(nn.Linear(2, 3))
    (True, False)
    """
    return isinstance(module, nn.Module) and all(
        hasattr(type(module), name) or hasattr(module, name) for name in MEMBERS
    )


def follows_labels(module: nn.Module) -> bool:
    """Whether a module is a head that takes labels in training."""
    return is_head(module) and module.follows_labels
