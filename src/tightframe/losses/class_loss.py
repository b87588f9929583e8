"""`ClassLoss`: base class of losses on embeddings or logits with class labels."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tightframe.checks import Array, can_look, require_dense, require_finite
from tightframe.choices import require_choice
from tightframe.errors import EmptyBatchError, ShapeError
from tightframe.fixed import FixedTensors
from tightframe.head import Head, is_head
from tightframe.layout import labelled_rows
from tightframe.numerics import directions, unit_embeddings, widened, without_autocast
from tightframe.prototypes import Prototypes

REDUCTIONS = ("mean", "sum", "none")
ON_EMPTY = ("zero", "error")


class ClassLoss(FixedTensors, ABC):
    """A loss per row and label, weighted by class and reduced over rows.

    Inputs (N, C), (N, T, C) or (N, C, H, W) with labels of that shape without C. Computed in float32 at least, also
    under autocast. Rows with the label `ignore_index` have no loss and no gradient, even if they are not finite.

    Args:
        num_classes: K.
        weight: (K,) class weights; "mean" divides by the sum of the rows' weights, as in torch.
        reduction: "mean", "sum", or "none" (shape of the labels, 0 for ignored rows).
        on_empty: result of "mean" if all labels are ignored: "zero", with gradient 0, or "error".

    Raises: LabelError, ShapeError, DtypeError; with on_empty="error" EmptyBatchError. Values are checked on the CPU
    only; on other devices an empty mean with on_empty="error" is NaN, as in torch.
    """

    weight: Tensor | None

    def __init__(
        self, num_classes: int, weight: Tensor | None, reduction: str, ignore_index: int, on_empty: str = "zero"
    ):
        super().__init__()
        require_reduction(reduction)
        require_on_empty(on_empty)
        if weight is not None:
            if weight.shape != (num_classes,):
                raise ShapeError(f"class weights must have shape ({num_classes},); got {tuple(weight.shape)}.")
            require_dense(weight, "class weights")
            require_finite(weight.reshape(-1, 1), "class weights")
        self.reduction, self.ignore_index, self.on_empty = reduction, ignore_index, on_empty
        self.hold("weight", weight)

    @abstractmethod
    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        """(N,) losses from float rows (N, C) and labels (N,); ignored rows, with `kept` False, are ones, label 0."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K; labels are in [0, K)."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """C, the width of the inputs."""

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with without_autocast(inputs.device):
            rows, flat, kept = labelled_rows(inputs, labels, self.num_features, self.num_classes, self.ignore_index)
            if self.reduction == "mean" and self.on_empty == "error":
                require_some(kept, self.ignore_index)
            rows = torch.where(kept[:, None], widened(rows), 1.0)
            values = self.losses(rows, flat, kept)
            shares = kept.to(values.dtype)
            if self.weight is not None:
                shares = shares * self.weight.to(values)[flat]
            values = values * shares
            if self.reduction == "none":
                return values.view(labels.shape)
            if self.reduction == "sum":
                return values.sum()
            return values.sum() / (shares.sum() if self.on_empty == "error" else number_or_one(shares.sum(), kept))

    def extra_repr(self) -> str:
        weighted = "" if self.weight is None else ", weighted"
        return f"{self.num_classes} classes, reduction={self.reduction!r}, ignore_index={self.ignore_index}{weighted}"


class EmbeddingLoss(ClassLoss):
    """A `ClassLoss` of embeddings (N, D) and prototypes: `Prototypes`, vectors (K, D), or a `Head` with prototypes.

    A head's current prototypes of its open classes are used; learnt prototypes get gradients. The head is not a
    submodule of the loss: deep-copy both together, or construct a new loss. A subclass defines `losses`, one value per
    row.

    An embedding of length zero has cosines 0 and no gradient.
    Warns: ZeroVectorWarning naming the first such embedding, once (CPU only).

    >>> import torch
    >>> from tightframe.losses import EmbeddingLoss
    >>> class Gap(EmbeddingLoss):
    ...     def losses(self, rows, labels, kept):
    ...         return self.gaps(rows, labels)  # 1 - cos(z, p_y)
    >>> Gap(torch.eye(2))(torch.tensor([[0.0, 3.0], [0.0, 1.0]]), torch.tensor([0, 1]))  # orthogonal; aligned
    tensor(0.5000)
    """

    fixed: Tensor | None

    def __init__(
        self,
        prototypes: Prototypes | Array | nn.Module,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        head: Head | None = None
        fixed: Tensor | None = None
        if is_head(prototypes):
            head, vectors = prototypes, _vectors_of(prototypes)
        elif isinstance(prototypes, nn.Module):
            raise ShapeError(
                f"prototypes must be vectors (K, D), Prototypes or a {Head.__name__} with prototypes; got "
                f"{type(prototypes).__name__}. Pass the head of a model, or vectors."
            )
        else:
            fixed = vectors = Prototypes.of(prototypes).vectors.detach().clone()
            directions(fixed, "prototypes")
        super().__init__(len(vectors), weight, reduction, ignore_index, on_empty)
        self._head: tuple[Head] | None = None if head is None else (head,)  # a tuple hides its parameters from the loss
        self.hold("fixed", fixed)

    @property
    def prototypes(self) -> Tensor:
        """(K, D)."""
        if self._head is not None:
            return _vectors_of(self._head[0])
        assert self.fixed is not None
        return self.fixed

    @property
    def num_classes(self) -> int:
        """K, the current number of prototypes."""
        return self.prototypes.shape[0]

    @property
    def num_features(self) -> int:
        """D."""
        return self.prototypes.shape[1]

    def gaps(self, rows: Tensor, labels: Tensor) -> Tensor:
        """1 - cos(z, p_y), (N,); 1 for an embedding of length zero."""
        return self.gaps_to(directions(self.own(rows, labels), "prototypes of the labels"), rows)

    def gaps_to(self, targets: Tensor, rows: Tensor, what: str = "embeddings") -> Tensor:
        """1 - cos(z, target) for unit targets (N, D): half the squared distance, without cancellation near 0."""
        unit, zero = self.unit(rows, what)
        gaps = (unit - targets).square().sum(1) / 2
        return gaps if zero is None else torch.where(zero, 1.0, gaps)

    def unit(self, rows: Tensor, what: str = "embeddings") -> tuple[Tensor, Tensor | None]:
        """`unit_embeddings` of the rows (N, D), and which have length zero, (N,) or None; a loss and its head warn only
        once.
        """
        return unit_embeddings(rows, self if self._head is None else self._head[0], what)

    def own(self, rows: Tensor, labels: Tensor) -> Tensor:
        """The prototype of each row's class, (N, D), in the rows' dtype; indexed before the cast, as K may exceed N."""
        return self.prototypes[labels].to(rows)


def require_some(kept: Tensor, ignore_index: int) -> None:
    """Raise EmptyBatchError if all rows are ignored; only where values can be read (`can_look`)."""
    if can_look(kept) and not kept.any():
        raise EmptyBatchError(
            f"the mean loss needs at least one labelled row; all {len(kept)} labels are ignore_index={ignore_index}. "
            'Skip such batches, or pass on_empty="zero".'
        )


def number_or_one(number: Tensor, kept: Tensor) -> Tensor:
    """Denominator of a mean: the number or weight (0-d) of the labelled rows, or 1 if there are none."""
    return torch.where(kept.any(), number, 1)


def require_on_empty(on_empty: str) -> None:
    """Raise ChoiceError unless it is one of `ON_EMPTY`."""
    require_choice(on_empty, ON_EMPTY, "on_empty")


def require_reduction(reduction: str) -> None:
    """Raise ChoiceError unless it is one of `REDUCTIONS`."""
    require_choice(reduction, REDUCTIONS, "reduction")


def _vectors_of(head: Head) -> Tensor:
    """(K, D), the prototypes of a head's open classes."""
    vectors = head.prototypes
    if not isinstance(vectors, Tensor) or vectors.ndim != 2:
        raise ShapeError(f"the head must have prototypes (K, D); {type(head).__name__}.prototypes is not a matrix.")
    return vectors[: head.out_features]
