"""Labels of causal language models: the next token of each position, unless one of both is padding."""

from __future__ import annotations

from torch import Tensor, nn

IGNORED = -100
"""Label of positions that torch's cross-entropy and transformers ignore."""


def predicts_next_token(model: nn.Module) -> bool:
    """Whether the model, or a module inside it, declares itself a causal language model, as in transformers."""
    for module in model.modules():
        generates = getattr(module, "can_generate", None)
        config = getattr(module, "config", None)
        if callable(generates) and generates() and not getattr(config, "is_encoder_decoder", False):
            return True
    return False


def are_shifted(labels: Tensor, ids: Tensor, ignored: int) -> bool:
    """Whether labels (N, T) are already the next tokens: equal to ids (N, T) shifted by one, unless ignored."""
    if labels.shape != ids.shape:
        return False
    counted = labels[:, :-1] != ignored
    following, same = labels[:, :-1] == ids[:, 1:].to(labels), labels[:, :-1] == ids[:, :-1].to(labels)
    return bool(counted.any()) and bool(following[counted].all()) and not bool(same[counted].all())


def next_labels(labels: Tensor, mask: Tensor | None, ignored: int) -> Tensor:
    """(N, T) label of the next position; `ignored` at the last position and if either position is padding.

    Args:
        labels: (N, T). mask: (N, T), 0 for padding, or None.
    """
    following = labels.new_full(labels.shape, ignored)
    following[..., :-1] = labels[..., 1:]
    if mask is None:
        return following
    tokens = mask.to(labels.device).bool()
    both = tokens.clone()
    both[..., :-1] &= tokens[..., 1:]
    return following.masked_fill(~both, ignored)
