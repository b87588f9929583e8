"""`ComparisonHead`: base class of heads that compare embeddings with one vector per class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tightframe.checks import require_positive
from tightframe.choices import require_choice
from tightframe.errors import LabelError, ShapeError, StateError
from tightframe.fixed import FixedTensors
from tightframe.heads.similarity import SIMILARITIES
from tightframe.layout import features_last, like_features, rows_of


class ComparisonHead(FixedTensors, ABC):
    """A head whose logits compare embeddings with prototypes; replaces a model's last `nn.Linear`.

    Features (N, D_in), (N, T, D_in) or (N, D_in, H, W) give logits (N, K), (N, T, K) or (N, K, H, W). The embedding is
    the feature, or its projection to the dimension of the prototypes.

    For class-incremental learning, classes can be closed: they have prototypes but no logits until `open`.

    Like `nn.Linear` it has `in_features`, `out_features`, `weight` (K, D) and `bias` (K,) or None; the argmax of
    weight z + bias is the head's decision on an embedding z, for any kind of logits.

    On a head made on the meta device, `to_empty` and `reset_parameters` restore prototypes and scale, and
    `load_state_dict(..., assign=True)` loads them.
    """

    _scale: Tensor
    log_scale: Tensor
    decides_linearly = True
    follows_labels = False  # whether `forward` takes labels

    def __init__(
        self,
        dim: int,
        in_features: int | None,
        projection: nn.Module | None,
        logits: str,
        scale: float | None,
        delta: float,
        learn_scale: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ):
        super().__init__()
        require_choice(logits, SIMILARITIES, "logits")
        scale = SIMILARITIES[logits].scale if scale is None else scale
        require_positive(scale, "the scale of logits")
        require_positive(delta, "delta")
        self.logits, self.delta, self._first_scale = logits, delta, float(scale)
        self._open: int | None = None  # None: all classes
        if in_features is None:
            in_features = dim if projection is None else getattr(projection, "in_features", None)
            if not isinstance(in_features, int):
                name = type(projection).__name__
                raise ShapeError(f"the projection, a {name}, has no attribute in_features; pass in_features=.")
        if projection is None and in_features != dim:
            projection = nn.Linear(in_features, dim, bias=False, device=device, dtype=dtype)
        self.dim, self.in_features, self.projection = dim, int(in_features), projection
        name, start = ("log_scale", math.log(scale)) if learn_scale else ("_scale", float(scale))
        value = torch.tensor(start, dtype=torch.float64, device="cpu")
        self.hold(name, value, saved=True, learnt=learn_scale, device=device, dtype=dtype or torch.get_default_dtype())

    # ------------------------------------------------------------------ implemented by subclasses

    @property
    @abstractmethod
    def prototypes(self) -> Tensor:
        """(K, D), the vectors that embeddings are compared with."""

    # ------------------------------------------------------------------ use

    @property
    def scale(self) -> Tensor:
        """0-d, > 0: factor of the similarities; its logarithm is learnt."""
        return self.log_scale.exp() if "log_scale" in self._parameters else self._scale

    @property
    def out_features(self) -> int:
        """Number of open classes, equal to the number of logits."""
        return self.num_prototypes if self._open is None else self._open

    @property
    def num_prototypes(self) -> int:
        """K, including closed classes."""
        return self.prototypes.shape[0]

    def open(self, num_classes: int) -> None:
        """Open the first `num_classes` classes; vectors do not change. Raises: LabelError if there are fewer."""
        if not 1 <= num_classes <= self.num_prototypes:
            raise LabelError(f"num_classes must be in [1, {self.num_prototypes}]; got {num_classes}.")
        self._open = num_classes if num_classes < self.num_prototypes else None

    def get_extra_state(self) -> Tensor:
        """Number of open classes, for `state_dict`."""
        return torch.tensor(self.out_features, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of open classes. Raises: StateError if there are fewer prototypes."""
        if int(state) > self.num_prototypes:
            raise StateError(
                f"the saved head has {int(state)} open classes, but this head has {self.num_prototypes} prototypes. "
                "Call append() first."
            )
        self.open(int(state))

    @property
    def weight(self) -> Tensor:
        """(K, D) for the open classes: with `bias`, the linear rule with the head's decisions on embeddings."""
        return SIMILARITIES[self.logits].rule(self.prototypes[: self.out_features])[0]

    @property
    def bias(self) -> Tensor | None:
        """(K,) or None; see `weight`."""
        return SIMILARITIES[self.logits].rule(self.prototypes[: self.out_features])[1]

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings of features, (N, D), (N, T, D) or (N, D, H, W) in the layout of the features; inputs of losses.

        Raises: ShapeError if the width of the features or of the projection does not fit.
        """
        rows = features_last(features, self.in_features)
        if self.projection is None:
            return features
        flat = self.projection(rows.reshape(-1, self.in_features))
        if flat.ndim != 2 or flat.shape[1] != self.dim:
            raise ShapeError(
                f"the projection must return (N, {self.dim}), as the prototypes have {self.dim} dimensions; got "
                f"{tuple(flat.shape)}."
            )
        return like_features(flat.unflatten(0, rows.shape[:-1])) if rows.ndim > 2 else flat

    def compare(self, embeddings: Tensor, prototypes: Tensor | None = None) -> Tensor:
        """Logits of embeddings, in their layout. Default: with the head's prototypes (K, D) of the open classes.

        Computed in the embeddings' dtype (autocast's for "dot" and "cosine"); distances in float32 at least.
        Under "cosine", an embedding of length zero has logits 0 and no gradient.
        Warns: ZeroVectorWarning naming the first such embedding, once per head (CPU only).
        """
        vectors = self.prototypes[: self.out_features] if prototypes is None else prototypes
        last = rows_of(embeddings)
        rows = last.reshape(-1, last.shape[-1]) if last.ndim > 2 else last
        logits = SIMILARITIES[self.logits].scores(rows, vectors, self.scale, self.delta, self)
        return like_features(logits.unflatten(0, last.shape[:-1])) if last.ndim > 2 else logits

    def forward(self, features: Tensor) -> Tensor:
        return self.compare(self.embed(features))

    def reset_parameters(self) -> None:
        """Reset prototypes, scale and projection."""
        super().reset_parameters()
        if self.projection is not None:
            reset_all(self.projection)

    def extra_repr(self) -> str:
        learnt = "log_scale" in self._parameters
        scale = f"{self._first_scale if self.scale.is_meta else float(self.scale.detach()):g}"
        scale = f"learnt, now {scale}" if learnt else scale
        closed = "" if self._open is None else f", {self.num_prototypes - self._open} closed"
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, dim={self.dim}, "
            f"logits={self.logits!r}, scale={scale}{closed}"
        )


def reset_all(module: nn.Module) -> None:
    """Call `reset_parameters` of the module and of all its submodules that have it."""
    for inner in module.modules():
        if callable(reset := getattr(inner, "reset_parameters", None)):
            reset()
