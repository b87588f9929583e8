"""Shortened names, and the width of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def shortened(names: Sequence[str], longest: int, *, beginnings: bool = False) -> list[str]:
    """The ends of long names, since nested layers differ there; equal ones are numbered.

    Args:
        beginnings: whether to show the beginnings, as for class names, unless two would be equal.
    """
    if beginnings:
        short = [cut(name, longest) for name in names]
        if len(set(short)) == len(short):
            return short
    short = [name if len(name) <= longest else "…" + name[len(name) - longest + 1 :] for name in names]
    counts = Counter(short)
    return [name if counts[name] == 1 else _numbered(name, place, longest) for place, name in enumerate(short, start=1)]


def _numbered(name: str, place: int, longest: int) -> str:
    suffix = f" ({place})"
    room = max(longest - len(suffix), 1)
    return (name if len(name) <= room else "…" + name[len(name) - room + 1 :]) + suffix


def cut(text: str, longest: int) -> str:
    """The beginning of a long text."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def width(text: str, size: float) -> float:
    """An upper estimate of the width of text in a common sans-serif font."""
    return sum(0.95 if ord(letter) > 0x2E80 or letter in "MW@%" else 0.58 for letter in text) * size
