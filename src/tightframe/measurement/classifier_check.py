"""Whether the classifier that was found decides what the model returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tightframe.hooks import Classifier, features_in
from tightframe.layout import rows_of

_ROWS = 256  # looked at
_AGREEMENT = 0.9  # share of them whose largest output must be the classifier's: precision and ties take less away


def doubts(head: Classifier, features: Tensor, output: Any) -> list[str]:
    """A sentence if it doesn't: if the model's outputs are of another number, or their largest of other classes.

    Nothing is said where that can't be told: of models that return no logits for each feature, and of classifiers whose
    decisions aren't linear.

    Args:
        features: (..., D) into the classifier, of a batch.
        output: what the model returned for it.
    """
    returned = features_in(output)
    if returned is None or not head.decides_linearly:
        return []
    rows, logits = features.reshape(-1, features.shape[-1])[:_ROWS], rows_of(returned)
    if logits.shape[:-1] != features.shape[:-1]:
        return []
    logits = logits.reshape(-1, logits.shape[-1])[:_ROWS]
    found = f"The classifier was taken to be {head.name or 'the model itself'}, with {len(head.weight)} classes, but"
    if logits.shape[-1] != len(head.weight):
        return [f"{found} the model returns {logits.shape[-1]} values; if it is another, name it with classifier=..."]
    scores = rows.to(head.weight) @ head.weight.mT + (0 if head.bias is None else head.bias)
    agreement = float((scores.argmax(1) == logits.to(scores).argmax(1)).double().mean())
    if agreement >= _AGREEMENT or not bool(torch.isfinite(logits).all()):
        return []
    return [
        f"{found} its largest output is the model's for {agreement:.0%} of the samples only; if it is another, name "
        "it with classifier=..."
    ]
