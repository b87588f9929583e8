"""Plain data for JSON, which has no NaN, no infinity and no tensor: how values are written, and read again."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    >>> import math
    >>> from tightframe.plain import plain
    >>> import numpy as np
    >>> plain({"rank": np.int64(3), "value": [math.nan, 1.5]})
    {'rank': 3, 'value': ['nan', 1.5]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if callable(listed := getattr(value, "tolist", None)):  # arrays of numpy, torch and others, not imported here
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


class _MismatchError(Exception):
    """A value that isn't of its type; containers add where it is as it rises."""

    def __init__(self, expected: str, value: Any):
        super().__init__(expected)
        self.expected, self.value, self.path = expected, value, list[str]()

    def message(self, where: str) -> str:
        got = repr(self.value) if isinstance(self.value, str | int | float | None) else type(self.value).__name__
        return f"{where}{''.join(reversed(self.path))} must be {self.expected}; got {got:.60}."


def restored(kind: Any, value: Any, where: str = "the value") -> Any:
    """A value of some type from plain data: the inverse of `plain` for dataclasses, tuples, mappings and numbers.

    A dataclass may have its own `from_dict`. Fields that the data lack get their default, or else None where their type
    admits it; entries that are no fields are dropped. A union of dataclasses is told apart by the entry "kind".

    Args:
        where: the name of the value, for messages.

    Raises: StateError naming the entry that isn't of its type.

    >>> from tightframe.plain import restored
    >>> restored(tuple[float, ...], ["nan", 1.5])
    (nan, 1.5)
    """
    try:
        return _restorer(kind)(value)
    except _MismatchError as mismatch:
        raise StateError(mismatch.message(where)) from None


def restored_fields(kind: Any, data: Mapping[str, Any], where: str, leave: Iterable[str] = ()) -> Any:
    """A dataclass from plain data, as `restored`, for its own `from_dict`.

    Args:
        leave: fields that stay as they are.
    """
    try:
        return _of_fields(kind, data, frozenset(leave))
    except _MismatchError as mismatch:
        raise StateError(mismatch.message(where)) from None


Restorer = Callable[[Any], Any]


@cache
def _restorer(kind: Any) -> Restorer:
    """The function that turns plain data into a type; raises _MismatchError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin in (Union, UnionType):
        return _one_of(arguments)
    if origin is Literal:
        names = f"one of {', '.join(arguments)}"
        return lambda value: _require(value, isinstance(value, str) and value in arguments, names)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _row([_restorer(each) for each in arguments])
    if origin in (tuple, list, Sequence):
        return _sequence(_restorer(arguments[0]), tuple if origin is tuple else list)
    if origin in (dict, Mapping):
        return _mapping(_restorer(arguments[1]))
    if is_dataclass(kind):
        own = getattr(kind, "from_dict", None)
        return _instance(kind, (lambda data: _of_fields(kind, data, frozenset())) if own is None else own)
    return {float: _number, int: _integer, str: _text}.get(kind) or (
        lambda value: _require(value, isinstance(value, kind), kind.__name__)
    )


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return value
    number = math.nan if value is None else number_of(value)  # earlier versions wrote None for NaN
    return _require(number, isinstance(number, Real), "a number")


def _integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _require(value, isinstance(value, Integral) and abs(int(value)) < _LARGEST_INTEGER, "an integer")


def _text(value: Any) -> str:
    """Text that UTF-8 can hold: JSON can name halves of characters."""
    _require(value, isinstance(value, str), "text")
    return str(value) if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _sequence(restore: Restorer, make: Callable[[list[Any]], Any]) -> Restorer:
    def read(value: Any) -> Any:
        parts: list[Any] = []
        try:
            for part in _require(value, isinstance(value, list | tuple), "a list"):
                parts.append(restore(part))
        except _MismatchError as mismatch:
            raise _at(mismatch, f"[{len(parts)}]", value) from None
        return make(parts)

    return read


def _row(restorers: Sequence[Restorer]) -> Restorer:
    def read(value: Any) -> tuple[Any, ...]:
        parts = _require(value, isinstance(value, list | tuple) and len(value) == len(restorers), "a list")
        return tuple(restore(part) for restore, part in zip(restorers, parts, strict=True))

    return read


def _mapping(restore: Restorer) -> Restorer:
    def read(value: Any) -> dict[str, Any]:
        content, key = dict[str, Any](), ""
        try:
            for key, part in _require(value, isinstance(value, Mapping), "an object").items():
                content[_text(str(key))] = restore(part)
        except _MismatchError as mismatch:
            raise _at(mismatch, f"[{key!r}]", value) from None
        return content

    return read


def _instance(kind: Any, make: Restorer) -> Restorer:
    return lambda value: (
        value if isinstance(value, kind) else make(_require(value, isinstance(value, Mapping), "an object"))
    )


def _one_of(kinds: Sequence[Any]) -> Restorer:
    optional, textual = NoneType in kinds, str in kinds
    restorers = [(getattr(kind, "__name__", ""), _restorer(kind)) for kind in kinds if kind is not NoneType]

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        if textual and isinstance(value, str):  # unions are equal in any order: "nan" is text wherever text may stand
            return _text(value)
        fitting = restorers
        if len(fitting) > 1 and isinstance(value, Mapping) and "kind" in value:
            fitting = [each for each in restorers if each[0] == value["kind"]] or restorers
        for _, restore in fitting[:-1]:
            try:
                return restore(value)
            except (_MismatchError, StateError):
                continue
        return fitting[-1][1](value)

    return read


@cache
def _fields_of(kind: Any) -> list[tuple[str, Restorer, bool, bool]]:
    """Name, restorer, whether it has a default, and whether it may be None, of each field."""
    types = get_type_hints(kind)
    return [
        (
            each.name,
            _restorer(types[each.name]),
            each.default is not MISSING or each.default_factory is not MISSING,
            NoneType in get_args(types[each.name]),
        )
        for each in fields(kind)
    ]


def _of_fields(kind: Any, data: Mapping[str, Any], leave: frozenset[str]) -> Any:
    arguments: dict[str, Any] = {}
    for name, restore, has_default, optional in _fields_of(kind):
        if name in data:
            try:
                arguments[name] = data[name] if name in leave else restore(data[name])
            except _MismatchError as mismatch:
                raise _at(mismatch, f".{name}", data) from None
        elif not has_default:
            if not optional:
                raise _MismatchError(f"an object with {name!r}", data)
            arguments[name] = None
    return kind(**arguments)


def _at(mismatch: _MismatchError, step: str, container: Any) -> _MismatchError:
    """The mismatch with a step of the way to it; none if the container itself is the value that doesn't fit."""
    if mismatch.value is not container or mismatch.path:
        mismatch.path.append(step)
    return mismatch


def _require(value: Any, valid: bool, expected: str) -> Any:
    """The value, or _MismatchError unless it is valid."""
    if not valid:
        raise _MismatchError(expected, value)
    return value


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON of the value as plain data."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """CSV of rows; None is an empty cell. A spreadsheet reads no cell as a formula, and text is on one line.

    >>> from tightframe.plain import csv_text
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
