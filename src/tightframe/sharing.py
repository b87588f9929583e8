"""`once`: what several functions derive of one object, made once and kept as long as the object lives; `warn_once`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")

_KEPT = WeakIdKeyDictionary()


def once(owner: object, name: str, make: Callable[[], T], *reads: Tensor | None) -> T:
    """What `make` gives, made the first time that it is asked of the owner; kept beside it, not in it.

    Args:
        reads: the tensors that it is made of. If one of them has a graph nothing is kept, as a part of a graph can't be
            shared by several backward passes; if one has been changed in place, it is made anew.
    """
    if any(each is not None and each.requires_grad for each in reads):
        return make()
    version = tuple(None if each is None or each.is_inference() else each._version for each in reads)
    known: dict[str, tuple[Any, Any]] = _KEPT.setdefault(owner, {})
    if name not in known or known[name][0] != version:
        known[name] = version, make()
    return known[name][1]


def warn_once(owner: object, message: str, category: type[Warning]) -> None:
    """Warn if this owner hasn't yet warned of this category; without an owner, always."""

    def warn() -> None:
        warnings.warn(message, category, stacklevel=2)

    if owner is None:
        warn()
    else:
        once(owner, category.__name__, warn)


def forget(owner: object) -> None:
    """Let go of what was kept for an object: it may take several times the object's own memory."""
    if owner in _KEPT:
        del _KEPT[owner]
