"""What a model returns, compared with what its classifier makes of the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tightframe.hooks import Classifier
from tightframe.hooks.capture import tensors_in
from tightframe.layout import labels_at, rows_of

_ROWS = 256  # compared
_AGREEMENT = 0.9  # share of them whose largest output must be the classifier's: precision and ties take less away
_FIRST = ("logits",)


def logits_in(output: Any, shape: Sequence[int], num_classes: int | None = None) -> Tensor | None:
    """(..., K) the logits among what a model returned: those with a row for each feature, or at a finer resolution.

    Args:
        shape: of the features, without D.
        num_classes: K; None for any.
    """
    for tensor in tensors_in(output, _FIRST):
        for last in dict.fromkeys((rows_of(tensor), tensor)):
            fits = num_classes is None or last.shape[-1] == num_classes
            if fits and tuple(last.shape[:-1]) == tuple(shape):
                return last
    for tensor in tensors_in(output, _FIRST):
        last = rows_of(tensor)
        fits = num_classes is None or last.shape[-1] == num_classes
        if fits and len(shape) > 2 and last.ndim == len(shape) + 1 and last.shape[0] == shape[0]:
            return last
    return None


def decisions_of(logits: Tensor, shape: Sequence[int]) -> Tensor | None:
    """(...) int64, the largest of logits (..., K) at each feature; of one logit, whether it is positive."""
    if logits.shape[-1] == 1:
        return labels_at((logits[..., 0] > 0).long(), shape)
    return labels_at(logits.argmax(-1), shape)


@dataclass(frozen=True)
class Agreement:
    """How a model's output and its classifier's agree on some features.

    Attributes:
        returned: the number of values that the model returned for a feature; None where that can't be told.
        share: of the features whose decisions are equal, up to rounding; None where that can't be told.
        is_output: whether what the module itself gives is what the model returned, but for constants: it is the
            classifier then, though its decisions may not be those of its weight.
    """

    returned: int | None = None
    share: float | None = None
    is_output: bool = False

    @property
    def confirmed(self) -> bool:
        """Whether nothing speaks against the classifier."""
        return self.share is None or self.share >= _AGREEMENT


def agreement(head: Classifier, features: Tensor, output: Any, given: Any) -> Agreement:
    """Whether the classifier decides what the model returned for features (..., D) of a batch.

    Args:
        output: of the model. given: the output of the classifier's module.
    """
    shape = features.shape[:-1]
    if head.weight is None or not head.decides_linearly or head.weight.shape[1] != features.shape[-1]:
        return Agreement()
    aligned = [each for each in map(rows_of, tensors_in(output, _FIRST)) if each.shape[:-1] == shape]
    if not aligned:
        return Agreement()
    same = [each for each in aligned if each.shape[-1] == head.outputs]
    if not same:
        return Agreement(aligned[0].shape[-1], 0.0)
    if head.outputs == 1:
        return Agreement(1)  # a probability and a logit decide at different values
    rows = features.reshape(-1, features.shape[-1])[:_ROWS].to(head.weight)
    scores = rows @ head.weight.mT + (0 if head.bias is None else head.bias)
    epsilon = max(torch.finfo(each.dtype).eps for each in (features, same[0]))
    room = 16 * epsilon * rows.norm(dim=1, keepdim=True) * head.weight.norm(dim=1).max()
    logits = same[0].reshape(-1, head.outputs)[:_ROWS].to(scores)
    if not bool(torch.isfinite(logits).all()):
        return Agreement(head.outputs)
    chosen = scores.gather(1, logits.argmax(1, keepdim=True))
    share = float((chosen >= scores.amax(1, keepdim=True) - room).double().mean())
    return Agreement(head.outputs, share, _differ_by_a_constant(logits, given))


def _differ_by_a_constant(logits: Tensor, given: Any) -> bool:
    """Whether logits (N, K) are what a module gave, but for something that is the same for all rows or all classes."""
    own = next((rows_of(each) for each in tensors_in(given) if each.shape[-1] == logits.shape[-1]), None)
    if own is None or own.numel() < logits.numel():
        return False
    gaps = logits - own.reshape(-1, logits.shape[-1])[: len(logits)].to(logits)
    gaps = gaps - gaps.mean(1, keepdim=True)
    return bool((gaps - gaps.mean(0)).abs().max() <= 1e-2 * (logits - logits.mean(0)).abs().max())
