"""Plain data for JSON, which has no NaN, no infinity and no tensor: how values are written, and read again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinities as the strings "nan", "inf" and "-inf"; arrays as lists; what
    JSON lacks, such as a path or a date, as text.

    >>> import numpy as np
    >>> plain({"rank": np.int64(3), "value": [math.nan, 1.5]})
    {'rank': 3, 'value': ['nan', 1.5]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if callable(listed := getattr(value, "tolist", None)):  # of numpy, torch and others, none of which is imported here
        return plain(listed())
    if isinstance(value, set | frozenset):
        return [plain(each) for each in sorted(value, key=str)]
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return str(value)


def number_of(value: Any) -> Any:
    """The number that `plain` wrote as text; anything else as it is."""
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON of the value as plain data."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def written_to(text: str, path: str | os.PathLike[str] | None) -> str:
    """The text, also written to `path` if given."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
