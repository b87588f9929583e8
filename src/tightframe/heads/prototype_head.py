"""`PrototypeHead`: a classifier on fixed or learnt prototypes; `PrototypeModel`: backbone and head as one module."""

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
    """A classifier head on one prototype a class, fixed (a buffer) or learnt (a parameter).

    Features after a ReLU can't point every way, and a row of them may be zero, whose cosines count as 0: give the head
    the features before the ReLU, or a projection.

    Args:
        prototypes: `Prototypes` or vectors (K, D).
        in_features: width of the features, if not D: then a linear projection without bias is learnt.
        logits: "cosine", "dot", "euclidean", "squared-euclidean" or "pseudo-huber"; see `SIMILARITIES`.
        scale: of the logits, > 0; by default 16 for cosines and 1 for the others.
        learnable: train the prototypes, from these as their start.
        learn_scale: train the scale (its logarithm).
        projection: any module (N, in_features) -> (N, D) in place of the linear one.
        open_classes: how many classes, the first ones, have logits yet; by default all. `open` adds the next ones and
            `append` new prototypes, and neither moves a vector: class-incremental learning on reserved prototypes.
        delta: of "pseudo-huber", where it passes from squares to lengths.

    Shapes: features (N, D_in), (N, T, D_in) or (N, D_in, H, W) -> logits in the same layout.
    Raises: as `Prototypes`; ChoiceError, RangeError; ZeroVectorError naming a prototype of length zero under "cosine".
    Warns: ZeroVectorWarning naming an embedding of length zero under "cosine", once (on the CPU).
    Source: Mettes et al. 2019; Zhu et al. 2021 and Yang et al. 2022 (fixed ETF); Yang et al. 2023 (incremental);
    Sainte Fare Garnot & Landrieu 2021 (distances); Shen et al. 2023 (equiangular: logits / 0.07).

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
        given = Prototypes.of(prototypes)
        super().__init__(given.dim, in_features, projection, logits, scale, delta, learn_scale, device, dtype)
        self._require_usable(given.vectors)
        self.provenance = dict(given.provenance)
        start = given.vectors.detach().clone()
        self.hold(
            "vectors", start, saved=True, learnt=learnable, device=device, dtype=dtype or torch.get_default_dtype()
        )
        if open_classes is not None:
            self.open(open_classes)

    @property
    def prototypes(self) -> Tensor:
        """(K, D), also of classes that aren't open yet."""
        return self.vectors

    @property
    def learnable(self) -> bool:
        """Whether the prototypes are trained."""
        return "vectors" in self._parameters

    @torch.no_grad()
    def append(self, prototypes: Prototypes | Array) -> None:
        """Add classes (K', D) after the others and open all; the vectors before them stay as they are, bit for bit.

        Learnt prototypes become a new parameter: tell the optimiser. Raises: ShapeError for another dimension.
        """
        given = Prototypes.of(prototypes)
        before = self.prototypes
        if given.dim != before.shape[1]:
            raise ShapeError(f"new prototypes must have {before.shape[1]} dimensions; got {given.dim}.")
        self._require_usable(given.vectors)
        start, vectors = (torch.cat([old, given.vectors.to(old)]) for old in (self._starts["vectors"], before))
        self._starts["vectors"], self.vectors = start, nn.Parameter(vectors) if self.learnable else vectors
        kinds = (part.get("constructor", "given vectors") for part in (self.provenance, given.provenance))
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
    """A backbone and a head as one model: inputs -> features -> logits.

    `labels=` go to a head that follows class means (`DeepNCM`, `GuidedHead`).

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
        """Embeddings (..., D), which losses on embeddings take."""
        features = self.backbone(*inputs, **options)
        head = self.head
        return head.embed(features) if is_head(head) else features

    @property
    def prototypes(self) -> Tensor:
        """The head's (K, D)."""
        return self.head.prototypes  # type: ignore[return-value]

    def get_classifier(self) -> nn.Module:
        """The head, as timm's models name theirs."""
        return self.head
