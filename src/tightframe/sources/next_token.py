"""Labels of causal language models: the next token of each position, where neither is padding."""

from __future__ import annotations

from torch import Tensor, nn

IGNORED = -100
"""What torch's cross-entropy and transformers label positions with that don't count."""


def predicts_next_token(model: nn.Module) -> bool:
    """Whether the model, or one inside it, is a causal language model, as transformers' say it themselves."""
    for module in model.modules():
        generates = getattr(module, "can_generate", None)
        config = getattr(module, "config", None)
        if callable(generates) and generates() and not getattr(config, "is_encoder_decoder", False):
            return True
    return False


def are_shifted(labels: Tensor, ids: Tensor, ignored: int) -> bool:
    """Whether labels (N, T) are the next tokens already: those of ids (N, T) one position on, wherever they count."""
    if labels.shape != ids.shape:
        return False
    counted = labels[:, :-1] != ignored
    following, same = labels[:, :-1] == ids[:, 1:].to(labels), labels[:, :-1] == ids[:, :-1].to(labels)
    return bool(counted.any()) and bool(following[counted].all()) and not bool(same[counted].all())


def next_labels(labels: Tensor, mask: Tensor | None, ignored: int) -> Tensor:
    """(N, T) the label of the next position at each, and `ignored` at the last one and where either is padding.

    Args:
        labels: (N, T). mask: (N, T), 0 where the sequence is padding, or None.
    """
    following = labels.new_full(labels.shape, ignored)
    following[..., :-1] = labels[..., 1:]
    if mask is None:
        return following
    kept = mask.to(labels.device).bool()
    both = kept.clone()
    both[..., :-1] &= kept[..., 1:]
    return following.masked_fill(~both, ignored)
