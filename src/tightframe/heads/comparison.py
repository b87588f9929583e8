"""`ComparisonHead`: what every head that compares embeddings with one vector a class has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tightframe.checks import require_positive
from tightframe.errors import ChoiceError, LabelError, ShapeError, StateError
from tightframe.fixed import FixedTensors
from tightframe.heads.similarity import SIMILARITIES
from tightframe.layout import features_last, like_features, rows_of


class ComparisonHead(FixedTensors, ABC):
    """Logits by comparing embeddings with prototypes; stands in for a model's last `nn.Linear`.

    Features (N, D_in), (N, T, D_in) or (N, D_in, H, W) give logits (N, K), (N, T, K) or (N, K, H, W). The embedding is
    the feature itself or its projection to the prototypes' dimension.

    Classes may be closed: without logits, until `open` lets them in. Prototypes reserved for classes that come later
    stay where they are: class-incremental learning.

    Like `nn.Linear` it has `in_features`, `out_features`, `weight` and `bias`: for weight (K, D) and bias (K,) or None,
    argmax of weight z + bias is the head's own decision on an embedding z, whatever its logits.

    A head made on the meta device gets its prototypes and scale back at `to_empty` and `reset_parameters`, or takes
    those of a state dict with `load_state_dict(..., assign=True)`.
    """

    _scale: Tensor
    log_scale: Tensor
    decides_linearly = True
    follows_labels = False  # whether `forward` takes labels, to follow the class means

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
        if logits not in SIMILARITIES:
            raise ChoiceError(f"logits must be one of {', '.join(SIMILARITIES)}; got {logits!r}.")
        scale = SIMILARITIES[logits].scale if scale is None else scale
        require_positive(scale, "the scale of logits")
        require_positive(delta, "delta")
        self.logits, self.delta, self._first_scale = logits, delta, float(scale)
        self._open: int | None = None  # all
        if in_features is None:
            in_features = dim if projection is None else getattr(projection, "in_features", None)
            if not isinstance(in_features, int):
                name = type(projection).__name__
                raise ShapeError(f"pass in_features=, as a {name} doesn't say how wide its input is.")
        if projection is None and in_features != dim:
            projection = nn.Linear(in_features, dim, bias=False, device=device, dtype=dtype)
        self.dim, self.in_features, self.projection = dim, int(in_features), projection
        name, start = ("log_scale", math.log(scale)) if learn_scale else ("_scale", float(scale))
        value = torch.tensor(start, dtype=torch.float64, device="cpu")
        self.hold(name, value, saved=True, learnt=learn_scale, device=device, dtype=dtype or torch.get_default_dtype())

    # ------------------------------------------------------------------ what a subclass has

    @property
    @abstractmethod
    def prototypes(self) -> Tensor:
        """(K, D), the vectors that embeddings are compared with."""

    # ------------------------------------------------------------------ using it

    @property
    def scale(self) -> Tensor:
        """0-d, > 0: what the similarities are multiplied by; learnt as its logarithm."""
        return self.log_scale.exp() if "log_scale" in self._parameters else self._scale

    @property
    def out_features(self) -> int:
        """The number of open classes, and of logits."""
        return self.num_prototypes if self._open is None else self._open

    @property
    def num_prototypes(self) -> int:
        """K, also of classes that aren't open."""
        return self.prototypes.shape[0]

    def open(self, num_classes: int) -> None:
        """Give the first `num_classes` classes logits; no vector moves. Raises: LabelError beyond the prototypes."""
        if not 1 <= num_classes <= self.num_prototypes:
            raise LabelError(f"open classes must be in [1, {self.num_prototypes}]; got {num_classes}.")
        self._open = num_classes if num_classes < self.num_prototypes else None

    def get_extra_state(self) -> Tensor:
        """The number of open classes."""
        return torch.tensor(self.out_features, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Open as many classes as the saved head had. Raises: StateError where there are fewer prototypes."""
        if int(state) > self.num_prototypes:
            raise StateError(
                f"the saved head has {int(state)} open classes, this one {self.num_prototypes} prototypes: append."
            )
        self.open(int(state))

    @property
    def weight(self) -> Tensor:
        """(K, D) of the open classes: with `bias`, the linear rule that decides like the head on an embedding."""
        return SIMILARITIES[self.logits].rule(self.prototypes[: self.out_features])[0]

    @property
    def bias(self) -> Tensor | None:
        """(K,) or None; see `weight`."""
        return SIMILARITIES[self.logits].rule(self.prototypes[: self.out_features])[1]

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings of features, (N, D), (N, T, D) or (N, D, H, W) like these: what the losses take.

        Raises: ShapeError for features of another width, or a projection to another dimension than the prototypes'.
        """
        rows = features_last(features, self.in_features)
        if self.projection is None:
            return features
        flat = self.projection(rows.reshape(-1, self.in_features))
        if flat.ndim != 2 or flat.shape[1] != self.dim:
            raise ShapeError(
                f"the projection must give (N, {self.dim}), the prototypes' dimension; got {tuple(flat.shape)}."
            )
        return like_features(flat.unflatten(0, rows.shape[:-1])) if rows.ndim > 2 else flat

    def compare(self, embeddings: Tensor, prototypes: Tensor | None = None) -> Tensor:
        """Logits of embeddings in their layout, by default with the head's own prototypes (K, D) of the open classes.

        In the embeddings' dtype (autocast's for "dot" and "cosine"), but distances in float32 at least.
        Under "cosine" an embedding of length zero has logits 0 and no gradient.
        Warns: ZeroVectorWarning naming the first such embedding, once for each head (on the CPU).
        """
        vectors = self.prototypes[: self.out_features] if prototypes is None else prototypes
        last = rows_of(embeddings)
        rows = last.reshape(-1, last.shape[-1]) if last.ndim > 2 else last
        logits = SIMILARITIES[self.logits].scores(rows, vectors, self.scale, self.delta, self)
        return like_features(logits.unflatten(0, last.shape[:-1])) if last.ndim > 2 else logits

    def forward(self, features: Tensor) -> Tensor:
        return self.compare(self.embed(features))

    def reset_parameters(self) -> None:
        """Prototypes and scale as they were made, the projection anew."""
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
    """Call `reset_parameters` on every module inside that has one, the module itself included."""
    for inner in module.modules():
        if callable(reset := getattr(inner, "reset_parameters", None)):
            reset()
