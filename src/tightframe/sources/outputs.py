"""What a model returns, compared with what its classifier makes of the same features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from tightframe.hooks import Classifier
from tightframe.layout import labels_at, rows_of

_ROWS = 256  # compared
_AGREEMENT = 0.9  # share of them whose largest output must be the classifier's: precision and ties take less away
_FIRST = ("logits",)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of two or more dimensions in what a model returned, logits first."""
    if isinstance(output, Tensor):
        if output.ndim >= 2 and output.is_floating_point() and not output.is_nested:
            yield output
    elif isinstance(output, Mapping):
        for name in (*(n for n in _FIRST if n in output), *(n for n in output if n not in _FIRST)):
            yield from tensors_in(output[name])
    elif is_dataclass(output) and not isinstance(output, type):
        for each in fields(output):
            yield from tensors_in(getattr(output, each.name))
    elif isinstance(output, Sequence) and not isinstance(output, str | bytes):
        for value in output:
            yield from tensors_in(value)


def logits_in(output: Any, shape: Sequence[int], num_classes: int | None = None) -> Tensor | None:
    """(..., K) the logits among what a model returned: those with a row for each feature, or at a finer resolution.

    Args:
        shape: of the features, without D.
        num_classes: K; None for any.
    """
    for tensor in tensors_in(output):
        for last in dict.fromkeys((rows_of(tensor), tensor)):
            fits = num_classes is None or last.shape[-1] == num_classes
            if fits and tuple(last.shape[:-1]) == tuple(shape):
                return last
    for tensor in tensors_in(output):
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
    """

    returned: int | None = None
    share: float | None = None

    @property
    def confirmed(self) -> bool:
        """Whether nothing speaks against the classifier."""
        return self.share is None or self.share >= _AGREEMENT


def agreement(head: Classifier, features: Tensor, output: Any) -> Agreement:
    """Whether the classifier decides what the model returned for features (..., D) of a batch."""
    shape = features.shape[:-1]
    if head.weight is None or not head.decides_linearly or head.weight.shape[1] != features.shape[-1]:
        return Agreement()
    candidates = [rows_of(each) for each in tensors_in(output)]
    aligned = [each for each in candidates if each.shape[:-1] == shape]
    if not aligned:
        return Agreement()
    same = [each for each in aligned if each.shape[-1] == head.outputs]
    if not same:
        return Agreement(aligned[0].shape[-1], 0.0)
    if head.outputs == 1:
        return Agreement(1)  # a probability and a logit decide at different values
    rows = features.reshape(-1, features.shape[-1])[:_ROWS].to(head.weight)
    scores = rows @ head.weight.mT + (0 if head.bias is None else head.bias)
    room = 16 * torch.finfo(features.dtype).eps * rows.norm(dim=1, keepdim=True) * head.weight.norm(dim=1).max()
    shares = []
    for each in same:
        logits = each.reshape(-1, head.outputs)[:_ROWS].to(scores)
        if not bool(torch.isfinite(logits).all()):
            return Agreement(head.outputs)
        chosen = scores.gather(1, logits.argmax(1, keepdim=True))
        shares.append(float((chosen >= scores.amax(1, keepdim=True) - room).double().mean()))
    return Agreement(head.outputs, max(shares))
