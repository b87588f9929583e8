"""Names to choose from, and the message for a name that isn't among them."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from tightframe.errors import ChoiceError, TightframeError

_LISTED = 16  # names that a message lists; of more it gives the nearest


def require_choice(
    name: object,
    choices: Collection[str],
    what: str,
    *,
    table: str = "",
    error: type[TightframeError] = ChoiceError,
) -> None:
    """Raise the error unless a name is among the choices. The message lists them, or else the nearest.

    Args:
        what: what the name is of, such as "task".
        table: where many choices are listed, such as "tightframe.metrics.METRICS".
    """
    if name in choices:
        return
    few = len(choices) <= _LISTED or not table
    near = difflib.get_close_matches(str(name).lower(), list(choices), n=1 if few else 3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    among = f"be one of {', '.join(choices)}" if few else f"be a name in {table}"
    raise error(f"{what} must {among}; got {name!r}.{hint}")
