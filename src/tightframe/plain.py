"""Plain data for JSON, which has no NaN, no infinity and no tensor: how values are written, and read again."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tightframe.errors import StateError

_LARGEST_INTEGER = 1 << 63
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


def restored(kind: Any, value: Any, where: str = "the value") -> Any:
    """A value of some type from plain data: the inverse of `plain` for dataclasses, tuples, mappings and numbers.

    A dataclass may have its own `from_dict`. Of its fields, those that the data lack get their default, or else None;
    entries that it doesn't have are dropped. A union of dataclasses is told apart by the entry "kind".

    Args:
        where: the name of the value, for messages.

    Raises: StateError naming the entry that isn't of its type.

    >>> restored(tuple[float, ...], ["nan", 1.5])
    (nan, 1.5)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(arguments, value, where)
    if origin is Literal:
        return _require(value, isinstance(value, str) and value in arguments, f"one of {', '.join(arguments)}", where)
    if isinstance(kind, type) and is_dataclass(kind):
        if isinstance(value, kind):
            return value
        _require(value, isinstance(value, Mapping), "an object", where)
        own = getattr(kind, "from_dict", None)
        return restored_fields(kind, value, where) if own is None else own(value)
    if origin is tuple and arguments[-1] is not Ellipsis:
        _require(value, isinstance(value, list | tuple) and len(value) == len(arguments), "a list", where)
        return tuple(restored(each, part, where) for each, part in zip(arguments, value, strict=True))
    if origin in (tuple, list, Sequence):
        _require(value, isinstance(value, list | tuple), "a list", where)
        parts = (restored(arguments[0], part, f"{where}[{place}]") for place, part in enumerate(value))
        return tuple(parts) if origin is tuple else list(parts)
    if origin in (dict, Mapping):
        _require(value, isinstance(value, Mapping), "an object", where)
        return {_text(str(key)): restored(arguments[1], each, f"{where}[{key!r}]") for key, each in value.items()}
    if kind is float:
        number = math.nan if value is None else number_of(value)  # earlier versions wrote None for NaN
        return _require(number, isinstance(number, Real) and not isinstance(number, bool), "a number", where)
    if kind is int:
        whole = isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < _LARGEST_INTEGER
        return _require(value, whole, "an integer", where)
    if kind is str:
        return _text(_require(value, isinstance(value, str), "text", where))
    return _require(value, isinstance(value, kind), kind.__name__, where)


def restored_fields(kind: Any, data: Mapping[str, Any], where: str, leave: Iterable[str] = ()) -> Any:
    """A dataclass from plain data, as `restored`, for its own `from_dict`.

    Args:
        leave: fields that stay as they are.
    """
    types, arguments = _types(kind), {}
    for each in fields(kind):
        if each.name in leave and each.name in data:
            arguments[each.name] = data[each.name]
        elif each.name in data:
            arguments[each.name] = restored(types[each.name], data[each.name], f"{where}.{each.name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            if NoneType not in get_args(types[each.name]):
                raise StateError(f"{where} lacks {each.name!r}.")
            arguments[each.name] = None
    return kind(**arguments)


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if isinstance(value, Mapping) and "kind" in value:
        kinds = [kind for kind in kinds if getattr(kind, "__name__", "") == value["kind"]] or kinds
    for kind in kinds[:-1]:
        try:
            return restored(kind, value, where)
        except StateError:
            continue
    return restored(kinds[-1], value, where)


def _require(value: Any, valid: bool, expected: str, where: str) -> Any:
    """The value, or StateError unless it is valid."""
    if not valid:
        got = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
        raise StateError(f"{where} must be {expected}; got {got:.60}.")
    return value


def _text(value: str) -> str:
    """Text that UTF-8 can hold: JSON can name halves of characters."""
    return value.encode("utf-8", "replace").decode("utf-8")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON of the value as plain data."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """CSV of rows; None is an empty cell. A spreadsheet reads no cell as a formula, and text is on one line.

    >>> csv_text([["=1+1", None], ["a", 0.5]])
    "'=1+1,\\na,0.5\\n"
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_cell(each) for each in row] for row in rows)
    return out.getvalue()


_SPACES = dict.fromkeys(map(ord, "\r\n\t"), " ")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    text = value.translate(_SPACES)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def written_to(text: str, path: str | os.PathLike[str] | None) -> str:
    """The text, also written to `path` if given."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
