"""Names that a user chooses from a table."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tightframe.errors import ChoiceError, TightframeError


def require_choice(
    value: object, choices: Iterable[str], what: str, error: type[TightframeError] = ChoiceError
) -> None:
    """Raise the error, with all choices and the nearest one, unless the value is one of them.

    >>> require_choice("lineal", ["linear", "etf"], "head")
    Traceback (most recent call last):
    tightframe.errors.ChoiceError: head must be one of linear, etf; got 'lineal'. Did you mean 'linear'?
    """
    names = list(choices)
    if value in names:
        return
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise error(f"{what} must be one of {', '.join(names)}; got {value!r}.{hint}")
