"""`CentreCollapse`: a regulariser for pixels and tokens, where a few classes occupy most positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tightframe.checks import Array
from tightframe.errors import ChoiceError, ShapeError
from tightframe.layout import labelled_rows
from tightframe.losses.alignment import PrototypeCrossEntropy
from tightframe.losses.class_loss import number_or_one, require_on_empty, require_some
from tightframe.numerics import widened, without_autocast
from tightframe.prototypes import Prototypes


class CentreCollapse(nn.Module):
    """Cross-entropy of the mean embedding of each class in each image, with logits scale cos(mean, p_k).

    Each class in an image has equal weight, independent of its number of pixels. Added to the loss of the pixels, it
    keeps the prototypes of rare classes apart.

    Args:
        prototypes: usually fixed, a simplex ETF; or a head. scale: as for `PrototypeCrossEntropy`.
        reduction: "mean" over all (image, class in the image) pairs, or "sum".
        ignore_index: label of pixels without a class.
        on_empty: see `ClassLoss`.

    Range: as for `PrototypeCrossEntropy`.
    Call: embeddings (N, D, H, W) or (N, T, D) and labels (N, H, W) or (N, T). Memory: N K D.
    Raises: as `ClassLoss`. Source: Zhong et al. 2023 (Understanding imbalanced semantic segmentation through neural
    collapse), centre collapse regulariser.

    >>> import torch
    >>> from tightframe.losses import CentreCollapse
    >>> pixels = torch.eye(2)[torch.tensor([[0, 0, 0, 1]])]  # an image of four positions
    >>> CentreCollapse(torch.eye(2), scale=1.0)(pixels, torch.tensor([[0, 0, 0, 1]]))  # ln(1 + 1/e)
    tensor(0.3133)
    """

    def __init__(
        self,
        prototypes: Prototypes | Array | nn.Module,
        *,
        scale: float | None = None,
        reduction: str = "mean",
        ignore_index: int = -100,
        on_empty: str = "zero",
    ):
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ChoiceError(f'reduction must be "mean" or "sum"; got {reduction!r}.')
        self.centres = PrototypeCrossEntropy(prototypes, scale=scale, reduction="none")
        require_on_empty(on_empty)
        self.reduction, self.ignore_index, self.on_empty = reduction, ignore_index, on_empty

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if embeddings.ndim < 3:
            raise ShapeError(
                f"embeddings must be (N, T, D) or (N, D, H, W), several positions per image; got "
                f"{tuple(embeddings.shape)}."
            )
        images, classes = len(labels), self.centres.num_classes
        rows, flat, kept = labelled_rows(embeddings, labels, self.centres.num_features, classes, self.ignore_index)
        if self.reduction == "mean" and self.on_empty == "error":
            require_some(kept, self.ignore_index)
        with without_autocast(embeddings.device):
            rows = torch.where(kept[:, None], widened(rows), 0.0)
            positions = labels[0].numel() if images else 0
            image = torch.arange(images, device=flat.device).repeat_interleave(positions)
            cell = image * classes + flat
            sums = rows.new_zeros(images * classes, rows.shape[1]).index_add(0, cell, rows)
            counts = rows.new_zeros(images * classes).index_add(0, cell, kept.to(rows.dtype))
            present = counts > 0
            # absent classes get any direction; their loss is not counted
            centres = torch.where(present[:, None], sums, 1.0)
            target = torch.arange(classes, device=flat.device).repeat(images)
            logits = self.centres.logits(centres, "centres")
            losses = torch.where(present, cross_entropy(logits, target, reduction="none"), 0.0)
            if self.reduction == "sum":
                return losses.sum()
            number = present.sum()
            return losses.sum() / (number if self.on_empty == "error" else number_or_one(number, kept))

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, ignore_index={self.ignore_index}"
