"""The outputs of a model, compared with the outputs of its classifier on the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tightframe.hooks import Classifier
from tightframe.hooks.capture import tensors_in
from tightframe.layout import labels_at, rows_of

_ROWS = 256  # number of compared rows
_AGREEMENT = 0.9  # least share of equal decisions that confirms a classifier; precision and ties cost less
_FIRST = ("logits",)


def logits_in(output: Any, shape: Sequence[int], num_classes: int | None = None) -> Tensor | None:
    """The logits (..., K) among a model's outputs: one row per feature, or a finer resolution.

    Args:
        shape: shape of the features without D.
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
    """(...) int64, the argmax of logits (..., K) at each feature; for a single logit, whether it is positive."""
    if logits.shape[-1] == 1:
        return labels_at((logits[..., 0] > 0).long(), shape)
    return labels_at(logits.argmax(-1), shape)


@dataclass(frozen=True)
class Agreement:
    """Agreement of a model's output with its classifier's on some features.

    Attributes:
        returned: number of values per feature in the model's output; None if unknown.
        share: share of features with equal decisions, up to rounding; None if unknown.
        is_output: whether the module's output equals the model's up to constants. The module is then the classifier,
            even if its decisions are not those of its weight.
    """

    returned: int | None = None
    share: float | None = None
    is_output: bool = False

    @property
    def confirmed(self) -> bool:
        """Whether the classifier agrees with the model, or nothing is known."""
        return self.share is None or self.share >= _AGREEMENT


def agreement(head: Classifier, features: Tensor, output: Any, own: Any) -> Agreement:
    """The agreement of the classifier with the model's output on features (..., D) of a batch.

    Args:
        output: output of the model. own: output of the classifier's module.
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
    decided = scores.gather(1, logits.argmax(1, keepdim=True))
    share = float((decided >= scores.amax(1, keepdim=True) - room).double().mean())
    return Agreement(head.outputs, share, _differ_by_a_constant(logits, own))


def _differ_by_a_constant(logits: Tensor, output: Any) -> bool:
    """Whether logits (N, K) equal a module's output up to a constant per class and per row."""
    own = next((rows_of(each) for each in tensors_in(output) if each.shape[-1] == logits.shape[-1]), None)
    if own is None or own.numel() < logits.numel():
        return False
    gaps = logits - own.reshape(-1, logits.shape[-1])[: len(logits)].to(logits)
    gaps = gaps - gaps.mean(1, keepdim=True)
    return bool((gaps - gaps.mean(0)).abs().max() <= 1e-2 * (logits - logits.mean(0)).abs().max())
