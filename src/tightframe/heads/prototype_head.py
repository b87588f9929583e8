"""`PrototypeHead`: a classifier on fixed or learnt prototypes; `PrototypeModel`: a backbone with a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tightframe.checks import Array, require_directions, require_finite
from tightframe.errors import ShapeError
from tightframe.head import follows_labels, is_head
from tightframe.heads.comparison import ComparisonHead
from tightframe.prototypes import Prototypes


class PrototypeHead(ComparisonHead):
    """A classifier head with one prototype per class, fixed (a buffer) or learnt (a parameter).

    Features after a ReLU are non-negative, and a row may be zero, with cosines 0: use the features before the ReLU, or
    a projection.

    Args:
        prototypes: `Prototypes` or vectors (K, D).
        in_features: width of the features. Default: D. If not D, a linear projection without bias is learnt.
        logits: "cosine", "dot", "euclidean", "squared-euclidean" or "pseudo-huber"; see `SIMILARITIES`.
        scale: scale of the logits, > 0. Default: 16 for cosines, else 1.
        learnable: train the prototypes, starting from these.
        learn_scale: train the scale (its logarithm).
        projection: module (N, in_features) -> (N, D) instead of the linear projection.
        open_classes: number of classes, from the first, that have logits. Default: all. For class-incremental learning,
            `open` adds classes and `append` adds prototypes; existing vectors do not change.
        delta: length at which "pseudo-huber" changes from quadratic to linear.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> logits in the same layout.
    Raises: as `Prototypes`; ChoiceError for unknown logits; RangeError for a scale or delta that is not positive;
    ZeroVectorError for a prototype of length zero under "cosine".
    Warns: ZeroVectorWarning for an embedding of length zero under "cosine", once (CPU only).
    Source: Mettes et al. 2019; Zhu et al. 2021 and Yang et al. 2022 (fixed ETF); Yang et al. 2023 (incremental);
    Sainte Fare Garnot & Landrieu 2021 (distances); Shen et al. 2023 (equiangular: logits / 0.07).

    >>> import torch
    >>> from tightframe import PrototypeHead
    >>> from tightframe import prototypes
    >>> head = PrototypeHead(prototypes.simplex(4, 8))
    >>> head(torch.randn(2, 8)).shape, head(torch.randn(2, 8, 5, 5)).shape, len(list(head.parameters()))
    (torch.Size([2, 4]), torch.Size([2, 4, 5, 5]), 0)
    """

    vectors: Tensor

    def __init__(
        self,
        prototypes: Prototypes | Array,
        in_features: int | None = None,
        *,
        logits: str = "cosine",
        scale: float | None = None,
        learnable: bool = False,
        learn_scale: bool = False,
        projection: nn.Module | None = None,
        open_classes: int | None = None,
        delta: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        start = Prototypes.of(prototypes)
        super().__init__(start.dim, in_features, projection, logits, scale, delta, learn_scale, device, dtype)
        self._require_usable(start.vectors)
        self.provenance = dict(start.provenance)
        vectors, dtype = start.vectors.detach().clone(), dtype or torch.get_default_dtype()
        self.hold("vectors", vectors, saved=True, learnt=learnable, device=device, dtype=dtype)
        if open_classes is not None:
            self.open(open_classes)

    @property
    def prototypes(self) -> Tensor:
        """(K, D), including closed classes."""
        return self.vectors

    @property
    def learnable(self) -> bool:
        """Whether the prototypes are trained."""
        return "vectors" in self._parameters

    @torch.no_grad()
    def append(self, prototypes: Prototypes | Array) -> None:
        """Append new classes (K', D) and open all classes; existing vectors do not change.

        Learnt prototypes become a new parameter: pass it to the optimiser. Raises: ShapeError if D differs.

        >>> import torch
        >>> from tightframe import PrototypeHead
        >>> head = PrototypeHead(torch.eye(3)[:2])
        >>> head.append(torch.eye(3)[2:])
        >>> head.out_features
        3
        """
        new = Prototypes.of(prototypes)
        before = self.prototypes
        if new.dim != before.shape[1]:
            raise ShapeError(f"new prototypes must have {before.shape[1]} dimensions; got {new.dim}.")
        self._require_usable(new.vectors)
        start, vectors = (torch.cat([old, new.vectors.to(old)]) for old in (self._starts["vectors"], before))
        self._starts["vectors"], self.vectors = start, nn.Parameter(vectors) if self.learnable else vectors
        kinds = (part.get("constructor", "given vectors") for part in (self.provenance, new.provenance))
        self.provenance = {"constructor": " + ".join(kinds)}
        self.open(len(self.prototypes))

    def extra_repr(self) -> str:
        kind = self.provenance.get("constructor", "given vectors")
        return f"{super().extra_repr()}, {'learnt' if self.learnable else 'fixed'} {kind}"

    def _require_usable(self, vectors: Tensor) -> None:
        if self.logits == "cosine":
            require_directions(vectors.detach(), "prototypes")
        else:
            require_finite(vectors.detach(), "prototypes")


class PrototypeModel(nn.Module):
    """A backbone with a head: inputs -> features -> logits.

    `labels=` is passed to heads that follow class means (`DeepNCM`, `GuidedHead`).

    Shapes: inputs as the backbone takes them; the head's logits, (N, K), (N, T, K) or (N, K, H, W).

    >>> import torch
    >>> from torch import nn
    >>> from tightframe import PrototypeHead, PrototypeModel
    >>> from tightframe import prototypes
    >>> model = PrototypeModel(nn.Linear(3, 8), PrototypeHead(prototypes.simplex(4, 8)))
    >>> model(torch.randn(5, 3)).shape, model.prototypes.shape
    (torch.Size([5, 4]), torch.Size([4, 8]))
    """

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, *inputs: Any, labels: Tensor | None = None, **options: Any) -> Tensor:
        features = self.backbone(*inputs, **options)
        if labels is not None and follows_labels(self.head):
            return self.head(features, labels)
        return self.head(features)

    def embed(self, *inputs: Any, **options: Any) -> Tensor:
        """Embeddings (..., D), for losses on embeddings."""
        features = self.backbone(*inputs, **options)
        head = self.head
        return head.embed(features) if is_head(head) else features

    @property
    def prototypes(self) -> Tensor:
        """(K, D), the head's prototypes."""
        return self.head.prototypes  # type: ignore[return-value]

    def get_classifier(self) -> nn.Module:
        """The head, under the name that timm uses."""
        return self.head
